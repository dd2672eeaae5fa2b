"""What every network of the registry says about itself, and its call by names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

TASKS = ("au", "pulse", "respiration")
SIGNALS = TASKS[1:]


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
        big_size, small_size: S and s, in pixels.
        last_maps: the last convolution of each input that is looked at, as `bigsmall.models.maps` shows it (Fig. 6).
        also: what action units are learnt with, as `Prepared.targets` calls it; such a network has a method `taught`,
            `forward` with all that is learnt from (`jaanet.Seen`).
        action_units: of networks that each unit has layers of its own in, their names.
    """

    tasks: tuple[str, ...]
    reads: tuple[str, ...]
    n_segment: int = 1
    big_every: int = 1
    big_size: int = 144
    small_size: int = 9
    last_maps: ClassVar[Mapping[str, str]]
    also: tuple[str, ...] = ()
    action_units: tuple[str, ...] = ()

    def input_shapes(self, clips: int = 1) -> dict[str, tuple[int, int, int, int]]:
        """The shapes of what the network `reads`, for some clips."""
        frames = clips * self.n_segment
        sizes = {"big": (frames // self.big_every, self.big_size), "small": (frames, self.small_size)}
        shapes = {}
        for name in self.reads:
            count, size = sizes.get(name) or (frames, int(name.partition(":")[2]))
            shapes[name] = (count, 3, size, size)
        return shapes


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


def positive(name: str, value: int) -> int:
    """`value` if it is an integer of at least 1, else an error naming the argument."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def check_images(name: str, x: Tensor, size: int) -> None:
    """An error naming the argument if it is not (frames, 3, size, size) in a floating dtype."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor, got {getattr(x, 'dtype', type(x).__name__)}")
    if x.dim() != 4 or tuple(x.shape[1:]) != (3, size, size):
        raise ValueError(f"{name} must have shape (frames, 3, {size}, {size}), got {tuple(x.shape)}")


def check_clips(name: str, x: Tensor, n_segment: int) -> int:
    """The frames of `x`, or an error naming the argument if they are not whole clips."""
    frames = x.shape[0]
    if frames % n_segment:
        raise ValueError(f"{name} must hold a multiple of n_segment = {n_segment} frames, got {frames}")
    return frames
