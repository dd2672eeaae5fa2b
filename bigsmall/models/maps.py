"""What a network's last convolutions see, for the pictures of the paper's Fig. 6.

Which convolutions these are, a network says in `last_maps`: "big" is its look at appearance, "small" at motion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .network import Network, answer


def activations(model: Network, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The maps of a network's last convolutions, in evaluation mode.

    Args:
        inputs: what the network `reads`, by name.
    Returns:
        "big": (frames that Big reads, C, h, w), before the branch's last pooling, and "small": (frames, C, h, w), as
        far as the network has them; after the activation, where it is not a layer of its own (DRML, AlexNet).
        The mean over C is what Fig. 6 shows.
    """
    recorder = _Recorder(model)
    with torch.no_grad(), _evaluating(model), recorder:
        answer(model, inputs)
    return recorder.maps()


def grad_cam(model: Network, inputs: Mapping[str, Tensor], task: str, unit: int | None = None) -> dict[str, Tensor]:
    """Grad-CAM: where a network's last maps speak for a task, ReLU(sum_c w_c A_c), w_c the mean over pixels of the
    derivative of the output with respect to A_c (Selvaraju et al. 2017), in evaluation mode.

    The output is summed over frames, so where frames of a clip mix, a frame's map speaks for all of the clip.

    Args:
        inputs: what the network `reads`, by name.
        task: one of the network's `tasks`.
        unit: the output's column, such as an action unit; None sums over all of them.
    Returns:
        "big": (frames that Big reads, h, w) and "small": (frames, h, w), at least 0, not normalised.
    Raises:
        ValueError: the network has no such task or unit.
    """
    if task not in model.tasks:
        raise ValueError(f"task must be one of {', '.join(model.tasks)}, got {task!r}")
    recorder = _Recorder(model)
    with torch.enable_grad(), _evaluating(model), recorder:
        # Gradients flow from the inputs on, whether or not the parameters are frozen.
        output = answer(model, {name: inputs[name].detach().requires_grad_() for name in model.reads})[task]
        if unit is not None and not 0 <= unit < output.shape[1]:
            raise ValueError(f"unit must be from 0 to {output.shape[1] - 1}, got {unit}")
        score = output.sum() if unit is None else output[:, unit].sum()
    maps = recorder.maps()
    gradients = torch.autograd.grad(score, list(maps.values()), materialize_grads=True)
    cams = {}
    for (name, values), gradient in zip(maps.items(), gradients, strict=True):
        weights = gradient.mean((2, 3), keepdim=True)
        cams[name] = F.relu((weights * values).sum(1)).detach()
    return cams


class _Recorder(TorchFunctionMode):
    """Keeps the outputs of the convolutions in `last_maps`, which fused functions run without calling their module."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self._names = {id(model.get_parameter(f"{layer}.weight")): name for name, layer in model.last_maps.items()}
        self._parts: dict[str, list[Tensor]] = {name: [] for name in model.last_maps}

    def maps(self) -> dict[str, Tensor]:
        return {name: torch.cat(parts) if len(parts) > 1 else parts[0] for name, parts in self._parts.items()}

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kind = getattr(func, "__name__", "")
        if kind == "double_conv2d_pool" and (name := self._names.get(id(args[3]))):
            *block, pool, packed = args
            whole = func(*block, 1, packed)
            self._parts[name].append(whole)
            return F.avg_pool2d(whole, pool)
        output = func(*args, **(kwargs or {}))
        if kind in ("conv2d", "wtsm_conv2d", "wtsm_conv2d_stack"):
            last = args[1][-1] if kind == "wtsm_conv2d_stack" else args[1]
            if name := self._names.get(id(last)):
                self._parts[name].append(output)
        return output


@contextmanager
def _evaluating(model: Network) -> Iterator[None]:
    training = model.training
    try:
        model.eval()
        yield
    finally:
        model.train(training)
