"""The CPU kernels by other compilers: the library by clang, its files for aarch64, and the portable path by itself."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import torch

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TESTS = [HERE / f"test_{op}.py" for op in ("wtsm", "wtsm_conv2d", "double_conv2d_pool", "normalize", "bigsmall_inputs")]
# Runs tests in the process that says which library it has loaded.
LOADED = """
import json, pathlib, sys
import bigsmall_kernels as bk, bigsmall_kernels._C as library
built = pathlib.Path(library.__file__)
compiler = json.loads(built.with_name("_build.json").read_text())["compiler"]
print(json.dumps({"library": str(built), "compiler": compiler, "isa": bk.info()["isa"]}), flush=True)
import pytest
sys.exit(pytest.main(sys.argv[1:]))
"""


def found(name: str) -> str:
    """The command, or its latest numbered version ("clang++-14"); without one the test is skipped."""
    numbered = (f"{name}-{version}" for version in range(30, 8, -1))
    command = next(filter(None, map(shutil.which, (name, *numbered))), None)
    return command or pytest.skip(f"no {name}")


def run(*command: Any, **options: Any) -> str:
    ran = subprocess.run([*map(str, command)], capture_output=True, text=True, **options)
    assert ran.returncode == 0, (ran.stdout + ran.stderr)[-4000:]
    return ran.stdout


def extension() -> Any:
    """The library as setup.py describes it."""
    described = runpy.run_path(str(ROOT / "setup.py"))["extension_arguments"]()
    return described["ext_modules"][0] if described else pytest.skip("no C++ compiler of this machine's")


def kernels_alone(folder: Path, compiler: str, *options: str) -> Path:
    """The program of portable/, which has no torch in it."""
    program, strict = folder / "portable", (*extension().extra_compile_args, "-Wextra", "-Werror")
    sources = sorted((HERE / "portable").glob("*.cpp"))
    run(compiler, *strict, *options, "-I", ROOT / "csrc", *sources, "-o", program)
    return program


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_the_portable_path_without_torch(compiler: str, tmp_path: Path) -> None:
    print(run(kernels_alone(tmp_path, found(compiler))))


@pytest.mark.full
@pytest.mark.parametrize("lanes", [8, 16])
def test_the_wider_paths_without_torch(lanes: int, tmp_path: Path) -> None:
    """What AVX2 and AVX-512 compute, on processors that have neither."""
    print(run(kernels_alone(tmp_path, found("g++"), f"-DBK_LANES={lanes}")))


@pytest.mark.full
def test_the_portable_path_on_aarch64(tmp_path: Path) -> None:
    compiler, emulator = found("aarch64-linux-gnu-g++"), found("qemu-aarch64")
    print(run(emulator, kernels_alone(tmp_path, compiler, "-static")))


@pytest.mark.full
def test_every_file_compiles_for_aarch64(tmp_path: Path) -> None:
    compiler, library = found("aarch64-linux-gnu-g++"), extension()
    foreign = (Path(torch.__file__).parent / "include", sysconfig.get_paths()["include"])
    headers = ("-I", ROOT / "csrc", *(option for folder in foreign for option in ("-isystem", folder)))
    macros = [f"-D{name}={value}" for name, value in library.define_macros]
    for source in library.sources:
        target = tmp_path / f"{Path(source).stem}.o"
        run(compiler, *library.extra_compile_args, "-Werror", *macros, *headers, "-c", ROOT / source, "-o", target)
        assert int.from_bytes(target.read_bytes()[18:20], "little") == 183  # ELF's number of the machine


@pytest.mark.full
def test_the_library_built_by_clang(tmp_path: Path) -> None:
    compiler, built = found("clang++"), tmp_path / "lib"
    environment = os.environ | {"CXX": compiler, "CC": compiler.replace("clang++", "clang")}
    environment["BIGSMALL_KERNELS_CUDA"] = "0"
    build = ("build", "--build-base", tmp_path / "build", "--build-lib", built)
    run(sys.executable, "setup.py", "-q", *build, cwd=ROOT, env=environment)
    said = run(
        *(sys.executable, "-c", LOADED, "-q", "-x", "-p", "no:cacheprovider", *TESTS),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(built)},
    )
    loaded = json.loads(said.partition("\n")[0])
    assert Path(loaded["library"]).is_relative_to(built)
    assert "clang" in loaded["compiler"]
    assert loaded["isa"] == "portable"
    assert " passed" in said
