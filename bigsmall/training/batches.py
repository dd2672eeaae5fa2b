"""Which clips go into which step. Nothing random outlives a step: all is drawn from the seed and the step's number."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..datasets import Clips
from .config import Config

AHEAD = 2  # steps whose batches are read before they are needed, each by a thread of its own


class Batch(NamedTuple):
    """B clips of N frames, each with its K - 1 other clips of Small frames behind it; index = (clip*K + k)*N + t."""

    inputs: dict[str, Tensor]  # "small" has B*K*N rows, the others belong to the first of the K alone
    targets: dict[str, Tensor]  # B*K*N rows; NaN unknown, as the AUs of the others are


class Plan(NamedTuple):
    """What a step learns from."""

    clips: np.ndarray  # (B,) int64 numbers
    mirror: np.ndarray  # (B,) bool
    others: np.ndarray  # (B, K - 1) float64 in [0, 1): where in its stretch each other clip begins

    def part(self, index: int, of: int) -> Plan:
        """One of `of` parts in their order, as equal as can be; perhaps an empty one."""
        return Plan(*(np.array_split(array, of)[index] for array in self))


class Batches:
    """The batches of a run.

    Args:
        clips: all that there is to learn from.
        entries: of each entry of the configuration's data, in its order, the number of its recordings and its share.

    Attributes:
        steps: of the whole run. steps_of_epoch: of a pass over all clips, None where they are drawn.

    Raises:
        ValueError: shares with epochs, or for some entries only, or an entry without a clip.
    """

    def __init__(self, config: Config, clips: Clips, entries: Sequence[tuple[str, int, float | None]]) -> None:
        self.config, self.clips = config, clips
        ends = np.cumsum([count for _, count, _ in entries])
        self._ends = np.searchsorted(clips.recording, ends)  # of the entries' clips
        sizes = np.diff(self._ends, prepend=0)
        shares = [share for _, _, share in entries]
        if empty := [entry[0] for entry, size in zip(entries, sizes, strict=True) if not size]:
            raise ValueError(f"data: {', '.join(empty)} holds no clip that the network can read")
        given = [share for share in shares if share is not None]
        if given and (config.steps is None or len(given) < len(shares) or min(given) <= 0):
            raise ValueError(f"data: shares were {shares}; expected none, or with steps a positive one for every entry")
        weights = np.array(given or sizes, dtype=np.float64)
        bounds = np.round(np.cumsum(weights) / weights.sum() * config.batch).astype(int)
        self._counts = np.diff(bounds, prepend=0)  # of a batch's clips, by entry
        self.steps_of_epoch = None if config.epochs is None else -(-len(clips) // config.batch)
        self.steps = config.steps or (config.epochs or 0) * (self.steps_of_epoch or 0)

    def plan(self, step: int) -> Plan:
        """What step number `step` learns from: of an epoch's permutation its piece, or clips drawn by entry."""
        seed, rng = self.config.seed, np.random.default_rng((self.config.seed, step))
        if self.steps_of_epoch is None:
            starts = np.append(0, self._ends[:-1])
            chosen = np.concatenate([
                rng.integers(start, end, size=count)
                for start, end, count in zip(starts, self._ends, self._counts, strict=True)
            ])  # fmt: skip
        else:
            epoch, at = divmod(step, self.steps_of_epoch)
            order = np.random.default_rng((seed, epoch, 1)).permutation(len(self.clips))
            chosen = order[at * self.config.batch : (at + 1) * self.config.batch]
        mirror = rng.random(len(chosen)) < 0.5 if self.config.mirror else np.zeros(len(chosen), bool)
        return Plan(chosen, mirror, rng.random((len(chosen), self.config.clips - 1)))

    def load(self, plan: Plan) -> Batch:
        """Read what a plan names."""
        inputs, targets = self.clips.batch(plan.clips, plan.mirror if plan.mirror.any() else None)
        if not plan.others.size:
            return Batch(inputs, targets)
        others, each = copy.copy(self.clips), plan.others.shape[1]
        others.reads = ("small",)
        others.recording = self.clips.recording[plan.clips].repeat(each)
        others.start = np.concatenate([self._begins(*of) for of in zip(plan.clips, plan.others, strict=True)])
        more, unseen = others.batch(np.arange(len(others)), plan.mirror.repeat(each))
        if "au" in unseen:  # Big, which sees them, is of another moment
            unseen["au"] = torch.full_like(unseen["au"], torch.nan)

        def behind(first: Tensor, rest: Tensor) -> Tensor:
            parts = (x.view(len(plan.clips), -1, *x.shape[1:]) for x in (first, rest))
            return torch.cat(tuple(parts), 1).flatten(0, 1)

        inputs["small"] = behind(inputs["small"], more["small"])
        return Batch(inputs, {task: behind(values, unseen[task]) for task, values in targets.items()})

    def _begins(self, clip: int, shares: np.ndarray) -> np.ndarray:
        ends = self.clips.recordings[self.clips.recording[clip]].stretches
        stretch = np.searchsorted(ends, self.clips.start[clip], side="right")
        first, room = ends[stretch - 1], ends[stretch] - ends[stretch - 1] - self.clips.n + 1
        begins: np.ndarray = first + (shares * room).astype(np.int64)
        return begins

    def from_step(self, first: int, rank: int, of: int) -> Iterator[list[Batch]]:
        """This process's parts of every step from `first` on, read some steps before they are needed."""

        def read(step: int) -> list[Batch]:
            mine = self.plan(step).part(rank, of)
            parts = (mine.part(i, self.config.accumulate) for i in range(self.config.accumulate))
            return [self.load(part) for part in parts if len(part.clips)]

        with ThreadPoolExecutor(AHEAD) as pool:
            try:
                waiting = [pool.submit(read, step) for step in range(first, min(first + AHEAD, self.steps))]
                for step in range(first, self.steps):
                    if step + AHEAD < self.steps:
                        waiting.append(pool.submit(read, step + AHEAD))
                    yield waiting.pop(0).result()
            finally:
                pool.shutdown(cancel_futures=True)
