"""Small charts as SVG text; their colours are classes, so that a style sheet can turn them for the dark."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from textwrap import wrap
from typing import Any

import numpy as np


class Chart:
    """A chart over a range of x and of y, drawn in units of a picture `width` by `height`.

    Args:
        label: what the chart shows, for those who cannot see it.
        x, y: the ranges; y grows upwards, or downwards if its range is given so.
        left, top, bottom: margins for labels.
    """

    def __init__(
        self,
        label: str,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: int = 640,
        height: int = 150,
        left: int = 34,
        top: int = 6,
        bottom: int = 20,
    ) -> None:
        self.label, self.x, self.y, self.width, self.height = label, x, y, width, height
        self.left, self.top, self.right, self.base = left, top, width - 16, height - bottom
        self.parts: list[str] = []

    def across(self, x: Any) -> Any:
        """Where x lies, from the left."""
        return self.left + (np.clip(x, *self.x) - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def down(self, y: Any) -> Any:
        """Where y lies, from the top."""
        return self.base - (np.clip(y, min(self.y), max(self.y)) - self.y[0]) / (self.y[1] - self.y[0]) * (
            self.base - self.top
        )

    def line(self, x: np.ndarray, y: np.ndarray, kind: str) -> None:
        """A curve; it breaks where y is NaN."""
        if path := "".join("M" + _points(self.across(a), self.down(b)) for a, b in _known(x, y)):
            self.parts.append(f'<path class="line {kind}" d="{path}"/>')

    def area(self, x: np.ndarray, low: np.ndarray | float, high: np.ndarray, kind: str) -> None:
        """Everything between two curves."""
        path = ""
        for a, b, c in _known(x, np.broadcast_to(low, x.shape), high):
            path += "M" + _points(self.across(np.append(a, a[::-1])), self.down(np.append(c, b[::-1]))) + "Z"
        if path:
            self.parts.append(f'<path class="area {kind}" d="{path}"/>')

    def block(self, x: tuple[float, float], kind: str, *, y: tuple[float, float] | None = None, said: str = "") -> None:
        """A rectangle, by default of the chart's whole height; `said` is shown when it is pointed at."""
        (a, b), (c, d) = self.across(np.array(x)), self.down(np.array(y or (self.y[1], self.y[0])))
        title = f"<title>{escape(said)}</title>" if said else ""
        place = f'x="{a:.1f}" y="{c:.1f}" width="{max(b - a, 0.5):.1f}" height="{d - c:.1f}"'
        self.parts.append(f'<rect class="{kind}" {place}>{title}</rect>')

    def shade(self, x: tuple[float, float], kind: str, why: str, when: str) -> None:
        """A block with its reason written into it as far as that fits."""
        self.block(x, kind, said=f"{when}: {why}")
        a, b = self.across(np.array(x))
        width = int((b - a) / 5.5)  # characters that fit
        if width >= min(len(why), 9):
            for i, line in enumerate(wrap(why, width)[:3]):
                self.write((a + b) / 2, self.top + 11 + 11 * i, line, "said")

    def write(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        """Words at a place in the picture's own units."""
        self.parts.append(f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>')

    def scale_x(self, form: Callable[[float], str] = "{:g}".format) -> None:
        """Label the horizontal axis."""
        self.parts.append(f'<path class="axis" d="M{self.left} {self.base}H{self.right}"/>')
        for value in ticks(*self.x, 8):
            self.write(self.across(value), self.base + 13, form(value), "tick")

    def scale_y(self, values: Sequence[float]) -> None:
        """Label the vertical axis, with a line across at each value."""
        for value in values:
            self.parts.append(f'<path class="grid" d="M{self.left} {self.down(value):.1f}H{self.right}"/>')
            self.write(self.left - 5, self.down(value) + 3, f"{value:g}", "tick", "end")

    def __str__(self) -> str:
        return (
            f'<svg viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{escape(self.label)}">'
            f"{''.join(self.parts)}</svg>"
        )


def ticks(low: float, high: float, most: int) -> list[float]:
    """At most about `most` round numbers between two; in seconds, when there are many, also round in minutes."""
    steps = [s * 10.0**k for k in (-2, -1, 0) for s in (1, 2, 5)] + [15, 30, 60, 120, 300, 600, 1200, 1800, 3600]
    step = next((s for s in steps if (high - low) / s <= most), (high - low) / most)
    return [float(k * step) for k in range(int(np.ceil(low / step - 1e-9)), int(np.floor(high / step + 1e-9)) + 1)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(x.tolist(), y.tolist(), strict=True))


def _known(*curves: np.ndarray) -> list[list[np.ndarray]]:
    """The stretches of two and more points in which no curve is NaN."""
    fine = ~np.isnan(np.array(curves, dtype=float)).any(axis=0)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], fine, [False]]).astype(int))).reshape(-1, 2)
    return [[np.asarray(curve)[a:b] for curve in curves] for a, b in edges if b - a > 1]
