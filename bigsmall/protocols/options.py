"""What a protocol can be told, as `key=value`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..evaluation.postprocess import named

SIMULATED = ("learn", "test", "harder")  # datasets of simulated.yaml


@dataclass(frozen=True)
class Options:
    """Everything that can be said; what a protocol does not need it leaves alone.

    Attributes:
        data: what is learnt, `{prepared: FOLDER}` or a specification for `bigsmall.datasets.prepare`; None: simulated
            people, as simulated.yaml says.
        rates: where rates are tested, where that is more than `data`; of BP4D+ by default all of its trials.
        tests: {NAME: like `data`}: other datasets, to be tested on only.
        aligned: like `data`: the same people with their faces aligned.
        folds: how many, subject-exclusive, or a list of text files with the subjects that each is tested on.
        seeds: of the training runs; tables give mean and standard deviation over them.
        rows: only these.
        segments: the N of Fig. 5.
        convention: of the evaluation; with `data` or `tests` by default "bigsmall", as the paper's numbers are made.
        recipe: a training configuration; None: "paper", and simulated.yaml's where `data` is None.
        train: changes of the recipe. finetune: changes of it for the second training.
        pretrained: {ROW: a run or weight file} that the second training starts from, in place of a first one; for
            Fig. 6 the network that is looked at.
        simulator: changes of simulated.yaml: `simulator.learn.count=60`.
        workers: processes that prepare data; None: one for each core.
    """

    data: dict[str, Any] | None = None
    rates: dict[str, Any] | None = None
    tests: dict[str, Any] = field(default_factory=dict)
    aligned: dict[str, Any] | None = None
    folds: Any = 3
    seeds: list[int] = field(default_factory=lambda: [0, 1, 2])
    rows: list[str] | None = None
    segments: list[int] = field(default_factory=lambda: [3, 6, 10])
    convention: str = "ours"
    recipe: str | None = None
    train: dict[str, Any] = field(default_factory=dict)
    finetune: dict[str, Any] = field(default_factory=dict)
    pretrained: dict[str, str] = field(default_factory=dict)
    simulator: dict[str, Any] = field(default_factory=dict)
    workers: int | None = None

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds was {self.seeds}, expected one or more, each once")
        named(self.convention)


def read(overrides: Sequence[str]) -> Options:
    """The options from `key=value` changes of the defaults. Paths of data are made absolute.

    Raises:
        ValueError: an unknown key, or a value of a wrong kind.
    """
    try:
        changes = OmegaConf.from_dotlist(list(overrides))
        real = {"convention": "bigsmall"} if changes.get("data") or changes.get("tests") else {}
        options = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Options), real, changes))
    except OmegaConfBaseException as error:
        known = ", ".join(of.name for of in fields(Options))
        raise ValueError(
            f"{error.full_key or 'an option'} is wrong: {str(error.msg).splitlines()[0]}; options are {known}"
        ) from error
    assert isinstance(options, Options)
    return replace(
        options,
        data=_absolute(options.data),
        rates=_absolute(options.rates),
        aligned=_absolute(options.aligned),
        tests={name: _absolute(spec) for name, spec in options.tests.items()},
        pretrained={row: _found(source) for row, source in options.pretrained.items()},
    )


def _absolute(spec: Any) -> Any:
    """A specification that means the same from another working directory."""
    if not isinstance(spec, dict):
        return spec
    return {key: str(Path(value).resolve()) if key in ("prepared", "root") else value for key, value in spec.items()}


def _found(source: str) -> str:
    """A path, or a name of weights as it is."""
    return str(Path(source).resolve()) if Path(source).exists() else source


def simulated(changes: Mapping[str, Any]) -> dict[str, Any]:
    """simulated.yaml with changes: specifications of datasets, and recipes."""
    loaded = OmegaConf.load(Path(__file__).with_name("simulated.yaml"))
    if unknown := set(changes) - set(SIMULATED):
        raise ValueError(f"simulator has no {', '.join(sorted(unknown))}, expected {', '.join(SIMULATED)}")
    merged = OmegaConf.to_container(OmegaConf.merge(loaded, dict(changes)))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}
