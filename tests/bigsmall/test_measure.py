"""bigsmall.measure: the right rates where there are some, a reason where there are none, and never a made-up number."""

import numpy as np
import pytest
import torch

import bigsmall
from bigsmall import inputs, pipeline
from bigsmall.face import Face, Track
from bigsmall.signals import RESPIRATION_RATE
from bigsmall.video import VideoError
from bigsmall.weights import Card, Predictor, load

SIDE = 16


class Colours(Predictor):
    """A network that can be followed by hand: the change of green is the pulse, the change of blue the breathing."""

    def __init__(self, tasks=("au", "pulse", "respiration"), convention="exact") -> None:
        self.cards = (Card("colours", "bigsmall", tasks, convention, "face"),)
        self.tasks, self.convention, self.crop = tasks, convention, "face"
        self.n_segment, self.all_big, self.big_size, self.small_size = 3, False, SIDE, 1
        self.action_units = ("AU06", "AU12") if "au" in tasks else ()

    def __call__(self, big, small):
        level = big.mean((1, 2, 3)).repeat_interleave(3)
        au = torch.stack([level, -level], 1) if "au" in self.tasks else None
        pulse, breath = (
            small[:, channel].mean((1, 2))[:, None] if task in self.tasks else None
            for channel, task in ((1, "pulse"), (2, "respiration"))
        )
        return au, pulse, breath


def skin(seconds=30.0, heart=72.0, breath=15.0, fps=25.0, times=None, noise=1.0, seed=0):
    """Flat skin whose colour follows a pulse and a breath; (T, 24, 24, 3) uint8 and the timestamps."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * fps)) / fps if times is None else times
    pulse = np.sin(2 * np.pi * heart / 60 * t)[:, None] * (0.004, 0.010, 0.006)
    breathing = np.sin(2 * np.pi * breath / 60 * t)[:, None] * (0, 0, 0.02)
    colour = np.array([150.0, 110.0, 90.0]) * (1 + pulse + breathing)
    frames = colour[:, None, None] + noise * rng.standard_normal((len(t), 24, 24, 3))
    return np.clip(np.rint(frames), 0, 255).astype(np.uint8), t


def measure(frames, t, **options):
    options = {"weights": Colours(), "crop": "frame", **options}
    return bigsmall.measure(frames, timestamps=t, **options)


@pytest.mark.parametrize("convention", ["exact", "bigsmall", "toolbox", "toolbox-pre225"])
def test_both_rates_in_every_convention(convention):
    r = measure(*skin(), weights=Colours(convention=convention))
    assert r.heart_rate.value == pytest.approx(72, abs=0.5)
    assert r.heart_rate.confidence > 0.9
    low, high = r.heart_rate.interval
    assert low < 72 < high
    assert high - low < 6
    assert r.heart_rate.band == (40, 180)
    assert r.unsupervised["pos"].value == pytest.approx(72, abs=0.5)
    assert r.respiration_rate.value == pytest.approx(15, abs=0.5)
    assert r.measured


@pytest.mark.parametrize("heart", [45, 58.3, 101.7, 150])
def test_the_rate_is_finer_than_a_bin_of_the_spectrum(heart):
    r = measure(*skin(20, heart=heart))
    assert r.heart_rate.value == pytest.approx(heart, abs=0.4)


def test_uneven_timestamps_are_taken_at_their_word():
    rng = np.random.default_rng(1)
    times = np.sort(rng.choice(np.arange(30 * 60), 30 * 24, replace=False)) / 60  # 60 Hz, most frames dropped at random
    frames, t = skin(times=times)
    assert measure(frames, t).heart_rate.value == pytest.approx(72, abs=0.7)
    # the same frames, shown slower, are a slower pulse
    assert measure(frames, 1.25 * t).heart_rate.value == pytest.approx(72 / 1.25, abs=0.7)


def test_a_film_shown_at_a_faster_rate_says_no_more_than_before():
    """25 frames a second re-encoded at 60: more than half repeat the one before, and their differences are nothing."""
    frames, t = skin(20)
    shown = np.arange(20 * 60) / 60
    fast = frames[np.searchsorted(t, shown + 1e-6) - 1]
    r = measure(fast, shown)
    assert r.source["repeated"] == 700
    assert r.heart_rate.value == pytest.approx(72, abs=0.5)
    assert r.respiration_rate.value == pytest.approx(15, abs=0.5)
    assert r.traces["pulse"].fs == pytest.approx(25, abs=0.1)
    assert len(r.frames) == 1200
    assert r.frames["bvp"].notna().all()
    slow = measure(frames, t).frames
    fast_table = r.frames.iloc[np.searchsorted(shown, slow["timestamp"] - 1e-6)]  # where each was first shown
    np.testing.assert_allclose(fast_table["AU12"], slow["AU12"], atol=1e-4)  # a repeated picture has its AUs


def test_of_a_fast_camera_no_more_frames_are_used_than_the_weights_know():
    r = measure(*skin(12, fps=120.0))
    assert r.traces["pulse"].fs == pytest.approx(40, abs=0.1)
    assert r.heart_rate.value == pytest.approx(72, abs=0.5)
    assert len(r.frames) == 12 * 120
    assert r.frames[["bvp", "AU06"]].iloc[:-12].notna().all(axis=None)


def test_a_video_without_a_pulse_is_refused_with_the_reason():
    for seed in range(5):
        r = measure(*skin(heart=0.0, breath=0.0, seed=seed))
        for reading in (r.heart_rate, r.respiration_rate, r.unsupervised["pos"]):
            assert reading.value is None
            assert reading.interval is None
            assert reading.confidence < 0.8
            assert reading.note


def test_a_photograph_has_no_pulse():
    frames, t = skin(noise=3.0)
    still = np.repeat(frames[:1], len(frames), axis=0)
    r = measure(still, t)
    assert r.heart_rate.value is None
    assert r.heart_rate.note == "no heart rate: the picture stands still: 749 of 750 frames repeat the one before"
    assert r.unsupervised["pos"].value is None
    one = measure(frames[:1], None, fps=25)
    assert not one.measured
    assert "8 s with a face are needed" in one.heart_rate.note


def test_network_and_pos_that_disagree_are_not_believed_more_than_alone():
    # green says 72, but the mean colours, and so POS, say 100
    frames, t = skin()
    other, _ = skin(heart=100)

    class Elsewhere(Colours):
        def __call__(self, big, small):
            au, _, breath = super().__call__(big, small)
            start, self.at = self.at, self.at + len(small)
            wave = np.sin(2 * np.pi * 1.2 * t) + 0.7 * np.random.default_rng(0).standard_normal(len(t))
            return au, torch.from_numpy(np.diff(wave)[start : start + len(small), None]), breath

        at = 0

    agreed, torn = measure(frames, t, weights=Elsewhere()), measure(other, t, weights=Elsewhere())
    assert torn.unsupervised["pos"].value == pytest.approx(100, abs=1)
    assert torn.heart_rate.confidence < agreed.heart_rate.confidence


@pytest.mark.parametrize(
    ("seconds", "heart", "breath"),
    [(1.6, False, False), (3.0, False, False), (7.9, False, False), (8.0, True, False), (20.0, True, True)],
)
def test_least_durations(seconds, heart, breath):
    r = measure(*skin(seconds))
    assert (r.heart_rate.value is not None) == heart
    assert (r.respiration_rate.value is not None) == breath
    if not heart:
        assert r.heart_rate.note == f"8 s with a face are needed to measure a heart rate; there are {seconds:.1f} s"
    if not breath:
        assert "20 s" in r.respiration_rate.note
    assert r.frames["AU12"].notna().sum() >= len(r.frames) - 3  # action units need one clip


def test_what_the_weights_do_not_have_is_null_and_says_so():
    r = measure(*skin(), weights=Colours(tasks=("pulse",)))
    assert r.respiration_rate.value is None
    assert r.respiration_rate.note == "these weights do not measure respiration"
    assert r.action_units == ()
    assert not any(column.startswith("AU") for column in r.frames)


def test_frames_that_come_too_slowly_are_refused():
    r = measure(*skin(60, fps=5.0))
    assert r.heart_rate.value is None
    needed = "more than 6 different frames a second are needed to measure a heart rate"
    assert r.heart_rate.note == f"{needed}; there are 5"
    assert r.respiration_rate.value == pytest.approx(15, abs=0.5)
    hourly = measure(*skin(60, fps=0.5))
    assert hourly.heart_rate.note == f"{needed}; there are 0.5"
    assert "there are 0.5" in hourly.respiration_rate.note


class Scripted:
    """A tracker that sees a face when it is told to."""

    absent: tuple[tuple[float, float], ...] = ()

    def __init__(self, several: bool) -> None:
        assert not several

    def update(self, frame):
        if any(start <= frame.timestamp < end for start, end in self.absent):
            return []
        return [Track(0, Face(0.0, 0.0, 24.0, 24.0, 0.9, np.zeros((5, 2))), 0.9)]


@pytest.fixture
def absences(monkeypatch):
    monkeypatch.setattr(pipeline, "FaceTracker", Scripted)
    return lambda *spans: monkeypatch.setattr(Scripted, "absent", spans)


def test_a_face_that_leaves_is_reported_and_the_longest_stretch_is_measured(absences):
    absences((9.0, 15.0))
    r = measure(*skin(45), crop=None)
    assert r.lost == (pytest.approx((9.0, 14.96)),)
    assert r.heart_rate.value == pytest.approx(72, abs=0.5)
    assert r.heart_rate.note == "from 15.0 to 45.0 s, the longest stretch with a face"
    away = r.frames["timestamp"].between(9.0, 14.97)
    assert (r.frames["success"] == ~away).all()
    for column in ("confidence", "x", "y", "w", "h", "bvp", "respiration", "AU06", "AU06_c"):
        assert r.frames.loc[away, column].isna().all(), column
    assert r.frames.loc[~away, "bvp"].notna().all()
    assert not ((r.windows["start"] < 14.9) & (r.windows["end"] > 9.1)).any()


def test_a_short_absence_is_bridged(absences):
    absences((10.0, 10.6), (20.0, 20.3))
    frames, t = skin()
    jump = (t >= 10.0) & (t < 10.6)
    frames[jump] = 255 - frames[jump]  # what is seen meanwhile counts for nothing
    r = measure(frames, t, crop=None)
    assert len(r.lost) == 2
    assert r.heart_rate.value == pytest.approx(72, abs=0.5)
    assert r.heart_rate.note is None
    assert r.unsupervised["pos"].value == pytest.approx(72, abs=0.5)
    assert r.respiration_rate.value == pytest.approx(15, abs=0.5)


class Couple:
    """Two faces: the larger on the right comes after five seconds."""

    def __init__(self, several: bool) -> None:
        assert several

    def update(self, frame):
        points = np.zeros((5, 2))
        left, right = Face(1.0, 4.0, 8.0, 8.0, 0.9, points), Face(12.0, 0.0, 12.0, 12.0, 0.8, points)
        return [Track(0, left, 0.9), Track(1, right, 0.8)][: 1 if frame.timestamp < 5 else 2]


def test_every_face_has_a_measurement_of_its_own(monkeypatch):
    monkeypatch.setattr(pipeline, "FaceTracker", Couple)
    one, t = skin(30, heart=60)
    other, _ = skin(30, heart=90, seed=1)
    frames = np.concatenate([one[:, :, :12], other[:, :, 12:]], axis=2)
    r = measure(frames, t, crop="face:1", all_faces=True)
    assert (r.face_id, [face.face_id for face in r.others]) == (1, [0])
    assert r.heart_rate.value == pytest.approx(90, abs=0.5)
    assert r.heart_rate.note == "from 5.0 to 30.0 s, the longest stretch with a face"
    assert r.others[0].heart_rate.value == pytest.approx(60, abs=0.5)
    assert r.lost == (pytest.approx((0.0, 4.96)),)
    assert r.others[0].lost == ()
    assert set(r.windows["face_id"]) == {1}
    assert len(r.frames) == 750
    assert r.frames["success"].sum() == 625
    alone = measure(one, t, crop=(1, 4, 8, 8))
    np.testing.assert_allclose(r.others[0].frames["bvp"], alone.frames["bvp"], atol=0.05)
    assert len(r.thumbnails) == len(r.others[0].thumbnails) == 24
    assert r.thumbnails[0].rgb.shape == (96, 96, 3)
    with pytest.raises(ValueError, match="all_faces was True and crop was 'frame', expected a crop around faces"):
        measure(one, t, all_faces=True)


def test_no_face_no_number(absences):
    absences((0.0, 100.0))
    r = measure(*skin(), crop=None)
    assert not r.measured
    assert r.heart_rate.note == r.respiration_rate.note == r.unsupervised["pos"].note == "no face was found"
    assert r.lost == (pytest.approx((0.0, 29.96)),)


def test_frames_seen_for_a_moment_only_are_left_out(absences):
    absences((0.06, 5.0), (5.06, 100.0))
    r = measure(*skin(), crop=None)
    assert not r.measured
    assert r.frames["success"].sum() == 4


def test_the_piece_size_changes_nothing(monkeypatch):
    frames, t = skin(12)
    whole = measure(frames, t)
    monkeypatch.setattr(inputs, "PIECE_BYTES", 20 * frames[0].nbytes)
    pieces = measure(frames, t)
    np.testing.assert_allclose(pieces.frames[["bvp", "AU06"]], whole.frames[["bvp", "AU06"]], atol=1e-4)


def test_windows_slide_over_the_video():
    r = measure(*skin(40))
    assert r.model["windows"]["heart_rate"] == {"seconds": 10.0, "step": 1.0}
    hearts = r.windows[r.windows["vital"] == "heart_rate"]
    assert list(hearts["start"]) == pytest.approx(range(31))
    assert (hearts["end"] - hearts["start"]).to_numpy() == pytest.approx(10)
    assert hearts["value"].dropna().to_numpy() == pytest.approx(72, abs=2)
    assert hearts["value"].notna().mean() > 0.8
    breaths = r.windows[r.windows["vital"] == "respiration_rate"]
    assert list(breaths["start"]) == pytest.approx(np.arange(0, 40.01 - RESPIRATION_RATE.window, 5))
    assert breaths["value"].to_numpy(float) == pytest.approx(15, abs=1)


def test_progress_is_told_from_the_first_frame_to_the_last():
    told = []
    measure(*skin(4), progress=lambda *step: told.append(step))
    assert told == [(stage, i + 1, 100) for stage in ("finding the face", "measuring") for i in range(100)]


def test_bad_arguments_are_named(tmp_path):
    frames, t = skin(3)
    with pytest.raises(ValueError, match="inside the picture of 24x24"):
        measure(frames, t, crop=(10, 10, 20, 20))
    with pytest.raises(ValueError, match="crop was 'circle'"):
        measure(frames, t, crop="circle")
    with pytest.raises(ValueError, match="no weights at 'nothing'"):
        measure(frames, t, weights="nothing")
    with pytest.raises(VideoError, match="does not exist"):
        bigsmall.measure(tmp_path / "missing.mp4", weights=Colours())


def test_the_package_offers_the_function_and_its_rooms():
    import bigsmall.measure  # the module of the same name does not take the function's place

    assert callable(bigsmall.measure)
    for name in bigsmall.__all__:
        assert getattr(bigsmall, name) is not None
    assert bigsmall.weights.load is load
    with pytest.raises(AttributeError, match="no attribute 'bogus'"):
        bigsmall.bogus  # noqa: B018
