"""From a video and its labels to the arrays of a prepared recording."""

import pickle
import zipfile
from pathlib import Path

import av
import numpy as np
import pytest
import torch

import bigsmall_kernels as bk
from bigsmall import inputs, pipeline, synthesis, weights
from bigsmall.datasets import reading, write_prepared
from bigsmall.datasets.align import Signal, drift
from bigsmall.datasets.prepared import Prepared
from bigsmall.datasets.recording import Labels, Recording, RecordingJob, Settings, Zipped, jobs
from bigsmall.face import Face, FaceTracker, Track, crop_box
from bigsmall.signals.filters import diff_normalize_label
from bigsmall.video import VideoWriter, open_video

CONVENTIONS = ("exact", "bigsmall", "toolbox", "toolbox-pre225")


def film(path, frames, times=None, fps=25.0):
    """Writes a lossless video; .mp4, which keeps times to 1/90000 s."""
    with VideoWriter(path, fps) as video:
        for i, rgb in enumerate(frames):
            video.write(rgb, i / fps if times is None else float(times[i]))
    return path


def noise(n, height=20, width=24, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def nothing():
    return Labels()


def made(video, read=nothing, recording=None, **settings):
    """Arrays and meta of a recording that shows the whole picture."""
    given = {"crop": "frame", **(recording or {})}
    return RecordingJob(Recording("a", "s", video, read, **given), "made", Settings.of(settings)).make()


class Tracker:
    """In place of the face tracker: frame after frame a face of 8 x 8 pixels at `places`, None: none is seen."""

    def __init__(self, places):
        self.places = places

    def __call__(self):
        return self

    def update(self, frame):
        place = self.places[frame.index]
        return [] if place is None else [Track(0, Face(*place, 8.0, 8.0, 1.0, np.zeros((5, 2))), 1.0)]


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_pictures_are_the_inputs_of_the_whole_video(tmp_path, convention):
    frames = noise(10)
    arrays, meta = made(film(tmp_path / "a.mp4", frames), convention=convention, n_segment=1)
    big, small = bk.bigsmall_inputs(torch.from_numpy(frames), n_segment=1, all_big=True, convention=convention)
    np.testing.assert_array_equal(arrays["small"], small.half().numpy())
    assert arrays["stretches"].tolist() == [0, len(small)]
    write_prepared(tmp_path / "a.safetensors", arrays, meta | {"name": "a", "subject": "s"})
    read = Prepared(tmp_path / "a.safetensors").inputs(("big",), np.arange(len(small)), 1)["big"]
    assert (read - big).abs().max() <= 0.5 / meta["big_std"] + 1e-5  # pixels are kept as whole numbers


def test_the_released_pipeline(reference_dir, tmp_path):
    golden = np.load(reference_dir / "golden" / "pipeline_toolbox.npz")
    columns = {"bvp": 48, "bvp_wave": 0, "respiration": 5}
    given = Labels(**{k: Signal.even(golden["labels_in"][:, c], 25) for k, c in columns.items()})
    video = film(tmp_path / "a.mp4", golden["frames_u8"])
    arrays, meta = made(video, lambda: given, convention="toolbox", big_every=1)
    expected = golden["small"].reshape(-1, 9, 9, 3).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(arrays["small"], expected, atol=2e-3)
    big = (arrays["big"].astype(float) - meta["big_mean"]) / meta["big_std"]
    np.testing.assert_allclose(big, golden["big"].reshape(big.shape), atol=1e-5)  # whole numbers from the start
    for name in ("bvp", "respiration"):
        np.testing.assert_allclose(arrays[name], golden["labels_out"].reshape(-1, 49)[:, columns[name]], atol=1e-5)


def test_memory_is_bounded(tmp_path, monkeypatch):
    video = film(tmp_path / "a.mp4", noise(40))
    at_once, _ = made(video, frames=[12])
    monkeypatch.setattr(inputs, "PIECE_BYTES", 1)
    in_pieces, _ = made(video, frames=[12])
    for name, array in at_once.items():
        np.testing.assert_array_equal(array, in_pieces[name])
    assert isinstance(in_pieces["big"].base, np.memmap) or isinstance(in_pieces["big"], np.memmap)


def test_the_crop_is_that_of_measure(tmp_path):
    video = tmp_path / "face.mkv"
    synthesis.synthesize(video, seconds=1, fps=20, size=(160, 160))
    tracker, frames, boxes = FaceTracker(), [], []
    for frame in open_video(video):
        frames.append(frame.rgb)
        boxes.append(crop_box("face:1.8", tracker.update(frame)[0].face, 160, 160))
    small = bk.bigsmall_inputs(torch.from_numpy(np.stack(frames)), torch.tensor(boxes))[1]
    arrays, meta = made(video, crop="face:1.8")
    np.testing.assert_array_equal(arrays["small"], small.half().numpy())
    assert meta["crop"] == "face:1.8"
    assert made(video, crop="10,20,100,90")[1]["crop"] == "10,20,100,90"


def test_the_frames_the_cuts_and_the_scale_are_those_of_measure(tmp_path):
    video = tmp_path / "face.mkv"
    away = {"away": (1.5, 2.0), "seconds": 4, "fps": 30, "shot_fps": 25}  # a sixth of the frames repeat another
    synthesis.synthesize(video, size=(160, 160), noise=0, motion=3, jitter=0.3, **away)
    tracker = FaceTracker()
    _, subjects = pipeline._look(open_video(video), weights.load("default"), "face:2.2", tracker, lambda *_: None)
    measured = subjects[0].seen
    settings = Settings.of({"crop": "face:2.2"})
    seen = reading._look(open_video(video), Recording("a", "s", video, nothing), "face:2.2", settings)
    assert seen.used == measured.used
    assert len(seen.starts) > 1
    assert seen.starts == measured.starts
    assert seen.stats == measured.stats
    assert seen.boxes == [measured.boxes[measured.frames.index(i)] for i in measured.used]
    assert 0 < len(seen.used) < sum(1 for _ in open_video(video)) - 10


def test_big_pictures_are_kept_as_seldom_as_asked(tmp_path):
    video = film(tmp_path / "a.mp4", noise(14))
    every, _ = made(video, big_every=1)
    assert every["big_frame"].tolist() == list(range(12))  # 13 differences are 4 clips of 3 and one left over
    for settings, kept in (({}, 3), ({"n_segment": 6}, 6), ({"big_every": 2}, 2)):
        some, _ = made(video, **settings)
        assert some["big_frame"].tolist() == list(range(0, 12, kept))
        np.testing.assert_array_equal(some["big"], every["big"][::kept])


def test_pictures_of_other_sizes(tmp_path):
    frames = noise(10)
    arrays, _ = made(film(tmp_path / "a.mp4", frames), frames=[16, 9])
    plain = bk.InputStats(0.0, 1.0, 1.0)
    for size in (16, 9):
        expected = bk.bigsmall_inputs(
            torch.from_numpy(frames), big_size=size, small_size=1, all_big=True, convention="toolbox", stats=plain
        )[0]
        np.testing.assert_array_equal(arrays[f"frames_{size}"], expected.permute(0, 2, 3, 1).byte().numpy())


# --- stretches --------------------------------------------------------------------------------------------------------


def test_a_lost_face_is_a_cut(tmp_path, monkeypatch):
    frames = noise(20, 32, 32)
    monkeypatch.setattr(reading, "FaceTracker", Tracker([(10, 10) if i not in (8, 9) else None for i in range(20)]))
    arrays, _ = made(film(tmp_path / "a.mp4", frames), crop="face:1", n_segment=1)
    assert arrays["stretches"].tolist() == [0, 7, 16]
    np.testing.assert_allclose(arrays["timestamps"], np.r_[0:7, 10:19] / 25, atol=1e-4)
    box = torch.tensor([10.0, 10.0, 8.0, 8.0])
    parts = [bk.bigsmall_inputs(torch.from_numpy(part), box, n_segment=1)[1] for part in (frames[:8], frames[10:])]
    for part, made_of_it in zip(parts, (arrays["small"][:7], arrays["small"][7:]), strict=True):
        scale = float(made_of_it.std() / part.std(correction=0))  # one for the whole video
        np.testing.assert_allclose(made_of_it, scale * part, atol=5e-3)


def test_a_long_gap_is_a_cut_and_a_repeat_is_none(tmp_path):
    frames = noise(12)
    frames[4] = frames[3]
    times = np.where(np.arange(12) < 8, np.arange(12), np.arange(12) + 40) / 25
    arrays, meta = made(film(tmp_path / "a.mp4", frames, times), n_segment=1)
    np.testing.assert_allclose(arrays["timestamps"], times[[0, 1, 2, 3, 5, 6, 8, 9, 10]], atol=1e-4)
    assert arrays["stretches"].tolist() == [0, 6, 9]
    assert meta["video"] == {"frames": 12, "used": 11, "repeated": 1}
    assert any("no frames" in note for note in meta["notes"])
    assert meta["fps"] == pytest.approx(9 / (10 / 25), rel=1e-3)  # 9 steps between used frames; one of them is double


def test_stretches_too_short_for_a_clip_are_left_out(tmp_path, monkeypatch):
    seen = [i not in (2, 6) for i in range(14)]  # runs of 2, 3 and 7 frames
    monkeypatch.setattr(reading, "FaceTracker", Tracker([(10, 10) if there else None for there in seen]))
    arrays, _ = made(film(tmp_path / "a.mp4", noise(14, 32, 32)), crop="face:1")
    assert arrays["stretches"].tolist() == [0, 6]
    np.testing.assert_allclose(arrays["timestamps"], np.arange(7, 13) / 25, atol=1e-4)


def test_a_box_that_moves_parts_pictures_but_not_differences(tmp_path, monkeypatch):
    frames = noise(14, 32, 32)
    places = [(10, 10)] * 5 + [(14, 10)] * 9
    monkeypatch.setattr(reading, "FaceTracker", Tracker(places))
    video = film(tmp_path / "a.mp4", frames)
    boxes = torch.tensor([[x, y, 8, 8] for x, y in places])
    arrays, _ = made(video, crop="face:1", n_segment=1)
    assert arrays["stretches"].tolist() == [0, 13]
    small = bk.bigsmall_inputs(torch.from_numpy(frames), boxes, n_segment=1)[1]
    np.testing.assert_array_equal(arrays["small"], small.half().numpy())
    assert made(video, crop="face:1", n_segment=1, frames=[4])[0]["stretches"].tolist() == [0, 5, 13]


@pytest.mark.parametrize(
    "part", [{"first": 3, "last": 9}, {"start": 3 / 25 - 1e-3, "end": 9 / 25 + 1e-3}], ids=["frames", "seconds"]
)
def test_a_part_of_a_video(tmp_path, part):
    frames = noise(20)
    arrays, _ = made(film(tmp_path / "a.mp4", frames), recording=part, n_segment=1)
    expected = bk.bigsmall_inputs(torch.from_numpy(frames[3:10]), n_segment=1)[1]
    np.testing.assert_array_equal(arrays["small"], expected.half().numpy())
    np.testing.assert_allclose(arrays["timestamps"], np.arange(3, 9) / 25, atol=1e-4)


# --- labels -----------------------------------------------------------------------------------------------------------


def wave(t):
    return np.sin(2 * np.pi * 1.2 * t) + 0.3 * t


def test_labels_of_another_rate_are_read_at_the_frames_of_an_uneven_clock(tmp_path):
    times = np.cumsum(np.random.default_rng(1).uniform(0.03, 0.07, 40))
    clock = np.arange(-1, times[-1] + 1, 1 / 200)
    given = Labels(bvp=Signal(wave(clock), clock))
    arrays, meta = made(film(tmp_path / "a.mp4", noise(40), times), lambda: given, n_segment=1)
    np.testing.assert_allclose(arrays["bvp_wave"], wave(times[:-1]), atol=2e-3)
    np.testing.assert_allclose(arrays["bvp"], diff_normalize_label(wave(times)), atol=2e-2)
    assert "respiration" not in arrays  # nothing is known of it
    assert meta["drift"]["bvp"]["begins"] < -1  # is no fault: the label surrounds the video


def test_a_clock_that_drifts_is_reported(tmp_path):
    clock = np.arange(0, 2.06, 0.01)
    given = Labels(heart_rate=Signal(np.full(len(clock), 60.0), clock))
    _, meta = made(film(tmp_path / "a.mp4", noise(50)), lambda: given)
    assert meta["drift"]["heart_rate"]["ratio"] == pytest.approx(2.05 / 1.96, rel=1e-3)
    assert meta["notes"] == ["heart_rate lasts 2.05 s and the video 1.96 s"]


@pytest.mark.parametrize(
    ("begin", "end", "warning"),
    [
        (0, 10, None),
        (-3, 6.95, "ends 3.05 s before the video"),
        (0.05, 10.05, None),
        (0.8, 10.8, "begins 0.80 s after the video"),
        (2, 8, "lasts 6.00 s and the video 10.00 s and begins 2.00 s after the video and ends 2.00 s before the video"),
    ],
)
def test_the_report_of_drift(begin, end, warning):
    report = drift(Signal(np.zeros(11), np.linspace(begin, end, 11)), 0.0, 10.0)
    assert report["warning"] == warning
    assert (report["begins"], report["ends"]) == (pytest.approx(begin), pytest.approx(end - 10))


def test_a_label_is_unknown_outside_its_span_and_beside_unknown_samples():
    signal = Signal(np.array([0.0, 1.0, np.nan, 3.0, 4.0]), np.arange(5.0))
    at = signal.at(np.array([-0.5, -0.001, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.25, 4.001, 4.5]))
    nan = np.nan
    np.testing.assert_allclose(at, [nan, 0, 0.5, 1, nan, nan, nan, 3, 3.25, 4, nan])


@pytest.mark.parametrize("times", [[0.0, 1.0, 1.0], [0.0, np.nan, 2.0], [0.0, 1.0]])
def test_a_label_needs_increasing_times(tmp_path, times):
    labels = Labels(respiration=Signal(np.zeros(3), np.array(times)))
    with pytest.raises(ValueError, match=r"respiration: .*expected at least two values at as many increasing seconds"):
        made(film(tmp_path / "a.mp4", noise(5)), lambda: labels)


def test_a_label_by_the_frame_follows_the_videos_clock(tmp_path):
    times = np.cumsum(np.random.default_rng(2).uniform(0.03, 0.07, 20))
    given = Labels(bvp=Signal(np.arange(22.0) ** 2, np.arange(22), frames=True))
    arrays, meta = made(film(tmp_path / "a.mp4", noise(20), times), lambda: given, n_segment=1)
    np.testing.assert_allclose(arrays["bvp_wave"], np.arange(19.0) ** 2, atol=1e-2)
    assert meta["drift"]["bvp"]["ends"] == pytest.approx(2 * np.diff(times).mean(), rel=1e-2)  # two labels too many


def test_labels_spread_over_the_frames_as_released(tmp_path):
    y = np.random.default_rng(3).normal(size=61)
    given = Labels(bvp_wave=Signal.even(y, 1000.0))  # whatever the clock says
    arrays, _ = made(film(tmp_path / "a.mp4", noise(20)), lambda: given, labels="linspace", n_segment=1)
    expected = np.interp(np.linspace(0, 61, 20), np.arange(61), y)
    np.testing.assert_allclose(arrays["bvp_wave"], expected[:19], rtol=1e-6)


def test_a_gap_of_a_label_is_a_gap_of_the_target_and_no_signal_is_zeros(tmp_path):
    values = np.r_[np.arange(8.0) ** 2, [np.nan] * 4, np.arange(8.0)]
    given = Labels(bvp=Signal.even(values, 25), respiration=Signal.even(np.full(20, 5.0), 25))
    video = film(tmp_path / "a.mp4", noise(20))
    arrays, _ = made(video, lambda: given, n_segment=1, convention="toolbox")
    steps = np.diff(values)
    np.testing.assert_allclose(arrays["bvp"], np.append(steps / np.nanstd(steps), 0), rtol=1e-4)
    assert not arrays["respiration"].any()


def test_action_units_by_frame_by_time_and_by_row(tmp_path):
    video = film(tmp_path / "a.mp4", noise(10))
    au = np.array([[1, 0], [0, 255], [1, 1]], np.uint8)
    frames, unknown = [2, 3, 7], np.full((9, 2), 255, np.uint8)
    unknown[frames] = au
    units = {"au": au, "action_units": ("AU01", "AU12")}
    arrays, meta = made(video, lambda: Labels(au_frames=np.array([*frames]), **units), n_segment=1)
    np.testing.assert_array_equal(arrays["au"], unknown)
    assert meta["action_units"] == ["AU01", "AU12"]
    arrays, _ = made(video, lambda: Labels(au_times=np.array([0.11, 0.20, 0.29]), **units), n_segment=1)
    assert arrays["au"][:, 0].tolist() == [255, 255, 1, 1, 0, 0, 0, 1, 1]
    arrays, _ = made(video, lambda: Labels(**units), n_segment=1)
    np.testing.assert_array_equal(arrays["au"], np.r_[au, np.full((6, 2), 255)])


def test_a_pseudo_label_is_made_of_the_pictures_and_the_contact_rate(reference_dir, tmp_path):
    golden = np.load(reference_dir / "golden" / "unsupervised.npz")
    video = film(tmp_path / "a.mp4", golden["fs30_frames"], fps=30.0)
    rate, finger = Signal.even(golden["fs30_HR_bpm"], 30), Signal.even(np.arange(300.0), 30)
    labels = Labels(heart_rate=rate, bvp=finger)
    arrays, meta = made(video, lambda: labels, {"pseudo": "pos"}, convention="toolbox")
    assert meta["video"]["used"] == 300
    expected = diff_normalize_label(golden["fs30_bp4d_pos_env_norm_bvp"], pad=True)
    np.testing.assert_allclose(arrays["bvp"], expected, atol=1e-3)
    np.testing.assert_allclose(arrays["bvp_wave"], np.arange(300.0), atol=1e-2)  # tested against the finger's
    arrays, _ = made(video, recording={"pseudo": "pos"}, convention="toolbox")
    np.testing.assert_allclose(
        arrays["bvp"], diff_normalize_label(golden["fs30_toolbox_generic_pseudo"], pad=True), atol=1e-3
    )
    assert "bvp_wave" not in arrays


def test_a_box_that_moves_makes_no_step_in_a_pseudo_label(tmp_path, monkeypatch):
    left, right = np.array([120, 80, 60]), np.array([200, 140, 110])
    frames = np.empty((120, 16, 32, 3), np.uint8)
    beat = 1 + 0.02 * np.sin(2 * np.pi * 1.2 * np.arange(120) / 25)[:, None] * np.array([0.3, 0.8, 0.5])
    texture = np.random.default_rng(4).uniform(-6, 6, (120, 16, 16, 1))  # so that no frame repeats another
    frames[:, :, :16], frames[:, :, 16:] = ((c * beat)[:, None, None] + texture for c in (left, right))
    video = film(tmp_path / "a.mp4", frames)
    waves = []
    for places in ([(4, 4)] * 120, [(4, 4)] * 60 + [(20, 4)] * 60):
        monkeypatch.setattr(reading, "FaceTracker", Tracker(places))
        waves.append(made(video, recording={"pseudo": "pos"}, crop="face:1")[0]["bvp"])
    assert np.corrcoef(waves)[0, 1] > 0.95


# --- sources and settings ---------------------------------------------------------------------------------------------


def png(path, rgb):
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as out:
        stream = out.add_stream("png")
        stream.width, stream.height, stream.pix_fmt = rgb.shape[1], rgb.shape[0], "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
        out.mux(stream.encode(None))


def test_a_folder_of_images_and_a_folder_in_a_zip_are_the_video(tmp_path):
    frames = noise(8)
    (tmp_path / "images").mkdir()
    for i, rgb in enumerate(frames):
        png(tmp_path / "images" / f"{i}.png", rgb)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("F001/T10/0.png", b"another's")
        for i in range(8):
            archive.write(tmp_path / "images" / f"{i}.png", f"F001/T1/{9 - i}.png")  # the order is the zip's
    expected, _ = made(film(tmp_path / "a.mp4", frames))
    for source in (tmp_path / "images", Zipped(tmp_path / "a.zip", "F001/T1")):
        arrays, _ = made(source, recording={"fps": 25.0})
        for name in ("small", "big"):
            np.testing.assert_array_equal(arrays[name], expected[name])
    with pytest.raises(ValueError, match=r"a.zip has no images in 'F001/T2'"):
        made(Zipped(tmp_path / "a.zip", "F001/T2"), recording={"fps": 25.0})
    (tmp_path / "b.zip").write_bytes(b"PK no more")
    with pytest.raises(ValueError, match=r"b.zip cannot be unpacked"):
        made(Zipped(tmp_path / "b.zip", "F001/T1"), recording={"fps": 25.0})


def test_videos_of_no_use(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"a.mp4 has 3 different pictures in a row, expected at least 4"):
        made(film(tmp_path / "a.mp4", noise(3)))
    monkeypatch.setattr(reading, "FaceTracker", Tracker([None] * 20))
    with pytest.raises(ValueError, match="has 0 different pictures with a face in a row"):
        made(film(tmp_path / "b.mp4", noise(20)), crop="face")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"convention": "paper"}, "convention was 'paper', expected one of exact, bigsmall"),
        ({"labels": "index"}, "labels was 'index', expected one of times, linspace, toolbox"),
        ({"big_every": 0}, "big_every was 0, expected an integer of at least 1"),
        ({"n_segment": 2.5}, "n_segment was 2.5"),
        ({"frames": [72, -1]}, "frames was -1"),
        ({"crop": "mouth"}, "crop was 'mouth'"),
        ({"frame": 72}, "frame is no option of made, expected big_every, convention, crop, frames, labels, n_segment"),
    ],
)
def test_wrong_options_are_named(tmp_path, option, message):
    with pytest.raises(ValueError, match=message):
        jobs(lambda root: [], {"dataset": "made", "root": tmp_path, **option})


def test_jobs_take_the_options_of_videos_and_those_of_the_dataset(tmp_path):
    def find(root: Path, *, subset: bool = False) -> list[Recording]:
        return [Recording(str(subset), "s", root / "a.mp4", nothing)]

    (job,) = jobs(find, {"dataset": "made", "root": str(tmp_path), "subset": True, "frames": 36})
    assert (job.name, job.subject, job.settings.frames) == ("True", "s", (36,))
    assert pickle.loads(pickle.dumps(job)) == job
    with pytest.raises(ValueError, match=r"root was .*, which does not exist"):
        jobs(find, {"dataset": "made", "root": tmp_path / "elsewhere"})
