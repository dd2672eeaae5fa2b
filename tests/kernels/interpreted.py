"""Every Triton kernel against the reference in float64, run by Triton's interpreter on CPU tensors.

Collected by test_triton.py in a process of its own, where TRITON_INTERPRET=1 makes CPU tensors stand in for CUDA ones
and everything below runs under `use_backend("triton")`, through the same choosers as on a GPU.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_every_op
import torch
from kernel_helpers import error, layouts
from torch import Tensor
from triton.runtime.interpreter import GridExecutor

import bigsmall_kernels as bk
from bigsmall_kernels import _choosers, reference

full = pytest.mark.full
ops = torch.ops.bigsmall_kernels
# max|y - y64| / max|y64|; two roundings of the dtype, and the interpreter cuts bfloat16 instead of rounding it.
LIMIT = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1.6e-2}
dtypes = pytest.mark.parametrize("dtype", LIMIT)
ACTIVATIONS = ("none", "relu", "tanh", "elu")


@pytest.fixture(autouse=True)
def launched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the kernels that a test launched: which kernel ran is a part of what is tested."""
    names: list[str] = []
    run = GridExecutor.__call__

    def record(self: GridExecutor, *args: Any, **options: Any) -> None:
        names.append(self.fn.__name__)
        run(self, *args, **options)

    monkeypatch.setattr(GridExecutor, "__call__", record)
    assert _choosers.INTERPRETED
    with bk.use_backend("triton"):
        yield names


def agree(op: str, dtype: torch.dtype, *args: Any) -> None:
    """The op and its definition in float64 on the same values: outputs, their dtypes and layouts."""
    outputs = getattr(ops, op)(*args)
    with bk.use_backend("reference"):
        plain, exact = getattr(reference, op)(*args), getattr(reference, op)(*map(double, args))
    several = isinstance(plain, (tuple, list))
    for y, like, y64 in zip(*(v if several else (v,) for v in (outputs, plain, exact)), strict=True):
        assert y.dtype == like.dtype
        assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(like)).stride()
        assert error(y, y64) <= LIMIT.get(dtype, 1e-6)


def double(value: Any) -> Any:
    if isinstance(value, list):
        return [double(v) for v in value]
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def few_layouts(x: Tensor, names: tuple[str, ...] = ("contiguous", "channels_last", "sliced")) -> list[Tensor]:
    return [view for name, view in layouts(x) if name in names]


# --- the shift --------------------------------------------------------------------------------------------------------


SHIFTS = [(3, 3, True), (2, 2, False), (6, 1, False), (1, 9, True)]  # n_segment, fold_div, wrap


@pytest.mark.parametrize(("n_segment", "fold_div", "wrap"), SHIFTS)
def test_wtsm(n_segment: int, fold_div: int, wrap: bool, launched: list[str]) -> None:
    """It moves bits: equal, in any dtype and layout, both ways."""
    for dtype in (torch.float32, torch.bfloat16, torch.uint8, torch.complex64):
        for _, x in layouts((torch.randn(6, 7, 3, 5) * 9).to(dtype)):
            for op in ("wtsm", "wtsm_backward"):
                y, expected = (getattr(o, op)(x, n_segment, fold_div, wrap) for o in (ops, reference))
                assert torch.equal(y, expected)
                assert y.stride() == expected.stride()
    assert set(launched) == {"_wtsm"}


@full
def test_wtsm_of_many_blocks() -> None:
    for x in few_layouts(torch.randn(4, 9, 17, 31)):
        assert torch.equal(bk.wtsm(x, 2), reference.wtsm(x, 2, 3, True))


# --- the normalisers --------------------------------------------------------------------------------------------------

NORMALISERS = [
    ("standardize", (None, None)), ("standardize", (100.0, None)), ("standardize", (None, 20.0)),
    ("standardize", (100.1, 20.1)), ("diff_normalize", (1e-7, None)), ("diff_normalize", (1.0, 0.3)),
]  # fmt: skip
normalisers = pytest.mark.parametrize(("op", "arguments"), NORMALISERS)


@normalisers
@pytest.mark.parametrize("dtype", [torch.uint8, *LIMIT, torch.float64])
def test_normalisers(op: str, arguments: tuple[Any, ...], dtype: torch.dtype, launched: list[str]) -> None:
    real = torch.float64 if dtype == torch.float64 else torch.float32
    for x in few_layouts((torch.rand(3, 3, 5, 4) * 254 + 1).to(dtype)):
        agree(op, real, x, *arguments)
    assert "_scale" in launched
    assert ("_sums" in launched) == (None in arguments)


@normalisers
def test_normalisers_gradients(op: str, arguments: tuple[Any, ...], launched: list[str]) -> None:
    for dtype in LIMIT:
        for x in few_layouts((torch.rand(4, 2, 3, 5) + 0.5).to(dtype)):
            n = len(x) - (op == "diff_normalize")
            agree(f"{op}_backward", dtype, torch.randn(n, 2, 3, 5), x, *arguments)
    assert "_scale_backward" in launched


@full
def test_normalisers_of_many_programs() -> None:
    for x in (torch.rand(3, 5, 700), torch.rand(9, 2048) + 1e4):
        agree("standardize", torch.float32, x, None, None)
        agree("diff_normalize", torch.float32, x.contiguous(), 1e-7, None)


def test_constants_are_zeros_and_nan_stays() -> None:
    for function in (bk.standardize, bk.diff_normalize):
        for value in (0.0, 0.1, 117.0):
            assert not function(torch.full((3, 5, 7), value)).any()
        x = torch.rand(3, 5, 7) + 1
        x[1, 2, 3] = float("nan")
        assert function(x).isnan().all()
        assert function(x, std=0.5).isnan().any()


def test_sums_are_exact_where_squares_cancel() -> None:
    x = 1e4 + torch.randn(5, 31)
    x[0, 0] = 0  # what sums are counted from lies far from the rest
    agree("standardize", torch.float32, x, None, None)


# --- the convolutions -------------------------------------------------------------------------------------------------

# frames, n_segment, C, Cout, H, W, kernel, padding
CONVOLUTIONS = [
    (6, 3, 5, 7, 4, 5, (3, 3), [1, 1]),
    (4, 2, 3, 17, 3, 4, (3, 3), [0, 0]),
    (3, 3, 4, 70, 2, 3, (1, 1), [0, 0]),
    pytest.param((2, 1, 33, 3, 5, 3, (3, 3), [1, 1]), marks=full),
    pytest.param((4, 4, 6, 5, 4, 4, (3, 1), [2, 0]), marks=full),
    pytest.param((1, 1, 2, 3, 6, 5, (5, 5), [2, 2]), marks=full),
    pytest.param((3, 3, 3, 4, 1, 1, (3, 3), [1, 1]), marks=full),
    pytest.param((30, 3, 3, 4, 2, 2, (3, 3), [1, 1]), marks=full),
]
convolutions = pytest.mark.parametrize("case", CONVOLUTIONS)
wraps = pytest.mark.parametrize("wrap", [True, False])


def parameters(dtype: torch.dtype, *channels: int, kernel: tuple[int, int] = (3, 3)) -> list[list[Tensor]]:
    """[weights, biases]"""
    pairs = list(itertools.pairwise(channels))
    weights = [(torch.randn(b, a, *kernel) / (a * kernel[0] * kernel[1]) ** 0.5).to(dtype) for a, b in pairs]
    return [weights, [torch.randn(b).to(dtype) for _, b in pairs]]


@convolutions
@wraps
@dtypes
def test_wtsm_conv2d(case: Any, wrap: bool, dtype: torch.dtype, launched: list[str]) -> None:
    frames, n, c, out, h, w, kernel, padding = case
    (weight,), (bias,) = parameters(dtype, c, out, kernel=kernel)
    for x, b in zip(few_layouts(torch.randn(frames, c, h, w).to(dtype)), (bias, None, bias), strict=True):
        agree("wtsm_conv2d", dtype, x, weight, b, n, 3, wrap, [1, 1], padding, [1, 1], 1, "relu", None)
    assert set(launched) == {"conv"}


def test_frames_that_32_bits_do_not_reach(tmp_path: Path) -> None:
    """A clip's first and last frame 2^31 elements apart, which one and the next are not; then channels; then filters.

    In a file that is mostly holes.
    """
    apart, weight = 2**30, torch.randn(4, 2, 3, 3).half() / 4
    memory = torch.from_numpy(np.memmap(tmp_path / "holes", np.float16, "w+", shape=4 * apart))
    for strides in ((apart, 16, 4, 1), (12, 2 * apart, 4, 1)):
        x = memory.as_strided((3, 2, 3, 4), strides).copy_(torch.randn(3, 2, 3, 4))
        assert torch.equal(bk.wtsm(x, fold_div=2), bk.wtsm(x.contiguous(), fold_div=2))
        y = bk.wtsm_conv2d(x, weight, fold_div=2)
        assert torch.equal(y, bk.wtsm_conv2d(x.contiguous(), weight, fold_div=2))
    x, far = x.contiguous(), memory.as_strided(weight.shape, (apart, 9, 3, 1)).copy_(weight)
    assert torch.equal(bk.wtsm_conv2d(x, far, fold_div=2), bk.wtsm_conv2d(x, weight, fold_div=2))


@pytest.mark.parametrize("scale", [1e-4, 1.0, 30.0])
def test_activations(scale: float) -> None:
    x, ((weight,), (bias,)) = torch.randn(3, 3, 3, 3), parameters(torch.float32, 3, 4)
    for activation in ACTIVATIONS:
        plain = ([1, 1], [1, 1], [1, 1], 1, activation, None)
        agree("wtsm_conv2d", torch.float32, x, weight * scale, bias * scale, 3, 3, True, *plain)


def test_other_convolutions_follow_the_shift(launched: list[str]) -> None:
    x, weight = torch.randn(4, 6, 5, 7), torch.randn(4, 3, 3, 3) / 5
    agree("wtsm_conv2d", torch.float32, x, weight, None, 2, 3, True, [2, 1], [1, 2], [1, 2], 2, "elu", None)
    assert launched == ["_wtsm"]


def test_nan_and_infinity_come_out_where_they_belong() -> None:
    x, ((weight,), _) = torch.randn(3, 3, 6, 6), parameters(torch.float32, 3, 4)
    x[1, 2, 3, 3], x[2, 2, 0, 0] = float("nan"), float("inf")
    for activation in ACTIVATIONS:
        arguments = (x, weight, None, 3, 3, True, [1, 1], [1, 1], [1, 1], 1, activation, None)
        y, expected = ops.wtsm_conv2d(*arguments), reference.wtsm_conv2d(*arguments)
        assert torch.allclose(y, expected, atol=1e-5, equal_nan=True)


def test_strides_beyond_32_bits() -> None:
    """Planes more than 2^31 elements apart, in memory that is never touched between them."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    x = torch.empty(2**31 + 4096).as_strided((3, 2, 3, 4), (12, 2**31, 4, 1))
    x.copy_(torch.randn(3, 2, 3, 4))
    (weight,), (bias,) = parameters(torch.float32, 2, 3)
    near = x.contiguous()
    assert torch.equal(bk.wtsm(x, fold_div=2), bk.wtsm(near, fold_div=2))
    assert torch.equal(bk.wtsm_conv2d(x, weight, bias, fold_div=2), bk.wtsm_conv2d(near, weight, bias, fold_div=2))


# frames, n_segment, channels, H, W
STACKS = [
    (6, 3, (3, 8, 20), 3, 4),
    (2, 1, (4, 5), 5, 3),
    (4, 2, (3, 36, 5), 2, 3),
    pytest.param(3, 3, (3, 4, 4, 4, 35), 9, 9, marks=full),
    pytest.param(4, 4, (3, 4, 2), 9, 9, marks=full),
]


@pytest.mark.parametrize(("frames", "n", "channels", "h", "w"), STACKS)
@wraps
@dtypes
def test_wtsm_conv2d_stack(
    frames: int, n: int, channels: tuple[int, ...], h: int, w: int, wrap: bool, dtype: torch.dtype, launched: list[str]
) -> None:
    weights, biases = parameters(dtype, *channels)
    for x in few_layouts(torch.randn(frames, channels[0], h, w).to(dtype)):
        agree("wtsm_conv2d_stack", dtype, x, weights, biases, n, 3, wrap, "tanh", None)
    assert set(launched) == {"conv"}


# images, C, Cmid, Cout, H, W, pool
BLOCKS = [
    (2, 3, 5, 4, 5, 6, 2),
    (1, 2, 17, 3, 4, 9, 4),
    pytest.param((1, 33, 3, 20, 3, 3, 1), marks=full),
    pytest.param((3, 3, 4, 4, 7, 5, 3), marks=full),
]


@pytest.mark.parametrize("case", BLOCKS)
@dtypes
def test_double_conv2d_pool(case: tuple[int, ...], dtype: torch.dtype, launched: list[str]) -> None:
    n, c, middle, out, h, w, pool = case
    (w1, w2), (b1, _) = parameters(dtype, c, middle, out)
    for x in few_layouts(torch.randn(n, c, h, w).to(dtype)):
        agree("double_conv2d_pool", dtype, x, w1, b1, w2, None, pool, None)
    assert set(launched) == {"conv"}


@convolutions
@wraps
@dtypes
def test_wtsm_conv2d_gradients(case: Any, wrap: bool, dtype: torch.dtype, launched: list[str]) -> None:
    frames, n, c, out, h, w, kernel, padding = case
    (weight,), (bias,) = parameters(dtype, c, out, kernel=kernel)
    for x, activation in zip(few_layouts(torch.randn(frames, c, h, w).to(dtype)), ACTIVATIONS[1:], strict=True):
        options = (n, 3, wrap, [1, 1], padding, [1, 1], 1, activation)
        y = reference.wtsm_conv2d(x, weight, bias, *options)
        grad = torch.randn(y.shape).to(dtype)
        agree("wtsm_conv2d_backward", dtype, grad, y, x, weight, True, *options, [True] * 3)
    assert {"conv", "_weight_gradient"} <= set(launched)


def test_gradients_of_many_parts_are_added_in_one_order(launched: list[str]) -> None:
    x, ((weight,), _) = torch.randn(6, 3, 9, 12), parameters(torch.float32, 3, 4)
    options = (3, 3, True, [1, 1], [1, 1], [1, 1], 1, "none")
    grad = torch.randn(6, 4, 9, 12)
    agree("wtsm_conv2d_backward", torch.float32, grad, grad, x, weight, True, *options, [False, True, True])
    assert launched == ["_weight_gradient"]
    first, second = (ops.wtsm_conv2d_backward(grad, grad, x, weight, True, *options, [True] * 3) for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float16, marks=full)])
def test_backward_ops_without_a_kernel_run_over_those_of_the_layers(dtype: torch.dtype, launched: list[str]) -> None:
    (w1, w2), (b1, b2) = parameters(dtype, 3, 4, 2)
    x = torch.randn(3, 3, 4, 4).to(dtype)
    trunk = (x, [w1, w2], [b1, b2], 3, 3, True, "tanh", True)
    agree("wtsm_conv2d_stack_backward", dtype, torch.randn(3, 2, 4, 4).to(dtype), *trunk)
    block = (x, w1, b1, w2, b2, 2, [True] * 5)
    agree("double_conv2d_pool_backward", dtype, torch.randn(3, 2, 2, 2).to(dtype), *block)
    layers = [name for name in launched if name != "_wtsm"]
    assert set(layers) == {"conv", "_weight_gradient"}
    assert layers.count("_weight_gradient") == 4


# --- derivatives, compile and export, as of every op ------------------------------------------------------------------

test_float32_gradients = test_every_op.test_float32_gradients_are_the_references
test_compile_in_one_graph = full(test_every_op.test_compile_in_one_graph)
test_gradients_only_where_asked = full(test_every_op.test_gradients_only_where_asked)
test_exported_models_still_train = full(test_every_op.test_exported_models_still_train)
test_opcheck = full(test_every_op.test_opcheck)
test_opcheck_with_gradients = full(test_every_op.test_opcheck_with_gradients)
test_autocast = full(test_every_op.test_autocast)


@pytest.mark.parametrize("name", ["wtsm_conv2d", "standardize"])
def test_compile(name: str, launched: list[str]) -> None:
    test_every_op.test_compile_in_one_graph(name)
    assert launched


# --- the inputs -------------------------------------------------------------------------------------------------------

# T, H, W, big_size, small_size, every
INPUTS = [
    (2, 3, 5, 3, 2, 2),
    (1, 5, 4, 3, 1, 1),
    pytest.param((3, 5, 7, 6, 2, 2), marks=full),
    pytest.param((2, 20, 17, 18, 4, 1), marks=full),
    pytest.param((2, 4, 5, 20, 1, 1), marks=full),
    pytest.param((3, 33, 34, 16, 3, 3), marks=full),
]


@pytest.mark.parametrize("case", INPUTS)
@pytest.mark.parametrize("pixels", ["exact", "unit", "rounded"])
def test_bigsmall_inputs(case: tuple[int, ...], pixels: str, launched: list[str]) -> None:
    t, h, w, big, small, every = case
    frames = torch.randint(0, 256, (t, h, w, 3), dtype=torch.uint8)
    whole = torch.tensor([0, 0, w, h], dtype=torch.float64)
    corner = torch.rand(t, 2, dtype=torch.float64)
    cut = torch.cat((corner, whole[2:] - 1 - corner * torch.rand(t, 2, dtype=torch.float64)), 1)
    for boxes, view in ((whole.expand(t, 4), frames), (cut, frames.movedim(3, 0).contiguous().movedim(0, 3))):
        agree("bigsmall_inputs", torch.float32, view, boxes, big, small, every, pixels, 1e-7)
    assert set(launched) == {"_inputs"}


def test_public_inputs_of_every_convention() -> None:
    frames = torch.randint(0, 256, (3, 2, 3, 3), dtype=torch.uint8)
    for convention in ("exact", "toolbox"):
        ours = bk.bigsmall_inputs(frames, big_size=2, small_size=1, convention=convention)
        with bk.use_backend("reference"):
            plain = bk.bigsmall_inputs(frames, big_size=2, small_size=1, convention=convention)
        for y, expected in zip(ours, plain, strict=True):
            assert error(y, expected.double()) <= 1e-6


# --- which kernel runs ------------------------------------------------------------------------------------------------


def test_what_the_table_does_not_list_is_refused(launched: list[str]) -> None:
    x, weight = torch.randn(3, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 3, 3, dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"wtsm_conv2d has no triton kernel for a tensor on cpu of torch\.float64"):
        bk.wtsm_conv2d(x, weight)
    with pytest.raises(RuntimeError, match="has no cpp kernel"), bk.use_backend("cpp"):
        bk.wtsm(x)
    assert not launched


def test_empty_batches(launched: list[str]) -> None:
    assert bk.wtsm(torch.empty(0, 4, 3, 3)).shape == (0, 4, 3, 3)
    assert bk.wtsm_conv2d(torch.empty(0, 4, 3, 3), torch.empty(2, 4, 3, 3)).shape == (0, 2, 3, 3)
    assert bk.standardize(torch.empty(0, 3)).shape == (0, 3)
    assert not launched


def test_only_what_is_asked_for_is_interpreted(launched: list[str]) -> None:
    x = torch.randn(3, 4, 2, 2)
    for backend in (None, "reference"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bigsmall_kernels._library._backend", backend)
            assert torch.equal(bk.wtsm(x), reference.wtsm(x, 3, 3, True))
    assert not launched
