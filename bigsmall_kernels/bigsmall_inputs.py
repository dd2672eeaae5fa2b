"""From decoded pixels to the inputs of both branches."""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

from . import _check
from ._library import call, rescale_


class _Convention(NamedTuple):
    pixels: str  # how resized pixels are kept
    dropped: int  # true differences left out at the end
    zeros_before: int  # zero frames that count in the standard deviation
    zeros_after: int  # zero frames added after it


CONVENTIONS = {
    "exact": _Convention("exact", 0, 0, 0),
    "bigsmall": _Convention("unit", 1, 1, 0),
    "toolbox": _Convention("rounded", 0, 0, 1),
    "toolbox-pre225": _Convention("rounded", 1, 1, 1),
}
Scalar: TypeAlias = float | Tensor  # a tensor of no dimension
EPS = 1e-7  # of the difference's denominator, as released (FACTS 3.2)


class InputStats(NamedTuple):
    """What scales the inputs: mean and std of the resized pixels, diff_std of their difference frames."""

    mean: float
    std: float
    diff_std: float

    @classmethod
    def from_sums(cls, sums: Tensor, *, big_size: int = 144, convention: str = "exact") -> InputStats:
        """The statistics of a whole video from the rows of `bigsmall_input_sums` over its pieces, concatenated.

        Args:
            sums: (T, 4) float64, a row a frame of the video.
            big_size, convention: as given to `bigsmall_input_sums`.
        """
        least = 2 + _convention(convention).dropped
        if sums.dim() != 2 or sums.shape[1] != 4 or len(sums) < least:
            raise ValueError(f"sums must be (T, 4) with T >= {least}, got {tuple(sums.shape)}")
        return cls(*map(float, _statistics(sums, big_size, convention)))


def _at_hand(x: Tensor) -> bool:
    """Whether its numbers can be read at once: on a GPU they would be waited for, and fake tensors have none."""
    traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return type(x) is Tensor and x.is_cpu and not traced


def _statistics(sums: Tensor, big_size: int, convention: str) -> tuple[Scalar, Scalar, Scalar]:
    """Numbers where they are at hand; on a GPU and in compiled code tensors."""
    rule = _convention(convention)
    frames, pixels = sums.shape[0], 3 * big_size * big_size
    n_differences = frames - 1 - rule.dropped
    if _at_hand(sums):  # so in a third of the time that a tensor's sums take
        columns = tuple(zip(*sums.tolist(), strict=True))
        x, xx, d, dd = (sum(column[: frames if i < 2 else n_differences]) for i, column in enumerate(columns))
    else:
        x, xx, d, dd = *sums[:, :2].sum(0).unbind(), *sums[:n_differences, 2:].sum(0).unbind()
    n = frames * pixels
    n_d = max(n_differences + rule.zeros_before, 1) * pixels
    return x / n, _deviation(x / n, xx / n), _deviation(d / n_d, dd / n_d)


def _deviation(mean: Scalar, square: Scalar) -> Scalar:
    variance = square - mean * mean
    # Pixels are float32: a spread below their rounding is a constant picture.
    if isinstance(variance, Tensor):
        return torch.where(variance > 1e-12 * square, variance, 0.0).sqrt()
    return math.sqrt(variance) if variance > 1e-12 * square else 0.0


def _convention(name: str) -> _Convention:
    _check.one_of("convention", name, tuple(CONVENTIONS))
    return CONVENTIONS[name]


def _frames_and_boxes(frames: Tensor, boxes: Tensor | None, least: int) -> tuple[Tensor, Tensor]:
    _check.tensor("frames", frames)
    if frames.dtype != torch.uint8:
        raise TypeError(f"frames must be uint8 RGB, got {frames.dtype}")
    if frames.dim() != 4 or frames.shape[3] != 3 or frames.shape[0] < least or 0 in frames.shape:
        raise ValueError(f"frames must be (T, H, W, 3) with T >= {least}, got {tuple(frames.shape)}")
    n, height, width, _ = frames.shape
    if boxes is None:
        if _at_hand(frames):
            return frames, torch.tensor((0.0, 0.0, width, height), dtype=torch.float64).expand(n, 4)
        # filled on its device: numbers that come from the host would have a GPU waited for
        whole = torch.zeros(4, dtype=torch.float64, device=frames.device)
        whole[2].fill_(width)
        whole[3].fill_(height)
        return frames, whole.expand(n, 4)
    _check.tensor("boxes", boxes)
    if boxes.shape not in ((4,), (n, 4)):
        raise ValueError(f"boxes must be (4,) or ({n}, 4): x, y, w, h in pixels, got {tuple(boxes.shape)}")
    boxes = boxes.to(torch.float64).expand(n, 4)
    captured = boxes.is_cuda and torch.cuda.is_current_stream_capturing()
    if not (torch.compiler.is_compiling() or captured):
        x, y, w, h = boxes.amin(0).tolist()
        left, top = boxes[:, :2].amax(0).tolist()
        right, bottom = (boxes[:, :2] + boxes[:, 2:]).amax(0).tolist()
        positive = x >= 0 and y >= 0 and w > 0 and h > 0
        # a side that vanishes beside the edge's number: right is the edge, and the box lies behind it
        if not (positive and left < width and top < height and right <= width and bottom <= height):
            x, y, w, h = boxes.unbind(1)
            inside = (x >= 0) & (y >= 0) & (w > 0) & (h > 0) & (x + w <= width) & (y + h <= height)
            t = int((~(inside & (x < width) & (y < height))).nonzero()[0])
            box = boxes[t].tolist()
            raise ValueError(f"boxes must lie inside the {width}x{height} picture, got {box} at frame {t}")
    return frames, boxes.to(frames.device, non_blocking=True)


def _pass(
    frames: Tensor, boxes: Tensor | None, least: int, big_size: int, small_size: int, every: int, rule: _Convention
) -> tuple[Tensor, Tensor, Tensor]:
    frames, boxes = _frames_and_boxes(frames, boxes, least)
    _check.positive("big_size", big_size)
    _check.positive("small_size", small_size)
    if small_size > big_size:
        raise ValueError(f"small_size must be at most big_size={big_size}, got {small_size}")
    big, small, sums = call("bigsmall_inputs", frames, boxes, big_size, small_size, every, rule.pixels, EPS)
    return big, small, sums


def bigsmall_input_sums(
    frames: Tensor, boxes: Tensor | None = None, *, big_size: int = 144, convention: str = "exact"
) -> Tensor:
    """The first of two bounded passes over a long video: what `InputStats.from_sums` needs of a piece of it.

    Args:
        frames, boxes, big_size, convention: as in `bigsmall_inputs`, but one frame is enough. Pieces overlap by one
            frame, whose row is left out of all but the last piece (a row holds the difference to the next frame).

    Returns:
        (T, 4) float64: per frame the sums of its pixels, of their squares, of its difference to the next frame, and of
        the squares of that.
    """
    _check.tensor("frames", frames)
    return _pass(frames, boxes, 1, big_size, 1, max(frames.shape[0], 1), _convention(convention))[2]


def bigsmall_inputs(
    frames: Tensor,
    boxes: Tensor | None = None,
    *,
    big_size: int = 144,
    small_size: int = 9,
    n_segment: int = 3,
    all_big: bool = False,
    convention: str = "exact",
    stats: InputStats | None = None,
) -> tuple[Tensor, Tensor]:
    """Crop, area-resize, standardise (Big) and difference-normalise (Small) decoded frames.

    Args:
        frames: (T, H, W, 3) uint8 RGB, any strides.
        boxes: (4,) or (T, 4): x, y, w, h in pixels, fractions allowed; None: the whole picture. A difference cuts both
            its frames with the earlier one's box. Boxes on a GPU are waited for, to be checked; in compiled code and
            in a CUDA graph none are checked.
        big_size, small_size: sides of the two inputs; differences are taken at big_size and averaged down, not
            normalised again.
        n_segment: the length is cut to a multiple of it.
        all_big: every Big frame, not only the first of each clip.
        convention: "exact" (float pixels, T-1 true differences), or as released: "bigsmall", "toolbox" or
            "toolbox-pre225".
        stats: the statistics of the whole video, where `frames` is a piece of it.

    Returns:
        big (T'/n_segment, 3, big_size, big_size), or (T', ...) with all_big; small (T', 3, small_size, small_size);
        both float32.

    Raises:
        TypeError, ValueError: naming the argument, what it was and what was expected.

    Source: BigSmall (WACV 2024) section 4.1; FACTS 3.2.
    """
    _check.positive("n_segment", n_segment)
    rule = _convention(convention)
    every = 1 if all_big else n_segment
    big, small, sums = _pass(frames, boxes, 2 + rule.dropped, big_size, small_size, every, rule)
    if rule.zeros_before + rule.zeros_after:
        zeros = small.new_zeros(rule.zeros_before + rule.zeros_after, *small.shape[1:])
        small = torch.cat((small[: frames.shape[0] - 1 - rule.dropped], zeros))
    length = small.shape[0] // n_segment * n_segment
    mean, std, diff_std = _statistics(sums, big_size, convention) if stats is None else stats
    return _scaled(big[: length // every], mean, std), _scaled(small[:length], 0.0, diff_std)


def _scaled(x: Tensor, mean: Scalar, std: Scalar) -> Tensor:
    """x itself, less its mean and over its deviation; zeros for a constant video, where that is 0 (FACTS 3.2)."""
    factor = _reciprocal(std)
    if isinstance(mean, Tensor) or isinstance(factor, Tensor) or not _at_hand(x):
        return x.sub_(_float(mean)).mul_(factor)
    rescale_(x, mean, factor)
    return x


def _float(value: Scalar) -> Scalar:
    return value.float() if isinstance(value, Tensor) else value


def _reciprocal(std: Scalar) -> Scalar:
    """1 / std, and 0 for a constant video, whose inputs are zeros (FACTS 3.2)."""
    if isinstance(std, Tensor):
        return torch.where(std == 0, 0.0, 1 / torch.where(std == 0, 1.0, std)).float()
    return 1 / std if std else 0.0
