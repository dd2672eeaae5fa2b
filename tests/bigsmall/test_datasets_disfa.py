"""bigsmall.datasets.disfa: the release's videos and intensities, and JAANet's pictures and lists."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bigsmall.datasets import folds, jobs, open_prepared, prepare
from bigsmall.datasets.disfa import UNITS, find
from bigsmall.datasets.folds import DISFA
from bigsmall.video import VideoWriter

FPS, FRAMES = 20.0, 31
RNG = np.random.default_rng(0)


def release(root: Path, name: str, values: dict[int, dict[int, int]], coded: int = FRAMES) -> None:
    """A person of the release: intensities by unit and frame, from 1; 0 otherwise."""
    (root / "Videos_LeftCamera").mkdir(exist_ok=True)
    with VideoWriter(root / "Videos_LeftCamera" / f"LeftVideo{name}_comp.avi", FPS) as writer:
        for rgb in RNG.integers(0, 256, (FRAMES, 48, 64, 3), dtype=np.uint8):
            writer.write(rgb)
    folder = root / "ActionUnit_Labels" / name
    folder.mkdir(parents=True)
    for unit in UNITS[12]:
        lines = [f"{frame},{values.get(unit, {}).get(frame, 0)}" for frame in range(1, coded + 1)]
        (folder / f"{name}_au{unit}.txt").write_text("\n".join(lines) + "\n")


def lists(root: Path, part: str, rows: list[tuple[str, list[int]]]) -> None:
    (root / f"DISFA_{part}_path.txt").write_text("".join(f"{name}\n" for name, _ in rows))
    (root / f"DISFA_{part}_AUoccur.txt").write_text("".join(" ".join(map(str, au)) + "\n" for _, au in rows))


def pictures(folder: Path, numbers: range) -> None:
    folder.mkdir()
    for n in numbers:
        Image.fromarray(RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)).save(folder / f"{n}.jpg")


@pytest.fixture
def root(tmp_path) -> Path:
    folder = tmp_path / "DISFA"
    folder.mkdir()
    release(folder, "SN001", {12: {11: 1, 12: 2, 13: 5}, 5: {20: 3}})
    release(folder, "SN010", {1: {31: 4}}, coded=FRAMES + 1)  # coded for longer than it was filmed
    return folder


def made(root: Path, name: str = "SN001", **options: object) -> tuple[dict[str, np.ndarray], dict]:
    found = {job.name: job for job in jobs({"dataset": "disfa", "root": str(root), "crop": "frame", **options})}
    return found[name].make()


def test_a_person_is_a_video_with_twelve_units_present_from_intensity_two(root, tmp_path):
    prepare({"dataset": "disfa", "root": str(root), "crop": "frame"}, tmp_path / "out", workers=1)
    first, second = open_prepared(tmp_path / "out")
    assert [(r.name, r.subject) for r in (first, second)] == [("SN001", "SN001"), ("SN010", "SN010")]
    assert first.action_units == tuple(f"AU{u:02d}" for u in UNITS[12])
    assert first.fps == pytest.approx(FPS)
    of = np.rint(first.timestamps * FPS).astype(int) + 1
    assert of[first.au[:, UNITS[12].index(12)] == 1].tolist() == [12, 13]
    assert of[first.au[:, UNITS[12].index(5)] == 1].tolist() == [20]
    assert first.au.sum() == 3
    assert second.au.max() == 0
    assert "bvp" not in first.arrays


def test_the_eight_units_and_another_intensity_are_options(root):
    arrays, meta = made(root, units=8, present=1)
    assert meta["action_units"] == ["AU01", "AU02", "AU04", "AU06", "AU09", "AU12", "AU25", "AU26"]
    assert arrays["au"].sum() == 3  # of AU12; AU05 is not among the eight


def test_an_intensity_that_is_none_is_unknown(root):
    path = root / "ActionUnit_Labels" / "SN001" / "SN001_au12.txt"
    path.write_text(path.read_text().replace("\n3,0\n", "\n3,9\n"))
    arrays, _ = made(root)
    assert arrays["au"][2, UNITS[12].index(12)] == 255
    assert (arrays["au"] == 255).sum() == 1


def test_three_folds_are_the_ones_that_the_field_compares_itself_on():
    everybody = [name for fold in DISFA for name in fold]
    assert len(set(everybody)) == 27
    assert folds(everybody, 3, seed=1) == {name: k for k, fold in enumerate(DISFA) for name in fold}
    some = ["SN001", "SN003", "SN006"]
    assert folds(some, 3) == {"SN003": 0, "SN006": 1, "SN001": 2}
    assert sorted(folds([*some, "M001"], 3).values()) == [0, 0, 1, 2]  # not DISFA
    assert sorted(folds(everybody, 9, seed=1).values()) == sorted([*range(9)] * 3)


def test_pictures_with_lists_are_read_as_jaanet_lays_them_out(tmp_path):
    """With a picture that no list names, and a number that is missing: a gap in time."""
    pictures(tmp_path / "SN002", range(20))
    pictures(tmp_path / "SN003", range(20))
    (tmp_path / "SN003" / "10.jpg").unlink()
    smile = [0, 0, 0, 0, 0, 1, 0, 0]
    lists(tmp_path, "part1", [(f"SN002/{n}.jpg", smile if n in (4, 5) else [0] * 8) for n in range(19)])
    lists(tmp_path, "part3", [(f"SN003/{n}.jpg", smile) for n in range(20) if n != 10])
    first, meta = made(tmp_path, "SN002", units=8)
    assert meta["fps"] == pytest.approx(FPS)
    assert np.flatnonzero(first["au"][:, 5] == 1).tolist() == [4, 5]
    second, _ = made(tmp_path, "SN003", units=8)
    assert (second["au"][:, 5] == 1).all()
    assert 0.5 not in second["timestamps"].round(6)
    assert [r.labels().au[-1].tolist() for r in find(tmp_path, units=8)] == [[255] * 8, smile]


def test_landmarks_of_the_lists_lie_in_the_crop(tmp_path):
    """x y x y ... in pixels of the picture, 64 wide and 48 high; the crop begins at 8, 4 and is 32 pixels wide."""
    pictures(tmp_path / "SN002", range(8))
    lists(tmp_path, "part1", [(f"SN002/{n}.jpg", [1] * 8) for n in range(7)])
    points = RNG.uniform(8, 40, (7, 49, 2))
    points[3, 30] = np.nan
    np.savetxt(tmp_path / "DISFA_part1_land.txt", points.reshape(7, 98), fmt="%.5f")
    arrays, _ = made(tmp_path, "SN002", units=8, crop="8,4,32,32")
    assert arrays["landmarks"].dtype == np.float32
    unknown = np.isnan(arrays["landmarks"]).all((1, 2))
    of = np.rint(arrays["timestamps"] * FPS).astype(int)
    assert set(of[unknown]) == {3} | ({7} & set(of))  # one lacks a point, one is not listed
    expected = (points[of[~unknown]] + 0.5 - (8, 4)) / 32
    np.testing.assert_allclose(arrays["landmarks"][~unknown], expected, atol=1e-5)
    (tmp_path / "DISFA_part1_land.txt").write_text("1 2 3\n")
    with pytest.raises(ValueError, match=r"_land.txt has 3 columns, expected 98"):
        find(tmp_path, units=8)


def test_lists_may_lie_elsewhere(tmp_path):
    pictures(tmp_path / "SN002", range(8))
    (tmp_path / "list").mkdir()
    lists(tmp_path / "list", "part1", [(f"SN002/{n}.jpg", [1] * 12) for n in range(8)])
    assert [r.subject for r in find(tmp_path, lists=str(tmp_path / "list"))] == ["SN002"]


def test_units_without_a_video_and_a_video_without_units_fail_with_their_reason(root):
    (root / "Videos_LeftCamera" / "LeftVideoSN001_comp.avi").unlink()
    (root / "ActionUnit_Labels" / "SN010" / "SN010_au26.txt").unlink()
    with pytest.raises(ValueError, match=r"LeftVideoSN001_comp.avi does not exist"):
        made(root, "SN001")
    with pytest.raises(ValueError, match=r"SN010_au26.txt is missing"):
        made(root, "SN010")


def test_lists_that_do_not_fit_are_refused(tmp_path):
    pictures(tmp_path / "SN002", range(8))
    lists(tmp_path, "part1", [(f"SN002/{n}.jpg", [1] * 8) for n in range(9)])
    with pytest.raises(ValueError, match=r"labels of shape \(9, 8\), expected 12 units"):
        find(tmp_path)
    with pytest.raises(ValueError, match=r"SN002 has no 8.jpg"):
        made(tmp_path, "SN002", units=8)


def test_options_and_roots_that_make_no_sense_are_refused(root, tmp_path):
    with pytest.raises(ValueError, match="units was 9"):
        find(root, units=9)
    with pytest.raises(ValueError, match="present was 0"):
        find(root, present=0)
    with pytest.raises(ValueError, match=r"expected Videos_LeftCamera/LeftVideoSN001_comp.avi"):
        find(tmp_path)
