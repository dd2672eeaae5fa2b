"""bench/gpu.py without a GPU: a dry run of all its code, and that a wrong kernel is named and not timed."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
BENCH = ROOT / "bench"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, BENCH / "gpu.py", *arguments], capture_output=True, text=True, cwd=ROOT)


def test_a_dry_run_goes_all_the_way(tmp_path: Path) -> None:
    ran = bench("--device", "cpu", "--quick", "-o", str(tmp_path))
    assert ran.returncode == 0, ran.stderr[-4000:]
    results = json.loads((tmp_path / "gpu.json").read_text())
    assert results["dry_run"]
    assert not results["left_out"]
    for row in results["rows"]:
        names = {name.partition(" ")[0] for name in row["times"]}
        assert {"eager", "reference"} <= names
        assert not any("WRONG" in why or "Error" in why for why in row["missing"].values()), row
        assert all(rates["microseconds"] > 0 for rates in row["times"].values())
    assert {row["section"].partition(" ")[0] for row in results["rows"]} == {"network", "ops", "a", "frames"}
    assert any("compile max-autotune | graph" in row["times"] for row in results["rows"])
    assert (tmp_path / "gpu.md").read_text().startswith("A DRY RUN: no measurement.")
    assert (tmp_path / "gpu.png").stat().st_size > 0


@pytest.mark.parametrize("name", ["table", "tiles"])
def test_a_dry_run_of_what_is_suggested(name: str, tmp_path: Path) -> None:
    ran = bench("--device", "cpu", "--quick", f"--{name}", "-o", str(tmp_path))
    assert ran.returncode == 0, ran.stderr[-4000:]
    rows = json.loads((tmp_path / f"{name}.json").read_text())["rows"]
    assert all(set(row["microseconds"]) == {"reference"} for row in rows)
    assert (tmp_path / f"{name}.md").read_text().startswith("A DRY RUN: no measurement.")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which bench/gpu.py would measure")
@pytest.mark.parametrize(("arguments", "said"), [([], "no GPU"), (["--device", "cpu"], "no measurement")])
def test_nothing_is_measured_without_a_gpu(
    gpu: ModuleType, arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["gpu.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        gpu.main()
    assert said in capsys.readouterr().err


def test_a_wrong_kernel_is_named_and_not_timed(gpu: ModuleType) -> None:
    def wrong() -> Any:
        case = gpu.cases.wtsm(1)
        return dataclasses.replace(case, ours=gpu.cases.Calls(case.plain, lambda x: x * 1.5))

    clock = gpu.Clock("cpu", quick=True)
    row = gpu.measure(gpu.Row("1 clip", "float32", wrong, False), clock, clock.ceilings(), lambda: 0.0)
    assert "WRONG by" in row["missing"]["reference NCHW"]
    assert {name.partition(" ")[0] for name in row["times"]} == {"eager"}
    assert "WRONG: reference NCHW" in gpu.gpu_report.line(row)
