"""Training data: simulated people as the model will see them, kept in files of a folder."""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import Tensor

import bigsmall_kernels as bk

from ..face.crop import face_scale
from ..files import whole
from ..signals.filters import diff_normalize_label
from ..synthesis import Simulation, compressed, negatives, synthesize

Config = dict[str, Any]
Sample = dict[str, np.ndarray]
KINDS = ("people", "videos")  # many people for a few moments each, and fewer for longer


def draw(spec: Any, rng: np.random.Generator) -> float:
    """A number from `[low, high]` (uniform), `{log: [low, high]}` (uniform in the log) or `{any: [...]}` of them."""
    if isinstance(spec, dict) and "any" in spec:
        return draw(spec["any"][rng.integers(len(spec["any"]))], rng)
    if isinstance(spec, dict):
        low, high = spec["log"]
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    low, high = spec
    return float(rng.uniform(low, high))


def simulation(config: Config, seed: int, negative: str | None = None) -> tuple[Simulation, np.random.Generator]:
    """A person, a room and a life out of the ranges of the configuration, and the generator for what follows.

    `negative` names the kind of video without a pulse that it is instead, one of `synthesis.NEGATIVES`.
    """
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {name: draw(spec, rng) for name, spec in config["simulator"].items()}
    options["size"] = (2 * round(options["size"] / 2),) * 2
    if rng.uniform() < config["no_pulse"]:
        options["heart_rate"] = None
    if rng.uniform() < config["no_breathing"]:
        options["respiration_rate"] = None
    options |= {"seed": seed, "seconds": config["seconds"]}
    return synthesize(**options) if negative is None else negatives(negative, **options), rng


def seed(config: Config, kind: str, index: int) -> int:
    """Of a person: another for every configuration's seed, kind and index."""
    return int(config["seed"] * 1_000_000 + 500_000 * KINDS.index(kind) + index)


def sample(config: Config, kind: str, index: int) -> Sample:
    """Inputs and targets of one person: P pieces of a video, each of M clips of N frames and K Big frames.

    `small` (P, M N, 3, 9, 9) float16 with the targets `bvp` and `respiration` (P, M N) float32, differences normalised
    over the whole video (FACTS 3.3; zeros where there is none); `big` (P, K, 3, 144, 144) float16, the first frames of
    the clips `clip` (P, K) int64, with `au` (P, K, N, 12) uint8, the AUs of the N frames of each. Now and then
    compressed; cropped about as a detector would have it.
    """
    spec, n = config["data"][kind], config["options"]["n_segment"]
    length = spec["clips"] * n
    video, rng = simulation(config, seed(config, kind, index))
    aus, bvp, respiration = video.truth.aus, *map(diff_normalize_label, (video.truth.bvp, video.truth.respiration))
    crf = draw(config["crf"], rng) if rng.uniform() < spec["compressed"] else None
    box = crop(config, spec, video, rng)
    starts = np.arange(len(video) - length)
    shown = starts[aus[: len(starts)].any(axis=1)]
    begins = [
        int(rng.choice(shown if len(shown) and rng.uniform() < config["shown"] else starts))
        for _ in range(spec["pieces"])
    ]
    pieces = [torch.from_numpy(_frames(video, begin, begin + length + 1, crf)) for begin in begins]
    stats = bk.InputStats.from_sums(torch.cat([bk.bigsmall_input_sums(frames, box) for frames in pieces]))
    parts = []
    for begin, frames in zip(begins, pieces, strict=True):
        big, small = bk.bigsmall_inputs(frames, box, n_segment=n, stats=stats)
        # a clip's first frame is what Big sees; the first clip is the one that was chosen for what it shows
        kept = np.append(0, 1 + np.sort(rng.permutation(len(big) - 1)[: spec["big"] - 1]))
        parts.append({
            "small": small.numpy().astype(np.float16),
            "bvp": bvp[begin : begin + length].astype(np.float32),
            "respiration": respiration[begin : begin + length].astype(np.float32),
            "big": big[kept].numpy().astype(np.float16),
            "clip": kept,
            "au": aus[begin : begin + length].reshape(-1, n, aus.shape[1])[kept],
        })  # fmt: skip
    return {name: np.stack([part[name] for part in parts]) for name in parts[0]}


def _frames(video: Simulation, start: int, stop: int, crf: float | None) -> np.ndarray:
    frames = video.frames(start, stop)
    return np.stack(list(frames)) if crf is None else compressed(frames, video.fps, round(crf))


def crop(config: Config, spec: Config, video: Simulation, rng: np.random.Generator) -> Tensor:
    """About what the configuration's crop policy makes of the face's box."""
    (width, height), (x, y, w, h) = video.size, video.box
    scale = face_scale(config["crop"])
    if scale is None:
        raise ValueError(f"crop was {config['crop']!r}, expected face or face:S for training")
    side = min(scale * draw(spec["scale"], rng) * max(w, h), height, width)
    right, down = spec["shift"] * side * rng.uniform(-1, 1, 2)
    left = min(max(0.0, x + w / 2 - side / 2 + right), width - side)
    top = min(max(0.0, y + h / 2 - side / 2 + down), height - side)
    return torch.tensor([left, top, side, side], dtype=torch.float64)


def _keep(config: Config, kind: str, indices: range, path: Path) -> None:
    torch.set_num_threads(1)
    people = [sample(config, kind, index) for index in indices]
    with whole(path) as aside:
        save_file({name: np.concatenate([person[name] for person in people]) for name in people[0]}, aside)


def _files(config: Config, folder: Path) -> list[tuple[str, range, Path]]:
    files = []
    for kind in KINDS:
        count, each = config["data"][kind]["count"], config["data"][kind]["in_a_file"]
        for start in range(0, count, each):
            files.append((kind, range(start, min(start + each, count)), folder / kind / f"{start:05d}.safetensors"))
    return files


def prepare(config: Config, folder: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Simulate what `folder` does not hold yet, in `workers` processes; yields files there, files in all."""
    files = _files(config, folder)
    missing = [job for job in files if not job[2].exists()]
    for kind in KINDS:
        (folder / kind).mkdir(parents=True, exist_ok=True)
    yield len(files) - len(missing), len(files)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_keep, config, *job) for job in missing]
        for done, job in enumerate(jobs, len(files) - len(missing) + 1):
            job.result()
            yield done, len(files)


def load(config: Config, folder: Path) -> dict[str, Sample]:
    """Everything that `prepare` has put into `folder`, by kind: the arrays of `sample`, of all people's pieces."""
    parts: dict[str, list[Sample]] = {kind: [] for kind in KINDS}
    for kind, _, path in _files(config, folder):
        parts[kind].append(load_file(path))
    return {kind: {name: np.concatenate([p[name] for p in some]) for name in some[0]} for kind, some in parts.items()}
