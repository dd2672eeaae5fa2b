"""The training loop: the paper's losses and optimiser (FACTS 5) on simulated videos.

Nothing random outlives a step (batches and dropout come from the seed and the step's number), so a run that was
interrupted and taken up again gives the same weights as one that was not.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import models
from ..models import BigSmall
from . import videos

Losses = dict[str, float]


def batch(samples: list[videos.Sample], config: dict[str, Any], step: int) -> dict[str, Tensor]:
    """V = batch_videos Big frames and K = batch_clips clips of N Small frames of each one's video.

    The first of the K clips is the Big frame's own, which the AUs are learnt from; the others may begin anywhere. One
    Big frame serves the K clips since it is nearly all of the cost, and a pulse looks the same whatever the face does.

    Returns:
        `big` (V, 3, 144, 144), `small` (V*K*N, 3, 9, 9), `au` (V, N, 12), `bvp` and `respiration` (V*K*N, 1), float32.
    """
    rng = np.random.default_rng((config["seed"], step))
    n, clips = config["options"]["n_segment"], config["batch_clips"]
    parts: dict[str, list[np.ndarray]] = {name: [] for name in ("big", "small", "au", "bvp", "respiration")}
    for index in rng.integers(len(samples), size=config["batch_videos"]):
        sample = samples[index]
        j = rng.integers(len(sample["big"]))
        starts = np.append(n * sample["clip"][j], rng.integers(len(sample["small"]) - n + 1, size=clips - 1))
        frames = (starts[:, None] + np.arange(n)).ravel()
        way = rng.choice([-1, 1])  # half of the videos are mirrored
        parts["big"].append(sample["big"][j][..., ::way])
        parts["small"].append(sample["small"][frames][..., ::way])
        parts["au"].append(sample["au"][j])
        for name in ("bvp", "respiration"):
            parts[name].append(sample[name][frames, None])
    joined = {name: np.stack(p) if name in ("big", "au") else np.concatenate(p) for name, p in parts.items()}
    return {name: torch.from_numpy(a.astype(np.float32)) for name, a in joined.items()}


def losses(
    model: BigSmall, data: dict[str, Tensor], pos_weight: Tensor, bfloat16: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted binary cross-entropy of the AUs, mean squared errors of BVP and respiration; the paper adds them up."""
    v, n = data["big"].shape[0], model.n_segment
    clips = data["small"].shape[0] // (v * n)
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        big_maps = model.big_maps(data["big"]).repeat_interleave(clips, 0)
        au, bvp, respiration = (y.float() for y in model.heads(big_maps, model.small_maps(data["small"])))
    own = au.view(v, clips * n, -1)[:, :n]
    return (
        F.binary_cross_entropy_with_logits(own, data["au"], pos_weight=pos_weight),
        F.mse_loss(bvp, data["bvp"]),
        F.mse_loss(respiration, data["respiration"]),
    )


def learning_rate(config: dict[str, Any], step: int) -> float:
    """One cycle: a linear rise over the share `warm_up` of the steps, then a cosine down to zero."""
    progress, rise, top = (step + 1) / config["steps"], float(config["warm_up"]), float(config["learning_rate"])
    if progress < rise:
        return float(top * progress / rise)
    return top * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def fit(
    samples: list[videos.Sample], config: dict[str, Any], folder: Path, told: Callable[[int, Losses], None]
) -> nn.Module:
    """Train from the last checkpoint in `folder`, or from the start; `told` hears of every step and its losses."""
    torch.manual_seed(config["seed"])
    model = models.build(config["model"], **config["options"])
    if not isinstance(model, BigSmall):
        raise ValueError(f"model must be one with all three tasks, got {config['model']!r}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=config["learning_rate"], weight_decay=0)
    present = np.concatenate([s["au"] for s in samples]).mean((0, 1))
    pos_weight = torch.from_numpy((1 - present) / np.maximum(present, 0.02)).float()

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
        au, bvp, respiration = losses(model, batch(samples, config, step), pos_weight, config["bfloat16"])
        optimizer.zero_grad()
        (au + bvp + respiration).backward()
        optimizer.step()
        log.append([step, au.item(), bvp.item(), respiration.item()])
        told(step + 1, dict(zip(("au", "bvp", "respiration"), log[-1][1:], strict=True)))
        if (step + 1) % config["checkpoint_every"] == 0 or step + 1 == config["steps"]:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1, "log": log}
            aside = checkpoint.with_suffix(".part")
            torch.save(state, aside)
            os.replace(aside, checkpoint)
    with open(folder / "log.csv", "w", newline="", encoding="utf-8") as f:
        rows = csv.writer(f)
        rows.writerow(("step", "au", "bvp", "respiration"))
        rows.writerows([step, *(f"{value:.5f}" for value in values)] for step, *values in log)
    return model.eval()
