"""What protocols share: data, training runs and predictions, each in a folder of its own and done once."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from omegaconf import OmegaConf
from rich.console import Console

from .. import models
from ..datasets import Prepared, open_prepared, prepare
from ..datasets.prepared import TARGETS
from ..evaluation import Prediction, evaluate, score
from ..models import TASKS, Network
from ..training import config as recipes
from ..training import train
from ..training.network import separate
from ..weights import ACTION_UNITS, load
from .options import Options, simulated
from .paper import BREATH, HEART, UNITS, Numbers
from .specs import all_trials, coded, needs, tested_on

SCORES = ("mae", "rmse", "mape", "pearson")  # of a rate, in the order of the tables' columns
QUALITY = ("HR SNR", "HR MACC", "BR SNR", "BR MACC")  # dB, and correlation of the waves: not in the paper's tables
SIGNALS = tuple(task for task in TASKS if task != "au")
CLIP = 3  # frames of the paper's clips
Spec = dict[str, Any]
Summary = dict[str, dict[str, Any]]


class Split(NamedTuple):
    """What one training learns, as an entry of its `data`, and what it is tested on; `test` names that, if need be."""

    name: str
    learn: Spec
    units: list[Prepared]
    rates: list[Prepared]
    test: str = ""


class Row(NamedTuple):
    """A row of a table: its name, as in `paper`, and its networks {name, options}; more than one: a task each."""

    name: str
    networks: tuple[Spec, ...]


def network(name: str, **options: Any) -> Spec:
    """A network as a training configuration names it."""
    return {"name": name, "options": options}


class Study:
    """One protocol in its folder: data/, runs/ and what it writes about them.

    Attributes:
        folder, options: as given.
        notes: sentences for the report, as they come up.
        seen: how many frames of a step each network learnt from, likewise.
        pictures: whether data are prepared for POS and CHROM, which need a picture of every frame.
    """

    def __init__(self, folder: Path, options: Options) -> None:
        self.folder, self.options = folder, options
        self.notes: dict[str, None] = {}
        self.seen: dict[str, None] = {}
        self.pictures = False
        self.simulated = simulated(options.simulator)
        self._console = Console(stderr=True)

    def tell(self, text: str) -> None:
        """A line for who waits."""
        self._console.print(text, style="dim", markup=False)

    # --- data ---------------------------------------------------------------------------------------------------------

    def prepared(self, name: str, spec: Spec, networks: Iterable[Spec]) -> Path:
        """The folder of a dataset with everything that the networks read, prepared if it is not."""
        if "prepared" in spec:
            return Path(spec["prepared"])
        folder = self.folder / "data" / name
        prepare({**needs(map(built, networks), self.pictures), **spec}, folder, workers=self.options.workers)
        return folder

    def splits(self, networks: Sequence[Spec]) -> list[Split]:
        """Folds of `data`; of simulated people one, tested on other people."""
        of = self.options
        if of.data is None:
            learn = self.prepared("learn", self.simulated["learn"], networks)
            test = open_prepared(self.prepared("test", self.simulated["test"], networks))
            return [Split("", {"prepared": str(learn)}, test, test)]
        return self.folded("", of.data, of.rates, networks)

    def folded(self, name: str, data: Spec, rates: Spec | None, networks: Sequence[Spec]) -> list[Split]:
        """Subject-exclusive folds of a dataset; where rates are tested on another one, nobody is in both parts."""
        data, rates = coded(data), rates or all_trials(coded(data))
        learn = self.prepared(name + "data", data, networks)
        more = learn if rates == data else self.prepared(name + "rates", rates, networks)
        here, there = ({r.subject for r in open_prepared(folder)} for folder in (learn, more))
        made = []
        for index, tested in enumerate(tested_on(self.options.folds, here | there)):
            entry = {"prepared": str(learn), "subjects": sorted(here - tested)}
            units = open_prepared(learn, subjects=sorted(here & tested))
            test = units if more == learn else open_prepared(more, subjects=sorted(there & tested))
            made.append(Split(f"{name}fold{index}", entry, units, test))
        return made

    def learnt(self, networks: Sequence[Spec]) -> Spec:
        """All of `data`, to be learnt."""
        of = self.options
        return {"prepared": str(self.whole("learn", None if of.data is None else coded(of.data), networks))}

    def whole(self, name: str, spec: Spec | None, networks: Sequence[Spec]) -> Path:
        """The folder of a dataset, all of it; None: simulated people, of the part that is so called."""
        return self.prepared(name, self.simulated[name] if spec is None else spec, networks)

    # --- networks -----------------------------------------------------------------------------------------------------

    def recipe(self, second: bool = False) -> Spec:
        """How networks are trained, without model, data and seed; `second`: where they are fine-tuned."""
        of = self.options
        if of.recipe is None and of.data is None:
            base = OmegaConf.create(self.simulated["training"])
            changes = [of.train, *([self.simulated["finetune"], of.finetune] if second else [])]
        else:
            loaded = OmegaConf.load(_recipe(of.recipe or "paper"))
            base = OmegaConf.create({key: value for key, value in loaded.items() if key != "data"})
            changes = [of.train, *([of.finetune] if second else [])]
        made = OmegaConf.to_container(OmegaConf.merge(base, *changes))
        assert isinstance(made, dict)
        return {str(key): value for key, value in made.items()}

    def told(self, of: Spec, learn: Spec, wanted: Sequence[str] | None = None) -> list[str]:
        """Those of the network's tasks, or of the `wanted` ones, that the data tell of; noted where there is none."""
        asked, recordings = wanted or built(of).tasks, _recordings(learn)
        tasks = [task for task in asked if any(TARGETS[task] in r.arrays for r in recordings)]
        if not tasks:
            what = " or ".join(asked)
            self.notes[f"{of['name']} is left out where the data that it would learn tell nothing of {what}."] = None
        return tasks

    def train(
        self,
        run: str,
        of: Spec,
        learn: Spec,
        seed: int,
        *,
        second: bool = False,
        tasks: Sequence[str] | None = None,
        **changes: Any,
    ) -> Path:
        """Train a network, unless its run is done; the weight file.

        Tasks that nothing is known of are left out; the action units are those of the data.
        """
        recordings = _recordings(learn)
        units = next((r.action_units for r in recordings if r.action_units), ())
        model, recipe = built(of), self.recipe(second)
        self._as_many_frames(of["name"], model, recipe, recordings)
        if "au" in model.tasks and units and units != ACTION_UNITS:
            of = _with_units(of, units)
            recipe["pos_weight"] = "auto"  # the paper's are of its own units
        config = {
            **recipe, "seed": seed, "model": of, "data": {"learn": learn}, "tasks": self.told(of, learn, tasks),
            **changes,
        }  # fmt: skip
        self.tell(f"training {run}")
        return train(config, self.folder / "runs" / run)

    def _as_many_frames(self, name: str, model: Network, recipe: Spec, recordings: Sequence[Prepared]) -> None:
        """Change a recipe for clips of three frames, so that a step of any network learns from as many.

        Single frames come in clips too, unless they have pictures too seldom. The further clips of Small are clips of
        their own for a network that cannot have them beside one Big frame; they tell nothing of action units.
        """
        usual, clips, n = recipe.pop("frames", None) or CLIP, recipe.pop("clips", 1), model.n_segment
        if usual % n == 0 and any(len(r.starts(usual, model.reads, model.big_every)) for r in recordings):
            n = usual
        if separate(model):
            recipe["clips"] = clips
        elif model.tasks != ("au",):
            recipe["batch"] *= clips
        recipe["batch"] = max(1, round(recipe["batch"] * usual / n))
        if n != model.n_segment:
            recipe["frames"] = n
        big = recipe["batch"] * n // model.big_every
        shown = f" ({big} of Big)" if "big" in model.reads else ""
        self.seen[f"{name} {recipe['batch'] * n * recipe.get('clips', 1)}{shown}"] = None

    def test(self, run: str, weights: Path, recordings: Sequence[Prepared], tasks: Sequence[str]) -> list[Path]:
        """Run trained weights over recordings, with a report of its own; the files of their predictions."""
        folder = self.folder / "runs" / run
        self.tell(f"testing {run}")
        evaluate(weights, recordings, tasks=tasks, convention=self.options.convention, output=folder)
        return [folder / "predictions" / r.dataset / f"{r.name}.safetensors" for r in recordings]

    def scores(self, predictions: Iterable[Prediction], tasks: Sequence[str]) -> Summary:
        """`Evaluation.summary` of these tasks."""
        return score(predictions, tasks=tasks, convention=self.options.convention).summary

    def measured(
        self, row: Row, splits: Sequence[Split], seed: int, starts: Mapping[str, str] | None = None, **changes: Any
    ) -> Summary:
        """Train a row's networks on every split, as `train` does, and score all that they were tested on together.

        A network of whose tasks the data tell nothing is left out. `starts`: what to start from, by the split's name.
        """
        found: Summary = {}
        for of in row.networks:
            if not all(self.told(of, split.learn, changes.get("tasks")) for split in splits):
                continue
            files: dict[tuple[str, ...], list[Path]] = {}
            for split in splits:
                run = run_name(row, of, split, seed)
                start = starts[split.name] if starts else None
                weights = self.train(run, of, split.learn, seed, **{"init_from": start, **changes})
                parts: dict[str, tuple[tuple[str, ...], list[Prepared]]] = {"": (TASKS, split.rates)}
                if split.units is not split.rates:
                    parts = {"units": (("au",), split.units), "rates": (SIGNALS, split.rates)}
                for part, (asked, recordings) in parts.items():
                    if tasks := [task for task in load(weights).tasks if task in asked]:
                        where = "/".join(filter(None, (run, split.test, part)))
                        files.setdefault(asked, []).extend(self.test(where, weights, recordings, tasks))
            for asked, paths in files.items():
                found |= self.scores(map(Prediction.load, paths), asked)
        self.note_videos(f"{row.name}, seed {seed}", found, sum(len(split.rates) for split in splits))
        return found

    def note_videos(self, who: str, summary: Summary, videos: int, heart: str = "heart_rate") -> None:
        """Where rates are of fewer than all `videos`, or against the data's own, their tables say so."""
        for name, quantity in (("heart rates", heart), ("respiration rates", "respiration_rate")):
            if quantity not in summary:
                continue
            what, (n, by_column) = f"{who}: {name}", _compared(summary, quantity)
            if by_column:
                self.notes[f"{what} against the rates that the data give; they hold no wave."] = None
            if n < videos:
                self.notes[f"{what} of {n} of {videos} videos; the others yield or have none to compare with."] = None


def run_name(row: Row, of: Spec, split: Split, seed: int) -> str:
    """The folder of a training run."""
    name = "-".join((row.name, *([of["options"]["task"]] if len(row.networks) > 1 else [])))
    return "/".join(filter(None, (re.sub(r"[^\w+]+", "-", name), split.name, f"seed{seed}")))


def built(of: Spec) -> Network:
    """A network without its weights' memory, for what it says of itself."""
    with torch.device("meta"):
        return models.build(of["name"], **of["options"])


def _with_units(of: Spec, units: Sequence[str]) -> Spec:
    """The network with outputs for these action units: some are told their names, others how many they are."""
    named = {**of, "options": {**of["options"], "action_units": list(units)}}
    try:
        built(named)
    except TypeError:
        return {**of, "options": {**of["options"], "out_size": len(units)}}
    return named


def _compared(summary: Summary, quantity: str) -> tuple[int, bool]:
    """How many rates were compared, and whether with a dataset's own: it may give rates and no wave."""
    column = summary.get(f"{quantity}_column", {"n": 0})
    by_column = not summary[quantity]["n"] and column["n"] > 0
    return (column if by_column else summary[quantity])["n"], by_column


def numbers(summary: Summary, heart: str = "heart_rate") -> Numbers:
    """The columns of the tables from the summary of an `Evaluation`; `heart`: "heart_rate", "pos" or "chrom"."""
    found: Numbers = {}
    for short, columns, quantity in (("HR", HEART, heart), ("BR", BREATH, "respiration_rate")):
        if quantity not in summary:
            continue
        errors = summary[quantity]
        of = summary[f"{quantity}_column"] if _compared(summary, quantity)[1] else errors
        found |= {column: of[name].value for column, name in zip(columns, SCORES, strict=True)}
        found |= {f"{short} {name.upper()}": errors[name].value for name in ("snr", "macc")}
    if mean := summary.get("au", {}).get("mean"):
        values = (mean["f1"], mean["accuracy"])
        found |= {name: 100 * value for name, value in zip(UNITS, values, strict=True) if value is not None}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _recipe(name: str) -> Path:
    return Path(recipes.__file__).with_name(f"{name}.yaml") if name in recipes.names() else Path(name)


def _recordings(learn: Spec) -> list[Prepared]:
    return open_prepared(learn["prepared"], subjects=learn.get("subjects"))
