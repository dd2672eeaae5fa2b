"""A training run from its configuration to a weight file with its card."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file

from .. import models, weights
from ..evaluation import simulated
from . import loop, videos

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
    """Simulate, train, write `model.safetensors` and measure the held-out videos; a run is taken up where it was.

    What `output` holds is not done again: to measure the held-out videos anew, remove its held_out/.

    Args:
        config: a YAML file such as bigsmall/training/default.yaml, or "default" for that one.
        output: the run's folder: people/, videos/, checkpoint.pt, log.csv, config.yaml, model.safetensors, held_out/,
            held_out.csv.
        overrides: `key=value` changes of the configuration.
        workers: processes that simulate and measure.

    Returns:
        the weight file, for `bigsmall.measure(..., weights=...)`; float16, with its card.

    Raises:
        ValueError: a wrong configuration, or a folder that holds a run with another one.
    """
    settings, folder, console = configuration(config, overrides), Path(output), Console(stderr=True)
    learning, test = {name: value for name, value in settings.items() if name != "test"}, settings["test"]
    folder.mkdir(parents=True, exist_ok=True)
    written, text = folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(learning))
    if written.exists() and written.read_text(encoding="utf-8") != text:
        raise ValueError(f"output: {folder} holds a run with another configuration; take another folder")
    written.write_text(text, encoding="utf-8")

    path, counts = folder / "model.safetensors", [f"{of['count']} {kind}" for kind, of in learning["data"].items()]
    card = weights.Card(
        name=Path(config).stem,
        model=learning["model"],
        options=learning["options"],
        tasks=weights.TASKS,
        convention="exact",
        crop=learning["crop"],
        licence="MIT",
        source=f"this project's own training on simulated video: {', '.join(counts)}",
        note=NOTE,
        details={"training": learning},
    )
    columns = (MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.fields[now]}"))
    with Progress(*Progress.get_default_columns()[:2], *columns, console=console) as progress:

        def follow(name: str, steps: Iterator[tuple[int, int]]) -> None:
            bar = progress.add_task(name, now="")
            for done, of in steps:
                progress.update(bar, completed=done, total=of)

        if not path.exists():
            follow("simulating", videos.prepare(learning, folder, workers))
            bar = progress.add_task("training", total=learning["steps"], now="")

            def told(step: int, parts: loop.Losses) -> None:
                now = " ".join(f"{name} {value:.3f}" for name, value in parts.items())
                progress.update(bar, completed=step, now=now)

            weights.save(path, loop.fit(videos.load(learning, folder), learning, folder, told).half(), card)
        follow("measuring the held-out videos", simulated.evaluate(path, test, folder / "held_out", workers))
    rows = simulated.rows(path, test, folder / "held_out")
    simulated.table(rows).to_csv(folder / "held_out.csv", index=False)
    results = {"test": test, **simulated.summary(rows)}
    console.print_json(data=results)
    model = models.build(card.model, **card.options)
    model.load_state_dict(load_file(path))
    weights.save(path, model.half(), replace(card, details={**card.details, "held_out": results}))
    return path
