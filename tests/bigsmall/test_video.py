"""bigsmall.video: what goes in comes out, with its own timestamps; what is no video is one clear sentence."""

import os
import struct
from fractions import Fraction
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from bigsmall.video import Frame, VideoError, VideoWriter, open_video

RNG = np.random.default_rng(0)


def noise(n: int, height: int = 36, width: int = 48) -> np.ndarray:
    return RNG.integers(0, 256, (n, height, width, 3), dtype=np.uint8)


def smooth(n: int, height: int = 64, width: int = 96) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    frames = [np.stack([x * 2 + t, y * 3 + t, 255 - x - y], -1) for t in range(n)]
    return np.clip(np.stack(frames), 0, 255).astype(np.uint8)


def write(
    path: Path, frames: np.ndarray, fps: float = 25.0, times: np.ndarray | None = None, **options: object
) -> Path:
    with VideoWriter(path, fps, **options) as writer:  # type: ignore[arg-type]
        for i, rgb in enumerate(frames):
            writer.write(rgb, None if times is None else times[i])
    return path


def pixels(source: object, **clock: object) -> np.ndarray:
    return np.stack([frame.rgb for frame in open_video(source, **clock)])  # type: ignore[arg-type]


def test_ffv1_is_lossless_for_rgb_noise_of_odd_size(tmp_path):
    frames = noise(7, 35, 47)
    np.testing.assert_array_equal(pixels(write(tmp_path / "a.mkv", frames)), frames)


def test_the_same_frames_give_the_same_file(tmp_path):
    frames = noise(4)
    first, second = (write(tmp_path / name, frames).read_bytes() for name in ("a.mkv", "b.mkv"))
    assert first == second


@pytest.mark.parametrize("size", [(64, 96), (63, 95)])
def test_x264_keeps_the_picture_and_its_size(tmp_path, size):
    frames = smooth(6, *size)
    path = write(tmp_path / "a.mp4", frames, codec="libx264", options={"crf": "12"})
    assert np.abs(pixels(path).astype(int) - frames).mean() < 3


def test_a_file_says_what_it_holds_and_can_be_read_twice(tmp_path):
    video = open_video(write(tmp_path / "a.mkv", noise(10), 25.0))
    assert (video.name, video.width, video.height, video.n_frames) == ("a.mkv", 48, 36, 10)
    assert video.fps == pytest.approx(25)
    passes = [list(video), list(video)]
    assert all(isinstance(frame, Frame) for frame in passes[0])
    assert [f.index for f in passes[1]] == list(range(10))
    assert [f.timestamp for f in passes[0]] == pytest.approx(np.arange(10) / 25, abs=1e-3)
    np.testing.assert_array_equal(passes[0][9].rgb, passes[1][9].rgb)
    assert video.note is None


def test_timestamps_are_the_files_own_where_frames_are_unevenly_spaced(tmp_path):
    times = np.cumsum([0, 0.04, 0.04, 0.12, 0.02, 0.04, 0.2])
    path = write(tmp_path / "a.mp4", smooth(7), times=times, codec="libx264")
    assert [f.timestamp for f in open_video(path)] == pytest.approx(times, abs=1e-4)


def test_a_given_clock_replaces_the_files(tmp_path):
    path = write(tmp_path / "a.mkv", noise(5), 25.0)
    assert [f.timestamp for f in open_video(path, fps=50)] == pytest.approx(np.arange(5) / 50)
    times = [0, 0.1, 0.3, 0.35, 1]
    video = open_video(path, timestamps=times)
    assert [f.timestamp for f in video] == times
    assert video.fps == pytest.approx(4)
    with pytest.raises(ValueError, match="timestamps held 3 values"):
        list(open_video(path, timestamps=times[:3]))


def turned(path: Path, matrix: tuple[int, ...]) -> Path:
    """The file with another display matrix in its track header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40  # version 0: 40 bytes lie between the name and the matrix
    data[start : start + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


ONE, W = 1 << 16, 1 << 30


@pytest.mark.parametrize(
    ("matrix", "clockwise"),
    [
        ((0, ONE, 0, -ONE, 0, 0, 0, 0, W), 1),
        ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, W), 2),
        ((0, -ONE, 0, ONE, 0, 0, 0, 0, W), 3),
    ],
)
def test_the_files_rotation_is_applied(tmp_path, matrix, clockwise):
    frames = smooth(3)
    path = turned(write(tmp_path / "a.mp4", frames, codec="libx264", options={"crf": "10"}), matrix)
    expected = np.rot90(frames, -clockwise, axes=(1, 2))
    video = open_video(path)
    assert (video.height, video.width) == expected.shape[1:3]
    assert np.abs(pixels(path).astype(int) - expected).mean() < 3


def test_a_file_cut_short_is_read_as_far_as_it_goes_and_says_so(tmp_path):
    path = write(tmp_path / "a.mkv", noise(30))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = open_video(path)
    frames = list(video)
    assert 5 <= len(frames) < 30
    until = frames[-1].timestamp
    assert video.note == f"the file announces 1.20 s and could be read until {until:.2f} s ({len(frames)} frames)"


def coloured(path: Path, pixels: str, matrix: int, full: bool, transfer: int) -> tuple[Path, np.ndarray]:
    """A file whose pixels are stored in another way, and what they show."""
    rgb = smooth(1)[0]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "2"})
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], pixels
        codec = stream.codec_context
        codec.colorspace, codec.color_range, codec.color_trc = matrix, 2 if full else 1, transfer
        for i in range(3):
            plain = av.VideoFrame.from_ndarray(rgb, "rgb24")
            frame = VideoReformatter().reformat(
                plain, format=pixels, dst_colorspace=matrix, dst_color_range=codec.color_range
            )
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path, rgb


@pytest.mark.parametrize(
    ("pixels", "matrix", "full", "transfer", "says"),
    [
        pytest.param("yuv420p", 5, False, 6, "", id="SD"),
        pytest.param("yuv420p", 1, False, 1, "", id="HD"),
        pytest.param("yuv420p", 1, True, 1, "", id="a phone's full range"),
        pytest.param("yuv422p", 1, False, 1, "", id="4:2:2"),
        pytest.param("yuv444p10le", 9, False, 16, "HDR (PQ)", id="10 bits, PQ"),
        pytest.param("yuv420p10le", 9, False, 18, "HDR (HLG)", id="10 bits, HLG"),
    ],
)
def test_colours_are_right_however_they_are_stored(tmp_path, pixels, matrix, full, transfer, says):
    path, rgb = coloured(tmp_path / "a.mkv", pixels, matrix, full, transfer)
    video = open_video(path)
    for frame in video:
        assert np.abs(frame.rgb.astype(int) - rgb).mean() < 2.5  # of another matrix or range: 3 to 7
    assert says in (video.note or "")


@pytest.mark.parametrize(("pixels", "channels"), [("gray", 1), ("rgba", 4), ("gray16be", 1), ("rgba64be", 4)])
def test_grey_alpha_and_16_bits(tmp_path, pixels, channels):
    rgb = smooth(1)[0]
    if channels == 1:
        rgb = np.repeat(rgb[..., :1], 3, -1)
    frame = av.VideoFrame.from_ndarray(rgb, "rgb24").reformat(format=pixels)
    with av.open(str(tmp_path / "a.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width, stream.pix_fmt = *rgb.shape[:2], pixels
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert np.abs(pixels_of_first(tmp_path / "a.png").astype(int) - rgb).max() <= 1


def pixels_of_first(path: Path) -> np.ndarray:
    return next(iter(open_video(path))).rgb


def test_damage_in_the_middle_costs_only_the_damaged_frames(tmp_path):
    path = write(tmp_path / "a.mp4", noise(60, 64, 64), codec="libx264")
    data = bytearray(path.read_bytes())
    for part in (0.3, 0.5, 0.7):
        at = int(len(data) * part)
        data[at : at + 200] = RNG.bytes(200)
    path.write_bytes(data)
    video = open_video(path)
    frames = list(video)
    assert 50 <= len(frames) < 60
    assert "damaged frames were left out" in (video.note or "")
    assert frames[-1].timestamp == pytest.approx(59 / 25, abs=1e-3)


def cut_mp4(path: Path) -> None:
    write(path, smooth(10), codec="libx264")
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("missing.mp4", lambda p: None, "does not exist"),
        ("empty.mp4", lambda p: p.write_bytes(b""), "is empty"),
        (
            "text.mp4",
            lambda p: p.write_text("Not a video at all.\n" * 300),
            "cannot be read as a video|no video stream",
        ),
        ("cut.mp4", cut_mp4, "cannot be read as a video|holds no"),
        ("noise.mp4", lambda p: p.write_bytes(RNG.bytes(50_000)), "cannot be read as a video|holds no"),
        ("folder", lambda p: p.mkdir(), "without images"),
    ],
)
def test_what_is_no_video_is_one_sentence_that_names_it(tmp_path, name, make, says):
    make(tmp_path / name)
    with pytest.raises(VideoError, match=says) as caught:
        open_video(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_any_name_can_be_written_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = noise(3)
    names = ("50%d.mkv", "a:b.mkv", "<b>&\n[x].mkv", "-.mkv", "\u65e5\u672c.mkv", os.fsdecode(b"\xff.mkv"))
    for name in names:
        np.testing.assert_array_equal(pixels(write(Path(name), frames)), frames)
    open_video(names[-1]).name.encode()  # what is no text can be written in a report all the same
    with pytest.raises(VideoError, match="cannot be read: File name too long"):
        open_video(300 * "a" + ".mp4")
    with pytest.raises(OSError, match=r"missing/a\.mkv cannot be written: No such file"):
        write(Path("missing/a.mkv"), frames)


def test_what_is_open_stays_as_it_is():
    video = open_video(noise(3), fps=10)
    assert open_video(video) is video
    with pytest.raises(ValueError, match="fps or timestamps were given"):
        open_video(video, fps=5)


def test_a_gap_in_the_clock_is_told():
    times = [0, 0.1, 0.2, 300.2, 300.3]
    video = open_video(noise(5), timestamps=times)
    assert [frame.timestamp for frame in video] == times
    assert video.note == "there are no frames for up to 300.0 s, as after 0.2 s"
    slow = open_video(noise(5), fps=0.5)
    assert len(list(slow)) == 5
    assert slow.note is None


def test_an_array_with_its_clock():
    frames = noise(4)
    video = open_video(frames, fps=10)
    assert (video.width, video.height, video.fps, video.n_frames) == (48, 36, 10, 4)
    assert [f.timestamp for f in video] == pytest.approx([0, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(pixels(frames, fps=10), frames)


@pytest.mark.parametrize(
    ("source", "clock", "error", "says"),
    [
        (noise(3), {}, ValueError, "fps and timestamps were both missing"),
        (noise(3), {"fps": 0}, ValueError, "fps was 0"),
        (noise(3), {"fps": float("nan")}, ValueError, "fps was nan"),
        (noise(3), {"fps": 5, "timestamps": [0, 1, 2]}, ValueError, "both given"),
        (noise(3), {"timestamps": [0, 2, 1]}, ValueError, "strictly increasing"),
        (noise(3).astype(np.float32), {"fps": 5}, TypeError, "float32"),
        (noise(3)[..., :2], {"fps": 5}, ValueError, r"shape \(3, 36, 48, 2\)"),
        (noise(3)[:0], {"fps": 5}, ValueError, "shape"),
        (noise(3), {"timestamps": "now"}, TypeError, "timestamps was 'now'"),
        (BytesIO(b"no capture"), {}, TypeError, "source was <_io.BytesIO"),
    ],
)
def test_bad_arguments_are_named(source, clock, error, says):
    with pytest.raises(error, match=says):
        open_video(source, **clock)


def save_png(path: Path, rgb: np.ndarray) -> None:
    cv2 = pytest.importorskip("cv2")
    cv2.imwrite(str(path), rgb[:, :, ::-1])


def test_a_folder_of_images_in_natural_order(tmp_path):
    frames = noise(12)
    for i, rgb in enumerate(frames):
        save_png(tmp_path / f"frame{i}.png", rgb)
    (tmp_path / "notes.txt").write_text("not an image")
    np.testing.assert_array_equal(pixels(tmp_path, fps=30), frames)
    with pytest.raises(ValueError, match="folder of images"):
        open_video(tmp_path)
    (tmp_path / "frame3.png").write_bytes(b"broken")
    video = open_video(tmp_path, fps=30)
    assert [round(f.timestamp * 30) for f in video] == [0, 1, 2, *range(4, 12)]
    assert "frame3.png" in (video.note or "")
    save_png(tmp_path / "frame3.png", noise(1, 20, 20)[0])
    with pytest.raises(VideoError, match="20x20, expected 48x36"):
        list(open_video(tmp_path, fps=30))


def test_names_of_images_are_no_patterns(tmp_path):
    frames = noise(3)
    for name, rgb in zip(("a0.png", "a1.png", "a%d.png"), frames, strict=True):
        save_png(tmp_path / name, rgb)
    np.testing.assert_array_equal(pixels(tmp_path, fps=30), frames)


class Capture:
    """What OpenCV's capture looks like from outside: read() gives BGR."""

    def __init__(self, frames: np.ndarray) -> None:
        self._frames = iter(frames)

    def read(self) -> tuple[bool, np.ndarray | None]:
        rgb = next(self._frames, None)
        return rgb is not None, None if rgb is None else rgb[:, :, ::-1]


def test_a_capture_can_be_read_twice_though_it_cannot_be_rewound():
    frames = noise(6)
    video = open_video(Capture(frames), fps=20)
    for _ in range(2):
        got = list(video)
        np.testing.assert_array_equal(np.stack([f.rgb for f in got]), frames)
        assert [f.timestamp for f in got] == pytest.approx(np.arange(6) / 20)
    assert video.n_frames == 6
    with pytest.raises(VideoError, match="gives no frame"):
        open_video(Capture(frames[:0]))


def test_an_opencv_capture_of_a_file_keeps_the_files_clock(tmp_path):
    cv2 = pytest.importorskip("cv2")
    frames = smooth(8)
    path = write(tmp_path / "a.mkv", frames, 25.0)
    video = open_video(cv2.VideoCapture(str(path)))
    got = list(video)
    np.testing.assert_array_equal(np.stack([f.rgb for f in got]), frames)
    assert np.diff([f.timestamp for f in got]) == pytest.approx(0.04, abs=2e-3)
    assert [f.timestamp for f in video] == [f.timestamp for f in got]


def interrupted(path: Path) -> None:
    with VideoWriter(path, 25) as writer:
        writer.write(noise(1)[0])
        raise KeyboardInterrupt


def test_the_writer_leaves_nothing_half_written(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(tmp_path / "a.mkv")
    with pytest.raises(ValueError, match="no frame was written"):
        write(tmp_path / "b.mkv", noise(1)[:0])
    (tmp_path / "c.mkv").write_bytes(b"old")
    with pytest.raises(ValueError, match=r"shape \(20, 20, 3\)"):
        write(tmp_path / "c.mkv", [noise(1)[0], noise(1, 20, 20)[0]])
    assert (tmp_path / "c.mkv").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["c.mkv"]
    with pytest.raises(ValueError, match="codec was 'mpeg1'"):
        VideoWriter(tmp_path / "d.mkv", 25, codec="mpeg1")
    with pytest.raises(ValueError, match="fps was 0"):
        VideoWriter(tmp_path / "d.mkv", 0)


@pytest.mark.parametrize(
    ("name", "size", "n", "end"),
    [("evm_face.mp4", (528, 592), 301, 10.0), ("pyfeat_single_face.mp4", (640, 360), 72, 71 / 30),
     ("pyfeat_face_noface.mov", (960, 540), 169, 6.36), ("pyfeat_no_face.mp4", (960, 540), 95, 94 / 24)],
)  # fmt: skip
def test_real_clips(reference_dir, name, size, n, end):
    video = open_video(reference_dir / "media" / name)
    assert (video.width, video.height) == size
    times = [f.timestamp for f in video]
    assert len(times) == n
    assert times[-1] - times[0] == pytest.approx(end, abs=1e-2)


def test_variable_frame_rate_is_kept(reference_dir):
    steps = np.diff([f.timestamp for f in open_video(reference_dir / "media" / "pyfeat_face_noface.mov")])
    assert steps.min() == pytest.approx(0.0137, abs=5e-4)
    assert steps.max() == pytest.approx(0.0417, abs=5e-4)
