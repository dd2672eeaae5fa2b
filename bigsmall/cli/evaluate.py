"""`bigsmall evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import app, out, progress, sentences

if TYPE_CHECKING:
    from bigsmall.evaluation import Evaluation


@app.command()
def evaluate(
    weights: Annotated[
        str,
        typer.Argument(
            help="A file, a name, or au=FILE,pulse=FILE,respiration=FILE; or alone, the predictions/ of an earlier "
            "evaluation, to score them again without the network."
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the report, the tables and the pictures.")],
    prepared: Annotated[list[Path] | None, typer.Argument(help="Folders that `bigsmall prepare` made.")] = None,
    convention: Annotated[
        str, typer.Option(help="Bands and filters: ours, toolbox, toolbox-2023 or bigsmall.")
    ] = "ours",
    window: Annotated[
        float | None, typer.Option(help="Seconds: rates of windows that follow one another, not of whole videos.")
    ] = None,
    fold: Annotated[
        str | None, typer.Option(metavar="INDEX/OF", help="Only the subjects that this fold is tested on, as in 0/3.")
    ] = None,
    subjects: Annotated[Path | None, typer.Option(help="Only the subjects of this text file.")] = None,
    task: Annotated[
        list[str] | None, typer.Option(help="au, pulse or respiration; given again, more. All by default.")
    ] = None,
) -> None:
    """Evaluate weights on prepared recordings: errors of the rates and scores of the action units."""
    with sentences(), progress() as tell:
        from bigsmall import evaluation
        from bigsmall.datasets import open_prepared

        if prepared:
            part = None if fold is None else _fold(fold)
            recordings = [r for folder in prepared for r in open_prepared(folder, subjects=subjects, fold=part)]
            found = evaluation.evaluate(
                weights, recordings, tasks=task, convention=convention, window=window, output=output, progress=tell
            )
        elif not Path(weights).is_dir():
            raise ValueError(f"PREPARED was not given, expected folders to evaluate {weights!r} on")
        else:
            files = evaluation.load_predictions(weights)
            predictions = map(evaluation.Prediction.load, files)
            found = evaluation.score(predictions, tasks=task, convention=convention, window=window)
            found.save(output)
    _show(found)
    out.print(f"written: {escape(str(output / 'report.md'))} and what goes with it", soft_wrap=True)


def _fold(text: str) -> dict[str, int | str]:
    index, _, of = text.partition("/")
    if not (index.isdecimal() and of.isdecimal()):
        raise ValueError(f"--fold was {text!r}, expected INDEX/OF, as in 0/3")
    return {"index": int(index), "of": int(of), "part": "test"}


def _show(found: Evaluation) -> None:
    about, mean = found.about, found.summary.get("au", {}).get("mean")
    window = "" if about["window"] is None else f" in windows of {about['window']:g} s"
    out.print(
        f"[bold]{escape(about['model'])}[/bold] on {', '.join(about['datasets'])}, {about['videos']} videos{window}"
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for row in found.table().query("rate_by == 'FFT' and metric == 'mae' and n > 0").itertuples():
        error = f"MAE [bold]{row.value:.2f}[/bold] per minute"
        table.add_row(row.quantity.replace("_", " "), row.by, error, f"against the {row.reference}, n {row.n}")
    if mean and mean["units"]:
        scores = f"F1 [bold]{100 * mean['f1']:.1f}[/bold] %, accuracy {100 * mean['accuracy']:.1f} %"
        table.add_row("action units", "network", scores, f"mean of {mean['units']}")
    out.print(table)
    for vital in ("heart_rate", "respiration_rate"):
        out.print(f"[dim]{escape(about['convention'][vital])}[/dim]")
    for note in about["notes"]:
        out.print(f"[yellow]{escape(note)}[/yellow]")
