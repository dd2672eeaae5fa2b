"""Predictions scored against what is known: a row a video, or a window of one, and what they come to."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..datasets.prepared import Prepared
from .metrics import au_counts, au_scores, mean, rate_errors
from .postprocess import Compared, Convention, named
from .predict import Model, Prediction, Runner, predict
from .quantities import QUANTITIES, Row, columns, excerpt, signal

if TYPE_CHECKING:
    import pandas as pd

    from ..measure import Progress

VITALS = ("heart_rate", "respiration_rate")
# What a summary has of a quantity: its suffix, and the columns of `rows` that it compares, by theirs.
VARIANTS = {"": ("", "_true"), "_peaks": ("_peaks", "_peaks_true"), "_column": ("", "_column")}


@dataclass(frozen=True)
class Evaluation:
    """What came out.

    Attributes:
        rows: a row a video, or a window with `window`: name, subject, dataset, convention, window, start and seconds;
            for each quantity Q of "heart_rate", "pos", "chrom" and "respiration_rate" that there is a signal for: Q (by
            FFT, per minute), Q_true (of the reference wave, likewise), Q_peaks and Q_peaks_true (by peaks), Q_column
            (the mean of the dataset's own rates), Q_snr (dB), Q_macc, Q_seconds (how long the stretch was that they
            come from), and Q_note where something is missing. NaN: unknown.
        summary: Q (FFT), Q_peaks and Q_column (FFT against the dataset's own rates): what `metrics.rate_errors` gives,
            for the first with snr and macc; au: what `metrics.au_scores` gives.
        about: what was evaluated and how: model, datasets, videos, subjects, tasks, convention, bands, window, notes.
        excerpts: (dataset, name, quantity) -> filtered waves of the middle of the first row of a video, for pictures.
    """

    rows: pd.DataFrame
    summary: dict[str, dict[str, Any]]
    about: dict[str, Any]
    excerpts: Mapping[tuple[str, str, str], Compared] = field(repr=False, default_factory=dict)

    def table(self) -> pd.DataFrame:
        """The summary's rates, a row a metric.

        Columns: quantity, by, rate_by, reference, convention, band, window, n, metric, value, standard_error.
        """
        from .tables import summary_table

        return summary_table(self)

    def markdown(self) -> str:
        """The tables of the report, each with its band, filters and windows."""
        from .tables import report

        return report(self)

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write report.md, videos.csv, summary.json and .csv, au.csv and the pictures; what was written."""
        from .tables import write

        return write(self, Path(folder))


def evaluate(
    model: Model,
    recordings: Sequence[Prepared],
    *,
    tasks: Sequence[str] | None = None,
    convention: str | Convention = "ours",
    window: float | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run a network over prepared recordings and score it.

    Args:
        model: as of `predict`.
        recordings: from `datasets.open_prepared`.
        tasks: only these; None: all that the network answers.
        convention: a name out of CONVENTIONS, or one of your own.
        window: seconds; rates of windows that follow one another, an end of 9 samples or more counting as one (FACTS
            6). None: of whole videos.
        output: a folder for what `Evaluation.save` writes and for predictions/; those that are there and still hold are
            not made again, so that an interrupted evaluation goes on, and another convention needs no network.
        progress: called with what is done and of how many.

    Raises:
        ValueError: as of `predict`; no recordings; two of one dataset and name.
    """
    run = Runner(model)
    wanted = run.wanted(tasks)
    if not recordings:
        raise ValueError("recordings: expected one or more, got none")
    names = [(r.dataset, r.name) for r in recordings]
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise ValueError(f"recordings: {twice[0][1]} of {twice[0][0]} is there more than once")
    folder = None if output is None else Path(output) / "predictions"
    tell = progress or (lambda stage, done, total: None)

    def made() -> Iterator[Prediction]:
        for done, recording in enumerate(recordings):
            tell("evaluating", done, len(recordings))
            yield predict(run, recording) if folder is None else _kept(run, recording, folder)
        tell("evaluating", len(recordings), len(recordings))

    found = score(made(), tasks=wanted, convention=convention, window=window)
    if output is not None:
        found.save(output)
    return found


def _kept(run: Runner, recording: Prepared, folder: Path) -> Prediction:
    """From the folder, or made and put there."""
    path = folder / recording.dataset / f"{recording.name}.safetensors"
    if path.is_file() and (kept := Prediction.load(path)).key == run.key(recording):
        return kept
    path.parent.mkdir(parents=True, exist_ok=True)
    prediction = predict(run, recording)
    prediction.save(path)
    return prediction


def score(
    predictions: Iterable[Prediction],
    *,
    tasks: Sequence[str] | None = None,
    convention: str | Convention = "ours",
    window: float | None = None,
) -> Evaluation:
    """Score predictions, one at a time; arguments as of `evaluate`.

    Raises:
        ValueError: no prediction, an unknown convention, a window that is no positive number.
    """
    import pandas as pd

    how = named(convention)
    if window is not None and not window > 0:
        raise ValueError(f"window was {window}, expected seconds above 0")
    rows: list[Row] = []
    counts: dict[str, np.ndarray] = {}
    excerpts: dict[tuple[str, str, str], Compared] = {}
    models: dict[str, None] = {}
    notes: dict[str, int] = {}
    predicted: dict[str, None] = {}
    for prediction in predictions:
        wanted = [task for task in prediction.tasks if tasks is None or task in tasks]
        predicted |= dict.fromkeys(wanted)
        models[prediction.model] = None
        told = list(prediction.notes)
        if "au" in wanted:
            _count(prediction, counts)
            if unlabelled := set(prediction.action_units) - set(prediction.labelled_units):
                told.append(f"without labels of {', '.join(sorted(unlabelled))}")
        for note in told:
            notes[note] = notes.get(note, 0) + 1
        rows += _rows(prediction, wanted, how, window, excerpts)
    if not rows:
        raise ValueError("predictions: expected one or more, got none")
    table = pd.DataFrame(rows)
    about = {
        "model": ", ".join(models),
        "datasets": sorted(set(table["dataset"])),
        "videos": int(table.groupby(["dataset", "name"]).ngroups),
        "subjects": int(table.groupby(["dataset", "subject"]).ngroups),
        "tasks": list(predicted),
        "convention": {"name": how.name, **{vital: how.describe(vital) for vital in VITALS}},
        "bands": {vital: list(how.band(vital)) for vital in VITALS},
        "window": window,
        "notes": [f"{note} ({count} recordings)" for note, count in notes.items()],
    }
    return Evaluation(table, summarize(table, counts), about, excerpts)


def summarize(rows: pd.DataFrame, counts: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """`Evaluation.summary` of rows and of frames counted by action unit."""
    summary: dict[str, dict[str, Any]] = {}
    for of in QUANTITIES:
        if of.name not in rows:
            continue
        for suffix, (measured, true) in VARIANTS.items():
            errors = rate_errors(rows[of.name + measured], rows[of.name + true])
            if not suffix:
                errors |= {name: mean(rows[f"{of.name}_{name}"]) for name in ("snr", "macc")}
            summary[of.name + suffix] = errors
    if counts:
        summary["au"] = au_scores(counts)
    return summary


def _count(prediction: Prediction, counts: dict[str, np.ndarray]) -> None:
    """Add a prediction's frames to those of each action unit that it gives and that is labelled, by name."""
    if prediction.au is None or prediction.au_labels is None:
        return
    units = [unit for unit in prediction.action_units if unit in prediction.labelled_units]
    ours, theirs = (
        [names.index(unit) for unit in units] for names in (prediction.action_units, prediction.labelled_units)
    )
    for unit, row in zip(units, au_counts(prediction.au[:, ours], prediction.au_labels[:, theirs]), strict=True):
        counts[unit] = counts.get(unit, 0) + row


def _rows(
    prediction: Prediction,
    tasks: Sequence[str],
    how: Convention,
    window: float | None,
    excerpts: dict[tuple[str, str, str], Compared],
) -> list[Row]:
    step = len(prediction) if window is None else max(1, round(window * prediction.fps))
    signals = {of: signal(prediction, of) for of in QUANTITIES if of.task in tasks}
    rows = []
    for start in range(0, len(prediction), step):
        part = slice(start, min(start + step, len(prediction)))
        row: Row = {
            "name": prediction.name, "subject": prediction.subject, "dataset": prediction.dataset,
            "convention": how.name, "window": "whole" if window is None else f"{window:g} s",
            "start": float(prediction.timestamps[start]), "seconds": (part.stop - start) / prediction.fps,
        }  # fmt: skip
        for of, wave in signals.items():
            if wave is None:
                continue
            values, compared = columns(prediction, of, wave, part, how)
            row |= {of.name + suffix: value for suffix, value in values.items()}
            if compared and start == 0:
                excerpts[prediction.dataset, prediction.name, of.name] = excerpt(compared, of)
        rows.append(row)
    return rows
