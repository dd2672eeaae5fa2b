"""`bigsmall train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .common import app, out, sentences


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or 'default' for the model that ships.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder; a run begun there is taken up.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that simulate and measure.")] = 2,
) -> None:
    """Train a model on simulated faces, and measure how it does on others."""
    with sentences():
        from bigsmall.training import train as fit

        out.print(f"written: {escape(str(fit(config, output, overrides or (), workers=workers)))}", soft_wrap=True)
