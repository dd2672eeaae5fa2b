"""The CUDA kernels against the reference: compiled for `cuda_on_cpu/` and interpreted, and on a GPU where there is one.

What is interpreted are the `.cu` files themselves, checks, allocations and launches included.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils._pytree as pytree
from kernel_helpers import LOW_PRECISION, assert_low_precision, error, layouts, moved
from test_bigsmall_inputs import PIXELS, boxes, video
from torch import Tensor

from bigsmall_kernels import _cuda, reference

ROOT = Path(__file__).resolve().parents[2]
FLOATS = (*LOW_PRECISION, torch.float32, torch.float64)
FRAMES = (torch.uint8, *FLOATS)


class OnGpu:
    """The kernels on the GPU, for CPU tensors, whose strides stay as they are."""

    def __init__(self, device: str = "cuda") -> None:
        self.device = device

    def __getattr__(self, name: str) -> Any:
        op, everywhere = getattr(torch.ops.bigsmall_kernels_impl, name), pytree.tree_map_only
        there = partial(moved, device=self.device)
        return lambda *args: everywhere(Tensor, Tensor.cpu, op(*everywhere(Tensor, there, args)))


ON_GPU = ["gpu"] if _cuda.loaded and torch.cuda.is_available() else []


@pytest.fixture(scope="module", params=["interpreted", *ON_GPU])
def cuda(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The namespace of the kernels, `<op>_cuda`; for interpretation they are registered for the CPU."""
    if request.param == "gpu":
        return OnGpu()
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler: the CUDA kernels are not interpreted")
    folder, torch_root = tmp_path_factory.mktemp("cuda_on_cpu"), Path(torch.__file__).parent
    options = [
        *("-x", "c++", "-std=c++17", "-O1", "-fPIC", "-fvisibility=hidden", "-Wall", "-Werror", "-Wno-unknown-pragmas"),
        *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DUSE_CUDA", "-DBK_KEY=CPU"),
        *("-I", ROOT / "tests/kernels/cuda_on_cpu", "-I", ROOT / "csrc", "-isystem", torch_root / "include"),
    ]

    def run(*command: Any) -> None:
        ran = subprocess.run([compiler, *map(str, command)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-4000:]

    sources = sorted((ROOT / "csrc/cuda").glob("*.cu"))
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda source, o: run(*options, "-c", source, "-o", o), sources, objects))
    library = folder / "cuda_on_cpu.so"
    libraries = ("-L", torch_root / "lib", "-ltorch", "-ltorch_cpu", "-lc10")
    run("-shared", "-Wl,-Bsymbolic", "-o", library, *objects, *libraries)
    torch.ops.load_library(library)
    return torch.ops.bigsmall_kernels_impl


def same_form(y: Tensor, expected: Tensor) -> None:
    assert (y.shape, y.dtype, y.stride()) == (expected.shape, expected.dtype, expected.stride())


# --- wtsm -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["wtsm", "wtsm_backward"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float16, torch.float32, torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(6, 7, 5, 4), (6, 32, 9, 9), (3, 2, 4, 4), (0, 3, 2, 2), (12, 16, 1, 1)])
def test_shift(cuda: Any, op: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape) * 50
    strided = layouts(values.to(dtype)) if dtype != torch.uint8 else [("bytes", values.abs().to(dtype))]
    for name, x in strided:
        for n, fold_div, wrap in ((3, 3, True), (3, 3, False), (1, 2, True), (3, 1, False), (3, 5, True)):
            y = getattr(cuda, f"{op}_cuda")(x, n, fold_div, wrap)
            expected = getattr(reference, op)(x, n, fold_div, wrap)
            same_form(y, expected)
            assert torch.equal(y, expected), (name, n, fold_div, wrap)


def test_shift_from_any_address(cuda: Any) -> None:
    for start in range(5):
        x = torch.randn(6 * 8 * 4 + start)[start:].view(6, 8, 2, 2)
        assert torch.equal(cuda.wtsm_cuda(x, 3, 3, True), reference.wtsm(x, 3, 3, True))


def test_offsets_beyond_32_bits(cuda: Any, tmp_path: Path) -> None:
    """Frames 2^31 elements apart, in a file that is mostly holes."""
    far = 2**31 + 8
    memory = torch.from_numpy(np.memmap(tmp_path / "holes", np.float16, "w+", shape=3 * far))
    weight = torch.randn(4, 8, 3, 3).half() / 9
    arguments = (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "relu")
    for strides in ((far, 16, 4, 1), (far, 1, 32, 8)):
        x = memory.as_strided((3, 8, 4, 4), strides).copy_(torch.randn(3, 8, 4, 4))
        assert torch.equal(cuda.wtsm_cuda(x, 3, 3, True), reference.wtsm(x, 3, 3, True))
        y = cuda.wtsm_conv2d_cuda(x, weight, None, *arguments, False)
        assert torch.equal(y, cuda.wtsm_conv2d_cuda(x.contiguous(), weight, None, *arguments, False))
    frames = memory.view(torch.uint8).as_strided((3, 6, 7, 3), (far, 21, 3, 1)).copy_(video(3, 6, 7))
    for _, box in boxes(3, 6, 7):
        expected = cuda.bigsmall_inputs_cuda(frames.contiguous(), box, 6, 3, 1, "exact", 1e-7)
        assert all(map(torch.equal, cuda.bigsmall_inputs_cuda(frames, box, 6, 3, 1, "exact", 1e-7), expected))


# --- the normalisers --------------------------------------------------------------------------------------------------

STANDARDIZE = ((None, None), (3.0, None), (None, 2.0), (1.0, 0.0), (100.0, 50.0))
DIFFERENCE = ((1e-7, None), (1e-7, 0.5), (0.5, 0.0))


def normalisers(cuda: Any, x: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(ours, the reference's, the reference's in float64) for every way of calling."""
    for op, ways in (("standardize", STANDARDIZE), ("diff_normalize", DIFFERENCE)):
        for arguments in ways:
            plain = getattr(reference, op)
            yield getattr(cuda, f"{op}_cuda")(x, *arguments), plain(x, *arguments), plain(x.double(), *arguments)


@pytest.mark.parametrize("dtype", FRAMES)
@pytest.mark.parametrize("shape", [(5,), (2, 3), (4, 16, 16, 3), (3, 7, 9, 3), (40, 12, 12, 3)])
def test_normalisers(cuda: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x = (torch.rand(shape) * 255).to(dtype)
    for y, expected, exact in normalisers(cuda, x):
        same_form(y, expected)
        assert error(y, exact) <= (1e-12 if dtype == torch.float64 else 2e-6)


def test_normalisers_take_any_strides(cuda: Any) -> None:
    for _, x in layouts(torch.rand(6, 3, 5, 4)):
        for y, expected, exact in normalisers(cuda, x):
            same_form(y, expected)
            assert error(y, exact) <= 1e-6


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e25, 1e37])
def test_squares_beyond_float32(cuda: Any, scale: float) -> None:
    x = torch.randn(4, 300) * scale
    assert error(cuda.standardize_cuda(x, None, None), reference.standardize(x.double(), None, None)) <= 1e-6


@pytest.mark.parametrize("first", [0.0, 1e6])
def test_small_spread_about_a_large_mean(cuda: Any, first: float) -> None:
    x = torch.randn(4, 1000) + 1e4
    x[0, 0] += first
    assert error(cuda.standardize_cuda(x, None, None), reference.standardize(x.double(), None, None)) <= 2e-6


def test_constants_are_zeros_and_nan_propagates(cuda: Any) -> None:
    same = torch.full((4, 3), 0.7)
    assert not cuda.standardize_cuda(same, None, None).any()
    assert not cuda.diff_normalize_cuda(same, 1e-7, None).any()
    for bad in (float("nan"), float("inf")):
        x = torch.rand(4, 100)
        x[2, 3] = bad
        for y, expected, _ in normalisers(cuda, x):
            assert torch.allclose(y, expected, rtol=1e-5, equal_nan=True)


@pytest.mark.full
def test_normalisers_with_many_blocks(cuda: Any) -> None:
    x = video(70, 144, 144)
    ours, exact = cuda.diff_normalize_cuda(x, 1e-7, None), reference.diff_normalize(x.double(), 1e-7, None)
    assert error(ours, exact) <= 1e-6
    assert torch.equal(ours, cuda.diff_normalize_cuda(x, 1e-7, None))


# --- wtsm_conv2d ------------------------------------------------------------------------------------------------------

# (frames, channels, height, width), filters, kernel, the op's arguments
CONVOLUTIONS: tuple[tuple[tuple[int, ...], int, tuple[int, int], tuple[Any, ...]], ...] = (
    ((6, 3, 9, 9), 32, (3, 3), (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "relu")),
    ((6, 32, 9, 9), 33, (3, 3), (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "tanh")),
    ((4, 16, 5, 6), 8, (3, 3), (2, 3, False, [1, 1], [0, 0], [1, 1], 1, "elu")),
    ((3, 40, 4, 4), 40, (1, 1), (3, 3, True, [1, 1], [0, 0], [1, 1], 1, "none")),
    ((6, 16, 9, 8), 12, (3, 3), (3, 5, False, [2, 2], [1, 1], [1, 1], 2, "relu")),
    ((2, 8, 9, 9), 5, (2, 3), (1, 2, True, [1, 2], [2, 0], [1, 2], 1, "none")),
    ((3, 32, 3, 3), 8, (3, 3), (3, 1, True, [1, 1], [1, 1], [2, 2], 4, "none")),
)


def convolution(shape: tuple[int, ...], filters: int, kernel: tuple[int, int], groups: int) -> tuple[Tensor, ...]:
    depth = shape[1] // groups * kernel[0] * kernel[1]
    return torch.randn(shape), torch.randn(filters, shape[1] // groups, *kernel) / depth**0.5, torch.randn(filters)


def check_convolution(cuda: Any, x: Tensor, weight: Tensor, bias: Tensor | None, arguments: Any, tf32: bool) -> None:
    y = cuda.wtsm_conv2d_cuda(x, weight, bias, *arguments, tf32)
    eager = reference.wtsm_conv2d(x, weight, bias, *arguments)
    wide = None if bias is None else bias.double()
    exact = reference.wtsm_conv2d(x.double(), weight.double(), wide, *arguments)
    same_form(y, eager)
    if x.dtype in LOW_PRECISION:
        assert_low_precision(y, eager, exact)
    else:
        assert error(y, exact) <= (1e-12 if x.dtype == torch.float64 else 2e-3 if tf32 else 1e-5)


@pytest.mark.parametrize(("dtype", "tf32"), [*((dtype, False) for dtype in FLOATS), (torch.float32, True)])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolution(cuda: Any, dtype: torch.dtype, tf32: bool, case: tuple[Any, ...]) -> None:
    shape, filters, kernel, arguments = case
    x, weight, bias = (t.to(dtype) for t in convolution(shape, filters, kernel, arguments[6]))
    for name, strided in layouts(x):
        turned = weight.contiguous(memory_format=torch.channels_last) if name == "channels_last" else weight
        check_convolution(cuda, strided, turned, None if name == "sliced" else bias, arguments, tf32)


@pytest.mark.parametrize(("dtype", "tf32", "filters", "layout"), [
    (torch.float16, False, 64, torch.channels_last),
    (torch.bfloat16, False, 20, torch.contiguous_format),
    (torch.float32, False, 64, torch.contiguous_format),
    (torch.float32, False, 32, torch.channels_last),
    (torch.float32, True, 40, torch.channels_last),
])  # fmt: skip
def test_convolution_of_many_pixels(
    cuda: Any, dtype: torch.dtype, tf32: bool, filters: int, layout: torch.memory_format
) -> None:
    x, weight, bias = (t.to(dtype) for t in convolution((3, 8, 75, 74), filters, (3, 3), 1))
    arguments = (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "relu")
    check_convolution(cuda, x.contiguous(memory_format=layout), weight, bias, arguments, tf32)


def test_nothing(cuda: Any) -> None:
    assert cuda.standardize_cuda(torch.empty(2, 0), None, None).shape == (2, 0)
    assert cuda.diff_normalize_cuda(torch.empty(1, 3), 1e-7, None).shape == (0, 3)
    arguments = (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "none", False)
    y = cuda.wtsm_conv2d_cuda(torch.empty(0, 4, 5, 5), torch.randn(2, 4, 3, 3), None, *arguments)
    assert y.shape == (0, 2, 5, 5)


# --- bigsmall_inputs --------------------------------------------------------------------------------------------------


def check_inputs(cuda: Any, sizes: tuple[int, ...], pixels: str) -> None:
    n, height, width, *targets = sizes
    frames = video(n, height, width)
    for name, box in boxes(n, height, width):
        arguments = (frames, box, *targets, pixels, 1e-7)
        ours, plain = cuda.bigsmall_inputs_cuda(*arguments), reference.bigsmall_inputs(*arguments)
        whole = torch.equal(box, box.round())
        if pixels == "rounded" and not whole:  # where weights are fractions, a half may fall on either side
            off = (ours[0] - plain[0]).abs()
            assert off.max() <= 1
            assert off.mean() <= 0.02, name
            continue
        for y, expected in zip(ours, plain, strict=True):
            assert y.dtype == expected.dtype
            assert y.is_contiguous()
            assert error(y, expected.double()) <= 1e-6, name
        if pixels == "rounded":
            assert torch.equal(ours[0], plain[0])


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("sizes", [
    (1, 8, 9, 7, 3, 1), (9, 20, 25, 11, 3, 3), (3, 37, 41, 32, 2, 1), (2, 60, 50, 33, 7, 3), (2, 100, 3, 5, 1, 1),
])  # fmt: skip
def test_inputs(cuda: Any, sizes: tuple[int, ...], pixels: str) -> None:
    check_inputs(cuda, sizes, pixels)


@pytest.mark.full
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("sizes", [(5, 9, 9, 9, 9, 2), (3, 240, 320, 144, 9, 3), (2, 160, 170, 150, 1, 2)])
def test_inputs_of_the_size_of_a_video(cuda: Any, sizes: tuple[int, ...], pixels: str) -> None:
    check_inputs(cuda, sizes, pixels)


def test_inputs_of_any_strides(cuda: Any) -> None:
    frames = video(4, 30, 36)
    for _, box in boxes(4, 30, 36):
        expected = cuda.bigsmall_inputs_cuda(frames, box, 12, 4, 2, "exact", 1e-7)
        for x in (
            frames.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
            frames.repeat_interleave(2, 2)[:, :, ::2],
            torch.cat((frames, frames), 3)[..., :3],
        ):
            assert all(map(torch.equal, cuda.bigsmall_inputs_cuda(x, box, 12, 4, 2, "exact", 1e-7), expected))


def test_grey_videos_have_no_differences(cuda: Any) -> None:
    grey = torch.full((4, 20, 24, 3), 117, dtype=torch.uint8)
    for _, box in boxes(4, 20, 24):
        big, small, sums = cuda.bigsmall_inputs_cuda(grey, box, 18, 9, 1, "exact", 1e-7)
        assert not small.any()
        assert not sums[:, 2:].any()
        assert torch.allclose(big, torch.full_like(big, 117), rtol=1e-6)
