"""Gradients of tasks that pull apart: PCGrad and the angles between them.

PCGrad is algorithm 1 of Yu et al., "Gradient Surgery for Multi-Task Learning" (2020); the angles are the paper's
Fig. 6D.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def project(gradients: Tensor, shared: Tensor, rng: np.random.Generator) -> Tensor:
    """The sum of the tasks' gradients after each has lost what opposes the others'.

    Args:
        gradients: (tasks, parameters).
        shared: (parameters,) bool: those that more than one task reaches. Only they conflict; the others' gradients
            are summed as they are.
        rng: gives the order in which a task meets the others.

    Returns:
        (parameters,).
    """
    original = torch.where(shared, gradients, 0)
    lengths = original.square().sum(1)
    total = torch.where(shared, 0, gradients).sum(0)
    for i, gradient in enumerate(original):
        for j in rng.permutation(len(original)):
            dot = gradient @ original[j]
            if j != i and dot < 0:
                gradient = gradient - dot / lengths[j] * original[j]
        total = total + gradient
    return total


def angles(gradients: Tensor, reached: Tensor, sizes: Sequence[int]) -> Tensor:
    """Angles in degrees between the tasks' gradients of each parameter.

    Args:
        gradients: (tasks, parameters' values).
        reached: (tasks, parameters) bool: whether the task's loss depends on it.
        sizes: of the parameters.

    Returns:
        (parameters, tasks, tasks); NaN where a task does not reach the parameter, or its gradient is zero.
    """
    parts = gradients.double().split(list(sizes), dim=1)
    cosines = []
    for part, tasks in zip(parts, reached.T, strict=True):
        unit = part / torch.where(tasks, part.norm(dim=1), torch.nan)[:, None]
        cosines.append(unit @ unit.T)  # 0 / 0 is NaN
    return torch.rad2deg(torch.acos(torch.stack(cosines).clamp(-1, 1)))
