"""Evaluation: what the network says of half a minute; and the rates, SNR and MACC of videos of a minute from that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import eager
import numpy as np
import pytest
import torch
from released import detrend
from safetensors import safe_open
from scipy import signal
from torch import Tensor

from bigsmall import models
from bigsmall.datasets import Clips, open_prepared
from bigsmall.evaluation import CONVENTIONS, Prediction, predict, score
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Saved predictions of three videos of a minute: the released way takes seconds for each."""
    folder, times = tmp_path_factory.mktemp("predictions"), np.arange(round(SECONDS * FPS)) / FPS
    bounds = np.array([0, len(times)])
    for i in range(3):
        label = np.sin(2 * np.pi * (0.9 + 0.4 * i) * times).astype(np.float32)
        noise = np.random.default_rng(i).normal(size=len(times))
        pulse = (np.gradient(label) + 0.1 * noise).astype(np.float32)
        made = Prediction(str(i), str(i), "made", FPS, "none", "", times, bounds, pulse=pulse, bvp_wave=label)
        made.save(folder / f"{i}.safetensors")
    return sorted(folder.iterdir())


@pytest.mark.parametrize("threads", [1], ids=["1thread"], indirect=True)
@pytest.mark.parametrize("videos", [3], ids=["3videos"])
def test_evaluation_of_a_dataset(paired: Any, videos: int, threads: int, saved: list[Path]) -> None:
    def ours() -> Tensor:
        errors = score(map(Prediction.load, saved), convention="toolbox").summary["heart_rate"]
        assert errors["n"] == videos
        return torch.tensor([errors[name].value for name in ("mae", "rmse", "mape", "pearson")], dtype=torch.float64)

    def plain() -> Tensor:
        held = [safe_open(path, framework="numpy") for path in saved]
        found = torch.stack([released(of.get_tensor("pulse"), of.get_tensor("bvp_wave")) for of in held])
        rate, true = found[:, 0], found[:, 1]
        off, pearson = rate - true, torch.corrcoef(torch.stack([rate, true]))[0, 1]
        return torch.stack([off.abs().mean(), off.square().mean().sqrt(), 100 * (off.abs() / true).mean(), pearson])

    paired("evaluation", ours, [("numpy as released", plain)], [plain()], frames=videos * round(SECONDS * FPS))


@pytest.mark.parametrize("threads", [2], ids=["2threads"], indirect=True)
@pytest.mark.parametrize("seconds", [30], ids=["30s"])
def test_prediction(paired: Any, seconds: int, threads: int, noise: Path) -> None:
    """Ours writes what it says onto the recording's clock; both read the file."""
    (recording,) = open_prepared(noise)
    network = models.build("bigsmall").eval().requires_grad_(False)
    clips = Clips([recording], network.n_segment, network.reads, network.tasks)

    def plain(module: eager.BigSmall, layout: torch.memory_format = torch.contiguous_format) -> Any:
        module = module.eval().requires_grad_(False).to(memory_format=layout)
        dtype = next(module.parameters()).dtype

        def call() -> list[Tensor]:
            found = []
            with torch.inference_mode():
                for part in np.split(np.arange(len(clips)), range(60, len(clips), 60)):
                    inputs, _ = clips.batch(part)
                    big = inputs["big"].to(dtype).contiguous(memory_format=layout)
                    au, *signals = module(big, inputs["small"].to(dtype))
                    found.append([au.sigmoid(), *(signal[:, 0] for signal in signals)])
            return [torch.cat(parts) for parts in zip(*found, strict=True)]

        return call

    def ours() -> list[Tensor]:
        found = predict(network, recording)
        return [torch.from_numpy(array) for array in (found.au, found.pulse, found.respiration) if array is not None]

    def copy() -> eager.BigSmall:
        module = eager.BigSmall()
        module.load_state_dict(dict(zip(module.state_dict(), network.state_dict().values(), strict=True)))
        return module

    paired(
        "prediction",
        ours,
        [("eager NCHW", plain(copy())), ("eager channels_last", plain(copy(), torch.channels_last))],
        plain(copy().double())(),
        frames=len(recording.timestamps),
    )
