"""`bigsmall synthesize`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from .common import app, err, out, sentences


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
    with sentences():
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
