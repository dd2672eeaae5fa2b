"""The evaluation of one video of a minute: both heart rates, SNR and MACC, from what the network gave and the label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from released import detrend
from scipy import signal
from torch import Tensor

from bigsmall.evaluation import CONVENTIONS
from bigsmall.evaluation.postprocess import compare

FPS, SECONDS = 30.0, 60
TOOLBOX = CONVENTIONS["toolbox"]


def released(changes: np.ndarray, label: np.ndarray) -> Tensor:
    """As the toolbox computes them (FACTS 6 and 8): a dense inverse for each trend, one correlation for each lag."""
    low, high = TOOLBOX.heart_rate
    b, a = signal.butter(1, [2 * low / FPS, 2 * high / FPS], "bandpass")
    wave, true = (signal.filtfilt(b, a, detrend(x)) for x in (np.cumsum(changes), label))
    spectra = []
    for x in (wave, true):
        nfft = 1 << (len(x) - 1).bit_length()
        frequencies, power = signal.periodogram(x, FPS, nfft=nfft, detrend=False)
        spectra.append(power)
    inside = (frequencies >= low) & (frequencies <= high)
    rates = [float(frequencies[inside][np.argmax(power[inside])]) for power in spectra]
    near = (np.abs(frequencies - rates[1]) <= 0.1) | (np.abs(frequencies - 2 * rates[1]) <= 0.1)
    ratio = 10 * np.log10(spectra[0][near].sum() / spectra[0][inside & ~near].sum())
    lags = [abs(np.corrcoef(wave, np.roll(true, lag))[0, 1]) for lag in range(len(true))]
    return torch.tensor([60 * rates[0], 60 * rates[1], ratio, max(lags)], dtype=torch.float64)


@pytest.mark.parametrize("threads", [1], ids=["1thread"], indirect=True)
@pytest.mark.parametrize("videos", [1], ids=["1video"])
def test_evaluation(paired: Any, videos: int, threads: int) -> None:
    times = np.arange(round(SECONDS * FPS)) / FPS
    label = np.sin(2 * np.pi * 1.2 * times)
    changes = np.gradient(label) + 0.1 * np.random.default_rng(0).normal(size=len(times))

    def ours() -> Tensor:
        found = compare(changes, label, times, "heart_rate", TOOLBOX, derivative=True)
        assert not isinstance(found, str)
        return torch.tensor([found.rate, found.true, found.snr, found.macc], dtype=torch.float64)

    paired(
        "evaluation",
        ours,
        [("numpy as released", lambda: released(changes, label))],
        [released(changes, label)],
        frames=videos * len(times),
    )
