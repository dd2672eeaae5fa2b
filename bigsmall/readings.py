"""From what the networks gave to waveforms, rates and tables."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import bigsmall_kernels as bk
from bigsmall.face import Box, CropPolicy, Track
from bigsmall.inputs import LEAST
from bigsmall.results import AU_THRESHOLD, WINDOW_COLUMNS, Measurement, Reading, Thumbnail, Trace
from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Rate, Vital, assess, filters, unsupervised
from bigsmall.signals.conditions import Conditions, Look
from bigsmall.video import Frame, Video
from bigsmall.weights import Predictor

MAX_GAP = 1.0  # s: a face away for less does not end a stretch; the waveforms are bridged
LEAST_STRETCH = 2.0  # s: shorter waveforms are not drawn
STEPS = {HEART_RATE: 1.0, RESPIRATION_RATE: 5.0}  # s between two windows
# The independent signal beside each of the networks', and beside the green channel, which shows all that light does.
SECONDS = {"pulse": "pos", "respiration": "chest", "green": "pos"}
COLOURS = {"pos": unsupervised.pos_raw, "chrom": unsupervised.chrom, "green": unsupervised.green}


@dataclass
class Clock:
    """The frames of a video: their timestamps (s), how many say nothing new, and what was wrong with the rest."""

    timestamps: list[float] = field(default_factory=list)
    repeated: int = 0
    note: str | None = None
    _used: float = -math.inf

    def add(self, frame: Frame, least: float) -> bool:
        """Whether to use this frame: it is no repeat and comes at least `least` seconds after the last used one."""
        self.timestamps.append(frame.timestamp)
        self.repeated += frame.repeated
        use = not frame.repeated and frame.timestamp - self._used >= least
        if use:
            self._used = frame.timestamp
        return use


@dataclass
class Seen:
    """What the first pass keeps of one face: an entry for every frame with it, and one for every frame used."""

    frames: list[int] = field(default_factory=list)
    tracks: list[Track | None] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)  # of the used: where a run begins that does not follow the last
    colours: list[np.ndarray] = field(default_factory=list)  # (3,) mean red, green, blue, of the used
    looks: list[Look] = field(default_factory=list)  # of the used
    chest: list[float] = field(default_factory=list)  # of the used: movement since the one before, face heights
    thumbnails: list[Thumbnail] = field(default_factory=list)
    stats: bk.InputStats | None = None

    def runs(self) -> list[slice]:
        """Used frames that follow each other, long enough for inputs: no difference is taken from one to the next."""
        return [slice(a, b) for a, b in pairwise([*self.starts, len(self.used)]) if b - a >= LEAST]

    def size(self) -> float:
        """Area of the boxes, over all frames."""
        return float(sum(w * h for _, _, w, h in self.boxes))


class Outputs(NamedTuple):
    """What the second pass gives, a row a used frame, NaN where there is nothing; in the order of `weights.TASKS`."""

    au: np.ndarray  # (T, action units) logits
    pulse: np.ndarray  # (T,) change from each frame to the next
    respiration: np.ndarray  # (T,) likewise

    @classmethod
    def nothing(cls, n: int, units: int) -> Outputs:
        return cls(np.full((n, units), np.nan), np.full(n, np.nan), np.full(n, np.nan))


def conclude(
    video: Video,
    predictor: Predictor,
    weights: str,
    crop: CropPolicy,
    clock: Clock,
    subjects: Mapping[int, Seen],
    outputs: Mapping[int, Outputs],
) -> Measurement:
    """Everything after the second pass; the first face is the largest, over the whole video."""
    times = np.array(clock.timestamps)
    source = {
        "name": video.name, "width": video.width, "height": video.height, "fps": video.fps, "frames": len(times),
        "repeated": clock.repeated, "seconds": _duration(times), "note": video.note or clock.note,
    }  # fmt: skip
    model = {
        "weights": weights,
        "crop": crop,
        "convention": predictor.convention,
        "n_segment": predictor.n_segment,
        "windows": {_column(vital): {"seconds": vital.window, "step": step} for vital, step in STEPS.items()},
        "cards": [json.loads(card.to_json()) for card in predictor.cards],
    }
    order = sorted(subjects, key=lambda face: -subjects[face].size())
    faces = [face for face in order if subjects[face].stats] or order[:1]
    found = [_Face(face, subjects[face], outputs[face], clock, predictor) for face in faces]
    found = found or [_Face(0, Seen(), Outputs.nothing(0, len(predictor.action_units)), clock, predictor)]
    first, *others = (face.measurement(source, model, video, i == 0) for i, face in enumerate(found))
    return replace(first, others=tuple(others))


class _Face:
    """One face's waveforms and rates. The rates come from its longest stretch."""

    def __init__(self, face_id: int, seen: Seen, outputs: Outputs, clock: Clock, predictor: Predictor) -> None:
        self.face_id, self.seen, self.outputs, self.predictor = face_id, seen, outputs, predictor
        self.clock, self.all_times = clock, np.array(clock.timestamps)
        self.times = self.all_times[seen.used]  # of the used frames
        self.windows: list[dict[str, Any]] = []
        self.waves = {name: np.full(len(self.times), np.nan) for name in ("pulse", "respiration")}
        self.longest, self.traces = slice(0, 0), {}
        for stretch in _stretches(self.times):
            traces = self._traces(stretch)
            for name, wave in self.waves.items():
                if name in traces:
                    wave[stretch] = np.interp(self.times[stretch], traces[name].seconds, traces[name].values)
            self.windows += self._windows(stretch, traces)
            if _duration(self.times[stretch]) > _duration(self.times[self.longest]):
                self.longest, self.traces = stretch, traces

    def measurement(self, source: dict[str, Any], model: dict[str, Any], video: Video, first: bool) -> Measurement:
        """`first`: its table has a row for every frame of the video, another's only where it is seen."""
        absent = np.ones(len(self.all_times), dtype=bool)
        absent[self.seen.frames] = False
        table = self._table(absent)
        return Measurement(
            source=source,
            heart_rate=self._reading("pulse", HEART_RATE),
            respiration_rate=self._reading("respiration", RESPIRATION_RATE),
            unsupervised={name: self._reading(name, HEART_RATE) for name in COLOURS},
            frames=table if first else table[~absent].reset_index(drop=True),
            windows=pd.DataFrame(self.windows, columns=list(WINDOW_COLUMNS)),
            lost=_lost(self.all_times, absent),
            model=model,
            action_units=tuple(self.predictor.action_units),
            traces=self.traces,
            face_id=self.face_id,
            thumbnails=tuple(self.seen.thumbnails),
            conditions=self._conditions(self.longest) if self.traces else None,
            video=video,
        )

    def _reading(self, name: str, vital: Vital) -> Reading:
        if name not in (*self.predictor.tasks, *COLOURS):
            return Reading.refused(vital, f"these weights do not measure {name}")
        if not self.seen.frames:
            return Reading.refused(vital, "no face was found")
        times = self.times[self.longest]
        short = _duration(times) < vital.seconds - 1e-3
        n, repeated = len(self.all_times), self.clock.repeated
        if short and n > 2 and repeated >= n / 2:
            still = f"the picture stands still: {repeated} of {n} frames repeat the one before"
            return Reading.refused(vital, f"no {vital.name}: {still}")
        needed = f"are needed to measure a {vital.name}"
        if len(self.times) > 1:
            fps = _rate(times) if len(times) else 1 / float(np.median(np.diff(self.times)))
            if fps <= 2 * vital.high:
                more = f"more than {2 * vital.high:g} different frames a second {needed}"
                return Reading.refused(vital, f"{more}; there are {fps:.2g}")
        if short:
            longest = max(_duration(self.times[stretch]) for stretch in _stretches(self.times, 0.0))
            return Reading.refused(vital, f"{vital.seconds:g} s with a face {needed}; there are {longest:.1f} s")
        if name not in self.traces:
            return Reading.refused(vital, f"the network gave nothing to read a {vital.name} from")
        rate = Reading.of(self._assess(self.traces, name, vital, self.longest), vital)
        if times[0] - self.all_times[0] < MAX_GAP and self.all_times[-1] - times[-1] < MAX_GAP:
            return rate
        return rate.noting(f"from {times[0]:.1f} to {times[-1]:.1f} s, the longest stretch with a face")

    def _assess(self, traces: Mapping[str, Trace], name: str, vital: Vital, part: slice) -> Rate:
        trace, second = traces[name], traces.get(SECONDS.get(name, ""))
        return assess(
            trace.unfiltered, trace.fs, vital, second.unfiltered if second else None, self._conditions(part)
        )

    def _conditions(self, part: slice) -> Conditions:
        return Conditions.of(self.seen.looks[part], self.times[part])

    def _traces(self, stretch: slice) -> dict[str, Trace]:
        """The waveforms of one stretch, as far as its length and frame rate allow."""
        times = self.times[stretch]
        chest = np.array(self.seen.chest[stretch])
        seen = not np.isnan(chest).any()
        found = {
            "pulse": _network_trace(self.outputs.pulse[stretch], times, HEART_RATE),
            "respiration": _network_trace(self.outputs.respiration[stretch], times, RESPIRATION_RATE),
            "chest": _even_trace(np.cumsum(chest), times, RESPIRATION_RATE) if seen else None,
        }
        colours, fs = np.array(self.seen.colours[stretch]), _rate(times)
        even = filters.resample(colours, times, fs)
        if len(even) > unsupervised.WINDOW * fs + 1 and fs > 2 * HEART_RATE.high:
            for name, method in COLOURS.items():
                found[name] = _trace(method(even, fs), fs, float(times[0]), HEART_RATE)
        return {name: trace for name, trace in found.items() if trace is not None}

    def _windows(self, stretch: slice, traces: Mapping[str, Trace]) -> list[dict[str, Any]]:
        """Rates over sliding windows of one stretch."""
        rows, times = [], self.times[stretch]
        duration = _duration(times)
        for name, vital in (("pulse", HEART_RATE), ("respiration", RESPIRATION_RATE)):
            if name not in traces or duration < vital.seconds - 1e-3:
                continue
            length = min(vital.window, duration)
            for start in np.arange(times[0], times[0] + duration - length + 1e-3, STEPS[vital]):
                part = slice(*(stretch.start + np.searchsorted(times, (start, start + length))).tolist())
                cut = {key: trace.between(start, start + length) for key, trace in traces.items()}
                rate = self._assess(cut, name, vital, part)
                low, high = rate.interval or (None, None)
                pos = self._assess(cut, "pos", vital, part).value if name == "pulse" and "pos" in cut else None
                values = (
                    self.face_id, _column(vital), start, start + length, rate.value, rate.unit,
                    rate.confidence, low, high, rate.snr, rate.by_peaks, pos, rate.note,
                )  # fmt: skip
                rows.append(dict(zip(WINDOW_COLUMNS, values, strict=True)))
        return rows

    def _table(self, absent: np.ndarray) -> pd.DataFrame:
        """A row a frame. Of a frame that was not used, the waveforms are interpolated, the action units the last."""
        seen, names = self.seen, self.predictor.action_units
        n, frames, used = len(absent), np.array(seen.frames, dtype=int), np.array(seen.used, dtype=int)
        place, au = np.full((n, 5), np.nan), np.full((n, len(names)), np.nan)
        for frame, track, box in zip(seen.frames, seen.tracks, seen.boxes, strict=True):
            place[frame] = (track.confidence, *track.face[:4]) if track else (np.nan, *box)
        last = np.searchsorted(used, frames, "right") - 1
        if len(used):
            follows = np.arange(len(frames)) - np.searchsorted(frames, used[last]) == frames - used[last]
            here = frames[(last >= 0) & follows]
            au[here] = 1 / (1 + np.exp(-self.outputs.au[last[(last >= 0) & follows]]))
        waves = {}
        for name, wave in self.waves.items():
            waves[name] = np.full(n, np.nan)
            for stretch in _stretches(self.times):
                times, at = self.times[stretch], self.all_times[frames]
                inside = frames[(frames >= used[stretch.start]) & (at < times[-1] + MAX_GAP)]
                waves[name][inside] = np.interp(self.all_times[inside], times, wave[stretch])
        table = {
            "frame": np.arange(n),
            "timestamp": self.all_times,
            "face_id": np.full(n, self.face_id),
            "success": (~absent).astype(int),
            **dict(zip(("confidence", "x", "y", "w", "h"), place.T, strict=True)),
            "bvp": waves["pulse"],
            "respiration": waves["respiration"],
            **dict(zip(names, au.T, strict=True)),
            **{f"{name}_c": _integers(p >= AU_THRESHOLD, np.isnan(p)) for name, p in zip(names, au.T, strict=True)},
        }
        return pd.DataFrame(table)


def _column(vital: Vital) -> str:
    """`heart_rate`, `respiration_rate`."""
    return vital.name.replace(" ", "_")


def _rate(times: np.ndarray) -> float:
    """Frames per second on average."""
    return float((len(times) - 1) / (times[-1] - times[0]))


def _duration(times: np.ndarray) -> float:
    """Seconds, the last frame's own included."""
    return len(times) / _rate(times) if len(times) > 1 else 0.0


def _stretches(times: np.ndarray, least: float = LEAST_STRETCH) -> list[slice]:
    """Used frames with absences of up to MAX_GAP, from the first to the last of each stretch of `least` seconds."""
    edges = [0, *(np.flatnonzero(np.diff(times) > MAX_GAP) + 1).tolist(), len(times)]
    return [slice(a, b) for a, b in pairwise(edges) if _duration(times[a:b]) >= least]


def _network_trace(derivative: np.ndarray, times: np.ndarray, vital: Vital) -> Trace | None:
    """From what a network gives, the change from each frame to the next (none across a gap), to the waveform."""
    if np.isnan(derivative).all():
        return None
    return _even_trace(np.concatenate([[0.0], filters.integrate(np.nan_to_num(derivative[:-1]))]), times, vital)


def _even_trace(waveform: np.ndarray, times: np.ndarray, vital: Vital) -> Trace | None:
    fs = _rate(times)
    return _trace(filters.resample(waveform, times, fs), fs, float(times[0]), vital)


def _trace(waveform: np.ndarray, fs: float, start: float, vital: Vital) -> Trace | None:
    """Detrended and band-passed; None where the frames come too slowly for the band."""
    if vital.high >= fs / 2:
        return None
    unfiltered = filters.detrend(waveform, filters.smoothness(fs, vital.low))
    values = filters.bandpass(unfiltered, fs, vital.low, vital.high)
    return Trace(values / (values.std() or 1.0), unfiltered, fs, start)


def _lost(times: np.ndarray, absent: np.ndarray) -> tuple[tuple[float, float], ...]:
    """First and last timestamps of the stretches without a face."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]).astype(int)))
    return tuple((float(times[a]), float(times[b - 1])) for a, b in edges.reshape(-1, 2))


def _integers(values: np.ndarray, missing: np.ndarray) -> pd.array:
    return pd.array(np.where(missing, np.nan, values.astype(float)), dtype="Int64")
