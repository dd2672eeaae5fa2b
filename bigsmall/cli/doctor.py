"""`bigsmall doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import BROKEN, app, err, out

if TYPE_CHECKING:
    from bigsmall.doctor import Check


@app.command()
def doctor(
    camera: Annotated[bool, typer.Option("--camera", help="Open the first camera and read from it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For a bug report.")] = False,
) -> None:
    """What is installed, built and running, and a self-test of a few seconds.

    Exit codes: 0 nothing failed, 1 something did.
    """
    from bigsmall.doctor import FAILED, examine

    with err.status("examining") as status:
        checks = examine(camera=camera, tell=lambda name: status.update(f"examining: {name}"))
    if as_json:
        out.print_json(data=[check._asdict() for check in checks])
    else:
        out.print(_verdicts(checks))
    if any(check.status == FAILED for check in checks):
        raise typer.Exit(BROKEN)


def _verdicts(checks: list[Check]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    colours = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}
    for check in checks:
        advice = f"\n-> {escape(check.advice)}" if check.advice else ""
        table.add_row(check.name, f"[{colours[check.status]}]{check.status}", escape(check.found) + advice)
    return table
