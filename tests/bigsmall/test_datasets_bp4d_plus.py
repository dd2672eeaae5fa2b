"""bigsmall.datasets.bp4d_plus: archives of pictures, signals at their own rate, codes that are not always known."""

import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bigsmall.datasets import Skip, jobs, open_prepared, prepare
from bigsmall.datasets.bp4d_plus import CODED, find
from bigsmall.weights import ACTION_UNITS

FPS, FRAMES, FIRST, LAST = 25.0, 100, 11, 70  # the coded frames are numbered from 1
RNG = np.random.default_rng(0)


def pressure(seconds: np.ndarray) -> np.ndarray:
    return 90 + 20 * np.sin(2 * np.pi * 1.2 * seconds)


def breath(seconds: np.ndarray) -> np.ndarray:
    return np.sin(2 * np.pi * 0.3 * seconds)


def pictures(root: Path, subject: str, *trials: str) -> None:
    """Portrait pictures whose top, which the square crop leaves out, is black."""
    (root / "2D+3D").mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(root / "2D+3D" / f"{subject}.zip", "w") as archive:
        for trial in trials:
            for number in range(FRAMES):
                rgb = RNG.integers(100, 140, (64, 48, 3), dtype=np.uint8)
                rgb[:10] = 0
                Image.fromarray(rgb).save(file := BytesIO(), "JPEG", quality=95)
                archive.writestr(f"{subject}/{trial}/{number:03d}.jpg", file.getvalue())
                archive.writestr(f"{subject}/{trial}/{number:03d}.obj", "v 0 0 0")


def signals(root: Path, subject: str, trial: str, seconds: float = FRAMES / FPS) -> None:
    folder = root / "Physiology" / subject / trial
    folder.mkdir(parents=True)
    times = np.arange(0, seconds, 0.001)
    for name, values in {
        "BP_mmHg": pressure(times), "Pulse Rate_BPM": np.full(len(times), 72.0),
        "Resp_Volts": breath(times), "Respiration Rate_BPM": np.full(len(times), 18.0),
    }.items():  # fmt: skip
        np.savetxt(folder / f"{name}.txt", values, fmt="%.6f")


def coding(root: Path, subject: str, trial: str, cells: dict[tuple[int, int], int]) -> None:
    """AU_OCC of frames FIRST to LAST: 0 but for `cells`, which are codes by frame and unit."""
    folder = root / "AUCoding" / "AU_OCC"
    folder.mkdir(parents=True, exist_ok=True)
    rows = np.zeros((LAST - FIRST + 1, 1 + len(CODED)), int)
    rows[:, 0] = np.arange(FIRST, LAST + 1)
    for (frame, unit), code in cells.items():
        rows[frame - FIRST, 1 + CODED.index(unit)] = code
    header = ",".join(map(str, (0, *CODED)))
    np.savetxt(folder / f"{subject}_{trial}.csv", rows, fmt="%d", delimiter=",", header=header, comments="")


def intensities(root: Path, subject: str, trial: str, unit: str, values: dict[int, int]) -> None:
    folder = root / "AUCoding" / "AU_INT" / unit
    folder.mkdir(parents=True)
    rows = [(frame, values.get(frame, 0)) for frame in range(FIRST, LAST + 1)]
    np.savetxt(folder / f"{subject}_{trial}_{unit}.csv", rows, fmt="%d", delimiter=",")


@pytest.fixture
def root(tmp_path) -> Path:
    """F001 in T1, which is coded, and T2, which is not; AU12 is present in frames 21 to 30 and unknown in 31 to 35."""
    folder = tmp_path / "BP4D+"
    pictures(folder, "F001", "T1", "T2")
    signals(folder, "F001", "T1")
    signals(folder, "F001", "T2")
    present = {(frame, 12): 1 for frame in range(21, 31)}
    coding(folder, "F001", "T1", {**present, (31, 12): 9, (32, 12): -1, (33, 12): 999, (40, 1): 1})
    return folder


def made(root: Path, name: str = "F001T1", **options: object) -> tuple[dict[str, np.ndarray], dict]:
    found = {job.name: job for job in jobs({"dataset": "bp4d_plus", "root": str(root), **options})}
    return found[name].make()


def frames(arrays: dict[str, np.ndarray]) -> np.ndarray:
    """The numbers, from 1 as in the coding, of the frames that the arrays are of."""
    return np.rint(arrays["timestamps"] * FPS).astype(int) + 1


def test_trials_are_found_with_their_people(root):
    pictures(root, "M002", "T10")
    signals(root, "M002", "T10")
    assert [(r.name, r.subject) for r in find(root)] == [("F001T1", "F001"), ("F001T2", "F001"), ("M002T10", "M002")]
    assert all((r.fps, r.crop, r.pseudo) == (25, "square", "pos") for r in find(root))


def test_each_trial_is_prepared_with_its_signals_at_the_frames_and_its_units(root, tmp_path):
    prepare({"dataset": "bp4d_plus", "root": str(root)}, tmp_path / "out", workers=1)
    first, second = open_prepared(tmp_path / "out")
    assert [first.name, second.name] == ["F001T1", "F001T2"]
    for r in (first, second):
        np.testing.assert_allclose(r.bvp_wave, pressure(r.timestamps), atol=0.1)
        np.testing.assert_allclose(r.respiration_wave, breath(r.timestamps), atol=0.01)
        assert set(np.unique(r.heart_rate)) == {np.float32(72)}
        assert set(np.unique(r.respiration_rate)) == {np.float32(18)}
        assert r.respiration.std() == pytest.approx(1, abs=0.02)
        assert r.big.min() > 60  # the bottom square, without the black top
    assert first.action_units == ACTION_UNITS
    assert "au" not in second.arrays


def test_the_pulse_is_learnt_from_the_pictures_and_measured_against_the_blood_pressure(root):
    pseudo, meta = made(root)
    contact, _ = made(root, pseudo=False)
    assert meta["pseudo"] == "pos"
    np.testing.assert_array_equal(pseudo["bvp_wave"], contact["bvp_wave"])
    slope = np.diff(pressure(np.append(contact["timestamps"], contact["timestamps"][-1] + 1 / FPS)))
    assert np.corrcoef(contact["bvp"], slope)[0, 1] > 0.999
    assert abs(np.corrcoef(pseudo["bvp"], slope)[0, 1]) < 0.5  # the pictures are noise


def test_a_unit_is_known_in_the_frames_that_are_coded_and_nowhere_else(root):
    arrays, meta = made(root)
    assert meta["action_units"] == list(ACTION_UNITS)
    smile, brow, of = arrays["au"][:, ACTION_UNITS.index("AU12")], arrays["au"][:, 0], frames(arrays)
    assert set(of[smile == 1]) == set(range(21, 31))
    assert set(of[smile == 255]) == {*range(1, FIRST), 31, 32, 33, *range(LAST + 1, of[-1] + 1)}
    assert of[brow == 1].tolist() == [40]


def test_what_is_not_coded_counts_as_absent_where_the_released_weights_need_it(root):
    arrays, _ = made(root, missing_as_zero=True)
    smile, of = arrays["au"][:, ACTION_UNITS.index("AU12")], frames(arrays)
    assert set(smile[np.isin(of, (31, 32, 33))]) == {0}
    assert set(of[smile == 1]) == set(range(21, 31))


def test_the_subset_runs_from_the_first_to_the_last_coded_frame_of_the_coded_trials(root):
    assert [r.name for r in find(root, au_subset=True)] == ["F001T1"]
    (recording,) = find(root, au_subset=True)
    assert (recording.first, recording.last) == (FIRST - 1, LAST - 1)
    arrays, _ = made(root, au_subset=True)
    assert frames(arrays)[0] == FIRST
    assert LAST - 3 <= frames(arrays)[-1] < LAST
    assert (arrays["au"][:, 0] != 255).all()
    np.testing.assert_allclose(arrays["bvp_wave"], pressure(arrays["timestamps"]), atol=0.1)


def test_intensities_decide_from_which_one_on_a_unit_is_present(root):
    for unit in ("AU06", "AU10", "AU12", "AU14", "AU17"):
        intensities(root, "F001", "T1", unit, {50: 2, 51: 3, 52: 4, 53: 9} if unit == "AU06" else {})
    arrays, _ = made(root, intensity=3)
    cheek, of = arrays["au"][:, ACTION_UNITS.index("AU06")], frames(arrays)
    assert set(of[cheek == 1]) == {51, 52}
    assert cheek[of == 53] == 255
    assert not (arrays["au"][:, ACTION_UNITS.index("AU12")] == 1).any()
    assert of[arrays["au"][:, 0] == 1].tolist() == [40]  # has no intensities: as coded


def test_the_released_reading_loses_the_first_sample_and_spreads_the_rest_over_the_frames(root):
    arrays, _ = made(root, skip_first=True, labels="linspace")
    wave = np.loadtxt(root / "Physiology" / "F001" / "T1" / "BP_mmHg.txt")[1:]
    expected = np.interp(np.linspace(0, len(wave), FRAMES), np.arange(len(wave)), wave)
    np.testing.assert_allclose(arrays["bvp_wave"], expected[: len(arrays["bvp_wave"])], rtol=1e-6)


def test_signals_shorter_than_the_video_are_unknown_after_their_end_and_told(root):
    pictures(root, "M001", "T3")
    signals(root, "M001", "T3", seconds=3.0)
    arrays, meta = made(root, "M001T3")
    after = arrays["timestamps"] > 3.01
    assert np.isnan(arrays["bvp_wave"][after]).all()
    assert not np.isnan(arrays["bvp_wave"][~after]).any()
    assert any("bvp_wave" in note for note in meta["notes"])


@pytest.mark.parametrize("aligned", [None, "landmarks"])
def test_known_bad_trials_are_skipped_with_their_reason(tmp_path, aligned):
    pictures(tmp_path, "F041", "T7")
    signals(tmp_path, "F041", "T7")
    signals(tmp_path, "F042", "T11")
    for name, reason in (("F041T7", "left out by the authors"), ("F042T11", "a name without data")):
        with pytest.raises(Skip, match=reason):
            made(tmp_path, name, aligned=aligned)


def test_pictures_without_signals_and_signals_or_codes_without_pictures_fail_with_their_reason(root):
    pictures(root, "M003", "T1")
    signals(root, "M004", "T1")
    coding(root, "F001", "T6", {})
    assert [r.name for r in find(root)] == ["F001T1", "F001T2", "F001T6", "M003T1", "M004T1"]
    with pytest.raises(ValueError, match=r"M003/T1/BP_mmHg.txt is missing"):
        made(root, "M003T1")
    with pytest.raises(OSError, match=r"M004.zip"):
        made(root, "M004T1")
    with pytest.raises(ValueError, match=r"F001/T6/BP_mmHg.txt is missing"):
        made(root, "F001T6")


def test_an_archive_that_is_none_fails_with_its_reason(root):
    (root / "2D+3D" / "M005.zip").write_bytes(b"half a download")
    with pytest.raises(ValueError, match=r"M005.zip is no archive of pictures M005/T1"):
        made(root, "M005")
    signals(root, "M005", "T1")
    with pytest.raises(ValueError, match=r"M005.zip cannot be unpacked"):
        made(root, "M005T1")


def test_a_coded_trial_without_codes_fails_in_the_subset(root):
    (root / "AUCoding" / "AU_OCC" / "F001_T1.csv").unlink()
    with pytest.raises(ValueError, match=r"F001_T1.csv is missing"):
        made(root, au_subset=True)


@pytest.mark.parametrize("aligned", ["landmarks", "released"])
def test_faces_can_be_turned_upright_by_the_landmarks(root, aligned):
    """Here the points are those of a face that is level and in the middle already."""
    points = np.zeros((49, 2))
    points[19:25], points[25:31], points[[13, 31]], points[[37, 7]] = (16, 30), (32, 30), (24, 38), (24, 46)
    fit = np.array([[(points,)] * FRAMES], dtype=[("pts_2d", object)]).reshape(1, FRAMES)
    (root / "2DFeatures").mkdir()
    savemat(root / "2DFeatures" / "F001_T1.mat", {"fit": fit})
    arrays, meta = made(root, aligned=aligned)
    assert meta["crop"] == "frame"
    assert arrays["big"].shape[1:] == (144, 144, 3)
    shown = arrays["big"].mean(axis=(0, 3)) > 60  # x 8 to 40 and y 22 to 54 of the picture, none of its black top
    assert shown.all()
    np.testing.assert_allclose(arrays["bvp_wave"], pressure(arrays["timestamps"]), atol=0.1)
    seen = np.concatenate([arrays["landmarks"][:, 19:31].mean(1), arrays["landmarks"][:, 37]], axis=1)
    np.testing.assert_allclose(seen, [[0.5, 0.25, 0.5, 0.75]] * len(seen), atol=0.005)  # the points fill the half
    with pytest.raises(ValueError, match=r"F001_T2.mat has no landmarks"):
        made(root, "F001T2", aligned=aligned)


def test_codes_with_other_columns_are_refused(root):
    (root / "AUCoding" / "AU_OCC" / "F001_T1.csv").write_text("0,1,2\n1,0,0\n")
    with pytest.raises(ValueError, match="3 columns, expected 35"):
        made(root)


def test_options_and_roots_that_make_no_sense_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="intensity was 7"):
        find(root, intensity=7)
    with pytest.raises(ValueError, match="physiology_hz was 0"):
        find(root, physiology_hz=0)
    with pytest.raises(ValueError, match="aligned was 'face'"):
        find(root, aligned="face")
    with pytest.raises(ValueError, match=r"expected 2D\+3D/F001.zip"):
        find(tmp_path / "2D+3D")
