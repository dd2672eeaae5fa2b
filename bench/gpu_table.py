"""What `_choosers.TABLE` and the block sizes of `_triton/common.py` should say: `bench/gpu.py --table`."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from unittest import mock

import gpu_cases as cases
import torch
from gpu_clock import DTYPES, Clock, Contender, precision

import bigsmall_kernels as bk
from bigsmall_kernels import _choosers

CLIPS = (1, 4, 16, 64, 256)
MAKES = {
    "wtsm": cases.wtsm,
    "wtsm_conv2d": cases.wtsm_conv2d,
    "wtsm_conv2d_stack": cases.wtsm_conv2d_stack,
    **{f"double_conv2d_pool {block}": partial(cases.double_conv2d_pool, block) for block in cases.BLOCKS},
    "standardize": lambda clips: cases.normaliser("standardize", 3 * clips),
    "diff_normalize": lambda clips: cases.normaliser("diff_normalize", 3 * clips + 1),
    "bigsmall_inputs": cases.bigsmall_inputs,
}
TILED = ("wtsm_conv2d", "double_conv2d_pool")  # whose block sizes `blocks` gives
TILES = tuple(itertools.product((32, 64, 128), (16, 32, 64), (4, 8)))  # rows, depth, warps


@contextlib.contextmanager
def _with(backend: str, tile: tuple[int, int, int] | None) -> Iterator[None]:
    """A backend, and Triton's convolutions with one tile whatever the size."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(bk.use_backend(backend))
        if tile is not None:
            from bigsmall_kernels._triton import common, wtsm_conv2d

            rows, depth, warps = tile

            def blocks(x: torch.Tensor, pixels: int, filters: int, terms: int) -> common.Blocks:
                return common.Blocks(rows, common.blocks(x, pixels, filters, terms).columns, depth, warps)

            stack.enter_context(mock.patch.object(wtsm_conv2d, "blocks", blocks))
        yield


def _ways(op: str, clock: Clock) -> Iterator[tuple[str, str, tuple[int, int, int] | None]]:
    """(name, backend, tile): every backend as it is, and Triton with other tiles."""
    for backend in _choosers.INSTALLED if clock.cuda else ("reference",):
        yield backend, backend, None
    if op.startswith(TILED) and clock.cuda:
        for tile in TILES:
            yield "triton rows {}, depth {}, warps {}".format(*tile), "triton", tile


def _measured(case: cases.Case, op: str, clock: Clock) -> dict[str, float]:
    """Seconds of each way that runs here and agrees with plain PyTorch in float64, in CUDA graphs."""
    exact = cases.exactly(case, clock.device)
    graphs = {}
    for name, backend, tile in _ways(op, clock):
        contender = Contender(partial(case.ours, *case.inputs), partial(_with, backend, tile))
        try:
            with contender.context():
                wrong = cases.error(contender.call(), exact)
            if wrong < 3e-2:
                graphs[name] = clock.graph(contender)
        except Exception:  # no such kernel, or a tile that this device has no room for
            continue
    return clock.measure(graphs)


def run(clock: Clock, provenance: dict[str, Any], limit: float) -> dict[str, Any]:
    begun = time.monotonic()
    results: dict[str, Any] = {**provenance, "rows": [], "left_out": []}
    for clips, dtype, (op, make) in itertools.product(CLIPS[:1] if clock.quick else CLIPS, clock.dtypes, MAKES.items()):
        if time.monotonic() - begun > limit:
            results["left_out"].append(f"{op}, {clips} clips, {dtype}")
            continue
        case = make(clips).to(clock.device, DTYPES[dtype])
        with precision(dtype), torch.no_grad():
            seconds = _measured(case, op, clock)
        row = {"op": op, "clips": clips, "dtype": dtype, "elements": case.inputs[0].numel()}
        results["rows"].append({**row, "microseconds": {name: s * 1e6 for name, s in seconds.items()}})
    return results


def table(results: dict[str, Any]) -> str:
    lines = [
        f"{'A DRY RUN: no measurement. ' if results['dry_run'] else ''}{results['date'][:10]}, {results['device']}, "
        f"commit {results['commit']}.",
        "",
        "Times in CUDA graphs, microseconds. `elements` is what `Row.elements` counts: the first tensor's.",
        "",
        "| op | dtype | elements | row that should come first | its time | block sizes | their time |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(results["rows"], key=lambda row: (row["op"], row["dtype"], row["elements"])):
        times = row["microseconds"]
        backends = {name: value for name, value in times.items() if " " not in name}
        tiles = {name.removeprefix("triton "): value for name, value in times.items() if " " in name}
        cells = [row["op"], row["dtype"], f"{row['elements']:,}"]
        for found in (backends, tiles):
            best = min(found, key=found.__getitem__) if found else ""
            cells += [best, f"{found[best]:,.1f}" if best else ""]
        lines.append(f"| {' | '.join(cells)} |")
    if results["left_out"]:
        lines += ["", f"Left out: {'; '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"
