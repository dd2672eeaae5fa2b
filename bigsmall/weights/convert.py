"""Any weight file as safetensors with its card, with proof that it computes the same."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ..files import beside
from ..models import Network, answer
from .card import Card
from .files import load_network, save


def convert(path: str | Path, output: str | Path) -> Card:
    """Write a weight file as safetensors with its card; before it appears, both give the same bits on random inputs.

    Args:
        path: what `load_network` reads.
        output: ends in .safetensors.
    Raises:
        ValueError: not weights; another ending; or the outputs differ, and then nothing is written.
    """
    output = Path(output)
    if output.suffix != ".safetensors":
        raise ValueError(f"output was {output}, expected a name that ends in .safetensors")
    model, card = load_network(path)
    aside = beside(output, ".safetensors")
    try:
        save(aside, model, card)
        again, _ = load_network(aside)
        inputs = _random_inputs(model)
        with torch.inference_mode():
            before, after = answer(model, inputs), answer(again, inputs)
        if not all(torch.equal(before[task], after[task]) for task in model.tasks):
            raise ValueError(f"{path} gives other outputs once converted")
        aside.replace(output)
    finally:
        aside.unlink(missing_ok=True)
    return card


def _random_inputs(model: Network, clips: int = 2) -> dict[str, Tensor]:
    """Inputs of so many clips under the names that the network reads."""
    generator = torch.Generator().manual_seed(0)
    frames = clips * model.n_segment

    def noise(name: str) -> Tensor:
        kind, _, size = name.partition(":")
        side = int(size) if size else getattr(model, f"{kind}_size")
        count = frames // model.big_every if kind == "big" else frames
        return torch.randn(count, 3, side, side, generator=generator)

    return {name: noise(name) for name in model.reads}
