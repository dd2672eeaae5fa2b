"""A run that is killed at any instant ends with the same bits, on one process and on two; and two equal one."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from training_data import configuration, write_folder

# New processes are copies of one that has everything imported, and so begin at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bigsmall.training.run", "bigsmall.datasets"])

EVERYTHING = {
    "steps": 10, "checkpoint_every": 3, "clips": 2, "mirror": True, "dropout": True, "accumulate": 2, "pcgrad": True,
    "angles_every": 4, "schedule": "onecycle", "batch": 7, "keep": {"top": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_folder(tmp_path_factory.mktemp("data") / "made")
    validation = {"data": {"v": {"prepared": str(folder), "subjects": ["r0"]}}, "every": 4}
    return configuration(folder, validation=validation, **EVERYTHING)


def run(config: dict[str, Any], output: Path, rank: int, size: int, port: int, killed: int | None) -> None:
    """One process of a run. Kills itself at the event numbered `killed`: a step's end, or a file's renaming."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    from bigsmall.training import loop, train

    events = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            nonlocal events
            events += 1
            if events == killed:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **options)

        return call

    os.replace = counted(os.replace)
    loop.Step.__call__ = counted(loop.Step.__call__)  # type: ignore[method-assign]
    train(config, output, workers=1)


def together(config: dict[str, Any], output: Path, size: int = 1, killed: tuple[int, int] | None = None) -> bool:
    """Run to the end, or until process killed[0] dies at its event killed[1]; whether it came to the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    events = [killed[1] if killed and killed[0] == rank else None for rank in range(size)]
    processes: list[BaseProcess] = [
        CONTEXT.Process(target=run, args=(config, output, rank, size, port, event)) for rank, event in enumerate(events)
    ]
    for process in processes:
        process.start()
    if killed:
        processes[killed[0]].join()
        for process in processes:
            process.kill()  # as torchrun does with those that are left
    for process in processes:
        process.join()
    if killed:
        return processes[killed[0]].exitcode == 0
    assert [process.exitcode for process in processes] == [0] * size
    return True


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for the checkpoint, whose bytes torch does not promise."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "checkpoint.pt"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("size", [1, 2], ids=["1process", "2processes"])
def test_a_killed_run_ends_with_the_same_bits(size: int, config: dict, tmp_path: Path) -> None:
    """Killed three times on its way: any process, at a step or at a renaming, drawn at random."""
    together(config, tmp_path / "uninterrupted", size)
    draw = np.random.default_rng(size).integers
    ended = [together(config, tmp_path / "killed", size, (draw(size), 1 + draw(8))) for _ in range(3)]
    assert ended == [False] * 3
    together(config, tmp_path / "killed", size)
    expected, found = contents(tmp_path / "uninterrupted"), contents(tmp_path / "killed")
    assert found.keys() == expected.keys()
    assert {"model.safetensors", "best.safetensors", "log.csv", "angles.csv", "validation.csv"} <= found.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_two_processes_equal_one(config: dict, tmp_path: Path) -> None:
    """By torchrun, as a user would; batches of 13, 13, 13 and 1 clips: of the last, one process has none.

    Sums are rounded otherwise: 1e-5 of the largest weight after four steps of gradient descent.
    """
    plain = {**config, "steps": None, "epochs": 1, "batch": 13, "dropout": False, "optimizer": "sgd"}
    plain |= {"learning_rate": 0.1, "schedule": "constant"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(plain), encoding="utf-8")
    together(plain, tmp_path / "one")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command = [*torchrun, "bigsmall", "train", tmp_path / "config.yaml", "-o", tmp_path / "two"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written:") == 1
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, x in one.items():
        assert (x - two[name]).abs().max() <= 1e-5 * x.abs().max(), name
    tables = [(tmp_path / name / "validation.csv").read_text().splitlines()[-1] for name in ("one", "two")]
    first, second = ([float(cell) for cell in table.split(",")] for table in tables)
    assert second == pytest.approx(first, rel=1e-4)
