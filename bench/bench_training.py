"""A training step from prepared files to changed weights, beside the loop that a user writes in plain PyTorch.

Ours reads its batches from files, ahead and in threads, while it learns; the peers' lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import eager
import peers
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bigsmall import models
from bigsmall.datasets import Clips, open_prepared
from bigsmall.training import config as configurations
from bigsmall.training.batches import Batch, Batches
from bigsmall.training.distributed import Group
from bigsmall.training.loop import Step, Work, make_optimizer
from bigsmall.training.network import start
from bigsmall.training.records import Records

STEPS = 1_000_000  # more than are timed
RECIPES: dict[str, dict[str, Any]] = {
    "the paper's": {},
    "the default model's": {"clips": configurations.read("default").clips},  # of Small frames to each Big frame
}


def _loop(config: configurations.Config, batches: Batches, model: models.Network) -> Callable[[], list[Tensor]]:
    """Ours: reads and learns from one batch after another."""
    work = Work(model, models.TASKS, batches, torch.ones(12), None, None)
    parameters = list(model.parameters())
    step = Step(config, work, Group(0, 1, torch.device("cpu")), parameters)
    optimizer, records = make_optimizer(config, parameters), Records(None, {}, 0, False)
    ahead: Iterator[tuple[int, list[Batch]]] = enumerate(batches.from_step(0, 0, 1))

    def call() -> list[Tensor]:
        values, norm = step(*next(ahead), records)
        optimizer.step()
        return [torch.tensor([*values.values(), norm])]

    return call


def _plain(module: nn.Module, run: Any, batch: Batch) -> peers.Call:
    """What a user writes: one batch, three losses, Adam."""
    big, small = batch.inputs["big"], batch.inputs["small"]
    known = ~batch.targets["au"].isnan().any(1)
    au, pulse, respiration = (batch.targets[task].to(big.dtype) for task in models.TASKS)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0)

    def call() -> list[Tensor]:
        outputs = run(big, small)
        found = [
            F.binary_cross_entropy_with_logits(outputs[0][known], au[known]),
            F.mse_loss(outputs[1], pulse),
            F.mse_loss(outputs[2], respiration),
        ]
        optimizer.zero_grad()
        torch.stack(found).sum().backward()
        norm = torch.nn.utils.get_total_norm([p.grad for p in module.parameters()])
        optimizer.step()
        return [torch.stack([*found, norm]).detach()]

    return call


class Repeated(nn.Module):
    """The plain network, Big's map of every frame repeated for so many clips of Small frames."""

    def __init__(self, network: eager.BigSmall, clips: int) -> None:
        super().__init__()
        self.network, self.clips = network, clips

    def forward(self, big: Tensor, small: Tensor) -> tuple[Tensor, ...]:
        network = self.network
        fused = network.big(big).repeat_interleave(3 * self.clips, 0) + network.small(small)
        features = fused.flatten(1)
        return tuple(head(features) for head in network.heads)


@pytest.mark.parametrize("threads", [2], ids=["2threads"], indirect=True)
@pytest.mark.parametrize("clips", [8], ids=["8clips"])
@pytest.mark.parametrize("recipe", RECIPES, ids=["paper", "default"])
def test_training_step(paired: Any, clips: int, threads: int, recipe: str, noise: Path) -> None:
    settings = {"data": {"noise": {"prepared": str(noise)}}, "steps": STEPS, "batch": clips, "dropout": False}
    config = configurations.read({**settings, **RECIPES[recipe]})
    batches = Batches(config, Clips(open_prepared(noise), 3, ("big", "small"), models.TASKS), [("noise", 1, None)])
    first = batches.load(batches.plan(0))

    def plain(double: bool = False, channels_last: bool = False) -> nn.Module:
        network = eager.BigSmall()
        state = start(config, print).state_dict()
        network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
        module = Repeated(network, config.clips).eval()
        module = module.double() if double else module
        return module.to(memory_format=torch.channels_last) if channels_last else module

    exact, nchw, last, graph = plain(double=True), plain(), plain(channels_last=True), plain()
    torch._dynamo.reset()
    wide = Batch({name: x.double() for name, x in first.inputs.items()}, first.targets)
    flops = 3 * 2 * clips * (447_897_600 + 3 * config.clips * 5_048_416)  # FACTS 1.3
    paired(
        f"training step, {recipe} recipe",
        _loop(config, batches, start(config, print)),
        [
            ("eager NCHW", _plain(nchw, nchw, first)),
            ("eager channels_last", _plain(last, last, first)),
            ("torch.compile", _plain(graph, torch.compile(graph, dynamic=False), first)),
        ],
        _plain(exact, exact, wide)(),
        kernel="double_conv2d_pool_backward",
        flops=flops,
        nbytes=sum(x.nbytes for x in first.inputs.values()),
        bars={"ratio": 1.5},
        frames=3 * clips * config.clips,
        tolerance=1e-3,
    )
