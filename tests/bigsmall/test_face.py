"""bigsmall.face: faces are found where they are, held still, lost and found again in so many words."""

import math
import os
import pickle
from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
from scipy import ndimage

from bigsmall.face import (
    Face,
    FaceDetector,
    FaceTracker,
    FaceWeightsError,
    Track,
    crop_box,
    face_scale,
    networks,
    parse_crop,
)
from bigsmall.face.detector import SURE
from bigsmall.face.tracker import overlap
from bigsmall.synthesis import synthesize
from bigsmall.video import Frame, open_video

lz4_frame = pytest.importorskip("lz4.frame")
LANDMARKS = np.zeros((5, 2))
WALL = np.full((48, 64, 3), 127, np.uint8)


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


def near(found: list[Face], expected: Face) -> bool:
    return len(found) == 1 and overlap(found[0], expected) > 0.75


@pytest.mark.parametrize("angle", [-30, 30])
def test_a_tilted_face_is_found(detector, portrait, angle):
    (face,) = detector.detect(portrait)
    tilted = ndimage.rotate(portrait, angle, reshape=False, order=1, cval=127)
    (found,) = detector.detect(tilted)
    eyes = np.subtract(found.landmarks[1], found.landmarks[0])
    assert math.degrees(math.atan2(-eyes[1], eyes[0])) == pytest.approx(angle, abs=12)
    assert found.w == pytest.approx(face.w, rel=0.3)


@pytest.mark.parametrize("light", [0.15, 0.05])
def test_a_face_in_dim_light_is_found(detector, portrait, light):
    (face,) = detector.detect(portrait)
    assert near(detector.detect((portrait * light).astype(np.uint8)), face)


def test_a_lit_face_in_a_dark_room_is_found(detector, portrait):
    (face,) = detector.detect(portrait)
    x, y, w, h = (round(side) for side in face[:4])
    dark = portrait // 40
    dark[y : y + h, x : x + w] = portrait[y : y + h, x : x + w]
    assert near(detector.detect(dark), face)


def test_a_face_partly_over_the_edge_of_the_picture_is_found(detector, portrait):
    (face,) = detector.detect(portrait)
    start = round(face.x + 0.3 * face.w)
    (found,) = detector.detect(portrait[:, start:])
    assert found.x + found.w == pytest.approx(face.x + face.w - start, abs=0.15 * face.w)


def test_a_small_face_in_a_very_large_picture_is_found(detector, portrait):
    (face,) = detector.detect(portrait)
    room = np.full((2160, 3840, 3), 90, np.uint8)
    room[1500 : 1500 + portrait.shape[0], 3000 : 3000 + portrait.shape[1]] = portrait
    assert near(detector.detect(room), face._replace(x=face.x + 3000, y=face.y + 1500))


@pytest.mark.parametrize("light", [0.8, 0.08])
@pytest.mark.parametrize("tone", [0.0, 0.5, 1.0])
def test_faces_of_every_skin_tone_are_found(detector, tone, light):
    simulation = synthesize(skin_tone=tone, light=light, seconds=0.1, fps=10.0, size=(200, 200))
    (found,) = detector.detect(next(iter(simulation)))
    assert overlap(found, Face(*simulation.box, 1.0, LANDMARKS)) > 0.5


def test_looking_again_tells_a_face_from_a_spot_without_one(detector, portrait):
    (face,) = detector.detect(portrait)
    here, shifted, gone = detector.verify(
        portrait, [face, face._replace(x=face.x + 0.2 * face.w), face._replace(x=5.0, y=5.0, w=60.0, h=60.0)]
    )
    assert near([here], face)
    assert near([shifted], face)
    assert min(here.confidence, shifted.confidence) > SURE > gone.confidence


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


@pytest.mark.filterwarnings("error")
def test_a_picture_need_not_be_writable(detector):
    rgb = np.full((50, 50, 3), 90, np.uint8)
    rgb.flags.writeable = False
    detector.detect(rgb)


def test_a_picture_of_another_kind_is_refused(detector):
    with pytest.raises(ValueError, match="float32"):
        detector.detect(np.zeros((50, 50, 3), np.float32))


def films(path, first=0, last=None, **options):
    """The tracks of each frame."""
    tracker = FaceTracker(**options)
    return [tracker.update(frame) for frame in islice(open_video(path), first, last)]


def boxes(found):
    return {track.face[:4] for tracks in found for track in tracks}


def test_a_still_face_keeps_one_box(reference_dir):
    found = films(reference_dir / "media" / "evm_face.mp4", 0, 120)
    assert [[track.face_id for track in tracks] for tracks in found] == [[0]] * 120
    assert len(boxes(found)) == 1


def test_a_smile_moves_the_box_seldom(reference_dir):
    found = films(reference_dir / "media" / "pyfeat_single_face.mp4")
    assert all(found)
    assert len(boxes(found)) <= 3


def test_a_face_is_lost_with_the_frame_in_which_the_film_is_cut(reference_dir):
    found = films(reference_dir / "media" / "pyfeat_face_noface.mov")
    assert [bool(tracks) for tracks in found] == [True] * 72 + [False] * (len(found) - 72)


def test_a_film_without_a_face_has_none(reference_dir):
    assert not any(films(reference_dir / "media" / "pyfeat_no_face.mp4", 0, 48, several=True))


def test_every_face_of_a_group_has_its_own_number(detector, reference_dir):
    rgb = next(iter(open_video(reference_dir / "media" / "pyfeat_multi_face.jpg"))).rgb
    noise = np.random.default_rng(0)
    tracker = FaceTracker(detector, several=True)
    found = []
    for i in range(32):
        noisy = np.clip(rgb + noise.integers(-5, 6, rgb.shape, np.int16), 0, 255).astype(np.uint8)
        found.append(tracker.update(Frame(i, i / 10, noisy)))
    numbers = {tuple(track.face_id for track in tracks) for tracks in found}
    assert numbers == {tuple(range(len(found[0])))}
    assert len(found[0]) >= 4
    assert len(boxes(found)) == len(found[0])  # all held still


def test_a_person_who_leaves_the_picture_is_lost_and_known_again(detector):
    film = synthesize(seconds=7, fps=10.0, size=(200, 200), away=(2.0, 4.0), gestures=20.0, seed=3)
    tracker = FaceTracker(detector)
    found = [tracker.update(Frame(i, t, rgb)) for i, (t, rgb) in enumerate(zip(film.timestamps, film, strict=True))]
    assert all(found[:12])
    assert not any(found[26:40])
    assert all(found[54:])
    assert {track.face_id for tracks in found for track in tracks} == {0}


class Stage:
    """A detector that finds whoever is on stage: people are functions of the time, None while they are away."""

    def __init__(self, *people: Callable[[float], Face | None]) -> None:
        self.people, self.now = people, 0.0
        self.searches = self.looks = 0

    def detect(self, rgb: np.ndarray) -> list[Face]:
        self.searches += 1
        return [face for person in self.people if (face := person(self.now)) is not None]

    def verify(self, rgb: np.ndarray, faces: list[Face]) -> list[Face]:
        self.looks += len(faces)
        there = [face for person in self.people if (face := person(self.now)) is not None]
        near = [max(there, key=lambda other: overlap(face, other), default=face) for face in faces]
        return [
            other if overlap(face, other) > 0.3 and other in there else face._replace(confidence=0.1)
            for face, other in zip(faces, near, strict=True)
        ]

    def play(self, seconds: float, fps: float = 20.0, picture=lambda now: WALL, **options) -> list[list[Track]]:
        tracker, found = FaceTracker(self, **options), []
        for i in range(round(seconds * fps)):
            self.now = i / fps
            found.append(tracker.update(Frame(i, self.now, picture(self.now))))
        return found


def at(x: float, w: float = 100.0, y: float = 50.0) -> Face:
    """A face around (x, y)."""
    return Face(x - w / 2, y - 0.6 * w, w, 1.2 * w, 0.99, LANDMARKS)


def centres(found: list[list[Track]]) -> list[float | None]:
    return [round(tracks[0].face.x + tracks[0].face.w / 2, 6) if tracks else None for tracks in found]


def test_a_box_is_held_still_while_the_detector_jitters():
    jitter = np.random.default_rng(0).normal(0, 0.04, (1000, 2))
    found = Stage(lambda t: at(200 + 100 * jitter[int(20 * t), 0], 100 * (1 + jitter[int(20 * t), 1]))).play(30)
    assert all(found)
    assert len(boxes(found)) == 1


def test_a_box_is_held_still_while_the_head_nods_to_and_fro():
    found = Stage(lambda t: at(200 + 15 * math.sin(2 * math.pi * 0.8 * t))).play(20)
    assert len(boxes(found)) == 1


def test_a_face_that_drifts_or_grows_is_followed_in_steps():
    drift = Stage(lambda t: at(200 + 10 * t)).play(20)  # a tenth of its width a second
    assert 10 <= len(boxes(drift)) <= 17
    assert max(abs(x - 200 - 10 * i / 20) for i, x in enumerate(centres(drift))) < 25
    zoom = Stage(lambda t: at(300, 80 * 1.05**t)).play(15)
    assert 3 <= len(boxes(zoom)) <= 8
    assert max(abs(math.log(tracks[0].face.w / (80 * 1.05 ** (i / 20)))) for i, tracks in enumerate(zoom)) < 0.25


def test_a_face_that_jumps_is_followed_at_once_and_one_that_shifts_within_a_second():
    jump = centres(Stage(lambda t: at(200 if t < 3 else 230)).play(6))
    assert jump == [200] * 60 + [230] * 60
    shift = centres(Stage(lambda t: at(200 if t < 3 else 216)).play(6))
    assert shift[:60] == [200] * 60
    assert set(shift[60:80]) == {200, 216}
    assert shift[80:] == [216] * 40


def test_a_blink_of_the_detector_does_not_cut_the_stretch_but_lowers_the_confidence():
    found = Stage(lambda t: None if 3 < t < 3.4 else at(200)).play(6)
    assert centres(found) == [200] * 120
    assert found[50][0].confidence == 0.99
    assert found[66][0].confidence == 0.1


def test_a_face_that_leaves_is_lost_after_half_a_second_and_back_when_it_returns():
    found = centres(Stage(lambda t: None if 3 <= t < 6 else at(200)).play(9))
    assert found == [200] * 70 + [None] * 50 + [200] * 60


def test_a_cut_ends_a_track_at_once_and_a_flash_does_not():
    scenes = np.random.default_rng(0).integers(0, 200, (2, 12, 12, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    gone = Stage(lambda t: at(200) if t < 3 else None)
    assert centres(gone.play(4, picture=lambda t: scenes[int(t >= 3)])) == [200] * 60 + [None] * 20
    other = Stage(lambda t: at(200) if t < 3 else at(450, 60))
    assert centres(other.play(4, picture=lambda t: scenes[int(t >= 3)])) == [200] * 60 + [450] * 20
    flash = Stage(lambda t: None if t == 3 else at(200))
    assert centres(flash.play(4, picture=lambda t: scenes[0] + np.uint8(55 * (t == 3)))) == [200] * 80


def test_the_largest_is_followed_and_does_not_flip_between_two_of_similar_size():
    wobble = Stage(
        lambda t: at(200, 100 + 10 * math.sin(t)), lambda t: at(500, 102 + 10 * math.cos(t)), lambda t: at(700, 60)
    )
    assert set(centres(wobble.play(20))) == {500}


def test_a_passer_by_is_not_followed_and_a_much_larger_face_that_stays_is():
    passing = Stage(lambda t: at(200, 60), lambda t: at(600, 120) if 3 < t < 4 else None)
    assert set(centres(passing.play(10))) == {200}
    staying = Stage(lambda t: at(200, 60), lambda t: at(600, 120) if t > 3 else None)
    x = centres(staying.play(10))
    assert x[:60] == [200] * 60
    assert x[-60:] == [600] * 60
    hidden = Stage(lambda t: None if 3 < t < 4 else at(200), lambda t: at(600, 50))
    assert set(centres(hidden.play(10))) == {200, None}


def test_several_faces_are_numbered_in_order_and_known_again_for_a_while():
    stage = Stage(
        lambda t: at(200),
        lambda t: at(500, 60) if t < 2 or t > 4 else None,
        lambda t: at(800) if t < 2 or t > 12 else None,
    )
    found = stage.play(16, several=True)
    numbers = [tuple(track.face_id for track in tracks) for tracks in found]
    assert numbers[0] == (0, 1, 2)  # of a first picture, by size
    assert [tracks[0].face.x for tracks in found[::60]] == [150] * 6
    assert [number for i, number in enumerate(numbers) if i == 0 or number != numbers[i - 1]] == [
        (0, 1, 2), (0,), (0, 2), (0, 2, 3)
    ]  # fmt: skip


def test_people_who_cross_keep_their_numbers():
    def rear(t):
        hidden = abs(600 - 120 * t) < 60
        return None if hidden else at(100 + 60 * t, 90)

    found = Stage(lambda t: at(700 - 60 * t, 100), rear).play(10, several=True)
    last = {track.face_id: track.face.x + track.face.w / 2 for track in found[-1]}
    assert last == {0: pytest.approx(100, abs=35), 1: pytest.approx(700, abs=35)}
    for tracks in found:
        assert len({track.face_id for track in tracks}) == len(tracks) <= 2


def test_searches_are_seldom_and_every_face_costs_ten_looks_a_second():
    for people in (1, 4):
        stage = Stage(*(lambda t, x=200 * i: at(x) for i in range(1, people + 1)))
        stage.play(20, fps=30, several=True)
        assert stage.searches == 10
        assert stage.looks == pytest.approx(200 * people, abs=10)
    absent = Stage(lambda t: None)
    absent.play(20, fps=30)
    assert absent.searches == pytest.approx(100, abs=5)
    slow = Stage(lambda t: at(200))
    assert all(slow.play(20, fps=2))
    assert slow.looks <= 40


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
    assert parse_crop(np.array([0, 0, 528, 528])) == parse_crop([0, 0, 528, 528]) == (0, 0, 528, 528)
    for wrong in ((0.5, 1, 20, 20), (1, 2, 3), 5, (float("nan"), 0, 5, 5), ("a", "b", "c", "d")):
        with pytest.raises(ValueError, match=r"crop was .*, expected frame, square, face"):
            parse_crop(wrong)
    for text in ("face:", "face:0.2", "face:11", "face:nan", "face:wide"):
        with pytest.raises(ValueError, match=r"a scale S from 0\.5 to 10"):
            parse_crop(text)
        with pytest.raises(ValueError, match=r"a scale S from 0\.5 to 10"):
            crop_box(text, None, 640, 480)
