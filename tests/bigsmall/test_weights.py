"""Weight files: the authors', our own with their cards, and files that are neither (FACTS 2)."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from bigsmall import models, weights
from bigsmall.weights import Card

FILES = {
    "au": "BP4D_Big_AU_Clip3_Split1_Epoch4.pth",
    "pulse": "BP4D_Small_Heart_Clip3_Split1_Epoch4.pth",
    "respiration": "BP4D_Small_Resp_Clip3_Split1_Epoch4.pth",
}
GOLDEN = {"au": "Big_AU", "pulse": "Small_Heart", "respiration": "Small_Resp"}


def assert_close(actual: torch.Tensor, golden: np.ndarray) -> None:
    assert tuple(actual.shape) == golden.shape
    assert np.abs(actual.numpy() - golden).max() <= 1e-5 * np.abs(golden).max()


@pytest.fixture(scope="module")
def checkpoints(reference_dir: Path) -> dict[str, Path]:
    return {task: reference_dir / "checkpoints" / file for task, file in FILES.items()}


@pytest.fixture
def card() -> Card:
    options = {"big_size": 16, "out_size": 2}
    units = ("AU06", "AU12")
    return Card("mine", "bigsmall", ("pulse", "au"), "exact", "face", options, units, details={"epochs": 3})


# --- the authors' files -----------------------------------------------------------------------------------------------


def test_combined_single_task_networks(checkpoints: dict[str, Path], reference_dir: Path) -> None:
    predictor = weights.load(",".join(f"{task}={path}" for task, path in checkpoints.items()))
    assert predictor.tasks == ("au", "pulse", "respiration")
    assert (predictor.convention, predictor.crop) == ("bigsmall", "square")
    assert (predictor.n_segment, predictor.all_big, predictor.big_size, predictor.small_size) == (3, True, 144, 9)
    assert predictor.action_units[0] == "AU01"
    assert len(predictor.action_units) == 12
    assert [card.licence[:3] for card in predictor.cards] == ["MIT"] * 3
    with np.load(reference_dir / "golden" / "checkpoints_io.npz") as golden:
        with np.load(reference_dir / "golden" / "pipeline_toolbox.npz") as pipeline:
            big = torch.from_numpy(pipeline["big"]).reshape(12, 144, 144, 3).movedim(-1, 1)
        outputs = predictor(big, torch.from_numpy(golden["pipe_small"]).float())
        for task, actual in zip(weights.TASKS, outputs, strict=True):
            assert_close(actual, golden[f"{GOLDEN[task]}_split1_pipe"])


@pytest.mark.parametrize("task", FILES)
def test_one_single_task_network(task: str, checkpoints: dict[str, Path], reference_dir: Path) -> None:
    """A file that is known by its SHA-256 needs no task; the outputs it does not have are None."""
    predictor = weights.load(checkpoints[task])
    assert predictor.tasks == (task,)
    assert predictor.all_big == (task == "au")
    with np.load(reference_dir / "golden" / "checkpoints_io.npz") as golden:
        big, small = torch.from_numpy(golden["rand_big"]), torch.from_numpy(golden["rand_small"])
        outputs = dict(zip(weights.TASKS, predictor(big, small[:4] if task == "au" else small), strict=True))
        assert_close(outputs.pop(task), golden[f"{GOLDEN[task]}_split1_rand"])
    assert list(outputs.values()) == [None, None]


def test_pulse_of_a_synthetic_video(checkpoints: dict[str, Path], reference_dir: Path) -> None:
    with np.load(reference_dir / "golden" / "heart_end2end.npz") as golden:
        small = torch.from_numpy(golden["small"]).float().movedim(-1, 1)
        _, bvp, _ = weights.load(checkpoints["pulse"])(torch.empty(0, 3, 144, 144), small)
        assert_close(bvp, golden["heart_split1"].reshape(-1, 1))
        slope = np.diff(golden["pulse"])[: len(bvp)]
        assert np.corrcoef(bvp.numpy().ravel(), slope)[0, 1] > 0.8


@pytest.mark.parametrize("prefix", ["", "module."])
def test_names_with_and_without_the_prefix(prefix: str, tmp_path: Path) -> None:
    model = models.build("bigsmall", big_size=16)
    torch.save({prefix + name: value for name, value in model.state_dict().items()}, tmp_path / "w.pth")
    predictor = weights.load(tmp_path / "w.pth")
    big, small = torch.randn(1, 3, 16, 16), torch.randn(3, 3, 1, 1)
    assert all(torch.equal(a, b) for a, b in zip(predictor(big, small), model.eval()(big, small), strict=True))
    # the convention of the released multitask weights, and a warning that it is a guess
    assert predictor.convention == "toolbox-pre225"
    assert "guessed" in predictor.cards[0].note


def test_saved_on_a_gpu(tmp_path: Path) -> None:
    model = models.build("small", small_size=1)
    torch.save(model.state_dict(), tmp_path / "cpu.pth")
    with zipfile.ZipFile(tmp_path / "cpu.pth") as cpu, zipfile.ZipFile(tmp_path / "cuda.pth", "w") as cuda:
        for name in cpu.namelist():
            data = cpu.read(name)
            if name.endswith("data.pkl"):
                assert b"\x03\x00\x00\x00cpu" in data
                data = data.replace(b"\x03\x00\x00\x00cpu", b"\x06\x00\x00\x00cuda:0")
            cuda.writestr(name.replace("cpu/", "cuda/"), data)
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match=r"(?i)cuda"):
            torch.load(tmp_path / "cuda.pth", weights_only=True)  # so the file does say that it came from a GPU
    small = torch.randn(3, 3, 1, 1)
    _, bvp, _ = weights.load(f"pulse={tmp_path / 'cuda.pth'}")(torch.empty(0, 3, 16, 16), small)
    assert torch.equal(bvp, model.eval()(small))


# --- our own files ----------------------------------------------------------------------------------------------------


def test_saved_and_loaded(tmp_path: Path, card: Card) -> None:
    model = models.build(card.model, **card.options)
    weights.save(tmp_path / "w.safetensors", model, card)
    predictor = weights.load(tmp_path / "w.safetensors")
    assert predictor.cards == (card,)
    assert predictor.tasks == ("au", "pulse")
    assert predictor.action_units == ("AU06", "AU12")
    big, small = torch.randn(2, 3, 16, 16), torch.randn(6, 3, 1, 1)
    au, bvp, respiration = predictor(big, small)
    expected = model.eval()(big, small)
    assert torch.equal(au, expected[0])
    assert torch.equal(bvp, expected[1])
    assert respiration is None
    assert [file.name for file in tmp_path.iterdir()] == ["w.safetensors"]


def test_card_beside_the_file(tmp_path: Path, card: Card) -> None:
    torch.save(models.build(card.model, **card.options).state_dict(), tmp_path / "w.pth")
    (tmp_path / "w.json").write_text(card.to_json())
    assert weights.load(tmp_path / "w.pth").cards == (card,)
    assert json.loads(card.to_json())["outputs"]["au"] == weights.OUTPUTS["au"]


def test_nothing_half_written(tmp_path: Path, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "w.safetensors"
    target.write_bytes(b"before")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match=r"disk full"):
        weights.save(target, models.build(card.model, **card.options), card)
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("w.safetensors", b"before")]


def test_weights_that_do_not_fit_their_card_are_not_saved(tmp_path: Path, card: Card) -> None:
    with pytest.raises(ValueError, match=r"do not fit"):
        weights.save(tmp_path / "w.safetensors", models.build("bigsmall", big_size=32), card)
    assert not list(tmp_path.iterdir())


# --- combinations -----------------------------------------------------------------------------------------------------


def test_a_task_out_of_a_multitask_network(tmp_path: Path, card: Card) -> None:
    weights.save(tmp_path / "w.safetensors", models.build(card.model, **card.options), card)
    predictor = weights.load(f"pulse={tmp_path / 'w.safetensors'}")
    assert predictor.tasks == ("pulse",)
    assert predictor.action_units == ()
    assert predictor(torch.randn(1, 3, 16, 16), torch.randn(3, 3, 1, 1))[0] is None


def test_combined_weights_must_agree(tmp_path: Path, card: Card, checkpoints: dict[str, Path]) -> None:
    weights.save(tmp_path / "w.safetensors", models.build(card.model, **card.options), card)
    with pytest.raises(ValueError, match=r"agree on convention.*bigsmall.*exact"):
        weights.load(f"respiration={checkpoints['respiration']},pulse={tmp_path / 'w.safetensors'}")
    with pytest.raises(ValueError, match=r"one network"):
        weights.load(f"pulse={checkpoints['pulse']},pulse={checkpoints['pulse']}")
    with pytest.raises(ValueError, match=r"not for respiration; it is for pulse"):
        weights.load(f"respiration={checkpoints['pulse']}")
    with pytest.raises(ValueError, match=r"'heart'"):
        weights.load(f"heart={checkpoints['pulse']}")


# --- what is not weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all\n" * 9, b"PK\x03\x04broken"])
def test_files_that_are_not_weights(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is not a [^\\[]*$"):
        weights.load(tmp_path / name)


def test_other_contents(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(ValueError, match=r"dictionary of tensors"):
        weights.load(tmp_path / "list.pth")
    safetensors.torch.save_file({"conv.weight": torch.zeros(3)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match=r"no BigSmall network"):
        weights.load(tmp_path / "other.safetensors")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "code.pth")  # a pickled object could run code: refused
    with pytest.raises(ValueError, match=r"not a file of weights"):
        weights.load(tmp_path / "code.pth")


def test_wrong_shapes_and_missing_tensors(tmp_path: Path, card: Card) -> None:
    state = models.build(card.model, **card.options).state_dict()
    (tmp_path / "w.json").write_text(card.to_json())
    torch.save(dict(state, **{"bvp_fc2.weight": torch.zeros(2, 128)}), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"(?s)does not fit the network 'bigsmall'.*bvp_fc2.weight"):
        weights.load(tmp_path / "w.pth")
    state.pop("small_conv1.bias")
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"(?s)does not fit.*small_conv1.bias"):
        weights.load(tmp_path / "w.pth")


def test_unknown_names_and_tasks(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"'nowhere'.*default"):
        weights.load("nowhere")
    torch.save(models.build("small", small_size=1).state_dict(), tmp_path / "s.pth")
    with pytest.raises(ValueError, match=r"pulse or for respiration.*pulse="):
        weights.load(tmp_path / "s.pth")
    with pytest.raises(ValueError, match=r"not for au"):
        weights.load(f"au={tmp_path / 's.pth'}")


def test_bad_cards(card: Card) -> None:
    with pytest.raises(ValueError, match=r"not a card.*convention"):
        Card.from_json('{"name": "x"}')
    with pytest.raises(ValueError, match=r"not a card"):
        Card.from_json("[1]")
    with pytest.raises(ValueError, match=r"among au, pulse, respiration, got breath"):
        Card("x", "small", ("breath",), "exact", "face")
    for name, value in (("crop", 5), ("note", None), ("options", "big_size")):
        with pytest.raises(ValueError, match=f"a card's {name} was {value!r}, expected"):
            dataclasses.replace(card, **{name: value})


def test_a_card_names_every_action_unit(tmp_path: Path, card: Card) -> None:
    model, short = models.build(card.model, **card.options), dataclasses.replace(card, action_units=("AU12",))
    weights.save(tmp_path / "w.safetensors", model, short)
    with pytest.raises(ValueError, match=r"w\.safetensors gives 2 action units, and its card names 1"):
        weights.load(tmp_path / "w.safetensors")
