"""One picture of a measurement: waveforms, spectra with the rates marked, action units over time, what was refused."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from bigsmall.signals.rates import spectrum

if TYPE_CHECKING:
    from bigsmall.results import Measurement, Reading, Trace

PULSE, POS, BREATH, INK, FAINT = "#c2364b", "#6b7fa3", "#2a8c82", "#22262e", "#8a919e"
STYLE = {"font.family": "DejaVu Sans", "axes.edgecolor": FAINT, "text.color": INK, "axes.labelcolor": INK}


def draw(m: Measurement) -> Figure:
    """The picture of `Measurement.plot`."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        return _draw(m)


def _draw(m: Measurement) -> Figure:
    from bigsmall.results import DISCLAIMER

    heights = [0.62, 1.0, 1.0, 0.8] + ([0.15 + 0.105 * len(m.action_units)] if m.action_units else [])
    figure = Figure(
        figsize=(12, 2.35 * sum(heights)),
        facecolor="white",
        layout=ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.16, hspace=0.04),
    )
    grid = figure.add_gridspec(len(heights), 2, height_ratios=heights, width_ratios=[1, 1])
    first = float(m.frames["timestamp"].iloc[0])
    span = (first, first + m.source["seconds"] or 1.0)

    _header(figure.add_subplot(grid[0, :]), m)

    pulse = figure.add_subplot(grid[1, :])
    _wave(pulse, m, "bvp", span, "Blood volume pulse", PULSE if m.heart_rate.value is not None else FAINT)
    if "pos" in m.traces:
        pos = m.traces["pos"]
        # drawn below, for comparison: the same rhythm from the mean colour alone
        pulse.plot(pos.seconds, 0.7 * pos.values - 5, color=POS, linewidth=1)
        pulse.text(1.005, 0.26, "POS", transform=pulse.transAxes, color=POS, fontsize=9, va="center")
        pulse.text(1.005, 0.72, "network", transform=pulse.transAxes, color=PULSE, fontsize=9, va="center")
        pulse.set_ylim(-8.2, 3.6)

    _spectrum(figure.add_subplot(grid[2, 0]), m.traces.get("pulse"), m.heart_rate, "Pulse spectrum", PULSE, m)
    _spectrum(
        figure.add_subplot(grid[2, 1]), m.traces.get("respiration"), m.respiration_rate, "Respiration spectrum", BREATH
    )
    last = figure.add_subplot(grid[3, :])
    _wave(last, m, "respiration", span, "Respiration", BREATH if m.respiration_rate.value is not None else FAINT)
    if m.action_units:
        last = figure.add_subplot(grid[4, :])
        _units(figure, last, m, span)
    last.set_xlabel("time, s", fontsize=9)
    notes = dict.fromkeys(card["note"] for card in m.model["cards"] if card.get("note"))
    figure.supxlabel("\n".join([*notes, DISCLAIMER]), fontsize=8, color=FAINT)
    return figure


def _header(axes: Any, m: Measurement) -> None:
    axes.axis("off")
    cards = " + ".join(card["name"] for card in m.model["cards"])
    source = f"{m.source['name']}   {m.source['seconds']:.1f} s, {m.source['frames']} frames"
    axes.text(0, 1.0, source, fontsize=13, fontweight="bold", va="top", transform=axes.transAxes)
    axes.text(1, 1.0, textwrap.shorten(cards, 95, placeholder=" …"), fontsize=8, color=FAINT, ha="right", va="top",
              transform=axes.transAxes)  # fmt: skip
    columns = (
        ("Heart rate", m.heart_rate, PULSE),
        ("Heart rate by POS", m.unsupervised["pos"], POS),
        ("Respiration rate", m.respiration_rate, BREATH),
    )
    for x, (title, reading, colour) in zip((0, 0.36, 0.68), columns, strict=True):
        axes.text(x, 0.72, title, fontsize=10, color=FAINT, va="top", transform=axes.transAxes)
        if reading.value is None:
            axes.text(x, 0.5, "refused", fontsize=17, color=FAINT, va="top", transform=axes.transAxes)
        else:
            axes.text(x, 0.52, f"{reading.value:.1f} {reading.unit}", fontsize=19, color=colour, va="top",
                      fontweight="bold", transform=axes.transAxes)  # fmt: skip
        axes.text(x, 0.14, _small_print(reading), fontsize=8, va="top", transform=axes.transAxes, linespacing=1.35)


def _small_print(reading: Reading) -> str:
    lines = []
    if reading.value is not None and reading.interval is not None:
        low, high = reading.interval
        lines.append(f"95 % {low:.1f} to {high:.1f}, confidence {min(reading.confidence, 0.99):.2f}")
    if reading.note:
        lines += textwrap.wrap(reading.note, 52)
    return "\n".join(lines[:4])


def _wave(axes: Any, m: Measurement, column: str, span: tuple[float, float], title: str, colour: str) -> None:
    _title(axes, title)
    values = m.frames[column].to_numpy(dtype=float)
    if np.isnan(values).all():
        _nothing(axes, "" if m.lost else "no waveform")
    else:
        axes.plot(m.frames["timestamp"], np.clip(values, -4, 4), color=colour, linewidth=1.2)
    for start, end in m.lost:
        axes.axvspan(start, end, color="#eceef2", linewidth=0)
        if end - start > 0.05 * (span[1] - span[0]):
            axes.text((start + end) / 2, 0.9, "no face", fontsize=9, color=FAINT, ha="center", va="top",
                      transform=axes.get_xaxis_transform())  # fmt: skip
    axes.set_xlim(*span)
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT)


def _spectrum(
    axes: Any, trace: Trace | None, reading: Reading, title: str, colour: str, beside: Measurement | None = None
) -> None:
    low, high = reading.band
    _title(axes, f"{title}, {low:g} to {high:g} {reading.unit}")
    axes.set_yticks([])
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT)
    axes.set_xlim(low, high)
    if trace is None:
        _nothing(axes, "\n".join(textwrap.wrap(reading.note or "no waveform", 60)))
        axes.set_xticks([])
        return
    if beside is not None and "pos" in beside.traces:
        axes.plot(*_power(beside.traces["pos"], low, high), color=POS, linewidth=1, label="POS")
    colour = FAINT if reading.value is None else colour
    rates, power = _power(trace, low, high)
    axes.plot(rates, power, color=colour, linewidth=1.4, label="network")
    axes.fill_between(rates, power, color=colour, alpha=0.12, linewidth=0)
    axes.set_ylim(0, 1.22)
    if reading.value is not None:
        axes.axvline(reading.value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        if reading.interval is not None:
            axes.axvspan(*reading.interval, color=colour, alpha=0.08, linewidth=0)
        right = reading.value < 0.75 * high
        axes.annotate(f"{reading.value:.1f}", (reading.value, 1.1), (4 if right else -4, 0), textcoords="offset points",
                      fontsize=9, fontweight="bold", ha="left" if right else "right")  # fmt: skip
    else:
        axes.text(0.98, 0.95, "refused", fontsize=10, color=FAINT, ha="right", va="top", transform=axes.transAxes)


def _power(trace: Trace, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    frequencies, power = spectrum(trace.unfiltered, trace.fs, fine=True)
    band = (60 * frequencies >= low) & (60 * frequencies <= high)
    return 60 * frequencies[band], power[band] / (power[band].max() or 1.0)


def _units(figure: Figure, axes: Any, m: Measurement, span: tuple[float, float]) -> None:
    _title(axes, "Action units, probability")
    values = np.ma.masked_invalid(m.frames[list(m.action_units)].to_numpy(dtype=float).T)
    edges = np.append(m.frames["timestamp"].to_numpy(), span[1])
    axes.set_facecolor("#eceef2")
    image = axes.pcolormesh(
        edges, np.arange(len(m.action_units) + 1), values, vmin=0, vmax=1, cmap="YlOrRd", rasterized=True
    )
    axes.set_yticks(np.arange(len(m.action_units)) + 0.5, m.action_units, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(*span)
    axes.tick_params(labelsize=8, colors=FAINT, length=0)
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(image, cax=axes.inset_axes((1.01, 0, 0.01, 1)))
    bar.outline.set_visible(False)  # type: ignore[operator]
    bar.ax.tick_params(labelsize=8, colors=FAINT, length=0)


def _title(axes: Any, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=10, color=INK)


def _nothing(axes: Any, text: str) -> None:
    axes.text(0.5, 0.5, text, fontsize=9, color=FAINT, ha="center", va="center", transform=axes.transAxes)
