"""Training data: simulated videos, as the model will see them, each kept in one file of a folder."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

import bigsmall_kernels as bk

from ..signals.filters import diff_normalize_label
from ..synthesis import Simulation, synthesize
from ..video import VideoWriter, open_video

Sample = dict[str, np.ndarray]


def draw(spec: Any, rng: np.random.Generator) -> float:
    """A number from `[low, high]` (uniform) or `{log: [low, high]}` (uniform in the logarithm)."""
    if isinstance(spec, dict):
        low, high = spec["log"]
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    low, high = spec
    return float(rng.uniform(low, high))


def simulate(config: dict[str, Any], index: int) -> tuple[Simulation, np.ndarray, tuple[float, float, float, float]]:
    """Video `index` of the training set: the simulation, its frames (T, H, W, 3) uint8, and a crop (x, y, w, h)."""
    seed = config["seed"] * 1000 + index
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {name: draw(spec, rng) for name, spec in config["simulator"].items()}
    options["size"] = (round(options["size"]),) * 2
    if rng.uniform() < config["no_pulse"]:
        options["heart_rate"] = None
    if rng.uniform() < config["no_breathing"]:
        options["respiration_rate"] = None
    simulation = synthesize(seed=seed, seconds=config["seconds"], **options)
    frames = np.stack(list(simulation))
    if rng.uniform() < config["compressed"]:
        frames = _compressed(frames, simulation.fps, round(draw(config["crf"], rng)))

    x, y, w, h = simulation.box
    side = min(draw(config["crop"]["scale"], rng) * max(w, h), *frames.shape[1:3])
    shift = config["crop"]["shift"] * side * rng.uniform(-1, 1, 2)
    left = min(max(0.0, x + w / 2 - side / 2 + shift[0]), frames.shape[2] - side)
    top = min(max(0.0, y + h / 2 - side / 2 + shift[1]), frames.shape[1] - side)
    return simulation, frames, (left, top, side, side)


def _compressed(frames: np.ndarray, fps: float, crf: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, fps, codec="libx264", options={"crf": str(crf), "preset": "veryfast"}) as video:
            for frame in frames:
                video.write(frame)
        return np.stack([frame.rgb for frame in open_video(path)])


def sample(config: dict[str, Any], index: int) -> Sample:
    """Inputs and targets of one video of T frames, differences counted from 0 to T-2.

    `small` (T-1, 3, 9, 9) float16 and the targets `bvp`, `respiration` (T-1,) float32, difference-normalised (FACTS
    3.3; zeros where there is none); `big` (big_frames, 3, 144, 144) float16, the first frames of the clips `clip`
    (big_frames,) int64, with `au` (big_frames, N, 12) uint8, the AUs of the N frames of each.
    """
    n = config["options"]["n_segment"]
    simulation, frames, box = simulate(config, index)
    big, small = bk.bigsmall_inputs(torch.from_numpy(frames), torch.tensor(box), n_segment=n)
    rng = np.random.default_rng((config["seed"], index))
    kept = np.sort(rng.permutation(len(big))[: config["big_frames"]])
    aus = simulation.truth.aus[: len(big) * n].reshape(len(big), n, -1)
    return {
        "small": small.numpy().astype(np.float16),
        "bvp": diff_normalize_label(simulation.truth.bvp)[: len(small)].astype(np.float32),
        "respiration": diff_normalize_label(simulation.truth.respiration)[: len(small)].astype(np.float32),
        "big": big[kept].numpy().astype(np.float16),
        "clip": kept,
        "au": aus[kept],
    }


def _keep(config: dict[str, Any], index: int, path: Path) -> None:
    torch.set_num_threads(1)
    aside = path.with_suffix(".part")
    save_file({name: np.ascontiguousarray(a) for name, a in sample(config, index).items()}, aside)
    os.replace(aside, path)


def prepare(config: dict[str, Any], folder: Path, workers: int) -> Iterator[int]:
    """Simulate the videos that `folder` does not hold yet, in `workers` processes; yields how many are there so far."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(config["videos"]) if not (folder / f"{i:05d}.safetensors").exists()]
    done = config["videos"] - len(missing)
    yield done
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for job in [pool.submit(_keep, config, i, folder / f"{i:05d}.safetensors") for i in missing]:
            job.result()
            done += 1
            yield done


def load(config: dict[str, Any], folder: Path) -> list[Sample]:
    return [load_file(folder / f"{i:05d}.safetensors") for i in range(config["videos"])]
