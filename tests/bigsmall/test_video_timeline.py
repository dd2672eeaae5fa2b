"""Timestamps: the file's own where they can be, and always finite and going forward."""

import math
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from bigsmall.video import VideoError, VideoWriter, open_video
from bigsmall.video.timeline import Timeline

RNG = np.random.default_rng(0)
NAN = math.nan


def noise(n: int, height: int = 32, width: int = 48) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("given", "expected", "said"),
    [
        pytest.param([0, 0.1, 0.25, 0.3], [0, 0.1, 0.25, 0.3], "", id="good ones are kept"),
        pytest.param([1.4, 1.5, 1.6], [1.4, 1.5, 1.6], "", id="a late start is kept"),
        pytest.param([-0.2, -0.1, 0.0], [-0.2, -0.1, 0.0], "", id="a start before zero is kept"),
        pytest.param([0, 0.1, 7.0, 7.1], [0, 0.1, 7.0, 7.1], "", id="a gap is kept"),
        pytest.param([None, None, None], [0, 0.1, 0.2], "3 timestamps", id="none at all: evenly"),
        pytest.param([0, None, 0.2, 0.3], [0, 0.1, 0.2, 0.3], "1 timestamps", id="one missing"),
        pytest.param([0, NAN, 0.2, math.inf], [0, 0.1, 0.2, 0.3], "2 timestamps", id="no numbers"),
        pytest.param([0, 0.1, 0.1, 0.2], [0, 0.1, 0.15, 0.2], "1 timestamps", id="one twice"),
        pytest.param([0, 0, 0.1, 0.1, 0.2], [0, 0.05, 0.1, 0.15, 0.2], "2 timestamps", id="each twice"),
        pytest.param([0, 0.2, 0.1, 0.3], [0, 0.2, 0.25, 0.3], "1 timestamps", id="two exchanged"),
        pytest.param([9, 9.1, 0, 0.1, 0.2], [9, 9.1, 9.2, 9.3, 9.4], "set anew 1", id="begun again"),
        pytest.param([0, 0.1, 9e4, 9e4 + 0.1], [0, 0.1, 0.2, 0.3], "set anew 1", id="a leap of a day"),
        pytest.param([0.3, 0.2, 0.1, 0.0], [0.3, 0.35, 0.45, 0.55], "set anew 2", id="backwards"),
        pytest.param([1e18, 1e18 + 0.1], [0, 0.1], "2 timestamps", id="beyond any clock"),
    ],
)
def test_a_timeline_goes_forward_and_changes_as_little_as_it_can(given, expected, said):
    timeline = Timeline(10)
    assert [timeline(seconds) for seconds in given] == pytest.approx(expected)
    notes = "; ".join(timeline.notes())
    assert said in notes
    assert bool(said) == bool(notes)


def test_any_timeline_is_finite_and_strictly_increasing():
    kinds = [lambda: None, lambda: RNG.normal(0, 10.0 ** RNG.integers(-3, 20)), lambda: 0.0, lambda: NAN]
    for _ in range(300):
        timeline = Timeline(float(RNG.uniform(0.01, 1000)))
        times = np.array([timeline(kinds[RNG.integers(4)]()) for _ in range(50)])
        assert np.isfinite(times).all()
        assert (np.diff(times) > 0).all()


def packets(
    path: Path, frames: np.ndarray, codec: str, times: list[float], options: dict[str, str] | None = None
) -> Path:
    """A file whose packets have exactly these times, in the order of `frames`."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height = frames.shape[2], frames.shape[1]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        encoded = []
        for i, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            encoded += stream.encode(frame)
        encoded += stream.encode(None)
        for packet, time in zip(encoded, times, strict=True):
            packet.time_base = Fraction(1, 90_000)
            packet.pts = packet.dts = round(time * 90_000)
            packet.stream = stream
            container.mux(packet)
    return path


STILL = {"preset": "ultrafast", "tune": "zerolatency"}  # x264 without frames that wait for others


def times(path: Path) -> tuple[list[float], str]:
    video = open_video(path)
    return [frame.timestamp for frame in video], video.note or ""


def test_timestamps_that_stand_still_in_a_file(tmp_path):
    given = [0, 0.04, 0.04, 0.08, 0.12]
    got, note = times(packets(tmp_path / "a.mkv", noise(5), "mjpeg", given))
    assert got == pytest.approx([0, 0.04, 0.06, 0.08, 0.12], abs=1e-3)
    assert "1 timestamps were missing or not increasing" in note


def test_recordings_one_after_another_in_one_file_go_on_in_time(tmp_path):
    steps = [0.0, 0.04, 0.08, 0.12]
    parts = [
        packets(tmp_path / f"{start}.ts", noise(4), "libx264", [start + s for s in steps], STILL).read_bytes()
        for start in (10.0, 3.0, 20_000.0)
    ]
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    got, note = times(tmp_path / "all.ts")
    assert len(got) == 12
    assert np.diff(got) == pytest.approx(np.full(11, 0.04), abs=2e-3)
    assert "the clock was set anew 2 times" in note


def test_a_stream_without_timestamps_has_even_ones(tmp_path):
    path = packets(tmp_path / "a.h264", noise(6), "libx264", [i / 25 for i in range(6)], STILL)
    got, _ = times(path)
    assert np.diff(got) == pytest.approx(np.full(5, 1 / 25), abs=1e-3)


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "ffv1"), ("a.mp4", "libx264"), ("a.mov", "libx264")])
@pytest.mark.parametrize("start", [0.0, 0.0123, 1234.5])
def test_timestamps_that_are_written_are_read_to_a_90000th(tmp_path, name, codec, start):
    given = start + np.cumsum(RNG.uniform(0.011, 0.07, 40))
    with VideoWriter(tmp_path / name, 30, codec=codec) as writer:  # x264 stores its B-frames out of order
        for rgb, seconds in zip(noise(40), given, strict=True):
            writer.write(rgb, float(seconds))
    got, note = times(tmp_path / name)
    assert np.abs(np.array(got) - given).max() <= 0.5 / 90_000 + 1e-9
    assert note == ""


def test_more_timestamps_than_frames_are_refused_where_the_frames_can_be_counted(tmp_path):
    for source in (noise(3), tmp_path):
        if source is tmp_path:
            for i, rgb in enumerate(noise(3)):
                av.VideoFrame.from_ndarray(rgb, "rgb24").save(str(tmp_path / f"{i}.png"))
        with pytest.raises(ValueError, match="timestamps held 4 values, expected 3: one for every frame"):
            open_video(source, timestamps=[0, 1, 2, 3])
    path = packets(tmp_path / "a.mkv", noise(3), "mjpeg", [0, 0.04, 0.08])
    video = open_video(path, timestamps=[0, 1, 2, 3])
    assert len(list(video)) == 3
    assert "timestamps held 4 values and the video 3 frames" in (video.note or "")


def test_lost_frames_keep_their_place_in_a_given_clock(tmp_path):
    path = packets(tmp_path / "a.avi", noise(6), "mjpeg", [i / 25 for i in range(6)])
    data = bytearray(path.read_bytes())
    third = [i for i in range(len(data)) if data[i : i + 4] == b"00dc"][2]
    data[third + 8 : third + 8 + struct.unpack_from("<I", data, third + 4)[0]] = bytes(
        struct.unpack_from("<I", data, third + 4)[0]
    )
    path.write_bytes(data)
    video = open_video(path, fps=10)
    got = [frame.timestamp for frame in video]
    assert len(got) == 5
    assert got[-2:] == pytest.approx([0.4, 0.5])  # where exactly one was lost, decoders on several threads cannot say
    assert "1 damaged frames were left out" in (video.note or "")


def with_cover(path: Path, picture: bytes) -> None:
    """Give an mp4 file a cover picture, as music players do."""

    def box(name: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I", 8 + len(body)) + name + body

    data = path.read_bytes()
    at = data.rindex(b"moov") - 4
    size = struct.unpack_from(">I", data, at)[0]
    assert at + size == len(data)
    handler = box(b"hdlr", bytes(8), b"mdir", b"appl", bytes(9))
    cover = box(b"covr", box(b"data", struct.pack(">II", 13, 0), picture))
    extra = box(b"udta", box(b"meta", bytes(4), handler, box(b"ilst", cover)))
    path.write_bytes(data[:at] + struct.pack(">I", size + len(extra)) + data[at + 4 :] + extra)


def jpeg(folder: Path, rgb: np.ndarray) -> bytes:
    av.VideoFrame.from_ndarray(rgb, "rgb24").save(str(folder / "cover.jpg"))
    return (folder / "cover.jpg").read_bytes()


def test_a_cover_picture_is_not_the_video(tmp_path):
    path = packets(tmp_path / "a.mp4", noise(5), "libx264", [i / 25 for i in range(5)], STILL)
    with_cover(path, jpeg(tmp_path, noise(1, 128, 128)[0]))
    with av.open(str(path)) as container:
        assert len(container.streams.video) == 2
    video = open_video(path)
    assert (video.width, video.height, len(list(video))) == (48, 32, 5)


def test_a_title_in_another_alphabet_is_no_obstacle(tmp_path):
    path = packets(tmp_path / "a.avi", noise(5), "mjpeg", [i / 25 for i in range(5)])
    data = path.read_bytes()
    at = data.index(b"Lavf")  # the writing program's name, of which any title could stand in place
    path.write_bytes(data[:at] + "Видео"[:4].encode("cp1251") + data[at + 4 :])
    with pytest.raises(UnicodeDecodeError):
        av.open(str(path))
    assert len(list(open_video(path))) == 5


def test_music_with_a_cover_picture_is_no_video(tmp_path):
    path = tmp_path / "a.m4a"
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    with_cover(path, jpeg(tmp_path, noise(1, 128, 128)[0]))
    with pytest.raises(VideoError, match="holds no video stream"):
        open_video(path)


def test_of_several_streams_the_largest_is_read_and_said(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        streams = [container.add_stream("mjpeg", rate=25) for _ in range(2)]
        for stream, size in zip(streams, (32, 64), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size, "yuvj420p"
        for i in range(4):
            for stream, size in zip(streams, (32, 64), strict=True):
                frame = av.VideoFrame.from_ndarray(noise(1, size, size)[0], "rgb24")
                frame.pts, frame.time_base = i, Fraction(1, 25)
                container.mux(stream.encode(frame))
    video = open_video(tmp_path / "a.mkv")
    assert (video.width, len(list(video))) == (64, 4)
    assert "2 video streams; number 2 is read" in (video.note or "")


def test_a_picture_that_changes_its_size_is_scaled_to_the_first(tmp_path):
    parts = [
        packets(tmp_path / f"{h}.h264", noise(4, h, 64), "libx264", [i / 25 for i in range(4)], STILL).read_bytes()
        for h in (48, 96)
    ]
    (tmp_path / "a.h264").write_bytes(b"".join(parts))
    video = open_video(tmp_path / "a.h264")
    assert [frame.rgb.shape for frame in video] == [(48, 64, 3)] * 8
    assert "from frame 4 on the picture is 64x96" in (video.note or "")


def test_an_interlaced_video_is_read_and_said(tmp_path):
    options = STILL | {"x264-params": "tff=1"}
    path = packets(tmp_path / "a.mkv", noise(4, 64, 64), "libx264", [i / 25 for i in range(4)], options)
    video = open_video(path)
    assert len(list(video)) == 4
    assert "interlaced" in (video.note or "")
