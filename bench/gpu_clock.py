"""Time on a GPU: events around many calls, contenders in turn, CUDA graphs, and the ceilings of the same run.

On a CPU the same calls run with stand-ins, so that a dry run goes the same ways; what it times is no measurement.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import torch

ROUNDS = 7  # a time is the median over them
SECONDS = 0.004  # of each contender in each round

DTYPES = {
    "bfloat16": torch.bfloat16,
    "tf32": torch.float32,
    "float16": torch.float16,
    "float32": torch.float32,
}


class Contender(NamedTuple):
    """A call without arguments, and what it runs in."""

    call: Callable[[], Any]
    context: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext


class Clock:
    def __init__(self, device: str, *, quick: bool) -> None:
        self.device, self.cuda, self.quick = device, device == "cuda", quick
        self.dtypes = ("bfloat16", "float32") if quick else tuple(DTYPES)

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def seconds(self, contender: Contender, times: int) -> float:
        """Of one call, out of `times` one after another."""
        with contender.context(), torch.no_grad():
            if not self.cuda:
                start = time.perf_counter()
                for _ in range(times):
                    contender.call()
                return (time.perf_counter() - start) / times
            before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            before.record()
            for _ in range(times):
                contender.call()
            after.record()
            after.synchronize()
            return before.elapsed_time(after) / 1000 / times

    def graph(self, contender: Contender) -> Contender:
        """Its call, recorded once and replayed."""
        if not self.cuda:
            return contender
        with contender.context(), torch.no_grad():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(3):
                    contender.call()
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                contender.call()
        return Contender(graph.replay)

    def measure(self, contenders: dict[str, Contender]) -> dict[str, float]:
        """Median seconds of a call, a round of each in turn."""
        times = {}
        for name, contender in contenders.items():
            self.seconds(contender, 1 if self.quick else 3)
            times[name] = max(1, min(1000, round(SECONDS / max(self.seconds(contender, 1), 1e-7))))
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(1 if self.quick else ROUNDS):
            for name, contender in contenders.items():
                found[name].append(self.seconds(contender, 1 if self.quick else times[name]))
        return {name: median(seconds) for name, seconds in found.items()}

    def ceilings(self) -> dict[str, float]:
        """GB/s of a copy, read plus written; TFLOP/s of a large product in each dtype; on random numbers."""
        elements, side = (1 << 12, 64) if self.quick else (1 << 28, 8192)
        source = torch.rand(elements, device=self.device)
        target = torch.empty_like(source)
        copy = Contender(lambda: target.copy_(source))
        found = {"copy GB/s": 2 * source.nbytes / self.measure({"": copy})[""] / 1e9}
        for name in self.dtypes:
            a, b = (torch.randn(side, side, device=self.device).to(DTYPES[name]) for _ in range(2))
            out = torch.empty_like(a)
            with precision(name):
                product = Contender(lambda a=a, b=b, out=out: torch.mm(a, b, out=out))
                found[f"{name} TFLOP/s"] = 2 * side**3 / self.measure({"": product})[""] / 1e12
        return found


@contextlib.contextmanager
def precision(name: str) -> Any:
    """float32 products as TF32 or not."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before
