"""Damaged files: whatever their bytes, a video or one sentence; no crash, no hang, nothing half-written.

BIGSMALL_MUTATIONS=2000 tries that many files in place of 200.
"""

import os
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bigsmall import models, weights
from bigsmall.cli import app
from bigsmall.video import Limits, VideoError, open_video

CASES = int(os.environ.get("BIGSMALL_MUTATIONS", "200"))
LIMITS = Limits(seconds=20, memory=2**30, pixels=2**22, frames=1000)
KINDS = {  # name: codec and pixel format
    "a.mp4": ("libx264", "yuv420p"),
    "b.mov": ("mjpeg", "yuvj420p"),
    "c.mkv": ("libx264", "yuv420p"),
    "d.mkv": ("ffv1", "bgr0"),
    "e.avi": ("mpeg4", "yuv420p"),
    "f.gif": ("gif", "rgb8"),
    "g.jpg": ("mjpeg", "yuvj420p"),
}
FRAMES, HEIGHT, WIDTH = 6, 48, 64


def small(path: Path) -> bytes:
    """A whole small file of the kind that its name says."""
    codec, pixels = KINDS[path.name]
    rng = np.random.default_rng(0)
    with av.open(str(path), "w", format="image2" if path.suffix == ".jpg" else None) as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for i in range(1 if path.suffix == ".jpg" else FRAMES):
            frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: small(folder / name) for name in KINDS}


PLACE = st.floats(0, 1, exclude_max=True)
NUMBERS = st.sampled_from([0, 1, 7, 8, 9, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
MUTATIONS = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("cut"), PLACE),
    st.tuples(st.just("overwrite"), PLACE, st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("header"), PLACE, st.binary(min_size=1, max_size=8)),
    st.tuples(st.just("splice"), PLACE, PLACE, st.integers(1, 400)),
    st.tuples(st.just("number"), PLACE, st.integers(-4, 24), NUMBERS),
    st.tuples(st.just("other"), PLACE, st.sampled_from(sorted(KINDS))),
)


def mutated(data: bytes, mutation: tuple, whole: dict[str, bytes]) -> bytes:
    kind, place, *rest = mutation
    at, out = int(place * len(data)), bytearray(data)
    if not data:
        return data
    if kind == "flip":
        out[at] ^= 1 << rest[0]
    elif kind == "cut":
        del out[at:]
    elif kind == "overwrite":
        out[at : at + len(rest[0])] = rest[0]
    elif kind == "header":  # in the first part of the file
        at = int(place * min(len(data), 600))
        out[at : at + len(rest[0])] = rest[0]
    elif kind == "splice":  # a part of the file once more, in another place
        other, length = rest
        out[at:at] = data[int(other * len(data)) :][:length]
    elif kind == "number":  # near the name of a box or chunk: its size, and the fields behind it
        names = [found.start() for found in re.finditer(rb"[a-zA-Z0-9]{4}", data)] or [0]
        at = max(0, names[int(place * len(names))] + rest[0])
        out[at : at + 4] = rest[1].to_bytes(4, "big")
    else:  # goes on as another file
        out[at:] = whole[rest[0]][-(len(data) - at) :]
    return bytes(out)


def check(path: Path) -> None:
    """A video as it was announced, or a `VideoError` of one line."""
    try:
        video = open_video(path, limits=LIMITS)
        frames = list(video)
    except VideoError as error:
        said = str(error)
    else:
        said = None
    if said is not None:
        assert str(path) in said
        assert "\n" not in said
        return
    assert 1 <= len(frames) <= LIMITS.frames or video.note
    assert all(frame.rgb.shape == (video.height, video.width, 3) for frame in frames)
    times = np.array([frame.timestamp for frame in frames])
    assert np.isfinite(times).all()
    assert (np.diff(times) > 0).all()
    assert video.fps > 0


def test_the_whole_files_are_videos(tmp_path, whole):
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)
        video = open_video(tmp_path / name, limits=LIMITS)
        assert len(list(video)) == (1 if name.endswith(".jpg") else FRAMES)
        assert (video.width, video.height, video.note) == (WIDTH, HEIGHT, None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("mutated")


@settings(
    max_examples=CASES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
@given(name=st.sampled_from(sorted(KINDS)), mutations=st.lists(MUTATIONS, min_size=1, max_size=4))
def test_a_damaged_file_is_a_video_or_one_sentence(folder, whole, name, mutations):
    data = whole[name]
    for mutation in mutations:
        data = mutated(data, mutation, whole)
    path = folder / name
    path.write_bytes(data)
    check(path)


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """Weights of a small random network: action units of any video."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    card = weights.Card("untrained", "bigsmall", weights.TASKS, "exact", "frame", {"big_size": 16}, note="untrained")
    weights.save(path, models.build("bigsmall", big_size=16), card)
    return path


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("part", [0.3, 0.9])
def test_the_command_writes_all_its_files_or_none(tmp_path, whole, untrained, name, part):
    data = whole[name]
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(data[: int(len(data) * part)])
    arguments = ["measure", path, "--weights", untrained, "--crop", "frame", "-o", out]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code in (0, 3, 4), done.output
    written = sorted(p.name for p in out.iterdir()) if out.exists() else []
    assert not [n for n in written if n.startswith(".") or n.endswith(".part")]
    assert bool(written) == ((out / "measurement.json").exists())
    assert done.exit_code != 4 or not written
    assert {p.name for p in tmp_path.iterdir()} <= {name, "out"}
