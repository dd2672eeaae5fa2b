"""One picture of a face: waveforms, rates over time, spectra, action units, and what was refused."""

from __future__ import annotations

import textwrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from bigsmall.results.measurement import DISCLAIMER, Measurement
from bigsmall.results.series import (
    BREATH,
    LONG,
    MUSCLES,
    NAMES,
    PULSE,
    Sign,
    averages,
    checks,
    clock,
    excerpt,
    power,
    runs,
    share,
    span,
    thin,
    verdict,
    waveform,
    window_seconds,
)

UNIT, INK, FAINT, VOID, REFUSED = "#b8641b", "#22262e", "#7d8490", "#eceef2", "#f6f1e7"
COLOURS = {
    "pulse": "#c2364b", "respiration": "#2a8c82", "pos": "#5b74a8", "chrom": "#8a6bb0", "green": "#6f9a4a",
    "chest": "#5b74a8",
}  # fmt: skip
STYLE = {"font.family": "DejaVu Sans", "axes.edgecolor": FAINT, "text.color": INK, "axes.labelcolor": INK}


def draw(m: Measurement) -> Figure:
    """The picture of `Measurement.plot`: words on the left, time in the middle, all of it together on the right."""
    with matplotlib.rc_context(STYLE):
        heights = [0.15, 0.9, 1.15, 0.9, 1.15] + ([0.3 + 0.13 * len(m.action_units)] if m.action_units else [])
        tall = 1.55 * sum(heights) + 0.45 * len(heights) + 0.6  # inches
        figure = Figure(figsize=(13, tall), facecolor="white")
        grid = figure.add_gridspec(
            len(heights), 3, height_ratios=heights, width_ratios=[1.25, 4, 0.9], left=0.015, right=0.985,
            top=1 - 0.2 / tall, bottom=0.95 / tall, wspace=0.06, hspace=0.45 * len(heights) / (1.55 * sum(heights)),
        )  # fmt: skip
        places = [(row, column) for row in range(1, len(heights)) for column in (1, 2)]
        panel = {place: figure.add_subplot(grid[place]) for place in places}
        _header(figure.add_subplot(grid[0, :]), m)

        for row, sign in ((1, PULSE), (3, BREATH)):
            _words(figure.add_subplot(grid[row : row + 2, 0]), m, sign)
            _wave(panel[row, 1], m, sign)
            _legend(panel[row, 2], m, sign)
            _rates(panel[row + 1, 1], m, sign)
            _spectrum(panel[row + 1, 2], m, sign)
        if m.action_units:
            _units(figure.add_subplot(grid[5, 0]), panel[5, 1], panel[5, 2], m)
        panel[len(heights) - 1, 1].set_xlabel("time, s" if span(m)[1] <= LONG else "time, min:s", fontsize=9)
        notes = dict.fromkeys(card["note"] for card in m.model["cards"] if card.get("note"))
        figure.text(0.5, 0.15 / tall, "\n".join([*notes, DISCLAIMER]), fontsize=8, color=FAINT, ha="center")
        return figure


def _header(axes: Any, m: Measurement) -> None:
    axes.axis("off")
    source = f"{m.source['name']}   {m.source['seconds']:.1f} s, {m.source['frames']} frames"
    if m.others or m.face_id:
        source += f"   face {m.face_id}"
    # a dollar sign in a file's name is no formula
    axes.text(0, 1, source, fontsize=13, fontweight="bold", va="top", transform=axes.transAxes, parse_math=False)
    cards = textwrap.shorten(" + ".join(card["name"] for card in m.model["cards"]), 95, placeholder=" …")
    axes.text(1, 1, cards, fontsize=8, color=FAINT, ha="right", va="top", transform=axes.transAxes, parse_math=False)


def _words(axes: Any, m: Measurement, sign: Sign) -> None:
    axes.axis("off")
    reading = sign.reading(m)
    refused = reading.value is None
    more = checks(m) if sign is PULSE else ""
    said = "refused" if refused else f"{reading.value:.1f} {reading.unit}"
    lines = [line for part in [*verdict(reading), more] for line in textwrap.wrap(part, 42)]
    for below, text, style in (
        (0, sign.title, {"fontsize": 11, "color": FAINT}),
        (17, said, {"fontsize": 18, "color": _colour(m, sign), "fontweight": 400 if refused else 700}),
        (46, "\n".join(lines[:13]), {"fontsize": 8, "linespacing": 1.45}),
    ):
        axes.annotate(text, (0, 1), (0, -below), xycoords="axes fraction", textcoords="offset points", va="top",
                      parse_math=False, **style)  # fmt: skip


def _colour(m: Measurement, sign: Sign) -> str:
    return FAINT if sign.reading(m).value is None else COLOURS[sign.trace]


def _bare(axes: Any) -> None:
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT, length=0)


def _time(axes: Any, m: Measurement, title: str, part: tuple[float, float]) -> None:
    """A panel over a part of the video, without a face shaded."""
    axes.set_title(title, loc="left", fontsize=9.5, color=INK)
    axes.set_xlim(*part)
    _bare(axes)
    if part[1] > LONG:
        axes.xaxis.set_major_locator(MaxNLocator(8, steps=[1, 1.5, 3, 6, 10]))
        axes.xaxis.set_major_formatter(FuncFormatter(clock))
    for start, end in m.lost:
        _shade(axes, start, end, "no face", VOID)


def _shade(axes: Any, start: float, end: float, why: str, colour: str) -> None:
    left, right = axes.get_xlim()
    start, end = max(start, left), min(end, right)
    if start >= end:
        return
    axes.axvspan(start, end, facecolor=colour, linewidth=0, zorder=0)
    width = int(120 * (end - start) / (right - left))  # characters that fit
    if width >= min(len(why), 9):
        said = "\n".join(textwrap.wrap(why, width)[:3])
        axes.text((start + end) / 2, 0.94, said, fontsize=8, color=FAINT, ha="center", va="top",
                  transform=axes.get_xaxis_transform(), parse_math=False)  # fmt: skip


def _wave(axes: Any, m: Measurement, sign: Sign) -> None:
    part = excerpt(m, sign)
    when = "" if part == span(m) else f", {clock(part[0])} to {clock(part[1])}"
    _time(axes, m, sign.waveform + when, part)
    axes.set_yticks([])
    times, values = waveform(m, sign, part)
    if np.isnan(values).all():
        _nothing(axes, "" if m.lost else "no waveform")
        return
    axes.plot(times, values, color=_colour(m, sign), linewidth=1.1)
    for name in sign.others(m)[:1]:  # below, for comparison
        other = m.traces[name].between(*part)
        axes.plot(*thin(other.seconds, 0.7 * np.clip(other.values, -4, 4) - 5), color=COLOURS[name], linewidth=0.9)
        axes.set_ylim(-8, 3.5)


def _legend(axes: Any, m: Measurement, sign: Sign) -> None:
    axes.axis("off")
    others = sign.others(m)
    names = {"network": _colour(m, sign)} | {NAMES[name]: COLOURS[name] for name in others} if others else {}
    for i, (name, colour) in enumerate(names.items()):
        axes.text(0, 0.76 - 0.22 * i, name, color=colour, fontsize=9, va="center", transform=axes.transAxes)


def _scale(axes: Any, band: tuple[float, float]) -> None:
    """Rates upwards."""
    axes.set_ylim(*band)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 3, 5, 10]))
    axes.grid(axis="y", color=VOID, linewidth=0.8)
    axes.set_axisbelow(True)
    _bare(axes)


def _rates(axes: Any, m: Measurement, sign: Sign) -> None:
    """Windowed rates: a line, its intervals as a band, what POS says as dots; what was refused is shaded."""
    reading, colour, found = sign.reading(m), COLOURS[sign.trace], runs(m, sign)
    _time(axes, m, f"{sign.title}, {reading.unit}{window_seconds(found)}", span(m))
    _scale(axes, reading.band)
    dot = min(3.0, 900 / max(len(m.windows), 1))
    for run in found:
        if run.why is not None:
            _shade(axes, run.start, run.end, run.why, REFUSED)
        else:
            low, value, high = (run.windows[name].to_numpy(dtype=float) for name in ("low", "value", "high"))
            at = run.middle
            if len(at) == 1:  # a line needs two ends
                at, low, value, high = np.array([run.start, run.end]), *(np.repeat(a, 2) for a in (low, value, high))
            axes.fill_between(at, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(at, value, color=colour, linewidth=1.6, solid_capstyle="round")
        pos = run.windows["pos"].to_numpy(dtype=float)
        axes.plot(run.middle, pos, ".", color=COLOURS["pos"], markersize=dot, zorder=1.5)
    if not found:
        _nothing(axes, "" if m.lost else "too short")


def _spectrum(axes: Any, m: Measurement, sign: Sign) -> None:
    """Power to the right, the rate upwards on the scale of the panel beside."""
    reading, colour = sign.reading(m), _colour(m, sign)
    axes.set_title("spectrum", loc="left", fontsize=9.5, color=INK)
    axes.set(xticks=[], xlim=(0, 1.15))
    _scale(axes, reading.band)
    axes.tick_params(labelleft=False)
    for name in sign.others(m)[::-1]:
        rates, height = power(m.traces[name], reading.band)
        axes.plot(height, rates, color=COLOURS[name], linewidth=0.9)
    if sign.trace not in m.traces:
        _nothing(axes, "none")
        return
    rates, height = power(m.traces[sign.trace], reading.band)
    axes.plot(height, rates, color=colour, linewidth=1.3)
    axes.fill_betweenx(rates, height, color=colour, alpha=0.12, linewidth=0)
    if reading.value is not None:
        if reading.interval is not None:
            axes.axhspan(*reading.interval, color=colour, alpha=0.12, linewidth=0)
        axes.annotate(f"{reading.value:.1f}", (1.12, reading.value), (0, 5), textcoords="offset points", fontsize=9,
                      fontweight="bold", ha="right")  # fmt: skip


def _units(words: Any, time: Any, bars: Any, m: Measurement) -> None:
    names, rows = m.action_units, np.arange(len(m.action_units))
    words.axis("off")
    words.annotate("Action units", (0, 1), (0, 7), xycoords="axes fraction", textcoords="offset points", fontsize=11,
                   color=FAINT)  # fmt: skip
    for row, name in zip(rows, names, strict=True):
        words.text(0.82, row + 0.5, MUSCLES.get(name, ""), fontsize=8, ha="right", va="center")
    _time(time, m, "probability, from 0 light to 1 dark", span(m))
    edges, values = averages(m)
    time.set_facecolor(VOID)
    time.pcolormesh(edges, np.arange(len(names) + 1), np.ma.masked_invalid(values.T), vmin=0, vmax=1,
                    cmap="YlOrBr", rasterized=True)  # fmt: skip
    time.set_yticks(rows + 0.5, names, fontsize=8)
    bars.set_title("active, % of time", loc="left", fontsize=9.5, color=INK)
    active = np.array([100 * share(m, name) for name in names])
    bars.barh(rows + 0.5, active, height=0.62, color=UNIT)
    for row, part in zip(rows, active, strict=True):
        bars.annotate("none" if np.isnan(part) else f"{part:.0f}", (np.nan_to_num(part), row + 0.5), (3, 0),
                      textcoords="offset points", fontsize=8, va="center")  # fmt: skip
    bars.set(xlim=(0, 125), yticks=[], xticks=[])
    _bare(bars)
    for axes in (words, time, bars):
        axes.set_ylim(len(names), 0)
        axes.spines["bottom"].set_visible(False)


def _nothing(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, fontsize=9, color=FAINT, ha="center", va="center", transform=axes.transAxes)
