"""Every kernel on a GPU against the reference in float64 on the CPU, and what only a GPU has: graphs, streams, size.

Without a GPU the bodies run on the CPU by the reference (gpu_places.py), and what is left out says so.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not installed")

import test_every_op
from gpu_places import ARGUMENTS, CPU, Place, arguments, on_gpu, places
from interpreted import double
from kernel_helpers import LOW_PRECISION, error
from test_bigsmall_inputs import PIXELS, boxes, video
from torch import Tensor

import bigsmall_kernels as bk
from bigsmall import models
from bigsmall_kernels import _choosers, _library, reference

FLOAT32 = 1e-5  # max|y - y64| / max|y64|
MOST = 2**31
FUNCTIONS = test_every_op.FUNCTIONS
OPS = {name: max((op for op in _library.OPS if name.startswith(op)), key=len) for name in FUNCTIONS}


@pytest.fixture(autouse=True)
def full_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


# --- numbers ----------------------------------------------------------------------------------------------------------

NUMBERS = [
    pytest.param(op, dtype, *place.values, marks=place.marks, id=f"{op}-{str(dtype)[6:]}-{place.id}")
    for op in ARGUMENTS
    for dtype in sorted({d for row in _choosers.TABLE[op] for d in row.dtypes}, key=str)
    if dtype.is_floating_point or "ize_backward" not in op
    if dtype not in (torch.int8, torch.int16, torch.int32, torch.int64, torch.bool)  # bits, as uint8's are
    for place in places(op, dtype)
]


@pytest.mark.parametrize(("op", "dtype", "place"), NUMBERS)
def test_numbers(op: str, dtype: torch.dtype, place: Place) -> None:
    """Outputs, their dtypes and layouts. Half precision: at most twice eager's error, or two roundings."""
    for args in arguments(op, dtype, place):
        plain, exact = (getattr(reference, op)(*values) for values in (args, double(list(args))))
        several = isinstance(plain, (tuple, list))
        outputs = place.op(op, *args)
        for y, like, y64 in zip(outputs, *(v if several else (v,) for v in (plain, exact)), strict=True):
            assert (y.dtype, y.shape) == (like.dtype, like.shape)
            assert y.is_contiguous(memory_format=reference.memory_format(like))
            if op.startswith("wtsm") and "conv" not in op:
                assert torch.equal(y, like)
            elif y.dtype in LOW_PRECISION:
                assert error(y, y64) <= max(2 * error(like, y64), 2 * torch.finfo(y.dtype).eps)
            else:
                assert error(y, y64) <= (1e-10 if y.dtype == torch.float64 else FLOAT32)


@pytest.mark.parametrize("pixels", PIXELS)
@pytest.mark.parametrize("sizes", [(1, 8, 9, 7, 3, 1), (9, 20, 25, 11, 3, 3), (2, 50, 60, 144, 9, 3)])
@pytest.mark.parametrize("place", places("bigsmall_inputs", torch.uint8))
def test_inputs(place: Place, sizes: tuple[int, ...], pixels: str) -> None:
    n, height, width, *targets = sizes
    frames = video(n, height, width)
    for _, box in boxes(n, height, width):
        for x in (frames, frames.movedim(3, 0).contiguous().movedim(0, 3)):
            args = (x, box, *targets, pixels, 1e-7)
            ours, plain = place.op("bigsmall_inputs", *args), reference.bigsmall_inputs(*args)
            if pixels == "rounded":  # a half may fall on either side
                off = (ours[0] - plain[0]).abs()
                assert off.max() <= 1
                assert off.mean() <= 0.02
            else:
                assert all(error(y, expected.double()) <= FLOAT32 for y, expected in zip(ours, plain, strict=True))


def on_device(name: str, place: Place) -> tuple[Callable[..., Tensor], list[Tensor]]:
    """A public function and its tensors, which require gradients."""
    return FUNCTIONS[name][0], place.put(test_every_op.leaves(name, torch.float32))


EVERYWHERE = [
    pytest.param(name, *place.values, marks=place.marks, id=f"{name}-{place.id}")
    for name in FUNCTIONS
    for place in (*places(OPS[name]), *places()[:1])
]
everywhere = pytest.mark.parametrize(("name", "place"), EVERYWHERE)
every_function = pytest.mark.parametrize("name", FUNCTIONS)
by_table = pytest.mark.parametrize("place", places())
every_function_by_table = pytest.mark.parametrize(("name", "place"), [
    *(case for case in EVERYWHERE if case.values[1] == Place("cuda", None)),
    pytest.param("wtsm_conv2d", CPU, id="wtsm_conv2d-cpu"),
])  # fmt: skip


def step(function: Callable[..., Tensor], tensors: list[Tensor]) -> Callable[[], list[Tensor]]:
    """The output, and the gradients of all tensors for a cotangent that is not all ones."""

    def call() -> list[Tensor]:
        y = function(*tensors)
        cotangent = torch.linspace(0.5, 1.5, y.numel(), device=y.device).view(y.shape)
        return [y.detach(), *torch.autograd.grad(y, tensors, cotangent)]

    return call


@everywhere
def test_gradients(name: str, place: Place) -> None:
    function, tensors = on_device(name, place)
    exact = [t.detach().cpu().double().requires_grad_() for t in tensors]
    with place.running():
        ours = step(function, tensors)()
    with CPU.running():
        expected = step(function, exact)()
    for y, y64 in zip(ours, expected, strict=True):
        assert error(y.cpu(), y64) <= FLOAT32


@everywhere
def test_the_same_bits_again(name: str, place: Place) -> None:
    function, tensors = on_device(name, place)
    with place.running():
        first, second = (step(function, tensors)() for _ in range(2))
    assert all(map(torch.equal, first, second))


@pytest.mark.parametrize("name", ["wtsm_conv2d", "wtsm_conv2d_stack", "double_conv2d_pool"])
@on_gpu
def test_tf32_follows_torchs_switch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for backend in ("triton", *(["cuda"] if name == "wtsm_conv2d" and "cuda" in _choosers.INSTALLED else [])):
        place = Place("cuda", backend)
        function, tensors = on_device(name, place)
        with place.running(), torch.no_grad():
            full = function(*tensors)
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
            short = function(*tensors)
            monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
        assert 1e-6 < error(short.cpu(), full.cpu().double()) < 5e-3


# --- torch's other ways of running ------------------------------------------------------------------------------------


@every_function_by_table
def test_compile(name: str, place: Place) -> None:
    """By inductor, into one graph."""
    torch.compiler.reset()
    function, tensors = on_device(name, place)
    backend = "aot_eager" if place == CPU else "inductor"
    run = torch.compile(lambda *t: function(*t) * 2, fullgraph=True, backend=backend)
    for y, expected in zip(step(run, tensors)(), step(lambda *t: function(*t) * 2, tensors)(), strict=True):
        assert error(y, expected.double()) <= FLOAT32


@every_function_by_table
def test_export(name: str, place: Place) -> None:
    function, tensors = on_device(name, place)
    model = test_every_op.module(function, tensors)
    program = torch.export.export(model, (tensors[0],)).module()
    for run in (model, program):
        run.zero_grad()
        run(tensors[0]).square().sum().backward()
    assert torch.equal(program(tensors[0]), model(tensors[0]))
    for ours, theirs in zip(program.parameters(), model.parameters(), strict=True):
        assert error(ours.grad, theirs.grad.double()) <= FLOAT32


@pytest.mark.parametrize("name", ["wtsm_conv2d", "wtsm_conv2d_stack", "double_conv2d_pool"])
@by_table
def test_autocast(name: str, place: Place) -> None:
    for dtype in LOW_PRECISION:
        function, tensors = on_device(name, place)
        with torch.autocast(place.device, dtype):
            y, *grads = step(function, tensors)()
        assert y.dtype == dtype
        assert all(g.dtype == torch.float32 for g in grads)


# --- graphs, streams, devices -----------------------------------------------------------------------------------------


@everywhere
def test_graphs(name: str, place: Place) -> None:
    """Forward and backward, recorded once and replayed on new data."""
    function, tensors = on_device(name, place)
    with place.running():
        results, replay = place.captured(step(function, tensors))
        for t, new in zip(tensors, place.put(test_every_op.leaves(name, torch.float32)), strict=True):
            t.data.copy_(new)
        replay()
        expected = step(function, tensors)()
    assert all(map(torch.equal, results, expected))


@everywhere
def test_the_host_never_waits(name: str, place: Place) -> None:
    function, tensors = on_device(name, place)
    with place.running():
        step(function, tensors)()  # compiles
        with place.never_waiting():
            step(function, tensors)()


@by_table
def test_inputs_of_a_whole_picture_never_wait_and_go_into_graphs(place: Place) -> None:
    frames = place.put(video(7, 40, 50))
    box = torch.tensor([3.0, 4.5, 30, 20])

    def call() -> tuple[Tensor, ...]:
        return bk.bigsmall_inputs(frames, big_size=24, small_size=4)

    call()
    with place.never_waiting():
        call()
        bk.bigsmall_inputs(frames, box, big_size=24, small_size=4)
        bk.bigsmall_inputs(frames, big_size=24, small_size=4, stats=bk.InputStats(100.0, 50.0, 0.2))
    results, replay = place.captured(call)
    frames.copy_(video(7, 40, 50))
    replay()
    assert all(map(torch.equal, results, call()))


def network(place: Place) -> tuple[torch.nn.Module, tuple[Tensor, Tensor]]:
    model = models.build("bigsmall").eval().to(place.device)
    return model, place.put((torch.randn(2, 3, 144, 144), torch.randn(6, 3, 9, 9)))


@by_table
def test_the_whole_model(place: Place) -> None:
    """Its numbers, without waiting, and in one graph that is replayed on new data."""
    model, inputs = network(place)
    with CPU.running(), torch.no_grad():
        exact = copy.deepcopy(model).cpu().double()(*(x.cpu().double() for x in inputs))
    with torch.no_grad():
        results, replay = place.captured(lambda: model(*inputs))
        replay()
        assert all(error(y.cpu(), y64) <= FLOAT32 for y, y64 in zip(results, exact, strict=True))
        with place.never_waiting():
            model(*inputs)
        for x in inputs:
            x.normal_()
        replay()
        assert all(error(y, expected.double()) <= FLOAT32 for y, expected in zip(results, model(*inputs), strict=True))


@by_table
def test_a_training_step_in_a_graph(place: Place) -> None:
    model, inputs = network(place)
    parameters = list(model.parameters())

    def call() -> list[Tensor]:
        loss = torch.stack([y.square().mean() for y in model(*inputs)]).sum()
        return [loss.detach(), *torch.autograd.grad(loss, parameters)]

    results, replay = place.captured(call)
    for x in inputs:
        x.normal_()
    replay()
    assert all(error(y, expected.double()) <= FLOAT32 for y, expected in zip(results, call(), strict=True))


@every_function
@on_gpu
def test_several_streams(name: str) -> None:
    """Kernels wait for what is before them in the current stream: elsewhere they would read what is not yet there."""
    place = Place("cuda", None)
    function, tensors = on_device(name, place)
    with torch.no_grad():
        expected = function(*tensors)
        later = [torch.full_like(t, float("nan")) for t in tensors]
        function(*later)  # compiles for these addresses
        torch.cuda.synchronize()
        results = []
        for stream in (torch.cuda.Stream(), torch.cuda.Stream()):
            with torch.cuda.stream(stream):
                torch.cuda._sleep(50_000_000)  # cycles: tens of milliseconds
                for t, values in zip(later, tensors, strict=True):
                    t.copy_(values)
                results.append(function(*later))
            stream.synchronize()
            for t in later:
                t.fill_(float("nan"))
            torch.cuda.synchronize()
    assert all(torch.equal(y, expected) for y in results)


@every_function
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs: only the current one is tried")
def test_another_gpu_than_the_current_one(name: str) -> None:
    function, tensors = on_device(name, Place("cuda:1", None))
    near = [t.detach().to("cuda:0").requires_grad_() for t in tensors]
    assert torch.cuda.current_device() == 0
    for y, expected in zip(step(function, tensors)(), step(function, near)(), strict=True):
        assert y.device.index == 1
        assert error(y.cpu(), expected.cpu().double()) <= FLOAT32


# --- size -------------------------------------------------------------------------------------------------------------


@pytest.fixture(params=places())
def room(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """(a device, a number of elements that 32 bits do not count); few on the CPU, where only the bodies are tried."""
    place: Place = request.param
    torch.utils.deterministic.fill_uninitialized_memory = False
    if place.device == "cpu":
        yield "cpu", 5000
        return
    free = torch.cuda.mem_get_info()[0]
    if free < 24 << 30:
        pytest.skip(f"{free >> 30} GiB of GPU memory are free, 24 are needed for more than 2^31 elements")
    yield "cuda", MOST
    torch.cuda.empty_cache()


def test_a_shift_of_more_elements_than_32_bits_count(room: tuple[str, int]) -> None:
    device, least = room
    area = least // 48 + 1
    x = torch.randn(6, 8, 1, area, dtype=torch.half, device=device)
    assert x.numel() > least
    y = bk.wtsm(x)
    for clip, t, c in ((0, 0, 0), (0, 2, 1), (1, 2, 0), (1, 0, 3), (1, 2, 7), (1, 2, 2)):
        source = (t + (1 if c < 2 else -1 if c < 4 else 0)) % 3
        assert torch.equal(y[3 * clip + t, c], x[3 * clip + source, c])


@pytest.mark.parametrize("op", ["standardize", "diff_normalize"])
def test_normalising_more_elements_than_32_bits_count(op: str, room: tuple[str, int]) -> None:
    device, least = room
    x = torch.randint(1, 256, (3, least // 2 + 500), dtype=torch.uint8, device=device)
    y = getattr(bk, op)(x)
    assert y.numel() > least
    for part in (slice(0, 1000), slice(-1000, None)):
        for t in range(len(y)):
            piece = x[t : t + 2, part].double()
            d = (piece[1] - piece[0]) / (piece[1] + piece[0] + 1e-7) if op == "diff_normalize" else piece[0]
            scaled = (d - d.mean()) / d.std()
            ours = y[t, part].double()
            assert error((ours - ours.mean()) / ours.std(), scaled) <= FLOAT32
    flat = y.view(-1)
    parts = [part.double() for part in (flat[: least // 8], flat[-(least // 8) :])]
    assert all(abs(part.std(correction=0).item() - 1) < 0.2 for part in parts)


@pytest.mark.parametrize("op", ["wtsm_conv2d", "wtsm_conv2d_stack", "double_conv2d_pool"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_convolutions_of_more_elements_than_32_bits_count(
    op: str, layout: torch.memory_format, room: tuple[str, int]
) -> None:
    """One frame, seen again and again: all results are the first."""
    device, least = room
    frames = (least // (64 * 81) + 3) // 3 * 3
    frame = torch.randn(1, 32, 9, 9, device=device).half().contiguous(memory_format=layout)
    x = frame.expand(frames, 32, 9, 9)
    weight, bias = (torch.randn(64, 32, 3, 3, device=device) / 17).half(), torch.randn(64, device=device).half()
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "wtsm_conv2d": lambda x: bk.wtsm_conv2d(x, weight, bias, activation="relu"),
        "wtsm_conv2d_stack": lambda x: bk.wtsm_conv2d_stack(x, [weight], [bias]),
        "double_conv2d_pool": lambda x: bk.double_conv2d_pool(x, weight[:32], bias[:32], weight, bias, 1),
    }
    y, few = calls[op](x), calls[op](frame.expand(3, 32, 9, 9))
    assert y.numel() > least
    assert error(y[:3], few.double()) <= 2 * torch.finfo(torch.half).eps
    for start in range(0, frames, 1 << 14):
        part = y[start : start + (1 << 14)]
        assert torch.equal(part, y[:1].expand_as(part))


def test_strides_that_32_bits_do_not_count(room: tuple[str, int]) -> None:
    """Frames and planes far apart."""
    device, far = room
    memory = torch.zeros(3 * far // 2 + 4096, dtype=torch.half, device=device)
    weight = torch.randn(4, 2, 3, 3, device=device).half() / 4
    for strides in ((12, far, 4, 1), (far // 2, 16, 4, 1)):
        x = memory.as_strided((3, 2, 3, 4), strides).copy_(torch.randn(3, 2, 3, 4))
        near = x.contiguous()
        assert torch.equal(bk.wtsm(x, fold_div=2), bk.wtsm(near, fold_div=2))
        assert torch.equal(bk.wtsm_conv2d(x, weight, fold_div=2), bk.wtsm_conv2d(near, weight, fold_div=2))
        assert torch.equal(bk.standardize(x), bk.standardize(near))
    frames = memory.view(torch.uint8).as_strided((3, 6, 7, 3), (far, 21, 3, 1)).copy_(video(3, 6, 7))
    for ours, expected in zip(
        bk.bigsmall_inputs(frames, big_size=4, small_size=2, n_segment=1),
        bk.bigsmall_inputs(frames.contiguous(), big_size=4, small_size=2, n_segment=1), strict=True,
    ):  # fmt: skip
        assert torch.equal(ours, expected)


# --- memory errors ----------------------------------------------------------------------------------------------------


@pytest.mark.full
@on_gpu
def test_compute_sanitizer() -> None:
    """No kernel reads or writes where it may not."""
    folders = os.pathsep.join((os.environ["PATH"], str(Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin")))
    sanitizer = shutil.which("compute-sanitizer", path=folders)
    if sanitizer is None:
        pytest.skip("no compute-sanitizer")
    check = [sanitizer, "--tool", "memcheck", "--error-exitcode", "9", sys.executable]
    environment = os.environ | {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    tried = subprocess.run([*check, "-c", "import torch; torch.ones(9).cuda().sum().item()"], env=environment)
    if tried.returncode:
        pytest.skip(f"compute-sanitizer does not run torch here: it ended with {tried.returncode}")
    tests = [f"{__file__}::{test}" for test in ("test_gradients", "test_inputs")]
    command = [*check, "-m", "pytest", "-q", "-k", "cuda", *tests]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-4000:]
