"""The whole network: inference on clips of three frames, and a training step."""

from __future__ import annotations

import copy
from typing import Any

import eager
import peers
import pytest
import torch
from torch import Tensor, nn

from bigsmall import models


def networks() -> tuple[nn.Module, nn.Module]:
    """Ours and the plain one, with the same weights."""
    ours, plain = models.build("bigsmall"), eager.BigSmall()
    # Both hold Big's convolutions, Small's and the heads in this order.
    plain.load_state_dict(dict(zip(plain.state_dict(), ours.state_dict().values(), strict=True)))
    return ours, plain


def inputs(clips: int) -> tuple[Tensor, Tensor]:
    return torch.randn(clips, 3, 144, 144), torch.randn(3 * clips, 3, 9, 9)


@pytest.mark.parametrize("clips", [1, 8, 60], ids=["1clip", "8clips", "60clips"])
def test_bigsmall(paired: Any, clips: int, threads: int, quick: bool) -> None:
    ours, plain = networks()
    ours, plain = ours.eval(), plain.eval()
    data = inputs(clips)
    with torch.inference_mode():
        exact = copy.deepcopy(plain).double()(*(x.double() for x in data))
    paired(
        "bigsmall",
        peers.eager(ours, data),
        peers.inference(plain, data, threads, quick=quick),
        exact,
        kernel="double_conv2d_pool",
        flops=2 * models.describe("bigsmall").macs_per_clip * clips,
        frames=3 * clips,
    )


def _step(model: Any, module: nn.Module, data: tuple[Tensor, Tensor]) -> peers.Call:
    parameters = list(module.parameters())

    def call() -> Any:
        loss = torch.stack([output.square().mean() for output in model(*data)]).sum()
        return [loss.detach(), *torch.autograd.grad(loss, parameters)]

    return call


def test_training(paired: Any, clips: int, threads: int) -> None:
    """Forward and backward, without dropout so that the gradients can be compared."""
    torch.manual_seed(1)  # with seed 0 a ReLU's input is so near zero that rounding decides a gradient's third digit
    ours, plain = (network.eval() for network in networks())
    data = inputs(clips)
    exact = copy.deepcopy(plain).double()
    truth = _step(exact, exact, tuple(x.double() for x in data))()
    channels_last = copy.deepcopy(plain).to(memory_format=torch.channels_last)
    torch._dynamo.reset()
    compiled = torch.compile(plain, fullgraph=True, dynamic=False)
    paired(
        "bigsmall training step",
        _step(ours, ours, data),
        [
            ("eager NCHW", _step(plain, plain, data)),
            ("eager channels_last", _step(channels_last, channels_last, data)),
            ("torch.compile", _step(compiled, plain, data)),
        ],
        truth,
        kernel="double_conv2d_pool_backward",
        flops=3 * 2 * models.describe("bigsmall").macs_per_clip * clips,
        frames=3 * clips,
        tolerance=1e-3,  # a ReLU's input within rounding of zero falls on either side
    )
