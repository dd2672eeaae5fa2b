"""What a run says of itself: CSV files that grow, and TensorBoard's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class Records:
    """Tables in a folder, one row at a time. Taken up again, they go back to the lengths that the checkpoint had.

    Args:
        folder: of the run; None: nothing is written, as by all processes but the first.
        lengths: by table, in bytes, as `settle` gave them; a table that is not named is begun anew.
        step: that the run goes on from: so many are done.
        tensorboard: whether to write RUN/tensorboard as well, which shows everything over the steps done by then.
    """

    def __init__(self, folder: Path | None, lengths: Mapping[str, int], step: int, tensorboard: bool) -> None:
        self.folder, self._begun = folder, set(lengths)
        self.board: SummaryWriter | None = None
        for name, length in lengths.items() if folder else ():
            path = self._path(name)
            if not path.exists() or path.stat().st_size < length:
                raise ValueError(f"output: {path} is shorter than the checkpoint beside it says; take another folder")
            with open(path, "r+b") as file:
                file.truncate(length)
        if folder and tensorboard:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise ValueError("tensorboard: its package is not installed (pip install tensorboard)") from error
            self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)  # and all behind it

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.csv"

    def add(self, name: str, step: int, values: Mapping[str, float | str]) -> None:
        """A row of the table `name`: step and values."""
        if self.folder is None:
            return
        with open(self._path(name), "a" if name in self._begun else "w", encoding="utf-8") as file:
            if name not in self._begun:
                file.write(",".join(("step", *values)) + "\n")
            cells = (value if isinstance(value, str) else f"{value:.6g}" for value in values.values())
            file.write(",".join((str(step), *cells)) + "\n")
        self._begun.add(name)

    def show(self, name: str, done: int, scalars: Mapping[str, float]) -> None:
        """Scalars `name`/... for TensorBoard, after `done` steps."""
        if self.board is not None:
            for key, value in scalars.items():
                self.board.add_scalar(f"{name}/{key}", value, done)

    def settle(self) -> dict[str, int]:
        """Write out what TensorBoard still holds back; the bytes of each table by now."""
        if self.board is not None:
            self.board.flush()
        return {name: self._path(name).stat().st_size for name in sorted(self._begun)} if self.folder else {}

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
