"""Prepared recordings: what a network reads of a video and what it should answer, in one file that is mapped, not read.

T frames on the model's clock (in the "exact" convention one less than the video has: frame t comes with its difference
to t + 1), in stretches within which frames follow one another::

    small            (T, 3, s, s) float16   normalised differences, taken at 144 x 144 and averaged down (FACTS 3.2)
    big, big_frame   (K, S, S, 3) uint8     pictures, and which of the T frames each one is, (K,) int64 increasing
    frames_S         (T, S, S, 3) uint8     pictures of another size, such as frames_72; any number of sizes
    stretches        (R + 1,) int64         0, the ends of the stretches, T
    timestamps       (T,) float64           seconds
    bvp, respiration (T,) float32           targets: differences of unit deviation; NaN unknown, zeros where none is
    au               (T, U) uint8           0 or 1, 255 unknown
    bvp_wave, respiration_wave    (T,) float32   the waves that are evaluated against; NaN unknown
    heart_rate, respiration_rate  (T,) float32   per minute, as the dataset gives them; NaN unknown
    landmarks        (T, 49, 2) float32     x, y in shares of the pictures' sides, (pixel + 0.5) / pixels, in FACTS
                                            3.5's order; all of a frame or, where unknown, all NaN

Only stretches and timestamps must be there. Small's scale is in the file; Big's is `big_mean` and `big_std` of `meta`,
which also holds name, subject, dataset, fps, convention, crop and action_units.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..files import whole

EPS = 1e-7  # of the differences' denominator, as in `bigsmall_kernels.diff_normalize`
UNKNOWN = 255  # in `au`
DTYPES = {
    "small": np.float16, "big": np.uint8, "big_frame": np.int64, "stretches": np.int64, "timestamps": np.float64,
    "bvp": np.float32, "respiration": np.float32, "au": np.uint8, "bvp_wave": np.float32,
    "respiration_wave": np.float32, "heart_rate": np.float32, "respiration_rate": np.float32, "landmarks": np.float32,
}  # fmt: skip
KINDS = {"float16": "F16", "uint8": "U8", "int64": "I64", "float64": "F64", "float32": "F32"}  # in the file
ROWS = 256  # written at once
META = ("name", "subject", "dataset", "fps", "convention", "crop")
POINTS = 49  # in `landmarks`
TARGETS = {"au": "au", "pulse": "bvp", "respiration": "respiration", "landmarks": "landmarks"}  # of each task


def write_prepared(path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Write a recording; the file appears whole or not at all.

    Args:
        path: ends in .safetensors.
        arrays: as above.
        meta: what is known of it, JSON: META, with `big` big_mean and big_std, with `au` action_units.

    Raises:
        ValueError: something is missing, has another shape or type, or contradicts the rest.
    """
    _check(arrays, meta)
    scales = {name[7:]: _scales(a, arrays["stretches"]) for name, a in arrays.items() if name.startswith("frames_")}
    text = json.dumps({**meta, "frames": scales})
    with whole(path) as aside, open(aside, "wb") as file:
        _write(file, arrays, {"recording": text})


def _write(file: BinaryIO, arrays: Mapping[str, np.ndarray], meta: Mapping[str, str]) -> None:
    """As safetensors lays it out, whose own writer copies everything: an hour of pictures is larger than memory."""
    header: dict[str, Any] = {"__metadata__": meta}
    order, end = sorted(arrays, key=lambda name: (-arrays[name].itemsize, name)), 0  # every array at its alignment
    for name in order:
        a = arrays[name]
        begin, end = end, end + a.nbytes
        header[name] = {"dtype": KINDS[a.dtype.name], "shape": a.shape, "data_offsets": (begin, end)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        for begin in range(0, len(arrays[name]), ROWS):
            file.write(arrays[name][begin : begin + ROWS].tobytes())


def _check(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    scales = ("big_mean", "big_std") if "big" in arrays else ()
    needed = [*META, *scales, *(("action_units",) if "au" in arrays else ())]
    if missing := [name for name in needed if name not in meta]:
        raise ValueError(f"meta: {', '.join(missing)} missing")
    for name in ("stretches", "timestamps", *(("big_frame",) if "big" in arrays else ())):
        if name not in arrays:
            raise ValueError(f"arrays: {name} is missing")
    t = len(arrays["timestamps"])
    for name, array in arrays.items():
        expected = np.uint8 if name.startswith("frames_") else DTYPES.get(name)
        if expected is None or array.dtype != expected:
            raise ValueError(f"arrays: {name} was {array.dtype}, expected {np.dtype(expected) if expected else 'none'}")
        if name not in ("big", "big_frame", "stretches") and len(array) != t:
            raise ValueError(f"arrays: {name} has {len(array)} rows, expected {t}, one a frame")
    ends = arrays["stretches"]
    if ends.ndim != 1 or len(ends) < 2 or ends[0] != 0 or ends[-1] != t or (np.diff(ends) <= 0).any():
        raise ValueError(f"arrays: stretches was {ends.tolist()[:8]}, expected increasing bounds from 0 to {t}")
    if "big" in arrays:
        at = arrays["big_frame"]
        increasing = (np.diff(at, prepend=-1, append=t) > 0).all()
        if at.shape != arrays["big"].shape[:1] or not increasing:
            raise ValueError(f"arrays: big_frame was {at.tolist()[:8]}, expected one of {t} frames a picture")
    if "au" in arrays and arrays["au"].shape != (t, len(meta["action_units"])):
        raise ValueError(f"arrays: au has shape {arrays['au'].shape}, expected ({t}, {len(meta['action_units'])})")
    if "landmarks" in arrays:
        points = arrays["landmarks"]
        if points.shape != (t, POINTS, 2):
            raise ValueError(f"arrays: landmarks has shape {points.shape}, expected ({t}, {POINTS}, 2)")
        unknown = np.isnan(points)
        if some := np.flatnonzero(unknown.any((1, 2)) & ~unknown.all((1, 2))).tolist():
            raise ValueError(f"arrays: landmarks of frame {some[0]} are known in part, expected all of them or none")


def _scales(frames: np.ndarray, stretches: np.ndarray) -> dict[str, float]:
    """Mean and deviation of all pixels, and the deviation of all differences within stretches, frame by frame."""
    sums = np.zeros(2)
    for frame in frames:
        values = frame.astype(np.float64)
        sums += values.sum(), (values**2).sum()
    mean, square = sums / max(frames.size, 1)
    ends, total = set(stretches[1:].tolist()), np.zeros(3)  # of the values, of their squares, how many
    for t in range(len(frames) - 1):
        if t + 1 not in ends:
            d = _difference(frames[t : t + 2].astype(np.float64))
            total += d.sum(), (d**2).sum(), d.size
    count = max(total[2], 1)
    return {
        "mean": float(mean),
        "std": float(np.sqrt(max(square - mean**2, 0.0))),
        "difference_std": float(np.sqrt(max(total[1] / count - (total[0] / count) ** 2, 0.0))),
    }


def _difference(frames: np.ndarray) -> np.ndarray:
    after, before = frames[1:], frames[:-1]
    difference: np.ndarray = (after - before) / (after + before + EPS)
    return difference


class Prepared:
    """A recording of a prepared folder. Arrays are attributes (`r.small`, `r.au`, `r.frames_72`); `len(r)` is T.

    Attributes:
        path: the file. meta: what the file says of it. arrays: names of those it has.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        with open(self.path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        # A mapping without a descriptor of its own: datasets have more files than a process may keep open.
        count = self.path.stat().st_size
        raw = torch.from_file(str(self.path), shared=False, size=count, dtype=torch.uint8).numpy()
        raw.flags.writeable = False
        kinds = {kind: np.dtype(name) for name, kind in KINDS.items()}
        self.meta: dict[str, Any] = json.loads(header.pop("__metadata__")["recording"])
        self._arrays = {}
        for name, of in header.items():
            begin, end = (8 + size + offset for offset in of["data_offsets"])
            self._arrays[name] = raw[begin:end].view(kinds[of["dtype"]]).reshape(of["shape"])
        self.arrays = tuple(self._arrays)
        self.name: str = self.meta["name"]
        self.subject: str = self.meta["subject"]
        self.dataset: str = self.meta["dataset"]
        self.fps: float = self.meta["fps"]
        self.action_units = tuple(self.meta.get("action_units", ()))

    def __getattr__(self, name: str) -> np.ndarray:
        array: np.ndarray | None = self.__dict__.get("_arrays", {}).get(name)
        if array is None:
            raise AttributeError(f"the recording has no {name!r}")
        return array

    def __reduce__(self) -> tuple[Any, ...]:
        return Prepared, (self.path,)

    def __len__(self) -> int:
        return len(self._arrays["timestamps"])

    def has(self, reads: Sequence[str]) -> bool:
        """Whether everything that a network reads is in the file."""
        return all(_source(name) in self._arrays for name in reads)

    def starts(self, n: int, reads: Sequence[str] = (), big_every: int | None = None) -> np.ndarray:
        """First frames (C,) of the clips of `n` frames that follow one another inside each stretch.

        Args:
            reads: with "big" among it, only clips whose every `big_every`-th frame has a picture (None: the first).
        """
        bounds = zip(self.stretches[:-1], self.stretches[1:], strict=True)
        starts = np.concatenate([np.arange(a, b - n + 1, n, dtype=np.int64) for a, b in bounds])
        if "big" in reads:
            shown = np.isin(starts[:, None] + np.arange(0, n, big_every or n), self.big_frame)
            starts = starts[shown.all(1)]
        return starts

    def inputs(
        self, reads: Sequence[str], starts: np.ndarray, n: int, big_every: int | None = None
    ) -> dict[str, Tensor]:
        """What a network reads of the clips of `n` frames that begin at `starts` (C,): float32 NCHW, clip-major.

        Args:
            reads: names as in the `reads` of a network: "big", "small", "difference:S", "standard:S".
            big_every: of "big" one of so many frames (None: of each clip the first).

        Raises:
            ValueError: the file does not hold one of them, or not of these frames.
        """
        starts = np.asarray(starts, dtype=np.int64)
        frames = (starts[:, None] + np.arange(n)).ravel()
        made = {}
        for name in reads:
            source = _source(name)
            if source not in self._arrays:
                raise ValueError(f"{self.path.name} holds no {source}, which {name!r} is made of; prepare it with that")
            if name == "small":
                made[name] = torch.from_numpy(self.small[frames].astype(np.float32))
            elif name == "big":
                seen = (starts[:, None] + np.arange(0, n, big_every or n)).ravel()
                at = np.searchsorted(self.big_frame, seen)
                if (at >= len(self.big_frame)).any() or (self.big_frame[at] != seen).any():
                    raise ValueError(f"{self.path.name} lacks Big pictures of these frames; prepare with big_every=1")
                made[name] = _scaled(self.big[at], self.meta["big_mean"], self.meta["big_std"])
            elif name.startswith("standard:"):
                of = self.meta["frames"][source[7:]]
                made[name] = _scaled(self._arrays[source][frames], of["mean"], of["std"])
            else:
                of = self.meta["frames"][source[7:]]
                made[name] = self._differences(self._arrays[source], frames, of["difference_std"])
        return made

    def _differences(self, pictures: np.ndarray, frames: np.ndarray, std: float) -> Tensor:
        """Zero for the last frame of a stretch, as the toolbox pads (FACTS 3.2)."""
        last = np.isin(frames + 1, self.stretches[1:])
        before, after = (pictures[t].astype(np.float32) for t in (frames, frames + ~last))
        d = (after - before) / (after + before + np.float32(EPS)) * np.float32(1 / std if std else 0)
        return torch.from_numpy(d).permute(0, 3, 1, 2).contiguous()

    def targets(self, tasks: Sequence[str], starts: np.ndarray, n: int) -> dict[str, Tensor]:
        """What should come out, float32: au (C n, U), pulse and respiration (C n, 1), and to learn action units with
        "landmarks" (C n, 49, 2); NaN what is not known."""
        frames = (np.asarray(starts, dtype=np.int64)[:, None] + np.arange(n)).ravel()
        made = {}
        for task in tasks:
            kept = self._arrays.get(TARGETS[task])
            if task == "au":
                rows = np.full((len(frames), len(self.action_units)), UNKNOWN) if kept is None else kept[frames]
                values = np.where(rows == UNKNOWN, np.nan, rows.astype(np.float32))
            elif task == "landmarks":
                values = np.full((len(frames), POINTS, 2), np.nan) if kept is None else kept[frames]
            else:
                values = np.full((len(frames), 1), np.nan) if kept is None else kept[frames, None]
            made[task] = torch.from_numpy(values.astype(np.float32))
        return made


def _source(name: str) -> str:
    kind, _, size = name.partition(":")
    return f"frames_{size}" if size else kind


def _scaled(pictures: np.ndarray, mean: float, std: float) -> Tensor:
    """(F, S, S, 3) uint8 -> (F, 3, S, S) float32 standardised; zeros of a constant video (FACTS 3.2)."""
    values = (pictures.astype(np.float32) - np.float32(mean)) * np.float32(1 / std if std else 0)
    return torch.from_numpy(values).permute(0, 3, 1, 2).contiguous()
