"""Pictures of an evaluation: Bland-Altman, scatter, and waves beside their references."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from ..files import whole
from ..results.plot import COLOURS, FAINT, INK, STYLE
from .quantities import QUANTITIES, Quantity

if TYPE_CHECKING:
    from .evaluate import Evaluation

TITLES = {"heart_rate": "heart rate, bpm", "respiration_rate": "respiration rate, breaths/min"}
COLOUR = {
    "heart_rate": COLOURS["pulse"],
    "pos": COLOURS["pos"],
    "chrom": COLOURS["chrom"],
    "respiration_rate": COLOURS["respiration"],
}


def draw(found: Evaluation, folder: Path) -> list[Path]:
    """bland_altman.png, scatter.png and waveforms.png, as far as there are references; what was written."""
    shown: dict[str, list[Quantity]] = {}
    for of in QUANTITIES:
        if found.summary.get(of.name, {}).get("n"):
            shown.setdefault(of.vital, []).append(of)
    if not shown:
        return []
    written = []
    for name, panel in (("bland_altman", _bland_altman), ("scatter", _scatter)):
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(6 * len(shown), 5), layout="constrained")
            panels = figure.subplots(1, len(shown), squeeze=False)[0]
            for axes, (vital, some) in zip(panels, shown.items(), strict=True):
                panel(axes, found, some)
                axes.set_title(f"{TITLES[vital]}, {_band(found, vital)}", fontsize=10)
                axes.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12))
            written.append(_save(figure, folder / f"{name}.png"))
    with matplotlib.rc_context(STYLE):
        written.append(_save(_waveforms(found, shown), folder / "waveforms.png"))
    return written


def _save(figure: Figure, path: Path) -> Path:
    with whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")
    return path


def _band(found: Evaluation, vital: str) -> str:
    name = found.about["convention"]["name"]
    window = found.about["window"]
    return f'convention "{name}"' + (f", windows of {window:g} s" if window else "")


def _pairs(found: Evaluation, of: Quantity) -> tuple[np.ndarray, np.ndarray]:
    measured, true = (found.rows[name].to_numpy(dtype=float) for name in (of.name, f"{of.name}_true"))
    known = np.isfinite(measured) & np.isfinite(true)
    return measured[known], true[known]


def _bland_altman(axes: Any, found: Evaluation, some: list[Quantity]) -> None:
    for of in some:
        measured, true = _pairs(found, of)
        errors, colour = found.summary[of.name], COLOUR[of.name]
        bias, (low, high) = errors["bias"].value, errors["limits"]
        label = f"{of.by}: bias {bias:.2f}, 95 % limits {low:.2f} to {high:.2f}"
        axes.scatter((measured + true) / 2, measured - true, s=14, color=colour, alpha=0.7, label=label)
        axes.axhline(bias, color=colour, linewidth=1)
        for limit in (low, high):
            axes.axhline(limit, color=colour, linewidth=1, linestyle=":")
    axes.set_xlabel("mean of measured and reference")
    axes.set_ylabel("measured - reference")


def _scatter(axes: Any, found: Evaluation, some: list[Quantity]) -> None:
    ends = []
    for of in some:
        measured, true = _pairs(found, of)
        errors = found.summary[of.name]
        label = f"{of.by}: MAE {errors['mae'].value:.2f}, r {errors['pearson'].value:.2f}, n {errors['n']}"
        axes.scatter(true, measured, s=14, color=COLOUR[of.name], alpha=0.7, label=label)
        ends += [measured.min(), true.min(), measured.max(), true.max()]
    axes.plot([min(ends), max(ends)], [min(ends), max(ends)], color=FAINT, linewidth=1)
    axes.set_xlabel("reference")
    axes.set_ylabel("measured")
    axes.set_aspect("equal", adjustable="datalim")


def _waveforms(found: Evaluation, shown: dict[str, list[Quantity]]) -> Figure:
    """Of the videos with the smallest, the middle and the largest error of the network's rate."""
    choices = [(some[0], video, rank) for some in shown.values() for video, rank in _chosen(found, some[0])]
    figure = Figure(figsize=(11, 1.7 * len(choices)), layout="constrained")
    for axes, (of, video, rank) in zip(figure.subplots(len(choices), squeeze=False)[:, 0], choices, strict=True):
        waves = found.excerpts[video[0], video[1], of.name]
        assert waves.reference is not None
        for wave, colour, label in ((waves.reference, INK, "reference"), (waves.wave, COLOUR[of.name], of.by)):
            axes.plot(waves.times, wave / (wave.std() or 1), color=colour, linewidth=1, label=label)
        said = f"{video[1]}, {rank} error: {TITLES[of.vital]}, {waves.rate:.1f}, reference {waves.true:.1f}"
        axes.set_title(f"{said}, MACC {waves.macc:.2f}", fontsize=9, loc="left", parse_math=False)
        axes.set_yticks([])
        axes.legend(fontsize=8, frameon=False, loc="lower right", bbox_to_anchor=(1, 0.95), ncols=2)
    axes.set_xlabel("seconds")
    return figure


def _chosen(found: Evaluation, of: Quantity) -> list[tuple[tuple[str, str], str]]:
    """(dataset, name) of videos, by the error over their first row."""
    first = found.rows.drop_duplicates(["dataset", "name"])
    error = (first[of.name] - first[f"{of.name}_true"]).abs().dropna().sort_values()
    places = dict(zip((0, len(error) // 2, len(error) - 1), ("smallest", "middle", "largest"), strict=True))
    ranked = list(first.loc[error.index, ["dataset", "name"]].itertuples(index=False, name=None))
    return [(ranked[at], rank) for at, rank in places.items()]
