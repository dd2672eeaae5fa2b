"""Weight files and what they are for: safetensors with a card, and the authors' .pth files (FACTS 2).

A card says which network the weights fit, which input convention and crop they were trained with, and what comes out::

    predictor = bigsmall.weights.load("default")
    predictor = bigsmall.weights.load("au=Big_AU.pth,pulse=Small_Heart.pth,respiration=Small_Resp.pth")
    au, bvp, respiration = predictor(big, small)      # None where a task is missing
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from . import models
from .files import whole

TASKS = ("au", "pulse", "respiration")  # in the order of the outputs
ACTION_UNITS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))  # FACTS 4
OUTPUTS = {
    "au": "logits of the action units, one for each frame",
    "pulse": "derivative of the blood volume pulse, in its standard deviations",
    "respiration": "derivative of the respiration wave, in its standard deviations",
}
_NAMED = {"default": Path(__file__).parent / "data" / "default.safetensors"}


@dataclass(frozen=True)
class Card:
    """What a weight file is.

    Attributes:
        name: a short name for people.
        model, options: the network, as `bigsmall.models.build` takes them.
        tasks: which of "au", "pulse" and "respiration" its outputs are to be used for.
        convention: of its inputs, as `bigsmall_kernels.bigsmall_inputs` takes it.
        crop: the crop policy that it was trained with ("frame", "square" or "face").
        action_units: names of the columns of the "au" output.
        licence, source: the terms it comes under, and who trained it on what.
        note: what a reader of its results must know.
        details: anything else that is worth keeping, such as how it was trained and how well it did.
    """

    name: str
    model: str
    tasks: tuple[str, ...]
    convention: str
    crop: str
    options: Mapping[str, Any] = field(default_factory=dict)
    action_units: tuple[str, ...] = ACTION_UNITS
    licence: str = "unknown"
    source: str = "unknown"
    note: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if unknown := [task for task in self.tasks if task not in TASKS]:
            raise ValueError(f"a card's tasks are among {', '.join(TASKS)}, got {', '.join(unknown)}")
        for kind, what, names in (
            (str, "text", ("name", "model", "convention", "crop", "licence", "source", "note")),
            (Mapping, "an object", ("options", "details")),
        ):
            for name in names:
                if not isinstance(value := getattr(self, name), kind):
                    raise ValueError(f"a card's {name} was {value!r}, expected {what}")

    @property
    def outputs(self) -> dict[str, str]:
        """What each output means."""
        return {task: OUTPUTS[task] for task in self.tasks}

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "outputs": self.outputs}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Card:
        try:
            values = json.loads(text)
            values.pop("outputs", None)
            for name in ("tasks", "action_units"):
                if name in values:
                    values[name] = tuple(values[name])
            return cls(**values)
        except (json.JSONDecodeError, AttributeError, TypeError) as error:
            expected = ", ".join(f.name for f in fields(cls))
            raise ValueError(f"not a card ({error}); a card is a JSON object with {expected}") from error


# The nine single-task files that the authors released under MIT, by their SHA-256 (FACTS 2.1).
_AUTHORS = {
    "aa7e0fa1ec34d5da643a69646b0d17c424cf773b80f72865d460515f995193b3": ("Big_AU", 1),
    "0afcad5fc6d638872c0ac48d43a8457859f6899a4947d7bc35eaaa650eb59a9c": ("Big_AU", 2),
    "683d7d8e5320f30e0c0d80f06bc2e7d3617509c93bf9f7bc0241f140dba1bdf1": ("Big_AU", 3),
    "8513bb20412d5d204c1ac6e8c679c78c682948ceb251ce5019d7b10dd8b24006": ("Small_Heart", 1),
    "a42451827bd19af8b8125a7c279e61cf0b117970152057524d5e750a53e690ba": ("Small_Heart", 2),
    "c9fd011e4e44305994b1b8aa0b94e20e1bc5819f320ab29df173046ff6968f39": ("Small_Heart", 3),
    "d6a512b7dda5076d9d68d361f36553319d2b48d34ef0e6390424b316c5dabea0": ("Small_Resp", 1),
    "1cafb415a145518f0688db1b326818b25204a299d8fe95e53b0817b15c63cf0c": ("Small_Resp", 2),
    "7c74c21bba10f416722dc886d2fd7c5bb33eb1fef6765a1305b86a3cae170d01": ("Small_Resp", 3),
}
_AUTHORS_TASKS = {"Big_AU": ("big", "au"), "Small_Heart": ("small", "pulse"), "Small_Resp": ("small", "respiration")}


def _authors_card(sha256: str) -> Card | None:
    if sha256 not in _AUTHORS:
        return None
    network, split = _AUTHORS[sha256]
    model, task = _AUTHORS_TASKS[network]
    return Card(
        name=f"BP4D_{network}_Clip3_Split{split}_Epoch4",
        model=model,
        tasks=(task,),
        convention="bigsmall",
        crop="square",
        licence="MIT, Copyright (c) 2023 Girish Narayanswamy",
        source=f"the authors of BigSmall, trained on BP4D+ without split {split}",
        details={"sha256": sha256},
    )


def _guessed_card(path: Path, state: Mapping[str, Tensor]) -> Card:
    """A card for weights that come without one, from the names and shapes of their tensors."""
    multitask = "au_fc2.weight" in state
    head = "au" if multitask else "out"
    if f"{head}_fc1.weight" not in state or f"{head}_fc2.weight" not in state:
        raise ValueError(f"{path} holds no BigSmall network: it has no card and no {head}_fc1 and {head}_fc2 layers")
    size = math.isqrt(state[f"{head}_fc1.weight"].shape[-1] // 64)
    options = {"out_size": state[f"{head}_fc2.weight"].shape[0]}
    model = "bigsmall" if multitask else "big" if "big_conv1.weight" in state else "small"
    options |= {"small_size": size} if model == "small" else {"big_size": 16 * size}
    tasks = {"bigsmall": TASKS, "big": ("au",), "small": ()}[model]
    n_units = options["out_size"] if model != "small" else 0
    return Card(
        name=path.stem,
        model=model,
        options=options,
        tasks=tasks,
        convention="toolbox-pre225"
        if multitask
        else "bigsmall",  # what the authors' files of this kind were trained with
        crop="square",
        action_units=ACTION_UNITS if n_units == len(ACTION_UNITS) else tuple(f"output{i}" for i in range(n_units)),
        note="no card came with these weights: network, convention and crop are guessed from their names",
    )


class _Part(NamedTuple):
    model: nn.Module
    card: Card
    tasks: tuple[str, ...]


class Predictor:
    """One or more networks in inference behind BigSmall's call: `(big, small) -> (au, bvp, respiration)`.

    Attributes:
        cards: of the files it was loaded from.
        tasks: those that it answers; the other outputs are None.
        convention, crop: how its inputs are made.
        n_segment, all_big, big_size, small_size: of its inputs, as `bigsmall_kernels.bigsmall_inputs` takes them.
        action_units: names of the columns of the first output.
    """

    def __init__(self, parts: Sequence[tuple[nn.Module, Card, Sequence[str]]]) -> None:
        self._parts = [_Part(model.eval(), card, tuple(tasks)) for model, card, tasks in parts]
        self.cards = tuple(card for _, card, _ in self._parts)
        answered = [task for part in self._parts for task in part.tasks]
        if len(set(answered)) < len(answered):
            raise ValueError(f"every task comes from one network, got {', '.join(answered)}")
        self.tasks = tuple(task for task in TASKS if task in answered)
        self.convention: str = self._common("convention", [card.convention for card in self.cards])
        self.crop: str = self._common("crop", [card.crop for card in self.cards])
        networks = [part.model for part in self._parts]
        clips = [m.n_segment for m in networks if isinstance(m, models.BigSmall)]
        self.n_segment: int = self._common("n_segment", clips or [3])  # the single-task networks' clips: FACTS 2.1
        self.all_big = any(
            m.big_every < m.n_segment if isinstance(m, models.BigSmall) else isinstance(m, models.Big) for m in networks
        )
        small = [m.small_size for m in networks if isinstance(m, (models.BigSmall, models.Small))]
        big = [m.big_size for m in networks if isinstance(m, (models.BigSmall, models.Big))]
        self.small_size: int = self._common("small_size", small or [big[0] // 16])
        self.big_size: int = self._common("big_size", big or [16 * small[0]])
        self.action_units = next((card.action_units for _, card, tasks in self._parts if "au" in tasks), ())

    @staticmethod
    def _common(name: str, values: Sequence[Any]) -> Any:
        if len(set(values)) > 1:
            raise ValueError(f"weights that are combined must agree on {name}, got {', '.join(map(str, values))}")
        return values[0]

    @torch.inference_mode()
    def __call__(self, big: Tensor, small: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """
        Args:
            big: (frames, 3, big_size, big_size), or without `all_big` one frame of every n_segment.
            small: (frames, 3, small_size, small_size).
        Returns:
            action-unit logits (frames, len(action_units)), derivatives of the BVP and of respiration (frames, 1);
            None for a task that the weights do not have.
        """
        outputs: dict[str, Tensor] = {}
        for model, _, tasks in self._parts:
            if isinstance(model, models.BigSmall):
                every = dict(zip(TASKS, model(big, small), strict=True))
                outputs |= {task: every[task] for task in tasks}
            elif isinstance(model, models.Big) and big.shape[0] != small.shape[0]:
                raise ValueError(f"big must hold all {small.shape[0]} frames of small, got {big.shape[0]}")
            else:
                outputs[tasks[0]] = model(big if isinstance(model, models.Big) else small)
        return outputs.get("au"), outputs.get("pulse"), outputs.get("respiration")


def names() -> list[str]:
    """The names that `load` takes, beside paths."""
    return list(_NAMED)


def load(spec: str | Path) -> Predictor:
    """The predictor that `--weights` names.

    Args:
        spec: a file (.safetensors, or .pth as the authors' code saves it, from a GPU or not), a name out of `names()`,
            or `au=FILE,pulse=FILE,respiration=FILE`, any of the three, where FILE may be a name too.
    Raises:
        ValueError: no such name or file, not weights, weights that do not fit their network or one another.
    """
    text = str(spec)
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not Path(text).exists() and all(separator for _, separator, _ in pairs):
        return Predictor([_load_for(task, file) for task, _, file in pairs])
    model, card = _load_one(text)
    if not card.tasks:
        raise ValueError(f"{text} could be for pulse or for respiration; name it, as in pulse={text}")
    return Predictor([(model, card, card.tasks)])


def _load_for(task: str, file: str) -> tuple[nn.Module, Card, tuple[str]]:
    if task not in TASKS:
        raise ValueError(f"weights are given for {', '.join(TASKS)}, got {task!r}")
    model, card = _load_one(file)
    if (card.tasks and task not in card.tasks) or (not card.tasks and task == "au"):
        raise ValueError(f"{file} is not for {task}; it is for {', '.join(card.tasks) or 'pulse or respiration'}")
    return model, card, (task,)


def _load_one(spec: str) -> tuple[nn.Module, Card]:
    path = _NAMED.get(spec, Path(spec).expanduser())
    if not path.is_file():
        raise ValueError(f"no weights at {spec!r}: expected a file or one of the names {', '.join(names())}")
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
    units = next((len(bias) for name, bias in state.items() if name in ("au_fc2.bias", "out_fc2.bias")), 0)
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
    return plain, _authors_card(hashlib.sha256(path.read_bytes()).hexdigest())


def save(path: str | Path, model: nn.Module, card: Card) -> None:
    """Write a network's weights and their card as safetensors; the file appears whole or not at all.

    Raises:
        ValueError: the network's weights do not fit the one that the card names.
    """
    path = Path(path)
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    expected = models.build(card.model, **card.options).state_dict()
    if {n: v.shape for n, v in state.items()} != {n: v.shape for n, v in expected.items()}:
        raise ValueError(f"the weights do not fit the network of the card, {card.model!r} with {dict(card.options)}")
    data = safetensors.torch.save(state, {"card": card.to_json()})
    with whole(path) as aside:
        aside.write_bytes(data)
