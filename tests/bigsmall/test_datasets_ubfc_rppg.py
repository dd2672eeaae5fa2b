"""bigsmall.datasets.ubfc_rppg: both parts of the dataset, samples at their own times, reasons for what is missing."""

from pathlib import Path

import av
import numpy as np
import pytest

from bigsmall.datasets import jobs, open_prepared, prepare
from bigsmall.datasets.ubfc_rppg import find

FPS, FRAMES = 30.0, 61
RNG = np.random.default_rng(0)


def pulse(seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 1.2 * seconds)


def video(path: Path) -> None:
    """Uncompressed, as the dataset's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("rawvideo", rate=int(FPS))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr24"
        for rgb in RNG.integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))


def second_part(folder: Path, times: np.ndarray, beats: float = 72) -> Path:
    """A subject of DATASET_2, its wave sampled at `times`."""
    video(folder / "vid.avi")
    np.savetxt(folder / "ground_truth.txt", [pulse(times), np.full(len(times), beats), times])
    return folder


def first_part(folder: Path, rate: float = 62.0) -> Path:
    """A video of DATASET_1."""
    video(folder / "vid.avi")
    times = np.arange(0, FRAMES / FPS, 1 / rate)
    rows = np.stack([1000 * times, np.full(len(times), 80), np.full(len(times), 98), pulse(times)], axis=1)
    np.savetxt(folder / "gtdump.xmp", rows, delimiter=",")
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    second_part(tmp_path / "DATASET_2" / "subject3", np.arange(FRAMES) / FPS)
    second_part(tmp_path / "DATASET_2" / "subject11", np.sort(RNG.uniform(0, FRAMES / FPS, 120)))
    first_part(tmp_path / "DATASET_1" / "after-exercise")
    return tmp_path


def test_both_parts_are_found_under_the_dataset_and_each_by_itself(root):
    assert [r.subject for r in find(root)] == ["after-exercise", "subject11", "subject3"]
    assert [r.name for r in find(root / "DATASET_2")] == ["subject11", "subject3"]
    assert all(r.crop == "face" for r in find(root))


def test_every_video_is_prepared_with_the_wave_at_the_times_of_its_frames(root, tmp_path):
    prepare({"dataset": "ubfc_rppg", "root": str(root), "crop": "frame"}, tmp_path / "out", workers=1)
    made = {r.subject: r for r in open_prepared(tmp_path / "out")}
    assert set(made) == {"after-exercise", "subject11", "subject3"}
    for subject, beats in (("after-exercise", 80), ("subject11", 72), ("subject3", 72)):
        r = made[subject]
        known = ~np.isnan(r.bvp_wave)
        assert len(r) == FRAMES - 1
        assert r.fps == pytest.approx(FPS)
        assert known.mean() > 0.9
        np.testing.assert_allclose(r.bvp_wave[known], pulse(r.timestamps[known]), atol=0.1)
        assert set(np.unique(r.heart_rate[known])) == {np.float32(beats)}
        assert "respiration" not in r.arrays  # nothing is known of it


def test_samples_can_be_taken_as_one_for_each_frame_as_the_released_weights_were_trained(tmp_path):
    """The oximeter's clock runs at half the video's pace here: read by the times it is not what it is by the count."""
    second_part(tmp_path / "subject1", np.arange(FRAMES) / 15)
    spec = {"dataset": "ubfc_rppg", "root": str(tmp_path), "crop": "frame"}
    for option, slower in (({}, 1.0), ({"per_frame": True}, 2.0)):
        (job,) = jobs({**spec, **option})
        arrays, _ = job.make()
        np.testing.assert_allclose(arrays["bvp_wave"], pulse(slower * arrays["timestamps"]), atol=0.05)


def test_a_clock_that_stands_still_and_a_rate_of_zero_are_no_samples(tmp_path):
    times = np.arange(FRAMES) / FPS
    times[10:13] = times[9]
    (recording,) = find(second_part(tmp_path / "subject1", times, beats=0).parent)
    labels = recording.labels()
    assert len(labels.bvp.times) == FRAMES - 3
    assert (np.diff(labels.bvp.times) > 0).all()
    assert np.isnan(labels.heart_rate.values).all()


def test_a_clock_that_drifts_is_told(tmp_path):
    second_part(tmp_path / "subject1", np.arange(FRAMES) / FPS * 1.1)
    (job,) = jobs({"dataset": "ubfc_rppg", "root": str(tmp_path), "crop": "frame"})
    _, meta = job.make()
    assert any("bvp lasts 2.20 s and the video 2.00 s" in note for note in meta["notes"])


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "vid.avi").unlink(), "vid.avi does not exist"),
        (lambda folder: (folder / "ground_truth.txt").unlink(), "ground_truth.txt is missing"),
        (lambda folder: (folder / "ground_truth.txt").write_text(""), "is empty"),
        (lambda folder: (folder / "ground_truth.txt").write_text("1 2\n3 4\n"), "2 lines, expected 3"),
        (lambda folder: (folder / "ground_truth.txt").write_text("1 2\n3\n5 6\n"), "no table of numbers"),
    ],
)
def test_a_video_without_labels_and_labels_without_a_video_fail_with_their_reason(tmp_path, spoil, reason):
    spoil(second_part(tmp_path / "subject1", np.arange(FRAMES) / FPS))
    (job,) = jobs({"dataset": "ubfc_rppg", "root": str(tmp_path), "crop": "frame"})
    with pytest.raises(ValueError, match=reason):
        job.make()


def test_another_folder_is_refused_with_what_was_expected_and_what_it_holds(tmp_path):
    (tmp_path / "holiday.mp4").touch()
    with pytest.raises(ValueError, match=r"holds holiday.mp4, expected folders subject<k> with vid.avi"):
        find(tmp_path)
