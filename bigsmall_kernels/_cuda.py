"""The compiled GPU kernels: loaded beside a torch with CUDA, where they register themselves as `<op>_cuda`."""

from __future__ import annotations

import json
import pathlib
import warnings

import torch

TAKE_TF32 = ("wtsm_conv2d",)  # whether float32 may be multiplied as TF32, instead of weights packed for the CPU


def signature(op: str, schema: str) -> str:
    """What `<op>_cuda` takes, from what the op takes."""
    return schema.replace("Tensor? packed", "bool tf32") if op in TAKE_TF32 else schema


def _load() -> tuple[bool, str]:
    """(whether the library is loaded, one sentence on what it is or why it is not there)."""
    folder = pathlib.Path(__file__).parent
    record = folder / "_build.json"
    build = json.loads(record.read_text()).get("cuda") if record.exists() else None
    if build is None:
        return False, "no GPU kernels were built at install time"
    note: str = build["note"]
    if not build["built"]:
        return False, note
    if torch.version.cuda is None:
        return False, f"{note}; this torch has no CUDA, so they are not loaded"
    try:
        torch.ops.load_library(next(folder.glob("_C_cuda.*")))
    except (OSError, StopIteration) as error:
        message = f"{note}, but could not be loaded into torch {torch.__version__} ({error.__cause__ or error})"
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return False, message
    return True, note


loaded, note = _load()
