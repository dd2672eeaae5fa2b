"""The training loop: the same for every network, any of its tasks, one process or many.

Nothing random outlives a step (batches and dropout come from the seed and the step's number), so a run that was
interrupted and taken up again gives the same weights as one that was not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._functorch import config as functorch

from ..datasets import Clips, Prepared
from ..models import Network
from . import checkpoint
from .batches import Batch, Batches
from .config import Config
from .distributed import Group
from .gradients import Gradients
from .kept import Kept
from .losses import known, losses
from .network import answers, learning
from .pcgrad import angles, project
from .records import Records

Losses = dict[str, float]
Metrics = Callable[[Network, Sequence[Prepared]], Mapping[str, float]]
Told = Callable[[int, Losses], None]


class Work(NamedTuple):
    """What a run has to do with. `tasks`: all that is learnt, the network's `also` with them; `pos_weight` (units,) of
    the AUs; `validation` None: no validation."""

    model: Network
    tasks: tuple[str, ...]
    batches: Batches
    pos_weight: Tensor | None
    validation: Clips | None
    metrics: Metrics | None


def learning_rate(config: Config, step: int, steps: int) -> float:
    """Of step number `step`: constant, or a linear rise over the share `warm_up` and then a cosine down to zero.

    The last step's is zero; a single step has the whole rate, for it would learn nothing.
    """
    if config.schedule == "constant" or steps == 1:
        return config.learning_rate
    progress, rise = (step + 1) / steps, config.warm_up
    if progress < rise:
        return config.learning_rate * progress / rise
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - rise) / (1 - rise)))


def fit(config: Config, work: Work, folder: Path, group: Group, kept: Kept, told: Told) -> None:
    """Train `work.model` from the last checkpoint in `folder`, or from where it stands.

    Args:
        folder: gets checkpoint.pt, log.csv, angles.csv, validation.csv, tensorboard/ and what `kept` writes.
        kept: which weights are kept beside.
        told: hears of every step and its losses.

    Raises:
        ValueError: a loss or gradient that is not finite; the last checkpoint is left as it is.
    """
    model, batches = work.model.to(group.device), work.batches
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = make_optimizer(config, parameters)
    state = group.tell(checkpoint.read(folder) if group.first else None) or {"step": 0, "records": {}, "kept": []}
    if state["step"]:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    kept.ranking = [(float(value), int(step)) for value, step in state["kept"]]
    if group.first:
        kept.forget()  # a killed run may not have come to it
    first = int(state["step"])
    records = Records(folder if group.first else None, state["records"], first, config.tensorboard)
    step_of = Step(config, work, group, parameters)
    every = config.validation.every or batches.steps_of_epoch or 1
    try:
        for step, parts in enumerate(batches.from_step(first, group.rank, group.size), first):
            rate = learning_rate(config, step, batches.steps)
            for settings in optimizer.param_groups:
                settings["lr"] = rate
            now, norm = step_of(step, parts, records)
            optimizer.step()
            records.add("log", step, {**now, "learning_rate": rate, "gradient": norm})
            records.show("log", step + 1, now)
            done, end = step + 1, step + 1 == batches.steps
            due = work.validation is not None and (done % every == 0 or end)
            if due:
                found = validate(config, work, group)
                records.add("validation", done, found)
                records.show("validation", done, found)
                if group.first:
                    kept.consider(model, done, found)
            if group.first and (due or end or done % config.checkpoint_every == 0):
                kept.last(model, done)
                ranking = [list(entry) for entry in kept.ranking]
                lengths = records.settle()
                weights, moments = model.state_dict(), optimizer.state_dict()
                state = {"step": done, "model": weights, "optimizer": moments, "records": lengths, "kept": ranking}
                checkpoint.write(folder, state)
                kept.forget()
            told(done, now)
    finally:
        records.close()


class Step:
    """Losses and gradients of a step, up to the optimizer's."""

    def __init__(self, config: Config, work: Work, group: Group, parameters: list[torch.nn.Parameter]) -> None:
        self.config, self.work, self.group, self.parameters = config, work, group, parameters
        # Each size of a part compiled for itself, so that it does not matter which a resumed run meets first.
        self.run = torch.compile(answers, dynamic=False) if config.compile else answers
        self.once = not (config.pcgrad or config.angles_every)  # goes a step's graph backward
        weight = work.pos_weight
        self.pos_weight = None if weight is None else weight.to(group.device)

    def __call__(self, step: int, parts: Sequence[Batch], records: Records) -> tuple[Losses, float]:
        """Leaves the gradient in the parameters; the losses by task, and the gradient's norm before it is clipped."""
        config, group, tasks = self.config, self.group, self.work.tasks
        shown = bool(config.angles_every) and step % config.angles_every == 0 and len(tasks) > 1
        apart = shown or (config.pcgrad and len(tasks) > 1)
        learning(self.work.model, config.dropout)
        group.agree(self.work.model)
        torch.manual_seed(int(np.random.SeedSequence((config.seed, step, group.rank)).generate_state(1)[0]))
        counts = _counts(tasks, parts, group)
        gradients = Gradients(self.parameters, len(tasks) if apart else 1)
        values = torch.zeros(len(tasks), device=group.device)
        for part in parts:
            inputs, targets = _on(group.device, part)
            with functorch.patch(donated_buffer=self.once):
                with torch.autocast(group.device.type, torch.bfloat16, enabled=config.bfloat16):
                    outputs = self.run(self.work.model, config.clips, inputs)
                by_task = list(losses(outputs, targets, counts, self.pos_weight).values())
                values += torch.stack(by_task).detach()
                gradients.add(by_task if apart else [torch.stack(by_task).sum()])
        gradients.gather(group)
        group.sum(values)
        if shown:
            _show_angles(self.work, gradients, step, records)
        rng = np.random.default_rng((config.seed, step, 2))
        rows = gradients.rows
        total = rows[0] if len(rows) == 1 else rows.sum(0)
        if config.pcgrad and apart:
            total = project(rows, gradients.shared, rng)
        norm = total.norm()
        now = dict(zip(tasks, values.tolist(), strict=True))
        if not math.isfinite(sum(now.values()) + norm.item()):
            of = ", ".join(f"{task} {value:g}" for task, value in now.items())
            raise ValueError(
                f"training stopped at step {step}: losses {of} with a gradient of {norm.item():g}; a lower "
                "learning_rate or clip_norm may help. The last checkpoint is from before"
            )
        if config.clip_norm is not None:
            total = total * (config.clip_norm / norm.clamp(min=config.clip_norm))
        gradients.use(total)
        return now, norm.item()


def validate(config: Config, work: Work, group: Group) -> Losses:
    """Losses over all clips of the validation's recordings: by task, and their sum as "loss"; and the metrics."""
    assert work.validation is not None
    group.agree(work.model)
    clips, model = work.validation, work.model.eval()
    one = {task: torch.ones((), dtype=torch.float64, device=group.device) for task in work.tasks}
    sums = torch.zeros(2, len(work.tasks), dtype=torch.float64, device=group.device)
    weight = None if work.pos_weight is None else work.pos_weight.to(group.device)
    with torch.inference_mode():
        mine = np.array_split(np.arange(len(clips)), group.size)[group.rank]
        for indices in np.split(mine, range(config.batch, len(mine), config.batch)):
            if not len(indices):
                continue
            inputs, targets = _on(group.device, Batch(*clips.batch(indices)))
            with torch.autocast(group.device.type, torch.bfloat16, enabled=config.bfloat16):
                outputs = answers(model, 1, inputs)
            sums[0] += torch.stack([value.double() for value in losses(outputs, targets, one, weight).values()])
            sums[1] += torch.stack([*known(targets).values()])
        group.sum(sums)
        means = dict(zip(work.tasks, (sums[0] / sums[1].clamp(min=1)).tolist(), strict=True))
        found = {"loss": sum(means.values()), **means}
        if work.metrics is not None and group.first:
            found |= work.metrics(model, clips.recordings)
    return found


def make_optimizer(config: Config, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The configuration's optimizer of some parameters."""
    if config.optimizer == "sgd":
        momentum = config.momentum
        return torch.optim.SGD(
            parameters, config.learning_rate, momentum, weight_decay=config.weight_decay, nesterov=momentum > 0
        )
    return torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _counts(tasks: Sequence[str], parts: Sequence[Batch], group: Group) -> dict[str, Tensor]:
    """The known targets of the whole step, on all processes: sums of the parts divided by them are its mean."""
    counts = torch.zeros(len(tasks), dtype=torch.float64)
    for part in parts:
        counts += torch.stack([*known(part.targets).values()])
    counts = counts.to(group.device)
    group.sum(counts)
    return dict(zip(tasks, counts, strict=True))


def _on(device: torch.device, batch: Batch) -> Iterator[dict[str, Tensor]]:
    return ({name: x.to(device, non_blocking=True) for name, x in of.items()} for of in batch)


def _show_angles(work: Work, gradients: Gradients, step: int, records: Records) -> None:
    """A row for every layer's weight that tasks share: the angles between their gradients (Fig. 6D)."""
    found = angles(gradients.rows, gradients.reached, gradients.sizes).tolist()
    shared = (gradients.reached.sum(0) > 1).tolist()
    names = [name for name, p in work.model.named_parameters() if p.requires_grad]
    pairs = list(combinations(range(len(work.tasks)), 2))
    for name, between, many in zip(names, found, shared, strict=True):
        if many and name.endswith("weight"):
            by_pair = {f"{work.tasks[i]}-{work.tasks[j]}": between[i][j] for i, j in pairs}
            layer = name.removesuffix(".weight")
            scalars = {f"{layer}/{pair}": angle for pair, angle in by_pair.items()}
            records.add("angles", step, {"layer": layer, **by_pair})
            records.show("angles", step + 1, scalars)
