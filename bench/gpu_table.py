"""Which backend `_choosers.TABLE` should list first: `bench/gpu.py --table`."""

from __future__ import annotations

import itertools
import time
from functools import partial
from typing import Any

import gpu_cases as cases
import torch
from gpu_clock import DTYPES, Clock, Contender, precision
from gpu_report import heading

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


def _measured(case: cases.Case, clock: Clock) -> dict[str, float]:
    """Seconds of each backend that runs here and agrees with plain PyTorch in float64, in CUDA graphs."""
    exact = cases.exactly(case, clock.device)
    graphs = {}
    for backend in _choosers.INSTALLED if clock.cuda else ("reference",):
        contender = Contender(partial(case.ours, *case.inputs), partial(bk.use_backend, backend))
        try:
            with contender.context():
                wrong = cases.error(contender.call(), exact)
            if wrong < 3e-2:
                graphs[backend] = clock.graph(contender)
        except Exception:  # no such kernel
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
            seconds = _measured(case, clock)
        row = {"op": op, "clips": clips, "dtype": dtype, "elements": case.inputs[0].numel()}
        results["rows"].append({**row, "microseconds": {name: s * 1e6 for name, s in seconds.items()}})
    return results


def table(results: dict[str, Any]) -> str:
    lines = [
        heading(results),
        "",
        "Times in CUDA graphs, microseconds. `elements` is what `Row.elements` counts: the first tensor's.",
        "",
        "| op | dtype | elements | row that should come first | its time |",
        "|---|---|---|---|---|",
    ]
    for row in sorted(results["rows"], key=lambda row: (row["op"], row["dtype"], row["elements"])):
        times = row["microseconds"]
        best = min(times, key=times.__getitem__) if times else ""
        cells = [row["op"], row["dtype"], f"{row['elements']:,}", best, f"{times[best]:,.1f}" if best else ""]
        lines.append(f"| {' | '.join(cells)} |")
    if results["left_out"]:
        lines += ["", f"Left out: {'; '.join(results['left_out'])}."]
    return "\n".join(lines) + "\n"
