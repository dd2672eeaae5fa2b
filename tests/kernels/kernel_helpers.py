"""What the kernel tests compare with, and the layouts they feed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import bigsmall_kernels as bk

LOW_PRECISION = (torch.float16, torch.bfloat16)
every_isa = pytest.mark.every_isa  # test_instruction_sets.py runs these once more on each other instruction set


def layouts(x: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The same (N, C, H, W) values under every kind of strides."""
    yield "contiguous", x.contiguous()
    yield "channels_last", x.contiguous(memory_format=torch.channels_last)
    poison = float("nan") if x.is_floating_point() else 85
    wide = torch.full((x.shape[0], x.shape[1] + 3, x.shape[2] + 2, 2 * x.shape[3] + 1), poison, dtype=x.dtype)
    wide[:, 1:-2, 1:-1, 1::2] = x
    yield "sliced", wide[:, 1:-2, 1:-1, 1::2]
    yield "permuted", x.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)


def moved(x: Tensor, device: str) -> Tensor:
    """x on a device, with its strides and what lies between its values."""
    stored = x.as_strided((x.untyped_storage().nbytes() // x.element_size(),), (1,), 0)
    return stored.to(device, copy=True).as_strided(x.shape, x.stride(), x.storage_offset())


def error(y: Tensor, exact: Tensor) -> float:
    """max|y - y64| / max|y64|, the measure of DESIGN; shapes and dtypes are the caller's to check."""
    assert y.shape == exact.shape, (y.shape, exact.shape)
    if exact.numel() == 0:
        return 0.0
    return ((y.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-30)).item()


def assert_low_precision(ours: Tensor, eager: Tensor, exact: Tensor) -> None:
    """In half precision our error is at most twice eager's (or one rounding of the result)."""
    assert ours.dtype == eager.dtype
    rounding = torch.finfo(ours.dtype).eps / 2
    assert error(ours, exact) <= max(2 * error(eager, exact), rounding)


def assert_compiled(op: str) -> None:
    """A reference compared with itself proves nothing: the dispatcher must hold a compiled CPU kernel for the op."""
    assert bk.info()["kernels"][op]["cpu"] == "cpp", f"{op} has no compiled kernel: {bk.info()['library']['note']}"


def same_bits_on_any_thread_count(function: Callable[[], Tensor]) -> None:
    results = []
    for n in (1, 2, 3):
        torch.set_num_threads(n)
        results.append(function())
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
