"""The simulator as a dataset: people, rooms and lives drawn from ranges, each from a seed of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import bigsmall_kernels as bk

from ..face.crop import face_scale
from ..signals.filters import diff_normalize_label
from ..synthesis import AUS, Simulation, compressed, negatives, synthesize

Spec = dict[str, Any]
Arrays = dict[str, np.ndarray]
DEFAULTS: Spec = {
    "seed": 0,
    "count": 100,  # people
    "seconds": 20,
    "n_segment": 3,
    "big_every": None,  # one Big picture of so many frames; None: of each clip
    "big": None,  # only so many of them, at random, of each piece; its first always
    "pieces": None,  # so many pieces of `clips` clips each; None: the whole video
    "clips": 3,
    "shown": 0.7,  # share of pieces that begin where an expression is shown; the others anywhere
    "frames": [],  # sides of the pictures of all frames that are kept as well, such as 72
    "crop": "face:2.2",
    "scale": [0.9, 1.1],  # of the crop, beside its policy's
    "shift": 0.03,  # of the crop, in its sides
    "compressed": 0.25,  # share of videos that go through x264
    "crf": [4, 12],
    "no_pulse": 0.08,
    "no_breathing": 0.05,
    # [low, high] is drawn uniformly, {log: [low, high]} uniformly in the logarithm, {any: [...]} from one of its ranges
    "simulator": {
        "fps": [14, 42],
        "heart_rate": [40, 180],
        "respiration_rate": [6, 30],
        "pulse": {"log": [0.004, 0.03]},
        "variability": [0.01, 0.08],
        "breathing": {"log": [0.5, 2.5]},
        "expressions": [5, 40],
        "motion": {"log": [0.05, 2.0]},
        "gestures": {"any": [[0, 0], [0, 6]]},
        "talking": {"any": [[0, 0], [0, 0], [0.1, 0.6]]},
        "light": [0.4, 1.05],
        "drift": {"log": [0.002, 0.04]},
        "flicker": {"any": [[0, 0], [0.001, 0.03]]},
        "screen": {"any": [[0, 0], [0, 0], [0.005, 0.05]]},
        "exposure": {"any": [[0, 0], [0, 0], [1, 6]]},
        "noise": {"log": [0.4, 3.0]},
        "face": [0.32, 0.56],
        "size": [160, 256],
    },
}


def draw(spec: Any, rng: np.random.Generator) -> float:
    """A number from `[low, high]` (uniform), `{log: [low, high]}` (uniform in the log) or `{any: [...]}` of them."""
    if isinstance(spec, dict) and "any" in spec:
        return draw(spec["any"][rng.integers(len(spec["any"]))], rng)
    if isinstance(spec, dict):
        low, high = spec["log"]
        return float(math.exp(rng.uniform(math.log(low), math.log(high))))
    low, high = spec
    return float(rng.uniform(low, high))


def simulation(spec: Spec, seed: int, negative: str | None = None) -> tuple[Simulation, np.random.Generator]:
    """A person, a room and a life out of the ranges of `spec`, and the generator for what follows.

    `negative` names the kind of video without a pulse that it is instead, one of `synthesis.NEGATIVES`.
    """
    rng = np.random.default_rng(seed)
    options: dict[str, Any] = {name: draw(of, rng) for name, of in spec["simulator"].items()}
    options["size"] = (2 * round(options["size"] / 2),) * 2
    if rng.uniform() < spec["no_pulse"]:
        options["heart_rate"] = None
    if rng.uniform() < spec["no_breathing"]:
        options["respiration_rate"] = None
    options |= {"seed": seed, "seconds": spec["seconds"]}
    return synthesize(**options) if negative is None else negatives(negative, **options), rng


def jobs(spec: Spec) -> list[Person]:
    """The people that `spec` describes; what it leaves out is as in DEFAULTS.

    Raises:
        ValueError: an unknown option.
    """
    given = {name: value for name, value in spec.items() if name not in ("dataset", "root")}
    if unknown := set(given) - set(DEFAULTS):
        raise ValueError(f"the simulator has no option {', '.join(sorted(unknown))}; it has {', '.join(DEFAULTS)}")
    ranges = {**DEFAULTS["simulator"], **given.get("simulator", {})}
    if unknown := set(ranges) - set(DEFAULTS["simulator"]):
        raise ValueError(f"simulator: no range is called {', '.join(sorted(unknown))}")
    full = {**DEFAULTS, **given, "simulator": ranges}
    if face_scale(full["crop"]) is None:
        raise ValueError(f"crop was {full['crop']!r}, expected face or face:S")
    return [Person(f"{index:06d}", full, index) for index in range(full["count"])]


@dataclass(frozen=True)
class Person:
    """One simulated video, or pieces of it; everybody is their own subject."""

    name: str
    spec: Spec
    index: int

    @property
    def subject(self) -> str:
        return self.name

    def make(self) -> tuple[Arrays, Spec]:
        """Targets are normalised over the whole video (FACTS 3.3); Big's and Small's scales are those of the pieces."""
        spec, n = self.spec, self.spec["n_segment"]
        video, rng = simulation(spec, spec["seed"] * 1_000_000 + self.index)
        crf = draw(spec["crf"], rng) if rng.uniform() < spec["compressed"] else None
        box = crop(spec, video, rng)
        whole = len(video) - 1  # as many differences
        length = whole // n * n if spec["pieces"] is None else spec["clips"] * n
        if not n <= length <= whole:
            raise ValueError(f"clips was {spec['clips']}: the video of {whole + 1} frames is too short")
        begins = np.zeros(1, np.int64) if spec["pieces"] is None else _begins(spec, video, whole - length + 1, rng)
        pieces = [_frames(video, int(begin), int(begin) + length + 1, crf) for begin in begins]
        tensors = [torch.from_numpy(piece) for piece in pieces]
        stats = bk.InputStats.from_sums(torch.cat([bk.bigsmall_input_sums(piece, box) for piece in tensors]))
        every = spec["big_every"] or n
        small, big, at = [], [], []
        for k, piece in enumerate(tensors):
            small.append(bk.bigsmall_inputs(piece, box, n_segment=n, stats=stats)[1].numpy().astype(np.float16))
            kept = np.arange(0, length, every)
            if spec["big"] is not None:
                kept = np.append(0, every * (1 + np.sort(rng.permutation(len(kept) - 1)[: spec["big"] - 1])))
            big.append(pictures(piece[torch.from_numpy(kept)], box, 144))
            at.append(k * length + kept)
        frames = (begins[:, None] + np.arange(length)).ravel()
        truth = video.truth
        arrays: Arrays = {
            "small": np.concatenate(small),
            "big": np.concatenate(big),
            "big_frame": np.concatenate(at).astype(np.int64),
            "stretches": np.arange(len(begins) + 1, dtype=np.int64) * length,
            "timestamps": truth.timestamp[frames].astype(np.float64),
            "bvp": diff_normalize_label(truth.bvp)[frames].astype(np.float32),
            "respiration": diff_normalize_label(truth.respiration)[frames].astype(np.float32),
            "au": truth.aus[frames].astype(np.uint8),
            "bvp_wave": truth.bvp[frames].astype(np.float32),
            "respiration_wave": truth.respiration[frames].astype(np.float32),
            "heart_rate": truth.heart_rate[frames].astype(np.float32),
            "respiration_rate": truth.respiration_rate[frames].astype(np.float32),
        }
        for size in spec["frames"]:
            arrays[f"frames_{size}"] = np.concatenate([pictures(piece[:-1], box, size) for piece in tensors])
        meta = {
            "dataset": "simulator", "fps": video.fps, "convention": "exact", "crop": spec["crop"],
            "big_mean": stats.mean, "big_std": stats.std, "action_units": list(AUS), "crf": crf,
        }  # fmt: skip
        return arrays, meta


def _begins(spec: Spec, video: Simulation, count: int, rng: np.random.Generator) -> np.ndarray:
    """First frames of the pieces, out of the first `count`."""
    starts = np.arange(count)
    shown = starts[video.truth.aus[:count].any(axis=1)]
    some = (shown if len(shown) and rng.uniform() < spec["shown"] else starts for _ in range(spec["pieces"]))
    return np.array([rng.choice(of) for of in some], dtype=np.int64)


def _frames(video: Simulation, start: int, stop: int, crf: float | None) -> np.ndarray:
    frames = video.frames(start, stop)
    return np.stack(list(frames)) if crf is None else compressed(frames, video.fps, round(crf))


def crop(spec: Spec, video: Simulation, rng: np.random.Generator) -> Tensor:
    """About what the crop policy makes of a detector's box: x, y, w, h in pixels, (4,) float64."""
    (width, height), (x, y, w, h) = video.size, video.box
    scale = face_scale(spec["crop"])
    assert scale is not None
    side = min(scale * draw(spec["scale"], rng) * max(w, h), height, width)
    right, down = spec["shift"] * side * rng.uniform(-1, 1, 2)
    left = min(max(0.0, x + w / 2 - side / 2 + right), width - side)
    top = min(max(0.0, y + h / 2 - side / 2 + down), height - side)
    return torch.tensor([left, top, side, side], dtype=torch.float64)


def pictures(frames: Tensor, boxes: Tensor, size: int) -> np.ndarray:
    """What boxes show, area-resized and rounded: (T, H, W, 3) uint8 -> (T, size, size, 3) uint8."""
    plain = bk.InputStats(0.0, 1.0, 1.0)
    doubled = torch.cat((frames, frames[-1:]))  # inputs are one shorter than frames
    boxes = torch.cat((boxes, boxes[-1:])) if boxes.dim() == 2 else boxes
    big, _ = bk.bigsmall_inputs(doubled, boxes, big_size=size, small_size=1, n_segment=1, all_big=True, stats=plain)
    return big.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
