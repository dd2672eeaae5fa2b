"""bigsmall.datasets.scamps: HDF5 files of rendered faces, read piece by piece."""

from pathlib import Path

import numpy as np
import pytest

from bigsmall.datasets import jobs, open_prepared, prepare
from bigsmall.datasets.scamps import PIECE, UNITS, find

h5py = pytest.importorskip("h5py", reason="the extra [scamps] is not installed")

FPS, FRAMES, WIDTH, HEIGHT = 30.0, 2 * PIECE + 6, 64, 48
RNG = np.random.default_rng(0)


def pulse(seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 1.3 * seconds)


def breath(seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 0.25 * seconds)


def render(path: Path) -> np.ndarray:
    """A file whose pictures (T, H, W, 3) are returned; MATLAB's arrays have their axes turned round in HDF5."""
    pictures = RNG.integers(0, 256, (FRAMES, HEIGHT, WIDTH, 3), dtype=np.uint8)
    times = np.arange(FRAMES) / FPS
    with h5py.File(path, "w") as file:
        file["RawFrames"] = pictures.T / 255.0
        file["Xsub"] = pictures[:, :, 8:-8].T / 255.0
        file["d_ppg"], file["d_br"] = pulse(times)[None], breath(times)[None]
        for unit in UNITS:
            file[f"au{unit}"] = (0.01 * np.arange(FRAMES) if unit == 12 else np.zeros(FRAMES))[None]
    return pictures


def video(path: Path, **options: object) -> np.ndarray:
    (recording,) = find(path.parent, **options)
    with recording.open() as opened:
        assert opened.fps == FPS
        frames = list(opened)
    np.testing.assert_allclose([f.timestamp for f in frames], np.arange(len(frames)) / FPS)
    return np.stack([f.rgb for f in frames])


def test_pictures_come_out_as_they_were_rendered(tmp_path):
    pictures = render(tmp_path / "P000001.mat")
    np.testing.assert_array_equal(video(tmp_path / "P000001.mat"), pictures[:, :, 8:-8])
    np.testing.assert_array_equal(video(tmp_path / "P000001.mat", pictures="RawFrames"), pictures)


def test_each_file_is_prepared_with_its_waves_frame_by_frame(tmp_path):
    for name in ("P000001", "P000017"):
        render(tmp_path / f"{name}.mat")
    prepare({"dataset": "scamps", "root": str(tmp_path)}, tmp_path / "out", workers=1)
    made = open_prepared(tmp_path / "out")
    assert [(r.name, r.subject) for r in made] == [("P000001", "P000001"), ("P000017", "P000017")]
    for r in made:
        assert r.fps == pytest.approx(FPS)
        np.testing.assert_allclose(r.bvp_wave, pulse(r.timestamps), atol=1e-6)
        np.testing.assert_allclose(r.respiration_wave, breath(r.timestamps), atol=1e-6)
        assert "au" not in r.arrays  # the scale of the intensities is not documented


def test_units_count_as_present_above_the_intensity_that_is_given(tmp_path):
    render(tmp_path / "P000001.mat")
    (job,) = jobs({"dataset": "scamps", "root": str(tmp_path), "present": 0.095})
    arrays, meta = job.make()
    assert meta["action_units"] == [f"AU{unit:02d}" for unit in UNITS]
    np.testing.assert_array_equal(arrays["au"][:, UNITS.index(12)], np.arange(len(arrays["au"])) >= 10)
    assert arrays["au"].sum() == (np.arange(len(arrays["au"])) >= 10).sum()


@pytest.mark.parametrize(
    ("array", "values", "reason"),
    [
        ("Xsub", np.full((3, 48, 48, FRAMES), 200.0), "from 200 to 200, expected values from 0 to 1"),
        ("Xsub", np.zeros((48, 48, FRAMES)), r"expected \(3, width, height, frames\)"),
        ("Xsub", None, r"has Xsub of shape \(\)"),
        ("d_br", None, "has no d_br"),
    ],
)
def test_a_file_that_holds_something_else_fails_with_its_reason(tmp_path, array, values, reason):
    render(tmp_path / "P000001.mat")
    with h5py.File(tmp_path / "P000001.mat", "a") as file:
        del file[array]
        if values is not None:
            file[array] = values
    (job,) = jobs({"dataset": "scamps", "root": str(tmp_path)})
    with pytest.raises(ValueError, match=reason):
        job.make()


def test_a_file_that_is_no_hdf5_fails_with_its_reason(tmp_path):
    (tmp_path / "P000001.mat").write_text("MATLAB 5.0 MAT-file")
    (job,) = jobs({"dataset": "scamps", "root": str(tmp_path)})
    with pytest.raises(ValueError, match=r"no MATLAB file of version 7.3"):
        job.make()


def test_options_and_roots_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(ValueError, match="pictures was 'dXsub', expected Xsub or RawFrames"):
        find(tmp_path, pictures="dXsub")
    with pytest.raises(ValueError, match=r"expected files such as P000001.mat"):
        find(tmp_path)
