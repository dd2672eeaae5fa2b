"""What a training run is made of, as its YAML file says it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from .. import models

CHOICES = {
    "init": ("torch", "kaiming"),
    "optimizer": ("adamw", "sgd"),
    "schedule": ("constant", "onecycle"),
    "device": ("auto", "cpu", "cuda"),
}
EPOCHS = 5  # where neither these nor steps are given
AT_LEAST_ONE = ("batch", "clips", "accumulate", "checkpoint_every")
NOT_NEGATIVE = ("learning_rate", "weight_decay", "momentum", "clip_norm", "angles_every")


@dataclass(frozen=True)
class Model:
    """The network, as `bigsmall.models.build` takes it."""

    name: str = "bigsmall"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Validation:
    """Recordings that are not learnt from: entries as in `data`; every so many steps, or at the end of every epoch."""

    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    every: int | None = None


@dataclass(frozen=True)
class Keep:
    """Which weights are kept beside the last: the `top` best of a validation metric, and which ones the run ends in.

    Attributes:
        metric: "loss", a task's own loss, or what the metrics function calls it.
        largest: whether more is better. final: "last" or "best". half: end in a float16 file.
    """

    metric: str = "loss"
    largest: bool = False
    top: int = 1
    final: str = "last"
    half: bool = False


@dataclass(frozen=True)
class CardText:
    """What the weight file's card says that the run cannot know."""

    name: str | None = None
    licence: str = "unknown"
    source: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Config:
    """A run. The defaults are the paper's recipe (FACTS 5), with the data left to be named.

    Attributes:
        seed: of the weights, the batches and the dropout.
        model: {name, options}. init: torch's start, or "kaiming" for the convolutions.
        init_from: a run's folder or a weight file to start from; freeze: parameters (patterns) that keep their values.
        tasks: those that are learnt, at least one; None: all that the network answers.
        data: {NAME: entry}; an entry is {prepared: FOLDER} or a specification for `bigsmall.datasets.prepare`, with
            optionally subjects, fold, and share: its part of each batch, relative to the others' (with `steps`).
        batch: clips of a step, on all processes together. frames: of a clip; None: the network's n_segment.
        epochs | steps: passes over all clips, or steps of clips drawn with replacement; neither: 5 epochs.
        clips: of Small frames for each clip, the others beginning anywhere in its stretch; more than one needs a
            network of Big and Small, whose Big then is computed once for all of them.
        mirror: left to right, half of the clips.
        optimizer, learning_rate, weight_decay, momentum (of sgd, Nesterov's).
        schedule: constant, or onecycle: of S steps the one numbered s from 0 has, with p = (s + 1) / S and w = warm_up,
            the rate p / w below w, then (1 + cos(pi (p - w) / (1 - w))) / 2, which ends at zero; with S = 1 the whole
            rate. torch's OneCycleLR, which the authors' code offers (FACTS 5), is another as it comes: it rises over
            30 % of the steps, by a cosine from 1 / 25 of the rate, ends at 1 / 250,000 of it, and moves the momentum
            (Adam's beta1) from 0.95 to 0.85 and back.
        accumulate: parts that each process's share of a batch is computed in. clip_norm: of the gradient.
        pcgrad: project conflicting gradients of tasks. angles_every: write the angles between them every so many steps.
        pos_weight: of the AUs, {negatives / positives: "auto", its square root: "root"}, a list, or None.
        checkpoint_every: steps.
    """

    seed: int = 100
    model: Model = field(default_factory=Model)
    init: str = "torch"
    init_from: str | None = None
    freeze: list[str] = field(default_factory=list)
    tasks: list[str] | None = None
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    validation: Validation = field(default_factory=Validation)
    batch: int = 180
    frames: int | None = None
    epochs: int | None = None
    steps: int | None = None
    clips: int = 1
    mirror: bool = False
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "constant"
    warm_up: float = 0.1
    accumulate: int = 1
    clip_norm: float | None = None
    bfloat16: bool = False
    compile: bool = False
    device: str = "auto"
    dropout: bool = True
    pcgrad: bool = False
    angles_every: int = 0
    pos_weight: Any = "auto"
    keep: Keep = field(default_factory=Keep)
    checkpoint_every: int = 100
    tensorboard: bool = False
    card: CardText = field(default_factory=CardText)

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} was {getattr(self, name)!r}, expected one of {', '.join(choices)}")
        for names, least in ((AT_LEAST_ONE, 1), (NOT_NEGATIVE, 0)):
            for name in names:
                if (value := getattr(self, name)) is not None and value < least:
                    raise ValueError(f"{name} was {value}, expected at least {least}")
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", EPOCHS)
        elif self.epochs is not None and self.steps is not None:
            raise ValueError(f"epochs was {self.epochs} and steps {self.steps}, expected one of them")
        for name in ("epochs", "steps"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} was {value}, expected at least 1")
        if not 0 <= self.warm_up < 1:
            raise ValueError(f"warm_up was {self.warm_up}, expected a share of the steps, 0 or more and below 1")
        if self.tasks is not None and not self.tasks:
            raise ValueError("tasks was [], expected some that the network answers, or null: all of them")
        if not self.data:
            raise ValueError("data names nothing to learn from; expected {NAME: {prepared: FOLDER}} or a dataset")
        if self.validation.every is not None and self.validation.every < 1:
            raise ValueError(f"validation.every was {self.validation.every}, expected at least 1")
        if self.validation.data and self.validation.every is None and self.epochs is None:
            raise ValueError("validation.every must be given where the run is counted in steps")
        if self.keep.final not in ("last", "best"):
            raise ValueError(f"keep.final was {self.keep.final!r}, expected last or best")
        if self.keep.final == "best" and not (self.validation.data and self.keep.top):
            raise ValueError("keep.final is best: that needs validation.data, and keep.top of at least 1")
        weights = self.pos_weight
        if not (weights in (None, "auto", "root") or (isinstance(weights, list) and min(weights, default=0) > 0)):
            raise ValueError(f"pos_weight was {weights!r}, expected auto, root, null or a list of positive numbers")

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as YAML and a card hold them."""
        return asdict(self)


def names() -> list[str]:
    """The configurations that come with the package."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.yaml"))


def read(config: str | os.PathLike[str] | Mapping[str, Any], overrides: Sequence[str] = ()) -> Config:
    """A configuration from a YAML file, a name out of `names()` or a mapping, with `key=value` changes.

    Raises:
        ValueError: no such file, an unknown key, a value of a wrong kind or outside its range.
    """
    if isinstance(config, Mapping):
        loaded: Any = OmegaConf.create(dict(config))
    else:
        path = Path(config)
        if str(config) in names():
            path = Path(__file__).with_name(f"{config}.yaml")
        if not path.is_file():
            raise ValueError(f"config: no file {str(path)!r}; expected a YAML file, or one of {', '.join(names())}")
        loaded = OmegaConf.load(path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), loaded, OmegaConf.from_dotlist(list(overrides)))
        if missing := OmegaConf.missing_keys(merged):
            raise ValueError(f"the configuration leaves {', '.join(sorted(missing))} to be given, as in KEY=VALUE")
        found = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        of, what = cast(Any, error.object_type), str(error.msg).splitlines()[0]
        known = f"; there are {', '.join(f.name for f in fields(of))}" if isinstance(error, ConfigKeyError) else ""
        raise ValueError(f"the configuration is wrong at {error.full_key}: {what}{known}") from error
    assert isinstance(found, Config)
    if found.model.name not in models.names():
        raise ValueError(f"model.name was {found.model.name!r}, expected one of {', '.join(models.names())}")
    return found
