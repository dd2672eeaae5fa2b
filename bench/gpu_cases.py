"""What bench/gpu.py measures: each op and the network beside plain PyTorch, at any number of clips."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import eager
import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor, nn

import bigsmall_kernels as bk
from bigsmall import models

TRUNK = ((3, 32), (32, 32), (32, 32), (32, 64))
BLOCKS = {"block1": (3, 32, 32, 144, 2), "block2": (32, 32, 64, 72, 2), "block3": (64, 64, 64, 36, 4)}


@dataclass
class Case:
    """A plain module and its inputs, the same on our ops, and what one call takes at least."""

    op: str
    inputs: tuple[Tensor, ...]
    plain: nn.Module
    ours: nn.Module
    flops: float = 0  # two for each multiply-add
    elements: float = 0  # of the case's dtype, read once and written once; a normaliser's input read twice
    nbytes: float = 0  # beside them
    frames: int = 0  # that come out of one call
    layouts: bool = True  # whether its inputs are images of either layout

    def to(self, device: str, dtype: torch.dtype) -> Case:
        for module in (self.plain, self.ours):
            module.eval().to(device, dtype)
        return replace(self, inputs=put(self.inputs, device, dtype))


class Calls(nn.Module):
    """A function of the inputs and of a plain module's parameters."""

    def __init__(self, plain: nn.Module, function: Callable[..., Any]) -> None:
        super().__init__()
        self.plain, self.function = plain, function

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs, *self.plain.parameters())


class Inputs(nn.Module):
    """Both inputs of the network from pictures of a multiple of 144 pixels, which plain PyTorch averages exactly."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.register_buffer("like", torch.zeros(()))  # its dtype is the module's

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        real = torch.float64 if self.like.dtype == torch.float64 else torch.float32
        x = F.avg_pool2d(frames.permute(0, 3, 1, 2).to(real), frames.shape[1] // self.side)
        d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)
        big = (x[: len(d) : 3] - x.mean()) / x.std(correction=0)
        return big, F.avg_pool2d(d, 16) / d.std(correction=0)


class Pipeline(nn.Module):
    """From pictures to the network's outputs."""

    def __init__(self, inputs: Callable[..., Any], network: nn.Module) -> None:
        super().__init__()
        self.inputs, self.network = inputs, network

    def forward(self, frames: Tensor) -> Any:
        dtype = next(self.network.parameters()).dtype
        return self.network(*(x.to(dtype) for x in self.inputs(frames)))


def _convolution_flops(frames: int, area: int, *channels: int) -> float:
    return 2 * 9 * frames * area * sum(a * b for a, b in itertools.pairwise(channels))


def put(values: Any, device: str, dtype: torch.dtype) -> Any:
    """Tensors on a device; those of floats in a dtype."""
    return pytree.tree_map_only(Tensor, lambda x: x.to(device, dtype if x.is_floating_point() else x.dtype), values)


def error(outputs: Any, truth: list[Tensor]) -> float:
    """max|y - y64| / max|y64|, the worst of the outputs; NaN where there is one, or another shape."""
    found = pytree.tree_leaves(outputs)
    if [y.shape for y in found] != [y.shape for y in truth]:
        return float("nan")
    errors = [(y - y64).abs().max() / y64.abs().max().clamp_min(1e-300) for y, y64 in zip(found, truth, strict=True)]
    return float(torch.stack(errors).max())


def exactly(case: Case, device: str) -> list[Tensor]:
    """The plain module's outputs in float64, for the inputs and parameters as they are."""
    outputs = copy.deepcopy(case.plain).to(device, torch.float64)(*put(case.inputs, device, torch.float64))
    return pytree.tree_leaves(outputs)


def wtsm(clips: int) -> Case:
    x = torch.randn(3 * clips, 32, 9, 9)
    plain = eager.Shift()
    return Case("wtsm", (x,), plain, Calls(plain, bk.wtsm), elements=2 * x.numel())


def wtsm_conv2d(clips: int) -> Case:
    x, plain = torch.randn(3 * clips, 32, 9, 9), eager.shifted_convolution(32, 32)
    ours = Calls(plain, lambda x, weight, bias: bk.wtsm_conv2d(x, weight, bias, activation="relu"))
    return Case("wtsm_conv2d", (x,), plain, ours, _convolution_flops(3 * clips, 81, 32, 32), 2 * x.numel())


def wtsm_conv2d_stack(clips: int) -> Case:
    x, plain = torch.randn(3 * clips, 3, 9, 9), eager.trunk()
    ours = Calls(plain, lambda x, *p: bk.wtsm_conv2d_stack(x, list(p[::2]), list(p[1::2])))
    flops = _convolution_flops(3 * clips, 81, 3, 32, 32, 32, 64)
    return Case("wtsm_conv2d_stack", (x,), plain, ours, flops, x.numel() * (1 + 64 / 3))


def double_conv2d_pool(block: str, clips: int) -> Case:
    c, middle, out, side, pool = BLOCKS[block]
    x, plain = torch.randn(clips, c, side, side), eager.block(c, middle, out, pool)
    ours = Calls(plain, lambda x, w1, b1, w2, b2: bk.double_conv2d_pool(x, w1, b1, w2, b2, pool))
    flops = _convolution_flops(clips, side * side, c, middle, out)
    return Case(f"double_conv2d_pool {block}", (x,), plain, ours, flops, x.numel() * (1 + out / c / pool**2))


def normaliser(op: str, frames: int, side: int = 144) -> Case:
    plain: nn.Module = eager.Standardize() if op == "standardize" else eager.DiffNormalize()
    x = torch.rand(frames, side, side, 3) + 0.1
    return Case(op, (x,), plain, Calls(plain, getattr(bk, op)), elements=3 * x.numel(), frames=frames, layouts=False)


def bigsmall_inputs(clips: int, side: int = 144) -> Case:
    frames = torch.randint(1, 256, (3 * clips + 1, 3 * side, 3 * side, 3), dtype=torch.uint8)
    plain = Inputs(side)
    ours = Calls(plain, lambda frames: bk.bigsmall_inputs(frames, big_size=side, small_size=side // 16))
    nbytes = frames.numel() + 4 * clips * 3 * (side**2 + 3 * (side // 16) ** 2)
    return Case("bigsmall_inputs", (frames,), plain, ours, nbytes=nbytes, frames=3 * clips, layouts=False)


def networks() -> tuple[nn.Module, nn.Module]:
    """The plain one and ours, with the same weights."""
    ours, plain = models.build("bigsmall").eval(), eager.BigSmall().eval()
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    return plain, ours


def network(clips: int) -> Case:
    plain, ours = networks()
    inputs = (torch.randn(clips, 3, 144, 144), torch.randn(3 * clips, 3, 9, 9))
    flops = 2 * models.describe("bigsmall").macs_per_clip * clips
    return Case("bigsmall", inputs, plain, ours, flops, frames=3 * clips)


def pipeline(clips: int) -> Case:
    plain, ours = networks()
    pictures = bigsmall_inputs(clips)
    both = (Pipeline(inputs, model) for inputs, model in ((pictures.plain, plain), (pictures.ours, ours)))
    return Case("frames to outputs", pictures.inputs, *both, frames=3 * clips, layouts=False)
