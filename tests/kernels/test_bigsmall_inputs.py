"""From decoded pixels to both inputs: what it means, and that every kernel of it means the same."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from kernel_helpers import assert_compiled, error, every_isa, same_bits_on_any_thread_count
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

import bigsmall_kernels as bk
from bigsmall_kernels import reference

CONVENTIONS = ("exact", "bigsmall", "toolbox", "toolbox-pre225")
PIXELS = ("exact", "unit", "rounded")
op = torch.ops.bigsmall_kernels.bigsmall_inputs


def video(n: int, height: int, width: int) -> Tensor:
    return torch.randint(0, 256, (n, height, width, 3), dtype=torch.uint8)


def boxes(n: int, height: int, width: int) -> Iterator[tuple[str, Tensor]]:
    whole = torch.tensor([0.0, 0, width, height], dtype=torch.float64).expand(n, 4)
    fractional = torch.tensor([0.3, 1.7, width * 0.7, height * 0.65], dtype=torch.float64).expand(n, 4)
    step = torch.tensor([0.31, 0.2, 0.3, 0.4], dtype=torch.float64)
    yield "whole", whole
    yield "part", torch.tensor([1.0, 2, width // 2, height // 3], dtype=torch.float64).expand(n, 4)
    yield "fractional", fractional
    yield "last pixels", whole / 8 + torch.tensor([width * 7 / 8, height * 7 / 8, 0, 0], dtype=torch.float64)
    yield "moving", fractional + torch.arange(n)[:, None] // 2 * step


def by_hand(frames: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The mean over each target's area, one source pixel at a time."""
    x, y, w, h = box
    out = np.zeros((size, size, 3))
    for i in range(size):
        for j in range(size):
            top, bottom = y + h * i / size, y + h * (i + 1) / size
            left, right = x + w * j / size, x + w * (j + 1) / size
            for r in range(int(top), min(int(np.ceil(bottom)), frames.shape[0])):
                for c in range(int(left), min(int(np.ceil(right)), frames.shape[1])):
                    area = (min(bottom, r + 1) - max(top, r)) * (min(right, c + 1) - max(left, c))
                    out[i, j] += area * frames[r, c]
    return out / (w * h / size**2)


def test_resize_definition() -> None:
    frames = video(1, 11, 13)
    for box in ([0, 0, 13, 11], [2.25, 1.5, 7.3, 8.9], [3, 3, 2, 2]):
        resized = reference.resize_area(frames, torch.tensor([box], dtype=torch.float64), 5)[0].permute(1, 2, 0)
        assert np.allclose(resized, by_hand(frames[0].double().numpy(), np.array(box), 5), atol=1e-10)


@every_isa
@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize(("n", "height", "width", "big", "small", "every"), [
    (1, 8, 9, 7, 3, 1),
    (5, 9, 9, 9, 9, 2),
    (4, 40, 50, 24, 5, 3),
    (3, 37, 41, 144, 9, 1),
    (3, 200, 160, 33, 7, 3),
    (2, 100, 3, 5, 1, 1),
    (2, 240, 240, 144, 9, 3),
    (2, 127, 255, 144, 9, 1),
    (2, 203, 128, 144, 16, 1),
    (2, 257, 300, 144, 2, 1),
    (2, 70, 64, 9, 7, 1),
    (2, 40, 41, 9, 3, 1),
    (2, 203, 120, 48, 9, 1),
    (2, 203, 217, 48, 9, 1),
    (2, 203, 336, 48, 9, 1),
    (2, 61, 313, 144, 9, 1),
    (2, 143, 313, 144, 9, 1),
    (2, 289, 431, 144, 9, 1),
    (2, 50, 505, 144, 9, 1),
    (2, 50, 1100, 144, 9, 1),
    (2, 6, 33, 2, 2, 1),
    (2, 8, 44, 3, 3, 1),
    (2, 8, 77, 4, 4, 1),
])  # fmt: skip
def test_every_kernel_against_the_reference(n, height, width, big, small, every, pixels) -> None:
    assert_compiled("bigsmall_inputs")
    frames = video(n, height, width)
    for name, box in boxes(n, height, width):
        arguments = (frames, box, big, small, every, pixels, 1e-7)
        ours, plain = op(*arguments), reference.bigsmall_inputs(*arguments)
        for y, expected in zip(ours, plain, strict=True):
            assert y.dtype == expected.dtype
            assert y.is_contiguous()
            if pixels == "rounded" and not torch.equal(box, box.round()):
                continue
            assert error(y, expected.double()) <= 1e-6, name
        if pixels == "rounded":  # where weights are fractions, a half may fall on either side
            off = (ours[0] - plain[0]).abs()
            assert off.max() <= 1
            if name in ("whole", "part"):
                assert not off.any()
            elif big >= 24:
                assert off.mean() <= 0.01, name


@every_isa
def test_any_strides() -> None:
    frames = video(4, 30, 36)
    for name, box in boxes(4, 30, 36):
        expected = op(frames, box, 12, 4, 2, "exact", 1e-7)
        for x in (
            frames.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
            frames.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
            frames.repeat_interleave(2, 2)[:, :, ::2],
            torch.cat((frames, frames), 1)[:, :30],
            torch.cat((frames, frames), 3)[..., :3],
        ):
            assert all(map(torch.equal, op(x, box, 12, 4, 2, "exact", 1e-7), expected)), name
    still = frames[:1].expand(4, 30, 36, 3)
    for y, expected in zip(bk.bigsmall_inputs(still), bk.bigsmall_inputs(still.contiguous()), strict=True):
        assert torch.equal(y, expected)


@every_isa
@pytest.mark.parametrize("convention", CONVENTIONS)
def test_constant_videos_are_zeros(convention: str) -> None:
    """Whatever the box: its weights' rounding is no signal. A picture that stands still has no difference."""
    colours = video(1, 20, 24)[:, :1, :1].expand(6, 20, 24, 3)
    grey = torch.full((6, 20, 24, 3), 117, dtype=torch.uint8)
    for _, box in boxes(6, 20, 24):
        assert not any(y.any() for y in bk.bigsmall_inputs(grey, box, big_size=18, convention=convention))
        big, small = bk.bigsmall_inputs(colours, box, big_size=18, convention=convention)
        assert not small.any()
        assert big.abs().max() < 3
    still = video(1, 20, 24).expand(6, 20, 24, 3)
    for _, box in list(boxes(6, 20, 24))[:-1]:
        assert not bk.bigsmall_inputs(still, box, convention=convention)[1].any()


def test_statistics_of_a_cut_video() -> None:
    """The last row's difference is to a frame that is not there, whatever the row says."""
    frames = video(6, 20, 24)
    sums = bk.bigsmall_input_sums(frames, big_size=9)
    cut, whole = sums[:4], bk.bigsmall_input_sums(frames[:4], big_size=9)
    assert bk.InputStats.from_sums(cut, big_size=9) == bk.InputStats.from_sums(whole, big_size=9)


def test_shapes_without_data() -> None:
    big, small = bk.bigsmall_inputs(torch.zeros(7, 20, 24, 3, dtype=torch.uint8, device="meta"))
    assert (big.shape, small.shape) == ((2, 3, 144, 144), (6, 3, 9, 9))


@every_isa
@pytest.mark.parametrize("dark", [0, 5])
def test_statistics_of_faint_pictures(dark: int) -> None:
    """A spread of a thousandth of the mean; and with a dark corner, from which the rows' sums count."""
    frames = 200 + torch.randint(0, 2, (5, 60, 72, 3), dtype=torch.uint8)
    frames[:, :dark, :dark] = 1
    for name, box in boxes(5, 60, 72):
        if name == "moving":
            continue
        x = reference.resize_area(frames, box, 24)
        d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)
        truth = x.mean(), x.std(correction=0), d.std(correction=0)
        stats = bk.InputStats.from_sums(bk.bigsmall_input_sums(frames, box, big_size=24), big_size=24)
        assert np.allclose(stats, truth, rtol=2e-6), name


def test_a_trace_holds_for_other_sizes() -> None:
    def inputs(frames: Tensor) -> tuple[Tensor, Tensor]:
        return bk.bigsmall_inputs(frames, big_size=16, small_size=4)

    example, frames = video(7, 40, 60), video(7, 50, 80)
    for traced in (torch.jit.trace(inputs, (example,)), make_fx(inputs, tracing_mode="symbolic")(example)):
        assert all(error(y, e.double()) <= 1e-6 for y, e in zip(traced(frames), inputs(frames), strict=True))


@every_isa
@pytest.mark.parametrize("size", [0, 1, 4097, 100_003])
def test_the_last_step(size: int, threads: None) -> None:
    """In place, and rounded as its definition's two steps are."""
    x = torch.randn(size) + 100
    expected = x.clone()
    reference.rescale_(expected, 99.7, 1 / 3)
    for count in (1, 3):
        torch.set_num_threads(count)
        y = x.clone()
        assert torch.ops.bigsmall_kernels_impl.rescale_(y, 99.7, 1 / 3) is None
        assert torch.equal(y, expected)


@every_isa
@pytest.mark.parametrize("pixels", PIXELS)
def test_same_bits_on_any_thread_count(pixels: str, threads: None) -> None:
    frames = video(7, 50, 61)
    for _, box in boxes(7, 50, 61):
        for i in range(3):
            same_bits_on_any_thread_count(lambda box=box, i=i: op(frames, box, 20, 6, 2, pixels, 1e-7)[i])


def released(x: np.ndarray, zero: int, dropped: int, padded: int) -> tuple[np.ndarray, np.ndarray]:
    """FACTS 3.2 on resized pixels (T, S, S, 3): Big, and Small before it is averaged down."""
    d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)
    d = np.concatenate((d[: len(d) - dropped], np.zeros((zero, *x.shape[1:]))))
    d = np.concatenate((d / d.std(), np.zeros((padded, *x.shape[1:]))))
    return ((x - x.mean()) / x.std())[: len(d)], d


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_conventions(convention: str) -> None:
    """DESIGN's table, written down again: at sizes where nothing is resized, then with both sizes."""
    table = {"exact": (0, 0, 0), "bigsmall": (1, 1, 0), "toolbox": (0, 0, 1), "toolbox-pre225": (1, 1, 1)}
    for n, size, n_segment in ((7, 12, 1), (8, 12, 3), (9, 24, 4)):
        frames = video(n, size, size)
        x = frames.double().numpy()
        if convention == "bigsmall":
            x = np.maximum(x / 255, 1 / 255)
        big, small = released(x, *table[convention])
        length = len(small) // n_segment * n_segment
        small = small[:length].reshape(length, 6, size // 6, 6, size // 6, 3).mean((2, 4))
        for all_big in (False, True):
            ours = bk.bigsmall_inputs(
                frames, big_size=size, small_size=6, n_segment=n_segment, all_big=all_big, convention=convention
            )
            for y, expected in zip(ours, (big[: length : 1 if all_big else n_segment], small), strict=True):
                assert error(y, torch.from_numpy(expected).permute(0, 3, 1, 2)) <= 1e-6


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_two_bounded_passes_are_one_call(convention: str) -> None:
    frames = video(11, 40, 44)
    for _, box in boxes(11, 40, 44):
        options = {"big_size": 20, "convention": convention}
        rows = [bk.bigsmall_input_sums(frames[a : a + 5], box[a : a + 5], **options) for a in (0, 4, 8)]
        sums = torch.cat((rows[0][:-1], rows[1][:-1], rows[2]))
        stats = bk.InputStats.from_sums(sums, **options)
        whole = bk.bigsmall_inputs(frames, box, small_size=5, **options)
        assert all(map(torch.equal, bk.bigsmall_inputs(frames, box, small_size=5, stats=stats, **options), whole))
        piece = bk.bigsmall_inputs(frames[:8], box[:8], small_size=5, stats=stats, **options)
        assert torch.equal(piece[0][:2], whole[0][:2])
        assert torch.equal(piece[1][:6], whole[1][:6])


def test_one_box_for_all_frames() -> None:
    frames = video(5, 30, 30)
    box = torch.tensor([2, 3, 20, 21])
    expected = bk.bigsmall_inputs(frames, box.double().expand(5, 4), big_size=10)
    for b in (box, box.float(), box.expand(5, 4)):
        assert all(map(torch.equal, bk.bigsmall_inputs(frames, b, big_size=10), expected))
    cut = frames[:, 3:24, 2:22]
    assert all(map(torch.equal, bk.bigsmall_inputs(cut, big_size=10), expected))


def test_compile_and_export() -> None:
    frames, box = video(7, 20, 22), torch.tensor([1.5, 2, 15, 16], dtype=torch.float64)

    class Inputs(torch.nn.Module):
        def forward(self, frames: Tensor, box: Tensor) -> tuple[Tensor, Tensor]:
            return bk.bigsmall_inputs(frames, box, big_size=12, convention="toolbox")

    expected = Inputs()(frames, box)
    for run in (
        torch.compile(Inputs(), fullgraph=True, backend="aot_eager"),
        torch.export.export(Inputs(), (frames, box), strict=True).module(),
        torch.export.export(Inputs(), (frames, box), strict=False).module(),
    ):
        for y, plain in zip(run(frames, box), expected, strict=True):
            assert torch.allclose(y, plain, rtol=1e-6, atol=1e-6)


# --- the authors' numbers ---------------------------------------------------------------------------------------------


def nchw(x: np.ndarray) -> Tensor:
    return torch.from_numpy(x).double().permute(0, 3, 1, 2)


def test_authors_preprocessing(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "preproc_9.npz")
    frames = torch.from_numpy(golden["frames_u8"])
    for convention, key in (
        ("toolbox", "toolbox_diffnorm"),
        ("toolbox-pre225", "toolbox_pre225_diffnorm"),
        ("bigsmall", "bigsmall_diffnorm_unit_range_f32"),
    ):
        big, small = bk.bigsmall_inputs(frames, big_size=9, n_segment=1, all_big=True, convention=convention)
        assert error(small, nchw(golden[key])) <= 3e-7
        if convention != "bigsmall":  # it is clipped at 1/255
            assert error(big, nchw(golden["standardized"])[: len(big)]) <= 3e-7
    assert error(bk.bigsmall_inputs(frames, big_size=9, n_segment=1)[1], nchw(golden["toolbox_diffnorm"])[:-1]) <= 3e-7


def test_authors_preprocessing_of_degenerate_videos(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "preproc_degenerate.npz")
    for case in ("zeros", "const", "nearblack", "freeze"):
        frames = torch.from_numpy(golden[f"{case}_frames"]).to(torch.uint8)
        for convention in ("toolbox", "toolbox-pre225"):
            key = f"{case}_{convention.replace('-', '_')}_diffnorm"
            if key in golden.files:
                big, small = bk.bigsmall_inputs(frames, big_size=9, n_segment=1, convention=convention)
                assert error(small, nchw(golden[key])) <= 3e-7
                if f"{case}_standardized" in golden.files:
                    assert error(big, nchw(golden[f"{case}_standardized"])) <= 3e-7


def test_authors_whole_pipeline(reference_dir) -> None:
    golden = np.load(reference_dir / "golden" / "pipeline_toolbox.npz")
    frames = torch.from_numpy(golden["frames_u8"])
    expected_big, expected_small = (nchw(golden[k].reshape(-1, *golden[k].shape[2:])) for k in ("big", "small"))
    big, small = bk.bigsmall_inputs(frames, all_big=True, convention="toolbox")
    assert error(big, expected_big) <= 3e-7
    assert error(small, expected_small) <= 5e-7
    assert torch.equal(bk.bigsmall_inputs(frames, convention="toolbox")[0], big[::3])


@every_isa
def test_authors_resizes(reference_dir) -> None:
    """Integer ratios exactly; float within 2e-7 of the range; uint8 within a level (enlarging, OpenCV interpolates)."""
    golden = np.load(reference_dir / "golden" / "resize_area.npz")
    cases = [key[: -len("_in")] for key in golden.files if key.endswith("_in")]
    assert cases
    for case in cases:
        frame = torch.from_numpy(golden[f"{case}_in"])[None]
        height, width = frame.shape[1:3]
        size = int(case.rsplit("x", 1)[1])
        box = torch.tensor([[0.0, 0, width, height]], dtype=torch.float64)
        exact, unit, rounded = (op(frame, box, size, 1, 1, p, 1e-7)[0] for p in PIXELS)
        assert (exact - nchw(golden[f"{case}_f64"][None])).abs().max() <= 2e-7 * 255
        assert (unit - nchw(golden[f"{case}_f32"][None]).clamp(min=1 / 255)).abs().max() <= 2e-7
        off = (rounded - nchw(golden[f"{case}_u8"][None])).abs()
        if height % size == width % size == 0:
            assert not off.any()
        assert off.max() <= 1
        assert (off > 0).double().mean() <= (0.15 if height < size else 0.002)


FRAMES = torch.zeros(4, 20, 30, 3, dtype=torch.uint8)
OUTSIDE = torch.tensor([0, 0, 31, 20])
BEHIND = torch.tensor([0, 20, 5, 1e-20], dtype=torch.float64)  # 20 and its side are 20


@pytest.mark.parametrize(("call", "exception", "message"), [
    (lambda: bk.bigsmall_inputs(FRAMES.float()), TypeError, "frames must be uint8 RGB, got torch.float32"),
    (lambda: bk.bigsmall_inputs(FRAMES.numpy()), TypeError, "frames must be a torch.Tensor, got ndarray"),
    (lambda: bk.bigsmall_inputs(FRAMES.permute(0, 3, 1, 2)), ValueError, r"frames must be \(T, H, W, 3\) with T >= 2"),
    (lambda: bk.bigsmall_inputs(FRAMES[:1]), ValueError, r"with T >= 2, got \(1, 20, 30, 3\)"),
    (lambda: bk.bigsmall_inputs(FRAMES[:2], convention="bigsmall"), ValueError, "with T >= 3"),
    (lambda: bk.bigsmall_inputs(FRAMES[:, :0]), ValueError, "frames must be"),
    (lambda: bk.bigsmall_inputs(FRAMES, torch.zeros(3, 4)), ValueError, r"boxes must be \(4,\) or \(4, 4\)"),
    (lambda: bk.bigsmall_inputs(FRAMES, [0, 0, 5, 5]), TypeError, "boxes must be a torch.Tensor, got list"),
    (lambda: bk.bigsmall_inputs(FRAMES, OUTSIDE), ValueError, "boxes must lie inside the 30x20 picture, got"),
    (lambda: bk.bigsmall_inputs(FRAMES, torch.tensor([-1, 0, 5, 5])), ValueError, "boxes must lie inside"),
    (lambda: bk.bigsmall_inputs(FRAMES, BEHIND), ValueError, "boxes must lie inside"),
    (lambda: bk.bigsmall_inputs(FRAMES, torch.tensor([0, 0, 0, 5])), ValueError, "boxes must lie inside"),
    (lambda: bk.bigsmall_inputs(FRAMES, torch.tensor([0, 0, float("nan"), 5])), ValueError, "boxes must lie inside"),
    (lambda: bk.bigsmall_inputs(FRAMES, big_size=0), ValueError, "big_size must be at least 1, got 0"),
    (lambda: bk.bigsmall_inputs(FRAMES, big_size=6), ValueError, "small_size must be at most big_size=6, got 9"),
    (lambda: bk.bigsmall_inputs(FRAMES, n_segment=0), ValueError, "n_segment must be at least 1, got 0"),
    (lambda: bk.bigsmall_inputs(FRAMES, convention="TB"), ValueError, "convention must be one of exact, .*, got 'TB'"),
    (lambda: bk.bigsmall_input_sums(FRAMES[:0]), ValueError, "with T >= 1"),
    (lambda: bk.InputStats.from_sums(torch.zeros(1, 4)), ValueError, r"sums must be \(T, 4\) with T >= 2"),
    (lambda: op(FRAMES, OUTSIDE.double().expand(4, 4), 9, 9, 1, "exact", 0.0), RuntimeError, "inside"),
    (lambda: op(FRAMES, BEHIND.expand(4, 4), 9, 9, 1, "exact", 0.0), RuntimeError, "inside"),
    (lambda: op(FRAMES, torch.zeros(4, 4), 9, 9, 1, "exact", 0.0), RuntimeError, "float64"),
    (lambda: op(FRAMES, torch.ones(4, 4).double(), 9, 9, 1, "half", 0.0), RuntimeError, "exact, unit or rounded"),
])  # fmt: skip
def test_errors_name_the_argument(call, exception, message) -> None:
    with pytest.raises(exception, match=message):
        call()


@every_isa
def test_strides_beyond_32_bits() -> None:
    """A frame that lies more than 2^31 elements after the one before it."""
    frames = torch.zeros(2**31 + 4096, dtype=torch.uint8).as_strided((2, 20, 30, 3), (2**31, 90, 3, 1))
    frames.copy_(video(2, 20, 30))
    arguments = {"big_size": 12, "small_size": 4, "n_segment": 1}
    given, dense = bk.bigsmall_inputs(frames, **arguments), bk.bigsmall_inputs(frames.contiguous(), **arguments)
    assert torch.equal(given[0], dense[0])
    assert torch.equal(given[1], dense[1])


@every_isa
def test_a_box_next_to_nothing_reads_the_pixel_it_lies_in() -> None:
    """Where rounding would step past the last column."""
    frames = video(2, 4, 48)
    box = torch.tensor([48 - 1e-10, 0, 1e-10, 4], dtype=torch.float64)
    big, _ = bk.bigsmall_inputs(frames, box, big_size=4, small_size=2, n_segment=1, stats=bk.InputStats(0.0, 1.0, 1.0))
    assert torch.allclose(big[0], frames[0, :, -1:].permute(2, 0, 1).float().expand(3, 4, 4))
