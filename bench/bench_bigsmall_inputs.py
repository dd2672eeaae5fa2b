"""`bigsmall_inputs`: decoded 480x480 frames to both inputs, against the released numpy way and OpenCV in float32."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import peers
import pytest
import torch
from sizes import SIZES

import bigsmall_kernels as bk
from bigsmall_kernels import reference


def _clips(big: np.ndarray, small: np.ndarray) -> list[np.ndarray]:
    length = len(small) // 3 * 3
    return [
        np.moveaxis(big[:length:3], -1, 1).astype(np.float32),
        np.moveaxis(small[:length], -1, 1).astype(np.float32),
    ]


def released_inputs(frames: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The authors' way (FACTS 3.2), cv2's area resize and float64 numpy, on the pixels and differences of "exact".

    Returns Big of all T frames and Small of the T - 1 differences, NHWC.
    """
    import cv2

    x = np.stack([cv2.resize(frame.astype(np.float64), (144, 144), interpolation=cv2.INTER_AREA) for frame in frames])
    big = x - np.mean(x)
    big = big / np.std(big)
    d = np.zeros((len(x) - 1, *x.shape[1:]), dtype=np.float32)
    for t in range(len(x) - 1):
        d[t] = (x[t + 1] - x[t]) / (x[t + 1] + x[t] + 1e-7)
    d = d / np.std(d)
    return big, np.stack([cv2.resize(frame, (9, 9), interpolation=cv2.INTER_AREA) for frame in d])


def opencv(frames: np.ndarray) -> list[np.ndarray]:
    """The same in float32 without the loop, Big standardised only where it is read."""
    import cv2

    x = np.stack([cv2.resize(frame.astype(np.float32), (144, 144), interpolation=cv2.INTER_AREA) for frame in frames])
    mean, deviation = cv2.meanStdDev(x.reshape(-1, 1))
    length = (len(x) - 1) // 3 * 3
    big = (x[:length:3] - np.float32(mean.item())) * np.float32(1 / deviation.item())
    d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + np.float32(1e-7))
    scale = np.float32(1 / cv2.meanStdDev(d.reshape(-1, 1))[1].item())
    small = np.stack([cv2.resize(frame, (9, 9), interpolation=cv2.INTER_AREA) for frame in d]) * scale
    return [np.moveaxis(big, -1, 1), np.moveaxis(small[:length], -1, 1)]


def _exact(frames: torch.Tensor) -> list[torch.Tensor]:
    boxes = torch.tensor([0.0, 0, 480, 480], dtype=torch.float64).expand(len(frames), 4)
    x = reference.resize_area(frames, boxes, 144)
    d = (x[1:] - x[:-1]) / (x[1:] + x[:-1] + 1e-7)
    length = len(d) // 3 * 3
    small = d.reshape(len(d), 3, 9, 16, 9, 16).mean((3, 5)) / d.std(correction=0)
    return [((x - x.mean()) / x.std(correction=0))[:length:3], small[:length]]


@pytest.mark.parametrize("clips", [1, 8, 60], ids=SIZES)
def test_bigsmall_inputs(paired: Any, clips: int, threads: int, quick: bool) -> None:
    frames = torch.randint(1, 256, (3 * clips + 1, 480, 480, 3), dtype=torch.uint8)
    array = frames.numpy()

    def plain() -> Any:
        with bk.use_backend("reference"):
            return bk.bigsmall_inputs(frames)

    numpy_ways: list[tuple[str, peers.Call | str]] = [
        ("numpy as released", lambda: _clips(*released_inputs(array))),
        ("OpenCV and numpy float32", lambda: opencv(array)),
    ]
    try:
        import cv2
    except ImportError:
        numpy_ways = [(name, peers.MISSING) for name, _ in numpy_ways]
    else:
        cv2.setNumThreads(threads)
    expected = _exact(frames)
    paired(
        "bigsmall_inputs",
        lambda: bk.bigsmall_inputs(frames),
        [*numpy_ways, ("eager reference", plain if clips < 60 else peers.TAKES_LONG)],
        expected,
        nbytes=frames.nbytes + 4 * sum(y.numel() for y in expected),  # read once, written once
        reading=frames.view(-1).view(torch.int64).sum,
        frames=len(frames),
        bars={"numpy as released": 10},
    )
