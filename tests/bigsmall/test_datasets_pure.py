"""bigsmall.datasets.pure: pictures and samples named by one clock, which neither keeps evenly."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigsmall.datasets import jobs, open_prepared, prepare
from bigsmall.datasets.pure import find

ORIGIN = 1392643993642815000  # ns, as in the release
RNG = np.random.default_rng(0)


def pulse(seconds: np.ndarray) -> np.ndarray:
    return 50 + 40 * np.sin(2 * np.pi * 1.1 * seconds)


def uneven(n: int, rate: float) -> np.ndarray:
    """Nanoseconds of n events about `rate` a second."""
    steps = RNG.uniform(0.7, 1.3, n) / rate
    return ORIGIN + np.cumsum(1e9 * steps).astype(np.int64)


def sequence(folder: Path, images: Path, frames: np.ndarray, samples: np.ndarray) -> None:
    images.mkdir(parents=True)
    for stamp in frames:
        Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(images / f"Image{stamp}.png")
    (images / "Thumbs.db").touch()
    waves = pulse((samples - ORIGIN) / 1e9)
    package = [
        {"Timestamp": int(t), "Value": {"waveform": float(v), "pulseRate": 66, "o2saturation": 97}}
        for t, v in zip(samples, waves, strict=True)
    ]
    named = [{"Timestamp": int(t), "Source": f"Image{t}"} for t in frames]
    (folder / f"{folder.name}.json").write_text(json.dumps({"/FullPackage": package, "/Image": named}))


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "PURE"
    sequence(folder / "01-01", folder / "01-01" / "01-01", uneven(60, 30), uneven(140, 60))
    sequence(folder / "03-06", folder / "03-06", uneven(60, 30), uneven(140, 60))  # pictures beside the JSON
    (folder / "06-02").mkdir()
    return folder


def test_people_and_setups_are_the_names_of_the_folders(root):
    assert [(r.name, r.subject) for r in find(root)] == [("01-01", "01"), ("03-06", "03"), ("06-02", "06")]


def test_labels_are_read_at_the_pictures_own_times(root, tmp_path):
    manifest = prepare({"dataset": "pure", "root": str(root), "crop": "frame"}, tmp_path / "out", workers=1)
    entries = {e["name"]: e for e in json.loads(manifest.read_text())["recordings"]}
    assert entries["06-02"]["status"] == "skipped"
    assert entries["06-02"]["reason"] == "empty in the public release"
    for r in open_prepared(tmp_path / "out"):
        stamps = sorted(int(p.stem[5:]) for p in root.glob(f"{r.name}/**/*.png"))
        seconds = (np.array(stamps) - stamps[0]) / 1e9
        np.testing.assert_allclose(r.timestamps, seconds[: len(r)], atol=1e-6)
        known = ~np.isnan(r.bvp_wave)
        assert known.mean() > 0.9
        offset = (stamps[0] - ORIGIN) / 1e9
        np.testing.assert_allclose(r.bvp_wave[known], pulse(r.timestamps[known] + offset), atol=1.0)
        assert set(np.unique(r.heart_rate[known])) == {np.float32(66)}


def test_before_the_oximeter_starts_the_pulse_is_unknown(tmp_path):
    frames = uneven(60, 30)
    sequence(tmp_path / "02-01", tmp_path / "02-01" / "02-01", frames, uneven(140, 60) + 500_000_000)
    (job,) = jobs({"dataset": "pure", "root": str(tmp_path), "crop": "frame"})
    arrays, _ = job.make()
    before = arrays["timestamps"] + (frames[0] - ORIGIN) / 1e9 < 0.5
    assert 5 < before.sum() < 30
    assert np.isnan(arrays["bvp_wave"][before]).all()


def test_the_released_reading_by_index_is_a_switch(root):
    """The first sample on the first picture, the last on the last, whatever the two clocks say (FACTS 4)."""
    job, *_ = jobs({"dataset": "pure", "root": str(root), "crop": "frame", "labels": "toolbox"})
    arrays, _ = job.make()
    package = json.loads((root / "01-01" / "01-01.json").read_text())["/FullPackage"]
    waves = np.array([entry["Value"]["waveform"] for entry in package])
    expected = np.interp(np.linspace(0, len(waves) - 1, 60), np.arange(len(waves)), waves)
    np.testing.assert_allclose(arrays["bvp_wave"], expected[: len(arrays["bvp_wave"])], rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda folder: (folder / "01-01.json").unlink(), "01-01.json is missing"),
        (lambda folder: (folder / "01-01.json").write_text("{}"), "no recording of PURE"),
        (lambda folder: (folder / "01-01" / "other.png").touch(), "61 PNG files, 60 of them"),
    ],
)
def test_a_recording_that_cannot_be_read_fails_with_its_reason(root, spoil, reason):
    spoil(root / "01-01")
    job, *_ = jobs({"dataset": "pure", "root": str(root), "crop": "frame"})
    with pytest.raises(ValueError, match=reason):
        job.make()


def test_another_folder_is_refused_with_what_was_expected(tmp_path):
    with pytest.raises(ValueError, match="holds nothing, expected folders such as 01-01"):
        find(tmp_path)
