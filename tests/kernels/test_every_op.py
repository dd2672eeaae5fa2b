"""What holds for every op alike: derivatives, compile, export, autocast, backends, the dispatcher's table."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from kernel_helpers import error, every_isa
from torch import Tensor

import bigsmall_kernels as bk
from bigsmall_kernels import _library, reference

ops = torch.ops.bigsmall_kernels
CONV = ([1, 1], [1, 1], [1, 1], 1)


def conv_parameters(*channels: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    pairs = itertools.pairwise(channels)
    return [t for a, b in pairs for t in (torch.randn(b, a, 3, 3, dtype=dtype) / 4, torch.randn(b, dtype=dtype))]


# name -> (public function of the differentiable tensors, those tensors' maker by dtype)
FUNCTIONS: dict[str, tuple[Callable[..., Tensor], Callable[[torch.dtype], list[Tensor]]]] = {
    "wtsm": (lambda x: bk.wtsm(x, wrap=False), lambda d: [torch.randn(6, 4, 2, 3, dtype=d)]),
    "wtsm_conv2d": (
        lambda x, w, b: bk.wtsm_conv2d(x, w, b, activation="tanh"),
        lambda d: [torch.randn(6, 4, 3, 3, dtype=d), *conv_parameters(4, 2, dtype=d)],
    ),
    "wtsm_conv2d_strided": (
        lambda x, w: bk.wtsm_conv2d(x, w, n_segment=2, stride=2, padding=1, activation="elu"),
        lambda d: [torch.randn(4, 4, 5, 4, dtype=d), conv_parameters(4, 2, dtype=d)[0]],
    ),
    "wtsm_conv2d_stack": (
        lambda x, w1, b1, w2, b2: bk.wtsm_conv2d_stack(x, [w1, w2], [b1, b2], activation="tanh"),
        lambda d: [torch.randn(3, 3, 3, 2, dtype=d), *conv_parameters(3, 4, 2, dtype=d)],
    ),
    "double_conv2d_pool": (
        lambda x, w1, b1, w2, b2: bk.double_conv2d_pool(x, w1, b1, w2, b2, 2),
        lambda d: [torch.randn(2, 2, 5, 4, dtype=d), *conv_parameters(2, 3, 2, dtype=d)],
    ),
    "diff_normalize": (bk.diff_normalize, lambda d: [torch.rand(4, 3, 2, dtype=d) + 0.5]),
    "diff_normalize_given": (lambda x: bk.diff_normalize(x, std=0.3), lambda d: [torch.rand(4, 3, 2, dtype=d) + 0.5]),
    "standardize": (bk.standardize, lambda d: [torch.randn(4, 3, 2, dtype=d)]),
    "standardize_mean": (lambda x: bk.standardize(x, mean=0.2), lambda d: [torch.randn(4, 3, 2, dtype=d)]),
    "standardize_std": (lambda x: bk.standardize(x, std=2.0), lambda d: [torch.randn(4, 3, 2, dtype=d)]),
}
names = pytest.mark.parametrize("name", FUNCTIONS)


def leaves(name: str, dtype: torch.dtype) -> list[Tensor]:
    return [t.requires_grad_() for t in FUNCTIONS[name][1](dtype)]


@names
def test_gradients_and_their_gradients(name: str, threads) -> None:
    torch.set_num_threads(1)  # thousands of tiny calls
    function, tensors = FUNCTIONS[name][0], leaves(name, torch.float64)
    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors, fast_mode=True)


@every_isa
@names
def test_float32_gradients_are_the_references(name: str) -> None:
    """The compiled kernels' gradients against autograd through the reference in float64."""
    function, tensors = FUNCTIONS[name][0], leaves(name, torch.float32)
    exact = [t.detach().double().requires_grad_() for t in tensors]
    y = function(*tensors)
    grad = torch.randn_like(y)
    y.backward(grad)
    with bk.use_backend("reference"):
        function(*exact).backward(grad.double())
    for ours, theirs in zip(tensors, exact, strict=True):
        assert error(ours.grad, theirs.grad) <= 1e-5


@names
def test_gradients_only_where_asked(name: str) -> None:
    tensors = FUNCTIONS[name][1](torch.float32)
    tensors[0].requires_grad_()
    FUNCTIONS[name][0](*tensors).sum().backward()
    assert tensors[0].grad is not None
    assert all(t.grad is None for t in tensors[1:])


RAW: dict[str, Callable[[], tuple[Any, ...]]] = {
    "wtsm": lambda: (torch.randn(6, 4, 2, 3), 3, 3, True),
    "wtsm_backward": lambda: (torch.randn(6, 4, 2, 3), 3, 3, False),
    "wtsm_conv2d": lambda: (
        torch.randn(6, 4, 3, 3), *conv_parameters(4, 2, dtype=torch.float32), 3, 3, True, *CONV, "relu", None,
    ),
    "wtsm_conv2d_backward": lambda: (
        torch.randn(6, 2, 3, 3), torch.randn(6, 2, 3, 3), torch.randn(6, 4, 3, 3), torch.randn(2, 4, 3, 3), True,
        3, 3, True, *CONV, "tanh", [True, True, False],
    ),
    "pack_wtsm_conv2d": lambda: (torch.randn(5, 4, 3, 3),),
    "wtsm_conv2d_stack": lambda: (
        torch.randn(3, 3, 4, 4), [torch.randn(4, 3, 3, 3)], [torch.randn(4)], 3, 3, True, "relu", None,
    ),
    "wtsm_conv2d_stack_backward": lambda: (
        torch.randn(3, 4, 4, 4), torch.randn(3, 3, 4, 4), [torch.randn(4, 3, 3, 3)], [torch.randn(4)],
        3, 3, True, "relu", True,
    ),
    "pack_wtsm_conv2d_stack": lambda: ([torch.randn(5, 4, 3, 3), torch.randn(2, 5, 3, 3)],),
    "double_conv2d_pool": lambda: (torch.randn(2, 2, 5, 4), *conv_parameters(2, 3, 2, dtype=torch.float32), 2, None),
    "double_conv2d_pool_backward": lambda: (
        torch.randn(2, 2, 2, 2), torch.randn(2, 2, 5, 4), *conv_parameters(2, 3, 2, dtype=torch.float32), 2, [True] * 5,
    ),
    "pack_double_conv2d_pool": lambda: (torch.randn(5, 4, 3, 3), torch.randn(2, 5, 3, 3)),
    "diff_normalize": lambda: (torch.rand(4, 3, 2) + 0.5, 1e-7, None),
    "diff_normalize_backward": lambda: (torch.rand(3, 3, 2), torch.rand(4, 3, 2) + 0.5, 1e-7, None),
    "standardize": lambda: (torch.randn(4, 3, 2), None, None),
    "standardize_backward": lambda: (torch.rand(4, 3, 2), torch.rand(4, 3, 2), None, 2.0),
    "bigsmall_inputs": lambda: (
        torch.randint(0, 256, (4, 9, 12, 3), dtype=torch.uint8), torch.tensor([[0, 0, 12, 9.0]]).double().expand(4, 4),
        6, 3, 2, "exact", 1e-7,
    ),
}  # fmt: skip


def test_every_op_is_listed() -> None:
    assert set(RAW) == set(_library.OPS)


# Packed weights and uint8 frames carry no gradient.
DIFFERENTIABLE = [op for op in RAW if not op.startswith("pack_") and op != "bigsmall_inputs"]


@pytest.mark.parametrize("op", RAW)
def test_opcheck(op: str) -> None:
    torch.library.opcheck(getattr(ops, op).default, RAW[op]())


@pytest.mark.parametrize("op", DIFFERENTIABLE)
def test_opcheck_with_gradients(op: str) -> None:
    args = RAW[op]()
    for value in args:
        for t in value if isinstance(value, list) else [value]:
            if isinstance(t, Tensor):
                t.requires_grad_()
    torch.library.opcheck(getattr(ops, op).default, args)


def module(function: Callable[..., Tensor], tensors: list[Tensor]) -> torch.nn.Module:
    class Op(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rest = torch.nn.ParameterList([torch.nn.Parameter(t) for t in tensors[1:]])

        def forward(self, x: Tensor) -> Tensor:
            return function(x, *self.rest)

    return Op()


@names
def test_compile_in_one_graph(name: str) -> None:
    torch.compiler.reset()
    tensors = FUNCTIONS[name][1](torch.float32)
    eager = module(FUNCTIONS[name][0], tensors)
    compiled = copy.deepcopy(eager)
    x, x_compiled = tensors[0].clone().requires_grad_(), tensors[0].clone().requires_grad_()
    run = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    y, expected = run(x_compiled), eager(x)
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-6)
    y.sum().backward()
    expected.sum().backward()
    assert torch.allclose(x_compiled.grad, x.grad, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(run(x_compiled), expected, rtol=1e-5, atol=1e-6)


def test_compile_by_inductor() -> None:
    torch.compiler.reset()
    weight, bias = conv_parameters(4, 8, dtype=torch.float32)
    run = torch.compile(lambda x: bk.wtsm_conv2d(x * 2, weight, bias, activation="relu").sum(1), fullgraph=True)
    x = torch.randn(6, 4, 5, 5).contiguous(memory_format=torch.channels_last)
    assert torch.allclose(run(x), bk.wtsm_conv2d(x * 2, weight, bias, activation="relu").sum(1), atol=1e-4)


@names
@pytest.mark.parametrize("strict", [True, False])
def test_exported_models_still_train(name: str, strict: bool) -> None:
    tensors = FUNCTIONS[name][1](torch.float32)
    model = module(FUNCTIONS[name][0], tensors)
    program = torch.export.export(model, (tensors[0],), strict=strict).module()
    for run in (model, program):
        run.zero_grad()
    x, x_exported = tensors[0].clone().requires_grad_(), tensors[0].clone().requires_grad_()
    y, expected = program(x_exported), model(x)
    assert torch.allclose(y, expected, rtol=1e-5, atol=1e-6)
    y.square().sum().backward()
    expected.square().sum().backward()
    assert torch.allclose(x_exported.grad, x.grad, rtol=1e-4, atol=1e-5)
    for ours, theirs in zip(program.parameters(), model.parameters(), strict=True):
        assert torch.allclose(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["wtsm_conv2d", "wtsm_conv2d_stack", "double_conv2d_pool"])
def test_autocast(name: str) -> None:
    function, tensors = FUNCTIONS[name][0], leaves(name, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = function(*tensors)
    assert y.dtype == torch.bfloat16
    y.float().sum().backward()
    assert all(t.grad is not None and t.grad.dtype == torch.float32 for t in tensors)
    with torch.autocast("cpu", torch.bfloat16):
        assert bk.wtsm(torch.randn(3, 4, 2, 2)).dtype == torch.float32
        assert bk.standardize(torch.randn(3, 4).bfloat16()).dtype == torch.float32


@names
def test_backends(name: str) -> None:
    function, tensors = FUNCTIONS[name][0], FUNCTIONS[name][1](torch.float32)
    with bk.use_backend("cpp"):
        ours = function(*tensors)
    with bk.use_backend("reference"):
        plain = function(*tensors)
    assert torch.allclose(ours, plain, rtol=1e-4, atol=1e-5)
    with bk.use_backend("triton"), pytest.raises(RuntimeError, match="no triton kernel for a tensor on cpu"):
        function(*tensors)


def test_unknown_backend() -> None:
    with (
        pytest.raises(ValueError, match="name must be one of reference, cpp, triton, cuda, got 'fast'"),
        bk.use_backend("fast"),
    ):
        pass


@names
def test_forward_mode_derivatives_are_never_lost(name: str) -> None:
    function, tensors = FUNCTIONS[name][0], FUNCTIONS[name][1](torch.float64)
    step, h = torch.randn_like(tensors[0]), 1e-6
    _, tangent = torch.func.jvp(lambda x: function(x, *tensors[1:]), (tensors[0],), (step,))
    ahead, behind = (function(tensors[0] + way * h * step, *tensors[1:]) for way in (1, -1))
    assert torch.allclose(tangent, (ahead - behind) / (2 * h), rtol=1e-5, atol=1e-5)


def test_modules_take_weights_without_data() -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.no_grad():
        assert bk.nn.WTSMConv2d(4, 6).eval()(torch.empty(3, 4, 5, 5)).shape == (3, 6, 5, 5)


# The other backward ops are PyTorch over compiled ones.
COMPILED_BACKWARD = ("wtsm_backward", "wtsm_conv2d_backward", "wtsm_conv2d_stack_backward")
COMPILED = [op for op in _library.OPS if not op.endswith("_backward") or op in COMPILED_BACKWARD]


@pytest.mark.parametrize("op", COMPILED)
def test_compiled_kernel_is_what_the_dispatcher_runs(op: str) -> None:
    assert "registered at" in torch._C._dispatch_dump(f"bigsmall_kernels::{op}")
    assert bk.info()["kernels"][op]["cpu"] == "cpp"


def test_reference_is_every_ops_fallback() -> None:
    for op in _library.OPS:
        assert callable(getattr(reference, op))
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"bigsmall_kernels::{op}", "CompositeExplicitAutograd")
