"""Networks in inference: what `--weights` names, behind one call."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..models import TASKS, Network, answer
from .card import Card
from .download import cached
from .files import load_network
from .released import RELEASED

_OURS = {"default": Path(__file__).parents[1] / "data" / "default.safetensors"}


class _Part(NamedTuple):
    model: Network
    card: Card
    tasks: tuple[str, ...]


class Predictor:
    """One or more networks in inference behind BigSmall's call: `(big, small) -> (au, bvp, respiration)`.

    Attributes:
        cards: of the files it was loaded from.
        tasks: those that it answers; the other outputs are None.
        reads: the names of its inputs, as `models.Network` has them.
        convention, crop: how its inputs are made.
        n_segment, all_big, big_size, small_size: of its inputs, as `bigsmall_kernels.bigsmall_inputs` takes them.
        big_every: it reads one Big frame of so many, the first one.
        action_units: names of the columns of the first output.
    """

    def __init__(self, parts: Sequence[tuple[Network, Card, Sequence[str]]]) -> None:
        self._parts = [_Part(model.eval(), card, tuple(tasks)) for model, card, tasks in parts]
        self.cards = tuple(card for _, card, _ in self._parts)
        answered = [task for part in self._parts for task in part.tasks]
        if len(set(answered)) < len(answered):
            raise ValueError(f"every task comes from one network, got {', '.join(answered)}")
        self.tasks = tuple(task for task in TASKS if task in answered)
        self.convention: str = self._common("convention", [card.convention for card in self.cards])
        self.crop: str = self._common("crop", [card.crop for card in self.cards])
        networks = [part.model for part in self._parts]
        self.reads = tuple(dict.fromkeys(name for model in networks for name in model.reads))
        # networks that mix no frames take clips of any length: the single-task ones' are 3 long (FACTS 2.1)
        self.n_segment: int = self._common("n_segment", [m.n_segment for m in networks if m.n_segment > 1] or [3])
        self.big_every = min((m.big_every for m in networks if "big" in m.reads), default=self.n_segment)
        self.all_big = self.big_every < self.n_segment
        small: list[Any] = [m.small_size for m in networks if "small" in m.reads]
        big: list[Any] = [m.big_size for m in networks if "big" in m.reads]
        self.small_size: int = self._common("small_size", small or [size // 16 for size in big] or [9])
        self.big_size: int = self._common("big_size", big or [16 * self.small_size])
        self.action_units = next((card.action_units for _, card, tasks in self._parts if "au" in tasks), ())

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those behind it."""
        return tuple(part.model for part in self._parts)

    @staticmethod
    def _common(name: str, values: Sequence[Any]) -> Any:
        if len(set(values)) > 1:
            raise ValueError(f"weights that are combined must agree on {name}, got {', '.join(map(str, values))}")
        return values[0]

    def checksum(self) -> str:
        """SHA-256, hexadecimal, of what it computes: the weights and what is made of them, and no word of the cards."""
        digest = hashlib.sha256()
        for model, card, tasks in self._parts:
            made = (card.model, sorted(card.options.items()), tasks, card.convention, card.crop, card.action_units)
            digest.update(repr(made).encode())
            for name, value in sorted(model.state_dict().items()):
                digest.update(name.encode() + value.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    @torch.inference_mode()
    def answer(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by task, (frames, units) for "au" and (frames, 1) for the others, from the inputs it `reads`.

        Raises:
            ValueError: an input is missing.
        """
        outputs: dict[str, Tensor] = {}
        for model, _, tasks in self._parts:
            every = answer(model, inputs)
            # a network with one output is for what its card says
            outputs |= {task: every[task] for task in tasks} if len(every) > 1 else {tasks[0]: every[model.tasks[0]]}
        return outputs

    def __call__(self, big: Tensor, small: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """
        Args:
            big: (frames, 3, big_size, big_size), or without `all_big` one frame of every n_segment.
            small: (frames, 3, small_size, small_size).
        Returns:
            action-unit logits (frames, len(action_units)), derivatives of the BVP and of respiration (frames, 1);
            None for a task that the weights do not have.
        """
        if "big" in self.reads and big.shape[0] < small.shape[0] // self.big_every:
            expected = f"{small.shape[0]} frames of small, or one of every {self.big_every}"
            raise ValueError(f"big must hold the {expected}, got {big.shape[0]}")
        outputs = self.answer({"big": big, "small": small})
        return outputs.get("au"), outputs.get("pulse"), outputs.get("respiration")


def names() -> list[str]:
    """The names that `load` takes, beside paths."""
    return [*_OURS, *RELEASED]


def load(spec: str | Path) -> Predictor:
    """The predictor that `--weights` names.

    Args:
        spec: a file (.safetensors, or .pth as the authors' code saves it, from a GPU or not), a name out of `names()`,
            or `au=FILE,pulse=FILE,respiration=FILE`, any of the three, where FILE may be a name too. The authors' names
            need `download` first.
    Raises:
        ValueError: no such name or file, not weights, weights that do not fit their network or one another.
    """
    text = str(spec)
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not Path(text).exists() and all(separator for _, separator, _ in pairs):
        return Predictor([_load_for(task, file) for task, _, file in pairs])
    model, card = load_network(find(text))
    if not card.tasks:
        raise ValueError(f"{text} could be for pulse or for respiration; name it, as in pulse={text}")
    return Predictor([(model, card, card.tasks)])


def _load_for(task: str, file: str) -> tuple[Network, Card, tuple[str]]:
    if task not in TASKS:
        raise ValueError(f"weights are given for {', '.join(TASKS)}, got {task!r}")
    model, card = load_network(find(file))
    if (card.tasks and task not in card.tasks) or (not card.tasks and task == "au"):
        raise ValueError(f"{file} is not for {task}; it is for {', '.join(card.tasks) or 'pulse or respiration'}")
    return model, card if card.tasks else replace(card, tasks=(task,)), (task,)


def find(spec: str) -> Path:
    """The file of a name out of `names()`, or of a path.

    Raises:
        ValueError: there is none.
    """
    if spec in RELEASED:
        return cached(spec)
    path = _OURS.get(spec, Path(spec).expanduser())
    if not path.is_file():
        raise ValueError(f"no weights at {spec!r}: expected a file or one of the names {', '.join(names())}")
    return path
