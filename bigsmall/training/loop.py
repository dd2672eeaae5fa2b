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
from . import videos

Losses = dict[str, float]


class Batch(NamedTuple):
    """Float32, and int64 indices: F Big frames, C clips of N Small frames, the first S frames with a pulse's target."""

    big: Tensor  # (F, 3, 144, 144)
    small: Tensor  # (C * N, 3, 9, 9)
    owner: Tensor  # (C,) the Big frame that goes with each clip
    own: Tensor  # (F,) the clip whose first frame each Big frame is
    au: Tensor  # (F, N, 12) the AUs of that clip
    bvp: Tensor  # (S, 1)
    respiration: Tensor  # (S, 1)


def batch(data: videos.Data, config: dict[str, Any], step: int) -> Batch:
    """What step number `step` learns from; half of the videos and clips are mirrored.

    Of each of `batch_videos` videos, one Big frame and `batch_clips` clips of Small frames, the first of which is the
    Big frame's own while the others begin anywhere: Big is nearly all of the cost, and a pulse looks the same whatever
    the face does. And `batch_faces` single clips of other people, for the action units.
    """
    rng = np.random.default_rng((config["seed"], step))
    n, clips = config["options"]["n_segment"], config["batch_clips"]
    big: list[np.ndarray] = []
    owner: list[int] = []
    small, au, bvp, respiration, own = [], [], [], [], []
    for index in rng.integers(len(data.videos), size=config["batch_videos"]):
        video, way = data.videos[index], rng.choice([-1, 1])
        j = rng.integers(len(video["big"]))
        starts = np.append(n * video["clip"][j], rng.integers(len(video["small"]) - n + 1, size=clips - 1))
        frames = (starts[:, None] + np.arange(n)).ravel()
        own.append(len(owner))
        owner += [len(big)] * clips
        big.append(video["big"][j][..., ::way])
        small.append(video["small"][frames][..., ::way])
        au.append(video["au"][j])
        bvp.append(video["bvp"][frames, None])
        respiration.append(video["respiration"][frames, None])
    for index in rng.integers(len(data.clips["big"]), size=config["batch_faces"]):
        way = rng.choice([-1, 1])
        own.append(len(owner))
        owner.append(len(big))
        big.append(data.clips["big"][index][..., ::way])
        small.append(data.clips["small"][index][..., ::way])
        au.append(data.clips["au"][index])

    def tensor(a: np.ndarray) -> Tensor:
        return torch.from_numpy(a.astype(np.float32))

    signals = tensor(np.concatenate(bvp)), tensor(np.concatenate(respiration))
    where = torch.tensor(owner), torch.tensor(own)
    return Batch(tensor(np.stack(big)), tensor(np.concatenate(small)), *where, tensor(np.stack(au)), *signals)


def losses(model: BigSmall, data: Batch, pos_weight: Tensor, bfloat16: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted binary cross-entropy of the AUs, mean squared errors of BVP and respiration; the paper adds them up."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        big_maps = model.big_maps(data.big)[data.owner]
        au, bvp, respiration = (y.float() for y in model.heads(big_maps, model.small_maps(data.small)))
    frames, au = len(data.bvp), au.view(len(data.owner), -1, au.shape[1])
    return (
        F.binary_cross_entropy_with_logits(au[data.own], data.au, pos_weight=pos_weight),
        F.mse_loss(bvp[:frames], data.bvp),
        F.mse_loss(respiration[:frames], data.respiration),
    )


def learning_rate(config: dict[str, Any], step: int) -> float:
    """One cycle: a linear rise over the share `warm_up` of the steps, then a cosine down to zero."""
    progress, rise, top = (step + 1) / config["steps"], float(config["warm_up"]), float(config["learning_rate"])
    if progress < rise:
        return float(top * progress / rise)
    return top * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def fit(data: videos.Data, config: dict[str, Any], folder: Path, told: Callable[[int, Losses], None]) -> nn.Module:
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
    present = data.clips["au"].mean((0, 1))
    pos_weight = torch.from_numpy((1 - present) / np.maximum(present, 0.05)).float()

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
