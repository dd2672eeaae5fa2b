"""Results over seeds, as a table beside the paper's numbers, as CSV and as a picture."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from ..files import whole
from .paper import Numbers, Table

COLOURS = ("#c2364b", "#2a8c82", "#5b74a8", "#b8641b", "#8a6bb0")
INK, FAINT = "#22262e", "#7d8490"


class Results:
    """The numbers of rows, one set for each seed (or what else `runs` says), in the order in which rows come."""

    def __init__(self, runs: str = "seeds") -> None:
        self.runs = runs
        self.rows: dict[str, dict[int, Numbers]] = {}

    def add(self, row: str, seed: int, numbers: Numbers) -> None:
        """What came out for a row with a seed, in addition to what is there."""
        self.rows.setdefault(row, {}).setdefault(seed, {}).update(numbers)

    def sort(self, names: Iterable[str]) -> None:
        """Put the rows into this order, the others behind."""
        self.rows = {name: self.rows[name] for name in (*names, *self.rows) if name in self.rows}

    def values(self, row: str, column: str) -> list[float]:
        """Over the seeds."""
        return [of[column] for of in self.rows.get(row, {}).values() if column in of]

    def columns(self, wanted: Sequence[str]) -> list[str]:
        """Those that any row has."""
        return [column for column in wanted if any(self.values(row, column) for row in self.rows)]


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean and standard deviation (ddof 1), or the one value."""
    if not values:
        return ""
    if len(values) == 1:
        return f"{values[0]:.{digits}f}"
    return f"{mean(values):.{digits}f} ± {stdev(values):.{digits}f}"


def markdown(results: Results, paper: Table, columns: Sequence[str]) -> str:
    """A table: of each row ours and, below it, the paper's."""
    shown = [
        c for c in columns if any(results.values(r, c) for r in results.rows) or any(c in of for of in paper.values())
    ]
    lines = [f"| | {' | '.join(shown)} |", f"|---|{'---|' * len(shown)}"]
    for row in dict.fromkeys((*paper, *results.rows)):
        seeds = len(results.rows.get(row, ()))
        if seeds:
            label = f"**{row}**" + (f" ({seeds} {results.runs})" if seeds > 1 else "")
            lines.append(f"| {label} | {' | '.join(spread(results.values(row, c)) for c in shown)} |")
        if row in paper:
            cells = (f"{paper[row][c]:.2f}" if c in paper[row] else "" for c in shown)
            lines.append(f"| {'' if seeds else row + ', '}the paper | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def differences(results: Results, pairs: Sequence[tuple[str, str]], columns: Sequence[str]) -> str:
    """A table: how rows differ from others, seed by seed, and for how many seeds they are the lower ones."""
    lines = [f"| less | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for row, other in pairs:
        if not {row, other} <= set(results.rows):
            continue
        cells = []
        for column in columns:
            both = [
                (of.get(column), results.rows[row].get(seed, {}).get(column))
                for seed, of in results.rows[other].items()
            ]
            found = [b - a for a, b in both if a is not None and b is not None]
            cells.append(f"{spread(found)}, {sum(d < 0 for d in found)} of {len(found)} lower" if found else "")
        lines.append(f"| {row} less {other} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n" if len(lines) > 2 else ""


def write(
    folder: Path,
    name: str,
    title: str,
    results: Results,
    paper: Table,
    columns: Sequence[str],
    about: Sequence[str],
    pairs: Sequence[tuple[str, str]] = (),
    compared: Sequence[str] = (),
) -> str:
    """Write NAME.md and NAME.csv, a line a row, seed and column; the text of the first.

    Args:
        about: sentences below the table. pairs, compared: rows and columns that `differences` shows.
    """
    tables = (markdown(results, paper, columns), differences(results, pairs, compared))
    text = "\n".join((f"# {title}\n", *filter(None, tables), "".join(f"- {line}\n" for line in about)))
    with whole(folder / f"{name}.md") as aside:
        aside.write_text(text, encoding="utf-8")
    with whole(folder / f"{name}.csv") as aside, aside.open("w", encoding="utf-8", newline="") as file:
        out = csv.writer(file)
        out.writerow(("row", "of", "seed", "column", "value"))
        for row, seeds in results.rows.items():
            out.writerows((row, "ours", seed, c, f"{v:.6g}") for seed, of in seeds.items() for c, v in of.items())
        out.writerows((row, "paper", "", c, v) for row, of in paper.items() for c, v in of.items())
    return text


def bars(path: Path, results: Results, paper: Mapping[str, Numbers], columns: Sequence[str]) -> None:
    """A picture: a panel a column, a bar a row, a dot a seed, a diamond for the paper's number; none of nothing."""
    shown = results.columns(columns)
    if not shown:
        return
    rows = list(results.rows)
    figure = figure_of(max(1.0, 0.32 * len(rows)) + 1.1, 2.4 * len(shown) + 1.4)
    for axes, column in zip(figure.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True):
        for place, row in enumerate(rows):
            values = results.values(row, column)
            if values:
                axes.barh(place, mean(values), color=COLOURS[1], alpha=0.35, height=0.62)
                axes.plot(values, [place] * len(values), "o", color=COLOURS[1], markersize=4)
            if column in paper.get(row, {}):
                axes.plot(paper[row][column], place, "D", color=COLOURS[0], markersize=5, markerfacecolor="none")
        axes.set_title(column, fontsize=10, color=INK)
        axes.set_yticks(range(len(rows)), rows, fontsize=9)
        axes.locator_params(axis="x", nbins=4)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].invert_yaxis()
    figure.supxlabel(
        "bar: mean over the seeds, dot: a seed, diamond: the paper on its own data", fontsize=8, color=FAINT
    )
    save(path, figure)


Series = Mapping[str, Mapping[float, Sequence[float]]]


def curves(path: Path, panels: Mapping[str, Series], x: str) -> None:
    """A picture: a panel a column; of each series its means over x with standard deviations, and its values as dots."""
    figure = figure_of(3.6, 4.2 * len(panels))
    for axes, (column, series) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for (name, points), colour in zip(series.items(), COLOURS, strict=False):
            at = sorted(points)
            means = [mean(points[p]) if points[p] else math.nan for p in at]
            errors = [stdev(points[p]) if len(points[p]) > 1 else 0.0 for p in at]
            axes.errorbar(at, means, errors, color=colour, capsize=3, marker="o", label=name)
            for p in at:
                axes.plot([p] * len(points[p]), points[p], ".", color=colour, alpha=0.5)
        axes.set_xlabel(x)
        axes.set_title(column, fontsize=10, color=INK)
        axes.set_xticks(sorted({p for points in series.values() for p in points}))
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].legend(frameon=False)
    save(path, figure)


def figure_of(height: float, width: float) -> Any:
    """An empty figure of so many inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained", facecolor="white")


def save(path: Path, figure: Any) -> None:
    """As a PNG, whole or not at all."""
    with whole(path) as aside:
        figure.savefig(aside, format="png", dpi=110)
