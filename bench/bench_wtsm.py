"""`wtsm` on the Small branch's maps, (3 * clips, 32, 9, 9)."""

from __future__ import annotations

from typing import Any

import eager
import peers
import torch
from sizes import frames_of

import bigsmall_kernels as bk


def test_call_overhead(paired: Any, threads: int) -> None:
    """Hardly anything to compute, beside a bare op of aten; of such frames both return a copy."""
    x = torch.rand(1, 3, 1, 1).repeat(3, 1, 1, 1)
    paired(
        "call overhead",
        lambda: bk.wtsm(x),
        [("aten relu", lambda: torch.relu(x))],
        [x.double()],
        kernel="wtsm",
        bars={"microseconds": 8},
    )


def test_wtsm(paired: Any, clips: int, threads: int, quick: bool) -> None:
    x = torch.randn(3 * clips, 32, 9, 9)
    shift, some = eager.Shift(), frames_of(clips, 3)
    paired(
        "wtsm",
        lambda: bk.wtsm(x),
        peers.inference(shift, [x], threads, quick=quick, without=peers.left_out(clips)),
        [shift(x[some].double())],
        compared=peers.rows(some),
        nbytes=2 * x.nbytes,
    )
