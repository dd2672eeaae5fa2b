"""Where the tests of test_gpu.py run: on a GPU by each backend, and on the CPU by the reference.

On the CPU the same test bodies run, with stand-ins for what only a GPU has: it shows that the bodies are right.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import interpreted as cases
import pytest
import torch
import torch.utils._pytree as pytree
from kernel_helpers import layouts, moved
from torch import Tensor

import bigsmall_kernels as bk
from bigsmall_kernels import _choosers, _cuda, reference


class Place(NamedTuple):
    device: str
    backend: str | None  # None: what the table chooses

    def __str__(self) -> str:
        return f"{self.device}-{self.backend or 'table'}"

    def running(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext() if self.backend is None else bk.use_backend(self.backend)

    def put(self, values: Any) -> Any:
        """Tensors on the device, their strides as they are; leaves that require gradients where they did."""

        def there(x: Tensor) -> Tensor:
            return moved(x.detach(), self.device).requires_grad_(x.requires_grad)

        return pytree.tree_map_only(Tensor, there, values)

    def op(self, name: str, *args: Any) -> list[Tensor]:
        """An op's outputs, on the CPU, of arguments from there."""
        with self.running(), torch.no_grad():
            function = getattr(reference if self.backend == "reference" else torch.ops.bigsmall_kernels, name)
            outputs = function(*self.put(args))
        return [y.cpu() for y in pytree.tree_leaves(outputs)]

    def captured(self, call: Callable[[], Any]) -> tuple[Any, Callable[[], None]]:
        """(what `call` returned while a CUDA graph recorded it, the graph's replay, which fills that anew)."""
        if self.device == "cpu":
            result = call()

            def again() -> None:
                for y, new in zip(*map(pytree.tree_leaves, (result, call())), strict=True):
                    y.copy_(new)

            return result, again
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # compiles, loads, allocates
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call()
        return result, graph.replay

    @contextlib.contextmanager
    def never_waiting(self) -> Iterator[None]:
        """What makes the host wait for the GPU is an error."""
        if self.device == "cpu":
            yield
            return
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")


CPU = Place("cpu", "reference")
_NO_GPU = None if torch.cuda.is_available() else "no GPU: what runs on one is not tested"
_NO_LIBRARY = None if _cuda.loaded else f"no CUDA library: {_cuda.note}"


def _there(place: Place) -> Any:
    missing = _NO_GPU or (_NO_LIBRARY if place.backend == "cuda" else None)
    marks = [pytest.mark.skip(reason=missing)] if place.device == "cuda" and missing else []
    return pytest.param(place, marks=marks, id=str(place))


def places(op: str | None = None, dtype: torch.dtype | None = None) -> list[Any]:
    """Parameters: the CPU, and the GPU by every backend that the table lists for an op and dtype."""
    rows = [row for row in _choosers.TABLE.get(op or "", ()) if dtype is None or dtype in row.dtypes]
    backends = [None] if op is None else sorted({row.backend for row in rows})
    cpu = [CPU] if dtype in (None, torch.float32, torch.float16, torch.uint8) else []
    return [_there(place) for place in (*(Place("cuda", backend) for backend in backends), *cpu)]


on_gpu = pytest.mark.skipif(_NO_GPU is not None, reason=str(_NO_GPU))


# --- what the ops are tried on: the interpreted cases -----------------------------------------------------------------


def _values(case: Any) -> Any:
    """Of a case, also of one that is marked."""
    if not hasattr(case, "marks"):
        return case
    return case.values[0] if len(case.values) == 1 else case.values


def _shifted(op: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    for (n, fold_div, wrap), shape in itertools.product(cases.SHIFTS, ((6, 7, 3, 5), (12, 33, 20, 21))):
        for _, x in layouts((torch.randn(shape) * 9).to(dtype)):
            yield x, n, fold_div, wrap


def _normalised(op: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    for (name, arguments), shape in itertools.product(cases.NORMALISERS, ((3, 3, 5, 4), (9, 3, 70, 61))):
        if op.startswith(name):
            for _, x in layouts((torch.rand(shape) * 254 + 1).to(dtype)):
                n = len(x) - (name == "diff_normalize")
                grad = (torch.randn(n, *shape[1:]),) if op.endswith("_backward") else ()
                yield *grad, x, *arguments


def _convolved(op: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    larger = (18, 3, 32, 64, 9, 9, (3, 3), [1, 1]), (3, 3, 16, 32, 75, 74, (3, 3), [1, 1])
    for case in (*map(_values, cases.CONVOLUTIONS), *larger):
        frames, n, c, out, h, w, kernel, padding = case
        (weight,), (bias,) = cases.parameters(dtype, c, out, kernel=kernel)
        for (_, x), activation, wrap in zip(
            layouts(torch.randn(frames, c, h, w).to(dtype)), cases.ACTIVATIONS, (True, False, True, False), strict=True
        ):
            options = (n, 3, wrap, [1, 1], padding, [1, 1], 1, activation)
            if op == "wtsm_conv2d":
                yield x, weight, None if wrap else bias, *options, None
            else:
                y = reference.wtsm_conv2d(x, weight, bias, *options)
                yield torch.randn(y.shape).to(dtype), y, x, weight, True, *options, [True] * 3
    if op == "wtsm_conv2d":
        x, weight = torch.randn(4, 6, 5, 7).to(dtype), (torch.randn(4, 3, 3, 3) / 5).to(dtype)
        yield x, weight, None, 2, 3, True, [2, 1], [1, 2], [1, 2], 2, "elu", None


def _stacked(op: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    trunk = (30, 3, (3, 32, 32, 32, 64), 9, 9)
    for frames, n, channels, h, w in (*map(_values, cases.STACKS), trunk):
        weights, biases = cases.parameters(dtype, *channels)
        for (_, x), activation in zip(
            layouts(torch.randn(frames, channels[0], h, w).to(dtype)), cases.ACTIVATIONS, strict=True
        ):
            yield x, weights, biases, n, 3, activation != "tanh", activation, None


def _pooled(op: str, dtype: torch.dtype) -> Iterator[tuple[Any, ...]]:
    larger = (2, 3, 32, 32, 72, 72, 2), (2, 32, 32, 64, 36, 36, 4)
    for n, c, middle, out, h, w, pool in (*map(_values, cases.BLOCKS), *larger):
        (w1, w2), (b1, b2) = cases.parameters(dtype, c, middle, out)
        for name, x in layouts(torch.randn(n, c, h, w).to(dtype)):
            yield x, w1, b1, w2, None if name == "sliced" else b2, pool, None


def arguments(op: str, dtype: torch.dtype, place: Place) -> Iterator[tuple[Any, ...]]:
    """All of an op's; on the CPU, where only the test is tried, the first ones."""
    return itertools.islice(ARGUMENTS[op](op, dtype), 3 if place == CPU else None)


ARGUMENTS: dict[str, Callable[[str, torch.dtype], Iterator[tuple[Any, ...]]]] = {
    "wtsm": _shifted, "wtsm_backward": _shifted, "standardize": _normalised, "diff_normalize": _normalised,
    "standardize_backward": _normalised, "diff_normalize_backward": _normalised, "wtsm_conv2d": _convolved,
    "wtsm_conv2d_backward": _convolved, "wtsm_conv2d_stack": _stacked, "double_conv2d_pool": _pooled,
}  # fmt: skip
