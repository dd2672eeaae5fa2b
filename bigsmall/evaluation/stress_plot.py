"""The stress report as one picture: for every factor the error, the share refused, and the action units' F1."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from ..results.plot import COLOURS, FAINT, INK, STYLE, UNIT, VOID
from .stress import FACTORS, RATES, about

LOOKS = {
    "heart_rate": {"color": COLOURS["pulse"], "marker": "o", "linestyle": "-"},
    "pos": {"color": COLOURS["pos"], "marker": "s", "linestyle": "--"},
    "respiration_rate": {"color": COLOURS["respiration"], "marker": "^", "linestyle": "-"},
}
COLUMNS = 4
KEY = "Shaded: the base point. Bars: the standard error of the mean over the people who were not refused."


def draw(report: Mapping[str, Any]) -> Figure:
    """The picture of what `stress` returns: a column of panels a factor, all on the same scales."""
    levels = report["levels"]
    factors = list(dict.fromkeys(row["factor"] for row in levels))
    rates = [name for name in RATES if name in levels[0]]
    heights = [1.5, 0.9] + [0.9] * ("au_f1" in levels[0])
    columns = min(COLUMNS, len(factors))
    blocks = math.ceil(len(factors) / columns)
    wide = max(3.1 * columns + 0.9, 7.1)  # inches, as the others
    words = textwrap.wrap(f"{about(report)} {KEY}", int(13.5 * wide))
    above, below, block = 0.95, 0.2 + 0.16 * len(words), sum(heights) + 0.85
    tall = above + below + blocks * block
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(wide, tall), facecolor="white")
        grid = figure.add_gridspec(
            blocks, columns, left=0.85 / wide, right=1 - 0.15 / wide, bottom=(below + 0.35) / tall,
            top=1 - (above + 0.1) / tall, wspace=0.14, hspace=0.75 / (block - 0.75),
        )  # fmt: skip
        scale = _scale([row[name] for row in levels for name in rates])
        for k, factor in enumerate(factors):
            some = [row for row in levels if row["factor"] == factor]
            inner = grid[k // columns, k % columns].subgridspec(len(heights), 1, height_ratios=heights, hspace=0.12)
            panels = [figure.add_subplot(inner[i]) for i in range(len(heights))]
            panels[0].set_title(FACTORS[factor].title, loc="left", fontsize=10, color=INK)
            _errors(panels[0], some, rates, scale)
            _refused(panels[1], some, rates)
            if len(panels) > 2:
                panels[2].plot([row["au_f1"] for row in some], color=UNIT, marker="D", markersize=4, linewidth=1.4)
                panels[2].set(ylim=(0, 1))
                panels[2].set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
            for axes, name in zip(panels, ("error, per minute", "refused", "AU F1"), strict=False):
                _frame(axes, some, axes is panels[-1])
                if k % columns == 0:
                    axes.set_ylabel(name, fontsize=8.5)
                else:
                    axes.tick_params(labelleft=False)
        figure.align_ylabels()
        title = f"Stress report on simulated videos: {', '.join(report['names'])}"
        figure.text(0.85 / wide, 1 - 0.12 / tall, title, fontsize=13, fontweight="bold", va="top", parse_math=False)
        figure.legend(
            *figure.axes[0].get_legend_handles_labels(), loc="upper left", ncols=len(rates), frameon=False, fontsize=9,
            bbox_to_anchor=(0.78 / wide, 1 - 0.38 / tall),
        )  # fmt: skip
        figure.text(0.85 / wide, 0.12 / tall, "\n".join(words), fontsize=8, color=FAINT, va="bottom", linespacing=1.4)
        return figure


def _scale(rates: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """What the error's axis spans: all that is drawn on any panel, and at least from 0.1 to 1."""
    known = [(rate["mae"], rate["se"] or 0.0) for rate in rates if rate["mae"] is not None]
    low = min([0.1, *(mae for mae, _ in known if mae > 0)])
    return max(0.8 * low, 0.01), 1.25 * max([1.0, *(mae + se for mae, se in known)])


def _errors(axes: Any, some: Sequence[Mapping[str, Any]], rates: Sequence[str], scale: tuple[float, float]) -> None:
    for k, name in enumerate(rates):
        at = np.arange(len(some)) + 0.08 * (k - (len(rates) - 1) / 2)  # so that bars stand beside one another
        values, bars = ([row[name][part] for row in some] for part in ("mae", "se"))
        axes.errorbar(at, _array(values), np.nan_to_num(_array(bars)), **LOOKS[name], label=RATES[name], markersize=4,
                      linewidth=1.4, elinewidth=0.9)  # fmt: skip
    axes.set(yscale="log", ylim=scale)
    axes.yaxis.set_minor_locator(NullLocator())
    marks = [mark for mark in (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100) if scale[0] <= mark <= scale[1]]
    axes.set_yticks(marks, [f"{mark:g}" for mark in marks])


def _refused(axes: Any, some: Sequence[Mapping[str, Any]], rates: Sequence[str]) -> None:
    for name in rates:
        axes.plot([100 * row[name]["refused"] / row["n"] for row in some], **LOOKS[name], markersize=4, linewidth=1.4)
    axes.set(ylim=(-6, 106), yticks=[0, 50, 100])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} %"))


def _frame(axes: Any, some: Sequence[Mapping[str, Any]], last: bool) -> None:
    axes.spines[["right", "top"]].set_visible(False)
    axes.tick_params(labelsize=8, colors=FAINT, length=2)
    axes.grid(axis="y", color=VOID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set(xlim=(-0.4, len(some) - 0.6))
    axes.set_xticks(range(len(some)), [f"{row['level']:g}" for row in some] if last else [""] * len(some))
    for k, row in enumerate(some):
        if row["base"]:
            axes.axvspan(k - 0.3, k + 0.3, color=VOID, linewidth=0, zorder=0)


def _array(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values])
