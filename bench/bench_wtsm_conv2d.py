"""`wtsm_conv2d`, 32 -> 32 channels on 9x9 with ReLU, the Small branch's middle layers."""

from __future__ import annotations

import copy
from typing import Any

import eager
import peers
import torch
from sizes import frames_of

import bigsmall_kernels as bk


def test_wtsm_conv2d(paired: Any, clips: int, threads: int, quick: bool) -> None:
    x, some = torch.randn(3 * clips, 32, 9, 9), frames_of(clips, 3)
    layer = eager.shifted_convolution(32, 32).requires_grad_(False)
    ours = bk.nn.WTSMConv2d(32, 32, activation="relu").eval().requires_grad_(False)
    ours.load_state_dict(layer[1].state_dict())
    paired(
        "wtsm_conv2d",
        lambda: ours(x),
        peers.inference(layer, [x], threads, quick=quick, without=peers.left_out(clips)),
        [copy.deepcopy(layer).double()(x[some].double())],
        compared=peers.rows(some),
        flops=2 * 9 * 32 * x.numel(),
        nbytes=2 * x.nbytes + layer[1].weight.nbytes,
        bars={"ratio": 3} if clips <= 2 else {"ratio": 2} if clips >= 16 else {},
    )
