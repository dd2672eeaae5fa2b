"""What the chip does in the very run that is judged by it: multiply-adds in registers, a large product, a copy."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch

FMA, PRODUCT, COPY = "FMA GFLOP/s", "torch.mm GFLOP/s", "copy_ GB/s"
_FMA_ROUNDS = 2_000_000  # some 10 ms


def _best(call: Callable[[], Any], rounds: int = 7) -> float:
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


@cache
def _fma_loop() -> ctypes.CDLL | None:
    """`fma.c`, compiled for this processor; None where there is no compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "fma.so")
        options = ("-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC")
        subprocess.run([compiler, *options, Path(__file__).with_name("fma.c"), "-o", library], check=True)
        loop = ctypes.CDLL(str(library))
    loop.run.argtypes, loop.run.restype = [ctypes.c_long, ctypes.c_float, ctypes.c_float], ctypes.c_float
    loop.flops_of_a_round.restype = ctypes.c_long
    return loop


def _fma(threads: int) -> dict[str, float]:
    loop = _fma_loop()
    if loop is None:
        return {}
    with ThreadPoolExecutor(threads) as pool:

        def everywhere() -> None:
            list(pool.map(lambda _: loop.run(_FMA_ROUNDS, 0.5, 0.5), range(threads)))

        return {FMA: threads * _FMA_ROUNDS * loop.flops_of_a_round() / _best(everywhere, 15) / 1e9}


@cache
def ceilings(threads: int) -> dict[str, float]:
    """By name; without a compiler the product stands for the multiply-adds."""
    a, b, out = (torch.randn(1536, 1536) for _ in range(3))
    source = torch.ones(1 << 27)  # 512 MB
    target = torch.empty_like(source)
    return _fma(threads) | {
        PRODUCT: 2 * 1536**3 / _best(lambda: torch.mm(a, b, out=out)) / 1e9,
        COPY: 2 * source.nbytes / _best(lambda: target.copy_(source), 3) / 1e9,  # read plus written
    }


def arithmetic(limits: dict[str, float]) -> str:
    """The name of the ceiling of GFLOP/s."""
    return FMA if FMA in limits else PRODUCT
