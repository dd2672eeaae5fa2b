"""Which kernel runs on a CUDA device: one table by backend, device, dtype and size, and the choice from it.

`TRITON_INTERPRET=1` in the environment makes CPU tensors stand in for CUDA ones: Triton's interpreter runs there what
`use_backend("triton")` asks for. The compiled CPU library is then left out.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _cuda, reference

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
KEYS = ("CUDA", "CPU") if INTERPRETED else ("CUDA",)  # dispatch keys with a chooser
NAMESPACE = "bigsmall_kernels_impl"  # of the implementations, `<op>_<backend>`

HALF_AND_SINGLE = (torch.float16, torch.bfloat16, torch.float32)
FRAMES = (torch.uint8, *HALF_AND_SINGLE, torch.float64)
BITS = (*FRAMES, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64)
CONVOLVED = (*HALF_AND_SINGLE, torch.float64)


class Row(NamedTuple):
    """A backend runs an op: its file, for tensors of these dtypes, from a number of elements and a device's age on."""

    backend: str
    file: str
    dtypes: tuple[torch.dtype, ...]
    elements: int = 1
    capability: tuple[int, int] = (8, 0)


# The first row that fits runs; without one, the reference.
TABLE: dict[str, tuple[Row, ...]] = {
    "wtsm": (Row("cuda", "wtsm", BITS), Row("triton", "wtsm", BITS)),
    "wtsm_backward": (Row("cuda", "wtsm", BITS), Row("triton", "wtsm", BITS)),
    "wtsm_conv2d": (Row("triton", "wtsm_conv2d", HALF_AND_SINGLE), Row("cuda", "wtsm_conv2d", CONVOLVED)),
    "wtsm_conv2d_backward": (Row("triton", "wtsm_conv2d", HALF_AND_SINGLE),),
    "wtsm_conv2d_stack": (Row("triton", "wtsm_conv2d_stack", HALF_AND_SINGLE),),
    "double_conv2d_pool": (Row("triton", "double_conv2d_pool", HALF_AND_SINGLE),),
    "diff_normalize": (Row("cuda", "normalize", FRAMES), Row("triton", "normalize", FRAMES)),
    "diff_normalize_backward": (Row("triton", "normalize", FRAMES),),
    "standardize": (Row("cuda", "normalize", FRAMES), Row("triton", "normalize", FRAMES)),
    "standardize_backward": (Row("triton", "normalize", FRAMES),),
    "bigsmall_inputs": tuple(Row(backend, "bigsmall_inputs", (torch.uint8,)) for backend in ("cuda", "triton")),
}


_TRITON = importlib.util.find_spec("triton") is not None  # nothing is imported
INSTALLED = tuple(name for name, there in (("cuda", _cuda.loaded), ("triton", _TRITON)) if there)


def rows(op: str, backend: str | None = None) -> list[Row]:
    """The table's rows for an op whose backend is installed, of one backend if it is named."""
    return [row for row in TABLE.get(op, ()) if backend in (None, row.backend) and row.backend in INSTALLED]


def available(op: str, backend: str, x: Tensor) -> bool:
    """Whether `use_backend(backend)` has a kernel for an op whose first tensor is x."""
    interpreted = INTERPRETED and x.device.type == "cpu"
    return (interpreted or x.is_cuda) and any(x.dtype in row.dtypes for row in rows(op, backend))


def tf32() -> bool:
    """Whether float32 may be multiplied as TF32: where torch's convolutions may, by its old switch or its new one."""
    allowed: bool = torch.backends.cudnn.conv.fp32_precision == "tf32"  # type: ignore[attr-defined]
    return allowed


def chooser(op: str, backend: Callable[[], str | None]) -> Callable[..., Any]:
    """What stands under the CUDA key: runs the implementation that `backend()` asks for, else the table's."""
    implementations = getattr(torch.ops, NAMESPACE)
    fallback = getattr(reference, op)

    def choose(*args: Any) -> Any:
        x, asked = args[0], backend()
        if x.is_cuda or asked is not None:  # on interpreted CPU tensors only what is asked for
            for row in rows(op, asked):
                if x.dtype in row.dtypes and x.numel() >= row.elements and _capable(x, row.capability):
                    if row.backend == "cuda" and op in _cuda.TAKE_TF32:
                        args = (*args[:-1], tf32())
                    return getattr(implementations, f"{op}_{row.backend}")(*args)
        return fallback(*args)

    return choose


def _capable(x: Tensor, least: tuple[int, int]) -> bool:
    return not x.is_cuda or torch.cuda.get_device_capability(x.device) >= least


def implementation(op: str, row: Row) -> Callable[..., Any]:
    """The row's function, imported when it first runs, on the device of the op's first tensor."""

    def run(*args: Any) -> Any:
        module = importlib.import_module(f"._{row.backend}.{row.file}", __package__)
        with torch.cuda.device_of(args[0]):
            return getattr(module, op)(*args)

    return run


def register(namespace: str, schemas: Sequence[str], backend: Callable[[], str | None]) -> list[torch.library.Library]:
    """The implementations in their own namespace, and under every key of KEYS a chooser for each op of the table.

    `backend` tells what `use_backend` asks for. What is returned holds the registrations.
    """
    own, others = torch.library.Library(NAMESPACE, "DEF"), torch.library.Library(namespace, "IMPL")
    for schema in schemas:
        op, _, signature = schema.partition("(")
        for row in TABLE.get(op, ()):
            name = f"{op}_{row.backend}"
            if row.backend == "cuda":  # the library registers its kernels itself
                own.define(f"{name}({_cuda.signature(op, signature)}")
                continue
            own.define(f"{name}({signature}")
            for key in KEYS:
                own.impl(name, implementation(op, row), key)
        if op in TABLE:
            for key in KEYS:
                others.impl(op, chooser(op, backend), key)
    return [own, others]
