"""The CUDA kernels compiled as an installation compiles them, and what the binaries say of themselves. Nothing runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Bytes a thread that a kernel may keep in memory, on which architecture ("": on any), and why.
ONE_MORE = "the assembler gives up two to four registers (of 40, 96, 128 or 168) for one more block at a time"
SPILLS = {
    ("resize_frames", ""): (16, "around the subroutine of a float64 division, where a box changes"),
    ("scale_values", "sm_89"): (16, f"of frames that are not aligned: {ONE_MORE}"),
    ("convolve", "sm_100"): (16, ONE_MORE),
}
OPS = ("wtsm", "wtsm_backward", "wtsm_conv2d", "diff_normalize", "standardize", "bigsmall_inputs")

BUILD = """
import pathlib, runpy, sys
setup = runpy.run_path(sys.argv[1])
command = setup["nvcc"]()
sys.exit("no nvcc") if command is None else setup["build_cuda"](command, *map(pathlib.Path, sys.argv[2:]))
"""
LOAD = """
import ctypes, os, sys, torch
ctypes.CDLL(sys.argv[1], os.RTLD_LAZY)  # beside a torch without CUDA only the launches' symbols are missing
for op in sys.argv[2:]:
    print(op, torch._C._dispatch_has_kernel_for_dispatch_key(f"bigsmall_kernels_impl::{op}_cuda", "CUDA"))
"""


def build(architectures: str, folder: Path) -> tuple[Path, str]:
    """The library for these architectures, and what nvcc and ptxas said."""
    library = folder / "_C_cuda.so"
    environment = os.environ | {
        "BIGSMALL_KERNELS_CUDA_ARCHS": architectures,
        "NVCC_APPEND_FLAGS": "--ptxas-options=-v -Werror all-warnings",
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),  # ninja's place
    }
    command = [sys.executable, "-c", BUILD, ROOT / "setup.py", library, folder / "objects"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    if ran.stderr.strip() == "no nvcc":
        pytest.skip("no nvcc: the CUDA kernels are not compiled")
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return library, ran.stdout


def spilling(said: str) -> list[str]:
    """The kernels that keep more in memory than they may."""
    found, kernel = [], ""
    for line in said.splitlines():
        if entry := re.search(r"Compiling entry function '(\S+)' for '(\S+)'", line):
            kernel = f"{entry[1]} for {entry[2]}"
        elif spill := re.search(r"(\d+) bytes spill stores", line):
            known = [most for (name, where), (most, _) in SPILLS.items() if name in kernel and kernel.endswith(where)]
            allowed = max(known, default=0)
            if int(spill[1]) > allowed:
                found.append(f"{kernel}: {spill[0]}")
    return found


def test_hopper_and_the_dispatcher(tmp_path: Path) -> None:
    library, said = build("9.0", tmp_path)
    assert "Compiling entry function" in said
    assert not spilling(said)
    ran = subprocess.run([sys.executable, "-c", LOAD, library, *OPS], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [f"{op} True" for op in OPS]


@pytest.mark.full
@pytest.mark.parametrize("architecture", ["8.0", "8.9", "10.0"])
def test_other_architectures(architecture: str, tmp_path: Path) -> None:
    assert not spilling(build(architecture, tmp_path)[1])
