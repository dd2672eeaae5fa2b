"""Every clip of some prepared recordings, by number."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .prepared import Prepared

# The landmark that each one becomes in a mirror (JAANet's list reflect_49).
MIRRORED = (
    *range(9, -1, -1), *range(10, 14), *range(18, 13, -1), 28, 27, 26, 25, 30, 29, 22, 21, 20, 19, 24, 23,
    *range(37, 30, -1), *range(42, 37, -1), 45, 44, 43, 48, 47, 46,
)  # fmt: skip


class Clips:
    """The clips that a network can read, in the order of the recordings and in time.

    Args:
        recordings: from `open_prepared`.
        n: frames of a clip.
        reads, tasks, big_every: of the network, as its attributes say; tasks with its `also`.

    Attributes:
        recording, start: (len,) int64: whose clip each one is, and its first frame.
        action_units: of the recordings that have any.

    Raises:
        ValueError: there is none, the recordings lack something that is read, or their action units differ.
    """

    def __init__(
        self,
        recordings: Sequence[Prepared],
        n: int,
        reads: Sequence[str],
        tasks: Sequence[str],
        big_every: int | None = None,
    ) -> None:
        self.recordings, self.n, self.reads, self.tasks = list(recordings), n, tuple(reads), tuple(tasks)
        self.big_every = big_every
        if lacking := [r.name for r in self.recordings if not r.has(self.reads)]:
            raise ValueError(f"recordings: {len(lacking)} lack one of {', '.join(self.reads)}, {lacking[0]} the first")
        units = {r.action_units for r in self.recordings if r.action_units}
        if "au" in self.tasks and len(units) > 1:
            raise ValueError(f"recordings: all must have the same action units, got {' and '.join(map(str, units))}")
        self.action_units: tuple[str, ...] = next(iter(units), ())
        starts = [r.starts(n, self.reads, big_every) for r in self.recordings]
        if not sum(map(len, starts)):
            raise ValueError(f"recordings: {len(starts)} of them hold no clip of {n} frames that can be read")
        self.recording = np.repeat(np.arange(len(starts)), [len(s) for s in starts])
        self.start = np.concatenate(starts)

    def __len__(self) -> int:
        return len(self.start)

    def batch(
        self, indices: Sequence[int] | np.ndarray, mirror: np.ndarray | None = None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Inputs and targets of some clips, in their order.

        Args:
            indices: numbers of clips, (B,); repeated ones allowed.
            mirror: (B,) bool: clips whose pictures, all of them, are mirrored left to right, with their landmarks.

        Returns:
            (inputs, targets) as `Prepared.inputs` and `Prepared.targets` give them, the B clips one after another.
        """
        indices = np.asarray(indices, dtype=np.int64)
        order = np.argsort(self.recording[indices], kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(self.recording[indices][order])) + 1)
        made: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})  # (B, rows of a clip, ...)
        for group in groups:
            recording = self.recordings[self.recording[indices[group[0]]]]
            starts = self.start[indices[group]]
            inputs = recording.inputs(self.reads, starts, self.n, self.big_every)
            targets = recording.targets(self.tasks, starts, self.n)
            if "au" in targets and not recording.action_units:  # beside others that have them
                targets["au"] = torch.full((len(starts) * self.n, len(self.action_units)), torch.nan)
            for every, some in zip(made, (inputs, targets), strict=True):
                for name, rows in some.items():
                    rows = rows.view(len(group), -1, *rows.shape[1:])
                    if name not in every:
                        every[name] = rows.new_empty(len(indices), *rows.shape[1:])
                    every[name][torch.from_numpy(group)] = rows
        inputs, targets = ({name: rows.flatten(0, 1) for name, rows in every.items()} for every in made)
        if mirror is not None:
            flipped = torch.from_numpy(np.flatnonzero(mirror))
            for x in inputs.values():
                of = x.view(len(indices), -1, *x.shape[1:])
                of[flipped] = of[flipped].flip(-1)
            if "landmarks" in targets:
                of = targets["landmarks"].view(len(indices), -1, len(MIRRORED), 2)
                of[flipped] = torch.tensor([1.0, 0.0]) + torch.tensor([-1.0, 1.0]) * of[flipped][:, :, list(MIRRORED)]
        return inputs, targets
