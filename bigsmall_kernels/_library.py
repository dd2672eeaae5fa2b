"""Every op on one screen: schemas, fakes, derivatives, the reference as fallback, and the compiled library.

The reference is registered under CompositeExplicitAutograd, so the dispatcher falls back to it by itself wherever no
compiled kernel is registered for a device; `import bigsmall_kernels` needs no compiler, no Triton and no GPU.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import pathlib
import platform
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor
from torch.autograd import forward_ad

from . import _choosers, _cuda, reference

NAMESPACE = "bigsmall_kernels"
ISAS = ("portable", "avx2", "avx512", "avx512_vnni", "amx")
BACKENDS = ("reference", "cpp", "triton", "cuda")

_SHIFT = "int n_segment, int fold_div, bool wrap"
_CONV = "int[2] stride, int[2] padding, int[2] dilation, int groups, str activation"
_TRUNK = "Tensor[] weights, Tensor[] biases, " + _SHIFT + ", str activation"
_BLOCK = "Tensor weight1, Tensor? bias1, Tensor weight2, Tensor? bias2, int pool"
# No argument has a default: the dispatcher drops arguments at their default, and autograd over lists counts them.
SCHEMAS = (
    f"wtsm(Tensor x, {_SHIFT}) -> Tensor",
    f"wtsm_backward(Tensor grad, {_SHIFT}) -> Tensor",
    f"wtsm_conv2d(Tensor x, Tensor weight, Tensor? bias, {_SHIFT}, {_CONV}, Tensor? packed) -> Tensor",
    f"wtsm_conv2d_backward(Tensor grad, Tensor y, Tensor x, Tensor weight, bool has_bias, {_SHIFT}, {_CONV}, "
    "bool[3] mask) -> (Tensor, Tensor, Tensor)",
    "pack_wtsm_conv2d(Tensor weight) -> Tensor",
    f"wtsm_conv2d_stack(Tensor x, {_TRUNK}, Tensor? packed) -> Tensor",
    f"wtsm_conv2d_stack_backward(Tensor grad, Tensor x, {_TRUNK}, bool need_x) -> Tensor[]",
    "pack_wtsm_conv2d_stack(Tensor[] weights) -> Tensor",
    f"double_conv2d_pool(Tensor x, {_BLOCK}, Tensor? packed) -> Tensor",
    f"double_conv2d_pool_backward(Tensor grad, Tensor x, {_BLOCK}, bool[5] mask) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    "pack_double_conv2d_pool(Tensor weight1, Tensor weight2) -> Tensor",
    "diff_normalize(Tensor frames, float eps, float? std) -> Tensor",
    "diff_normalize_backward(Tensor grad, Tensor frames, float eps, float? std) -> Tensor",
    "standardize(Tensor frames, float? mean, float? std) -> Tensor",
    "standardize_backward(Tensor grad, Tensor frames, float? mean, float? std) -> Tensor",
    "bigsmall_inputs(Tensor frames, Tensor boxes, int big_size, int small_size, int every, str pixels, float eps) "
    "-> (Tensor, Tensor, Tensor)",
)
OPS = tuple(schema.partition("(")[0] for schema in SCHEMAS)

_definitions = torch.library.Library(NAMESPACE, "DEF")
for _schema in SCHEMAS:
    _definitions.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
for _op in OPS:
    _definitions.impl(_op, getattr(reference, _op), "CompositeExplicitAutograd")
ops = torch.ops.bigsmall_kernels

# What the compiled kernels of these ops call for the sizes and dtypes that they leave to the reference.
_composed = torch.library.Library(_choosers.NAMESPACE, "FRAGMENT")
for _schema in SCHEMAS:
    _op, _, _signature = _schema.partition("(")
    if _op in ("wtsm_conv2d_backward", "wtsm_conv2d_stack_backward"):
        _composed.define(f"{_op}_composed({_signature}")
        _composed.impl(f"{_op}_composed", getattr(reference, _op), "CompositeExplicitAutograd")
# The last step of `bigsmall_inputs`, in place and in one pass.
_composed.define("rescale_(Tensor(a!) x, float shift, float factor) -> ()")
_composed.impl("rescale_", reference.rescale_, "CompositeExplicitAutograd")


# --- fakes: shapes, dtypes and layouts without data -------------------------------------------------------------------


def _like(x: Tensor, shape: Sequence[Any], dtype: torch.dtype | None = None) -> Tensor:
    return torch.empty(shape, dtype=dtype or x.dtype, device=x.device, memory_format=reference.memory_format(x))


def _conv_size(size: Any, kernel: Any, stride: Any, padding: Any, dilation: Any) -> Any:
    return (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1


def _conv_fake(x: Tensor, weight: Tensor, bias: Any, n: int, f: int, wrap: bool, stride: Any, padding: Any,
               dilation: Any, groups: Any, activation: str, packed: Tensor | None = None) -> Tensor:  # fmt: skip
    image = (_conv_size(x.shape[i + 2], weight.shape[i + 2], stride[i], padding[i], dilation[i]) for i in range(2))
    return _like(x, (x.shape[0], weight.shape[0], *image))


def _grads(mask: Sequence[bool], like: Tensor, *shapes: tuple[Any, ...]) -> list[Tensor]:
    return [like.new_empty(shape if wanted else (0,)) for wanted, shape in zip(mask, shapes, strict=True)]


def _conv_backward_fake(grad: Tensor, y: Tensor, x: Tensor, weight: Tensor, has_bias: bool, *args: Any) -> Any:
    mask = args[-1]
    _, gw, gb = _grads(mask, weight, (0,), tuple(weight.shape), (weight.shape[0],))
    return _like(x, x.shape) if mask[0] else x.new_empty(0), gw, gb


def _stack_backward_fake(
    grad: Tensor, x: Tensor, weights: list[Tensor], biases: list[Tensor], *args: Any
) -> list[Tensor]:
    gx = _like(x, x.shape) if args[-1] else x.new_empty(0)
    return [gx, *(w.new_empty(tuple(w.shape)) for w in weights), *(b.new_empty(tuple(b.shape)) for b in biases)]


def _block_backward_fake(
    grad: Tensor, x: Tensor, w1: Tensor, b1: Any, w2: Tensor, b2: Any, pool: int, mask: Any
) -> Any:
    gx = _like(x, x.shape) if mask[0] else x.new_empty(0)
    shapes = (tuple(w1.shape), (w1.shape[0],), tuple(w2.shape), (w2.shape[0],))
    return gx, *_grads(mask[1:], w1, *shapes)


def _packed(size: Any, like: Tensor) -> Tensor:
    return like.new_empty(size, dtype=torch.float32)


def _real_dtype(frames: Tensor) -> torch.dtype:
    return torch.float64 if frames.dtype == torch.float64 else torch.float32


def _inputs_fake(frames: Tensor, boxes: Tensor, big: int, small: int, every: int, pixels: str, eps: float) -> Any:
    n = frames.shape[0]
    shapes = ((n + every - 1) // every, 3, big, big), (n - 1, 3, small, small)
    return *(frames.new_empty(s, dtype=torch.float32) for s in shapes), frames.new_empty((n, 4), dtype=torch.float64)


_FAKES: dict[str, Callable[..., Any]] = {
    "wtsm": lambda x, *_: _like(x, x.shape),
    "wtsm_backward": lambda grad, *_: _like(grad, grad.shape),
    "wtsm_conv2d": _conv_fake,
    "wtsm_conv2d_backward": _conv_backward_fake,
    "pack_wtsm_conv2d": lambda w: _packed(reference.packed_size(w), w),
    "wtsm_conv2d_stack": lambda x, weights, *_: _like(x, (x.shape[0], weights[-1].shape[0], *x.shape[2:])),
    "wtsm_conv2d_stack_backward": _stack_backward_fake,
    "pack_wtsm_conv2d_stack": lambda ws: _packed(sum(reference.packed_size(w) for w in ws), ws[0]),
    "double_conv2d_pool": lambda x, w1, b1, w2, b2, pool, *_: _like(
        x, (x.shape[0], w2.shape[0], x.shape[2] // pool, x.shape[3] // pool)
    ),
    "double_conv2d_pool_backward": _block_backward_fake,
    "pack_double_conv2d_pool": lambda w1, w2: _packed(reference.packed_block_size(w1, w2), w1),
    "diff_normalize": lambda x, *_: _like(x, (x.shape[0] - 1, *x.shape[1:]), _real_dtype(x)),
    "diff_normalize_backward": lambda grad, x, *_: _like(x, x.shape),
    "standardize": lambda x, *_: _like(x, x.shape, _real_dtype(x)),
    "standardize_backward": lambda grad, x, *_: _like(x, x.shape),
    "bigsmall_inputs": _inputs_fake,
}
for _op, _fake in _FAKES.items():
    torch.library.register_fake(f"{NAMESPACE}::{_op}", _fake, lib=_definitions)


# --- derivatives ------------------------------------------------------------------------------------------------------


def register_autograd(op: str, backward: Callable[..., Any], setup_context: Callable[..., None]) -> None:
    """An op's derivative, written beside its public function."""
    torch.library.register_autograd(f"{NAMESPACE}::{op}", backward, setup_context=setup_context, lib=_definitions)


def given(mask: Sequence[bool], grads: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """None for the gradients that were not asked for (ops return empty tensors there)."""
    return tuple(g if wanted else None for wanted, g in zip(mask, grads, strict=True))


def _differentiate_reference(op: str) -> None:
    """Double backward: the backward op's own derivative is autograd's, through its plain PyTorch definition."""
    function = getattr(reference, op)

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        flat, ctx.spec = pytree.tree_flatten(inputs)
        ctx.lists = [isinstance(v, list) and bool(v) and isinstance(v[0], Tensor) for v in inputs]
        ctx.save_for_backward(*(v for v in flat if isinstance(v, Tensor)))
        ctx.flat = [(isinstance(v, Tensor), None if isinstance(v, Tensor) else v) for v in flat]

    def backward(ctx: Any, *cotangents: Any) -> Any:
        saved = iter(ctx.saved_tensors)
        with torch.enable_grad():
            flat = [next(saved).detach().requires_grad_() if tensor else value for tensor, value in ctx.flat]
            outputs = pytree.tree_leaves(function(*pytree.tree_unflatten(flat, ctx.spec)))
            pairs = [(y, g) for y, g in zip(outputs, pytree.tree_leaves(cotangents), strict=True) if y.requires_grad]
            leaves = [v for v in flat if isinstance(v, Tensor)]
            grads = torch.autograd.grad([y for y, _ in pairs], leaves, [g for _, g in pairs], allow_unused=True)
        found = iter(grads)
        inputs = pytree.tree_unflatten([next(found) if tensor else None for tensor, _ in ctx.flat], ctx.spec)
        return tuple(
            g if isinstance(g, Tensor) or is_list else None for g, is_list in zip(inputs, ctx.lists, strict=True)
        )

    register_autograd(op, backward, setup_context)


for _op in OPS:
    if _op.endswith("_backward"):
        _differentiate_reference(_op)


# --- the compiled library ---------------------------------------------------------------------------------------------


def _load() -> tuple[Any, str]:
    """(the extension module or None, one sentence on what was loaded or why not)."""
    if _choosers.INTERPRETED:
        return None, "TRITON_INTERPRET=1: Triton's interpreter has its place"
    record = pathlib.Path(__file__).with_name("_build.json")
    if not record.exists():
        return (
            None,
            "no compiled library was built (no C++ compiler at install time); the PyTorch reference runs instead",
        )
    built = json.loads(record.read_text())
    try:
        module = importlib.import_module(f"{__package__}._C")
    except (ImportError, OSError) as error:
        message = (
            f"the compiled library was built for {built['built_for']} and could not be loaded into torch "
            f"{torch.__version__} on {platform.system()} {platform.machine()} ({' '.join(str(error).split())}); "
            "the PyTorch reference runs instead"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=2)
        return None, message
    asked = os.environ.get("BIGSMALL_KERNELS_ISA", module.isa())
    if asked not in ISAS:
        warnings.warn(
            f"BIGSMALL_KERNELS_ISA must be one of {', '.join(ISAS)}, got {asked!r}: {module.isa()} is used",
            RuntimeWarning,
            stacklevel=2,
        )
    return module, f"built for {built['built_for']} by {built['compiler']}"


library, library_note = _load()


# --- which kernel runs ------------------------------------------------------------------------------------------------

_PLAIN = (Tensor, torch.nn.Parameter)
_NO_TENSORS = frozenset((int, bool, float, str, type(None)))  # a look at the type is quicker than isinstance
_backend: str | None = None  # a plain global, which torch.compile guards on


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every public function inside, in every thread, on one backend: "reference", "cpp", "triton" or "cuda".

    Raises ValueError for an unknown name, and RuntimeError inside where an op has no such kernel for a tensor.
    """
    global _backend
    if name not in BACKENDS:
        raise ValueError(f"name must be one of {', '.join(BACKENDS)}, got {name!r}")
    before, _backend = _backend, name
    try:
        yield
    finally:
        _backend = before


_registrations = _choosers.register(NAMESPACE, SCHEMAS, lambda: _backend)


def has_kernel(op: str, key: str) -> bool:
    """Whether a compiled kernel, not the reference, is registered for a dispatch key ("CPU", "CUDA")."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"{NAMESPACE}::{op}", key)


def _any_requires_grad(args: Sequence[Any]) -> bool:
    for value in args:
        kind = type(value)
        if kind in _NO_TENSORS:
            continue
        if kind is list:
            if value and type(value[0]) not in _NO_TENSORS and _any_requires_grad(value):
                return True
        elif isinstance(value, Tensor) and value.requires_grad:
            return True
    return False


def straight(tensors: Sequence[Tensor | None], *numbers: Any) -> bool:
    """Whether an op may be called at once: its compiled kernel checks its arguments, and Python's checks take longer.

    An error then calls for Python's checks, which name the argument. A kernel cannot tell bools from ints, knows
    nothing of autocast, and is not even asked where one of the tensors is elsewhere or no plain one.
    """
    if library is None or _backend is not None or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return False
    for number in numbers:
        if type(number) is not int:
            return False
    for tensor in tensors:  # noqa: SIM110 - a generator takes longer than this loop
        if tensor is not None and not (type(tensor) in _PLAIN and tensor.is_cpu):
            return False
    return True


def call(op: str, *args: Any) -> Any:
    """Run an op: on the backend asked for, below autograd where no gradient is needed (saves half of a call's cost)."""
    if _backend is not None:
        if _backend == "reference":
            return getattr(reference, op)(*args)
        x: Tensor = args[0]
        compiled = _backend == "cpp" and x.is_cpu and library is not None and has_kernel(op, "CPU")
        if not compiled and not _choosers.available(op, _backend, x):
            where = f"a tensor on {x.device} of {x.dtype}"
            raise RuntimeError(f"{op} has no {_backend} kernel for {where}; info() lists what there is")
    function = getattr(ops, op)
    if torch.compiler.is_compiling():
        return function(*args)
    if forward_ad._current_level >= 0:
        return getattr(reference, op)(*args)  # forward-mode derivatives are the plain definition's
    if torch.is_grad_enabled() and _any_requires_grad(args):
        return function(*args)
    with torch._C._AutoDispatchBelowAutograd():
        return function(*args)


def rescale_(x: Tensor, shift: float, factor: float) -> None:
    """x := (x - shift) * factor, of contiguous float32."""
    (reference if _backend == "reference" else getattr(torch.ops, _choosers.NAMESPACE)).rescale_(x, shift, factor)


def info() -> dict[str, Any]:
    """What was built, what is loaded, and which kernel each op runs on each device.

    Returns a dictionary: `version`, `torch`, `library` and `cuda_library` (loaded or not, and a sentence), `isa` (the
    instruction set the CPU kernels run on, None without a library), `threads`, and `kernels`: op -> device -> "cpp",
    "triton", "cuda" or "reference"; for "cuda", GPU or not, the first choice of the table in `_choosers.py`, which also
    goes by dtype.
    "reference" on the CPU beside a compiled library: the derivatives of the normalisers, in plain PyTorch.
    """
    from ._version import __version__

    compiled = library is not None
    return {
        "version": __version__,
        "torch": torch.__version__,
        "library": {"loaded": compiled, "note": library_note},
        "cuda_library": {"loaded": _cuda.loaded, "note": _cuda.note},
        "isa": library.isa() if compiled else None,
        "threads": torch.get_num_threads(),
        "kernels": {
            op: {
                "cpu": "cpp" if compiled and has_kernel(op, "CPU") else "reference",
                "cuda": next((row.backend for row in _choosers.rows(op)), "reference"),
            }
            for op in OPS
        },
    }
