"""The training loop: the paper's losses and optimiser (FACTS 5) on simulated videos.

Nothing random outlives a step (batches and dropout come from the seed and the step's number), so a run that was
interrupted and taken up again gives the same weights as one that was not.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import models
from ..files import whole
from ..models import BigSmall
from ..models.branches import BIG_BLOCKS
from . import videos

Losses = dict[str, float]


class Batch(NamedTuple):
    """Float32: F Big frames, C clips of N Small frames for each of them; index = (f*C + c)*N + t."""

    big: Tensor  # (F, 3, 144, 144)
    small: Tensor  # (F * C * N, 3, 9, 9)
    au: Tensor  # (F, N, 12) of the first of the C clips, whose first frame the Big frame is
    bvp: Tensor  # (F * C * N, 1)
    respiration: Tensor  # (F * C * N, 1)


def batch(data: dict[str, videos.Sample], config: dict[str, Any], step: int) -> Batch:
    """What step number `step` learns from; half of it is mirrored.

    Of each kind of data its `batch` pieces of video; of each piece one Big frame and `clips` clips of Small frames, the
    first of which is the Big frame's own while the others begin anywhere: Big is nearly all of the cost, and a pulse
    looks the same whatever the face does.
    """
    rng = np.random.default_rng((config["seed"], step))
    n, clips = config["options"]["n_segment"], config["clips"]
    parts: list[tuple[np.ndarray, ...]] = []
    for kind, of in data.items():
        pieces, length = of["bvp"].shape
        for piece in rng.integers(pieces, size=config["data"][kind]["batch"]):
            way, j = rng.choice([-1, 1]), rng.integers(of["clip"].shape[1])
            starts = np.append(n * of["clip"][piece, j], rng.integers(length - n + 1, size=clips - 1))
            frames = (starts[:, None] + np.arange(n)).ravel()
            big, small = of["big"][piece, j][None, ..., ::way], of["small"][piece, frames][..., ::way]
            signals = (of[name][piece, frames, None] for name in ("bvp", "respiration"))
            parts.append((big, small, of["au"][piece, j][None], *signals))
    return Batch(*(torch.from_numpy(np.concatenate(arrays).astype(np.float32)) for arrays in zip(*parts, strict=True)))


def losses(model: BigSmall, data: Batch, pos_weight: Tensor, bfloat16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted binary cross-entropy of the AUs, mean squared errors of BVP and respiration; the paper adds them up."""
    frames, (first, n, units) = len(data.small), data.au.shape
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        big_maps = _big_maps(model, data.big).repeat_interleave(frames // (first * n), 0)
        au, bvp, respiration = (y.float() for y in model.heads(big_maps, model.small_maps(data.small)))
    return (
        F.binary_cross_entropy_with_logits(au.view(first, -1, n, units)[:, 0], data.au, pos_weight=pos_weight),
        F.mse_loss(bvp, data.bvp),
        F.mse_loss(respiration, data.respiration),
    )


def _big_maps(model: BigSmall, big: Tensor) -> Tensor:
    """`model.big_maps`, by aten's channels-last convolutions: in bfloat16 a step of Big takes about half the time.

    `bk.double_conv2d_pool` saves the memory of a block's intermediates, which at these batches nobody needs.
    """
    x = big.contiguous(memory_format=torch.channels_last)
    for convolutions, _, pool, dropout in BIG_BLOCKS:
        for name in convolutions:
            weight, bias = model.get_parameter(f"{name}.weight"), model.get_parameter(f"{name}.bias")
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
        x = F.dropout(F.avg_pool2d(x, pool), dropout, model.training)
    return x


def learning_rate(config: dict[str, Any], step: int) -> float:
    """One cycle: a linear rise over the share `warm_up` of the steps, then a cosine down to zero."""
    progress, rise, top = (step + 1) / config["steps"], float(config["warm_up"]), float(config["learning_rate"])
    if progress < rise:
        return float(top * progress / rise)
    return top * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def fit(
    data: dict[str, videos.Sample], config: dict[str, Any], folder: Path, told: Callable[[int, Losses], None]
) -> nn.Module:
    """Train from the last checkpoint in `folder`, or from the start; `told` hears of every step and its losses."""
    torch.manual_seed(config["seed"])
    model = models.build(config["model"], **config["options"])
    if not isinstance(model, BigSmall):
        raise ValueError(f"model must be one with all three tasks, got {config['model']!r}")
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):  # torch's own start lets Big's signal fade over its six layers
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    model.train(config["dropout"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], weight_decay=0)
    # The rarer an AU is shown the more a miss costs, but by the root only: F1 counts false alarms too.
    present = np.concatenate([of["au"].reshape(-1, of["au"].shape[-1]) for of in data.values()]).mean(0)
    pos_weight = torch.from_numpy(((1 - present) / np.maximum(present, 0.02)) ** 0.5).float()

    checkpoint, log, first = folder / "checkpoint.pt", [], 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, log = state["step"], state["log"]
    for step in range(first, config["steps"]):
        torch.manual_seed(config["seed"] + step)  # dropout
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step)
        au, bvp, respiration = losses(model, batch(data, config, step), pos_weight, config["bfloat16"])
        optimizer.zero_grad()
        (au + bvp + respiration).backward()
        optimizer.step()
        log.append([step, au.item(), bvp.item(), respiration.item()])
        told(step + 1, dict(zip(("au", "bvp", "respiration"), log[-1][1:], strict=True)))
        if (step + 1) % config["checkpoint_every"] == 0 or step + 1 == config["steps"]:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1, "log": log}
            with whole(checkpoint) as aside:
                torch.save(state, aside)
    with whole(folder / "log.csv") as aside, open(aside, "w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(("step", "au", "bvp", "respiration"))
        rows.writerows([step, *(f"{value:.5f}" for value in values)] for step, *values in log)
    return model.eval()
