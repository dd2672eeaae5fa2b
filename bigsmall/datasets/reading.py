"""A recording read: two passes over its video, as `bigsmall.pipeline` makes them, and its labels beside the frames."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from bigsmall_kernels import InputStats

from ..face import Box, CropPolicy, FaceTracker, Track, crop_box, face_scale, parse_crop
from ..inputs import LEAST, InputPieces, InputSums
from ..pipeline import MAX_RATE, colour
from ..readings import MAX_GAP, Clock
from ..signals import filters, unsupervised
from ..video import Frame, Video
from .align import TOLERANCE, drift
from .landmarks import in_boxes
from .prepared import UNKNOWN
from .recording import SPREAD, Labels, Recording, Settings

PLAIN = InputStats(0.0, 1.0, 1.0)  # leaves pixels as they are
WAVES = ("bvp", "respiration", "bvp_wave", "respiration_wave", "heart_rate", "respiration_rate")

Waves = dict[str, np.ndarray]  # by their names in WAVES, a value for each used frame


def read(recording: Recording, dataset: str, settings: Settings) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `RecordingJob.make` returns."""
    policy = parse_crop(recording.crop) if settings.crop is None else settings.crop
    labels = recording.labels()
    with recording.open() as video:
        seen = _look(video, recording, policy, settings)
        note = video.note  # of the pass that read to the end
        pictures = _Pictures(seen, settings)
        pictures.take(video)
    waves, drifts = _waves(labels, seen, settings)
    if recording.pseudo:
        waves["bvp_wave"] = waves.get("bvp_wave", waves.get("bvp", np.full(len(seen.used), np.nan)))
        waves["bvp"] = _pseudo(seen, waves.get("heart_rate"))
    arrays = pictures.arrays() | {"timestamps": pictures.rows(seen.times)}
    for name in WAVES:
        of = waves.get(name, waves.get(name.removesuffix("_wave"), np.full(len(seen.used), np.nan)))
        target = name in ("bvp", "respiration")
        arrays[name] = (pictures.differences(of) if target else pictures.rows(of)).astype(np.float32)
    if labels.au is not None:
        arrays["au"] = pictures.rows(_units(labels, seen))
    if labels.landmarks is not None:
        arrays["landmarks"] = pictures.rows(in_boxes(labels.landmarks, seen.used, seen.boxes))
    unknown = {name for name in (*WAVES, "landmarks") if name in arrays and np.isnan(arrays[name]).all()}
    unknown |= {"au"} if "au" in arrays and (arrays["au"] == UNKNOWN).all() else set()
    arrays = {name: array for name, array in arrays.items() if name not in unknown}  # what is there tells something
    scale = 255.0 if settings.convention == "bigsmall" else 1.0  # whose pixels go from 0 to 1
    meta = {
        "dataset": dataset,
        "fps": seen.rate,
        "convention": settings.convention,
        "crop": policy if isinstance(policy, str) else ",".join(map(str, policy)),
        "big_mean": scale * seen.stats.mean,
        "big_std": scale * seen.stats.std,
        "action_units": list(labels.action_units),
        "labels": settings.labels,
        "pseudo": recording.pseudo,
        "video": {"frames": len(seen.clock.timestamps), "used": len(seen.used), "repeated": seen.clock.repeated},
        "drift": drifts,
        "notes": [
            *([note] if note else []),
            *(f"{name} {of['warning']}" for name, of in drifts.items() if of["warning"]),
            *labels.notes,
        ],
    }
    return arrays, meta


@dataclass
class _Seen:
    """What the first pass keeps: the clock of all frames, and of those that are used an entry each."""

    clock: Clock = field(default_factory=Clock)
    used: list[int] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    colours: list[np.ndarray] = field(default_factory=list)  # (3,) mean red, green, blue of the box
    starts: list[int] = field(default_factory=list)  # of the used: where one does not follow the one before
    stats: InputStats = PLAIN

    @property
    def times(self) -> np.ndarray:
        return np.array(self.clock.timestamps)[self.used]

    @property
    def runs(self) -> list[slice]:
        """Used frames that follow each other."""
        return [slice(a, b) for a, b in pairwise([*self.starts, len(self.used)])]

    @property
    def rate(self) -> float:
        """Used frames a second, on average, where they follow each other."""
        times = [self.times[run] for run in self.runs]
        return float(sum(len(t) - 1 for t in times) / sum(t[-1] - t[0] for t in times))


def _look(video: Video, recording: Recording, policy: CropPolicy, settings: Settings) -> _Seen:
    """The first pass, over the whole video, for its clock; what counts are the recording's own frames."""
    tracker = FaceTracker() if face_scale(policy) is not None else None
    seen, sums = _Seen(), InputSums(convention=settings.convention)
    tracks: list[Track] = []
    before: Frame | None = None  # the last used frame, none after a face that was lost
    gain = np.ones(3)  # of the colours, so that a box that moves makes no step
    for frame in video:
        fresh = seen.clock.add(frame, 1 / MAX_RATE)
        if not recording.has(frame):
            continue
        if tracker is not None and not frame.repeated:
            tracks = tracker.update(frame)
        box = crop_box(policy, tracks[0].face if tracks else None, video.width, video.height)
        if box is None:
            before = None
        elif fresh:
            if before is None or frame.timestamp - before.timestamp > MAX_GAP:
                sums.cut()
                seen.starts.append(len(seen.used))
            elif box != seen.boxes[-1]:
                now = colour(before.rgb, box, 0.0)
                gain *= np.divide(colour(before.rgb, seen.boxes[-1], 0.0), now, out=np.ones(3), where=now > 0)
            sums.add(frame.rgb, box)
            seen.used.append(frame.index)
            seen.boxes.append(box)
            seen.colours.append(gain * colour(frame.rgb, box, 0.0))
            before = frame
    least, most = max(LEAST, settings.n_segment + 1), max((run.stop - run.start for run in seen.runs), default=0)
    if most < least:
        what = "different pictures" if tracker is None else "different pictures with a face"
        raise ValueError(f"{video.name} has {most} {what} in a row, expected at least {least}")
    sums.cut()
    seen.stats = sums.stats()
    return seen


class _Rows:
    """An array that grows by rows, in a file without a name: an hour of pictures is larger than memory."""

    def __init__(self, dtype: type, *shape: int) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed once it is mapped
        self._dtype, self._shape, self._count = dtype, shape, 0

    def add(self, rows: np.ndarray) -> None:
        self._file.write(rows.astype(self._dtype).tobytes())
        self._count += len(rows)

    def array(self) -> np.ndarray:
        with self._file:
            self._file.flush()
            return np.memmap(self._file, self._dtype, "r+", shape=(self._count, *self._shape))


class _Pictures:
    """The second pass: inputs and pictures of the model's frames, and which of the used frames these are."""

    def __init__(self, seen: _Seen, settings: Settings) -> None:
        self._seen, self._every = seen, settings.big_every or settings.n_segment
        self._scale = 255.0 if settings.convention == "bigsmall" else 1.0
        same = {"n_segment": settings.n_segment, "all_big": True}
        stats = PLAIN._replace(diff_std=seen.stats.diff_std)
        self._pieces = InputPieces(stats, convention=settings.convention, **same)  # type: ignore[arg-type]
        self._others = {
            size: InputPieces(PLAIN, big_size=size, small_size=1, convention="toolbox", **same)  # type: ignore[arg-type]
            for size in settings.frames
        }
        self._small, self._big = _Rows(np.float16, 3, 9, 9), _Rows(np.uint8, 144, 144, 3)
        self._frames = {size: _Rows(np.uint8, size, size, 3) for size in settings.frames}
        self._big_frame: list[np.ndarray] = []
        self._counts: list[int] = []  # frames of each run

    def take(self, video: Video) -> None:
        seen, at = self._seen, 0
        last, n = seen.used[-1], len(seen.clock.timestamps)
        for frame in video:
            if frame.index <= last and frame.index == seen.used[at]:
                if at in seen.starts:
                    self._cut()
                    self._counts.append(0)
                crop = frame.rgb, seen.boxes[at]
                self._keep(self._pieces.add(*crop), {size: o.add(*crop) for size, o in self._others.items()})
                at += 1
            if frame.index >= last and frame.index != n - 1:  # a decoder read to its end is used again
                break
        self._cut()
        if at < len(seen.used):
            raise ValueError(f"{video.name} gave {len(seen.used)} frames to use when first read, and then {at}")

    def _cut(self) -> None:
        self._keep(self._pieces.cut(), {size: other.cut() for size, other in self._others.items()})

    def _keep(self, made: tuple[Tensor, Tensor] | None, others: dict[int, tuple[Tensor, Tensor] | None]) -> None:
        if made is None:
            return
        big, small = made
        done, n = self._counts[-1], len(small)
        kept = np.arange(-done % self._every, n, self._every)
        self._big_frame.append(sum(self._counts) + kept)
        self._big.add(_bytes(big[kept], self._scale))
        self._small.add(small.numpy())
        for size, other in others.items():
            assert other is not None  # as many frames are held of each
            self._frames[size].add(_bytes(other[0][:n], 1.0))
        self._counts[-1] += n

    def arrays(self) -> dict[str, np.ndarray]:
        """The pictures, and the stretches. Where there are pictures of all frames a box that moves ends a stretch: the
        difference of two of them would be of two places."""
        ends = np.cumsum([0, *self._counts])
        bounds = set(ends.tolist())
        for run, first, count in zip(self._seen.runs, ends, self._counts, strict=False):
            boxes = self._seen.boxes[run][:count]
            bounds.update(first + i for i, (a, b) in enumerate(pairwise(boxes), 1) if a != b and self._frames)
        return {
            "small": self._small.array(),
            "big": self._big.array(),
            "big_frame": np.concatenate(self._big_frame),
            **{f"frames_{size}": rows.array() for size, rows in self._frames.items()},
            "stretches": np.array(sorted(bounds)),
        }

    def rows(self, of: np.ndarray) -> np.ndarray:
        """From the used frames (U, ...) to the model's (T, ...)."""
        runs = zip(self._seen.runs, self._counts, strict=True)
        return np.concatenate([of[run][:count] for run, count in runs])

    def differences(self, wave: np.ndarray) -> np.ndarray:
        """(U,) -> (T,): each frame's to the next, at unit deviation over all of them (FACTS 3.3); NaN where unknown."""
        steps = [np.diff(wave[run]) for run in self._seen.runs]
        known = np.concatenate(steps)
        std = known[~np.isnan(known)].std() if not np.isnan(known).all() else 0.0
        scaled = [step / std if std else 0 * step for step in steps]
        # a convention that has an output for the last frame as well has a zero there, as in Small
        padded = [np.append(step, 0 * step[-1:]) for step in scaled]
        return np.concatenate([step[:count] for step, count in zip(padded, self._counts, strict=True)])


def _bytes(pixels: Tensor, scale: float) -> np.ndarray:
    """(F, 3, S, S) of 0..255 / scale -> (F, S, S, 3) uint8."""
    made: np.ndarray = (pixels * scale).round_().clamp_(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return made


def _waves(labels: Labels, seen: _Seen, settings: Settings) -> tuple[Waves, dict[str, Any]]:
    """The labels at the used frames, and how far their clocks are from the video's."""
    clock = np.array(seen.clock.timestamps)
    waves, drifts = {}, {}
    for name in WAVES:
        if (given := getattr(labels, name)) is not None:
            signal, past = given.on(clock), SPREAD.get(settings.labels)
            try:
                even = None if past is None else signal.stretched(len(clock), past)
                waves[name] = signal.at(seen.times) if even is None else even[seen.used]
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            drifts[name] = drift(signal, float(clock[0]), float(clock[-1]))
    return waves, drifts


def _pseudo(seen: _Seen, heart_rate: np.ndarray | None) -> np.ndarray:
    """POS over its envelope (FACTS 4) of the boxes' mean colours, (U,), around the mean contact rate if there is one.

    Of runs shorter than two of POS's windows it is unknown.
    """
    known = heart_rate is not None and not np.isnan(heart_rate).all()
    rate = float(np.nanmean(heart_rate)) if known else None  # type: ignore[arg-type]
    colours, times, fs = np.array(seen.colours), seen.times, seen.rate
    made = np.full(len(times), np.nan)
    for run in seen.runs:
        if times[run][-1] - times[run][0] > 2 * unsupervised.WINDOW:
            label = unsupervised.pseudo_label(filters.resample(colours[run], times[run], fs), fs, rate)[1]
            made[run] = np.interp(times[run], times[run.start] + np.arange(len(label)) / fs, label)
    return made


def _units(labels: Labels, seen: _Seen) -> np.ndarray:
    """The action units of the used frames, (U, units)."""
    assert labels.au is not None
    rows, times = labels.au, seen.times
    if labels.au_times is not None:
        clock = np.asarray(labels.au_times, np.float64)
        if len(clock) < 2:
            raise ValueError(f"action units had {len(clock)} times, expected at least two")
        after = np.clip(np.searchsorted(clock, times), 1, len(clock) - 1)
        near = after - (times - clock[after - 1] < clock[after] - times)
        reach = max(TOLERANCE, float(np.median(np.diff(clock))) / 2)
        return np.where((np.abs(clock[near] - times) <= reach)[:, None], rows[near], UNKNOWN).astype(np.uint8)
    frames = np.arange(len(rows)) if labels.au_frames is None else np.asarray(labels.au_frames)
    n = len(seen.clock.timestamps)
    table = np.full((n, rows.shape[1]), UNKNOWN, np.uint8)
    inside = (frames >= 0) & (frames < n)
    table[frames[inside]] = rows[inside]
    return table[seen.used]
