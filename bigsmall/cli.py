"""The command line: thin, and quick to start; everything heavy is imported by the command that needs it.

Exit codes: 0 something was measured, 1 `doctor` found something broken, 2 usage, 3 nothing could be measured, 4 the
input cannot be read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from bigsmall.doctor import Check
    from bigsmall.measure import Progress
    from bigsmall.results import Measurement, Reading

BROKEN, USAGE, NOTHING, UNREADABLE = 1, 2, 3, 4

app = typer.Typer(
    help="Pulse, respiration and facial action units from a video of a face. Not a medical device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
out, err = Console(highlight=False), Console(stderr=True, highlight=False, soft_wrap=True)


def main() -> None:
    """What the installed command `bigsmall` runs."""
    app(prog_name="bigsmall")


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

    with _sentences(), _progress() as tell:
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


@app.command()
def synthesize(
    output: Annotated[
        Path, typer.Argument(metavar="OUT", help="A video (.mkv lossless, .mp4 x264), its truth beside; or a folder.")
    ],
    count: Annotated[int | None, typer.Option(help="So many people into the folder OUT, from SEED on.")] = None,
    heart_rate: Annotated[float | None, typer.Option(help="bpm; 0: no pulse. 72; of many, each their own.")] = None,
    respiration_rate: Annotated[
        float | None, typer.Option(help="Breaths per minute; 0: none. 15; of many, each their own.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Length.")] = 30.0,
    fps: Annotated[float, typer.Option(help="Frames per second.")] = 30.0,
    seed: Annotated[int, typer.Option(help="Of the person, the room, the motion and the noise.")] = 0,
    skin_tone: Annotated[float | None, typer.Option(help="0 lightest to 1 darkest; by the seed if not given.")] = None,
    motion: Annotated[float, typer.Option(help="Of the head; 1: sits still, 0: none.")] = 1.0,
    gestures: Annotated[float, typer.Option(help="Nods, turns and other gestures per minute.")] = 0.0,
    talking: Annotated[float, typer.Option(help="Share of the time that the person talks.")] = 0.0,
    light: Annotated[float, typer.Option(help="Exposure; white skin nears saturation at 1.")] = 0.8,
    flicker: Annotated[float, typer.Option(help="Depth of the light's flicker.")] = 0.0,
    noise: Annotated[float, typer.Option(help="Of the camera; 1: a webcam in a lit room.")] = 1.0,
    expressions: Annotated[float, typer.Option(help="Facial expressions per minute.")] = 6.0,
    crf: Annotated[int | None, typer.Option(help="x264's quality, 0 best to 51.")] = None,
    negative: Annotated[
        str | None, typer.Option(help="No pulse but something like it: photograph, wall, noise, cartoon and others.")
    ] = None,
) -> None:
    """Simulate face videos whose pulse, breathing and action units are known.

    A folder takes them as .mp4 where a quality is given, else as .mkv; what it holds already is not made again.
    """
    options: dict[str, object] = {
        "seconds": seconds, "fps": fps, "skin_tone": skin_tone, "motion": motion, "gestures": gestures,
        "talking": talking, "light": light, "flicker": flicker, "noise": noise, "expressions": expressions,
    }  # fmt: skip
    rates = {"heart_rate": heart_rate, "respiration_rate": respiration_rate}
    options |= {name: rate or None for name, rate in rates.items() if rate is not None}
    with _sentences():
        from bigsmall import synthesis

        if count is not None:
            more: dict[str, object] = {"crf": crf} if crf is not None else {}
            more |= {"negative": negative} if negative is not None else {}
            specs = synthesis.people(count, seed=seed, **options, **more)
            synthesis.synthesize_many(output, specs, suffix=".mkv" if crf is None else ".mp4")
            out.print(f"{count} videos with their truth in {escape(str(output))}", soft_wrap=True)
            return
        with err.status(f"simulating {seconds:g} s"):
            if negative is None:
                synthesis.synthesize(output, crf=crf, seed=seed, **options)
            else:
                synthesis.negatives(negative, seed=seed, **options).write(output, crf=crf)
    out.print(f"written: {escape(str(output))}, {escape(str(output.with_suffix('.csv')))}", soft_wrap=True)


@app.command()
def info(model: Annotated[str, typer.Argument(help="A network's name, such as bigsmall, big or small.")]) -> None:
    """Layers, parameters and operations of a network, as the paper counts them."""
    with _sentences():
        from bigsmall.models import describe

        cost = describe(model)
    table = Table("layer", "output", box=None, pad_edge=False)
    for heading in ("parameters", "runs a clip", "FLOPs a run", "MACs a run"):
        table.add_column(heading, justify="right")
    for layer in cost.layers:
        numbers = (layer.parameters, layer.runs, layer.flops, layer.macs)
        table.add_row(layer.name, "x".join(map(str, layer.output_shape)), *(f"{number:,}" for number in numbers))
    out.print(table)
    out.print(
        f"\n{model}: {cost.parameters:,} parameters, {cost.flops_per_frame / 1e6:.3f} MFLOPs and "
        f"{cost.macs_per_frame / 1e6:.3f} MMACs a frame; a clip is {cost.frames} frame{'s'[: cost.frames > 1]}"
    )
    out.print(cost.convention)


@app.command()
def train(
    config: Annotated[str, typer.Argument(help="A YAML file, or 'default' for the model that ships.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The run's folder; a run begun there is taken up.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Changes of it.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that simulate and measure.")] = 2,
) -> None:
    """Train a model on simulated faces, and measure how it does on others."""
    with _sentences():
        from bigsmall.training import train as fit

        out.print(f"written: {escape(str(fit(config, output, overrides or (), workers=workers)))}", soft_wrap=True)


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


@contextmanager
def _sentences() -> Iterator[None]:
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


def _check_writable(folder: Path) -> None:
    """Before an hour is measured for nothing."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        what = "cannot be written to" if there.is_dir() else "is no folder"
        raise ValueError(f"--output was {folder}, expected a folder to write to: {there} {what}")


@contextmanager
def _progress() -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:17}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bar:
        tasks: dict[str, int] = {}

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)  # type: ignore[arg-type]

        yield tell


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
