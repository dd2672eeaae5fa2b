"""The normalisers: what they mean, and that every kernel of them means the same."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from kernel_helpers import assert_compiled, error, every_isa, same_bits_on_any_thread_count
from torch import Tensor

import bigsmall_kernels as bk
from bigsmall_kernels import reference

DTYPES = (torch.uint8, torch.float32, torch.float64, torch.float16, torch.bfloat16)
SHAPES = ((2,), (7,), (3, 1), (2, 5, 3), (3, 3, 5, 4), (5, 2, 3, 7, 2), (3, 3, 40, 41), (3, 300000))
BOUND = {torch.float64: 1e-13}


def pixels(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return (torch.rand(shape) * 254 + 1).to(dtype)


def strided(x: Tensor) -> Iterator[Tensor]:
    """The same values under other strides."""
    yield x
    if x.numel() > 20000:
        return
    yield x.repeat_interleave(2, -1)[..., ::2]
    yield torch.cat((x, x))[: len(x)].transpose(0, -1).contiguous().transpose(0, -1)
    if x.dim() == 4:
        yield x.contiguous(memory_format=torch.channels_last)
        yield x[..., :1].expand(x.shape)


def standardized(x: np.ndarray) -> np.ndarray:
    """FACTS 3.2."""
    return (x - x.mean()) / x.std()


def differences(x: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """FACTS 3.2, before their standard deviation."""
    return (x[1:] - x[:-1]) / (x[1:] + x[:-1] + eps)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
def test_definition(dtype: torch.dtype) -> None:
    assert_compiled("standardize")
    assert_compiled("diff_normalize")
    real = torch.float64 if dtype == torch.float64 else torch.float32
    for shape in SHAPES:
        for x in strided(pixels(shape, dtype)):
            exact = x.double().numpy()
            d = differences(exact)
            for y, plain, expected in (
                (bk.standardize(x), reference.standardize(x, None, None), standardized(exact)),
                (bk.standardize(x, mean=100, std=20), reference.standardize(x, 100.0, 20.0), (exact - 100) / 20),
                (bk.standardize(x, std=20), reference.standardize(x, None, 20.0), (exact - exact.mean()) / 20),
                (bk.diff_normalize(x, std=0.5), reference.diff_normalize(x, 1e-7, 0.5), d / 0.5),
            ):
                assert y.dtype == plain.dtype == real
                assert y.stride() == plain.stride()
                for result in (y, plain):
                    assert error(result, torch.from_numpy(expected)) <= BOUND.get(dtype, 5e-7)
            if d.std() > 1e-3:  # else rounding is all there is
                assert error(bk.diff_normalize(x), torch.from_numpy(d / d.std())) <= BOUND.get(dtype, 1e-6)
                wide = differences(exact, 3.0)
                assert error(bk.diff_normalize(x, 3), torch.from_numpy(wide / wide.std())) <= BOUND.get(dtype, 1e-6)


@every_isa
@pytest.mark.parametrize("dtype", DTYPES)
def test_constants_are_zeros(dtype: torch.dtype) -> None:
    for value in (0, 117, 0.1):
        x = torch.full((3, 5, 70, 71), value).to(dtype)
        for y in (bk.standardize(x), bk.diff_normalize(x), bk.standardize(x, std=0), bk.diff_normalize(x, std=0)):
            assert torch.equal(y, torch.zeros_like(y))
    step = torch.tensor([100, 101]).view(2, 1, 1).expand(2, 90, 91).to(dtype)  # every difference is the same
    assert not bk.diff_normalize(step).any()


@every_isa
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_go_where_the_reference_lets_them(value: float) -> None:
    for dtype in DTYPES[1:]:
        x = torch.randn(4, 50, 51).to(dtype)
        x[1, 30, 40] = value
        for y, plain in (
            (bk.standardize(x), reference.standardize(x, None, None)),
            (bk.standardize(x, mean=0, std=2), reference.standardize(x, 0.0, 2.0)),
            (bk.diff_normalize(x), reference.diff_normalize(x, 1e-7, None)),
            (bk.diff_normalize(x, std=2), reference.diff_normalize(x, 1e-7, 2.0)),
        ):
            assert torch.equal(y.isnan(), plain.isnan())
            assert torch.equal(y.isinf(), plain.isinf())


@every_isa
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_precision_number_is_read_exactly(dtype: torch.dtype) -> None:
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    assert torch.equal(bk.standardize(x, mean=0, std=1).nan_to_num(-1.5), x.float().nan_to_num(-1.5))


@every_isa
@pytest.mark.parametrize(("scale", "offset"), [(1e30, 0), (1e-30, 0), (1, 1e5), (1e-3, 1)])
def test_statistics_do_not_cancel_overflow_or_vanish(scale: float, offset: float) -> None:
    x = torch.randn(5, 60, 61) * scale + offset
    x[0, 0, 0] = 0  # far from the rest
    assert error(bk.standardize(x), reference.standardize(x.double(), None, None)) <= 1e-6


@every_isa
def test_same_bits_on_any_thread_count(threads: None) -> None:
    for dtype in DTYPES:
        x = pixels((7, 3, 210, 211), dtype)
        same_bits_on_any_thread_count(lambda x=x: bk.standardize(x))
        same_bits_on_any_thread_count(lambda x=x: bk.diff_normalize(x))


def test_nothing_to_do() -> None:
    for shape in ((0, 3, 4), (3, 0, 4)):
        assert bk.standardize(torch.empty(shape)).shape == shape
    assert bk.diff_normalize(torch.empty(3, 0, 4)).shape == (2, 0, 4)
    assert torch.ops.bigsmall_kernels.diff_normalize(torch.rand(1, 4), 1e-7, None).shape == (0, 4)


def test_a_stream_in_pieces() -> None:
    """With mean and std given, pieces are the whole."""
    x = pixels((9, 4, 5, 3), torch.uint8)
    mean, std = x.double().mean().item(), x.double().std(correction=0).item()
    pieces = [bk.standardize(x[i : i + 3], mean=mean, std=std) for i in (0, 3, 6)]
    assert torch.allclose(torch.cat(pieces), bk.standardize(x), atol=1e-6)
    pieces = [bk.diff_normalize(x[i : i + 4], std=0.25) for i in (0, 3, 6)]
    assert torch.equal(torch.cat(pieces), bk.diff_normalize(x, std=0.25))


def test_authors_numbers(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "preproc_9.npz")
    frames = torch.from_numpy(golden["frames_u8"])
    for x in (frames, frames.float(), frames.double()):
        assert error(bk.standardize(x), torch.from_numpy(golden["standardized"])) <= 2e-7
        assert error(bk.diff_normalize(x), torch.from_numpy(golden["toolbox_diffnorm"][:-1]).double()) <= 3e-7
    label = torch.from_numpy(golden["label"])
    assert torch.allclose(bk.standardize(label), torch.from_numpy(golden["standardized_label"]), rtol=1e-12)


def test_authors_numbers_of_degenerate_videos(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "preproc_degenerate.npz")
    for case in ("zeros", "const", "nearblack", "freeze"):
        frames = torch.from_numpy(golden[f"{case}_frames"])
        for x in (frames, frames.to(torch.uint8), frames.float()):
            d = bk.diff_normalize(x).double()
            assert error(d, torch.from_numpy(golden[f"{case}_toolbox_diffnorm"][:-1]).double()) <= 3e-7
            if f"{case}_standardized" in golden.files:
                assert error(bk.standardize(x), torch.from_numpy(golden[f"{case}_standardized"])) <= 3e-7
            if f"{case}_bigsmall_diffnorm" in golden.files:  # one difference less, and a zero frame in the std
                fewer = bk.diff_normalize(x[:-1], std=1).double()
                fewer = torch.cat((fewer, torch.zeros_like(fewer[:1])))
                fewer = fewer / (fewer.std(correction=0) or 1)
                assert error(fewer, torch.from_numpy(golden[f"{case}_bigsmall_diffnorm"]).double()) <= 3e-7


@pytest.mark.parametrize(("call", "exception", "message"), [
    (lambda: bk.diff_normalize(torch.rand(1, 3)), ValueError, r"with T >= 2 for a difference, got \(1, 3\)"),
    (lambda: bk.diff_normalize(torch.rand(3, 3), eps=-1), ValueError, "eps must be at least 0, got -1"),
    (lambda: bk.diff_normalize(torch.rand(3, 3), std=float("nan")), ValueError, "std must be at least 0, got nan"),
    (lambda: bk.standardize(torch.tensor(3.0)), ValueError, r"frames must be \(T, \.\.\.\)"),
    (lambda: bk.standardize(torch.zeros(3, dtype=torch.int64)), TypeError, "frames must be .*, got torch.int64"),
    (lambda: bk.standardize(np.zeros(3)), TypeError, "frames must be a torch.Tensor, got ndarray"),
    (lambda: bk.standardize(torch.rand(3), mean="1"), TypeError, "mean must be a number or None, got str"),
    (lambda: bk.standardize(torch.rand(3), std=-1), ValueError, "std must be at least 0, got -1"),
])  # fmt: skip
def test_errors_name_the_argument(call, exception, message) -> None:
    with pytest.raises(exception, match=message):
        call()


@every_isa
def test_strides_beyond_32_bits() -> None:
    """A frame that lies more than 2^31 elements after the one before it."""
    x = torch.zeros(2**31 + 64, dtype=torch.uint8).as_strided((2, 3, 5), (2**31, 8, 1))
    x.copy_(pixels((2, 3, 5), torch.uint8))
    assert torch.equal(bk.diff_normalize(x), bk.diff_normalize(x.contiguous()))
    assert torch.equal(bk.standardize(x), bk.standardize(x.contiguous()))


def test_eps_too_small_for_float32_is_refused() -> None:
    with pytest.raises(ValueError, match="eps must be 0 or at least 1e-30, got 1e-40"):
        bk.diff_normalize(torch.zeros(2, 3), 1e-40)
