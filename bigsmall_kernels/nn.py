"""Modules over the functions; `WTSM` and `TSM` take the place of the authors' classes of those names."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ._library import library, ops
from .normalize import diff_normalize, standardize
from .wtsm import wtsm
from .wtsm_conv2d import wtsm_conv2d

_STORED = (Tensor, nn.Parameter)  # and no tensor subclass, which may have no data at all


class Packed:
    """A module's cache of packed weights: fresh for the weights as they are, whatever changed them.

    Keyed by address, version and a checksum: `p.data.add_()` leaves the version as it is, and parameters made under
    inference_mode have none.
    """

    def __init__(self, pack: Callable[..., Tensor]) -> None:
        self._pack = pack
        self._entry: tuple[list[object], Tensor] | None = None

    def __call__(self, *weights: Tensor) -> Tensor | None:
        """The packed weights, or None where packing does not pay: in training, while compiling, without the library."""
        if library is None or torch.compiler.is_compiling():
            return None
        learning, pieces = torch.is_grad_enabled(), []
        key: list[object] = []
        for w in weights:
            if type(w) not in _STORED or not w.is_cpu or not w.is_contiguous() or (learning and w.requires_grad):
                return None
            pieces.append((w.data_ptr(), w.nbytes))
            key.append(None if w.is_inference() else w._version)
        key += pieces
        key.append(library.checksum(pieces))
        entry = self._entry
        if entry is None or entry[0] != key:
            entry = (key, self._pack(*weights))
            self._entry = entry
        return entry[1]

    def __deepcopy__(self, memo: dict[int, object]) -> Packed:
        return Packed(self._pack)

    def __reduce__(self) -> tuple[type[Packed], tuple[Callable[..., Tensor]]]:
        return Packed, (self._pack,)


def _pack_layer(weight: Tensor) -> Tensor:
    packed: Tensor = ops.pack_wtsm_conv2d(weight)
    return packed


class WTSM(nn.Module):
    """`wtsm` as a module: (B*n_segment, C, H, W) -> the same shape. No parameters."""

    wrap = True

    def __init__(self, n_segment: int = 3, fold_div: int = 3) -> None:
        super().__init__()
        self.n_segment, self.fold_div = n_segment, fold_div

    def forward(self, x: Tensor) -> Tensor:
        return wtsm(x, self.n_segment, self.fold_div, wrap=self.wrap)

    def extra_repr(self) -> str:
        return f"n_segment={self.n_segment}, fold_div={self.fold_div}"


class TSM(WTSM):
    """The zero-padding temporal shift as a module (n_segment 10 by default, as in TS-CAN)."""

    wrap = False

    def __init__(self, n_segment: int = 10, fold_div: int = 3) -> None:
        super().__init__(n_segment, fold_div)


class WTSMConv2d(nn.Conv2d):
    """A convolution behind a temporal shift, with its activation; parameters as in torch.nn.Conv2d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int] = 3,
        n_segment: int = 3,
        fold_div: int = 3,
        *,
        wrap: bool = True,
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | str = "same",
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        activation: str = "none",
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.n_segment, self.fold_div, self.wrap, self.activation = n_segment, fold_div, wrap, activation
        self._packed = Packed(_pack_layer)

    def forward(self, x: Tensor) -> Tensor:
        packed = None if self.training else self._packed(self.weight)
        return wtsm_conv2d(
            x, self.weight, self.bias, self.n_segment, self.fold_div, wrap=self.wrap, stride=self.stride,
            padding=self.padding, dilation=self.dilation, groups=self.groups, activation=self.activation, packed=packed,
        )  # fmt: skip

    def extra_repr(self) -> str:
        shift = f"n_segment={self.n_segment}, fold_div={self.fold_div}, wrap={self.wrap}"
        return f"{super().extra_repr()}, {shift}, activation={self.activation!r}"


class DiffNormalize(nn.Module):
    """`diff_normalize` as a module: (T, ...) -> (T-1, ...)."""

    def __init__(self, eps: float = 1e-7, *, std: float | None = None) -> None:
        super().__init__()
        self.eps, self.std = eps, std

    def forward(self, frames: Tensor) -> Tensor:
        return diff_normalize(frames, self.eps, std=self.std)


class Standardize(nn.Module):
    """`standardize` as a module: (T, ...) -> (T, ...)."""

    def __init__(self, *, mean: float | None = None, std: float | None = None) -> None:
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, frames: Tensor) -> Tensor:
        return standardize(frames, mean=self.mean, std=self.std)
