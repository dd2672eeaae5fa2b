"""What a weight file is: the card that travels with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..models import TASKS

ACTION_UNITS = tuple(f"AU{number:02d}" for number in (1, 2, 4, 6, 7, 10, 12, 14, 15, 17, 23, 24))  # FACTS 4
OUTPUTS = {
    "au": "logits of the action units, one for each frame",
    "pulse": "derivative of the blood volume pulse, in its standard deviations",
    "respiration": "derivative of the respiration wave, in its standard deviations",
}


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
