"""The temporal shift: what it means, and that every kernel of it means the same."""

import numpy as np
import pytest
import torch
from kernel_helpers import assert_compiled, every_isa, layouts, same_bits_on_any_thread_count

import bigsmall_kernels as bk
from bigsmall_kernels import reference

SHAPES = [
    (clips, n, c, h, w)
    for clips in (1, 2, 5)
    for n in (1, 2, 3, 4)
    for c, h, w in ((1, 2, 3), (3, 9, 9), (7, 5, 1), (32, 9, 9))
]


def by_hand(x: np.ndarray, n: int, fold_div: int, wrap: bool) -> np.ndarray:
    """FACTS 1.2, one frame and channel at a time."""
    y = np.zeros_like(x)
    fold = x.shape[1] // fold_div
    for frame in range(len(x)):
        first, t = frame - frame % n, frame % n
        for c in range(x.shape[1]):
            source = t + (1 if c < fold else -1 if c < 2 * fold else 0)
            if wrap or 0 <= source < n:
                y[frame, c] = x[first + source % n, c]
    return y


@every_isa
@pytest.mark.parametrize("wrap", [True, False])
@pytest.mark.parametrize("fold_div", [1, 2, 3, 8])
def test_definition(fold_div: int, wrap: bool) -> None:
    assert_compiled("wtsm")
    for clips, n, c, h, w in SHAPES:
        x = torch.randn(clips * n, c, h, w)
        expected = torch.from_numpy(by_hand(x.numpy(), n, fold_div, wrap))
        assert torch.equal(reference.wtsm(x, n, fold_div, wrap), expected)
        for name, laid_out in layouts(x):
            y = bk.wtsm(laid_out, n, fold_div, wrap=wrap)
            assert torch.equal(y, expected), name
            assert y.stride() == reference.wtsm(laid_out, n, fold_div, wrap).stride(), name


@every_isa
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64, torch.complex128]
)
def test_every_dtype_exactly(dtype: torch.dtype) -> None:
    x = (torch.randn(6, 8, 3, 5) * 50).abs().to(dtype)
    for _, laid_out in layouts(x) if dtype.is_floating_point else [("", x)]:
        assert torch.equal(bk.wtsm(laid_out), reference.wtsm(x, 3, 3, True))


def test_authors_numbers(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "shift.npz")
    cases = {key.rsplit("_", 1)[0] for key in golden.files}
    assert cases
    for case in cases:
        n = int(case.split("_n")[1].split("_")[0])
        x = torch.from_numpy(golden[f"{case}_x"])
        assert torch.equal(bk.wtsm(x, n), torch.from_numpy(golden[f"{case}_wtsm"]))
        assert torch.equal(bk.wtsm(x, n, wrap=False), torch.from_numpy(golden[f"{case}_tsm"]))


def test_it_never_mixes_clips() -> None:
    x = torch.randn(6, 5, 4, 4)
    assert torch.equal(bk.wtsm(x)[:3], bk.wtsm(x[:3]))


def test_fewer_channels_than_fold_div_and_one_frame_are_the_identity() -> None:
    x = torch.randn(6, 2, 4, 4)
    assert torch.equal(bk.wtsm(x), x)
    x = torch.randn(4, 9, 3, 3)
    assert torch.equal(bk.wtsm(x, 1), x)


@every_isa
def test_expanded_and_empty() -> None:
    x = torch.randn(1, 1, 1, 3).expand(6, 32, 9, 3)
    assert torch.equal(bk.wtsm(x), reference.wtsm(x.contiguous(), 3, 3, True))
    for shape in ((0, 4, 3, 3), (3, 4, 0, 3), (3, 0, 2, 2)):
        assert bk.wtsm(torch.empty(shape)).shape == shape


def test_more_elements_than_32_bits_count() -> None:
    """Addresses beyond 4 GiB are right: more than 2^31 elements in half precision."""
    torch.utils.deterministic.fill_uninitialized_memory = False  # filling 5 GB with NaN would take most of a minute
    x = torch.zeros(3, 3, 16384, 16384, dtype=torch.float16)
    assert x.numel() > 2**31
    x[1, 0, -1, -1], x[0, 1, -1, -2], x[2, 2, -1, -3] = 1, 2, 3
    y = bk.wtsm(x)
    assert (y[0, 0, -1, -1], y[1, 1, -1, -2], y[2, 2, -1, -3]) == (1, 2, 3)
    assert not y[0, 0, -2:, :-1].any()
    assert not y[2, 0].any()


@every_isa
def test_same_bits_on_any_thread_count(threads) -> None:
    x = torch.randn(30, 32, 9, 9)
    same_bits_on_any_thread_count(lambda: bk.wtsm(x))


def test_modules() -> None:
    x = torch.randn(6, 32, 4, 4)
    assert torch.equal(bk.nn.WTSM()(x), bk.wtsm(x))
    assert torch.equal(bk.nn.TSM(3)(x), bk.wtsm(x, wrap=False))
    assert not list(bk.nn.WTSM().parameters())
    assert bk.nn.TSM().n_segment == 10


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "words"),
    [
        (([1.0],), {}, TypeError, "x must be a torch.Tensor"),
        ((torch.zeros(6, 3, 2),), {}, ValueError, "x must be .* 3 dimensions"),
        ((torch.zeros(7, 3, 2, 2),), {}, ValueError, "multiple of n_segment=3.* got 7"),
        ((torch.zeros(6, 3, 2, 2), 0), {}, ValueError, "n_segment must be at least 1, got 0"),
        ((torch.zeros(6, 3, 2, 2), 3, 0), {}, ValueError, "fold_div must be at least 1, got 0"),
        ((torch.zeros(6, 3, 2, 2), 3.0), {}, TypeError, "n_segment must be an int"),
    ],
)
def test_bad_arguments(args, kwargs, kind, words) -> None:
    with pytest.raises(kind, match=words):
        bk.wtsm(*args, **kwargs)
