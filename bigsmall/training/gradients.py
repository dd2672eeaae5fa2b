"""One step's gradient: of parts of a batch, on some processes, of all tasks together or of each by itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .distributed import Group


class Gradients:
    """Sums up gradients, one row for each objective, over parts and processes.

    Attributes:
        rows: (objectives, values of all parameters).
        reached: (objectives, parameters) bool, after `gather`: whether the objective depends on it.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], objectives: int) -> None:
        self.parameters = parameters
        self.sizes = [p.numel() for p in parameters]
        self._all = parameters[0].new_zeros(objectives, sum(self.sizes) + len(parameters))  # and what was reached

    def add(self, objectives: Sequence[Tensor]) -> None:
        """Differentiate what one part came to."""
        for row, value in zip(self._all, objectives, strict=True):
            last = value is objectives[-1]
            found = torch.autograd.grad(value, self.parameters, retain_graph=not last, allow_unused=True)
            *flat, reached = row.split([*self.sizes, len(found)])
            for there, gradient in zip(flat, found, strict=True):
                if gradient is not None:
                    there += gradient.flatten()
            reached += reached.new_tensor([gradient is not None for gradient in found])

    def gather(self, group: Group) -> None:
        """Sum over the processes."""
        group.sum(self._all)
        self.rows, counts = self._all.split([sum(self.sizes), len(self.sizes)], dim=1)
        self.reached = counts > 0

    @property
    def shared(self) -> Tensor:
        """(values,) bool: what more than one objective depends on."""
        many = self.reached.sum(0) > 1
        mask: Tensor = many.repeat_interleave(torch.tensor(self.sizes, device=many.device))
        return mask

    def use(self, total: Tensor) -> None:
        """Make `total` (values,) the gradient of the parameters; those that no objective depends on have none."""
        reached = self.reached.any(0).tolist()
        for p, g, used in zip(self.parameters, total.split(self.sizes), reached, strict=True):
            p.grad = g.view_as(p) if used else None
