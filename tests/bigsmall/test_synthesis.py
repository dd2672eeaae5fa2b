"""The face-video simulator: what is in the picture is what the truth says."""

import csv
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest

from bigsmall.face import FaceDetector
from bigsmall.signals import rates, unsupervised
from bigsmall.synthesis import (
    AUS,
    NEGATIVES,
    Simulation,
    compressed,
    in_parallel,
    negatives,
    people,
    synthesize,
    synthesize_many,
)
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


@pytest.mark.parametrize("extra", ["gestures", "talking", "flicker", "screen", "exposure", "jitter"])
def test_to_ask_for_one_thing_changes_no_other(extra: str) -> None:
    plain, more = (synthesize(seed=3, seconds=20.0, **options) for options in ({}, {extra: 0.3}))
    assert plain.box == more.box
    np.testing.assert_array_equal(plain._look.roughness, more._look.roughness)
    if extra != "jitter":
        np.testing.assert_array_equal(plain.truth.bvp, more.truth.bvp)
        np.testing.assert_array_equal(plain._pulls[:13], more._pulls[:13])


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


def test_breaths_and_beats_are_not_all_alike() -> None:
    calm, lively = (synthesize(seconds=120, seed=4, variability=v).truth for v in (0.01, 0.06))
    depths = []
    for truth in (calm, lively):
        assert (np.diff(truth.respiration) > 0).mean() < 0.48  # breathing out, and resting, takes longer
        full = [i for i in range(15, 3585) if truth.respiration[i] == truth.respiration[i - 15 : i + 16].max()]
        assert 25 < len(full) < 35
        depths.append(np.std(truth.respiration[full]))
    assert depths[1] > 3 * depths[0]
    beats = lively.heart_rate - np.convolve(lively.heart_rate, np.ones(151) / 151, "same")
    assert np.std(beats[200:-200]) > 1  # per minute, within five seconds
    shapes = [synthesize(heart_rate=60, variability=0.0, seconds=1, seed=s).truth.bvp for s in range(4)]
    spectra = [np.abs(np.fft.rfft(beat))[1:5] for beat in shapes]
    assert np.std([spectrum[1] / spectrum[0] for spectrum in spectra]) > 0.01  # each person's pulse has its own shape


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


def test_the_shine_stays_with_the_light_when_the_head_turns() -> None:
    def looks(yaw: float, shine: float) -> np.ndarray:
        simulation = synthesize(seed=0, heart_rate=None, size=(160, 160), seconds=1.0, **STILL)
        simulation._look = replace(simulation._look, shine=shine)
        simulation._pose[4] = yaw
        x, y, w, h = (round(n) for n in simulation.box)
        return next(iter(simulation))[y : y + h, x : x + w].astype(float).sum(axis=2)

    straight, turned = looks(0.0, 0.0), looks(0.3, 0.0)
    shine, shine_turned = ((looks(yaw, 0.2) - matt).sum(axis=0) for yaw, matt in ((0.0, straight), (0.3, turned)))
    columns = np.arange(len(shine))
    assert abs(np.average(columns, weights=shine_turned) - np.average(columns, weights=shine)) < 2
    h, w = straight.shape
    part = slice(h // 2, h * 2 // 3), slice(w // 3, w * 2 // 3)  # the nose is nearest, and goes furthest
    fits = [np.abs(np.roll(straight, k, axis=1) - turned)[part].mean() for k in range(12)]
    assert np.argmin(fits) >= 4


def test_gestures_and_speech_move_the_head_and_the_mouth() -> None:
    still = synthesize(seed=2, seconds=60, motion=0.0)
    lively = synthesize(seed=2, seconds=60, motion=0.0, gestures=30.0)
    speaking = synthesize(seed=2, seconds=60, motion=0.0, talking=0.5)
    assert np.abs(still._pose[[0, 2, 3, 4]]).max() == 0
    assert np.degrees(np.abs(lively._pose[4]).max()) > 5
    assert np.degrees(np.abs(lively._pose).max()) < 60
    assert 0.35 < (speaking._pulls[13] > 0).mean() < 0.65
    assert still._pulls[13].max() == 0


def test_who_is_away_is_not_in_the_picture() -> None:
    simulation = synthesize(seed=4, away=(1.0, 2.0), seconds=3.0, size=(128, 128), **(STILL | {"motion": 1.0}))
    video = np.stack(list(simulation))
    np.testing.assert_array_equal(video[30:60], np.broadcast_to(video[30], (30, 128, 128, 3)))
    found = [len(FaceDetector().detect(video[i])) for i in (0, 45, 89)]
    assert found == [1, 0, 1]


# --- light and camera -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [24.0, 30.0])
def test_flicker_beats_with_the_frame_rate_in_bands(fps: float) -> None:
    simulation = synthesize(seed=1, fps=fps, flicker=0.1, heart_rate=None, size=(96, 96), seconds=4.0, **STILL)
    rows = np.stack(list(simulation))[:, :, :4].mean(axis=(2, 3))
    rows = rows / rows.mean(axis=0) - 1
    assert rows[:, 48].std() == pytest.approx(0.1 / np.sqrt(2), rel=0.2)
    strongest = np.argmax(np.abs(np.fft.rfft(rows[:, 48]))[1:]) / 4 + 0.25
    aliases = [abs(lamp - fps * round(lamp / fps)) for lamp in (100, 120)]
    assert min(abs(strongest - alias) for alias in aliases) <= 0.3
    assert np.corrcoef(rows[:, 0], rows[:, 95])[0, 1] < 0.95  # read at another time


def test_exposure_steps_change_everything_at_once_and_stay() -> None:
    simulation = synthesize(seed=6, exposure=20.0, heart_rate=None, size=(64, 64), seconds=30.0, **STILL)
    video = np.stack(list(simulation))
    levels = video[:, :8].mean(axis=(1, 2, 3)), video[:, 40:].mean(axis=(1, 2, 3))
    level = levels[0] / levels[0].mean()
    assert np.corrcoef(*levels)[0, 1] > 0.99
    assert np.ptp(level) > 0.05
    assert (np.abs(np.diff(level)) < 1e-3).mean() > 0.6


def test_a_screen_lights_the_person_and_not_the_room() -> None:
    video = frames(seed=1, screen=0.2, heart_rate=None, size=(128, 128), seconds=10.0, **STILL).astype(float)
    assert np.ptp(video[:, :30, :12], axis=0).max() == 0
    face = video[:, 50:60, 60:68].mean(axis=(1, 2))
    assert (np.ptp(face, axis=0) / face.mean(axis=0) > 0.05).all()
    assert np.std(face[:, 0] / face[:, 2]) > 0.005  # its colour changes


# --- frames and times -------------------------------------------------------------------------------------------------


def test_material_of_another_rate_repeats_pictures_and_their_truth() -> None:
    simulation = synthesize(seed=1, shot_fps=25.0, fps=60.0, **SMALL)
    video = np.stack(list(simulation))
    same = np.array([(a == b).all() for a, b in pairwise(video)])
    assert len(video) == 120
    assert same.mean() == pytest.approx(1 - 25 / 60, abs=0.02)
    np.testing.assert_array_equal(same, np.diff(simulation.truth.bvp) == 0)
    np.testing.assert_allclose(np.diff(simulation.timestamps), 1 / 60)
    np.testing.assert_array_equal(video[37:41], np.stack(list(simulation.frames(37, 41))))


def test_uneven_missing_and_repeated_frames_keep_their_true_times(tmp_path) -> None:
    path = tmp_path / "face.mkv"
    options = {"jitter": 0.6, "dropped": 0.2, "repeated": 0.2, "fps": 29.97, "seconds": 6.0, "size": (64, 64)}
    simulation = synthesize(path, seed=2, heart_rate=60.0, variability=0.0, **options)
    times = simulation.timestamps
    assert len(simulation) == len(times) == len(simulation.truth.bvp) == pytest.approx(0.8 * 6 * 29.97, rel=0.1)
    steps = np.diff(times) * 29.97
    assert (steps > 0).all()
    assert (np.abs(steps - 1) > 0.1).mean() > 0.5
    assert steps.max() > 1.5
    read = list(open_video(path))
    np.testing.assert_allclose([frame.timestamp for frame in read], times, atol=6e-4)
    np.testing.assert_array_equal(np.stack([frame.rgb for frame in read]), np.stack(list(simulation)))
    repeats = np.diff(simulation._taken) == 0
    assert 0.1 < repeats.mean() < 0.3
    assert ([frame.repeated for frame in read][1:] == repeats).all()
    # The pulse of 60 a minute is one a second on these times, wherever its frames are.
    fresh = np.flatnonzero(np.diff(simulation._taken, prepend=-1) > 0)
    phase = np.exp(-2j * np.pi * simulation._taken[fresh])
    assert np.abs((simulation.truth.bvp[fresh] * phase).mean()) > 0.15


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


def test_mp4_is_lossy_and_the_same_every_time(tmp_path) -> None:
    files = {}
    for name, crf in (("a", None), ("b", None), ("c", 40)):
        synthesize(tmp_path / f"{name}.mp4", seed=7, crf=crf, **SMALL)
        files[name] = (tmp_path / f"{name}.mp4").read_bytes()
    assert files["a"] == files["b"]
    assert len(files["c"]) < 0.5 * len(files["a"])
    read = np.stack([frame.rgb for frame in open_video(tmp_path / "a.mp4")]).astype(int)
    assert 0 < np.abs(read - frames(seed=7, **SMALL)).mean() < 4
    with pytest.raises(ValueError, match="crf"):
        synthesize(tmp_path / "face.mkv", crf=20, **SMALL)
    with pytest.raises(ValueError, match=r"\.mkv or \.mp4, got 'face\.avi'"):
        synthesize(tmp_path / "face.avi", **SMALL)


@pytest.mark.parametrize("size", [(96, 96), (97, 65)])
def test_compressed_is_what_x264_leaves_of_frames(size: tuple[int, int]) -> None:
    video = frames(seed=7, size=size, seconds=1.0)
    good, bad = (compressed(video, 30.0, crf) for crf in (12, 40))
    assert good.shape == bad.shape == video.shape
    np.testing.assert_array_equal(good, compressed(iter(video), 30.0, 12))
    errors = [np.abs(some.astype(int) - video).mean() for some in (good, bad)]
    assert 0 < errors[0] < 3 < 10 * errors[0]
    assert errors[1] > 1.3 * errors[0]
    with pytest.raises(ValueError, match="frames"):
        compressed([], 30.0, 20)


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
        ({"away": (2, 1)}, "away"),
        ({"shot_fps": 0}, "shot_fps"),
        ({"dropped": 1.0}, "dropped"),
        ({"talking": 2}, "talking"),
        ({"flicker": "much"}, "flicker"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], names: str) -> None:
    with pytest.raises((ValueError, TypeError), match=names):
        synthesize(**options)


# --- negative controls ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", NEGATIVES)
def test_a_negative_control_has_no_pulse(kind: str) -> None:
    simulation = negatives(kind, seed=3, heart_rate=80.0, size=(128, 128), seconds=2.0)
    assert np.isnan(simulation.truth.heart_rate).all()
    assert (simulation.truth.bvp == 0).all()
    video = np.stack(list(simulation))
    assert video.shape == (60, 128, 128, 3)
    np.testing.assert_array_equal(video[20:23], np.stack(list(simulation.frames(20, 23))))
    assert (video != np.stack(list(negatives(kind, seed=4, size=(128, 128), seconds=2.0)))).mean() > 0.5
    found = FaceDetector().detect(video[30])
    assert len(found) == (kind not in ("wall", "noise"))
    if found:
        x, _, w, _ = simulation.box
        assert abs(found[0].x + found[0].w / 2 - x - w / 2) < 0.2 * w


@pytest.mark.parametrize("kind", ["photograph", "mannequin", "wall", "screen"])
def test_its_light_beats_without_changing_colour(kind: str) -> None:
    simulation = negatives(kind, seed=8, size=(96, 96), seconds=20.0, noise=0.0, drift=0.0)
    colour = np.stack([frame[20:70, 30:66].astype(float).mean(axis=(0, 1)) for frame in simulation])
    assert 45 <= rates.rate_fft(colour[:, 1] - colour[:, 1].mean(), 30, 0.7, 3.0) <= 170
    change = colour / colour.mean(axis=0) - 1
    assert np.ptp(change[:, 1]) > 1e-3
    assert (change - change.mean(axis=1, keepdims=True)).std() < 0.2 * change.std()


def test_a_waved_photograph_moves_with_the_beat() -> None:
    simulation = negatives("waved photograph", seed=5, size=(160, 160), seconds=10.0, noise=0.0, drift=0.0)
    edge = [frame[80].astype(float).sum(axis=-1) for frame in simulation]
    moved = np.abs(np.diff(np.stack(edge), axis=0)).mean(axis=1)
    assert (moved > 0.5).mean() > 0.8


def test_unknown_kinds_and_options_are_named() -> None:
    with pytest.raises(ValueError, match="kind"):
        negatives("ghost")
    with pytest.raises(TypeError, match="colour"):
        negatives("wall", colour=1)


# --- many -------------------------------------------------------------------------------------------------------------


def test_many_videos_are_those_of_their_seeds_and_made_once(tmp_path, capfd) -> None:
    specs = [*people(2, seed=5, size=(64, 64), seconds=1.0), {"negative": "wall", "size": (64, 64), "seconds": 0.5}]
    assert specs[0]["heart_rate"] != specs[1]["heart_rate"]
    paths = synthesize_many(tmp_path / "videos", specs, workers=2)
    assert "3/3" in capfd.readouterr().err
    assert [p.name for p in paths] == ["00000.mkv", "00001.mkv", "00002.mkv"]
    alone = tmp_path / "alone.mkv"
    synthesize(alone, **specs[1])
    assert paths[1].read_bytes() == alone.read_bytes()
    assert paths[1].with_suffix(".csv").read_bytes() == alone.with_suffix(".csv").read_bytes()

    paths[0].with_suffix(".csv").unlink()  # as if interrupted before the truth was written
    times = [p.stat().st_mtime_ns for p in paths]
    again = synthesize_many(tmp_path / "videos", [*specs, specs[2] | {"seed": 1}], workers=1)
    assert again[:3] == paths
    assert again[3].exists()
    assert [a == b.stat().st_mtime_ns for a, b in zip(times, paths, strict=True)] == [False, True, True]
    with pytest.raises(ValueError, match="other videos"):
        synthesize_many(tmp_path / "videos", people(2))
    assert not [p for p in (tmp_path / "videos").iterdir() if p.name.startswith(".")]


def test_an_error_in_a_process_comes_through(tmp_path) -> None:
    with pytest.raises(ValueError, match="size"):
        synthesize_many(tmp_path, [{"size": (1, 1)}], workers=1)
    assert [p.name for p in tmp_path.iterdir()] == ["specs.json"]
    with pytest.raises(ValueError, match="suffix"):
        synthesize_many(tmp_path, [], suffix=".avi")
    in_parallel(print, [], workers=1, label="nothing to do")
