"""What every command shares: the app, where it prints, and how it ends.

Exit codes: 0 something was measured, 1 `doctor` or `prepare` found something broken, 2 usage, 3 nothing could be
measured, 4 the input cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from bigsmall.measure import Progress

BROKEN, USAGE, NOTHING, UNREADABLE = 1, 2, 3, 4

app = typer.Typer(
    help="Pulse, respiration and facial action units from a video of a face. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def sentences() -> Iterator[None]:
    """Turn what a user can cause into one sentence and an exit code."""
    try:
        yield
    except Exception as error:
        from bigsmall.face import FaceWeightsError
        from bigsmall.video import VideoError

        if not isinstance(error, (ValueError, OSError, FaceWeightsError)):
            raise
        err.print(f"bigsmall: {escape(str(error))}")
        raise typer.Exit(UNREADABLE if isinstance(error, VideoError) else USAGE) from error


@contextmanager
def progress() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:17}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield tell
