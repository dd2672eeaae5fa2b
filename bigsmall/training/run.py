"""A training run from its configuration to a weight file with its card."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import weights
from ..datasets import Clips, Prepared, open_prepared, prepare
from ..files import whole
from ..models import Network
from ..weights import Card
from .batches import Batches
from .config import Config, read
from .distributed import Group, connected
from .kept import Kept
from .loop import Losses, Metrics, Work, fit
from .losses import known, positive_weight
from .network import start

CHOOSES = ("share", "fold", "subjects")  # keys of an entry of `data` that are not the dataset's


def train(
    config: str | os.PathLike[str] | Mapping[str, Any],
    output: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    *,
    workers: int | None = None,
    metrics: Metrics | None = None,
) -> Path:
    """Prepare the data, train, and write `model.safetensors` with its card; a run is taken up where it was.

    Under torchrun all its processes train together: they share the folders, the first one writes.

    Args:
        config: a YAML file, the name of one that comes with the package ("default", "paper"), or a mapping; see
            `bigsmall.training.config.Config`.
        output: the run's folder: config.yaml, data/, checkpoint.pt, log.csv, validation.csv, angles.csv, tensorboard/,
            last.safetensors, best.safetensors, top/, model.safetensors. Where the last is there, nothing is done.
        overrides: `key=value` changes of the configuration.
        workers: processes that prepare data; None: one for each core.
        metrics: called with the network and the validation's recordings after their losses; what it returns is
            recorded with them, and one of its names can be `keep.metric`.

    Returns:
        the weight file, for `bigsmall.measure(..., weights=...)`.

    Raises:
        ValueError: a wrong configuration, a folder that holds a run with another one, data that do not fit, or losses
            that are not finite.
    """
    settings, folder, console = read(config, overrides), Path(output), Console(stderr=True)
    written, path = folder / "config.yaml", folder / "model.safetensors"
    if written.exists() and read(written) != settings:
        raise ValueError(f"output: {folder} holds a run with another configuration; take another folder")
    if path.exists():
        return path
    name = settings.card.name or ("model" if isinstance(config, Mapping) else Path(config).stem)
    with connected(settings.device) as group:
        if group.first:
            folder.mkdir(parents=True, exist_ok=True)
            with whole(written) as aside:
                aside.write_text(OmegaConf.to_yaml(OmegaConf.create(settings.as_dict())), encoding="utf-8")
        model = start(settings, console.print if group.first else lambda text: None)
        work, card = _work(settings, model, folder, group, workers, name, metrics)
        kept = Kept(settings.keep, card, folder)
        columns = (BarColumn(10), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
        with Progress(*columns, console=console) if group.first else nullcontext() as progress:
            bar = progress.add_task("training", total=work.batches.steps, now="") if progress else None

            def told(step: int, parts: Losses) -> None:
                if progress and bar is not None:
                    speed = progress.tasks[bar].speed
                    now = " ".join(f"{task} {value:.2f}" for task, value in parts.items())
                    progress.update(bar, completed=step, now=f"{now} {speed or 0:.1f} steps/s")

            fit(settings, work, folder, group, kept, told)
        if group.first:
            kept.end(model, work.batches.steps)
        group.tell(None)  # nobody returns before the file is there
    return path


def _work(
    config: Config, model: Network, folder: Path, group: Group, workers: int | None, name: str, metrics: Metrics | None
) -> tuple[Work, Card]:
    """What the configuration's data come to for the network, and the card of what will be learnt from them."""
    tasks = tuple(task for task in model.tasks if config.tasks is None or task in config.tasks)
    learns = (*tasks, *(model.also if "au" in tasks else ()))
    n = config.frames or model.n_segment
    if n % model.n_segment:
        raise ValueError(f"frames was {n}, expected a multiple of the network's n_segment, {model.n_segment}")

    def clips(data: Mapping[str, Mapping[str, Any]]) -> tuple[Clips, list[tuple[str, int, float | None]]]:
        found = {entry: _recordings(spec, folder / "data" / entry, group, workers) for entry, spec in data.items()}
        every = [recording for some in found.values() for recording in some]
        entries = [(entry, len(some), data[entry].get("share")) for entry, some in found.items()]
        return Clips(every, n, model.reads, learns, model.big_every), entries

    learnt, entries = clips(config.data)
    if untold := [task for task in tasks if not _told(task, learnt)]:
        raise ValueError(f"data: nothing in it tells of {', '.join(untold)}; name the other tasks, as in tasks=[pulse]")
    if lacking := [target for target in learns[len(tasks) :] if not _told(target, learnt)]:
        raise ValueError(
            f"data: {config.model.name} learns action units with {', '.join(lacking)}, of which nothing in it tells; "
            "BP4D+ prepared with aligned: landmarks does, and DISFA in JAANet's layout with its _land.txt lists"
        )
    units = model.action_units or learnt.action_units
    if "au" in tasks and units != learnt.action_units:
        raise ValueError(
            f"model.options.action_units was {', '.join(units)}, and the data tell of {', '.join(learnt.action_units)}"
        )
    batches = Batches(config, learnt, entries)
    validation = clips(config.validation.data)[0] if config.validation.data else None
    work = Work(model, learns, batches, positive_weight(config.pos_weight, learnt), validation, metrics)
    people = {(r.dataset, r.subject) for r in learnt.recordings}
    counts = ", ".join(f"{count} recordings of {entry}" for entry, count, _ in entries)
    card = Card(
        name=name,
        model=config.model.name,
        options=config.model.options,
        tasks=tasks,
        convention=_common("convention", learnt.recordings),
        crop=_common("crop", learnt.recordings),
        action_units=learnt.action_units or weights.ACTION_UNITS,
        licence=config.card.licence,
        source=config.card.source or f"trained with this project on {counts}: {len(people)} people",
        note=config.card.note,
        details={"training": config.as_dict()},
    )
    return work, card


def _told(task: str, clips: Clips) -> bool:
    """Whether any clip's target is known: a file may hold one that nowhere is."""
    for number in np.unique(clips.recording):
        starts = clips.start[clips.recording == number]
        if known(clips.recordings[number].targets((task,), starts, clips.n))[task]:
            return True
    return False


def _recordings(spec: Mapping[str, Any], folder: Path, group: Group, workers: int | None) -> list[Prepared]:
    """Of an entry of the configuration's data, prepared by the first process if it is not yet."""
    of = {key: value for key, value in spec.items() if key not in CHOOSES}
    if "prepared" in of:
        if len(of) > 1:
            raise ValueError(f"data: {', '.join(set(of) - {'prepared'})} beside prepared, which is made already")
        folder = Path(of["prepared"])
    else:
        if group.first:
            prepare(of, folder, workers=workers)
        group.tell(None)
    return open_prepared(folder, subjects=spec.get("subjects"), fold=spec.get("fold"))


def _common(name: str, recordings: Sequence[Prepared]) -> str:
    values = sorted({recording.meta[name] for recording in recordings})
    if len(values) > 1:
        raise ValueError(f"data: the recordings' {name} must be the same, got {' and '.join(values)}")
    return str(values[0])
