"""`bigsmall protocol`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .common import app, out, sentences


@app.command()
def protocol(
    name: Annotated[str, typer.Argument(help="crossval, table1, table2, table3, table4, transfer, fig5 or fig6.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Its folder; one begun there is taken up.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Such as data.prepared=FOLDER or seeds=[0].")
    ] = None,
) -> None:
    """Run an experiment of the paper; its numbers stand beside ours.

    Without data=... networks learn from simulated people. Writes NAME.md, NAME.csv and pictures; table3 a table
    for each test (table3-TEST.md), fig6 several pictures (fig6-maps.png, fig6-waves.png, fig6-angles.png).
    """
    with sentences():
        from bigsmall.protocols import run

        text = run(name, output, overrides or ())
    out.print(text, markup=False, soft_wrap=True)
    out.print(f"written: {escape(str(output))}", soft_wrap=True)
