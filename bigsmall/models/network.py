"""What every network of the registry says about itself, and its call by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

TASKS = ("au", "pulse", "respiration")


class Network(nn.Module):
    """A network from frames to tasks. Batches are clip-major, index = clip*N + t.

    Attributes:
        tasks: what `forward` returns, in order, a tuple where there is more than one; out of "au" (logits, (frames,
            units)), "pulse" and "respiration" (derivatives in standard deviations, (frames, 1)).
        reads: the arguments of `forward`, in order: "big" (frames / M, 3, S, S) standardised frames; "small" (frames,
            3, s, s) normalised differences, averaged down; "difference:S" and "standard:S" (frames, 3, S, S) normalised
            differences taken at S x S pixels, and standardised frames.
        n_segment: N, the frames of a clip that the network mixes; 1 where each stands for itself.
        big_every: M; "big" holds frames 0, M, 2M, ... of a clip.
    """

    tasks: tuple[str, ...]
    reads: tuple[str, ...]
    n_segment: int = 1
    big_every: int = 1


def answer(model: nn.Module, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The outputs of a network by task, from its inputs by name.

    Args:
        model: a `Network`, bare or in DistributedDataParallel or torch.compile.
        inputs: at least those that the network `reads`.
    Raises:
        ValueError: an input is missing.
    """
    network: Any = getattr(model, "module", model)  # DistributedDataParallel hides the attributes
    if missing := [name for name in network.reads if name not in inputs]:
        raise ValueError(f"inputs must hold {', '.join(network.reads)}; {', '.join(missing)} is missing")
    outputs = model(*(inputs[name] for name in network.reads))
    return dict(zip(network.tasks, outputs if len(network.tasks) > 1 else (outputs,), strict=True))


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """`value` if it is among the choices, else an error naming the argument."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return value
