"""What the picture and the page share: what is shown of a vital sign, thinned to a picture's width."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bigsmall.signals.rates import spectrum

if TYPE_CHECKING:
    import pandas as pd

    from bigsmall.results.measurement import Measurement, Reading, Trace

WIDTH = 1200  # columns: what a screen can show
LONG = 120.0  # s: of a longer video only an excerpt of the waveforms is shown, and the clock counts minutes
NAMES = {"pos": "POS", "chrom": "CHROM", "green": "GREEN", "chest": "chest and shoulders"}
MUSCLES = {
    "AU01": "inner brow raiser", "AU02": "outer brow raiser", "AU04": "brow lowerer", "AU06": "cheek raiser",
    "AU07": "lid tightener", "AU10": "upper lip raiser", "AU12": "lip corner puller", "AU14": "dimpler",
    "AU15": "lip corner depressor", "AU17": "chin raiser", "AU23": "lip tightener", "AU24": "lip pressor",
}  # fmt: skip


class Sign(NamedTuple):
    """A vital sign, and where a measurement has what is shown of it."""

    vital: str  # in `windows`
    title: str
    trace: str
    beside: tuple[str, ...]  # traces of independent signals
    column: str  # in `frames`
    waveform: str
    excerpt: float  # s, of a long video

    def reading(self, m: Measurement) -> Reading:
        return m.heart_rate if self.vital == "heart_rate" else m.respiration_rate

    def others(self, m: Measurement) -> list[str]:
        """The independent signals that there are."""
        return [name for name in self.beside if name in m.traces]


PULSE = Sign("heart_rate", "Heart rate", "pulse", ("pos", "chrom", "green"), "bvp", "Blood volume pulse", 30.0)
BREATH = Sign("respiration_rate", "Respiration rate", "respiration", ("chest",), "respiration", "Respiration", 90.0)


class Run(NamedTuple):
    """Neighbouring windows that were all measured, or all refused for one reason."""

    start: float  # s: half a step before the middle of the first window
    end: float  # s: half a step after the middle of the last
    middle: np.ndarray  # (n,) s, of every window
    windows: pd.DataFrame
    why: str | None  # None: measured


def runs(m: Measurement, sign: Sign) -> list[Run]:
    """The windows of a vital sign in order of time."""
    rows = m.windows[m.windows["vital"] == sign.vital].sort_values("start", ignore_index=True)
    if not len(rows):
        return []
    middle = (rows["start"] + rows["end"]).to_numpy(dtype=float) / 2
    step = np.diff(middle).min() if len(rows) > 1 else float(rows["end"].iloc[0] - rows["start"].iloc[0])
    refused = rows["value"].isna().to_numpy()
    # a reason without its numbers, which differ from window to window: up to the first colon or semicolon
    notes = rows["note"].fillna("refused")
    why = [re.split("[:;]", note)[0] if no else None for no, note in zip(refused, notes, strict=True)]
    breaks = [i for i in range(1, len(rows)) if why[i] != why[i - 1] or middle[i] - middle[i - 1] > 1.5 * step]
    return [
        Run(middle[a] - step / 2, middle[b - 1] + step / 2, middle[a:b], rows.iloc[a:b], why[a])
        for a, b in zip([0, *breaks], [*breaks, len(rows)], strict=True)
    ]


def window_seconds(found: list[Run]) -> str:
    """How long the windows are, in words."""
    if not found:
        return ""
    first = found[0].windows.iloc[0]
    return f", in windows of {first['end'] - first['start']:.0f} s"


def waveform(m: Measurement, sign: Sign, part: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Seconds and waveform between two moments, clipped at 4 standard deviations, NaN where frames are left out."""
    shown = m.frames[m.frames["timestamp"].between(*part)]
    times, values = shown["timestamp"].to_numpy(dtype=float), shown[sign.column].to_numpy(dtype=float)
    jumps = np.flatnonzero(np.diff(shown["frame"].to_numpy()) > 1) + 1
    return thin(np.insert(times, jumps, times[jumps]), np.insert(np.clip(values, -4, 4), jumps, np.nan))


def power(trace: Trace, band: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Rates per minute within `band`, and the power there, the strongest at 1."""
    frequencies, density = spectrum(trace.unfiltered, trace.fs, fine=True)
    inside = (60 * frequencies >= band[0]) & (60 * frequencies <= band[1])
    return thin(60 * frequencies[inside], density[inside] / (density[inside].max(initial=0.0) or 1.0), WIDTH // 2)


def thin(x: np.ndarray, y: np.ndarray, columns: int = WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """A curve of many points as the lowest and the highest of each of `columns` parts; NaN where a part has a NaN."""
    if len(x) <= 2 * columns:
        return x, y
    starts = np.linspace(0, len(x), columns, endpoint=False).astype(int)
    both = np.stack([np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)], 1).ravel()
    return np.repeat(x[starts], 2), both


def averages(m: Measurement, columns: int = WIDTH // 2) -> tuple[np.ndarray, np.ndarray]:
    """Action units over time: edges (n + 1,) in seconds and mean probabilities (n, units), NaN where not measured."""
    values = m.frames[list(m.action_units)].to_numpy(dtype=float, na_value=np.nan)
    times = m.frames["timestamp"].to_numpy(dtype=float)
    n = min(columns, m.source["frames"])
    edges = np.linspace(*span(m), n + 1)
    place = np.clip(np.searchsorted(edges, times, "right") - 1, 0, n - 1)
    known = ~np.isnan(values)
    sums, counts = (
        np.stack([np.bincount(place, weight, n) for weight in weights.T], 1)
        for weights in (np.where(known, values, 0.0), known)
    )
    # a part that falls between two successive frames shows the first of them
    before = np.searchsorted(times, edges[:-1]) - 1
    between = np.append(np.diff(m.frames["frame"].to_numpy()) == 1, False)[before] & (before >= 0)
    held = np.where(between[:, None], values[before], np.nan)
    empty = np.bincount(place, minlength=n)[:, None] == 0
    with np.errstate(invalid="ignore"):
        return edges, np.where(empty, held, sums / counts)


def span(m: Measurement) -> tuple[float, float]:
    """First and last second of the video."""
    first = min([float(m.frames["timestamp"].iloc[0]), *(start for start, _ in m.lost[:1])])
    return first, first + (m.source["seconds"] or 1.0)


def excerpt(m: Measurement, sign: Sign) -> tuple[float, float]:
    """What part of a waveform is shown: all of it, or of a long video some seconds around the most certain window."""
    first, last = span(m)
    rows = m.windows[(m.windows["vital"] == sign.vital) & m.windows["value"].notna()]
    if last - first <= LONG or not len(rows):
        return first, min(last, first + LONG)
    best = rows.iloc[int(np.argmax(rows["confidence"].to_numpy(dtype=float)))]
    start = (best["start"] + best["end"] - sign.excerpt) / 2
    start = float(min(max(start, first), last - sign.excerpt))
    return start, start + sign.excerpt


def clock(seconds: float, _: object = None) -> str:
    """Minutes and seconds."""
    return f"{int(seconds // 60)}:{seconds % 60:04.1f}".removesuffix(".0")


def share(m: Measurement, unit: str) -> float:
    """In what part of the frames measured an action unit was active; NaN where none was measured."""
    known = m.frames[f"{unit}_c"].dropna()
    return float(known.mean()) if len(known) else float("nan")


def verdict(reading: Reading) -> list[str]:
    """How far to trust a reading, in short lines."""
    lines = []
    if reading.value is not None and reading.interval is not None:
        low, high = reading.interval
        lines.append(f"95 % {low:.1f} to {high:.1f}, confidence {min(reading.confidence, 0.99):.2f}")
        known = [] if reading.snr is None else [f"SNR {reading.snr:.1f} dB"]
        known += [] if reading.by_peaks is None else [f"by peaks {reading.by_peaks:.1f}"]
        lines += [", ".join(known)] if known else []
    return lines + ([reading.note] if reading.note else [])


def checks(m: Measurement) -> str:
    """The heart rate without a network, by each method."""
    found = {name: "refused" if r.value is None else f"{r.value:.1f}" for name, r in m.unsupervised.items()}
    return ", ".join(f"{NAMES.get(name, name)} {said}" for name, said in found.items())
