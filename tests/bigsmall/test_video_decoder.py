"""The child process that decodes files: whatever happens to it is one sentence, and nothing is left of it."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from bigsmall.video import Limits, VideoError, VideoWriter, open_video

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="processes are looked up in /proc")

N, HEIGHT, WIDTH = 60, 240, 320


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25, codec="libx264", options={"preset": "ultrafast"}) as writer:
        for _ in range(N):
            writer.write(np.repeat(np.repeat(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8), 8, 0), 8, 1))
    return path


def children(of: int | None = None) -> list[int]:
    """The decoders of a process, zombies included."""
    parent, found = of or os.getpid(), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().rsplit(")", 1)
            command = (stat.parent / "cmdline").read_text()
        except OSError:
            continue
        zombie = rest.split()[0] == "Z" and "python" in name
        if int(rest.split()[1]) == parent and ("bigsmall.video.decoding" in command or zombie):
            found.append(int(stat.parent.name))
    return found


def resident(pid: int | str) -> int:
    """Bytes of memory of a process; the shared frames count."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def within(seconds: float, condition) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


def test_one_child_reads_one_file_after_another_and_waits(clip):
    for _ in range(3):
        assert len(list(open_video(clip))) == N
    (child,) = children()
    list(open_video(clip))
    assert children() == [child]


def test_the_child_starts_light(clip):
    open_video(clip)
    (child,) = children()
    assert "torch" not in Path(f"/proc/{child}/maps").read_text()


def test_what_is_broken_off_leaves_nothing_behind(clip):
    before = set(os.listdir("/dev/shm")), len(os.listdir("/proc/self/fd"))
    for frame in open_video(clip):
        if frame.index == 3:
            break
    frames = iter(open_video(clip))
    next(frames)
    del frames
    gc.collect()
    assert len(children()) <= 1
    list(open_video(clip))
    assert len(children()) == 1
    assert set(os.listdir("/dev/shm")) == before[0]
    assert len(os.listdir("/proc/self/fd")) <= before[1] + 2  # a connection and the memory of the child that waits


@pytest.mark.parametrize(("number", "says"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "SIGKILL")])
def test_a_crash_midway_ends_the_video_there_with_a_note(clip, number, says):
    video, count = open_video(clip), 0
    for frame in video:
        if frame.index == 5:
            os.kill(children()[0], number)
        count += 1
    assert 6 <= count < N
    assert f"reading stopped early: the decoder was ended by {says}" in (video.note or "")
    assert f"{count} frames were read, until {(count - 1) / 25:.2f} s" in (video.note or "")
    assert children() == []
    assert len(list(video)) == N  # and the next pass has a new child


def test_a_crash_at_the_first_frame_is_one_sentence(clip):
    open_video(clip)
    (child,) = children()
    os.kill(child, signal.SIGSTOP)
    threading.Timer(0.3, os.kill, (child, signal.SIGSEGV)).start()
    threading.Timer(0.4, os.kill, (child, signal.SIGCONT)).start()
    with pytest.raises(VideoError, match=r"clip.mp4 cannot be read as a video: the decoder was ended by SIGSEGV$"):
        open_video(clip)
    assert children() == []


def test_a_hang_is_ended(clip):
    video = open_video(clip, limits=Limits(seconds=1))
    count = 0
    for frame in video:
        if frame.index == 5:
            os.kill(children()[0], signal.SIGSTOP)
        count += 1
    assert 6 <= count < N
    assert "the decoder gave no frame for 1 s" in (video.note or "")
    assert children() == []
    open_video(clip)
    os.kill(children()[0], signal.SIGSTOP)
    with pytest.raises(VideoError, match=r"the decoder gave no frame for 1 s"):
        open_video(clip, limits=Limits(seconds=1))
    assert children() == []


def test_memory_is_limited(tmp_path):
    path = tmp_path / "large.mkv"
    with VideoWriter(path, 25) as writer:
        writer.write(np.zeros((3000, 4000, 3), np.uint8))
    list(open_video(path))
    with pytest.raises(VideoError, match=r"large.mkv .*memory|large.mkv .*ended"):
        open_video(path, limits=Limits(memory=90 * 2**20))
    list(open_video(path))


def test_pixels_are_limited_before_they_are_decoded(clip, tmp_path):
    with pytest.raises(VideoError, match="pictures of 320x240, more than the limit of 76799 pixels"):
        open_video(clip, limits=Limits(pixels=320 * 240 - 1))
    assert len(list(open_video(clip, limits=Limits(pixels=320 * 240)))) == N


@pytest.mark.parametrize("as_array", [True, False])
def test_frames_are_limited(clip, as_array):
    source = np.zeros((12, 8, 8, 3), np.uint8) if as_array else clip
    video = open_video(source, fps=25, limits=Limits(frames=10))
    assert len(list(video)) == 10
    assert "reading ended after 10 frames, the limit" in (video.note or "")
    assert len(list(open_video(source, fps=25, limits=Limits(frames=100)))) == (12 if as_array else N)


@pytest.mark.parametrize(
    ("limit", "error"),
    [({"seconds": 0}, ValueError), ({"pixels": -1}, ValueError), ({"frames": 1.5}, TypeError),
     ({"memory": True}, TypeError), ({"seconds": float("nan")}, ValueError)],
)  # fmt: skip
def test_limits_are_checked(limit, error):
    with pytest.raises(error, match=next(iter(limit))):
        Limits(**limit)


def test_an_hour_of_4k_is_within_the_limits():
    limits = Limits()
    assert limits.pixels >= 4096 * 2160
    assert limits.frames >= 3600 * 120
    assert limits.memory >= 40 * 4096 * 2160 * 3  # 16 pictures kept and 16 threads with one each, of 10 bits in 4:2:0


def read(path: Path) -> int:
    return len(list(open_video(path)))


def test_it_works_in_threads(clip):
    counts: list[int] = []
    threads = [threading.Thread(target=lambda: counts.append(read(clip))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [N] * 3
    assert len(children()) == 1


def test_it_works_in_the_daemonic_workers_of_a_pool(clip):
    read(clip)  # a forked worker does not touch the child of this process
    (child,) = children()
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(read, [clip] * 4) == [N] * 4
    assert children() == [child]
    assert read(clip) == N


def script(tmp_path: Path, text: str) -> list[str]:
    path = tmp_path / "script.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def test_a_script_needs_no_main_guard(clip, tmp_path):
    text = f"from bigsmall import open_video\nprint(sum(1 for _ in open_video({str(clip)!r})))\n"
    done = subprocess.run(script(tmp_path, text), capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{N}\n", "")


READING = """
import signal, time
from bigsmall import open_video
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with interrupts ignored
for frame in open_video({clip!r}):
    print(frame.index, flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_child_ends_with_its_parent(clip, tmp_path, number):
    before = set(os.listdir("/dev/shm"))
    with subprocess.Popen(
        script(tmp_path, READING.format(clip=str(clip))),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as parent:  # fmt: skip
        assert parent.stdout
        assert parent.stdout.readline() == "0\n"
        (child,) = children(parent.pid)
        (os.killpg if number == signal.SIGINT else os.kill)(parent.pid, number)  # Ctrl-C reaches the whole group
        _, said = parent.communicate(timeout=30)
    assert "KeyboardInterrupt" in said or number != signal.SIGINT
    assert within(5, lambda: not Path(f"/proc/{child}").exists())
    assert set(os.listdir("/dev/shm")) == before


class Camera:
    """A capture that gives `n` small frames."""

    def __init__(self, n: int) -> None:
        self._left = n
        self._frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)

    def read(self) -> tuple[bool, np.ndarray | None]:
        self._left -= 1
        return self._left >= 0, self._frame if self._left >= 0 else None


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 30, codec="libx264", options={"preset": "ultrafast"}) as writer:
        frames = rng.integers(0, 256, (50, 48, 64, 3), dtype=np.uint8)
        for i in range(8_000):
            writer.write(frames[i % 50])
    return path


@pytest.mark.parametrize("kind", ["file", "capture"])
def test_memory_does_not_grow_with_the_length(long, kind):
    video = open_video(long) if kind == "file" else open_video(Camera(8_000), fps=30)
    after: dict[int, int] = {}
    for frame in video:
        if frame.index in (2000, 7_900):
            after[frame.index] = resident("self") + sum(map(resident, children()))
    assert after[7_900] - after[2000] < 8 * 2**20  # the frames between them are 54 MB
