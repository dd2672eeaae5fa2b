"""The tests marked `every_isa`, once more on each other instruction set of this processor."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bigsmall_kernels as bk

ORDER = ("portable", "avx2", "avx512", "avx512_vnni", "amx")
best = bk.info()["isa"]
OTHERS = ORDER[: ORDER.index(best)] if best in ORDER else ()


def environment(isa: str) -> dict[str, str]:
    return {**os.environ, "BIGSMALL_KERNELS_ISA": isa}


def test_the_library_is_there() -> None:
    """Where there is a compiler, a broken build cannot hide behind the reference."""
    assert bk.info()["library"]["loaded"], bk.info()["library"]["note"]


@pytest.mark.skipif("BIGSMALL_KERNELS_ISA" in os.environ, reason="already inside such a run")
@pytest.mark.parametrize("isa", OTHERS)
def test_every_kernel(isa: str) -> None:
    asked = "import json, bigsmall_kernels as bk; print(json.dumps(bk.info()['isa']))"
    ran = subprocess.run(
        [sys.executable, "-c", asked], env=environment(isa), capture_output=True, text=True, check=True
    )
    assert json.loads(ran.stdout) == isa
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-m",
        "every_isa",
        "-p",
        "no:cacheprovider",
        str(Path(__file__).parent),
    ]
    result = subprocess.run(command, env=environment(isa), capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-4000:]
    assert " passed" in result.stdout
