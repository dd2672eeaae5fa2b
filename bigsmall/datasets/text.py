"""What the readers of public datasets share: files of numbers, clocks, and errors that say what was expected."""

from __future__ import annotations

import os
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np

from .align import Signal
from .preparing import Skip
from .recording import Labels


def table(
    path: str | os.PathLike[str], *, delimiter: str | None = None, columns: int | None = None, header: int = 0
) -> np.ndarray:
    """The numbers of a text file after `header` lines, (rows, columns) float64; delimiter None: white space.

    Raises:
        ValueError: no such file, no number, or rows of another width.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"{path} is missing")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty")
    try:
        made = np.loadtxt(path, delimiter=delimiter, ndmin=2, skiprows=header)
    except ValueError as error:
        raise ValueError(f"{path} is no table of numbers: {error}") from error
    if made.size == 0 or (columns is not None and made.shape[1] != columns):
        raise ValueError(f"{path} has {made.shape[1]} columns, expected {columns or 'some'}")
    return made


def forward(values: np.ndarray, times: np.ndarray) -> Signal:
    """A signal whose clock goes forward: of samples at or before the time of an earlier one, that one stays."""
    latest = np.concatenate([[-np.inf], np.maximum.accumulate(times)[:-1]])
    return Signal(values[times > latest], times[times > latest])


def rate(values: np.ndarray) -> np.ndarray:
    """A device's rate, NaN where it shows none (0 or less)."""
    return np.where(values > 0, values, np.nan)


def not_here(root: Path, layout: str) -> NoReturn:
    """Raise the error of a root that does not have a dataset's layout."""
    held = sorted(p.name for p in islice(root.iterdir(), 1000)) if root.is_dir() else []
    found = ", ".join(held[:5]) + (" ..." if len(held) > 5 else "") if held else "nothing"
    raise ValueError(f"root: {root} holds {found}, expected {layout}")


def broken(reason: str) -> Labels:
    """The labels of a recording that cannot be prepared: raises, so that the manifest has the reason."""
    raise ValueError(reason)


def skipped(reason: str) -> Labels:
    """The labels of a recording that is known to be of no use: it is listed, and does not fail the run."""
    raise Skip(reason)
