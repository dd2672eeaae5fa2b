"""The released pipeline (FACTS 3, 6 and 8) as its users run it, in memory: numpy, OpenCV's area resize, eager PyTorch.

Kinder to it than the original: clips are not written to disk and read again, and frames are not concatenated one by one
onto a growing array (FACTS 8).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import eager
import numpy as np
import safetensors.torch
import torch
from bench_bigsmall_inputs import released_inputs
from scipy import signal
from stopwatch import Stopwatch
from torch import Tensor

from bigsmall import models

N_SEGMENT, CLIPS = 3, 8  # frames a clip, clips a batch: larger ones are slower on a CPU
PULSE_BAND = (0.75, 2.5)  # Hz
Box = tuple[int, int, int, int]


def network(weights: Path) -> eager.BigSmall:
    """The plain network; its tensors stand in the order of the authors' files, under other names."""
    model, given = eager.BigSmall().eval(), safetensors.torch.load_file(weights)
    order = models.build("bigsmall").state_dict()
    model.load_state_dict({name: given[theirs] for name, theirs in zip(model.state_dict(), order, strict=True)})
    return model


def decode(path: Path) -> list[np.ndarray]:
    """All frames at once, (H, W, 3) uint8 RGB."""
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        return [picture.to_ndarray(format="rgb24") for picture in container.decode(video=0)]


@torch.inference_mode()
def measure(path: Path, box: Box, model: eager.BigSmall, fps: float, watch: Stopwatch) -> tuple[list[Tensor], float]:
    """The network's outputs for every frame, and the heart rate in bpm, of a fixed box (x, y, w, h) of a video."""
    x, y, w, h = box
    with watch("decode"):
        frames = [rgb[y : y + h, x : x + w] for rgb in decode(path)]
    with watch("inputs"):
        big, small = released_inputs(frames)
    with watch("network"):
        clips = len(small) // N_SEGMENT
        # a clip holds all its Big frames, of which the network reads the first
        chunks = [array[: clips * N_SEGMENT].reshape(clips, N_SEGMENT, *array.shape[1:]) for array in (big, small)]
        outputs = []
        for start in range(0, clips, CLIPS):
            batch = [torch.from_numpy(np.moveaxis(chunk[start : start + CLIPS], -1, 2)).float() for chunk in chunks]
            outputs.append(model(batch[0][:, 0], batch[1].flatten(0, 1)))
        au, pulse, respiration = (torch.cat(parts) for parts in zip(*outputs, strict=True))
    with watch("signals"):
        wave = detrend(np.cumsum(pulse.double().numpy().ravel()))
        rate = _rate(wave, fps)
    return [au, pulse, respiration], rate


def detrend(wave: np.ndarray, smoothness: float = 100) -> np.ndarray:
    """Tarvainen's, by the inverse of the whole matrix."""
    n = len(wave)
    second = np.diff(np.eye(n), 2, axis=0)
    return np.asarray(wave - np.linalg.inv(np.eye(n) + smoothness**2 * second.T @ second) @ wave)


def _rate(wave: np.ndarray, fps: float) -> float:
    b, a = signal.butter(1, [2 * edge / fps for edge in PULSE_BAND], "bandpass")
    filtered: Any = signal.filtfilt(b, a, wave)
    nfft = 1 << (len(filtered) - 1).bit_length()
    frequencies, power = signal.periodogram(filtered, fps, nfft=nfft, detrend=False)
    inside = (frequencies >= PULSE_BAND[0]) & (frequencies <= PULSE_BAND[1])
    return 60 * float(frequencies[inside][np.argmax(power[inside])])
