"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

_numbers = count()


def beside(path: str | os.PathLike[str], suffix: str = ".part") -> Path:
    """A hidden name in the same folder, absolute, that no other writer of `path` has, in this process or another."""
    path = Path(path).absolute()
    return path.with_name(f".{path.stem}.{os.getpid()}.{next(_numbers)}{suffix}")


def sweep(folder: Path) -> None:
    """Remove what processes that are no more have left unfinished in `folder` and below; before writing there."""
    for path in folder.rglob(".*.part"):
        number = path.name.split(".")[-3]
        if number.isdecimal() and not _another(int(number)):
            path.unlink(missing_ok=True)


def _another(pid: int) -> bool:
    """Whether another process of this number runs; the own number is a dead one's that had it before."""
    if pid == os.getpid():
        return False
    if os.name != "posix":  # where to ask would interrupt it
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; renamed to it at the end, removed if anything fails before.

    What was written is on the disk before it has the name: a power cut, too, leaves the old file or the new one.
    """
    aside = beside(path)
    try:
        yield aside
        with open(aside, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)
