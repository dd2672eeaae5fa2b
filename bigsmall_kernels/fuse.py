"""Existing models onto the fused ops: `fuse`."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from . import _choosers
from ._rewrite import Place, Rewriting
from ._shifts import copied

# Largest difference of an output, as a share of its largest value: several times what another order of sums makes.
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 3e-2, torch.bfloat16: 1e-1}


class Fusion(NamedTuple):
    """What `fuse` made of a model."""

    model: nn.Module  # on the fused ops; the model that was given, where there was nothing to fuse
    fused: tuple[Place, ...]  # (op, the modules whose work it does, its options), in the order that they run in
    left: tuple[tuple[str, str], ...]  # (module, why it stayed as it was)


def fuse(model: nn.Module, example_inputs: Tensor | Sequence[Any]) -> Fusion:
    """A model whose temporal shifts, their convolutions and activations run as this package's fused ops.

    A shift is recognised by what it does to random numbers: WTSM or TSM, any number of frames and any fold_div, as a
    module of its own, around a convolution, or written out in a forward. It becomes `wtsm`; with the 3x3 or 1x1
    convolution behind it, and that one's ReLU, Tanh or ELU, `wtsm_conv2d`; a chain of such layers `wtsm_conv2d_stack`.
    conv3x3 - ReLU - conv3x3 - ReLU - average pool becomes `double_conv2d_pool`. Everything else stays as it is.

    The fused model is an instance of a subclass of the model's class and has its attributes and the names of its
    state_dict. Parameters and buffers are the given model's own tensors: what trains, loads or moves one does so to
    both. Each has its own train() and eval(). Code in a forward that asks for `self.training`, and dropouts inside a
    fused chain, follow the mode of the whole model. Save state_dict(), not the fused model: its class has no name.

    Args:
        model: any nn.Module that torch.fx can follow; its parts that cannot be followed stay as they are.
        example_inputs: the positional arguments of a call, or its only tensor, with at least one clip.

    Returns:
        `Fusion(model, fused, left)`.

    Raises:
        TypeError: model is not an nn.Module, or example_inputs not a tensor, tuple or list.
        RuntimeError: on the example inputs the fused model does not compute what the model does (in eval mode, and in
            training where the model is in it).
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not isinstance(example_inputs, (Tensor, tuple, list)):
        kind = type(example_inputs).__name__
        raise TypeError(f"example_inputs must be a tensor or a tuple of the model's arguments, got {kind}")
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    twin, plain = _twin(model), _twin(model)
    found = {training: Rewriting(twin, plain, inputs, training) for training in (True, False)}
    fused, in_training = found[False].places(), {m for place in found[True].places() for m in place.modules}
    only = {m: "in training, where a dropout stands between" for p in fused for m in p.modules if m not in in_training}
    left = tuple((found[False].left | only).items())
    if not fused:
        return Fusion(model, (), left)
    twin.__class__ = _subclass(model, {training: rewriting.forward() for training, rewriting in found.items()})
    for training in {False, model.training}:
        _verify(plain.train(training), twin.train(training), inputs)
    for name, module in model.named_modules():
        twin.get_submodule(name).training = module.training
    return Fusion(twin, fused, left)


def _twin(model: nn.Module) -> nn.Module:
    """Another model of the same tensors."""
    return copy.deepcopy(model, {id(t): t for t in (*model.parameters(), *model.buffers())})


def _subclass(model: nn.Module, forwards: dict[bool, Callable[..., Any]]) -> type[nn.Module]:
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return forwards[self.training](self, *args, **kwargs)

    forward.__signature__ = inspect.signature(type(model).forward)  # type: ignore[attr-defined]
    return type(f"Fused{type(model).__name__}", (type(model),), {"forward": forward})


@torch.no_grad()
def _verify(plain: nn.Module, fused: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Both on the same inputs and random numbers; what running statistics learn from it is taken back."""
    buffers = [(b, b.clone()) for b in plain.buffers()]
    results = []
    for model in (plain, fused):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            results.append(pytree.tree_leaves(model(*copied(inputs))))
        for buffer, before in buffers:
            buffer.copy_(before)
    for i, (expected, y) in enumerate(zip(*results, strict=True)):
        if not isinstance(expected, Tensor) or not expected.is_floating_point():
            continue
        rounded = expected.is_cuda and _choosers.tf32() and expected.dtype == torch.float32
        most = TOLERANCE[torch.float16 if rounded else expected.dtype] * expected.abs().max().item()
        if y.shape != expected.shape or not torch.allclose(y, expected, rtol=0, atol=most, equal_nan=True):
            mode = "training" if plain.training else "eval"
            raise RuntimeError(f"the fused model's output {i} is not the model's in {mode} mode: nothing was fused")
