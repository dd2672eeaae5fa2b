"""`bigsmall weights list | download | convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import app, out, progress, sentences

weights = typer.Typer(help="Weight files: what there is, the authors' released ones, conversion.", no_args_is_help=True)
app.add_typer(weights, name="weights")


@weights.command("list")
def list_() -> None:
    """The names that --weights takes, what they are, and under which licence."""
    from bigsmall.weights import RELEASED

    table = Table(box=None, pad_edge=False)
    for heading in ("name", "tasks", "MB", "here", "check", "licence"):
        table.add_column(heading, no_wrap=True)
    table.add_row("default", "au, pulse, respiration", "", "yes", "", "MIT")
    for name, released in RELEASED.items():
        checked = "SHA-256" if released.sha256 else "git id" if released.blob else "size"
        licence = "responsible AI" if released.terms else "MIT"
        tasks = ", ".join(released.card.tasks)
        table.add_row(name, tasks, f"{released.size / 1e6:.1f}", _here(name), checked, licence)
    out.print(table)
    for licence in dict.fromkeys(released.card.licence for released in RELEASED.values()):
        out.print(escape(licence), style="dim")


def _here(name: str) -> str:
    from bigsmall.weights import cached

    try:
        cached(name)
    except ValueError:
        return "no"
    return "yes"


@weights.command()
def download(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `bigsmall weights list` gives them.")],
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Terms that need it are accepted.")] = False,
) -> None:
    """Fetch released weights from where their authors host them into the user's cache folder, checked.

    What broke off is taken up; what is there is not fetched again. Then they go by name: --weights NAME, or
    --weights au=NAME,pulse=NAME.
    """
    from bigsmall.weights import RELEASED
    from bigsmall.weights import download as fetch

    for name in names:
        with sentences(), progress() as tell:
            if name in RELEASED:
                out.print(f"{name}: {escape(RELEASED[name].card.licence)}", soft_wrap=True)
            path = fetch(name, accept_licence=accept_licence, progress=tell)
            if not RELEASED[name].sha256:
                out.print("No SHA-256 of it is known: that of the first download was written beside it.")
        out.print(f"here: {escape(str(path))}", soft_wrap=True)


@weights.command()
def convert(
    file: Annotated[str, typer.Argument(help="A .pth or .safetensors file, or a name.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Ends in .safetensors.")],
) -> None:
    """Write weights as safetensors with their card; both give the same bits on random inputs, or nothing is written."""
    from bigsmall.weights import convert as convert_
    from bigsmall.weights import find

    with sentences():
        card = convert_(find(file), output)
    out.print(card.to_json(), markup=False, soft_wrap=True)
    out.print(f"written: {escape(str(output))}, the same outputs as before", soft_wrap=True)
