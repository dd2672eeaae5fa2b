"""What a model costs, layer by layer, as the paper counts it (FACTS 1.3): counted while it runs on one clip."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .network import Network

CONVENTION = (
    "flopth: a multiply-add counts once; convolutions add one for each bias addition, a pooling and a ReLU layer "
    "count their inputs, a batch normalisation twice its inputs, linear layers leave out the bias; shifts, other "
    "activations, dropout, sums and functional poolings count nothing. MACs: multiply-adds alone."
)


class Layer(NamedTuple):
    """One layer; `flops` and `macs` are of one run, `runs` the times it runs for a clip."""

    name: str
    output_shape: tuple[int, ...]
    parameters: int
    runs: int
    flops: int
    macs: int


class Cost(NamedTuple):
    """The layers of a model and the totals of a clip of `frames` frames."""

    layers: tuple[Layer, ...]
    frames: int
    convention: str = CONVENTION

    @property
    def parameters(self) -> int:
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops_per_clip(self) -> int:
        return sum(layer.runs * layer.flops for layer in self.layers)

    @property
    def macs_per_clip(self) -> int:
        return sum(layer.runs * layer.macs for layer in self.layers)

    @property
    def flops_per_frame(self) -> float:
        return self.flops_per_clip / self.frames

    @property
    def macs_per_frame(self) -> float:
        return self.macs_per_clip / self.frames


class _Counter(TorchFunctionMode):
    """Layers with weights are seen at their function, for fused ones call no modules; the others at their module."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.layers: dict[tuple[str, tuple[int, ...]], Layer] = {}
        self._frames, self._modules = model.n_segment, dict(model.named_modules())
        self._names = {id(p): name.rpartition(".")[0] for name, p in model.named_parameters()}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        kind = getattr(func, "__name__", "")
        if kind in ("conv2d", "wtsm_conv2d"):
            self._convolution(args[1], output.shape)
        elif kind == "wtsm_conv2d_stack":
            for weight in args[1]:
                self._convolution(weight, output.shape)
        elif kind == "double_conv2d_pool":
            x, first, _, second, *_ = args
            self._convolution(first, x.shape)
            self._convolution(second, x.shape)
            self._add(f"{self._names[id(second)]}.pool", output.shape, second.shape[0] * math.prod(x.shape[2:]))
        elif kind == "linear":
            # Heads run once for every frame, as released: Big's share of their sums, computed apart, counts nothing.
            macs = args[1].numel()
            rows = min(output.shape[0], self._frames)
            self._add(self._names[id(args[1])], (rows, *output.shape[1:]), macs, macs)
        return output

    def _convolution(self, weight: Tensor, image: Sequence[int]) -> None:
        name, shape = self._names[id(weight)], (image[0], weight.shape[0], *image[2:])
        macs = math.prod(shape[1:]) * weight[0].numel()
        biases = 0 if self._modules[name].bias is None else math.prod(shape[1:])
        self._add(name, shape, macs + biases, macs)

    def module(self, name: str, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        """A forward hook."""
        affine = isinstance(module, nn.BatchNorm2d)
        self._add(name, output.shape, (2 if affine else 1) * inputs[0][0].numel())

    def _add(self, name: str, output: Sequence[int], flops: int, macs: int = 0) -> None:
        """One more call of a layer, for output[0] frames."""
        shape = tuple(output[1:])
        if (before := self.layers.get((name, shape))) is not None:
            self.layers[name, shape] = before._replace(runs=before.runs + output[0])
            return
        seen = any(name == other for other, _ in self.layers)
        parameters = (
            0 if seen or name not in self._modules else sum(p.numel() for p in self._modules[name].parameters())
        )
        self.layers[name, shape] = Layer(name, shape, parameters, output[0], flops, macs)


def cost(model: Network) -> Cost:
    """Layers and totals of any model that `build` returns, in the order in which they run."""
    counter, training = _Counter(model), model.training
    hooks = [
        module.register_forward_hook(partial(counter.module, name))
        for name, module in model.named_modules()
        if isinstance(module, (nn.ReLU, nn.BatchNorm2d, nn.AvgPool2d, nn.MaxPool2d))
    ]
    like = next(model.parameters())
    inputs = [like.new_zeros(model.input_shapes()[name]) for name in model.reads]
    try:
        with torch.no_grad(), counter:
            model.eval()(*inputs)
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(tuple(counter.layers.values()), model.n_segment)
