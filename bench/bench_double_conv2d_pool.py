"""`double_conv2d_pool`, the three blocks of the Big branch; one frame a clip."""

from __future__ import annotations

import copy
from typing import Any

import eager
import peers
import pytest
import torch
from sizes import frames_of, in_steps

import bigsmall_kernels as bk

BLOCKS = {"block1": (3, 32, 32, 144, 2), "block2": (32, 32, 64, 72, 2), "block3": (64, 64, 64, 36, 4)}


@pytest.mark.parametrize("name", BLOCKS)
def test_double_conv2d_pool(paired: Any, name: str, clips: int, threads: int, quick: bool) -> None:
    c_in, c_mid, c_out, size, pool = BLOCKS[name]
    steps, clips = in_steps(clips)
    x, some = torch.randn(clips, c_in, size, size), frames_of(clips, 1)
    block = eager.block(c_in, c_mid, c_out, pool).eval().requires_grad_(False)
    first, second = block[0], block[2]
    packed = torch.ops.bigsmall_kernels.pack_double_conv2d_pool(first.weight, second.weight)
    paired(
        f"double_conv2d_pool {name}",
        lambda: bk.double_conv2d_pool(x, first.weight, first.bias, second.weight, second.bias, pool, packed=packed),
        peers.inference(block, [x], threads, quick=quick, without=peers.left_out(clips, steps)),
        [copy.deepcopy(block).double()(x[some].double())],
        compared=peers.rows(some),
        steps=steps,
        kernel="double_conv2d_pool",
        flops=2 * clips * size**2 * (first.weight.numel() + second.weight.numel()),
        nbytes=x.nbytes + 4 * clips * c_out * (size // pool) ** 2 + first.weight.nbytes + second.weight.nbytes,
    )
