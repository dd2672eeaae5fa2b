"""Rows of tables whose networks are trained with landmarks: left out, and said so, where the data hold none."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from bigsmall import protocols
from bigsmall.datasets import write_prepared
from bigsmall.evaluation import Evaluation
from bigsmall.protocols import rows, table2, table4
from bigsmall.protocols.study import Row, network

SIDE, FRAMES = 32, 24
UNITS, OTHERS = ("AU01", "AU23"), ("AU25", "AU01")
QUICK = ("train.epochs=1", "train.batch=24", "folds=2", "seeds=[0]", "convention=bigsmall", "rows=[jaa2]")


def made(folder: Path, units: tuple[str, ...] = UNITS, *, landmarks: bool = True) -> Path:
    """A prepared folder: two people, their action units and perhaps landmarks."""
    folder.mkdir(parents=True)
    entries = []
    for name in "AB":
        rng = np.random.default_rng(ord(name))
        pictures = rng.integers(0, 256, (FRAMES, SIDE, SIDE, 3), np.uint8)
        points = rng.uniform(0.3, 0.7, (FRAMES, 49, 2)).astype(np.float32)
        points[:, 19:25, 0] -= 0.2  # eyes are apart
        arrays = {
            "frames_32": pictures, "stretches": np.array([0, FRAMES]), "timestamps": np.arange(FRAMES) / 25,
            "au": rng.integers(0, 2, (FRAMES, len(units)), np.uint8),
        }  # fmt: skip
        meta = {
            "name": name, "subject": name, "dataset": "made", "fps": 25.0, "convention": "exact", "crop": "frame",
            "action_units": list(units),
        }  # fmt: skip
        more = {"landmarks": points} if landmarks else {}
        write_prepared(folder / f"{name}.safetensors", {**arrays, **more}, meta)
        entries.append({"name": name, "subject": name, "status": "done", "file": f"{name}.safetensors"})
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "spec": {}, "recordings": entries}))
    return folder


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """JÂA-Net of 32 pixels, and no pictures of every run."""
    small = (Row("jaa2", (network("jaanet2", size=SIDE),)),)
    monkeypatch.setattr(Evaluation, "save", lambda *_: [])
    for module in (rows, table2, table4):
        monkeypatch.setattr(module, "ROWS", small)


def ours(path: Path) -> set[str]:
    with path.open(newline="") as file:
        return {line["row"] for line in csv.DictReader(file) if line["of"] == "ours"}


def test_table_2_leaves_out_what_cannot_be_trained(tmp_path: Path) -> None:
    plain, aligned = made(tmp_path / "plain", landmarks=False), made(tmp_path / "aligned")
    for name, of, expected in (
        ("with", aligned, {"jaa2, aligned"}),
        ("without", plain, set()),
    ):
        data = [f"data.prepared={plain}", f"aligned.prepared={of}"]
        text = protocols.run("table2", tmp_path / name, [*QUICK, *data])
        assert ours(tmp_path / name / "table2.csv") == expected
        assert ("no landmarks, which they are trained with" in text) == (name == "without")


def test_table_4_is_fine_tuned_with_landmarks(tmp_path: Path) -> None:
    data, disfa = made(tmp_path / "data"), made(tmp_path / "disfa", OTHERS)
    without = made(tmp_path / "without", OTHERS, landmarks=False)
    for name, of, expected in (("with", disfa, {"jaa2"}), ("without", without, set())):
        asked = [f"data.prepared={data}", f"tests.disfa.prepared={of}", *QUICK]
        text = protocols.run("table4", tmp_path / name, asked)
        assert ours(tmp_path / name / "table4.csv") == expected
        assert ("no landmarks, which they are trained with (" in text) == (name == "without")
