"""A Big block: conv3x3-ReLU-conv3x3-ReLU-average pool in one pass."""

import pytest
import torch
import torch.nn.functional as F
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
@pytest.mark.parametrize("case", [*CASES, (2, 16, 32, 16, 24, 25, 2)])
def test_low_precision(case, dtype: torch.dtype) -> None:
    n, c, mid, out, h, w, pool = case
    x, p = torch.randn(n, c, h, w).to(dtype), parameters(c, mid, out, dtype)
    packed = ops.pack_double_conv2d_pool(p[0], p[2])
    exact = in_float64(x, *p, pool)
    for name, view in layouts(x):
        y = bk.double_conv2d_pool(view, *p, pool)
        assert_low_precision(y, reference.double_conv2d_pool(view, *p, pool), exact)
        assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(view)).stride(), name
        assert torch.equal(y, bk.double_conv2d_pool(view, *p, pool, packed=packed)), name


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, *LOW_PRECISION])
@pytest.mark.parametrize("c", [1, 3, 5])
def test_crops_of_channels_last(c: int, dtype: torch.dtype) -> None:
    """Neither contiguous nor channels_last; also pictures narrower than a tile and lower than a neighbourhood."""
    p = parameters(c, 6, 4, dtype)
    wide = torch.randn(2, c, 12, 40).to(dtype).contiguous(memory_format=torch.channels_last)
    for x in (wide[..., ::2], wide[:, :, 1:9, 3:30], wide[:, :, 2:4, 5:12], wide):
        y, plain = bk.double_conv2d_pool(x, *p, 2), reference.double_conv2d_pool(x, *p, 2)
        assert y.stride() == plain.stride()
        exact = in_float64(x, *p, 2)
        assert error(y, exact) <= (1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)


@every_isa
def test_bfloat16_on_the_instructions_that_are_there() -> None:
    """On tiles the first convolution's outputs are rounded to bfloat16, as in eager; in floats they are not."""
    x = torch.full((1, 32, 20, 20), 1.0, dtype=torch.bfloat16)
    x[:, 1] = 2**-9  # 1 + 2^-9 rounds to 1
    w1, w2 = torch.zeros(2, 32, 32, 3, 3, dtype=torch.bfloat16)
    w1[0, :2, 1, 1] = w2[0, 0, 1, 1] = 1
    y = bk.double_conv2d_pool(x, w1, None, w2, torch.full((32,), -1.0, dtype=torch.bfloat16), 2)
    assert torch.equal(y[:, 0], torch.full((1, 10, 10), 0.0 if bk.info()["isa"] == "amx" else 2**-9).bfloat16())


def test_float64_is_float64() -> None:
    p = parameters(5, 7, 6, torch.float64)
    for _, x in layouts(torch.randn(2, 5, 13, 9, dtype=torch.float64)):
        y = bk.double_conv2d_pool(x, *p, 3)
        assert error(y, reference.double_conv2d_pool(x, *p, 3)) <= 1e-14
        assert y.stride() == torch.empty_like(y, memory_format=reference.memory_format(x)).stride()


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_same_bits_on_any_thread_count(threads, dtype: torch.dtype) -> None:
    """One image is divided among the threads, and three in the middle of one."""
    cases = (1, 3, 32, 32, 90, 61, 2), (3, 32, 32, 64, 36, 36, 4), (1, 16, 16, 16, 61, 30, 3)
    for n, c, mid, out, h, w, pool in cases:
        x, p = torch.randn(n, c, h, w).to(dtype), parameters(c, mid, out, dtype)
        same_bits_on_any_thread_count(lambda x=x, p=p, pool=pool: bk.double_conv2d_pool(x, *p, pool))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nothing_of_an_earlier_call_is_left(threads, dtype: torch.dtype) -> None:
    """A thread keeps its workspace: a call on NaN fills it with NaN, and no later call reads any of that."""
    torch.set_num_threads(1)
    sizes = (1, 64, 52, 212), (64, 64, 3, 3), (64,), (64, 64, 3, 3), (64,)
    nan = [torch.full(size, float("nan"), dtype=dtype) for size in sizes]
    for n, c, mid, out, h, w, pool in CASES:
        x, p = torch.randn(n, c, h, w).to(dtype), parameters(c, mid, out, dtype)
        before = bk.double_conv2d_pool(x, *p, pool)
        assert bk.double_conv2d_pool(*nan, 1).isnan().all()
        assert torch.equal(bk.double_conv2d_pool(x, *p, pool), before)


def sure(n: int, c: int, mid: int, out: int, h: int, w: int) -> tuple[Tensor, tuple[Tensor, ...]]:
    """x and parameters for which no ReLU's input is so near zero that rounding decides whether it passes a gradient."""
    while True:
        x, p = torch.randn(n, c, h, w), parameters(c, mid, out)
        w1, b1, w2, b2 = (t.double() for t in p)
        first = F.conv2d(x.double(), w1, b1, padding=1)
        second = F.conv2d(first.relu(), w2, b2, padding=1)
        if min(t.abs().min() for t in (first, second)) > 1e-5:
            return x, p


def gradients(x: Tensor, p: tuple[Tensor | None, ...], pool: int, grad: Tensor, mask: list[bool]) -> list[Tensor]:
    found: tuple[Tensor, ...] = ops.double_conv2d_pool_backward(grad, x, *p, pool, mask)
    return [g for g, asked in zip(found, mask, strict=True) if asked]


def gradients_in_float64(x: Tensor, p: tuple[Tensor | None, ...], pool: int, grad: Tensor) -> list[Tensor]:
    given = [None if t is None else t.double().requires_grad_() for t in (x, *p)]
    reference.double_conv2d_pool(*given, pool).backward(grad.double())
    return [t.grad for t in given if t is not None]


@every_isa
@pytest.mark.parametrize("case", [*CASES, (5, 3, 32, 32, 33, 70, 2), (1, 8, 16, 16, 130, 12, 2)])
def test_gradients_against_float64(case) -> None:
    """Also where images are divided into bands, and of every layout of the gradient."""
    assert_compiled("double_conv2d_pool_backward")
    *sizes, h, w, pool = case
    (x, p), grad = sure(*sizes, h, w), torch.randn(sizes[0], sizes[3], h // pool, w // pool)
    exact = gradients_in_float64(x, p, pool, grad)
    for (name, x_view), (_, grad_view) in zip(layouts(x), layouts(grad), strict=True):
        found = gradients(x_view, p, pool, grad_view, [True] * 5)
        assert max(map(error, found, exact)) <= 1e-5, name
        assert found[0].stride() == torch.empty_like(x, memory_format=reference.memory_format(x_view)).stride(), name


@every_isa
@pytest.mark.parametrize("c", [3, 16])
def test_gradients_only_where_asked(c: int) -> None:
    x, p, grad = torch.randn(3, c, 21, 22), parameters(c, 8, 17), torch.randn(3, 17, 10, 11)
    everything = gradients(x, p, 2, grad, [True] * 5)
    for asked in ([0], [1, 2], [3], [4], [0, 4], [2, 3]):
        mask = [i in asked for i in range(5)]
        found = ops.double_conv2d_pool_backward(grad, x, *p, 2, mask)
        assert all(torch.equal(found[i], everything[i]) if mask[i] else found[i].numel() == 0 for i in range(5))


@every_isa
def test_gradients_without_biases() -> None:
    x, (w1, b1, w2, b2), grad = torch.randn(2, 5, 11, 10), parameters(5, 8, 6), torch.randn(2, 6, 5, 5)
    for p in ((w1, None, w2, None), (w1, b1, w2, None), (w1, None, w2, b2)):
        mask = [True, *(t is not None for t in p)]
        found, exact = gradients(x, p, 2, grad, mask), gradients_in_float64(x, p, 2, grad)
        assert max(map(error, found, exact)) <= 1e-5


@every_isa
@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_gradients_in_low_precision(dtype: torch.dtype) -> None:
    x, p, grad = torch.randn(2, 5, 24, 25).to(dtype), parameters(5, 8, 16, dtype), torch.randn(2, 16, 12, 12).to(dtype)
    given = [t.clone().requires_grad_() for t in (x, *p)]
    reference.double_conv2d_pool(*given, 2).backward(grad)
    for ours, eager, exact in zip(
        gradients(x, p, 2, grad, [True] * 5), given, gradients_in_float64(x, p, 2, grad), strict=True
    ):
        assert_low_precision(ours, eager.grad, exact)


@pytest.mark.parametrize("c", [3, 16])
def test_gradients_in_float64(c: int) -> None:
    x, p = torch.randn(2, c, 13, 9, dtype=torch.float64), parameters(c, 7, 6, torch.float64)
    grad = torch.randn(2, 6, 4, 3, dtype=torch.float64)
    exact = gradients_in_float64(x, p, 3, grad)
    assert max(map(error, gradients(x, p, 3, grad, [True] * 5), exact)) <= 1e-14
    assert max(map(error, gradients(x, p, 3, grad, [False, True, True, True, True]), exact[1:])) <= 1e-14
    assert error(gradients(x, p, 3, grad, [False, False, False, True, False])[0], exact[3]) <= 1e-14


@every_isa
def test_gradients_same_bits_on_any_thread_count(threads) -> None:
    """Few images in bands, and more images than there are partial sums."""
    for n, c, mid, out, h, w, pool in ((1, 3, 16, 16, 130, 20, 2), (3, 16, 8, 8, 70, 20, 2), (70, 5, 8, 8, 9, 9, 2)):
        x, p, grad = torch.randn(n, c, h, w), parameters(c, mid, out), torch.randn(n, out, h // pool, w // pool)

        def flat(x: Tensor = x, p: tuple[Tensor, ...] = p, pool: int = pool, grad: Tensor = grad) -> Tensor:
            return torch.cat([g.flatten() for g in gradients(x, p, pool, grad, [True] * 5)])

        same_bits_on_any_thread_count(flat)


@every_isa
def test_gradients_of_nothing() -> None:
    x, p = torch.empty(0, 5, 8, 9), parameters(5, 6, 7)
    found = gradients(x, p, 2, torch.empty(0, 7, 4, 4), [True] * 5)
    assert found[0].shape == x.shape
    assert all(torch.equal(g, torch.zeros_like(t)) for g, t in zip(found[1:], p, strict=True))


@every_isa
def test_gradients_have_nothing_of_an_earlier_call(threads) -> None:
    torch.set_num_threads(1)
    nan = [torch.full(s, float("nan")) for s in ((64, 64, 3, 3), (64,), (64, 64, 3, 3), (64,))]
    for n, c, mid, out, h, w, pool in CASES:
        x, p, grad = torch.randn(n, c, h, w), parameters(c, mid, out), torch.randn(n, out, h // pool, w // pool)
        before = gradients(x, p, pool, grad, [True] * 5)
        gradients(torch.full((1, 64, 52, 212), float("nan")), tuple(nan), 1, torch.randn(1, 64, 52, 212), [True] * 5)
        assert all(map(torch.equal, gradients(x, p, pool, grad, [True] * 5), before))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("c", [3, 16])
def test_nan_comes_out_where_eager_has_it(c: int, dtype: torch.dtype) -> None:
    """Winograd spreads it over its tile, so there may be more of it, but far pixels stay as they were."""
    x, p = torch.randn(2, c, 40, 40).to(dtype), parameters(c, 16, 16, dtype)
    clean = bk.double_conv2d_pool(x, *p, 2)
    x[1, 1, 5, 30] = float("nan")
    y = bk.double_conv2d_pool(x, *p, 2)
    assert y.isnan()[reference.double_conv2d_pool(x, *p, 2).isnan()].all()
    assert torch.equal(y[0], clean[0])
    assert torch.equal(y[1, :, 12:], clean[1, :, 12:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_expanded_and_odd_weights(dtype: torch.dtype) -> None:
    w1, b1, w2, b2 = parameters(5, 6, 7, dtype)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.empty(0, 5, 8, 9, dtype=dtype).contiguous(memory_format=layout)
        assert bk.double_conv2d_pool(x, w1, b1, w2, b2, 2).shape == (0, 7, 4, 4)
    x = torch.randn(1, 5, 1, 1).to(dtype).expand(3, 5, 9, 8)
    y = bk.double_conv2d_pool(x, w1, b1, w2, b2, 2)
    assert torch.equal(y, bk.double_conv2d_pool(x.contiguous(), w1, b1, w2, b2, 2))
    strided = (w1.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0), b1.repeat_interleave(2)[::2])
    assert torch.equal(y, bk.double_conv2d_pool(x, *strided, w2.contiguous(memory_format=torch.channels_last), b2, 2))


@every_isa
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_strides_beyond_32_bits(dtype: torch.dtype) -> None:
    """An image whose planes lie more than 2^31 elements apart, in memory that is never touched between them."""
    torch.utils.deterministic.fill_uninitialized_memory = False
    x = torch.empty(2**31 + 4096, dtype=dtype).as_strided((1, 2, 12, 12), (1, 2**31, 16, 1))
    x.copy_(torch.randn(1, 2, 12, 12))
    p = parameters(2, 3, 4, dtype)
    assert torch.equal(bk.double_conv2d_pool(x, *p, 2), bk.double_conv2d_pool(x.contiguous(), *p, 2))


@every_isa
@pytest.mark.parametrize("channels", [(3, 32, 32), (5, 17, 33), (4, 1, 16), (64, 64, 64)])
def test_packed_weights_are_the_references(channels) -> None:
    assert_compiled("pack_double_conv2d_pool")
    w1, _, w2, _ = parameters(*channels)
    winograd = sum(64 * ((w.shape[0] + 15) // 16) * 16 * w.shape[1] for w in (w1, w2))
    for pair in ((w1, w2), (w1.half(), w2.half())):
        packed, expected = ops.pack_double_conv2d_pool(*pair), reference.pack_double_conv2d_pool(*pair)
        assert packed.numel() == reference.packed_block_size(*pair)
        torch.testing.assert_close(packed[:winograd], expected[:winograd], rtol=2e-7, atol=1e-9)
        tiles = (p[winograd:].view(torch.bfloat16) for p in (packed, expected))
        assert torch.equal(*tiles)


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
    with pytest.raises(RuntimeError, match="float32, float64"):
        op(x.to(torch.uint8), torch.ones(16, 5, 3, 3), None, filters, None, 2, None)
    half, bias = [t.bfloat16() for t in (x, torch.ones(16, 5, 3, 3), filters)], torch.arange(16).bfloat16()
    flat, row = (op(half[0], half[1], b, half[2], b, 2, None) for b in (bias, bias[None]))
    assert torch.equal(flat, row)
    with pytest.raises(RuntimeError, match="gradient of its result"):
        gradients(x, parameters(5, 6, 7), 2, torch.ones(1, 7, 8, 8), [True] * 5)
    with pytest.raises(ValueError, match="x must have at least one channel"):
        bk.double_conv2d_pool(torch.ones(1, 0, 8, 8), torch.ones(4, 0, 3, 3), None, torch.ones(4, 4, 3, 3), None, 2)
