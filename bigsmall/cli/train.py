"""`bigsmall train`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .common import app, out, sentences


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or 'default' or 'paper' for those that come along.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder; a run begun there is taken up.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that prepare data; one for each core.")] = None,
) -> None:
    """Train a network. With several processes: torchrun --nproc-per-node N -m bigsmall train ..."""
    with sentences():
        from bigsmall.training import train as fit

        path = fit(config, output, overrides or (), workers=workers)
        if os.environ.get("RANK", "0") == "0":
            out.print(f"written: {escape(str(path))}", soft_wrap=True)
