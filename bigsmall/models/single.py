"""The single-task networks, one branch and one head (the paper's baselines; FACTS 1.3 and 2.1)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from .branches import BIG_REDUCTION, HIDDEN, MAPS, BigBranch, SmallBranch
from .network import TASKS, one_of, positive


class Big(BigBranch):
    """Big frames (n, 3, big_size, big_size) -> (n, out_size): action-unit logits."""

    tasks, reads = ("au",), ("big",)

    def __init__(self, *, out_size: int = 12, big_size: int = 144) -> None:
        super().__init__(big_size=big_size)
        self.out_fc1 = nn.Linear(MAPS * (big_size // BIG_REDUCTION) ** 2, HIDDEN)
        self.out_fc2 = nn.Linear(HIDDEN, positive("out_size", out_size))

    def forward(self, big: Tensor) -> Tensor:
        hidden: Tensor = F.relu(self.out_fc1(self.big_maps(big).flatten(1)))
        outputs: Tensor = self.out_fc2(hidden)
        return outputs


class Small(SmallBranch):
    """Small frames (n, 3, small_size, small_size) -> (n, out_size): one task's output. No temporal shift."""

    reads = ("small",)

    def __init__(self, *, out_size: int = 1, small_size: int = 9, task: str = "pulse") -> None:
        super().__init__(small_size=small_size, n_segment=1, shift="none")
        self.tasks = (one_of("task", task, TASKS),)
        self.out_fc1 = nn.Linear(MAPS * small_size**2, HIDDEN)
        self.out_fc2 = nn.Linear(HIDDEN, positive("out_size", out_size))

    def forward(self, small: Tensor) -> Tensor:
        hidden: Tensor = F.relu(self.out_fc1(self.small_maps(small).flatten(1)))
        outputs: Tensor = self.out_fc2(hidden)
        return outputs
