"""A run that is killed at any instant ends with the same bits, on one process and on two; and two equal one."""

from __future__ import annotations

import csv
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
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

from bigsmall import weights
from bigsmall.datasets import Clips, open_prepared
from bigsmall.models import answer
from bigsmall.training.losses import known, losses

# New processes are copies of one that has everything imported, and so begin at once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["bigsmall.training.run", "bigsmall.datasets", "torch._dynamo"])  # optimizers want it

EVERYTHING = {
    "steps": 10, "checkpoint_every": 3, "clips": 2, "mirror": True, "dropout": True, "accumulate": 2, "pcgrad": True,
    "angles_every": 4, "schedule": "onecycle", "batch": 7, "keep": {"top": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = write_folder(tmp_path_factory.mktemp("data") / "made")
    validation = {"data": {"v": {"prepared": str(folder), "subjects": ["r0"]}}, "every": 4}
    return configuration(folder, validation=validation, **EVERYTHING)


def run(config: dict[str, Any], output: Path, rank: int, size: int, port: int, killed: str | None) -> None:
    """One process of a run, which writes down its steps, and the network at every validation, beside `output`.

    Kills itself before the event `killed`: "step S"; or, after that step, "FILE S", the renaming of a file into its
    place, and "forget S", the removal of weights that are no longer among the best.
    """
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    from bigsmall.training import kept, loop, train

    now, seen, one_step, validate = -1, [], loop.Step.__call__, loop.validate

    def event(name: str) -> None:
        if f"{name} {now}" == killed:
            end = time.monotonic() + 60  # or the first process is not there any more
            while rank and str(now) not in output.with_name("steps0").read_text().split() and time.monotonic() < end:
                time.sleep(0.01)  # until the first process, which writes the tables, is as far
            os.kill(os.getpid(), signal.SIGKILL)

    def before(function: Callable[..., Any], name: Callable[..., str]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            event(name(*args))
            return function(*args)

        return call

    def step(self: Any, number: int, *rest: Any) -> Any:
        nonlocal now
        now = number
        event("step")
        with open(output.with_name(f"steps{rank}"), "a", encoding="ascii") as file:
            file.write(f"{number}\n")
        return one_step(self, number, *rest)

    def watched(config: Any, work: loop.Work, group: Any) -> dict[str, float]:
        found = validate(config, work, group)
        seen.append({"found": found, "state": {k: x.clone() for k, x in work.model.state_dict().items()}})
        torch.save(seen, output.with_name(f"seen{rank}"))
        return found

    os.replace = before(os.replace, lambda _, path: Path(path).name)
    kept.Kept.forget = before(kept.Kept.forget, lambda _: "forget")  # type: ignore[method-assign]
    loop.Step.__call__, loop.validate = step, watched  # type: ignore[method-assign]
    train(config, output, workers=1)


def together(
    config: dict[str, Any], output: Path, size: int = 1, killed: tuple[int, str] | None = None
) -> list[list[int]]:
    """Run to the end, or until process killed[0] dies before its event killed[1]; the steps of each process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    output.parent.mkdir(exist_ok=True)
    steps = [output.with_name(f"steps{rank}") for rank in range(size)]
    for path in steps:
        path.write_text("")
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
        assert processes[killed[0]].exitcode == -signal.SIGKILL, f"{killed[1]} did not come"
    else:
        assert [process.exitcode for process in processes] == [0] * size
    return [[int(line) for line in path.read_text().split()] for path in steps]


def contents(folder: Path) -> dict[str, bytes]:
    """All that a run leaves, but for the checkpoint, whose bytes torch does not promise."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "checkpoint.pt"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


# Checkpoints are made after 3, 4, 6, 8, 9 and 10 steps, validations after 4, 8 and 10. Each kill with the process that
# dies, and the step of the checkpoint that it leaves.
KILLS = {
    1: [
        (0, "best.safetensors 3", 3),  # a file of the top is there, the best and the checkpoint are not
        (0, "step 5", 4),  # between two checkpoints
        (0, "checkpoint.pt 7", 6),  # the best, the top and the last are there
        (0, "model.safetensors 9", 10),  # after the last checkpoint
    ],
    2: [
        (1, "step 5", 4),
        (0, "checkpoint.pt 7", 6),
        (0, "forget 9", 10),  # after the last checkpoint, with one file too many at the top
    ],
}


@pytest.mark.parametrize("size", KILLS, ids=["1process", "2processes"])
def test_a_killed_run_ends_with_the_same_bits(size: int, config: dict, tmp_path: Path) -> None:
    """Killed again and again on its way, it goes on from the last checkpoint each time, and from nowhere else."""
    whole, killed = tmp_path / "uninterrupted" / "run", tmp_path / "killed" / "run"
    assert together(config, whole, size) == [[*range(10)]] * size
    begin = 0
    for rank, event, left in KILLS[size]:
        steps = together(config, killed, size, (rank, event))
        assert [of[:1] for of in steps] == [[*range(begin, 10)][:1]] * size, event
        state = torch.load(killed / "checkpoint.pt", weights_only=True)
        assert state["step"] == left
        beyond = (killed / "log.csv").stat().st_size > state["records"]["log"]
        assert beyond == (left < 10)  # what the table says of steps that will be done again
        begin = left
    assert together(config, killed, size) == [[]] * size
    expected, found = contents(whole), contents(killed)
    assert found.keys() == expected.keys()
    assert {"model.safetensors", "best.safetensors", "log.csv", "angles.csv", "validation.csv"} <= found.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def check_a_kill(config: dict, folder: Path, steps: int, killed: str, begin: int) -> None:
    """A run of so many steps, killed once, goes on from the one numbered `begin` and leaves what a whole run leaves."""
    whole, cut = folder / "uninterrupted" / "run", folder / "killed" / "run"
    assert together(config, whole) == [[*range(steps)]]
    together(config, cut, killed=(0, killed))
    assert together(config, cut) == [[*range(begin, steps)]]
    expected, found = contents(whole), contents(cut)
    assert found.keys() == expected.keys()
    assert [name for name in found if found[name] != expected[name]] == []


def test_a_killed_compiled_run_ends_with_the_same_bits(config: dict, tmp_path: Path) -> None:
    """It meets an epoch's last part, of 10 clips, first; the whole run one of 15."""
    epochs = {"steps": None, "epochs": 2, "batch": 15, "accumulate": 1, "checkpoint_every": 2}
    config = config | epochs | {"compile": True, "bfloat16": True}
    check_a_kill(config, tmp_path, steps=6, killed="step 3", begin=2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU: training on one is not tested")
@pytest.mark.parametrize("bfloat16", [False, True])
def test_a_killed_run_on_a_gpu_ends_with_the_same_bits(bfloat16: bool, config: dict, tmp_path: Path) -> None:
    check_a_kill(config | {"device": "cuda", "bfloat16": bfloat16}, tmp_path, steps=10, killed="step 5", begin=4)


def test_tensorboard_shows_a_killed_runs_every_step_once(config: dict, tmp_path: Path) -> None:
    """With the validation of the step that it goes on from, and nothing twice."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = config | {"tensorboard": True, "checkpoint_every": 10}
    together(config, tmp_path / "run", killed=(0, "step 7"))
    assert together(config, tmp_path / "run") == [[*range(4, 10)]]
    board = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    for table, done in (("log", 1), ("validation", 0)):  # a row of the log is of the step, not of the steps done
        with open(tmp_path / "run" / f"{table}.csv", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        shown = board.Scalars(f"{table}/pulse")
        assert [event.step for event in shown] == [int(row["step"]) + done for row in rows]
        assert [event.value for event in shown] == pytest.approx([float(row["pulse"]) for row in rows], rel=1e-5)


def test_two_processes_validate_the_network_that_is_kept(tmp_path: Path) -> None:
    """Batch normalisation's running statistics too, which each process has of its own clips between the steps."""
    frames = np.random.default_rng(0).integers(0, 256, (30, 36, 36, 3), dtype=np.uint8)
    data = write_folder(tmp_path / "made", 2, frames_36=frames)
    model = {"name": "efficientphys", "options": {"size": 36, "n_segment": 3}}
    validation = {"data": {"v": {"prepared": str(data)}}, "every": 1}
    changes = {"steps": 3, "batch": 4, "learning_rate": 0.03, "model": model, "keep": {"top": 3}}
    together(configuration(data, validation=validation, **changes), tmp_path / "run", 2)
    for first, second in zip(*(torch.load(tmp_path / f"seen{rank}") for rank in (0, 1)), strict=True):
        assert first["found"] == second["found"]
        assert [name for name, x in first["state"].items() if not torch.equal(x, second["state"][name])] == []
    with open(tmp_path / "run" / "validation.csv", encoding="utf-8") as file:
        rows = [{name: float(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    best = min(rows, key=lambda row: row["loss"])
    for row in rows:
        network, _ = weights.load_network(tmp_path / "run" / "top" / f"step-{int(row['step']):06d}.safetensors")
        inputs, targets = Clips(open_prepared(data), 3, network.reads, network.tasks).batch(range(20))
        with torch.inference_mode():
            (loss,) = losses(answer(network.eval(), inputs), targets, known(targets)).values()
        assert row["loss"] == pytest.approx(loss.item(), rel=1e-4)
    (card,) = weights.load(tmp_path / "run" / "best.safetensors").cards
    assert card.details["step"] == best["step"]


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two GPUs: training on two is not tested")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=TWO_GPUS)])
def test_two_processes_equal_one(device: str, config: dict, tmp_path: Path) -> None:
    """By torchrun, as a user would; batches of 13, 13, 13 and 1 clips: of the last, one process has none.

    Sums are rounded otherwise: 1e-5 of the largest weight after four steps of gradient descent.
    """
    plain = {**config, "steps": None, "epochs": 1, "batch": 13, "dropout": False, "optimizer": "sgd"}
    plain |= {"learning_rate": 0.1, "schedule": "constant", "device": device}
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
