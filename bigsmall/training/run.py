"""A training run from its configuration to a weight file with its card."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .. import weights
from . import heldout, loop, videos

NOTE = (
    "Trained on simulated faces only. Its action units were learnt on rendered faces and are not validated on real "
    "ones. Not a medical device."
)


def configuration(config: str | os.PathLike[str], overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Read a YAML file, or `default`, with `key=value` changes.

    Raises:
        ValueError: no such file, or a change to a key that the configuration does not have.
    """
    path = Path(__file__).with_name("default.yaml") if config == "default" else Path(config)
    if not path.is_file():
        raise ValueError(f"config: no file {str(path)!r}; expected a YAML file, or 'default'")
    loaded, changes = OmegaConf.load(path), OmegaConf.from_dotlist(list(overrides))
    if unknown := [str(key) for key in changes if key not in loaded]:
        known = ", ".join(map(str, loaded))
        raise ValueError(f"the configuration has no key {', '.join(unknown)}; its keys are {known}")
    merged = OmegaConf.to_container(OmegaConf.merge(loaded, changes))
    assert isinstance(merged, dict)
    return {str(key): value for key, value in merged.items()}


def train(
    config: str | os.PathLike[str], output: str | os.PathLike[str], overrides: Sequence[str] = (), *, workers: int = 2
) -> Path:
    """Simulate, train, measure held-out videos and write `model.safetensors`; begun runs are taken up where they were.

    Args:
        config: a YAML file such as bigsmall/training/default.yaml, or "default" for that one.
        output: the run's folder: clips/, videos/, checkpoint.pt, log.csv, config.yaml, model.safetensors.
        overrides: `key=value` changes of the configuration.
        workers: processes that simulate.

    Returns:
        the weight file, for `bigsmall.measure(..., weights=...)`; float16, with its card.

    Raises:
        ValueError: a wrong configuration, or a folder that holds a run with another one.
    """
    settings, folder, console = configuration(config, overrides), Path(output), Console(stderr=True)
    folder.mkdir(parents=True, exist_ok=True)
    written, text = folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(settings))
    if written.exists() and written.read_text(encoding="utf-8") != text:
        raise ValueError(f"output: {folder} holds a run with another configuration; take another folder")
    written.write_text(text, encoding="utf-8")

    columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*Progress.get_default_columns()[:2], *columns, console=console) as progress:
        bar = progress.add_task("simulating", now="")
        for done, of in videos.prepare(settings, folder, workers):
            progress.update(bar, completed=done, total=of)
        bar = progress.add_task("training", total=settings["steps"], now="")

        def told(step: int, parts: loop.Losses) -> None:
            progress.update(bar, completed=step, now=" ".join(f"{name} {value:.3f}" for name, value in parts.items()))

        model = loop.fit(videos.load(settings, folder), settings, folder, told)

    card = weights.Card(
        name=Path(config).stem,
        model=settings["model"],
        options=settings["options"],
        tasks=weights.TASKS,
        convention="exact",
        crop="face",
        licence="MIT",
        source=f"this project's own training on {settings['videos']} simulated videos of {settings['seconds']} s and "
        f"{settings['clips']} simulated clips",
        note=NOTE,
        details={"training": {name: value for name, value in settings.items() if name != "test"}},
    )
    # Half precision on disk; what is measured is what was written.
    half = {name: value.half() for name, value in model.state_dict().items()}
    model.load_state_dict({name: value.float() for name, value in half.items()})
    console.print("measuring the held-out videos")
    with torch.inference_mode():
        results = heldout.evaluate(weights.Predictor([(model, card, card.tasks)]), settings["test"], console.print)
    path = folder / "model.safetensors"
    weights.save(path, model.half(), replace(card, details={**card.details, "held_out": results}))
    return path
