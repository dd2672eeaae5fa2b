"""Training: what goes into a step, what comes out of it, and what a run leaves behind."""

import csv
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file
from torch import Tensor
from training_data import SIZE, UNITS, configuration, write_folder
from typer.testing import CliRunner

from bigsmall import measure, models, weights
from bigsmall.cli import app
from bigsmall.datasets import Clips, open_prepared, write_prepared
from bigsmall.synthesis import AUS, synthesize
from bigsmall.training import config as configurations
from bigsmall.training import loop, train
from bigsmall.training.batches import Batch, Batches
from bigsmall.training.distributed import Group
from bigsmall.training.kept import Kept
from bigsmall.training.losses import known, losses, positive_weight
from bigsmall.training.network import start
from bigsmall.training.pcgrad import angles, project

ALONE = Group(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four recordings of two stretches of 15 frames: 40 clips."""
    return write_folder(tmp_path_factory.mktemp("data") / "made")


@pytest.fixture(scope="module")
def clips(folder: Path) -> Clips:
    return Clips(open_prepared(folder), 3, ("big", "small"), models.TASKS)


def batches(folder: Path, of: Clips, /, **changes: Any) -> Batches:
    return Batches(configurations.read(configuration(folder, **changes)), of, [("made", 4, None)])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8") as file:
        return list(csv.DictReader(file))


def weights_of(path: Path) -> dict[str, Tensor]:
    return load_file(path)


def largest_difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((x - b[name]).abs().max()) for name, x in a.items())


# --- configurations ---------------------------------------------------------------------------------------------------


def test_the_papers_recipe() -> None:
    """FACTS 5."""
    with pytest.raises(ValueError, match=r"leaves data\.bp4d_plus\.prepared to be given"):
        configurations.read("paper")
    paper = configurations.read("paper", ["data.bp4d_plus.prepared=somewhere"])
    network = models.build(paper.model.name, **paper.model.options)
    assert (type(network), network.n_segment, network.big_every, paper.tasks) == (models.BigSmall, 3, 3, None)
    assert (paper.batch, paper.epochs, paper.steps, paper.clips, paper.accumulate) == (180, 5, None, 1, 1)
    assert (paper.optimizer, paper.learning_rate, paper.weight_decay, paper.schedule) == ("adamw", 1e-3, 0, "constant")
    assert (paper.dropout, paper.mirror, paper.bfloat16, paper.pcgrad, paper.clip_norm) == (True, *[False] * 3, None)
    assert (paper.init, paper.keep.final) == ("torch", "last")
    prevalence = [round(100 / (1 + weight), 1) for weight in paper.pos_weight]
    assert prevalence == [9.4, 7.9, 5.6, 48.9, 65.3, 64.0, 57.0, 59.3, 10.5, 12.6, 16.6, 3.8]


def test_data_alone_are_learnt_by_the_papers_recipe() -> None:
    """But for how rare each unit is: that is the data's own."""
    alone = configurations.read({"data": {"mine": {"prepared": "somewhere"}}})
    paper = configurations.read("paper", ["data.bp4d_plus.prepared=somewhere"])
    assert alone.pos_weight == "auto"
    assert replace(alone, data=paper.data, pos_weight=paper.pos_weight) == paper


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("stepz=3", "stepz.*there are seed, model, .*steps"),
        ("model.nam=big", "model.nam.*there are name, options"),
        ("keep.tops=2", "keep.tops.*there are metric, largest, top"),
        ("steps=many", "steps.*'many'"),
        ("epochs=2", "epochs was 2 and steps 6, expected one of them"),
        ("steps=0", "steps was 0, expected at least 1"),
        ("model.name=bigsmal", "'bigsmal', expected one of bigsmall, bigsmall_tsm"),
        ("optimizer=adam", "optimizer was 'adam', expected one of adamw, sgd"),
        ("batch=0", "batch was 0, expected at least 1"),
        ("learning_rate=-1", "learning_rate was -1.0"),
        ("pos_weight=even", "pos_weight was 'even', expected auto, root"),
        ("keep.final=best", "needs validation.data"),
        ("warm_up=1", "warm_up was 1.0"),
        ("tasks=[]", r"tasks was \[\], expected some .*or null"),
        ("validation.data={v: {prepared: x}}", "validation.every must be given"),
    ],
)
def test_wrong_configurations_are_refused(changes: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        configurations.read(configuration(Path("x")), [changes])


def test_a_configuration_comes_from_a_file_with_changes(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("data: {a: {prepared: x, share: 2}}\nsteps: 5\n", encoding="utf-8")
    found = configurations.read(path, ["data.a.share=3", "tasks=[pulse]", "learning_rate=9e-3"])
    assert (found.steps, found.data["a"]["share"], found.tasks, found.learning_rate) == (5, 3, ["pulse"], 9e-3)
    assert configurations.read(found.as_dict()) == found
    with pytest.raises(ValueError, match=r"no file.*none.yaml.*one of .*paper"):
        configurations.read(tmp_path / "none.yaml")


# --- batches ----------------------------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_of_all_clips(folder: Path, clips: Clips) -> None:
    made = batches(folder, clips, steps=None, epochs=3, batch=12)
    assert (len(clips), made.steps_of_epoch, made.steps) == (40, 4, 12)
    epochs = [np.concatenate([made.plan(4 * epoch + i).clips for i in range(4)]) for epoch in range(3)]
    assert [len(made.plan(i).clips) for i in range(4)] == [12, 12, 12, 4]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(40))
    assert not any(np.array_equal(a, b) for a, b in pairwise([np.arange(40), *epochs]))
    other = batches(folder, clips, steps=None, epochs=3, batch=12, seed=1)
    assert not np.array_equal(made.plan(0).clips, other.plan(0).clips)


def test_steps_draw_from_the_entries_by_their_shares(folder: Path, clips: Clips) -> None:
    config = configurations.read(configuration(folder, steps=200, batch=10))
    made = Batches(config, clips, [("a", 1, 1.0), ("b", 3, 4.0)])  # r0; r1, r2 and r3
    drawn = [clips.recording[made.plan(step).clips] for step in range(200)]
    assert {int((of == 0).sum()) for of in drawn} == {2}
    assert set(np.concatenate(drawn)) == {0, 1, 2, 3}
    np.testing.assert_array_equal(made.plan(7).clips, made.plan(7).clips)
    assert not np.array_equal(made.plan(7).clips, made.plan(8).clips)
    by_clips = Batches(config, clips, [("a", 1, None), ("b", 3, None)])  # 10 and 30 clips
    assert {int((clips.recording[by_clips.plan(s).clips] == 0).sum()) for s in range(20)} == {2}  # 2.5


@pytest.mark.parametrize(("changes", "shares"), [({"steps": None, "epochs": 1}, (1, 2)), ({}, (1, None)), ({}, (1, 0))])
def test_shares_are_refused(folder: Path, clips: Clips, changes: dict, shares: tuple) -> None:
    config = configurations.read(configuration(folder, **changes))
    with pytest.raises(ValueError, match=r"shares were .*expected none, or with steps a positive one"):
        Batches(config, clips, [("a", 1, shares[0]), ("b", 3, shares[1])])


@pytest.mark.parametrize("of", [2, 3, 8])
def test_processes_and_parts_share_a_batch(folder: Path, clips: Clips, of: int) -> None:
    made = batches(folder, clips, clips=3, mirror=True, batch=7)
    plan = made.plan(3)
    parts = [plan.part(i, of) for i in range(of)]
    for i, array in enumerate(plan):
        np.testing.assert_array_equal(np.concatenate([part[i] for part in parts]), array)
    whole = made.load(plan)
    loaded = [made.load(part) for part in parts if len(part.clips)]
    for name, x in whole.inputs.items():
        torch.testing.assert_close(torch.cat([part.inputs[name] for part in loaded]), x, rtol=0, atol=0)


def test_other_clips_of_small_are_of_the_same_stretch(folder: Path, clips: Clips) -> None:
    made = batches(folder, clips, clips=4, steps=20)
    begun = set()
    for step in range(20):
        plan = made.plan(step)
        inputs, targets = made.load(plan)
        assert inputs["big"].shape == (6, 3, SIZE, SIZE)
        assert inputs["small"].shape == (6 * 4 * 3, 3, 1, 1)
        small = inputs["small"].view(6, 4, 3, 3, 1, 1)
        pulse, respiration = (targets[task].view(6, 4, 3) for task in ("pulse", "respiration"))
        au = targets["au"].view(6, 4, 3, len(UNITS))
        assert not au[:, 0].isnan().any()
        assert au[:, 1:].isnan().all()  # Big is of another moment
        for b, clip in enumerate(plan.clips):
            recording, start = clips.recordings[clips.recording[clip]], clips.start[clip]
            first = 0 if start < 15 else 15
            for k in range(4):
                (at,) = (t for t in range(first, first + 13) if np.array_equal(recording.bvp[t : t + 3], pulse[b, k]))
                assert k > 0 or at == start
                np.testing.assert_array_equal(recording.small[at : at + 3].astype(np.float32), small[b, k])
                np.testing.assert_array_equal(recording.respiration[at : at + 3], respiration[b, k])
                begun.add(at - first)
    assert begun == set(range(13))  # anywhere, not only where clips begin


def test_mirrored_clips_are_mirrored_in_all_their_pictures(tmp_path: Path) -> None:
    small = np.arange(30 * 3 * 4, dtype=np.float16).reshape(30, 3, 2, 2)
    folder = write_folder(tmp_path / "made", 1, small=small)
    clips = Clips(open_prepared(folder), 3, ("big", "small"), models.TASKS)
    made = batches(folder, clips, clips=2, mirror=True, batch=40)
    plan = made.plan(0)
    assert 8 < plan.mirror.sum() < 32
    plain, mirrored = made.load(plan._replace(mirror=np.zeros(40, bool))), made.load(plan)
    for name, x in plain.inputs.items():
        of, expected = (y.view(40, -1, *y.shape[1:]) for y in (mirrored.inputs[name], x))
        for b in range(40):
            torch.testing.assert_close(of[b], expected[b].flip(-1) if plan.mirror[b] else expected[b], rtol=0, atol=0)
    for task, values in plain.targets.items():
        torch.testing.assert_close(mirrored.targets[task], values, equal_nan=True, rtol=0, atol=0)


# --- losses -----------------------------------------------------------------------------------------------------------


def test_unknown_targets_count_for_nothing() -> None:
    outputs = {"au": torch.randn(6, 2, requires_grad=True), "pulse": torch.randn(6, 1, requires_grad=True)}
    targets = {"au": torch.rand(6, 2).round(), "pulse": torch.randn(6, 1)}
    targets["au"][1:4, 0] = torch.nan
    targets["pulse"][2] = torch.nan
    weight = torch.tensor([3.0, 0.5])
    counts = known(targets)
    assert {task: int(count) for task, count in counts.items()} == {"au": 9, "pulse": 5}
    found = losses(outputs, targets, counts, weight)

    p, y = outputs["au"].sigmoid(), targets["au"]
    entropy = -(weight * y * p.log() + (1 - y) * (1 - p).log())
    torch.testing.assert_close(found["au"], entropy[~y.isnan()].mean())
    seen = [0, 1, 3, 4, 5]
    torch.testing.assert_close(found["pulse"], (outputs["pulse"] - targets["pulse"])[seen].square().mean())
    sum(found.values()).backward()
    for task, output in outputs.items():
        assert ((output.grad == 0) == targets[task].isnan()).all()

    nothing = {"pulse": torch.full((6, 1), torch.nan)}
    assert losses(outputs, nothing, known(nothing))["pulse"].item() == 0


def test_losses_of_parts_add_up_to_that_of_the_whole() -> None:
    outputs, targets = {"pulse": torch.randn(9, 1)}, {"pulse": torch.randn(9, 1)}
    targets["pulse"][5:8] = torch.nan
    counts = known(targets)
    parts = [losses(*({"pulse": of["pulse"][i : i + 3]} for of in (outputs, targets)), counts) for i in (0, 3, 6)]
    torch.testing.assert_close(sum(part["pulse"] for part in parts), losses(outputs, targets, counts)["pulse"])


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"au: the network gives \(3, 12\) and the data \(3, 8\); .*out_size"):
        losses({"au": torch.zeros(3, 12)}, {"au": torch.zeros(3, 8)}, {"au": torch.tensor(24)})


def test_rare_action_units_weigh_more(tmp_path: Path) -> None:
    au = np.zeros((30, 2), np.uint8)
    au[:6, 0] = 1
    au[:10, 1] = 255  # unknown
    clips = Clips(open_prepared(write_folder(tmp_path / "made", 1, au=au)), 3, ("big", "small"), ("au",))
    torch.testing.assert_close(positive_weight("auto", clips), torch.tensor([4.0, 50.0]))  # 24 / 6; 98 / 2
    torch.testing.assert_close(positive_weight("root", clips), torch.tensor([4.0, 50.0]).sqrt())
    torch.testing.assert_close(positive_weight([2, 3], clips), torch.tensor([2.0, 3.0]))
    assert positive_weight(None, clips) is None


class OneStep:
    """Batches of a single step."""

    steps, steps_of_epoch = 1, None

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def from_step(self, first: int, rank: int, of: int) -> Any:
        return iter([[self.batch]][first:])


def test_a_step_is_the_authors(reference_dir: Path, tmp_path: Path) -> None:
    """Losses, the gradient's norm, and the outputs after one step (bigsmall_io.npz), through the whole loop."""
    with np.load(reference_dir / "golden" / "bigsmall_io.npz") as arrays:
        golden = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    with np.load(reference_dir / "golden" / "bigsmall_state.npz") as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    paper = configurations.read("paper", ["data.bp4d_plus.prepared=x", "dropout=false"])
    model = start(paper, print)
    model.load_state_dict(state)
    inputs = {"big": golden["big"][::3], "small": golden["small"]}
    names = dict(zip(models.TASKS, ("au", "bvp", "resp"), strict=True))
    targets = {task: golden[f"lab_{name}"].float().view(6, -1) for task, name in names.items()}
    work = loop.Work(model, models.TASKS, OneStep(Batch(inputs, targets)), golden["pos_weight"].float(), None, None)
    card = weights.Card("one step", "bigsmall", models.TASKS, "exact", "frame")
    loop.fit(paper, work, tmp_path, ALONE, Kept(paper.keep, card, tmp_path), lambda step, parts: None)

    (row,) = rows(tmp_path / "log.csv")
    for task, name in names.items():
        assert float(row[task]) == pytest.approx(golden[f"loss_{name}"].item(), rel=1e-5)
    for name, parameter in model.named_parameters():
        norm = golden[f"gradnorm/{name}"].item()
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-3), name  # a ReLU's input close to zero
    norms = [value.double() for name, value in golden.items() if name.startswith("gradnorm/")]
    assert float(row["gradient"]) == pytest.approx(torch.stack(norms).norm().item(), rel=1e-4)
    with torch.inference_mode():
        for name, output in zip(names.values(), model.eval()(golden["big"], golden["small"]), strict=True):
            expected = golden[f"after1step_{name}"]
            assert (output - expected).abs().max() <= 1e-4 * expected.abs().max()


# --- gradients of tasks -----------------------------------------------------------------------------------------------


def test_conflicting_gradients_are_projected() -> None:
    rng = np.random.default_rng(0)
    a, b = [1.0, 0.0], [-1.0, 1.0]
    gradients = torch.tensor([[*a, 5.0, 0.0], [*b, 0.0, -7.0]])  # each with a parameter of its own behind
    shared = torch.tensor([True, True, False, False])
    # a loses its part along b: (1, 0) + (-1, 1) / 2; b its part along a: (-1, 1) + (1, 0)
    torch.testing.assert_close(project(gradients, shared, rng), torch.tensor([0.5, 1.5, 5.0, -7.0]))
    agreeing = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    torch.testing.assert_close(project(agreeing, torch.tensor([True, True]), rng), torch.tensor([2.0, 1.0]))


def test_a_task_meets_the_others_in_a_seeded_order() -> None:
    gradients, shared = torch.tensor([[1.0, 0.0], [-1.0, 1.0], [-1.0, -2.0]]), torch.ones(2, dtype=torch.bool)
    found = {tuple(project(gradients, shared, np.random.default_rng(seed)).tolist()) for seed in range(20)}
    assert len(found) > 1
    again = [project(gradients, shared, np.random.default_rng(3)) for _ in range(2)]
    assert torch.equal(*again)


def test_angles_between_gradients_of_every_parameter() -> None:
    gradients = torch.tensor([[1.0, 0.0, 2.0, 3.0], [0.0, 2.0, -1.0, 0.0], [1.0, 1.0, 0.0, 0.0]])
    reached = torch.tensor([[True, True, True], [True, True, False], [True, False, False]])
    found = angles(gradients, reached, [2, 1, 1])
    torch.testing.assert_close(found[0, [0, 0, 1], [1, 2, 2]], torch.tensor([90.0, 45.0, 45.0]).double())
    assert found[1, 0, 1] == 180
    assert found[1, 0, 2].isnan()
    assert found[2, 0, 1].isnan()


# --- runs -------------------------------------------------------------------------------------------------------------


def test_the_loss_falls_and_the_card_says_how(folder: Path, tmp_path: Path) -> None:
    config = configuration(folder, steps=60, batch=12, clips=2, schedule="onecycle", init="kaiming", learning_rate=5e-3)
    path = train(config, tmp_path, ["card.note=not for use", "card.licence=MIT", "keep.half=true"])
    log = rows(tmp_path / "log.csv")
    assert [int(row["step"]) for row in log] == list(range(60))
    for task in models.TASKS:
        first, last = (np.mean([float(row[task]) for row in of]) for of in (log[:10], log[-10:]))
        assert last < 0.8 * first, task
    (card,) = weights.load(path).cards
    assert (card.name, card.model, card.tasks, card.action_units) == ("model", "bigsmall", models.TASKS, UNITS)
    assert (card.convention, card.crop, card.licence, card.note) == ("exact", "face", "MIT", "not for use")
    assert "4 recordings of made: 4 people" in card.source
    assert card.details["training"]["learning_rate"] == 5e-3
    assert card.details["step"] == 60
    assert {x.dtype for x in weights_of(path).values()} == {torch.float16}
    assert weights_of(tmp_path / "last.safetensors")["au_fc1.bias"].dtype == torch.float32


def test_a_run_that_is_done_is_not_done_again_and_another_is_refused(folder: Path, tmp_path: Path) -> None:
    path = train(configuration(folder), tmp_path)
    before = path.stat().st_mtime_ns
    assert train(configuration(folder), tmp_path) == path
    assert path.stat().st_mtime_ns == before
    with pytest.raises(ValueError, match="another configuration"):
        train(configuration(folder), tmp_path, ["steps=7"])


def test_a_run_is_not_taken_up_where_its_tables_are_gone(folder: Path, tmp_path: Path) -> None:
    train(configuration(folder), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "log.csv").write_text("step\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"log\.csv is shorter than the checkpoint"):
        train(configuration(folder), tmp_path)


def test_the_command_ends_in_a_file_or_in_a_sentence(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(OmegaConf.to_yaml(configuration(folder)), encoding="utf-8")
    done = CliRunner().invoke(app, ["train", str(path), "-o", str(tmp_path / "run"), "steps=2"])
    assert done.exit_code == 0, done.output
    assert weights.load(tmp_path / "run" / "model.safetensors").cards[0].name == "mine"
    wrong = CliRunner().invoke(app, ["train", str(path), "-o", str(tmp_path / "other"), "stepz=2"])
    assert wrong.exit_code == 2
    assert "the configuration is wrong at stepz" in wrong.output
    assert not (tmp_path / "other").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="device was cuda, and torch finds no GPU"):
        train(configuration(folder, device="cuda"), tmp_path)


def one_step(folder: Path, tmp_path: Path, name: str, **changes: Any) -> dict[str, Tensor]:
    """The weights after a single step of gradient descent, by default of rate 1."""
    settings = {"steps": 1, "optimizer": "sgd", "momentum": 0, "learning_rate": 1.0, "seed": 3} | changes
    return weights_of(train(configuration(folder, **settings), tmp_path / name))


def test_a_batch_can_be_computed_in_parts(folder: Path, tmp_path: Path) -> None:
    whole = one_step(folder, tmp_path, "whole", batch=7, clips=2)
    parts = one_step(folder, tmp_path, "parts", batch=7, clips=2, accumulate=3)
    assert largest_difference(whole, parts) < 1e-5
    many = one_step(folder, tmp_path, "many", batch=2, accumulate=5)  # more parts than clips
    assert largest_difference(many, one_step(folder, tmp_path, "few", batch=2)) < 1e-5


def test_the_gradient_is_clipped(folder: Path, tmp_path: Path) -> None:
    start = one_step(folder, tmp_path, "start", learning_rate=0)
    free, short = (one_step(folder, tmp_path, f"{norm}", clip_norm=norm) for norm in (None, 0.01))
    moved = [torch.cat([(x - start[name]).flatten() for name, x in of.items()]) for of in (free, short)]
    (row,) = rows(tmp_path / "None" / "log.csv")
    assert moved[0].norm().item() == pytest.approx(float(row["gradient"]), rel=1e-4)
    assert moved[1].norm().item() == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(moved[1] / moved[1].norm(), moved[0] / moved[0].norm(), rtol=1e-2, atol=1e-4)


def test_only_some_tasks_are_learnt(folder: Path, tmp_path: Path) -> None:
    start = one_step(folder, tmp_path, "start", learning_rate=0)
    path = train(configuration(folder, steps=1, weight_decay=0.5, seed=3), tmp_path / "run", ["tasks=[respiration]"])
    changed = {name for name, x in weights_of(path).items() if not torch.equal(x, start[name])}
    assert {name.split("_")[0] for name in changed} == {"big", "small", "resp"}
    assert weights.load(path).tasks == ("respiration",)
    assert list(rows(tmp_path / "run" / "log.csv")[0]) == ["step", "respiration", "learning_rate", "gradient"]
    with pytest.raises(ValueError, match="tasks: bigsmall answers au, pulse, respiration, not heart"):
        train(configuration(folder, tasks=["heart"]), tmp_path / "other")


@pytest.mark.parametrize(
    "name", ["small", "bigsmall_full", "bigsmall_concat", "bigsmall_lateral", "bigsmall_grey", "big"]
)
@pytest.mark.parametrize("bfloat16", [False, True])
def test_other_networks_learn_too(name: str, bfloat16: bool, folder: Path, tmp_path: Path) -> None:
    options = {"small_size": 1} if name == "small" else {"big_size": SIZE, "out_size": len(UNITS)}
    pictures = np.zeros((30, SIZE, SIZE, 3), np.uint8)
    data = write_folder(tmp_path / "all", 2, big=pictures, big_frame=np.arange(30))  # of every frame
    config = configuration(data, model={"name": name, "options": options}, steps=2, batch=4, frames=3)
    path = train(config | {"bfloat16": bfloat16}, tmp_path / "run")
    assert weights.load(path).tasks == models.build(name, **options).tasks


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording with everything that any network reads, at the sizes of the paper."""
    rng, frames = np.random.default_rng(0), 24
    pictures = {size: rng.integers(0, 256, (frames, size, size, 3), np.uint8) for size in (9, 72, 144, 176)}
    small = rng.normal(size=(frames, 3, 9, 9)).astype(np.float16)
    landmarks = rng.uniform(0.2, 0.8, (frames, 49, 2)).astype(np.float32)
    of_sizes: dict[str, Any] = {f"frames_{size}": pictures[size] for size in (9, 72, 176)}
    return write_folder(
        tmp_path_factory.mktemp("everything") / "made", 1, frames=frames, units=weights.ACTION_UNITS, **of_sizes,
        small=small, landmarks=landmarks, big=pictures[144], big_frame=np.arange(frames),
    )  # fmt: skip


@pytest.mark.parametrize("name", models.names())
def test_every_network_takes_a_step_by_its_name_alone(name: str, everything: Path, tmp_path: Path) -> None:
    config = configuration(everything, model={"name": name}, steps=1, batch=2)
    after = weights.load_network(train(config, tmp_path / "run"))[0]
    before = dict(start(configurations.read(config), print).named_parameters())
    for parameter, value in after.named_parameters():
        assert not torch.equal(value, before[parameter]), parameter


def test_single_frames_are_clips_of_networks_without_time(folder: Path, tmp_path: Path) -> None:
    model = {"name": "small", "options": {"small_size": 1}}
    config = configuration(folder, model=model, steps=None, epochs=1, batch=60)
    train(config, tmp_path / "run")
    assert len(rows(tmp_path / "run" / "log.csv")) == 2  # 120 frames
    with pytest.raises(ValueError, match="frames was 4, expected a multiple of the network's n_segment, 3"):
        train(configuration(folder, frames=4), tmp_path / "other")
    with pytest.raises(ValueError, match="clips was 2, expected 1: in small Big and Small are not two"):
        train(config, tmp_path / "third", ["clips=2"])


def test_a_run_begins_with_anothers_weights(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    first = train(configuration(folder), tmp_path / "first")
    model = {"name": "bigsmall", "options": {"big_size": SIZE, "out_size": 5}}
    for source in (tmp_path / "first", first):  # the run and the file
        config = configurations.read(configuration(folder, model=model, init_from=str(source)))
        said: list[str] = []
        state, own = start(config, said.append).state_dict(), weights_of(first)
        assert {name for name in own if not torch.equal(state[name], own[name])} == {"au_fc2.weight", "au_fc2.bias"}
        (text,) = said
        assert "30 tensors" in text
        assert text.endswith("these start anew: au_fc2.weight, au_fc2.bias")
    with pytest.raises(ValueError, match=r"nothing in .* fits"):
        train(configuration(folder, model={"name": "alexnet"}, init_from=str(first)), tmp_path / "second")


def test_frozen_parameters_stay(folder: Path, tmp_path: Path) -> None:
    start = one_step(folder, tmp_path, "start", learning_rate=0)
    frozen = one_step(folder, tmp_path, "frozen", freeze=["big_*", "*fc1*"])
    changed = {name for name, x in frozen.items() if not torch.equal(x, start[name])}
    assert {name.rsplit(".")[0] for name in changed} == {
        *(f"small_conv{i}" for i in (1, 2, 3, 4)), *(f"{task}_fc2" for task in ("au", "bvp", "resp")),
    }  # fmt: skip
    with pytest.raises(ValueError, match="no parameter of bigsmall is called 'bgi"):
        one_step(folder, tmp_path, "other", freeze=["bgi_*"])


def test_the_start(folder: Path) -> None:
    configs = (configurations.read(configuration(folder, init=init)) for init in ("torch", "kaiming"))
    torch_start, kaiming = (start(config, print) for config in configs)
    weight = kaiming.big_conv4.weight
    assert weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.03)
    assert not kaiming.big_conv4.bias.any()
    assert torch.equal(torch_start.au_fc1.weight, kaiming.au_fc1.weight)
    assert not torch.equal(torch_start.big_conv1.weight, kaiming.big_conv1.weight)


def test_dropout_is_the_steps_own(folder: Path, tmp_path: Path) -> None:
    without, first, again = (one_step(folder, tmp_path, str(i), dropout=on) for i, on in enumerate((False, True, True)))
    assert largest_difference(first, again) == 0
    assert largest_difference(without, first) > 1e-4


def test_batch_statistics_are_learnt_without_dropout_too(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (30, 36, 36, 3), dtype=np.uint8)
    data = write_folder(tmp_path / "made", 1, frames_36=frames)
    model = {"name": "efficientphys", "options": {"size": 36, "n_segment": 3}}
    path = train(configuration(data, model=model, steps=2, batch=2), tmp_path / "run")
    state = weights_of(path)
    (name,) = (name for name in state if name.endswith("running_var"))
    assert not torch.equal(state[name], torch.ones_like(state[name]))


def test_bfloat16_is_close_to_float32(folder: Path, tmp_path: Path) -> None:
    runs = {on: train(configuration(folder, bfloat16=on, steps=3, clips=2), tmp_path / str(on)) for on in (False, True)}
    exact, rough = (rows(tmp_path / str(on) / "log.csv") for on in runs)
    for a, b in zip(exact, rough, strict=True):
        for task in models.TASKS:
            assert float(b[task]) == pytest.approx(float(a[task]), rel=0.05)
    assert exact != rough


@pytest.mark.parametrize("recipe", configurations.names())
@pytest.mark.parametrize("name", models.names())
def test_a_recipe_takes_any_network_by_its_name(recipe: str, name: str) -> None:
    given = {"paper": ["data.bp4d_plus.prepared=folder"]}
    config = configurations.read(recipe, [f"model.name={name}", *given.get(recipe, [])])
    with torch.device("meta"):
        models.build(config.model.name, **config.model.options)


def test_compiled_is_the_same(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = one_step(folder, tmp_path, "plain", clips=2)
    compiler = torch.compile
    eager = {"backend": "aot_eager", "fullgraph": True}  # no C++ compiler
    monkeypatch.setattr(torch, "compile", lambda f, **options: compiler(f, **options, **eager))
    torch._dynamo.reset()
    assert largest_difference(plain, one_step(folder, tmp_path, "compiled", clips=2, compile=True)) < 1e-5


def test_the_learning_rate_makes_one_cycle(folder: Path) -> None:
    config = configurations.read(configuration(folder, schedule="onecycle", warm_up=0.1))
    rates = [loop.learning_rate(config, step, 100) for step in range(100)]
    assert np.argmax(rates) == 9
    assert max(rates) == pytest.approx(1e-3)
    assert rates[0] == pytest.approx(1e-4)
    assert rates[10] == pytest.approx(0.5e-3 * (1 + np.cos(np.pi * 0.01 / 0.9)))
    assert rates[-1] == 0
    constant = configurations.read(configuration(folder))
    assert {loop.learning_rate(constant, step, 100) for step in range(100)} == {1e-3}


def test_a_cycle_of_a_single_step_learns(folder: Path, tmp_path: Path) -> None:
    start = one_step(folder, tmp_path, "start", learning_rate=0)
    constant, cycle = (one_step(folder, tmp_path, name, schedule=name) for name in ("constant", "onecycle"))
    assert largest_difference(start, cycle) > 0
    assert largest_difference(constant, cycle) == 0


def test_projected_gradients_change_the_step(folder: Path, tmp_path: Path) -> None:
    plain = one_step(folder, tmp_path, "plain")
    projected = one_step(folder, tmp_path, "projected", pcgrad=True)
    changed = {name for name in plain if (plain[name] - projected[name]).abs().max() > 1e-5}
    assert changed  # tasks do conflict here
    assert {name.split("_")[0] for name in changed} <= {"big", "small"}  # heads are a task's own


def test_angles_are_written_for_every_shared_layer(folder: Path, tmp_path: Path) -> None:
    changes = {"steps": 4, "optimizer": "sgd", "learning_rate": 0.1}  # Adam makes whole steps of gradients of roundings
    plain = train(configuration(folder, **changes), tmp_path / "plain")
    path = train(configuration(folder, angles_every=3, **changes), tmp_path / "angles")
    found = rows(tmp_path / "angles" / "angles.csv")
    assert [row["step"] for row in found] == ["0"] * 10 + ["3"] * 10
    layers = [*(f"big_conv{i}" for i in range(1, 7)), *(f"small_conv{i}" for i in range(1, 5))]
    assert [row["layer"] for row in found[:10]] == layers
    for row in found:
        assert all(0 < float(row[pair]) < 180 for pair in ("au-pulse", "au-respiration", "pulse-respiration"))
    assert largest_difference(weights_of(plain), weights_of(path)) < 1e-5  # a look changes nothing but roundings


def test_the_best_weights_are_kept(folder: Path, tmp_path: Path) -> None:
    scores = iter((0.3, 0.9, 0.5, float("nan"), 0.7))

    def metrics(model: models.Network, recordings: Any) -> dict[str, float]:
        assert not model.training
        assert [r.name for r in recordings] == ["r0"]
        return {"score": next(scores)}

    changes = {
        "data": {"made": {"prepared": str(folder), "fold": {"index": 0, "of": 2, "part": "train"}}},
        "validation": {"data": {"v": {"prepared": str(folder), "subjects": ["r0"]}}, "every": 2},
        "keep": {"metric": "score", "largest": True, "top": 2, "final": "best"},
    }
    path = train(configuration(folder, steps=10, **changes), tmp_path, metrics=metrics)
    kept = sorted(path.stem for path in (tmp_path / "top").iterdir())
    assert kept == ["step-000004", "step-000010"]
    best = weights_of(tmp_path / "top" / "step-000004.safetensors")
    assert largest_difference(best, weights_of(path)) == 0
    assert largest_difference(best, weights_of(tmp_path / "best.safetensors")) == 0
    assert largest_difference(best, weights_of(tmp_path / "last.safetensors")) > 0
    (card,) = weights.load(path).cards
    assert card.details["step"] == 4
    assert card.details["validation"]["score"] == 0.9
    table = rows(tmp_path / "validation.csv")
    assert [row["step"] for row in table] == ["2", "4", "6", "8", "10"]
    for row in table:
        assert float(row["loss"]) == pytest.approx(sum(float(row[task]) for task in models.TASKS), rel=1e-4)


def test_validation_losses_are_over_all_clips(folder: Path, tmp_path: Path) -> None:
    validation = {"data": {"v": {"prepared": str(folder)}}, "every": 1}
    path = train(configuration(folder, steps=1, validation=validation, pos_weight=None), tmp_path)
    recordings = open_prepared(folder)
    clips = Clips(recordings, 3, ("big", "small"), models.TASKS)
    inputs, targets = clips.batch(np.arange(40))
    with torch.inference_mode():
        found = losses(models.answer(weights.load_network(path)[0], inputs), targets, known(targets))
    (row,) = rows(tmp_path / "validation.csv")
    for task, value in found.items():
        assert float(row[task]) == pytest.approx(value.item(), rel=1e-4)


def test_without_the_metric_that_decides(folder: Path, tmp_path: Path) -> None:
    validation = {"data": {"v": {"prepared": str(folder)}}, "every": 1}
    with pytest.raises(ValueError, match=r"keep.metric was 'f1'; the validation finds loss, au, pulse, respiration"):
        train(configuration(folder, validation=validation, keep={"metric": "f1"}), tmp_path)


def test_a_loss_that_is_not_finite_ends_the_run(folder: Path, tmp_path: Path) -> None:
    config = configuration(folder, optimizer="sgd", learning_rate=1e6, steps=30, checkpoint_every=1)
    with pytest.raises(ValueError, match=r"training stopped at step \d+: losses au .*learning_rate or clip_norm may"):
        train(config, tmp_path)
    assert all(x.isfinite().all() for x in weights_of(tmp_path / "last.safetensors").values())
    assert not (tmp_path / "model.safetensors").exists()


def test_tensorboard_shows_what_the_tables_hold(folder: Path, tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(configuration(folder, tensorboard=True), tmp_path)
    board = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for task in models.TASKS:
        shown = [event.value for event in board.Scalars(f"log/{task}")]
        assert shown == pytest.approx([float(row[task]) for row in rows(tmp_path / "log.csv")], rel=1e-5)


def test_recordings_that_do_not_go_together_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "made", 2)
    _, recording = open_prepared(folder)
    arrays = {name: getattr(recording, name).copy() for name in recording.arrays}
    write_prepared(folder / "r1.safetensors", arrays, {**recording.meta, "crop": "square"})
    with pytest.raises(ValueError, match="the recordings' crop must be the same, got face and square"):
        train(configuration(folder), tmp_path / "run")


def test_recordings_without_action_units_go_with_others(tmp_path: Path) -> None:
    both, without = tmp_path / "both", tmp_path / "without"
    write_folder(both, 2)
    without.mkdir()
    for i, recording in enumerate(open_prepared(both)):
        arrays = {name: getattr(recording, name).copy() for name in recording.arrays if i == 0 or name != "au"}
        meta = recording.meta if i == 0 else {k: v for k, v in recording.meta.items() if k != "action_units"}
        write_prepared(without / recording.path.name, arrays, meta)
    (without / "manifest.json").write_text((both / "manifest.json").read_text())
    config = configuration(without, steps=None, epochs=1)
    path = train(config, tmp_path / "run")
    assert weights.load(path).action_units == UNITS
    alone = {"alone": {"prepared": str(without), "subjects": ["r1"]}}
    with pytest.raises(ValueError, match=r"nothing in it tells of au; name the other tasks"):
        train(configuration(without, data=alone), tmp_path / "other")
    train(configuration(without, data=alone, tasks=["pulse"]), tmp_path / "third")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["nowhere", "in_no_clip"])
def test_targets_that_are_not_known_tell_nothing(elsewhere: bool, tmp_path: Path) -> None:
    """Arrays that hold nothing known, or only where no clip is: a stretch of 31 frames leaves one behind ten clips."""
    au, bvp = np.full((31, 2), 255, np.uint8), np.full(31, np.nan, np.float32)
    if elsewhere:
        au[30], bvp[30] = 1, 0.5
    changes = {"au": au, "bvp": bvp, "stretches": np.array([0, 31])}
    config = configuration(write_folder(tmp_path / "made", 2, frames=31, **changes))
    with pytest.raises(ValueError, match=r"nothing in it tells of au, pulse; name the other tasks"):
        train(config, tmp_path / "run")
    train(config, tmp_path / "other", ["tasks=[respiration]", "steps=1"])


def test_a_simulated_dataset_is_prepared_by_the_run_and_the_model_measures(tmp_path: Path) -> None:
    """From a specification to a weight file that measures a video of somebody else: tiny, so how well is no matter."""
    people = {"dataset": "simulator", "count": 3, "seconds": 4, "simulator": {"size": [96, 96], "fps": [20, 20]}}
    config = {
        "data": {"people": people}, "steps": 16, "batch": 3, "clips": 8, "bfloat16": True, "dropout": False,
        "init": "kaiming", "pos_weight": "root", "schedule": "onecycle",
    }  # fmt: skip
    path = train(config, tmp_path / "run", workers=1)
    log = rows(tmp_path / "run" / "log.csv")
    first, last = (sum(float(row[task]) for row in of for task in models.TASKS) for of in (log[:5], log[-5:]))
    assert last < 0.9 * first
    video = synthesize(seed=99, seconds=8, fps=20, size=(128, 128))
    result = measure(np.stack(list(video.frames(0, len(video)))), fps=20, weights=path)
    assert result.frames["bvp"].notna().mean() > 0.9
    assert result.frames[list(AUS)].notna().to_numpy().mean() > 0.9


def test_a_pulse_that_was_learnt_in_seconds_is_measured_in_strangers(tmp_path: Path) -> None:
    """Plain to see and well lit: what is left to learn is where a pulse shows, and what is none."""
    plain = {"size": [96, 96], "fps": [20, 20], "pulse": [0.05, 0.05], "motion": [0, 0.05], "heart_rate": [50, 120]}
    people = {"dataset": "simulator", "count": 8, "seconds": 4, "simulator": plain}
    config = {
        "data": {"people": people}, "model": {"name": "small"}, "steps": 150, "batch": 32, "dropout": False,
        "init": "kaiming", "schedule": "onecycle",
    }  # fmt: skip
    path = train(config, tmp_path / "run", workers=1)
    for seed, rate in ((97, 60), (99, 80), (98, 100)):
        video = synthesize(seed=seed, seconds=12, fps=20, size=(96, 96), heart_rate=rate, pulse=0.05)
        given = measure(np.stack(list(video.frames(0, len(video)))), fps=20, weights=path).heart_rate
        assert given.value == pytest.approx(rate, abs=3), given
