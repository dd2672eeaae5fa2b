"""The paired benchmark: ours and every peer interleaved in one process, after warm-up, correct before timed."""

from __future__ import annotations

import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import peers as peer_builders
import pytest
import torch
from ceilings import COPY, arithmetic, ceilings
from memory import growth
from torch import Tensor

import bigsmall_kernels as bk

CLIPS = (1, 2, 8, 60, 300, 3000)
ON_ALL_THREADS = 300  # clips from which on one thread is not timed
ROUNDS, FEWEST_ROUNDS = 9, 7  # a ratio is the median over them
SECONDS = 0.02  # of each contender in each round
PATIENCE = 4.0  # seconds of a contender in all its rounds: all but the fastest take part in those that fit
PAUSE = 0.02  # between contenders: thread pools stop spinning (ONNX Runtime's goes on for more than 3 ms)
FLOAT32_ERROR = 1e-5  # max|y - y64| / max|y64|, per tensor
MACHINE_FIELDS = ("machine", "processor", "cpu", "python_version", "system")
PEERS = ("numpy", "onnxruntime", "openvino", "opencv-python-headless")


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what was measured until then is still written


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`-k smoke`: the smallest row of every file, with peers that need no compiling. Large rows have all threads."""
    large = [item for item in items if _large_on_one_thread(getattr(item, "callspec", None))]
    items[:] = [item for item in items if item not in large]
    config.hook.pytest_deselected(items=large)
    for item in items:
        if item.name.partition("[")[2].startswith(("1thread-1clip", "1thread-1video")) and "training" not in item.name:
            item.extra_keyword_matches.add("smoke")


def _large_on_one_thread(call: Any) -> bool:
    params = call.params if call else {}
    return params.get("threads") == 1 and params.get("clips", 0) >= ON_ALL_THREADS


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    for field in set(machine_info) - set(MACHINE_FIELDS):
        del machine_info[field]
    cpu = machine_info.get("cpu", {})
    machine_info["cpu"] = {k: cpu[k] for k in ("brand_raw", "count", "l2_cache_size", "l3_cache_size") if k in cpu}
    machine_info |= {"torch": torch.__version__, "isa": bk.info()["isa"]}
    machine_info["peers"] = {name: _installed(name) for name in PEERS}


def pytest_benchmark_update_json(config: pytest.Config, benchmarks: Any, output_json: dict[str, Any]) -> None:
    for row in output_json["benchmarks"]:
        row["stats"].pop("data", None)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def quick(request: pytest.FixtureRequest) -> bool:
    return "smoke" in request.config.getoption("keyword")


@pytest.fixture(params=[1, 2], ids=["1thread", "2threads"])
def threads(request: pytest.FixtureRequest) -> Iterable[int]:
    if request.param > (os.cpu_count() or 1):
        pytest.skip(f"this machine has fewer than {request.param} cores")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=CLIPS, ids=lambda n: f"{n}clip{'s' * (n > 1)}")
def clips(request: pytest.FixtureRequest) -> int:
    clips: int = request.param
    return clips


def timed(call: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def error(actual: Any, truth: Sequence[Tensor]) -> float:
    """max|y - y64| / max|y64|, the worst of the outputs."""
    outputs = peer_builders.tensors(actual)
    assert [y.shape for y in outputs] == [y.shape for y in truth]
    return max(
        float((y.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-300))
        for y, exact in zip(outputs, truth, strict=True)
    )


def _bytes(outputs: Any) -> int:
    return sum(y.nbytes for y in peer_builders.tensors(outputs))


def _bars(bars: Mapping[str, float], info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """By name of what is measured: the bar of DESIGN, what was found and whether that meets it."""
    result = {}
    for name, bar in bars.items():
        found = info["peers"][name]["ratio"] if name in info["peers"] else info.get(name)
        if found is not None:
            met = found <= bar if name in ("extra_mb", "microseconds") else found >= bar
            result[name] = {"bar": bar, "found": found, "met": met}
    return result


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared folder: half a minute of noise."""
    from bigsmall.datasets import write_prepared

    frames = 900
    rng, folder, at = np.random.default_rng(0), tmp_path_factory.mktemp("prepared"), np.arange(0, frames, 3)
    signals = rng.normal(size=(2, frames)).astype(np.float32)
    arrays = {
        "small": rng.normal(size=(frames, 3, 9, 9)).astype(np.float16),
        "big": rng.integers(0, 256, (len(at), 144, 144, 3), dtype=np.uint8),
        "big_frame": at,
        "stretches": np.array([0, frames]),
        "timestamps": np.arange(frames) / 30,
        "bvp": signals[0],
        "respiration": signals[1],
        "au": rng.integers(0, 2, (frames, 12), dtype=np.uint8),
    }
    meta = {
        "name": "noise", "subject": "nobody", "dataset": "noise", "fps": 30.0, "convention": "exact", "crop": "frame",
        "big_mean": 127.5, "big_std": 73.6, "action_units": tuple(f"AU{i:02d}" for i in range(12)),
    }  # fmt: skip
    write_prepared(folder / "noise.safetensors", arrays, meta)
    entry = {"name": "noise", "subject": "nobody", "status": "done", "file": "noise.safetensors"}
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "spec": {}, "recordings": [entry]}))
    return folder


@pytest.fixture
def paired(benchmark: Any, threads: int) -> Callable[..., None]:
    """Time `ours` against `peers`, one round of each in turn, and keep the comparison in `extra_info`.

    Arguments of the fixture's function:
        op: the op or the model; the group of the row.
        ours: a call without arguments.
        peers: names with a call or the reason why there is none. Those whose error exceeds the tolerance are timed and
            published, but are no peers for the ratio (reduced precision), and neither are those named "ours ...".
        truth: what ours must return, in float64.
        kernel: the op whose kernel ran, where it is not `op`.
        flops: of one call; they give GFLOP/s of a direct computation, and their share of the ceiling.
        nbytes: that one call must move; without flops they give the share of a copy's speed.
        reading: a call that reads the same memory and does nothing else; its time over that of ours is kept.
        frames: of one call; they give frames per second.
        tolerance: of the error of ours.
        compared: the part of the outputs that `truth` holds, where holding all of it would not fit.
        steps: as many calls are one of the row's; each is a round.
        bars: what DESIGN asks for: of "ratio", of the ratio to a peer of that name, or of another entry of the row.
    """

    def run(
        op: str,
        ours: Callable[[], Any],
        peers: Iterable[tuple[str, Callable[[], Any] | str]],
        truth: Sequence[Tensor],
        *,
        kernel: str | None = None,
        flops: float = 0,
        nbytes: float = 0,
        reading: Callable[[], Any] | None = None,
        frames: int = 0,
        tolerance: float = FLOAT32_ERROR,
        compared: Callable[[Any], Any] = lambda outputs: outputs,
        steps: int = 1,
        bars: Mapping[str, float] | None = None,
    ) -> None:
        own_error = error(compared(ours()), truth)
        assert own_error <= tolerance, f"{op} is wrong by {own_error:.1e}: nothing is timed"
        own_growth = growth(ours, _bytes)[1]
        calls: dict[str, Callable[[], Any]] = {}
        errors: dict[str, float] = {}
        extra: dict[str, float | None] = {}
        seconds: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name, call in peers:
            if isinstance(call, str):
                missing[name] = call
                warnings.warn(f"{op}: {name} is left out: {call}", stacklevel=2)
                continue
            outputs, extra[name] = growth(call, _bytes)
            errors[name] = error(compared(outputs), truth)
            calls[name] = call
            del outputs
            second = time.perf_counter()
            again = growth(call, _bytes)[1]
            seconds[name] = time.perf_counter() - second
            if name not in peer_builders.KEEP_MEMORY:  # what is made only once is no part of it
                extra[name] = again

        for name, call in calls.items():
            if seconds[name] < 5 * SECONDS:
                seconds[name] = min(timed(call, 1) for _ in range(3))
        exact = [n for n in calls if errors[n] <= max(tolerance, 10 * FLOAT32_ERROR) and not n.startswith("ours")]
        fastest = min(seconds[name] for name in exact)
        rounds = max(steps, ROUNDS if ROUNDS * fastest < PATIENCE else FEWEST_ROUNDS)
        shares = {
            name: rounds if s < 1.5 * fastest else max(1, min(rounds, int(PATIENCE / s))) for name, s in seconds.items()
        }
        times = {name: max(1, round(SECONDS / s)) for name, s in seconds.items()}
        own_times = max(1, round(SECONDS / min(timed(ours, 1) for _ in range(2))))
        measured: dict[str, list[float]] = {name: [] for name in calls}
        read: list[float] = []

        def peers_round() -> None:
            for name, call in calls.items():
                if len(measured[name]) < shares[name]:
                    time.sleep(PAUSE)
                    if seconds[name] < SECONDS:  # its data and code into the caches
                        call()
                    measured[name].append(timed(call, times[name]))
            time.sleep(PAUSE)
            if reading is not None:
                reading()
                read.append(timed(reading, own_times))
            if own_times > 1:
                ours()

        def own_round() -> None:
            for _ in range(own_times):
                ours()

        benchmark.group = op
        benchmark.pedantic(own_round, setup=peers_round, rounds=rounds)
        own = [seconds / own_times for seconds in benchmark.stats.stats.data]

        # Those that are too slow for every round took part in the first ones.
        ratios = {name: [p / o for p, o in zip(rounds, own, strict=False)] for name, rounds in measured.items()}
        best = min(exact, key=lambda name: median(measured[name]))
        limits = ceilings(threads)
        ceiling = arithmetic(limits)
        info = bk.info()
        row: dict[str, Any] = {
            "threads": threads,
            "kernel": info["kernels"].get(kernel or op, {}).get("cpu", "reference"),
            "isa": info["isa"],
            "microseconds": steps * median(own) * 1e6,
            "steps": steps,
            "rounds": len(own),
            "error": own_error,
            "extra_mb": own_growth,
            "ratio": median(ratios[best]),
            "ratio_range": [min(ratios[best]), max(ratios[best])],
            "best_peer": best,
            "peers": {
                name: {
                    "microseconds": steps * median(measured[name]) * 1e6,
                    "ratio": median(ratios[name]),
                    "rounds": len(measured[name]),
                    "error": errors[name],
                    "extra_mb": extra[name],
                    "in_ratio": name in exact,
                }
                for name in calls
            },
            "missing": missing,
            "ceilings": limits,
            "ceiling": ceiling,
            "load": os.getloadavg()[0],
        }
        if frames:
            row["frames_per_second"] = frames / median(own)
        if flops:
            row["gflops"] = flops / median(own) / 1e9
            row["share_of_arithmetic"] = row["gflops"] / limits[ceiling]
            row["flops_per_byte"] = flops / nbytes
        elif nbytes:
            row["share_of_copy"] = nbytes / median(own) / 1e9 / limits[COPY]
        if read:
            row["share_of_reading"] = median(r / o for r, o in zip(read, own, strict=True))
        row["bars"] = _bars(bars or {}, row)
        benchmark.extra_info |= row

    return run
