"""`bigsmall info`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from .common import app, out, sentences


@app.command()
def info(model: Annotated[str, typer.Argument(help="A network's name, such as bigsmall, big or small.")]) -> None:
    """Layers, parameters and operations of a network, as the paper counts them."""
    with sentences():
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
