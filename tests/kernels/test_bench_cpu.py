"""bench/'s smallest row from its measurement to the report; nothing is said about its speed."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))


def test_a_row_and_its_report(tmp_path: Path) -> None:
    source = tmp_path / "cpu.json"
    chosen = "wtsm_conv2d and smoke and not stack"
    command = [sys.executable, "-m", "pytest", "bench", "-q", "-p", "no:cacheprovider", "-k", chosen]
    ran = subprocess.run([*command, f"--benchmark-json={source}"], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stdout[-4000:]
    (row,) = json.loads(source.read_text())["benchmarks"]
    info = row["extra_info"]
    assert info["ratio"] > 0
    assert info["gflops"] > 0
    assert info["error"] < 1e-5
    assert info["rounds"] >= 7
    assert info["bars"]["ratio"]["bar"] == 3
    assert all(peer["extra_mb"] is None or peer["extra_mb"] >= 0 for peer in info["peers"].values())
    importlib.import_module("report").main(source)
    assert "| wtsm_conv2d, 1thread, 1clip |" in source.with_suffix(".md").read_text()
    assert all((tmp_path / name).stat().st_size > 0 for name in ("cpu.png", "cpu_roofline.png"))


def test_multiply_adds_are_not_computed_once_for_all_chains() -> None:
    ceilings = importlib.import_module("ceilings")
    loop = ceilings._fma_loop()
    if loop is None:
        pytest.skip("no C compiler")
    assert ceilings._fma(1)[ceilings.FMA] > 1
    lanes = loop.flops_of_a_round() // (2 * 12)
    assert loop.run(0, 0.0, 1.0) == sum(range(12)) * lanes  # each starts elsewhere
    assert loop.run(1, 0.0, 1.0) == 12 * lanes


@pytest.mark.parametrize("megabytes", [0, 64])
def test_memory_of_a_call_and_not_of_its_outputs(megabytes: int) -> None:
    def call() -> Tensor:
        held = torch.ones(megabytes * 250_000)
        return torch.ones(4_000_000) + held.sum()  # a temporary and the output, 16 MB each

    _, found = importlib.import_module("memory").growth(call, lambda y: y.nbytes)
    if found is None:
        pytest.skip("Linux does not tell the peak here")
    assert found == pytest.approx(megabytes + 16, abs=8)
