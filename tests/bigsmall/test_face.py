"""bigsmall.face: faces are found where they are, held still, lost and found again in so many words."""

import os
import pickle
from itertools import islice

import numpy as np
import pytest
import torch

from bigsmall.face import (
    Face,
    FaceDetector,
    FaceTracker,
    FaceWeightsError,
    crop_box,
    face_scale,
    networks,
    parse_crop,
)
from bigsmall.video import Frame, open_video

lz4_frame = pytest.importorskip("lz4.frame")
LANDMARKS = np.zeros((5, 2))


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture
def portrait(reference_dir) -> np.ndarray:
    return next(iter(open_video(reference_dir / "media" / "pyfeat_single_face.jpg"))).rgb


def test_one_face_with_landmarks_in_their_places(detector, portrait):
    (face,) = detector.detect(portrait)
    left_eye, right_eye, nose, left_mouth, right_mouth = face.landmarks
    assert face.confidence > 0.95
    assert left_eye[0] < nose[0] < right_eye[0]
    assert left_mouth[0] < nose[0] < right_mouth[0]
    assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
    inside = (face.landmarks > (face.x, face.y)) & (face.landmarks < (face.x + face.w, face.y + face.h))
    assert inside.all()


def test_the_box_follows_the_picture_when_it_is_moved_or_enlarged(detector, portrait):
    (face,) = detector.detect(portrait)
    grey = np.full((800, 900, 3), 127, np.uint8)
    grey[100 : 100 + portrait.shape[0], 200 : 200 + portrait.shape[1]] = portrait
    (moved,) = detector.detect(grey)
    assert np.abs(np.subtract(moved[:4], (face.x + 200, face.y + 100, face.w, face.h))).max() < 0.15 * face.w
    (doubled,) = detector.detect(portrait.repeat(2, 0).repeat(2, 1))
    assert np.abs(np.subtract(doubled[:4], np.multiply(face[:4], 2))).max() < 0.3 * face.w
    (strided,) = detector.detect(portrait.repeat(2, 0).repeat(2, 1)[::2, ::2])
    assert strided[:4] == pytest.approx(face[:4])


def test_at_least_four_faces_in_a_group(detector, reference_dir):
    rgb = next(iter(open_video(reference_dir / "media" / "pyfeat_multi_face.jpg"))).rgb
    faces = detector.detect(rgb)
    assert len(faces) >= 4
    for face in faces:
        assert 0 <= face.x + face.w / 2 < rgb.shape[1]
        assert 0.03 * rgb.shape[1] < face.w < 0.3 * rgb.shape[1]


@pytest.mark.parametrize("rgb", [
    np.full((240, 320, 3), 127, np.uint8),
    np.zeros((240, 320, 3), np.uint8),
    np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8),
    np.zeros((5, 9, 3), np.uint8),
], ids=["wall", "black", "noise", "tiny"])  # fmt: skip
def test_no_face_where_there_is_none(detector, rgb):
    assert detector.detect(rgb) == []


def test_the_callers_threads_are_left_as_they_were(detector):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        detector.detect(np.zeros((64, 64, 3), np.uint8))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_picture_of_another_kind_is_refused(detector):
    with pytest.raises(ValueError, match="float32"):
        detector.detect(np.zeros((50, 50, 3), np.float32))


def tracks(path, first=0, last=None):
    """The one face of each frame, None where there is none."""
    tracker = FaceTracker()
    return [next(iter(tracker.update(frame)), None) for frame in islice(open_video(path), first, last)]


def test_a_still_face_keeps_one_box(reference_dir):
    found = tracks(reference_dir / "media" / "evm_face.mp4", 0, 120)
    assert len(found) == 120
    assert all(found)
    assert len({track.face[:4] for track in found}) == 1


def test_a_smile_moves_the_box_seldom(reference_dir):
    found = tracks(reference_dir / "media" / "pyfeat_single_face.mp4")
    assert all(found)
    assert len({track.face[:4] for track in found}) <= 3


def test_a_face_that_leaves_is_lost_where_the_picture_is_cut(reference_dir):
    found = tracks(reference_dir / "media" / "pyfeat_face_noface.mov", 40, 100)
    cut = 72 - 40  # the first frame of the cartoon
    assert all(found[:cut])
    assert not any(found[cut + 3 :])


def test_a_film_without_a_face_has_none(reference_dir):
    assert not any(tracks(reference_dir / "media" / "pyfeat_no_face.mp4", 0, 48))


class Script:
    """A detector that finds what it is told, by the number of the call."""

    def __init__(self, *faces: Face | None) -> None:
        self.faces, self.calls = list(faces), 0

    def detect(self, rgb: np.ndarray) -> list[Face]:
        face = self.faces[min(self.calls, len(self.faces) - 1)]
        self.calls += 1
        return [] if face is None else [face]

    def verify(self, rgb: np.ndarray, face: Face) -> Face | None:
        return face


def at(x: float, w: float = 100.0) -> Face:
    return Face(x, 50.0, w, 120.0, 0.99, LANDMARKS)


def follow(*faces: Face | None) -> list[float | None]:
    """Where the box is held, one detection after the other."""
    tracker = FaceTracker(Script(*faces), detect_every=0.5, look_every=0.5)
    found = [tracker.update(Frame(i, i * 0.5, np.zeros((1, 1, 3), np.uint8))) for i in range(len(faces))]
    return [track[0].face.x if track else None for track in found]


def test_the_box_is_held_still_until_the_face_has_really_moved():
    assert follow(at(0), at(4), at(8), at(11), at(30), at(34)) == [0, 0, 0, 0, 30, 30]
    assert follow(at(0), at(0, w=150.0)) == [0, 0]
    assert follow(at(0), None, None, at(300)) == [0, None, None, 300]


def test_detection_is_as_seldom_as_asked_and_at_once_after_a_loss():
    script = Script(at(0), None, None, at(0), at(0))
    tracker = FaceTracker(script, detect_every=0.5, look_every=0.1)
    calls = []
    for i in range(30):
        tracker.update(Frame(i, i / 30, np.zeros((1, 1, 3), np.uint8)))
        calls.append(script.calls)
    assert calls[0] == 1
    assert calls[14] == 1
    assert calls[15] == 2  # half a second later
    assert calls[18] == 3  # lost: looked for again a tenth of a second later
    assert calls[21] == 4  # and again, found
    assert calls[29] == 4


def test_the_weights_are_those_that_were_checked(monkeypatch):
    monkeypatch.setitem(networks.SHA256, "rnet", "0" * 64)
    with pytest.raises(FaceWeightsError, match="expected 0000"):
        networks.load("rnet")


def test_missing_weights_are_one_sentence(monkeypatch):
    def missing(name: str) -> None:
        raise networks.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(networks.metadata, "distribution", missing)
    with pytest.raises(FaceWeightsError, match=r"install mtcnn==1\.0\.0"):
        networks.load("pnet")


def test_a_weight_file_can_run_nothing(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    with pytest.raises(pickle.UnpicklingError, match="mkdir"):
        networks.read_arrays(lz4_frame.compress(pickle.dumps([Evil()])))
    assert not (tmp_path / "made").exists()


def test_crops():
    face = Face(100.0, 80.0, 60.0, 80.0, 1.0, LANDMARKS)
    assert crop_box("frame", None, 640, 480) == (0, 0, 640, 480)
    assert crop_box("square", None, 528, 592) == (0, 64, 528, 528)  # portrait: the bottom square
    assert crop_box("square", None, 640, 480) == (80, 0, 480, 480)  # landscape: the centre square
    assert crop_box("face", face, 640, 480) == (70, 60, 120, 120)  # 1.5 x 80 around (130, 120)
    assert crop_box("face:2", face, 640, 480) == (50, 40, 160, 160)
    assert crop_box("face:8", face, 640, 480) == (0, 0, 480, 480)  # never larger than the picture
    assert crop_box("face", None, 640, 480) is None
    assert crop_box((1, 2, 30, 40), None, 640, 480) == (1, 2, 30, 40)


@pytest.mark.parametrize("x", [-500.0, -20.0, 0.0, 250.0, 600.0, 900.0])
@pytest.mark.parametrize("size", [3.0, 90.0, 2000.0])
def test_a_crop_stays_inside_the_picture(x, size):
    box = crop_box("face", Face(x, x, size, size, 1.0, LANDMARKS), 640, 480)
    assert box is not None
    assert box[0] >= 0 <= box[1]
    assert box[2] == box[3] >= 1
    assert box[0] + box[2] <= 640
    assert box[1] + box[3] <= 480


def test_crops_by_name_or_numbers():
    assert parse_crop("square") == "square"
    assert parse_crop("face:1.8") == "face:1.8"
    assert parse_crop("0,0,528,528") == (0, 0, 528, 528)
    assert [face_scale(crop) for crop in ("face", "face:2", "square", (1, 2, 3, 4))] == [1.5, 2.0, None, None]
    for text in ("circle", "1,2,3", "a,b,c,d", ""):
        with pytest.raises(ValueError, match="crop was"):
            parse_crop(text)
    with pytest.raises(ValueError, match="inside the picture of 640x480"):
        crop_box((600, 0, 50, 50), None, 640, 480)
    with pytest.raises(ValueError, match="crop was 'circle'"):
        crop_box("circle", None, 640, 480)
    for text in ("face:", "face:0.2", "face:11", "face:nan", "face:wide"):
        with pytest.raises(ValueError, match=r"a scale S from 0\.5 to 10"):
            parse_crop(text)
        with pytest.raises(ValueError, match=r"a scale S from 0\.5 to 10"):
            crop_box(text, None, 640, 480)
