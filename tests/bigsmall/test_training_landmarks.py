"""Networks that learn action units with landmarks: what their losses are, what they need, what they take over."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from training_data import UNITS, configuration, write_folder

from bigsmall import models, weights
from bigsmall.datasets import Clips, open_prepared
from bigsmall.models.jaanet import joint_loss
from bigsmall.training import train
from bigsmall.training.losses import known, losses, positive_weight
from bigsmall.training.network import answers

SIDE, FRAMES = 32, 30


def landmarks() -> np.ndarray:
    """Of a face whose eyes are apart; unknown in every third frame."""
    points = np.random.default_rng(0).uniform(0.3, 0.7, (49, 2)).astype(np.float32)
    points[19:25, 0] -= 0.2
    made = points[None].repeat(FRAMES, 0)
    made[2::3] = np.nan
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings with pictures of 32 pixels, both Big and of all frames, Small of two, and landmarks."""
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
    small = rng.normal(size=(FRAMES, 3, 2, 2)).astype(np.float16)
    where = tmp_path_factory.mktemp("data") / "made"
    return write_folder(where, 2, frames_32=pictures, big=pictures[::3], small=small, landmarks=landmarks())


def of(folder: Path, name: str = "jaanet2", **changes: Any) -> dict[str, Any]:
    size = {"big_size": SIDE} if name == "bigsmall_plus" else {"size": SIDE}
    model = {"name": name, "options": {"action_units": list(UNITS), **size}}
    return configuration(folder, model=model, batch=8, learning_rate=1e-3) | changes


def log(run: Path) -> list[dict[str, float]]:
    with (run / "log.csv").open(encoding="utf-8") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", ["jaanet", "jaanet2"])
def test_a_run_lowers_the_joint_loss(name: str, folder: Path, tmp_path: Path) -> None:
    path = train(of(folder, name, steps=8, mirror=name == "jaanet2"), tmp_path / "run")
    rows = log(tmp_path / "run")
    for part in ("au", "landmarks"):
        assert sum(row[part] for row in rows[-2:]) < sum(row[part] for row in rows[:2])
    _, card = weights.load_network(path)
    assert (card.tasks, card.action_units) == (("au",), UNITS)  # landmarks are no task


def batch(folder: Path, name: str) -> tuple[Any, dict[str, Tensor], dict[str, Tensor]]:
    torch.manual_seed(0)
    options = of(folder, name)["model"]["options"]
    model = models.build(name, **options)
    clips = Clips(open_prepared(folder), 3, model.reads, (*model.tasks, *model.also), model.big_every)
    return model, *clips.batch(np.arange(6))


@pytest.mark.parametrize("name", ["jaanet", "jaanet2", "bigsmall_plus"])
def test_the_losses_are_the_joint_loss_and_reach_every_part(name: str, folder: Path) -> None:
    model, inputs, targets = batch(folder, name)
    targets["au"][4, 1] = torch.nan
    outputs = answers(model, 1, inputs)
    pos_weight = torch.tensor([1.0, 7.0])  # shown in a half and in an eighth of the frames
    found = losses(outputs, targets, known(targets), pos_weight)
    assert list(found) == list(targets)
    joint = joint_loss(outputs["au"], targets["au"], targets["landmarks"], torch.tensor([0.4, 1.6]))
    torch.testing.assert_close(found["au"] + found["landmarks"], joint)
    torch.stack(list(found.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    attention = getattr(model, "big", model).refine
    assert all(p.grad.any() for p in attention[-2].parameters())


def test_losses_of_parts_add_up_and_what_is_unknown_counts_nothing(folder: Path) -> None:
    model, inputs, targets = batch(folder, "jaanet")
    model.eval()
    whole, counts = losses(answers(model, 1, inputs), targets, known(targets)), known(targets)
    sums = dict.fromkeys(whole, 0.0)
    for rows in (slice(0, 4), slice(4, None)):
        part = answers(model, 1, {name: x[rows] for name, x in inputs.items()})
        for name, value in losses(part, {name: x[rows] for name, x in targets.items()}, counts).items():
            sums[name] += value.item()
    assert sums == pytest.approx({name: value.item() for name, value in whole.items()}, rel=1e-4)
    there = ~targets["landmarks"].isnan().any(2).any(1)
    assert 0 < there.sum() < len(there)
    some = {name: x[there] for name, x in inputs.items()}
    only = {"landmarks": targets["landmarks"][there]}
    alone = losses(answers(model, 1, some), only, known(only))
    torch.testing.assert_close(alone["landmarks"], whole["landmarks"])


def test_bigsmall_plus_is_trained_and_validated(folder: Path, tmp_path: Path) -> None:
    validation = {"data": {"made": {"prepared": str(folder)}}, "every": 2}
    path = train(of(folder, "bigsmall_plus", steps=2, validation=validation), tmp_path / "run")
    assert {"au", "pulse", "respiration", "landmarks"} < set(log(tmp_path / "run")[0])
    with (tmp_path / "run" / "validation.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    parts = [float(row[name]) for name in ("au", "pulse", "respiration", "landmarks")]
    assert float(row["loss"]) == pytest.approx(sum(parts), rel=1e-5)
    assert weights.load(path).tasks == models.TASKS


def test_data_without_landmarks_are_refused_where_action_units_are_learnt(tmp_path: Path) -> None:
    pictures = np.zeros((FRAMES // 3, SIDE, SIDE, 3), np.uint8)
    small = np.zeros((FRAMES, 3, 2, 2), np.float16)
    folder = write_folder(tmp_path / "made", 1, big=pictures, small=small)
    with pytest.raises(ValueError, match=r"bigsmall_plus learns action units with landmarks.*aligned: landmarks"):
        train(of(folder, "bigsmall_plus"), tmp_path / "run")
    train(of(folder, "bigsmall_plus", tasks=["pulse"], steps=1), tmp_path / "pulse")


def test_units_that_are_not_the_datas_are_refused(folder: Path, tmp_path: Path) -> None:
    other = {"name": "jaanet2", "options": {"action_units": ["AU12", "AU01"], "size": SIDE}}
    with pytest.raises(ValueError, match=r"action_units was AU12, AU01, and the data tell of AU01, AU12"):
        train(of(folder, model=other), tmp_path / "run")


def test_a_second_training_starts_from_the_branches_of_the_first(folder: Path, tmp_path: Path) -> None:
    """AU01 has its own; AU12 had none, and keeps what it starts with."""
    options: dict[str, Any] = {"action_units": ["AU04", "AU01"], "size": SIDE}
    first: Any = models.build("jaanet2", **options)
    card = weights.Card("first", "jaanet2", ("au",), "exact", "face", options, ("AU04", "AU01"))
    path = tmp_path / "first.safetensors"
    weights.save(path, first, card)
    train(of(folder, init_from=str(path), steps=1, learning_rate=0.0), tmp_path / "run")
    second: Any = weights.load_network(tmp_path / "run" / "model.safetensors")[0]
    theirs, mine = first.refine[0].weight.chunk(2), second.refine[0].weight.chunk(2)
    assert torch.equal(mine[0], theirs[1])
    assert not torch.equal(mine[1], theirs[0])


def test_a_list_of_weights_has_one_for_each_action_unit(folder: Path) -> None:
    clips = Clips(open_prepared(folder), 3, ("big", "small"), ("au",))
    with pytest.raises(ValueError, match="pos_weight has 3 numbers, expected 2: of AU01, AU12"):
        positive_weight([1.0, 2.0, 3.0], clips)
