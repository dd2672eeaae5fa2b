"""`bigsmall held-out`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .common import app, out, progress, sentences

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@app.command("held-out")
def held_out(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="Weights, as measure takes them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the videos, the rows and the results.")],
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; as many as there are cores.")] = None,
) -> None:
    """The default model's own test: 56 simulated videos of a minute, measured from end to end by each MODEL.

    The videos are rendered once (about 1 GB); an interrupted run is taken up where it was.
    """
    with sentences(), progress() as tell:
        import json

        import pandas as pd

        from bigsmall.evaluation import simulated
        from bigsmall.files import whole

        results, tables = [], []
        for model in models:
            for done, of in simulated.evaluate(model, simulated.HELD_OUT, output / "rows", workers, output / "videos"):
                tell(f"held-out videos, {model}", done, of)
            rows = simulated.rows(model, simulated.HELD_OUT, output / "rows")
            results.append({"weights": model, **simulated.summary(rows)})
            tables.append(simulated.table(rows).assign(weights=model))
        with whole(output / "held_out.csv") as aside:
            pd.concat(tables).to_csv(aside, index=False)
        with whole(output / "held_out.json") as aside:
            text = json.dumps({"simulated": True, "test": simulated.HELD_OUT, "results": results}, indent=1)
            aside.write_text(text + "\n", encoding="utf-8")
    _show(results)
    out.print(
        f"written: {escape(str(output / 'held_out.csv'))}, {escape(str(output / 'held_out.json'))}", soft_wrap=True
    )


def _show(results: Sequence[Mapping[str, Any]]) -> None:
    table = Table("", "heart rate", "by POS", "respiration rate", "AU F1", "no pulse", box=None, pad_edge=False)
    for found in results:
        rates = [found[name] for name in ("heart_rate", "pos", "respiration_rate")]
        cells = [f"{rate['mean_absolute_error']}, {100 * rate['refused']:.1f} % refused" for rate in rates]
        wrong = "{given_a_heart_rate} of {videos} given one".format(**found["without_a_pulse"])
        table.add_row(escape(found["weights"]), *cells, str(found["au_f1_on_rendered_faces"]["mean"]), wrong)
    out.print(table)
    out.print("[dim]Simulated videos only; errors per minute, of what was not refused. Not a medical device.[/dim]")
