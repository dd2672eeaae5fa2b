"""Every Triton kernel compiled, without a GPU, for every architecture: what fails or spills there fails here."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

from offline import compiled, launches

from bigsmall_kernels import _choosers
from bigsmall_kernels._triton import (
    bigsmall_inputs,
    double_conv2d_pool,
    normalize,
    wtsm,
    wtsm_conv2d,
    wtsm_conv2d_stack,
)

# Bytes a thread that a kernel may keep in memory, and why.
MORE_AT_ONCE = "the assembler gives up two to four registers (of 48, 80, 96 or 128) for one more program at a time"
SPILLS = {
    "conv": (16, f"only in float32: {MORE_AT_ONCE}"),
    "_weight_gradient": (16, f"only in float32: {MORE_AT_ONCE}"),
    "_sums": (8, f"only of float64 frames: {MORE_AT_ONCE}"),
    "_inputs": (32, "around the subroutine of a float64 division, once a program and outside its loops"),
}
PLAIN = ([1, 1], [1, 1], [1, 1], 1, "relu", None)
SHARED = 99 << 10  # bytes of a program that every architecture has
SMALL, BIG = (3, 32, 32, 32, 64), ((3, 32, 32, 144, 2), (32, 32, 64, 72, 2), (64, 64, 64, 36, 4))
Room = Callable[[torch.dtype, torch.memory_format], None]


def empty(*shape: int, dtype: torch.dtype, layout: torch.memory_format = torch.contiguous_format) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype).contiguous(memory_format=layout)


def shifts(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x = empty(3, 32, 9, 9, dtype=dtype, layout=layout)
    for view in (x, x[..., ::2]):
        wtsm.wtsm(view, 3, 3, True)
        wtsm.wtsm_backward(view, 3, 3, False)


def normalisers(dtype: torch.dtype, layout: torch.memory_format) -> None:
    x, grad = empty(4, 3, 16, 16, dtype=dtype, layout=layout), torch.empty(4, 3, 16, 16)
    normalize.standardize(x, None, None)
    normalize.diff_normalize(x, 1e-7, None)
    if dtype.is_floating_point:
        normalize.standardize_backward(grad, x, None, None)
        normalize.diff_normalize_backward(grad[1:], x, 1e-7, None)


def layers(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for clips, (c, out) in itertools.product((1, 256), set(itertools.pairwise(SMALL))):
        x, weight = empty(3 * clips, c, 9, 9, dtype=dtype, layout=layout), empty(out, c, 3, 3, dtype=dtype)
        wtsm_conv2d.wtsm_conv2d(x, weight, empty(out, dtype=dtype), 3, 3, True, *PLAIN)
    for clips in (256, 1024):
        x = empty(3 * clips, c, 9, 9, dtype=dtype, layout=layout)
        wtsm_conv2d.wtsm_conv2d(x, weight, None, 3, 3, False, *PLAIN[:4], "tanh", None)
    far = torch.empty(2**31 + 4096, dtype=dtype).as_strided((3, 32, 9, 9), (2592, 2**26, 9, 1))
    wtsm_conv2d.wtsm_conv2d(far, empty(64, 32, 3, 3, dtype=dtype), None, 3, 3, True, *PLAIN)


def gradients(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for clips, (c, out) in itertools.product((1, 256, 1024), set(itertools.pairwise(SMALL))):
        x, y = (empty(3 * clips, channels, 9, 9, dtype=dtype, layout=layout) for channels in (c, out))
        weight, wrap = empty(out, c, 3, 3, dtype=dtype), clips > 1
        wtsm_conv2d.wtsm_conv2d_backward(y, y, x, weight, True, 3, 3, wrap, *PLAIN[:-1], [True] * 3)


def blocks(dtype: torch.dtype, layout: torch.memory_format) -> None:
    for images, (c, middle, out, side, pool) in itertools.product((1, 60), BIG):
        w1, w2 = empty(middle, c, 3, 3, dtype=dtype), empty(out, middle, 3, 3, dtype=dtype)
        b1, b2 = empty(middle, dtype=dtype), empty(out, dtype=dtype)
        x = empty(images, c, side, side, dtype=dtype, layout=layout)
        double_conv2d_pool.double_conv2d_pool(x, w1, b1, w2, b2, pool, None)


def trunks(dtype: torch.dtype, layout: torch.memory_format) -> None:
    weights = [empty(b, a, 3, 3, dtype=dtype) for a, b in itertools.pairwise(SMALL)]
    biases = [empty(b, dtype=dtype) for b in SMALL[1:]]
    x = empty(3, 3, 9, 9, dtype=dtype, layout=layout)
    wtsm_conv2d_stack.wtsm_conv2d_stack(x, weights, biases, 3, 3, True, "relu", None)


def inputs(dtype: torch.dtype, layout: torch.memory_format) -> None:
    frames, boxes = torch.empty(4, 48, 64, 3, dtype=dtype), torch.empty(4, 4, dtype=torch.float64)
    for pixels in ("exact", "unit", "rounded"):
        bigsmall_inputs.bigsmall_inputs(frames, boxes, 144, 9, 3, pixels, 1e-7)


def ones(dtype: torch.dtype, layout: torch.memory_format) -> None:
    """Triton compiles an argument that is 1 as a constant: other code, which must compile too."""
    x, two = empty(1, 1, 1, 1, dtype=dtype), empty(2, 1, 1, 1, dtype=dtype)
    weight, bias = empty(1, 1, 3, 3, dtype=dtype), empty(1, dtype=dtype)
    wtsm.wtsm(x, 1, 1, True)
    normalize.standardize(x, None, None)
    normalize.standardize_backward(x, x, None, None)
    normalize.diff_normalize(two, 1e-7, None)
    normalize.diff_normalize_backward(x, two, 1e-7, None)
    wtsm_conv2d.wtsm_conv2d(x, weight, bias, 1, 1, True, *PLAIN)
    wtsm_conv2d.wtsm_conv2d_backward(x, x, x, weight, True, 1, 1, True, *PLAIN[:-1], [True] * 3)
    wtsm_conv2d_stack.wtsm_conv2d_stack(x, [weight], [bias], 1, 1, True, "elu", None)
    double_conv2d_pool.double_conv2d_pool(x, weight, bias, weight, bias, 1, None)
    frames, boxes = torch.empty(1, 1, 1, 3, dtype=torch.uint8), torch.empty(1, 4, dtype=torch.float64)
    bigsmall_inputs.bigsmall_inputs(frames, boxes, 1, 1, 1, "unit", 1e-7)


ROOMS: dict[Room, tuple[torch.dtype, ...]] = {
    shifts: (torch.uint8, torch.float16, torch.float32, torch.float64),
    normalisers: _choosers.FRAMES,
    layers: _choosers.HALF_AND_SINGLE,
    gradients: _choosers.HALF_AND_SINGLE,
    blocks: _choosers.HALF_AND_SINGLE,
    trunks: _choosers.HALF_AND_SINGLE,
    inputs: (torch.uint8,),
    ones: (torch.float16, torch.float32),
}


def compile_all(room: Room, dtype: torch.dtype, layout: torch.memory_format, capability: int) -> None:
    for launch in launches(lambda: room(dtype, layout)):
        used, name = compiled(launch, capability), launch.kernel.__name__
        assert used.spilled <= SPILLS.get(name, (0, ""))[0], f"{name}: {used}, {launch.options}"
        assert used.shared <= SHARED, f"{name}: {used}, {launch.options}"


@pytest.fixture(autouse=True)
def unpoisoned() -> None:
    torch.utils.deterministic.fill_uninitialized_memory = False  # only shapes are looked at, of gigabytes


@pytest.mark.parametrize("room", ROOMS)
def test_for_hopper(room: Room) -> None:
    compile_all(room, ROOMS[room][0], torch.contiguous_format, 90)


# TF32 makes a difference to the products of float32.
CASES = [
    (room, dtype, layout, capability, tf32)
    for room, dtypes in ROOMS.items()
    for dtype in dtypes
    for layout, capabilities in ((torch.contiguous_format, (80, 90, 100, 120)), (torch.channels_last, (90,)))
    if layout == torch.contiguous_format or room not in (trunks, inputs, ones)
    for capability in capabilities
    for tf32 in ((True, False) if room in (layers, gradients, blocks, trunks) and dtype == torch.float32 else (True,))
]


@pytest.mark.full
@pytest.mark.parametrize(("room", "dtype", "layout", "capability", "tf32"), CASES)
def test_for_every_architecture(
    room: Room, dtype: torch.dtype, layout: torch.memory_format, capability: int, tf32: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", tf32)
    compile_all(room, dtype, layout, capability)


def test_a_spill_is_seen() -> None:
    """The reading of the binary is itself tried: too few registers, and the same kernel spills."""
    launch = launches(lambda: layers(torch.float32, torch.contiguous_format))[-1]
    assert compiled(launch._replace(options={**launch.options, "maxnreg": 32}), 90).spilled > 0
