"""bigsmall.datasets.landmarks: faces turned upright, and the same as OpenCV would."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from bigsmall.datasets.landmarks import AlignedVideo, read_landmarks, similarity, warp
from bigsmall.video import open_video

EYES, AROUND = (range(19, 25), range(25, 31)), (13, 31, 37)


def face(turn: float = 0.0, scale: float = 1.0, x: float = 0.0, y: float = 0.0, low: float = 60.0) -> np.ndarray:
    """49 points: eyes at (-30, 0) and (30, 0), the others at (0, 30), (-15, 60) and (15, `low`), turned and moved."""
    points = np.zeros((49, 2))
    points[EYES[0]], points[EYES[1]] = (-30, 0), (30, 0)
    points[EYES[0], 0] += (-5, -3, -1, 1, 3, 5)
    points[list(AROUND)] = (0, 30), (-15, 60), (15, low)
    points[7] = (0, 15)
    c, s = np.cos(turn), np.sin(turn)
    return scale * points @ np.array([[c, s], [-s, c]]) + (x, y)


def seen(points: np.ndarray, **options: bool) -> np.ndarray:
    """Where the points come to lie."""
    matrix = similarity(points, **options)
    return points @ matrix[:, :2].T + matrix[:, 2]


@pytest.mark.parametrize("how", [{}, {"turn": 0.4}, {"scale": 3.1}, {"turn": -1.0, "scale": 0.7, "x": 200, "y": -40}])
def test_the_eyes_are_level_and_the_points_fill_half_of_the_picture(how):
    points = seen(face(**how))
    left, right = (points[eye].mean(0) for eye in EYES)
    assert left[1] == pytest.approx(right[1])
    assert left[0] < right[0]
    box = np.stack([left, right, *points[list(AROUND)]])
    np.testing.assert_allclose((box.min(0) + box.max(0)) / 2, 71.5)
    np.testing.assert_allclose(np.ptp(box, axis=0), 143 / 2)  # the face is as wide as high


def test_the_authors_mistake_takes_the_height_of_another_point():
    points = face(low=90)
    np.testing.assert_allclose(similarity(points, released=True), similarity(face(low=15)))
    assert similarity(points, released=True)[0, 0] == pytest.approx(1.5 * similarity(points)[0, 0])  # 60 high, not 90


def test_a_picture_comes_out_as_by_opencv():
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[:200, :240]
    rgb = np.stack([x, y, 128 + 60 * np.sin(x / 9) * np.cos(y / 7)], axis=2).astype(np.uint8)
    matrix = similarity(face(turn=0.3, scale=1.2, x=150, y=40))
    theirs = cv2.warpAffine(rgb, matrix, (144, 144), flags=cv2.INTER_LINEAR)
    difference = np.abs(warp(rgb, matrix).astype(int) - theirs)
    assert (theirs == 0).all(axis=2).mean() > 0.01  # some of it is outside
    assert difference.mean() < 0.5  # OpenCV's positions are 1/32 of a pixel
    assert np.quantile(difference, 0.99) <= 3


def mat(path: Path, points: list[np.ndarray]) -> Path:
    fit = np.empty((1, len(points)), dtype=[("pts_2d", object)])
    for i, of in enumerate(points):
        fit[0, i]["pts_2d"] = of
    savemat(path, {"fit": fit})
    return path


def test_landmarks_are_read_and_a_frame_without_them_is_unknown(tmp_path):
    points = read_landmarks(mat(tmp_path / "F001_T1.mat", [face(), np.zeros((0, 0)), face(x=5)]))
    np.testing.assert_allclose(points[[0, 2]], [face(), face(x=5)])
    assert np.isnan(points[1]).all()


def test_files_without_landmarks_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"F001_T1.mat has no landmarks"):
        read_landmarks(tmp_path / "F001_T1.mat")
    savemat(tmp_path / "F001_T2.mat", {"other": 1})
    with pytest.raises(ValueError, match=r"F001_T2.mat has no landmarks"):
        read_landmarks(tmp_path / "F001_T2.mat")
    with pytest.raises(ValueError, match="landmarks of no frame"):
        read_landmarks(mat(tmp_path / "F001_T3.mat", [np.zeros((0, 0))] * 3))


def test_a_video_is_aligned_frame_by_frame_by_its_last_known_landmarks():
    frames = np.random.default_rng(0).integers(0, 256, (5, 120, 160, 3), dtype=np.uint8)
    here, there = face(x=80, y=20), face(turn=0.2, x=70, y=30)
    unseen = np.full((49, 2), np.nan)
    video = AlignedVideo(open_video(frames, fps=25), np.stack([unseen, here, unseen, there]))
    for _ in range(2):
        made = list(video)
        assert [f.index for f in made] == [0, 1, 2, 3]
        for frame, points in zip(made, (here, here, here, there), strict=True):
            np.testing.assert_array_equal(frame.rgb, warp(frames[frame.index], similarity(points)))
        assert "2 frames have no landmarks" in video.note
        assert "landmarks of 4 frames only" in video.note
