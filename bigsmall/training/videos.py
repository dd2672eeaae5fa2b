"""Training data: simulated videos and single clips, as the model will see them, kept in files of a folder."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

import bigsmall_kernels as bk

from ..files import whole
from ..signals.filters import diff_normalize_label
from ..synthesis import Simulation, synthesize
from ..video import VideoWriter, open_video

Config = dict[str, Any]
Sample = dict[str, np.ndarray]
SHARD = 100  # clips to a file


class Data(NamedTuple):
    videos: list[Sample]
    clips: Sample


def draw(spec: Any, rng: np.random.Generator) -> float:
    """A number from `[low, high]` (uniform) or `{log: [low, high]}` (uniform in the logarithm)."""
    if isinstance(spec, dict):
        low, high = spec["log"]
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    low, high = spec
    return float(rng.uniform(low, high))


def simulation(config: Config, seed: int) -> tuple[Simulation, np.random.Generator]:
    """A person, a room and a life out of the ranges of the configuration, and the generator for what follows."""
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {name: draw(spec, rng) for name, spec in config["simulator"].items()}
    options["size"] = (round(options["size"]),) * 2
    if rng.uniform() < config["no_pulse"]:
        options["heart_rate"] = None
    if rng.uniform() < config["no_breathing"]:
        options["respiration_rate"] = None
    return synthesize(seed=seed, seconds=config["seconds"], **options), rng


def inputs(
    config: Config, kind: str, video: Simulation, start: int, stop: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """`bigsmall_inputs` of some frames: now and then compressed, cropped about as a detector would have it."""
    crop = config["crop"][kind]
    frames = np.stack(list(video.frames(start, stop)))
    if rng.uniform() < config["compressed"]:
        frames = _compressed(frames, video.fps, round(draw(config["crf"], rng)))
    height, width = frames.shape[1:3]
    x, y, w, h = video.box
    side = min(draw(crop["scale"], rng) * max(w, h), height, width)
    right, down = crop["shift"] * side * rng.uniform(-1, 1, 2)
    left = min(max(0.0, x + w / 2 - side / 2 + right), width - side)
    top = min(max(0.0, y + h / 2 - side / 2 + down), height - side)
    box = torch.tensor([left, top, side, side], dtype=torch.float64)
    return bk.bigsmall_inputs(torch.from_numpy(frames), box, n_segment=config["options"]["n_segment"])


def _compressed(frames: np.ndarray, fps: float, crf: int) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        with VideoWriter(path, fps, codec="libx264", options={"crf": str(crf), "preset": "veryfast"}) as video:
            for frame in frames:
                video.write(frame)
        return np.stack([frame.rgb for frame in open_video(path)])


def video_sample(config: Config, index: int) -> Sample:
    """Inputs and targets of one video of T frames, differences counted from 0 to T-2.

    `small` (T-1, 3, 9, 9) float16 and the targets `bvp`, `respiration` (T-1,) float32, difference-normalised (FACTS
    3.3; zeros where there is none); `big` (big_frames, 3, 144, 144) float16, the first frames of the clips `clip`
    (big_frames,) int64, with `au` (big_frames, N, 12) uint8, the AUs of the N frames of each.
    """
    n = config["options"]["n_segment"]
    video, rng = simulation(config, config["seed"] * 100_000 + index)
    big, small = inputs(config, "videos", video, 0, len(video), rng)
    kept = np.sort(rng.permutation(len(big))[: config["big_frames"]])
    aus = video.truth.aus[: len(big) * n].reshape(len(big), n, -1)
    return {
        "small": small.numpy().astype(np.float16),
        "bvp": diff_normalize_label(video.truth.bvp)[: len(small)].astype(np.float32),
        "respiration": diff_normalize_label(video.truth.respiration)[: len(small)].astype(np.float32),
        "big": big[kept].numpy().astype(np.float16),
        "clip": kept,
        "au": aus[kept],
    }


def clip_samples(config: Config, shard: int) -> Sample:
    """One clip each of `SHARD` people, most of them with an expression: many faces for the price of few frames.

    `big` (SHARD, 3, 144, 144) and `small` (SHARD, N, 3, 9, 9) float16, `au` (SHARD, N, 12) uint8.
    """
    n, parts = config["options"]["n_segment"], []
    for index in range(shard * SHARD, (shard + 1) * SHARD):
        video, rng = simulation(config, config["seed"] * 100_000 + 50_000 + index)
        starts = np.arange(len(video) - n)
        shown = starts[video.truth.aus[: len(starts)].any(axis=1)]
        start = rng.choice(shown if len(shown) and rng.uniform() < config["shown"] else starts)
        big, small = inputs(config, "clips", video, start, start + n + 1, rng)
        parts.append((big[0].numpy(), small.numpy(), video.truth.aus[start : start + n]))
    bigs, smalls, aus = (np.stack(part) for part in zip(*parts, strict=True))
    return {"big": bigs.astype(np.float16), "small": smalls.astype(np.float16), "au": aus}


def _keep(config: Config, kind: str, index: int, path: Path) -> None:
    torch.set_num_threads(1)
    sample = (video_sample if kind == "videos" else clip_samples)(config, index)
    with whole(path) as aside:
        save_file({name: np.ascontiguousarray(a) for name, a in sample.items()}, aside)


def _files(config: Config, folder: Path) -> list[tuple[str, int, Path]]:
    counts = {"clips": config["clips"] // SHARD, "videos": config["videos"]}
    return [(kind, i, folder / kind / f"{i:05d}.safetensors") for kind, n in counts.items() for i in range(n)]


def prepare(config: Config, folder: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Simulate what `folder` does not hold yet, in `workers` processes; yields files there, files in all."""
    files = _files(config, folder)
    missing = [job for job in files if not job[2].exists()]
    for kind in ("clips", "videos"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    yield len(files) - len(missing), len(files)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_keep, config, *job) for job in missing]
        for done, job in enumerate(jobs, len(files) - len(missing) + 1):
            job.result()
            yield done, len(files)


def load(config: Config, folder: Path) -> Data:
    """Everything that `prepare` has put into `folder`."""
    samples: dict[str, list[Sample]] = {"clips": [], "videos": []}
    for kind, _, path in _files(config, folder):
        samples[kind].append(load_file(path))
    clips = samples["clips"]
    return Data(samples["videos"], {name: np.concatenate([shard[name] for shard in clips]) for name in clips[0]})
