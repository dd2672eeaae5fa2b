"""`wtsm_conv2d_stack`, the whole Small branch: 3 -> 32 -> 32 -> 32 -> 64 channels on 9x9."""

from __future__ import annotations

import copy
from typing import Any

import eager
import peers
import torch
from sizes import frames_of

import bigsmall_kernels as bk


def test_wtsm_conv2d_stack(paired: Any, clips: int, threads: int, quick: bool) -> None:
    x, some = torch.randn(3 * clips, 3, 9, 9), frames_of(clips, 3)
    trunk = eager.trunk().requires_grad_(False)
    convolutions = [layer[1] for layer in trunk]
    weights, biases = [c.weight for c in convolutions], [c.bias for c in convolutions]
    packed = torch.ops.bigsmall_kernels.pack_wtsm_conv2d_stack(weights)
    paired(
        "wtsm_conv2d_stack",
        lambda: bk.wtsm_conv2d_stack(x, weights, biases, packed=packed),
        peers.inference(trunk, [x], threads, quick=quick, without=peers.left_out(clips)),
        [copy.deepcopy(trunk).double()(x[some].double())],
        compared=peers.rows(some),
        flops=2 * 81 * 3 * clips * sum(w.numel() for w in weights),
        nbytes=x.nbytes // 3 * (3 + 64) + sum(w.nbytes for w in weights),
    )
