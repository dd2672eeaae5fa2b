"""`bigsmall measure`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .common import NOTHING, app, err, out, progress, sentences

if TYPE_CHECKING:
    from bigsmall.results import Measurement, Reading


@app.command()
def measure(
    video: Annotated[
        Path,  # whether it can be read is told by who reads it
        typer.Argument(help="A video file, or a folder of images together with --fps.", readable=False),
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Folder for the report, the picture and the tables."),
    ] = None,
    weights: Annotated[
        str, typer.Option(help="A file, a name, or au=FILE,pulse=FILE,respiration=FILE to combine networks.")
    ] = "default",
    crop: Annotated[
        str | None,
        typer.Option(
            help="What is measured: frame, square, face, face:SCALE or x,y,w,h. By default as the weights were trained."
        ),
    ] = None,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="Every face, not only the largest.")] = False,
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also overlay.mp4 in the folder: the video with what was measured.")
    ] = False,
    fps: Annotated[float | None, typer.Option(help="Frames per second, in place of the file's own clock.")] = None,
) -> None:
    """Measure pulse, respiration and facial action units in a video.

    Exit codes: 0 something was measured, 2 usage, 3 nothing could be measured, 4 the video cannot be read.
    """
    import bigsmall

    with sentences(), progress() as tell:
        if overlay and output is None:
            raise ValueError("--overlay was given without --output, expected a folder to write it to")
        if output:
            _check_writable(output)
        result = bigsmall.measure(video, weights=weights, fps=fps, crop=crop, all_faces=all_faces, progress=tell)
        written = result.save(output) if output else []
        if overlay and output:
            written.append(output / "overlay.mp4")
            result.overlay(written[-1], progress=tell)
    if not result.measured:
        err.print(f"bigsmall: nothing could be measured in {escape(str(video))}: {escape(_why(result))}")
        raise typer.Exit(NOTHING)
    _show(result)
    if written:
        out.print("written: " + escape(", ".join(map(str, written))), soft_wrap=True)


def _check_writable(folder: Path) -> None:
    """Before an hour is measured for nothing."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is no folder"
        raise ValueError(f"--output was {folder}, expected a folder to write to: {there} {what}")


def _show(result: Measurement) -> None:
    source = result.source
    out.print(f"[bold]{escape(source['name'])}[/bold]  {source['seconds']:.1f} s, {source['frames']} frames")
    for face in result.faces:
        _show_face(face, f"face {face.face_id}: " if result.others else "")
    for note in (source["note"], *(card["note"] for card in result.model["cards"])):
        if note:
            out.print(f"note: {escape(note)}")
    from bigsmall.results import DISCLAIMER

    out.print(f"[dim]{DISCLAIMER}[/dim]")


def _show_face(result: Measurement, name: str) -> None:
    frames = result.frames
    out.print(f"{name}seen in {int(frames['success'].sum())} frames")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_row("heart rate", *_cells(result.heart_rate))
    table.add_row("  by POS", *_cells(result.unsupervised["pos"]))
    table.add_row("respiration rate", *_cells(result.respiration_rate))
    if result.action_units:
        active = frames[[f"{name}_c" for name in result.action_units]].dropna().astype(float).mean().dropna()
        shares = [f"{name[:-2]} {100 * share:.0f} %" for name, share in active.items() if share >= 0.005]
        table.add_row("action units", *(("active", ", ".join(shares) or "none") if len(active) else ("refused", "")))
    out.print(table)
    for start, end in result.lost:
        out.print(f"not seen from {start:.1f} to {end:.1f} s")


def _cells(reading: Reading) -> tuple[str, str]:
    if reading.value is None or reading.interval is None:
        return "refused", escape(reading.note or "")
    sure = "95 % {:.1f}-{:.1f}, confidence {:.2f}, band {:g}-{:g}".format(
        *reading.interval, min(reading.confidence, 0.99), *reading.band
    )
    return f"[bold]{reading.value:.1f} {reading.unit}[/bold]", sure + (f"; {reading.note}" if reading.note else "")


def _why(result: Measurement) -> str:
    reasons = [result.heart_rate.note, result.respiration_rate.note]
    if result.action_units and result.frames["success"].any():
        reasons.append(f"action units need {result.model['n_segment']} different frames in a row with a face")
    return "; ".join(dict.fromkeys(reason for reason in reasons if reason))
