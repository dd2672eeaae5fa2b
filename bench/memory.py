"""The memory that a call takes beside its inputs, its outputs and what is kept."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _kilobytes(key: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def growth(call: Callable[[], Any], output_bytes: Callable[[Any], int]) -> tuple[Any, float | None]:
    """What the call returns, and the growth in MB of peak resident memory during it, its outputs apart.

    None where Linux does not tell. What the process has freed is given back before, so that taking it again counts.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before = _kilobytes("VmRSS")
    except (OSError, AttributeError):
        return call(), None
    result = call()
    return result, max(0.0, (_kilobytes("VmHWM") - before) * 1024 - output_bytes(result)) / 1e6
