"""From what the networks gave to waveforms, rates and tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

import bigsmall_kernels as bk
from bigsmall.face import Box, CropPolicy, Track
from bigsmall.results import AU_THRESHOLD, WINDOW_COLUMNS, Measurement, Reading, Trace
from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Vital, assess, filters, unsupervised
from bigsmall.video import Video
from bigsmall.weights import Predictor

MAX_GAP = 1.0  # s: a face away for less does not end a stretch; the waveforms are bridged
LEAST_STRETCH = 2.0  # s: shorter waveforms are not drawn
STEPS = {HEART_RATE: 1.0, RESPIRATION_RATE: 5.0}  # s between two windows


@dataclass
class Seen:
    """What the first pass keeps: one entry a frame, and the statistics of the inputs."""

    timestamps: list[float] = field(default_factory=list)
    tracks: list[Track | None] = field(default_factory=list)
    boxes: list[Box | None] = field(default_factory=list)
    colours: list[np.ndarray] = field(default_factory=list)  # (3,) mean red, green, blue; NaN without a face
    stats: bk.InputStats | None = None


class Outputs(NamedTuple):
    """What the second pass gives, a row a frame, NaN where there is nothing; in the order of `weights.TASKS`."""

    au: np.ndarray  # (T, action units) logits
    pulse: np.ndarray  # (T,) change from each frame to the next
    respiration: np.ndarray  # (T,) likewise


def conclude(
    video: Video, predictor: Predictor, weights: str, crop: CropPolicy, seen: Seen, outputs: Outputs
) -> Measurement:
    """Everything after the second pass. The rates come from the longest stretch with a face."""
    times, colours = np.array(seen.timestamps), np.array(seen.colours).reshape(-1, 3)
    absent = np.array([box is None for box in seen.boxes], dtype=bool)
    waves = {"pulse": np.full(len(times), np.nan), "respiration": np.full(len(times), np.nan)}
    windows: list[dict[str, Any]] = []
    longest, traces = np.empty(0), {}
    for stretch in _stretches(times, absent):
        at = times[stretch]
        found = _traces(at, colours[stretch], Outputs(*(output[stretch] for output in outputs)))
        for name, wave in waves.items():
            if name in found:
                wave[stretch] = np.interp(at, found[name].seconds, found[name].values)
        windows += _windows(found, at)
        if _duration(at) > _duration(longest):
            longest, traces = at, found

    def reading(name: str, vital: Vital, second: Trace | None = None) -> Reading:
        if name not in (*predictor.tasks, "pos"):
            return Reading.refused(vital, f"these weights do not measure {name}")
        if absent.all():
            return Reading.refused(vital, "no face was found")
        if _duration(longest) < vital.seconds - 1e-3:
            needed = f"{vital.seconds:g} s with a face are needed to measure a {vital.name}"
            return Reading.refused(vital, f"{needed}; there are {_duration(longest):.1f} s")
        if name not in traces:
            return Reading.refused(vital, f"{2 * vital.high:g} frames a second are needed to measure a {vital.name}")
        rate = _assess(traces[name], vital, second)
        if len(longest) == len(times):
            return rate
        return rate.noting(f"from {longest[0]:.1f} to {longest[-1]:.1f} s, the longest stretch with a face")

    probabilities = 1 / (1 + np.exp(-outputs.au))
    return Measurement(
        source={
            "name": video.name, "width": video.width, "height": video.height, "fps": video.fps,
            "frames": len(times), "seconds": _duration(times), "note": video.note,
        },
        heart_rate=reading("pulse", HEART_RATE, traces.get("pos")),
        respiration_rate=reading("respiration", RESPIRATION_RATE),
        unsupervised={"pos": reading("pos", HEART_RATE)},
        frames=_table(seen, absent, waves, probabilities, predictor.action_units),
        windows=pd.DataFrame(windows, columns=list(WINDOW_COLUMNS)),
        lost=_lost(times, absent),
        model={
            "weights": weights,
            "crop": crop,
            "convention": predictor.convention,
            "n_segment": predictor.n_segment,
            "cards": [json.loads(card.to_json()) for card in predictor.cards],
        },
        action_units=tuple(predictor.action_units),
        traces=traces,
    )  # fmt: skip


def _rate(times: np.ndarray) -> float:
    """Frames per second on average."""
    return float((len(times) - 1) / (times[-1] - times[0]))


def _duration(times: np.ndarray) -> float:
    """Seconds, the last frame's own included."""
    return len(times) / _rate(times) if len(times) > 1 else 0.0


def _stretches(times: np.ndarray, absent: np.ndarray) -> list[slice]:
    """Frames with a face, absences of up to MAX_GAP included, from the first to the last of each stretch."""
    present = np.flatnonzero(~absent)
    cuts = np.flatnonzero(np.diff(times[present]) > MAX_GAP) + 1
    groups = [slice(part[0], part[-1] + 1) for part in np.split(present, cuts) if len(part)]
    return [group for group in groups if _duration(times[group]) >= LEAST_STRETCH]


def _traces(times: np.ndarray, colours: np.ndarray, outputs: Outputs) -> dict[str, Trace]:
    """The waveforms of one stretch, as far as its length and frame rate allow."""
    found = {
        "pulse": _network_trace(outputs.pulse, times, HEART_RATE),
        "respiration": _network_trace(outputs.respiration, times, RESPIRATION_RATE),
        "pos": _pos_trace(colours, times),
    }
    return {name: trace for name, trace in found.items() if trace is not None}


def _network_trace(derivative: np.ndarray, times: np.ndarray, vital: Vital) -> Trace | None:
    """From what a network gives, the change from each frame to the next (none across a gap), to the waveform."""
    if np.isnan(derivative).all():
        return None
    waveform = np.concatenate([[0.0], filters.integrate(np.nan_to_num(derivative[:-1]))])
    fs = _rate(times)
    return _trace(filters.resample(waveform, times, fs), fs, float(times[0]), vital)


def _pos_trace(colours: np.ndarray, times: np.ndarray) -> Trace | None:
    known, fs = ~np.isnan(colours).any(axis=1), _rate(times)
    even = filters.resample(colours[known], times[known], fs)
    if len(even) <= unsupervised.WINDOW * fs + 1:
        return None
    return _trace(unsupervised.pos_raw(even, fs), fs, float(times[0]), HEART_RATE)


def _trace(waveform: np.ndarray, fs: float, start: float, vital: Vital) -> Trace | None:
    """Detrended and band-passed; None where the frames come too slowly for the band."""
    if vital.high >= fs / 2:
        return None
    # The trend is what is slower than two thirds of the band; for a pulse at 30 frames a second, lambda 100 (FACTS 6)
    smoothness = (fs / (2 * np.pi * vital.low * 2 / 3)) ** 2
    unfiltered = filters.detrend(waveform, smoothness)
    values = filters.bandpass(unfiltered, fs, vital.low, vital.high)
    return Trace(values / (values.std() or 1.0), unfiltered, fs, start)


def _assess(trace: Trace, vital: Vital, second: Trace | None = None) -> Reading:
    return Reading.of(assess(trace.unfiltered, trace.fs, vital, second.unfiltered if second else None), vital)


def _windows(traces: dict[str, Trace], times: np.ndarray) -> list[dict[str, Any]]:
    """Rates over sliding windows of one stretch."""
    rows = []
    for name, vital, beside in (("pulse", HEART_RATE, "pos"), ("respiration", RESPIRATION_RATE, None)):
        duration = _duration(times)
        if name not in traces or duration < vital.seconds - 1e-3:
            continue
        length = min(vital.window, duration)
        for start in np.arange(times[0], times[0] + duration - length + 1e-3, STEPS[vital]):
            second = traces[beside].between(start, start + length) if beside in traces else None
            rate = _assess(traces[name].between(start, start + length), vital, second)
            low, high = rate.interval or (None, None)
            pos = _assess(second, vital).value if second else None
            values = (
                0, vital.name.replace(" ", "_"), start, start + length, rate.value, rate.unit, rate.confidence, low,
                high, rate.snr, rate.by_peaks, pos, rate.note,
            )  # fmt: skip
            rows.append(dict(zip(WINDOW_COLUMNS, values, strict=True)))
    return rows


def _lost(times: np.ndarray, absent: np.ndarray) -> tuple[tuple[float, float], ...]:
    """First and last timestamps of the stretches without a face."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], absent, [False]]).astype(int)))
    return tuple((float(times[a]), float(times[b - 1])) for a, b in edges.reshape(-1, 2))


def _table(
    seen: Seen, absent: np.ndarray, waves: dict[str, np.ndarray], au: np.ndarray, names: tuple[str, ...]
) -> pd.DataFrame:
    place = np.full((len(absent), 5), np.nan)
    for row, track, box in zip(place, seen.tracks, seen.boxes, strict=True):
        if track is not None:
            row[:] = (track.confidence, *track.face[:4])
        elif box is not None:
            row[1:] = box
    table = {
        "frame": np.arange(len(absent)),
        "timestamp": np.array(seen.timestamps),
        "face_id": np.zeros(len(absent), dtype=int),
        "success": (~absent).astype(int),
        **dict(zip(("confidence", "x", "y", "w", "h"), place.T, strict=True)),
        "bvp": np.where(absent, np.nan, waves["pulse"]),
        "respiration": np.where(absent, np.nan, waves["respiration"]),
        **dict(zip(names, au.T, strict=True)),
        **{f"{name}_c": _integers(p >= AU_THRESHOLD, np.isnan(p)) for name, p in zip(names, au.T, strict=True)},
    }
    return pd.DataFrame(table)


def _integers(values: np.ndarray, missing: np.ndarray) -> pd.array:
    return pd.array(np.where(missing, np.nan, values.astype(float)), dtype="Int64")
