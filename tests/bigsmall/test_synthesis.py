"""The face-video simulator: what is in the picture is what the truth says."""

import csv
from itertools import islice

import numpy as np
import pytest

from bigsmall.face import FaceDetector
from bigsmall.signals import rates, unsupervised
from bigsmall.synthesis import AUS, Simulation, synthesize
from bigsmall.synthesis.muscles import BRUSHES, FOLDS
from bigsmall.synthesis.simulator import PULSE_RGB
from bigsmall.video import open_video

STILL = {"motion": 0.0, "breathing": 0.0, "drift": 0.0, "noise": 0.0, "expressions": 0.0}
SMALL = {"size": (128, 128), "seconds": 2.0}


def frames(**options: object) -> np.ndarray:
    return np.stack(list(synthesize(**options)))


def on_the_face(video: np.ndarray, simulation: Simulation) -> np.ndarray:
    """(T, 3) mean colour of the middle of the face's box."""
    x, y, w, h = simulation.box
    part = video[:, round(y + 0.1 * h) : round(y + 0.9 * h), round(x + 0.2 * w) : round(x + 0.8 * w)]
    return part.mean(axis=(1, 2))


# --- the same seed, the same bits -------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_bits_and_another_seed_others() -> None:
    first = synthesize(seed=3, **SMALL)
    once, again, anew = (np.stack(list(s)) for s in (first, first, synthesize(seed=3, **SMALL)))
    assert once.dtype == np.uint8
    assert once.shape == (60, 128, 128, 3)
    np.testing.assert_array_equal(once, again)
    np.testing.assert_array_equal(once, anew)
    np.testing.assert_array_equal(once[20:25], np.stack(list(first.frames(20, 25))))
    assert (once != frames(seed=4, **SMALL)).mean() > 0.5


# --- the truth --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [45.0, 150.0])
def test_rates_vary_about_the_ones_asked_for(rate: float) -> None:
    truth = synthesize(heart_rate=rate, respiration_rate=rate / 5, seconds=60, seed=1).truth
    for found, asked in ((truth.heart_rate, rate), (truth.respiration_rate, rate / 5)):
        assert found.mean() == pytest.approx(asked, rel=1e-6)
        assert 0 < found.std() < 0.1 * asked
    assert rates.rate_fft(truth.bvp, 30, 0.6, 3.3) == pytest.approx(rate, rel=0.04)
    assert rates.rate_fft(truth.respiration, 30, 0.1, 0.6) == pytest.approx(rate / 5, rel=0.06)
    np.testing.assert_allclose(np.diff(truth.timestamp), 1 / 30)


def test_the_heart_speeds_up_with_inhalation() -> None:
    truth = synthesize(heart_rate=70, seconds=60, seed=5).truth
    assert np.corrcoef(truth.heart_rate, truth.respiration)[0, 1] > 0.5


def test_a_beat_has_a_systolic_peak_then_a_dicrotic_wave() -> None:
    truth = synthesize(heart_rate=60, variability=0.0, respiration_rate=None, seconds=4, fps=200).truth
    beat = truth.bvp[np.argmin(truth.bvp[:200]) :][:200]
    peaks = [i for i in range(1, 199) if beat[i - 1] < beat[i] >= beat[i + 1]]
    assert len(peaks) == 2
    assert peaks[0] == np.argmax(beat)
    assert peaks[0] < 100  # the upstroke is steeper than the fall
    assert np.ptp(beat) == pytest.approx(1, abs=0.2)


def test_expressions_come_and_go_and_are_labelled_while_they_are_seen() -> None:
    truth = synthesize(expressions=60.0, seconds=200, seed=2).truth
    assert truth.activation.shape == (6000, 12)
    assert set(np.unique(truth.aus)) == {0, 1}
    assert (truth.aus.any(axis=0)).all()  # each of the 12 occurs
    assert np.abs(np.diff(truth.activation, axis=0)).max() < 0.3  # with onset and offset
    np.testing.assert_array_equal(truth.aus, truth.activation >= 0.25)
    assert not synthesize(expressions=0.0, seconds=60).truth.aus.any()


# --- the skin-reflection model ----------------------------------------------------------------------------------------


def test_blood_darkens_the_skin_in_the_proportions_of_the_model() -> None:
    simulation = synthesize(seed=1, pulse=0.1, seconds=3.0, size=(160, 160), **STILL)
    colour = on_the_face(np.stack(list(simulation)), simulation)
    bvp = simulation.truth.bvp
    slopes = np.array([np.polyfit(bvp, c / c.mean(), 1)[0] for c in colour.T])
    assert (slopes < 0).all()
    np.testing.assert_allclose(slopes / slopes[1], np.array(PULSE_RGB) / PULSE_RGB[1], atol=0.08)
    assert -0.1 * PULSE_RGB[1] < slopes[1] < -0.03 * PULSE_RGB[1]  # shine, eyes, brows and lips dilute it
    assert all(np.corrcoef(bvp, c)[0, 1] < -0.98 for c in colour.T)


@pytest.mark.parametrize("options", [{"heart_rate": None}, {"pulse": 0.0}])
def test_without_a_pulse_nothing_changes_in_a_still_face(options: dict[str, object]) -> None:
    video = frames(seed=1, **SMALL, **STILL, **options)
    np.testing.assert_array_equal(video, np.broadcast_to(video[0], video.shape))


def test_the_room_has_no_pulse() -> None:
    video = frames(seed=1, pulse=0.1, **SMALL, **STILL)
    assert (np.ptp(video[:, :8], axis=0) == 0).all()
    assert (np.ptp(video[:, 60:64, 60:68], axis=0) > 0).any()


@pytest.mark.parametrize("rate", [50.0, 95.0, 140.0])
def test_pos_finds_the_rate(rate: float) -> None:
    simulation = synthesize(seed=int(rate), heart_rate=rate, seconds=15, size=(128, 128))
    pulse = unsupervised.pos(on_the_face(np.stack(list(simulation)), simulation), simulation.fps)
    assert rates.rate_fft(pulse, simulation.fps, 0.7, 3.0) == pytest.approx(rate, abs=3)


def test_photon_noise_grows_with_the_light() -> None:
    spread = []
    for light in (0.2, 0.8):
        video = frames(seed=1, heart_rate=None, light=light, **(SMALL | STILL | {"noise": 2.0})).astype(float)
        spread.append(np.median(video.std(axis=0)))
    assert 1.3 < spread[1] / spread[0] < 2  # as the root of the light


def test_breathing_lifts_shoulders_and_head() -> None:
    options = SMALL | STILL | {"breathing": 2.0, "heart_rate": None, "respiration_rate": 30.0, "seconds": 4.0}
    simulation = synthesize(seed=1, **options)
    video = np.stack(list(simulation)).astype(float)
    steepness = np.gradient(video.mean(axis=0), axis=0)
    for part in (slice(30, 80), slice(100, 128)):  # head, shoulders: least-squares shift of every frame, downwards
        change = video[:, part] - video[:, part].mean(axis=0)
        shift = -(change * steepness[part]).sum(axis=(1, 2, 3)) / (steepness[part] ** 2).sum()
        assert np.corrcoef(shift, simulation.truth.respiration)[0, 1] < -0.9


# --- the face ---------------------------------------------------------------------------------------------------------


def test_every_action_unit_changes_the_face_where_its_muscles_are() -> None:
    assert tuple(BRUSHES) == tuple(FOLDS) == AUS
    simulation = synthesize(seed=5, seconds=13 / 30, size=(160, 160), heart_rate=None, **STILL)
    simulation._pulls[:] = np.eye(14, 13, k=1)  # frame 0 is neutral, frame k + 1 shows AUS[k]
    neutral, *shown = np.stack(list(simulation)).astype(int)
    x, y, w, h = (round(n) for n in simulation.box)
    changes = []
    for name, face in zip(AUS, shown, strict=False):
        change = np.abs(face - neutral).sum(axis=2)
        assert (change > 20).sum() > 30, name
        assert change[:, : x // 2].sum() == change[:, (x + w + 160) // 2 :].sum() == 0, name
        height = (np.average(np.arange(160), weights=change.sum(axis=1)) - y) / h
        assert (height < 0.55) == (name in ("AU01", "AU02", "AU04", "AU06", "AU07")), name  # above the nose, or below
        changes.append((face - neutral).ravel())
    alike = np.corrcoef(changes) - np.eye(12)
    assert alike.max() < 0.75  # and no two in the same way


def test_the_detector_finds_the_face_where_the_simulation_says() -> None:
    detector = FaceDetector()
    for seed in range(12):
        size = (160, 240, 320)[seed % 3]
        simulation = synthesize(seed=seed, size=(size, size), light=0.3 + 0.07 * seed, expressions=60.0, seconds=2)
        found = detector.detect(next(islice(simulation, 30, None)))
        assert len(found) == 1, f"seed {seed}"
        x, y, w, h = simulation.box
        face = found[0]
        overlap = max(0, min(x + w, face.x + face.w) - max(x, face.x)) * max(
            0, min(y + h, face.y + face.h) - max(y, face.y)
        )
        assert overlap / (w * h + face.w * face.h - overlap) > 0.7, f"seed {seed}"


# --- files ------------------------------------------------------------------------------------------------------------


def test_the_file_is_lossless_and_its_truth_lies_beside_it(tmp_path) -> None:
    path = tmp_path / "face.mkv"
    simulation = synthesize(path, seed=7, respiration_rate=None, **SMALL)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["face.csv", "face.mkv"]
    read = list(open_video(path))
    np.testing.assert_array_equal(np.stack([frame.rgb for frame in read]), np.stack(list(simulation)))
    with open(tmp_path / "face.csv", encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["frame", "timestamp", "bvp", "respiration", "heart_rate", "respiration_rate", *AUS]
    truth = simulation.truth
    np.testing.assert_allclose([float(row["bvp"]) for row in rows], truth.bvp, atol=1e-6)
    np.testing.assert_allclose(
        [float(row["timestamp"]) for row in rows], [frame.timestamp for frame in read], atol=6e-4
    )
    np.testing.assert_array_equal([[int(row[au]) for au in AUS] for row in rows], truth.aus)
    assert {row["respiration_rate"] for row in rows} == {""}  # there is none


def test_a_video_that_cannot_be_written_leaves_nothing(tmp_path) -> None:
    with pytest.raises((ValueError, OSError)):
        synthesize(tmp_path / "face.unknown", **SMALL)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"heart_rate": 0}, "heart_rate"),
        ({"heart_rate": float("nan")}, "heart_rate"),
        ({"heart_rate": "72"}, "heart_rate"),
        ({"respiration_rate": 200}, "respiration_rate"),
        ({"seconds": 0}, "seconds"),
        ({"seconds": 0.01}, "seconds"),
        ({"fps": -30}, "fps"),
        ({"size": (320,)}, "size"),
        ({"size": (320, 8)}, "size"),
        ({"seed": -1}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"skin_tone": 2}, "skin_tone"),
        ({"pulse": -0.1}, "pulse"),
        ({"light": 0}, "light"),
        ({"noise": -1}, "noise"),
        ({"colour": 1}, "colour"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], names: str) -> None:
    with pytest.raises((ValueError, TypeError), match=names):
        synthesize(**options)
