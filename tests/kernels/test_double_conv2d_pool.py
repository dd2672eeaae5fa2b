"""A Big block: conv3x3-ReLU-conv3x3-ReLU-average pool in one pass."""

import pytest
import torch
from kernel_helpers import (
    LOW_PRECISION,
    assert_compiled,
    assert_low_precision,
    error,
    every_isa,
    layouts,
    same_bits_on_any_thread_count,
)
from torch import Tensor

import bigsmall_kernels as bk
from bigsmall_kernels import reference

ops = torch.ops.bigsmall_kernels

# images, C, Cmid, Cout, H, W, pool
CASES = [
    (1, 3, 32, 32, 48, 48, 2),  # the paper's blocks, smaller
    (2, 32, 32, 64, 24, 24, 2),
    (1, 64, 64, 64, 36, 36, 4),
    (3, 1, 1, 1, 1, 1, 1),  # one pixel
    (1, 5, 17, 33, 13, 29, 3),
    (3, 2, 5, 16, 7, 50, 2),
    (2, 4, 33, 2, 17, 23, 1),
    (1, 16, 3, 17, 9, 210, 7),  # wider than a step of tiles
    (1, 17, 16, 5, 40, 41, 40),  # a pool as high as the image
    (1, 33, 2, 1, 64, 3, 3),
]


def parameters(c: int, mid: int, out: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    w1, w2 = torch.randn(mid, c, 3, 3) / (9 * c) ** 0.5, torch.randn(out, mid, 3, 3) / (9 * mid) ** 0.5
    return tuple(p.to(dtype) for p in (w1, torch.randn(mid), w2, torch.randn(out)))


def in_float64(x: Tensor, w1: Tensor, b1: Tensor | None, w2: Tensor, b2: Tensor | None, pool: int) -> Tensor:
    p = (None if t is None else t.double() for t in (w1, b1, w2, b2))
    return reference.double_conv2d_pool(x.double(), *p, pool)


@every_isa
@pytest.mark.parametrize("case", CASES)
def test_against_float64(case) -> None:
    assert_compiled("double_conv2d_pool")
    n, c, mid, out, h, w, pool = case
    w1, b1, w2, b2 = parameters(c, mid, out)
    packed = ops.pack_double_conv2d_pool(w1, w2)
    for name, x in layouts(torch.randn(n, c, h, w)):
        exact = in_float64(x, w1, b1, w2, b2, pool)
        y = bk.double_conv2d_pool(x, w1, b1, w2, b2, pool)
        assert error(y, exact) <= 1e-5, name
        assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(x)).stride(), name
        assert torch.equal(y, bk.double_conv2d_pool(x, w1, b1, w2, b2, pool, packed=packed)), name


@every_isa
def test_winograd_costs_little_precision() -> None:
    """At the paper's widths and sizes, several times better than the bound."""
    for c, mid, out, size, pool in ((3, 32, 32, 72, 2), (32, 32, 64, 72, 2), (64, 64, 64, 36, 4)):
        x, p = torch.randn(1, c, size, size), parameters(c, mid, out)
        assert error(bk.double_conv2d_pool(x, *p, pool), in_float64(x, *p, pool)) <= 3e-6


@every_isa
def test_without_biases() -> None:
    x, (w1, b1, w2, b2) = torch.randn(2, 5, 11, 10), parameters(5, 8, 6)
    for biases in ((None, None), (b1, None), (None, b2)):
        exact = in_float64(x, w1, biases[0], w2, biases[1], 2)
        assert error(bk.double_conv2d_pool(x, w1, biases[0], w2, biases[1], 2), exact) <= 1e-5


@every_isa
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision(dtype: torch.dtype) -> None:
    for c in (3, 16):
        x, p = torch.randn(2, c, 24, 25).to(dtype), parameters(c, 32, 16, dtype)
        for _, view in layouts(x):
            y = bk.double_conv2d_pool(view, *p, 2)
            assert_low_precision(y, reference.double_conv2d_pool(view, *p, 2), in_float64(view, *p, 2))
            assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(view)).stride()


def test_float64_is_float64() -> None:
    p = parameters(5, 7, 6, torch.float64)
    for _, x in layouts(torch.randn(2, 5, 13, 9, dtype=torch.float64)):
        y = bk.double_conv2d_pool(x, *p, 3)
        assert error(y, reference.double_conv2d_pool(x, *p, 3)) <= 1e-14
        assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(x)).stride()


@every_isa
def test_same_bits_on_any_thread_count(threads) -> None:
    """One image is divided among the threads, and three in the middle of one."""
    cases = (1, 3, 32, 32, 90, 61, 2), (3, 32, 32, 64, 36, 36, 4), (1, 16, 16, 16, 61, 30, 3)
    for n, c, mid, out, h, w, pool in cases:
        x, p = torch.randn(n, c, h, w), parameters(c, mid, out)
        same_bits_on_any_thread_count(lambda x=x, p=p, pool=pool: bk.double_conv2d_pool(x, *p, pool))


@every_isa
def test_nothing_of_an_earlier_call_is_left(threads) -> None:
    """A thread keeps its workspace: a call on NaN fills it with NaN, and no later call reads any of that."""
    torch.set_num_threads(1)
    nan = [torch.full(s, float("nan")) for s in ((1, 64, 52, 212), (64, 64, 3, 3), (64,), (64, 64, 3, 3), (64,))]
    for n, c, mid, out, h, w, pool in CASES:
        x, p = torch.randn(n, c, h, w), parameters(c, mid, out)
        before = bk.double_conv2d_pool(x, *p, pool)
        assert bk.double_conv2d_pool(*nan, 1).isnan().all()
        assert torch.equal(bk.double_conv2d_pool(x, *p, pool), before)


@every_isa
@pytest.mark.parametrize("c", [3, 16])
def test_nan_comes_out_where_eager_has_it(c: int) -> None:
    """Winograd spreads it over its tile, so there may be more of it, but far pixels stay as they were."""
    x, p = torch.randn(2, c, 40, 40), parameters(c, 16, 16)
    clean = bk.double_conv2d_pool(x, *p, 2)
    x[1, 1, 5, 30] = float("nan")
    y = bk.double_conv2d_pool(x, *p, 2)
    assert y.isnan()[reference.double_conv2d_pool(x, *p, 2).isnan()].all()
    assert torch.equal(y[0], clean[0])
    assert torch.equal(y[1, :, 12:], clean[1, :, 12:])


def test_empty_expanded_and_odd_weights() -> None:
    w1, b1, w2, b2 = parameters(5, 6, 7)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.empty(0, 5, 8, 9).contiguous(memory_format=layout)
        assert bk.double_conv2d_pool(x, w1, b1, w2, b2, 2).shape == (0, 7, 4, 4)
    x = torch.randn(1, 5, 1, 1).expand(3, 5, 9, 8)
    y = bk.double_conv2d_pool(x, w1, b1, w2, b2, 2)
    assert torch.equal(y, bk.double_conv2d_pool(x.contiguous(), w1, b1, w2, b2, 2))
    strided = (w1.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), b1.repeat_interleave(2)[::2])
    assert torch.equal(y, bk.double_conv2d_pool(x, *strided, w2.contiguous(memory_format=torch.channels_last), b2, 2))


@every_isa
def test_strides_beyond_32_bits() -> None:
    """An image whose planes lie more than 2^31 elements apart, in memory that is never touched between them."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    x = torch.empty(2**31 + 4096).as_strided((1, 2, 12, 12), (1, 2**31, 16, 1))
    x.copy_(torch.randn(1, 2, 12, 12))
    p = parameters(2, 3, 4)
    assert torch.equal(bk.double_conv2d_pool(x, *p, 2), bk.double_conv2d_pool(x.contiguous(), *p, 2))


@every_isa
@pytest.mark.parametrize("channels", [(3, 32, 32), (5, 17, 33), (4, 1, 16), (64, 64, 64)])
def test_packed_weights_are_the_references(channels) -> None:
    assert_compiled("pack_double_conv2d_pool")
    w1, _, w2, _ = parameters(*channels)
    packed, expected = ops.pack_double_conv2d_pool(w1, w2), reference.pack_double_conv2d_pool(w1, w2)
    torch.testing.assert_close(packed, expected, rtol=2e-7, atol=1e-9)
    assert packed.numel() == reference.packed_block_size(w1, w2)
    half = ops.pack_double_conv2d_pool(w1.half(), w2.half())
    torch.testing.assert_close(half, reference.pack_double_conv2d_pool(w1.half(), w2.half()), rtol=2e-7, atol=1e-9)


def test_packed_of_another_size_is_refused() -> None:
    w1, b1, w2, b2 = parameters(5, 6, 7)
    with pytest.raises(ValueError, match="packed must be"):
        bk.double_conv2d_pool(torch.randn(1, 5, 8, 8), w1, b1, w2, b2, 2, packed=torch.zeros(100))


def test_the_op_itself_refuses_what_it_would_misread() -> None:
    op, x, filters = torch.ops.bigsmall_kernels.double_conv2d_pool, torch.ones(1, 5, 8, 8), torch.ones(16, 16, 3, 3)
    with pytest.raises(RuntimeError, match="weight1"):
        op(x, torch.ones(16, 5, 1, 1), None, filters, None, 2, None)
    with pytest.raises(RuntimeError, match="weight1"):
        op(x, torch.ones(16, 5, 3, 3), torch.ones(1), filters, None, 2, None)
    with pytest.raises(ValueError, match="x must have at least one channel"):
        bk.double_conv2d_pool(torch.ones(1, 0, 8, 8), torch.ones(4, 0, 3, 3), None, torch.ones(4, 4, 3, 3), None, 2)
