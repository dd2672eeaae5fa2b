"""The GPU kernels, measured: `python bench/gpu.py` (under 8 minutes; torch, triton and numpy are enough).

Correct first: what differs from float64 by more than DESIGN's rules is named and not timed. Then, in turn and in one
process, every op and the network on our backends and as plain PyTorch, eager and compiled, with and without CUDA
graphs, beside the ceilings of the same run. The results go to bench/results/<device>/ after every row.

    python bench/gpu.py                          # everything
    python bench/gpu.py --table                  # which backend is fastest, for _choosers.py
    python bench/gpu.py --tiles                  # which tiles are, for _triton/common.py
    python bench/gpu.py --device cpu --quick     # a dry run of the same code: no measurement
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import datetime
import importlib.metadata
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(1, str(ROOT))  # where nothing is installed

import gpu_cases as cases  # noqa: E402
import gpu_report  # noqa: E402
import gpu_table  # noqa: E402
import gpu_tiles  # noqa: E402
from gpu_clock import DTYPES, Clock, Contender, precision  # noqa: E402

import bigsmall_kernels as bk  # noqa: E402
from bigsmall_kernels import _choosers  # noqa: E402

LIMIT = 450.0  # seconds; what is not measured by then is left out
COMPILING, AUTOTUNING = 13.0, 40.0  # seconds that must be left in a section to begin with torch.compile, max-autotune
CLIPS = (1, 16, 256)
OPS = {
    "wtsm": cases.wtsm,
    "wtsm_conv2d": cases.wtsm_conv2d,
    "wtsm_conv2d_stack": cases.wtsm_conv2d_stack,
    **{f"double_conv2d_pool {block}": partial(cases.double_conv2d_pool, block) for block in cases.BLOCKS},
}
WHOLE = ("bigsmall", "frames to outputs")
GIB = {
    "wtsm": lambda: cases.wtsm((1 << 30) // (3 * 32 * 81 * 4)),
    "standardize": lambda: cases.normaliser("standardize", (1 << 30) // (144 * 144 * 3 * 4)),
    "diff_normalize": lambda: cases.normaliser("diff_normalize", (1 << 30) // (144 * 144 * 3 * 4)),
}


class Row(NamedTuple):
    size: str
    dtype: str  # a name of DTYPES
    make: Callable[[], cases.Case]
    compiled: bool  # beside torch.compile


def sections(clock: Clock) -> Iterator[tuple[str, float, list[Row]]]:
    """(name, seconds, rows): what matters most comes first; what a section leaves over is the next one's."""
    quick, names = clock.quick, list(clock.dtypes)
    sizes = (1,) if quick else CLIPS

    def rows(makes: dict[str, Callable[[int], cases.Case]], dtypes: list[str], compiled: bool) -> list[Row]:
        return [
            Row(f"{clips} clip{'s' * (clips > 1)}", dtype, partial(make, clips), compiled)
            for dtype in dtypes
            for clips in sizes
            for make in makes.values()
        ]

    side = 16 if quick else 144
    inputs = {"inputs": partial(cases.bigsmall_inputs, side=side)}
    yield "network", 130, rows({"bigsmall": cases.network}, names[:1], True)
    yield "ops in bfloat16", 130, rows(OPS, names[:1], True)
    gib = {"standardize": partial(cases.normaliser, "standardize", 3, 16)} if quick else GIB
    yield "a GiB", 30, [Row("tiny" if quick else "1 GiB", "float32", make, True) for make in gib.values()]
    yield "frames", 40, rows(inputs, ["float32"], False) + rows({"pipeline": cases.pipeline}, names[:1], False)
    yield "network in other dtypes", 40, rows({"bigsmall": cases.network}, names[1:], False)
    yield "ops in other dtypes", 60, rows(OPS, names[1:], False)


# --- one row ----------------------------------------------------------------------------------------------------------


def allowed(dtype: str, eager: float) -> float:
    """DESIGN's rules."""
    if dtype == "float32":
        return 1e-5
    return max(2 * eager, 5e-3) if dtype == "tf32" else max(2 * eager, 2 * torch.finfo(DTYPES[dtype]).eps)


def reason(problem: Exception) -> str:
    return " ".join(f"{type(problem).__name__}: {problem}".split())[:200]


def channels_last(values: Any) -> Any:
    return pytree.tree_map_only(
        Tensor, lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x, values
    )


def contenders(case: cases.Case, row: Row, clock: Clock, left: Callable[[], float]) -> Iterator[tuple[str, Any]]:
    """(name, a contender or the reason why there is none): plain PyTorch first."""
    layouts = [("NCHW", lambda v: v), ("channels_last", channels_last)] if case.layouts else [("", lambda v: v)]
    for layout, turned in layouts:
        inputs = turned(case.inputs)
        plain = copy.deepcopy(case.plain)
        plain = plain.to(memory_format=torch.channels_last) if layout == "channels_last" else plain
        yield f"eager {layout}".strip(), Contender(partial(plain, *inputs))
    torch._dynamo.reset()
    for mode, least in (("default", COMPILING), ("max-autotune-no-cudagraphs", AUTOTUNING)):
        name = f"compile {mode.partition('-no')[0]}"
        if not row.compiled or left() < least:
            yield name, "no time left" if row.compiled else "not asked for"
            continue
        options = {"backend": "aot_eager"} if clock.quick else {"mode": mode}
        run = torch.compile(copy.deepcopy(plain), fullgraph=True, dynamic=False, **options)
        yield name, Contender(partial(run, *inputs))  # in the last layout, which convolutions like best
    whole = case.op in WHOLE  # of several ops: also each by what the table chooses
    backends = ("table", "triton") if whole else _choosers.INSTALLED
    for backend in backends if clock.cuda else ("reference",):
        context = contextlib.nullcontext if backend == "table" else partial(bk.use_backend, backend)
        for layout, turned in layouts:
            yield f"{backend} {layout}".strip(), Contender(partial(case.ours, *turned(case.inputs)), context)


def measure(row: Row, clock: Clock, ceilings: dict[str, float], left: Callable[[], float]) -> dict[str, Any]:
    """Everything about one row: correct, then timed."""
    torch.manual_seed(0)
    dtype = DTYPES[row.dtype]
    case = row.make().to(clock.device, dtype)
    found: dict[str, Any] = {"op": case.op, "size": row.size, "dtype": row.dtype, "frames": case.frames, "times": {}}
    errors: dict[str, float] = {}
    missing: dict[str, str] = {}
    right: dict[str, Contender] = {}
    with precision(row.dtype), torch.no_grad():
        truth = cases.exactly(case, clock.device)
        if row.size == "1 clip" and clock.cuda:  # the truth itself, against the CPU's
            off = cases.error([y.cpu() for y in truth], cases.exactly(case, "cpu"))
            assert off < 1e-9, f"{case.op}: float64 on the GPU is wrong by {off:.1e}"
        for name, contender in contenders(case, row, clock, left):
            if isinstance(contender, str):
                missing[name] = contender
                continue
            try:
                with contender.context():
                    errors[name] = cases.error(contender.call(), truth)
            except Exception as problem:  # a contender that does not run here is named
                missing[name] = reason(problem)
                continue
            eager = min(errors[n] for n in errors if n.startswith("eager"))
            if errors[name] <= allowed(row.dtype, eager):
                right[name] = contender
            else:
                missing[name] = f"WRONG by {errors[name]:.1e}: not timed"
        del truth
        graphs = {}
        for name, contender in right.items():
            try:
                graphs[f"{name} | graph"] = clock.graph(contender)
            except Exception as problem:
                missing[f"{name} | graph"] = reason(problem)
        seconds = clock.measure({**right, **graphs})
    nbytes = case.elements * dtype.itemsize + case.nbytes
    for name, value in seconds.items():
        rates: dict[str, float] = {"microseconds": value * 1e6, "error": errors[name.partition(" |")[0]]}
        if nbytes:
            rates |= {"GB/s": nbytes / value / 1e9, "share of copy": nbytes / value / 1e9 / ceilings["copy GB/s"]}
        if case.flops:
            rate = case.flops / value / 1e12
            rates |= {"TFLOP/s": rate, "share of product": rate / ceilings[f"{row.dtype} TFLOP/s"]}
        if case.frames:
            rates["frames/s"] = case.frames / value
        found["times"][name] = rates
    return found | {"missing": missing}


# --- the run ----------------------------------------------------------------------------------------------------------


def provenance(clock: Clock) -> dict[str, Any]:
    def said(*command: str) -> str | None:
        try:
            return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return None

    changed = said("git", "status", "--porcelain", "--untracked-files=no")
    query = ("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    info = bk.info()
    return {
        "dry_run": not clock.cuda or clock.quick,
        "device": torch.cuda.get_device_name() if clock.cuda else "cpu",
        "capability": torch.cuda.get_device_capability() if clock.cuda else None,
        "driver": said(*query) if clock.cuda else None,
        "cuda": torch.version.cuda,
        "torch": torch.__version__,
        "triton": importlib.metadata.version("triton") if "triton" in _choosers.INSTALLED else None,
        "cuda_library": info["cuda_library"]["note"],
        "kernels": {op: devices["cuda"] for op, devices in info["kernels"].items()},
        "commit": said("git", "rev-parse", "HEAD"),
        "uncommitted": bool(changed),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def run(clock: Clock, save: Callable[[dict[str, Any]], None], limit: float) -> dict[str, Any]:
    begun = time.monotonic()
    results: dict[str, Any] = {**provenance(clock), "rows": [], "left_out": []}

    def spent() -> float:
        return time.monotonic() - begun

    def cut() -> None:  # something does not return: what there is is written
        results["left_out"].append(f"everything after {limit:.0f} s")
        save(results)
        print(f"stopped after {limit:.0f} s", file=sys.stderr)
        os._exit(3)

    guard = threading.Timer(limit + 15, cut)
    guard.daemon = True
    guard.start()
    results["ceilings"] = clock.ceilings()
    until = spent()
    for section, seconds, rows in sections(clock):
        until = min(until + seconds, limit)
        for row in rows:
            if spent() > until:
                results["left_out"].append(f"{section}: {row.size}, {row.dtype}")
                continue
            try:
                found = measure(row, clock, results["ceilings"], lambda until=until: until - spent())
            except Exception as problem:  # too little memory, or a kernel that took the device down: the rest is kept
                results["left_out"].append(f"{section}: {row.size}, {row.dtype}: {reason(problem)}")
                continue
            results["rows"].append({"section": section, **found})
            results["seconds"] = round(spent(), 1)
            print(gpu_report.line(found), file=sys.stderr, flush=True)
            save(results)
            if clock.cuda:
                torch.cuda.empty_cache()
    guard.cancel()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: a dry run, with --quick")
    parser.add_argument("--quick", action="store_true", help="the smallest sizes, once: a dry run")
    parser.add_argument("--table", action="store_true", help="suggest rows for the chooser's table")
    parser.add_argument("--tiles", action="store_true", help="suggest tiles for Triton's convolutions")
    parser.add_argument("-o", "--output", type=Path, help="folder of the results [bench/results/<device>]")
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds [%(default)s]")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.exit(2, "no GPU: nothing is measured (--device cpu --quick tries the code)\n")
    if asked.device == "cpu" and not asked.quick:
        parser.exit(2, "--device cpu needs --quick: it is a dry run and no measurement\n")
    torch.backends.cudnn.benchmark = True  # the fastest of cuDNN's ways
    clock = Clock(asked.device, quick=asked.quick)
    folder = asked.output
    if folder is None and not asked.quick:
        folder = ROOT / "bench" / "results" / re.sub(r"\W+", "-", torch.cuda.get_device_name()).lower()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")
    if asked.table or asked.tiles:
        name, suggests = ("table", gpu_table) if asked.table else ("tiles", gpu_tiles)
        suggested = suggests.run(clock, provenance(clock), asked.limit)
        gpu_report.write(name, suggested, suggests.table(suggested), folder)
    else:

        def write(results: dict[str, Any]) -> None:
            gpu_report.write("gpu", results, gpu_report.table(results), folder)

        results = run(clock, write if folder else lambda results: None, asked.limit)
        write(results)
        if folder:
            gpu_report.picture(results, folder / "gpu.png")


if __name__ == "__main__":
    main()
