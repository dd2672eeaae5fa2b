"""The paired benchmark: ours and every peer interleaved in one process, after warm-up, correct before timed."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from statistics import median
from typing import Any

import peers as peer_builders
import pytest
import torch
from torch import Tensor

import bigsmall_kernels as bk

ROUNDS = 9  # a ratio is the median over at least 7
SECONDS = 0.02  # of each contender in each round
PAUSE = 0.003  # between contenders: thread pools stop spinning
FLOAT32_ERROR = 1e-5  # max|y - y64| / max|y64|, per tensor
MACHINE_FIELDS = ("machine", "processor", "cpu", "python_version", "system")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """`-k smoke`: the smallest row of every file, with the peers that need no compiling."""
    for item in items:
        if item.name.partition("[")[2].startswith(("1thread-1clip", "1thread-1video")) and "training" not in item.name:
            item.extra_keyword_matches.add("smoke")


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    for field in set(machine_info) - set(MACHINE_FIELDS):
        del machine_info[field]
    cpu = machine_info.get("cpu", {})
    machine_info["cpu"] = {k: cpu[k] for k in ("brand_raw", "count", "l2_cache_size", "l3_cache_size") if k in cpu}
    machine_info |= {"torch": torch.__version__, "isa": bk.info()["isa"]}


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


@pytest.fixture(params=[1, 8], ids=["1clip", "8clips"])
def clips(request: pytest.FixtureRequest) -> int:
    clips: int = request.param
    return clips


@cache
def ceilings(threads: int) -> dict[str, float]:
    """What the chip did in this very run: a large float32 torch.mm; Tensor.copy_, read plus written."""

    def best(call: Callable[[], Any], rounds: int = 7) -> float:
        call()
        return min(_timed(call, 1) for _ in range(rounds))

    a, b, out = (torch.randn(1536, 1536) for _ in range(3))
    source = torch.ones(1 << 27)  # 512 MB
    target = torch.empty_like(source)
    return {
        "torch.mm GFLOP/s": 2 * 1536**3 / best(lambda: torch.mm(a, b, out=out)) / 1e9,
        "copy_ GB/s": 2 * source.nbytes / best(lambda: target.copy_(source), 3) / 1e9,
    }


def _timed(call: Callable[[], Any], times: int) -> float:
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def _error(actual: Any, truth: Sequence[Tensor]) -> float:
    """max|y - y64| / max|y64|, the worst of the outputs."""
    outputs = peer_builders.tensors(actual)
    assert [y.shape for y in outputs] == [y.shape for y in truth]
    return max(
        float((y.double() - exact).abs().max() / exact.abs().max().clamp_min(1e-300))
        for y, exact in zip(outputs, truth, strict=True)
    )


@pytest.fixture
def paired(benchmark: Any, threads: int, quick: bool) -> Callable[..., None]:
    """Time `ours` against `peers`, one round of each in turn, and keep the comparison in `extra_info`.

    Arguments of the fixture's function:
        op: the op or the model; the group of the row.
        ours: a call without arguments.
        peers: names with a call or the reason why there is none. Those whose error exceeds the tolerance are timed and
            published, but are no peers for the ratio (reduced precision).
        truth: what ours must return, in float64.
        kernel: the op whose kernel ran, where it is not `op`.
        flops, nbytes: of one call; they give the share of the ceilings.
        frames: of one call; they give frames per second.
        tolerance: of the error of ours.
        compared: the part of the outputs that `truth` holds, where holding all of it would not fit.
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
        frames: int = 0,
        tolerance: float = FLOAT32_ERROR,
        compared: Callable[[Any], Any] = lambda outputs: outputs,
    ) -> None:
        error = _error(compared(ours()), truth)
        assert error <= tolerance, f"{op} is wrong by {error:.1e}: nothing is timed"
        calls: dict[str, Callable[[], Any]] = {}
        errors: dict[str, float] = {}
        missing: dict[str, str] = {}
        for name, call in peers:
            if isinstance(call, str):
                missing[name] = call
                warnings.warn(f"{op}: {name} is left out: {call}", stacklevel=2)
            else:
                errors[name] = _error(compared(call()), truth)
                calls[name] = call

        for call in (ours, *calls.values()):
            _timed(call, 3)
        times = {name: max(1, round(SECONDS / _timed(call, 1))) for name, call in calls.items()}
        own_times = max(1, round(SECONDS / _timed(ours, 1)))
        measured: dict[str, list[float]] = {name: [] for name in calls}

        def peers_round() -> None:
            for name, call in calls.items():
                time.sleep(PAUSE)
                call()
                measured[name].append(_timed(call, times[name]))
            time.sleep(PAUSE)
            ours()

        def own_round() -> None:
            for _ in range(own_times):
                ours()

        benchmark.group = op
        benchmark.pedantic(own_round, setup=peers_round, rounds=ROUNDS)
        own = [seconds / own_times for seconds in benchmark.stats.stats.data]

        ratios = {name: [p / o for p, o in zip(rounds, own, strict=True)] for name, rounds in measured.items()}
        exact = [name for name in calls if errors[name] <= max(tolerance, 10 * FLOAT32_ERROR)]
        best = min(exact, key=lambda name: median(measured[name]))
        limits = ceilings(threads)
        info = bk.info()
        seconds = median(own)
        benchmark.extra_info |= {
            "threads": threads,
            "kernel": info["kernels"].get(kernel or op, {}).get("cpu", "reference"),
            "isa": info["isa"],
            "microseconds": seconds * 1e6,
            "error": error,
            "ratio": median(ratios[best]),
            "ratio_range": [min(ratios[best]), max(ratios[best])],
            "best_peer": best,
            "peers": {
                name: {
                    "microseconds": median(measured[name]) * 1e6,
                    "ratio": median(ratios[name]),
                    "error": errors[name],
                    "in_ratio": name in exact,
                }
                for name in calls
            },
            "missing": missing,
            "ceilings": limits,
            "load": os.getloadavg()[0],
            **({"frames_per_second": frames / seconds} if frames else {}),
            **({"share_of_mm": flops / seconds / 1e9 / limits["torch.mm GFLOP/s"]} if flops else {}),
            **({"share_of_copy": nbytes / seconds / 1e9 / limits["copy_ GB/s"]} if nbytes else {}),
        }

    return run
