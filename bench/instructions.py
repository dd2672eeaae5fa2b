"""Instructions instead of seconds, so that a change can be judged on a noisy machine.

Every op and the model on one thread, counted by `valgrind --tool=callgrind` on each instruction set that valgrind knows
(3.19 has no AVX-512). `python bench/instructions.py [-o STEM] [--against FILE.json]` writes STEM.json and STEM.md;
--against prints how the counts have changed since that file was written. Needs valgrind, its headers, a C compiler
and some minutes.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from bench_double_conv2d_pool import BLOCKS

import bigsmall_kernels as bk
from bigsmall import models

ISAS = ("avx2", "portable")
CLIPS = (1, 8)
TRUNK = (3, 32, 32, 32, 64)  # channels of the Small branch
WARM_UP = 2  # calls: weights are packed, caches filled, symbols bound
NAMED = 3  # functions of a row that are named
LIBRARY = "_C.abi3.so"

# Client requests are instructions that mean nothing outside of valgrind: Python needs a library to execute them.
REQUESTS = """
#include <valgrind/callgrind.h>
void start(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void stop(const char* name) { CALLGRIND_DUMP_STATS_AT(name); CALLGRIND_STOP_INSTRUMENTATION; }
"""


def calls(clips: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Every op and the model, at the sizes of the other benchmarks, their weights packed before.

    Big's blocks work clip by clip: of them, and of the model, one tells the same as many, which would take an hour.
    """
    ops = torch.ops.bigsmall_kernels
    small = torch.randn(3 * clips, 32, 9, 9)
    yield "wtsm", lambda: bk.wtsm(small)
    weights = [torch.randn(o, i, 3, 3) / (9 * i) ** 0.5 for i, o in pairwise(TRUNK)]
    biases = [torch.randn(len(w)) for w in weights]
    one, stack = ops.pack_wtsm_conv2d(weights[1]), ops.pack_wtsm_conv2d_stack(weights)
    yield "wtsm_conv2d", lambda: bk.wtsm_conv2d(small, weights[1], biases[1], activation="relu", packed=one)
    back = (weights[1], True, 3, 3, True, [1, 1], [1, 1], [1, 1], 1, "relu", [True] * 3)
    yield "wtsm_conv2d_backward", lambda: ops.wtsm_conv2d_backward(small, small, small, *back)
    rgb = torch.randn(3 * clips, 3, 9, 9)
    yield "wtsm_conv2d_stack", lambda: bk.wtsm_conv2d_stack(rgb, weights, biases, packed=stack)
    grad = torch.randn(3 * clips, TRUNK[-1], 9, 9)
    trunk = (grad, rgb, weights, biases, 3, 3, True, "relu", False)
    yield "wtsm_conv2d_stack_backward", lambda: ops.wtsm_conv2d_stack_backward(*trunk)
    for name, (c, mid, out, size, pool) in BLOCKS.items() if clips == 1 else ():
        w1, w2 = torch.randn(mid, c, 3, 3) / (9 * c) ** 0.5, torch.randn(out, mid, 3, 3) / (9 * mid) ** 0.5
        block = (torch.randn(clips, c, size, size), w1, torch.randn(mid), w2, torch.randn(out), pool)
        packed = ops.pack_double_conv2d_pool(w1, w2)
        yield f"double_conv2d_pool {name}", lambda a=block, p=packed: bk.double_conv2d_pool(*a, packed=p)
        pooled = torch.randn(clips, out, size // pool, size // pool)
        mask = [c > 3, True, True, True, True]  # nobody asks for the pictures' gradient
        yield (
            f"double_conv2d_pool_backward {name}",
            lambda g=pooled, a=block, m=mask: ops.double_conv2d_pool_backward(g, *a, m),
        )
    crops = torch.randint(1, 256, (3 * clips + 1, 144, 144, 3), dtype=torch.uint8)
    yield "diff_normalize", lambda: bk.diff_normalize(crops)
    yield "standardize", lambda: bk.standardize(crops[1:])
    frames = torch.randint(1, 256, (3 * clips + 1, 480, 480, 3), dtype=torch.uint8)
    yield "bigsmall_inputs", lambda: bk.bigsmall_inputs(frames)
    if clips == 1:
        model, big = models.build("bigsmall").eval(), torch.randn(clips, 3, 144, 144)
        yield "bigsmall", lambda: model(big, rgb)


def counted(isa: str, requests: str) -> None:
    """Inside valgrind: one call of everything is counted and dumped, after some that are not."""
    assert bk.info()["isa"] == isa, bk.info()
    valgrind = ctypes.CDLL(requests)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with torch.inference_mode():
        for clips in CLIPS:
            for name, call in calls(clips):
                for _ in range(WARM_UP):
                    call()
                valgrind.start()
                call()
                valgrind.stop(json.dumps([name, clips]).encode())


def parse(dump: Path) -> tuple[list[Any] | None, Counter[str], int]:
    """(what was counted, instructions by function of our library, all instructions) of one of callgrind's files."""
    what, functions, everything = None, Counter[str](), 0
    library = function = ""
    of_a_call = False  # the line after calls= counts what is called, which has lines of its own
    for line in dump.read_text().splitlines():
        key, _, value = line.partition("=")
        if line.startswith("desc: Trigger: Client Request: "):
            what = json.loads(line.partition("Request: ")[2])
        elif key == "ob":
            library = value
        elif key == "fn":
            function = value
        elif key == "calls":
            of_a_call = True
        elif re.match(r"[0-9+*-]", line):
            if not of_a_call:
                count = int(line.split()[-1])
                everything += count
                functions[function] += count if library.endswith(LIBRARY) else 0
            of_a_call = False
        elif line.startswith("totals: "):
            assert everything == int(line.split()[1]), "callgrind's own sum differs"
    return what, functions, everything


def short(function: str) -> str:
    """The name alone, with its template arguments where they are numbers."""
    mangled = re.search(r"2bk(?:\d(?:avx2|portable|avx512|amx))?(?:12_GLOBAL__N_1)?L?(\d+)(\w+)", function)
    if mangled:  # too long a name for valgrind to read
        return mangled[2][: int(mangled[1])]
    plain = function.replace("(anonymous namespace)::", "")
    found = re.search(rf"bk::(?:{'|'.join(ISAS)})::(\w+(?:<[\d, ]+>)?)", plain) or re.search(r"bk::(\w+)", plain)
    return found[1] if found else plain.partition("(")[0]


def measured(isa: str, folder: Path, requests: Path) -> Iterator[dict[str, Any]]:
    """The rows of one instruction set."""
    options = ("--instr-atstart=no", "--compress-strings=no", "--compress-pos=no")
    environment = os.environ | {"BIGSMALL_KERNELS_ISA": isa, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
    out = folder / isa
    command = ["valgrind", "-q", "--tool=callgrind", *options, f"--callgrind-out-file={out}", sys.executable]
    subprocess.run([*command, __file__, "--counted", isa, str(requests)], env=environment, check=True)
    for dump in folder.glob(f"{isa}.*"):
        what, functions, everything = parse(dump)
        if what is not None:
            ours = functions.total()
            names: Counter[str] = Counter()
            for function, count in functions.items():
                names[short(function)] += count
            hot = {name: round(count / ours, 3) for name, count in names.most_common(NAMED) if 100 * count > ours}
            row = {"op": what[0], "clips": what[1], "isa": isa}
            yield row | {"library": ours, "everything": everything, "functions": hot}


def table(run: dict[str, Any]) -> str:
    from report import provenance

    lines = [
        provenance(run).replace("instruction set avx512", "instruction sets as below"),
        "",
        f"Thousands of instructions a clip of three frames, one thread, float32, {run['versions']['valgrind']}; of one "
        "call, in our library and in all, PyTorch and Python included; where: our functions with most of them.",
        "",
        "| op | clips | instruction set | our library | all | where |",
        "|---|---|---|---|---|---|",
    ]
    for row in run["rows"]:
        ours, everything = (f"{row[key] / row['clips'] / 1e3:,.1f}" for key in ("library", "everything"))
        where = ", ".join(f"`{name}` {share:.0%}" for name, share in row["functions"].items())
        lines.append(f"| {row['op']} | {row['clips']} | {row['isa']} | **{ours}** | {everything} | {where} |")
    return "\n".join(lines) + "\n"


def changes(run: dict[str, Any], before: dict[str, Any]) -> Iterator[str]:
    """How the counts in our library differ from an earlier run's."""
    old = {(row["op"], row["clips"], row["isa"]): row["library"] for row in before["rows"]}
    yield f"since commit {before['commit_info']['id'][:10]}:"
    for row in run["rows"]:
        key = (row["op"], row["clips"], row["isa"])
        change = f"{row['library'] / old[key] - 1:+8.2%}" if key in old else "     new"
        yield f"{change}  {row['op']}, {row['clips']} clip{'s' * (row['clips'] > 1)}, {row['isa']}"


def main(stem: Path, against: Path | None) -> None:
    import conftest
    from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
    from pytest_benchmark.utils import get_commit_info

    from bigsmall.files import whole

    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or shutil.which("valgrind") is None:
        sys.exit("instructions are counted by valgrind, which needs a C compiler beside it: one of them is missing")
    before = json.loads(against.read_text()) if against else None
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, requests = folder / "requests.c", folder / "requests.so"
        source.write_text(REQUESTS)
        subprocess.run([compiler, "-shared", "-fPIC", source, "-o", requests], check=True)
        for isa in ISAS:
            print(f"counting {isa}, some minutes", file=sys.stderr)
            rows += measured(isa, folder, requests)
    order = [op for op, _ in calls(1)]
    rows.sort(key=lambda row: (order.index(row["op"]), row["clips"], row["isa"]))
    version = subprocess.run(["valgrind", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    machine = pytest_benchmark_generate_machine_info()
    conftest.pytest_benchmark_update_machine_info(None, machine)
    commit = get_commit_info()
    run = {
        "datetime": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine_info": machine,
        "commit_info": {"id": commit["id"], "dirty": commit["dirty"]},
        "versions": {"torch": torch.__version__, "valgrind": version, "compiler": bk.info()["library"]["note"]},
        "rows": rows,
    }
    for suffix, text in ((".json", json.dumps(run, indent=1) + "\n"), (".md", table(run))):
        with whole(stem.with_suffix(suffix)) as path:
            path.write_text(text)
    print(table(run))
    if before:
        print("\n".join(changes(run, before)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path(__file__).parent / "results/instructions")
    parser.add_argument("--against", type=Path, help="an earlier run's JSON to compare with")
    parser.add_argument("--counted", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.counted:
        counted(*arguments.counted)
    else:
        main(arguments.output, arguments.against)
