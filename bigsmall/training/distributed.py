"""Processes that train one model together, as torchrun starts them; a single one needs no arrangement.

Their gradients are those of the whole batch on one process, whatever their number. But layers of batch normalisation
(DRML, EfficientPhys, JAA-Net, JÂA-Net, BigSmall++) take the statistics of each process's own part, as they do
of each of `accumulate` parts; every step begins with the first process's running ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

WAIT = timedelta(days=1)  # others wait while the first process prepares the data


@dataclass(frozen=True)
class Group:
    """This process's number among `size`, and where it computes."""

    rank: int
    size: int
    device: torch.device

    @property
    def first(self) -> bool:
        """The process that prepares, validates by metrics, writes and shows."""
        return self.rank == 0

    def sum(self, *tensors: Tensor) -> None:
        """Replace each by its sum over the processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def agree(self, model: nn.Module) -> None:
        """Give every process the first one's running statistics."""
        if self.size > 1:
            for buffer in model.buffers():
                dist.broadcast(buffer, 0)

    def tell(self, value: Any) -> Any:
        """What the first process passed."""
        told = [value]
        if self.size > 1:
            dist.broadcast_object_list(told, 0)
        return told[0]


@contextmanager
def connected(device: str) -> Iterator[Group]:
    """The group that torchrun's environment describes, over NCCL on GPUs and gloo on CPUs; it parts at the end.

    Args:
        device: "cpu", "cuda" or "auto": a GPU where there is one.
    Raises:
        ValueError: "cuda" where there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device was cuda, and torch finds no GPU here")
    rank, local = (int(os.environ.get(name, 0)) for name in ("RANK", "LOCAL_RANK"))
    size = int(os.environ.get("WORLD_SIZE", 1))
    on_gpu = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", local) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(where)
        torch.backends.cudnn.deterministic = True  # or a resumed run would end with other bits
    if size == 1:
        yield Group(0, 1, where)
        return
    dist.init_process_group("nccl" if on_gpu else "gloo", timeout=WAIT)
    try:
        yield Group(rank, size, where)
    finally:
        dist.destroy_process_group()
