"""Every Triton kernel through Triton's interpreter (interpreted.py), and what the choosers say without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import bigsmall_kernels as bk
from bigsmall_kernels import _choosers, _library

HAS_TRITON = "triton" in _choosers.INSTALLED


@pytest.mark.skipif(not HAS_TRITON, reason="Triton is not installed")
def test_every_kernel_in_the_interpreter() -> None:
    cases = str(Path(__file__).with_name("interpreted.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", cases]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
    assert " passed" in ran.stdout


def test_the_package_imports_no_triton() -> None:
    code = "import sys, bigsmall_kernels as bk; bk.info(); sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("op", _choosers.TABLE)
def test_a_chooser_stands_under_the_cuda_key(op: str) -> None:
    """What runs on a GPU is visible without one; CPU tensors keep their compiled kernels."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"bigsmall_kernels::{op}", "CUDA")
    installed = [row.backend for row in _choosers.TABLE[op] if row.backend in _choosers.INSTALLED]
    for backend in installed:
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"bigsmall_kernels_impl::{op}_{backend}", "CUDA")
    assert bk.info()["kernels"][op]["cuda"] == (installed or ["reference"])[0]
    assert bk.info()["kernels"][op]["cpu"] != "triton"


def test_fakes_on_a_cuda_device_that_is_not_there() -> None:
    """What compile and export see of a model on a GPU: shapes, dtypes and the device, whichever kernel will run."""
    with FakeTensorMode():
        x = torch.empty(6, 4, 5, 5, device="cuda", dtype=torch.half, memory_format=torch.channels_last)
        weight, bias = x.new_empty(3, 4, 3, 3), x.new_empty(3)
        y = bk.wtsm_conv2d(bk.wtsm(x), weight, bias)
        assert (y.shape, y.dtype, y.device.type) == ((6, 3, 5, 5), torch.half, "cuda")
        assert y.is_contiguous(memory_format=torch.channels_last)
        assert bk.standardize(bk.wtsm_conv2d_stack(x, [weight], [bias])).dtype == torch.float32
        with bk.use_backend("cpp"), pytest.raises(RuntimeError, match="no cpp kernel for a tensor on cuda"):
            bk.wtsm(x)


@pytest.mark.parametrize("switch", ["cudnn.allow_tf32 = False", "fp32_precision = 'ieee'"])
def test_tf32_follows_torchs_switches(switch: str) -> None:
    """The old one and the new one, which torch does not let one read through the other; TF32 is torch's default."""
    asked = "import torch; from bigsmall_kernels._choosers import tf32; assert tf32()"
    code = f"{asked}; torch.backends.{switch}; assert not tf32()"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_ops_without_a_kernel_of_their_own_run_the_reference_over_the_others() -> None:
    others = set(_library.OPS) - set(_choosers.TABLE)
    assert {op for op in others if not op.startswith("pack_")} == {
        "wtsm_conv2d_stack_backward", "double_conv2d_pool_backward",
    }  # fmt: skip
    assert all(bk.info()["kernels"][op]["cuda"] == "reference" for op in others)
