"""Reading and writing weight files: safetensors with a card, and .pth as the authors' code saves it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from .. import models
from ..files import whole
from ..models import TASKS, Network
from .card import ACTION_UNITS, Card
from .released import released_card


def load_network(path: str | Path) -> tuple[Network, Card]:
    """The network of a weight file, in evaluation mode, and its card.

    Args:
        path: .safetensors, or .pth as torch.save writes it, from a GPU or not; a card may lie beside it as .json. A
            file without a card is recognised by its checksum, or else guessed from the names of its tensors.
    Raises:
        ValueError: not weights, or weights that do not fit the network that the card names.
    """
    path = Path(path)
    state, card = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    beside = path.with_suffix(".json")
    if card is None and beside.is_file():
        card = Card.from_json(beside.read_text(encoding="utf-8"))
    card = card or _guessed_card(path, state)
    model = models.build(card.model, **card.options)
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not fit the network {card.model!r}: {error}") from error
    units = card.options.get("out_size", len(card.options.get("action_units", ACTION_UNITS)))
    if "au" in card.tasks and units != len(card.action_units):
        raise ValueError(f"{path} gives {units} action units, and its card names {len(card.action_units)}")
    return model.eval(), card


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Card | None]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            card = (file.metadata() or {}).get("card")
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    return state, Card.from_json(card) if card else None


def _read_torch(path: Path) -> tuple[dict[str, Tensor], Card | None]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle or archive can raise anything
        raise ValueError(f"{path} is not a file of weights: expected tensors as torch.save writes them") from error
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"{path} is not a file of weights: expected a dictionary of tensors")
    # DataParallel puts "module." before every name.
    plain = {str(name).removeprefix("module."): value for name, value in state.items()}
    return plain, released_card(path.name, path.read_bytes())


def _guessed_card(path: Path, state: Mapping[str, Tensor]) -> Card:
    """A card for weights that come without one, from the names and shapes of their tensors."""
    multitask = "au_fc2.weight" in state
    head = "au" if multitask else "out"
    if f"{head}_fc1.weight" not in state or f"{head}_fc2.weight" not in state:
        raise ValueError(f"{path} holds no BigSmall network: it has no card and no {head}_fc1 and {head}_fc2 layers")
    size = math.isqrt(state[f"{head}_fc1.weight"].shape[-1] // 64)
    options: dict[str, Any] = {"out_size": state[f"{head}_fc2.weight"].shape[0]}
    model = "bigsmall" if multitask else "big" if "big_conv1.weight" in state else "small"
    options |= {"small_size": size} if model == "small" else {"big_size": 16 * size}
    tasks = {"bigsmall": TASKS, "big": ("au",), "small": ()}[model]
    n_units = options["out_size"] if model != "small" else 0
    return Card(
        name=path.stem,
        model=model,
        options=options,
        tasks=tasks,
        # what the authors' files of this kind were trained with
        convention="toolbox-pre225" if multitask else "bigsmall",
        crop="square",
        action_units=ACTION_UNITS if n_units == len(ACTION_UNITS) else tuple(f"output{i}" for i in range(n_units)),
        note="no card came with these weights: network, convention and crop are guessed from their names",
    )


def save(path: str | Path, model: nn.Module, card: Card) -> None:
    """Write a network's weights and their card as safetensors; the file appears whole or not at all.

    Raises:
        ValueError: the network's weights do not fit the one that the card names.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with torch.device("meta"):  # its shapes alone
        expected = models.build(card.model, **card.options).state_dict()
    if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in expected.items()}:
        raise ValueError(f"the weights do not fit the network of the card, {card.model!r} with {dict(card.options)}")
    data = safetensors.torch.save(state, {"card": card.to_json()})
    with whole(path) as aside:
        aside.write_bytes(data)
