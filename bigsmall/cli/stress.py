"""`bigsmall stress`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .common import app, out, progress, sentences

if TYPE_CHECKING:
    from collections.abc import Mapping


@app.command()
def stress(
    model: Annotated[str, typer.Argument(help="Weights: a file, a name, or au=FILE,pulse=FILE,respiration=FILE.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the table, the picture and the rows.")],
    people: Annotated[int, typer.Option(help="At each level, the same ones.")] = 8,
    seconds: Annotated[float, typer.Option(help="Of each video.")] = 30.0,
    factors: Annotated[str | None, typer.Option(help="Only these, as in skin_tone,motion; by default all.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores.")] = None,
    seed: Annotated[int, typer.Option(help="Another takes other people.")] = 0,
) -> None:
    """Error and refusal over skin tone, heart rate, motion, light, compression and more, on simulated videos.

    One factor at a time leaves a base point. On 2 cores a video takes about seven seconds and a factor about
    five minutes; an interrupted run is taken up where it was.
    """
    with sentences(), progress() as tell:
        from bigsmall.evaluation.stress import FACTORS
        from bigsmall.evaluation.stress import stress as run

        chosen = tuple(FACTORS) if factors is None else [name.strip() for name in factors.split(",")]
        report = run(
            model, output, factors=chosen, people=people, seconds=seconds, seed=seed, workers=workers, progress=tell
        )
    _show(report)
    names = ("stress.csv", "stress.json", "stress.md", "stress.png")
    out.print("written: " + escape(", ".join(str(output / name) for name in names)), soft_wrap=True)


def _show(report: Mapping[str, Any]) -> None:
    from bigsmall.evaluation.stress import FACTORS, RATES, about

    rates = [name for name in RATES if name in report["levels"][0]]
    table = Table("", *(f"{RATES[name]}\nerror, refused" for name in rates), "AU F1", box=None, pad_edge=False)
    before = None
    for row in report["levels"]:
        if row["factor"] != before:
            before = row["factor"]
            table.add_row(f"[bold]{FACTORS[before].title}")
        cells = [f"{_number(row[name]['mae'])}, {row[name]['refused']} of {row['n']}" for name in rates]
        table.add_row(f"  {row['level']:g}" + " (base)" * row["base"], *cells, _number(row.get("au_f1")))
    out.print(table)
    out.print(f"[dim]{escape(about(report))}[/dim]")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
