"""Videos without a pulse, from end to end: none gives a heart rate. (`bench/trust.py` shows 200 of them.)"""

import numpy as np
import pytest

import bigsmall
from bigsmall import weights
from bigsmall.synthesis import NEGATIVES, compressed, negatives, synthesize

OPTIONS = {"seconds": 10, "fps": 12, "size": (160, 160), "face": 0.55}


@pytest.fixture(scope="module")
def predictor():
    return weights.load("default")


@pytest.mark.parametrize("kind", NEGATIVES)
def test_without_a_pulse_there_is_no_heart_rate(kind, predictor):
    video = negatives(kind, seed=len(kind), **OPTIONS)
    frames = compressed(video, 12, 24) if kind == "no pulse" else np.stack(list(video))
    crop = "frame" if kind in ("wall", "noise") else None  # made to look, where it would find no face
    found = bigsmall.measure(frames, fps=12, weights=predictor, crop=crop)
    assert found.heart_rate.value is None
    assert "heart rate" in found.heart_rate.note
    assert all(reading.value is None for reading in found.unsupervised.values())


def test_a_picture_shown_for_ten_seconds_has_no_heart_rate(predictor):
    frames = np.repeat(next(iter(synthesize(**OPTIONS)))[None], 120, axis=0)
    assert bigsmall.measure(frames, fps=12, weights=predictor).heart_rate.value is None


def test_the_same_face_with_a_pulse_has_one(predictor):
    video = synthesize(heart_rate=80, pulse=0.02, **OPTIONS)
    found = bigsmall.measure(np.stack(list(video)), fps=12, weights=predictor).heart_rate
    assert found.value == pytest.approx(80, abs=3)
    assert found.interval[0] <= np.nanmean(video.truth.heart_rate) <= found.interval[1]
