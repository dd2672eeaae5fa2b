"""Triton kernels compiled without a GPU, exactly as a launch would compile them, and what the binary says of itself."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"


class Launch(NamedTuple):
    """A kernel and what it was to be launched with."""

    kernel: JITFunction[Any]
    args: tuple[Any, ...]
    options: dict[str, Any]


class Resources(NamedTuple):
    """Of one binary: registers a thread, bytes a thread kept in memory for want of registers, bytes shared."""

    registers: int
    spilled: int
    shared: int


def launches(function: Callable[[], object]) -> list[Launch]:
    """What `function` would launch; nothing runs."""
    found: list[Launch] = []

    def record(self: JITFunction[Any], *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        found.append(Launch(self, args, options))

    with mock.patch.object(JITFunction, "run", record):
        function()
    return found


def compiled(launch: Launch, capability: int) -> Resources:
    """The launch's binary for one architecture, specialised on its arguments as Triton does at run time."""
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    kernel, options = launch.kernel, {"debug": False, **launch.options}
    binder = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, _ = binder(*launch.args, **options)
    parsed, signature, constants, attributes = kernel._pack_args(backend, options, bound, specialization, None)
    binary = triton.compile(
        ASTSource(kernel, signature, constants, attributes), target=target, options=parsed.__dict__
    )
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, stack, local = (int(re.search(rf"{what}:(\d+)", usage)[1]) for what in ("REG", "STACK", "LOCAL"))
    return Resources(registers, stack + local, binary.metadata.shared)
