"""`wtsm` on the Small branch's maps, (3 * clips, 32, 9, 9)."""

from __future__ import annotations

from typing import Any

import eager
import peers
import torch

import bigsmall_kernels as bk


def test_wtsm(paired: Any, clips: int, threads: int, quick: bool) -> None:
    x = torch.randn(3 * clips, 32, 9, 9)
    shift = eager.Shift()
    paired(
        "wtsm",
        lambda: bk.wtsm(x),
        peers.inference(shift, [x], threads, quick=quick),
        [shift(x.double())],
        nbytes=2 * x.nbytes,
    )
