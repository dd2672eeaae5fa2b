"""Movement by 1-D profiles, and the conditions under which a face was seen."""

import numpy as np
import pytest

from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, assess
from bigsmall.signals.conditions import Conditions, Look, look
from bigsmall.signals.motion import Breathing, shift

FACE = (70.0, 40.0, 60.0, 80.0)
FS = 8
T = np.arange(20 * FS) / FS


def texture(rng, height, width, smooth=4):
    """Smooth noise, (height, width), 0..1."""
    noise = rng.normal(size=(height + 8 * smooth, width + 8 * smooth))
    kernel = np.hanning(4 * smooth)
    for axis in (0, 1):
        noise = np.apply_along_axis(np.convolve, axis, noise, kernel, "same")
    noise = noise[4 * smooth : 4 * smooth + height, 4 * smooth : 4 * smooth + width]
    return (noise - noise.min()) / np.ptp(noise)


class Scene:
    """A wall, a body whose shoulders slope away from the neck, and a head; each moves by itself."""

    def __init__(self, seed=0):
        rng = np.random.default_rng(seed)
        self.wall, self.cloth, self.skin = (texture(rng, 200, 200) for _ in range(3))
        self.noise = rng.normal(size=(400, 400, 3))
        self.rng = rng
        self.y, self.x = np.mgrid[:200, :200].astype(float)

    def frame(self, chest=0.0, sideways=0.0, head=(0.0, 0.0), light=1.0, sigma=0.5):
        y, x, (i, j) = self.y, self.x, self.rng.integers(200, size=2)
        picture = 60 + 30 * self.wall
        shoulders = np.clip(y - chest - 128 - 0.35 * np.abs(x - sideways - 100), 0, 1)
        picture += shoulders * (150 + 40 * self.cloth - picture)
        face = np.clip(38 - np.hypot((x - 100 - head[0]) * 1.3, y - 80 - head[1]), 0, 1)
        picture += face * (120 + 60 * self.skin - picture)
        picture = picture[..., None] * [1.0, 0.9, 0.8] * light
        return np.clip(np.rint(picture + sigma * self.noise[i : i + 200, j : j + 200]), 0, 255).astype(np.uint8)


def followed(frames, face=FACE, moved=()):
    breathing = Breathing()
    return np.cumsum([breathing.update(frame, face, i in moved) for i, frame in enumerate(frames)])


def test_a_shift_is_found_whatever_the_brightness_and_contrast():
    y = np.arange(100.0)
    profile = np.sin(y / 7) + np.sin(y / 3)
    moved = np.interp(y - 0.3, y, profile)
    down, weight = shift(np.stack([moved, 1.3 * moved + 5], 1), np.stack([profile, profile], 1))
    np.testing.assert_allclose(down, 0.3, atol=0.05)
    assert (weight > 0).all()


def test_nothing_to_hold_on_to_weighs_nothing():
    down, weight = shift(np.full((50, 1), 3.0), np.full((50, 1), 3.0))
    assert down == 0
    assert weight == 0


@pytest.mark.parametrize("disturbed", ["nothing", "sideways", "head", "light", "noise"])
def test_breathing_is_followed_whatever_else_moves(disturbed):
    scene, breath, other = Scene(), 1.5 * np.sin(2 * np.pi * 0.25 * T), np.sin(2 * np.pi * 0.4 * T)
    frames = [
        scene.frame(
            b,
            sideways=2 * o if disturbed == "sideways" else 0,
            head=(2 * o, 3 * o) if disturbed == "head" else (0, 0),
            light=1 + 0.1 * o if disturbed == "light" else 1,
            sigma=4 if disturbed == "noise" else 0.5,
        )
        for b, o in zip(breath, other, strict=True)
    ]
    found = followed(frames)
    assert np.corrcoef(found, breath)[0, 1] > 0.95
    assert np.ptp(found) == pytest.approx(np.ptp(breath) / FACE[3], rel=0.25)
    assert assess(found, FS, RESPIRATION_RATE, found).value == pytest.approx(15, abs=0.5)


def test_a_box_that_moves_is_no_breath():
    scene = Scene()
    frames = [scene.frame(0) for _ in T]
    breathing = Breathing()
    steps = []
    for i, frame in enumerate(frames):
        jump = i // 50 * 3.0  # the box is moved every 50 frames
        steps.append(breathing.update(frame, (FACE[0], FACE[1] + jump, *FACE[2:]), i % 50 == 0))
    assert np.abs(np.cumsum(steps)).max() < 0.002


def test_a_picture_that_ends_at_the_chin_has_no_chest():
    assert np.isnan(Breathing().update(Scene().frame()[:125], FACE))


# ---- conditions


def test_a_look_tells_what_the_face_is_like():
    scene = Scene()
    before, after = scene.frame(sigma=0), scene.frame(head=(0.6, -0.3), sigma=0)
    seen = look(after, FACE, before)
    assert seen.width == 60
    assert seen.level == pytest.approx(after[40:120, 70:130].mean(), rel=0.05)
    assert seen.clipped == seen.dark == 0
    assert seen.right == pytest.approx(0.6 / 60, abs=0.006)
    assert seen.down == pytest.approx(-0.3 / 60, abs=0.006)
    assert look(before, FACE, before).still == 1
    assert np.isnan(look(before, FACE).still)
    assert look(np.full((200, 200, 3), 255, np.uint8), FACE).clipped == 1
    assert look(np.zeros((200, 200, 3), np.uint8), FACE).dark == 1


@pytest.mark.parametrize("face", [(-500.0, 0.0, 60.0, 80.0), (199.0, 199.0, 60.0, 80.0), (50.0, 50.0, 2.0, 2.0)])
def test_a_face_outside_the_picture_or_too_small_to_see_tells_nothing(face):
    assert np.isnan(look(Scene().frame(), face)[1:]).all()


GOOD = {"width": 120.0, "level": 120.0, "light": 90.0, "still": 0.05} | dict.fromkeys(
    ("clipped", "dark", "right", "down"), 0.0
)


def conditions(**changes):
    looks = [Look(**GOOD)] * len(T)
    for name, values in changes.items():
        values = np.broadcast_to(values, T.shape)
        looks = [seen._replace(**{name: float(v)}) for seen, v in zip(looks, values, strict=True)]
    return Conditions.of(looks, T)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"right": 0.1 * np.cos(20 * T)}, "motion"),
        ({"clipped": 0.5}, "exposure"),
        ({"dark": 0.9}, "exposure"),
        ({"still": 0.9}, "compression"),
        ({"width": 25.0}, "small face"),
    ],
)
def test_the_worst_condition_is_named_when_a_rate_is_refused(changes, reason):
    found = conditions(**changes)
    assert (found.reason() or "").startswith(reason or "")
    rate = assess(np.random.default_rng(0).normal(size=len(T)).cumsum(), FS, HEART_RATE, None, found)
    assert rate.value is None
    assert (reason or "does not stand out") in rate.note


def test_repeated_pictures_are_no_compression():
    assert conditions(still=np.arange(len(T)) % 2).still == pytest.approx(0, abs=0.06)


def test_a_pulse_that_the_light_beside_the_face_shows_too_is_flicker():
    beat = np.sin(2 * np.pi * 1.2 * T)
    lit = conditions(level=120 * (1 + 0.01 * beat), light=90 * (1 + 0.01 * beat))
    alive = conditions(level=120 * (1 + 0.01 * beat))
    assert lit.flicker(1.2, HEART_RATE.band) > 0.8
    assert alive.flicker(1.2, HEART_RATE.band) < 0.05
    wave = beat + 0.05 * np.random.default_rng(0).normal(size=len(T))
    assert assess(wave, FS, HEART_RATE, wave, alive).value == pytest.approx(72, abs=0.5)
    refused = assess(wave, FS, HEART_RATE, None, lit)
    assert refused.value is None
    assert "the light flickers" in refused.note


@pytest.mark.parametrize(("colours", "least", "most"), [((1, 1, 1), 0.8, 1.0), ((0.33, 0.77, 0.53), 0.0, 0.1)])
def test_where_skin_fills_the_picture_its_colours_tell_light_from_blood(colours, least, most):
    """Blood changes green most; a lamp that beats changes all colours alike."""
    rng, beat = np.random.default_rng(0), 0.02 * np.sin(2 * np.pi * 1.2 * T)
    looks = []
    for beats in beat:
        skin = np.array([170.0, 120.0, 95.0]) * (1 + beats * np.array(colours))
        picture = np.rint(skin + rng.normal(size=(48, 48, 3))).clip(0, 255).astype(np.uint8)
        looks.append(look(picture, (0.0, 0.0, 48.0, 48.0)))
    assert least <= Conditions.of(looks, T).flicker(1.2, HEART_RATE.band) <= most


def test_conditions_without_a_look_are_refused():
    with pytest.raises(ValueError, match="timestamps"):
        Conditions.of([], [])
    with pytest.raises(ValueError, match="timestamps"):
        Conditions.of([Look(**GOOD)] * 3, [0.0, 1.0])


def test_where_nothing_can_be_seen_conditions_are_still_numbers():
    found = Conditions.of([Look(60.0, *[float("nan")] * 7)] * 30, np.arange(30) / 10)
    assert np.isfinite([found.clipped, found.dark, found.still, found.motion, *found.face, *found.light]).all()
