"""Which frames repeat the one before: copies, what an encoder makes of copies, and what must not be taken for them."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from bigsmall.synthesis import synthesize
from bigsmall.video import VideoWriter, open_video

RNG = np.random.default_rng(0)


def positions(n: int, source: float, target: float) -> np.ndarray:
    """Which of `n` pictures at `source` a second is shown in each frame at `target` a second."""
    return np.minimum((np.arange(int(n * target / source)) * source / target + 1e-9).astype(int), n - 1)


def told(path: Path, frames: Sequence[np.ndarray], fps: float, crf: int | None) -> tuple[np.ndarray, str]:
    """Each frame's `repeated` after encoding (crf None: lossless), and the note."""
    options = {} if crf is None else {"codec": "libx264", "options": {"crf": str(crf)}}
    with VideoWriter(path, fps, **options) as writer:  # type: ignore[arg-type]
        for rgb in frames:
            writer.write(rgb)
    video = open_video(path)
    return np.array([frame.repeated for frame in video]), video.note or ""


@pytest.fixture(scope="module")
def face() -> list[np.ndarray]:
    return list(synthesize(seconds=3, fps=25, seed=1, noise=1.5, motion=2))


@pytest.fixture(scope="module")
def clip(reference_dir) -> list[np.ndarray]:
    return [frame.rgb for frame in islice(open_video(reference_dir / "media" / "pyfeat_single_face.mp4"), 60)]


@pytest.mark.parametrize(("source", "target"), [(25, 60), (30, 60), (25, 30), (24, 60)])
def test_copies_are_repeats_and_nothing_else_is(source, target):
    pictures = RNG.integers(0, 256, (40, 64, 96, 3), dtype=np.uint8)
    at = positions(len(pictures), source, target)
    video = open_video(pictures[at], fps=target)
    got = np.array([frame.repeated for frame in video])
    np.testing.assert_array_equal(got, np.diff(at, prepend=-1) == 0)
    assert f"{100 * got.mean():.0f} % of the frames repeat the one before: {source}" in (video.note or "")


def test_a_video_without_repeats_has_no_note_of_them():
    video = open_video(RNG.integers(0, 256, (40, 64, 96, 3), dtype=np.uint8), fps=30)
    assert not any(frame.repeated for frame in video)
    assert video.note is None


def test_both_passes_tell_the_same(face):
    video = open_video(np.stack(face)[positions(len(face), 25, 60)], fps=60)
    assert [frame.repeated for frame in video] == [frame.repeated for frame in video]


@pytest.mark.parametrize(
    ("source", "crf", "found", "wrong"), [("face", 18, 0.85, 0.03), ("clip", 23, 0.97, 0.02), ("clip", 30, 0.65, 0.10)]
)
def test_re_encodes_of_25_at_60(tmp_path, request, source, crf, found, wrong):
    pictures = request.getfixturevalue(source)
    at = positions(len(pictures), 25, 60)
    got, note = told(tmp_path / "a.mp4", [pictures[i] for i in at], 60, crf)
    repeated = np.diff(at, prepend=-1) == 0
    assert got[repeated].mean() >= found
    assert got[~repeated].mean() <= wrong
    assert "% of the frames repeat the one before" in note


@pytest.mark.parametrize(("source", "crf"), [("face", 18), ("face", 23), ("clip", 18), ("clip", 23), ("clip", 30)])
def test_encodes_of_new_pictures_are_hardly_ever_taken_for_repeats(tmp_path, request, source, crf):
    got, _ = told(tmp_path / "a.mp4", request.getfixturevalue(source), 25, crf)
    assert got.mean() <= 0.05


@pytest.mark.parametrize("crf", [None, 18, 23, 30])
def test_a_photograph_is_all_repeats_after_its_first_frame(tmp_path, face, crf):
    got, _ = told(tmp_path / ("a.mkv" if crf is None else "a.mp4"), [face[0]] * 90, 30, crf)
    assert not got[0]
    assert got[1:].mean() >= 0.9


@pytest.mark.parametrize("noise", [0.3, 0.5, 1.0])
def test_a_quiet_video_of_little_noise_has_no_repeats(noise):
    quiet = synthesize(seconds=2, fps=30, seed=2, motion=0, expressions=0, noise=noise)
    assert not any(frame.repeated for frame in open_video(np.stack(list(quiet)), fps=30))


def test_a_slow_change_is_never_swallowed():
    """One grey level in 400 frames, dithered: each frame is nearly the one before, and what is kept follows them."""
    place = RNG.uniform(size=(64, 96, 1))
    frames = np.stack([np.broadcast_to(100 + (place < t / 400), (64, 96, 3)) for t in range(400)]).astype(np.uint8)
    kept = np.array([np.nan if frame.repeated else frame.rgb.mean() for frame in open_video(frames, fps=30)])
    last = 0.0
    for mean, truth in zip(kept, frames.mean((1, 2, 3)), strict=True):
        last = last if np.isnan(mean) else mean
        assert abs(last - truth) < 0.03


def test_what_follows_a_cut_is_soon_seen_again():
    dark, light = RNG.integers(0, 60, (15, 64, 96, 3)), RNG.integers(190, 192, (15, 64, 96, 3))
    got = [frame.repeated for frame in open_video(np.concatenate([dark, light]).astype(np.uint8), fps=30)]
    assert not any(got[:16])
    assert sum(got) <= 3  # a tenth of a second
