"""A video from end to end: `python bench/pipeline.py [VIDEO] -o bench/results/pipeline` writes .json, .md and .png.

In one process, in turn: decoding alone, `bigsmall.measure`, and the released way (released.py); first that both find
the same, then the times, where they go, and the memory that a video of four times the length needs. With `--hour`:
nothing but an hour of a capture in bounded memory; each keeps what the other has written.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import conftest
import matplotlib
import numpy as np
import torch
from pytest_benchmark.plugin import pytest_benchmark_generate_machine_info
from pytest_benchmark.utils import get_commit_info
from report import provenance
from rich.progress import Progress, TaskID, track
from stopwatch import Stopwatch

import bigsmall
from bigsmall import face, inputs, pipeline, signals, weights
from bigsmall.files import whole
from bigsmall.video import VideoWriter, open_video

matplotlib.use("Agg")
import matplotlib.pyplot as plt

WEIGHTS = Path(bigsmall.__file__).parent / "data" / "default.safetensors"
SIMULATED: dict[str, Any] = {
    "seconds": 15.0, "fps": 30.0, "size": (480, 480), "heart_rate": 72.0, "pulse": 0.02, "motion": 0.3, "seed": 7,
}  # fmt: skip
ROUNDS = 7
STAGES = ("decode", "face", "colour and conditions", "inputs", "network", "signals", "write", "rest")
HOUR, HOUR_FPS, HOUR_SIZE = 3600, 30.0, (160, 160)
DECODE, SERVED, FACE, FIXED, RELEASED = (
    "decode alone, PyAV in this process", "decode alone, bigsmall.open_video", "bigsmall.measure, face searched for",
    "bigsmall.measure, fixed box", "as released, same fixed box",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", nargs="?", type=Path, help="one is simulated if none is given")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the results' names without their suffixes")
    parser.add_argument("--hour", action="store_true", help="only an hour of a capture")
    options = parser.parse_args()
    kept = options.output.with_suffix(".json")
    run = json.loads(kept.read_text()) if kept.exists() else {}
    if options.hour:
        run["hour"] = hour() | circumstances()
    else:
        with tempfile.TemporaryDirectory() as folder:
            new = compare(options.video or simulated(Path(folder)), Path(folder)) | circumstances()
        run = new | {key: run[key] for key in ("hour",) if key in run}
    with whole(kept) as aside:
        aside.write_text(json.dumps(run, indent=2) + "\n")
    with whole(options.output.with_suffix(".md")) as aside:
        aside.write_text(table(run))
    picture(run, options.output.with_suffix(".png"))
    print(table(run))


def circumstances() -> dict[str, Any]:
    """As pytest-benchmark and report.py name them."""
    machine = pytest_benchmark_generate_machine_info()
    conftest.pytest_benchmark_update_machine_info(None, machine)
    commit = get_commit_info()
    return {
        "datetime": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine_info": machine,
        "commit_info": {"id": commit["id"], "dirty": commit["dirty"]},
        "versions": {name: metadata.version(name) for name in ("torch", "numpy", "scipy", "av")},
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
    }


def simulated(folder: Path) -> Path:
    path = folder / "simulated.mp4"
    frames = bigsmall.synthesize(**SIMULATED)
    with VideoWriter(path, SIMULATED["fps"], codec="libx264", options={"crf": "12"}) as writer:  # no frame is alike
        for rgb in track(frames, "simulating", total=len(frames), transient=True):
            writer.write(rgb)
    return path


# --- times ------------------------------------------------------------------------------------------------------------


def compare(path: Path, folder: Path) -> dict[str, Any]:
    video = open_video(path)
    predictor = Recorded(weights.load(WEIGHTS))
    box = face.crop_box("face", _face(path), video.width, video.height)
    result = {
        "video": {
            "name": path.name if path.parent != folder else "simulated", "width": video.width, "height": video.height,
            "fps": video.fps, "frames": sum(1 for _ in video), "box": box,
        },
    }  # fmt: skip
    calls = {
        DECODE: lambda watch: _decode(path),
        SERVED: lambda watch: sum(1 for _ in open_video(path)),
        FACE: lambda watch: _measure(path, predictor, None, watch),
        FIXED: lambda watch: _measure(path, predictor, box, watch),
    }
    try:
        import cv2
        import released
    except ImportError:
        result["missing"] = {RELEASED: "OpenCV is not installed"}
    else:
        cv2.setNumThreads(torch.get_num_threads())
        network = released.network(WEIGHTS)
        calls[RELEASED] = lambda watch: released.measure(path, box, network, video.fps, watch)
        result["agreement"] = agreement(calls[RELEASED](Stopwatch()), calls[FIXED](Stopwatch()), predictor)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    stages: dict[str, list[dict[str, float]]] = {name: [] for name in calls}
    for call in calls.values():
        call(Stopwatch())
    for _ in track(range(ROUNDS), "measuring", transient=True):
        for name, call in calls.items():
            watch, start = Stopwatch(), time.perf_counter()
            call(watch)
            seconds[name].append(time.perf_counter() - start)
            stages[name].append(dict(watch.seconds) | {"rest": seconds[name][-1] - sum(watch.seconds.values())})
    result["seconds"] = seconds
    result["stages"] = {
        name: {stage: median(r.get(stage, 0.0) for r in rounds) for stage in STAGES}
        for name, rounds in stages.items() if name in (FACE, FIXED, RELEASED)
    }  # fmt: skip
    if RELEASED in calls:
        result["ratio"] = [r / o for r, o in zip(seconds[RELEASED], seconds[FIXED], strict=True)]
    result["memory"] = memory(path, folder, box, ["ours", "released"] if RELEASED in calls else ["ours"])
    return result


class Recorded(weights.Predictor):
    """A predictor that keeps what it gave."""

    def __init__(self, predictor: weights.Predictor) -> None:
        self.__dict__ = predictor.__dict__
        self.given: list[Any] = []

    def __call__(self, big: torch.Tensor, small: torch.Tensor) -> Any:
        self.given.append(super().__call__(big, small))
        return self.given[-1]


def _face(path: Path) -> face.Face:
    faces = face.FaceDetector().detect(next(iter(open_video(path))).rgb)
    if not faces:
        raise SystemExit(f"{path.name} shows no face in its first frame")
    return faces[0]


def _decode(path: Path) -> None:
    import av

    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        for picture in container.decode(video=0):
            picture.to_ndarray(format="rgb24")


def _measure(path: Path, predictor: Recorded, box: Any, watch: Stopwatch) -> bigsmall.Measurement:
    predictor.given.clear()
    with _watched(watch), tempfile.TemporaryDirectory() as folder:
        result = bigsmall.measure(path, weights=predictor, crop=box)
        with watch("write"):
            result.save(Path(folder))
    return result


@contextmanager
def _watched(watch: Stopwatch) -> Iterator[None]:
    """Every stage of `bigsmall.measure`, timed."""
    open_ = pipeline.open_video

    def opened(*args: Any, **options: Any) -> Any:
        with watch("decode"):
            video = open_(*args, **options)
        cls = type(video)
        stack.enter_context(mock.patch.object(cls, "__iter__", watch.iterated("decode", cls.__iter__)))
        return video

    parts = [
        (face.FaceTracker, "update", "face"),
        (pipeline, "colour", "colour and conditions"),
        (signals.conditions, "look", "colour and conditions"),
        (pipeline.Breathing, "update", "colour and conditions"),
        (inputs.InputSums, "add", "inputs"), (inputs.InputSums, "cut", "inputs"), (inputs.InputSums, "stats", "inputs"),
        (inputs.InputPieces, "add", "inputs"), (inputs.InputPieces, "cut", "inputs"),
        (Recorded, "__call__", "network"),
        (pipeline, "conclude", "signals"),
    ]  # fmt: skip
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(pipeline, "open_video", opened))
        for owner, name, stage in parts:
            stack.enter_context(mock.patch.object(owner, name, watch.watched(stage, getattr(owner, name))))
        yield


def agreement(theirs: Any, ours: bigsmall.Measurement, predictor: Recorded) -> dict[str, Any]:
    """That both ways measure the same: nothing is timed where they do not."""
    (au, pulse, respiration), rate = theirs
    found = [torch.cat(parts) for parts in zip(*predictor.given, strict=True)]
    correlations = {
        name: float(np.corrcoef(a.ravel().numpy(), b.ravel().numpy())[0, 1])
        for name, a, b in zip(("au", "pulse", "respiration"), found, (au, pulse, respiration), strict=True)
    }
    if min(correlations.values()) < 0.999:
        left_out = ours.source["repeated"]
        raise SystemExit(
            f"the released way and ours differ, nothing is timed: correlations {correlations}"
            + (f"; ours leaves out {left_out} frames that repeat the one before" if left_out else "")
        )
    return {"correlations": correlations, "heart_rate": {"ours": ours.heart_rate.value, "released": rate}}


# --- memory -----------------------------------------------------------------------------------------------------------

PEAK = """
import sys, bigsmall, pipeline
path, way, *box = sys.argv[1:]
box = tuple(map(int, box))
peaks = [0.0]
look = lambda stage=None, done=0, total=None: done % 30 or peaks.append(pipeline.resident("VmHWM"))
if way == "ours":
    bigsmall.measure(path, crop=box, progress=look)
elif way == "released":
    import released
    released.measure(path, box, released.network(pipeline.WEIGHTS), 30.0, pipeline.Stopwatch())
look()
print(max(peaks))
"""


def resident(field: str = "VmRSS") -> float:
    """Memory of this process and its children, MB (Linux); VmHWM: the most that each has had."""
    me = Path("/proc/self")
    children = (me / f"task/{os.getpid()}/children").read_text().split()
    statuses = [(process / "status").read_text() for process in (me, *(Path("/proc") / child for child in children))]
    lines = [line for status in statuses for line in status.splitlines() if line.startswith(f"{field}:")]
    return sum(int(line.split()[1]) for line in lines) / 1024


def memory(path: Path, folder: Path, box: Any, ways: list[str]) -> dict[str, Any]:
    """Peaks of a process of its own, for the video and for four of it in a row."""
    longer = folder / "longer.mp4"
    with VideoWriter(longer, open_video(path).fps, codec="libx264", options={"preset": "ultrafast"}) as writer:
        for _ in range(4):
            for frame in open_video(path):
                writer.write(frame.rgb)

    def peak(video: Path, way: str) -> float:
        command = [sys.executable, "-c", PEAK, str(video), way, *map(str, box)]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
        return float(done.stdout)

    peaks = {way: [peak(path, way), peak(longer, way)] for way in ways}
    return {"imports": peak(path, "nothing"), "peaks": peaks}


class Stream:
    """A capture that gives the same seconds of a simulated face again and again."""

    def __init__(self) -> None:
        options = {"seconds": 10.0, "fps": HOUR_FPS, "size": HOUR_SIZE, "heart_rate": 72.0, "seed": 7}
        self._frames = [np.ascontiguousarray(rgb[..., ::-1]) for rgb in bigsmall.synthesize(**options)]
        self._left = int(HOUR * HOUR_FPS)

    def read(self) -> tuple[bool, Any]:
        self._left -= 1
        return self._left >= 0, self._frames[self._left % len(self._frames)]


def hour() -> dict[str, Any]:
    """Resident memory over an hour of a capture, measured."""
    ticks: list[tuple[str, float, float]] = []
    start, total = time.perf_counter(), HOUR * HOUR_FPS
    with Progress(transient=True) as bar:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, _: int | None) -> None:
            if done % (30 * HOUR_FPS) == 0:
                if stage not in tasks:
                    tasks[stage] = bar.add_task(stage, total=total)
                bar.update(tasks[stage], completed=done)
                ticks.append((stage, done / HOUR_FPS / 60, resident()))

        result = bigsmall.measure(Stream(), fps=HOUR_FPS, progress=tell)
    return {
        "frames": len(result.frames), "size": HOUR_SIZE, "seconds": time.perf_counter() - start,
        "heart_rate": result.heart_rate.value, "resident": ticks,
    }  # fmt: skip


# --- what is published ------------------------------------------------------------------------------------------------


def table(run: dict[str, Any]) -> str:
    lines = [*(_times(run) if "seconds" in run else ()), *(_hour(run["hour"]) if "hour" in run else ())]
    return "\n".join(lines) + "\n"


def _times(run: dict[str, Any]) -> Iterator[str]:
    video, frames, peaks = run["video"], run["video"]["frames"], run["memory"]
    yield provenance(run)
    yield ""
    yield (
        f"Video: {video['name']}, {video['width']}x{video['height']}, {video['fps']:g} frames/s, {frames} frames. "
        f"{run['threads']} threads, {ROUNDS} rounds interleaved in one process after warm-up, medians (range)."
    )
    yield from ("", "| | frames/s | ms a frame |", "|---|---|---|")
    for name, seconds in run["seconds"].items():
        ms = [1000 * s / frames for s in seconds]
        yield f"| {name} | {1000 / median(ms):,.0f} | {median(ms):.2f} ({min(ms):.2f}-{max(ms):.2f}) |"
    for name, reason in run.get("missing", {}).items():
        yield f"| {name} | | {reason} |"
    yield ""
    if "ratio" in run:
        ratio, both = run["ratio"], run["agreement"]
        found = both["heart_rate"]
        ours = "refused" if found["ours"] is None else f"{found['ours']:.1f} bpm"
        yield (
            f"On the same fixed box, for which neither looks, `measure` is **{median(ratio):.1f}** times as fast as "
            "the released way, numpy, OpenCV's area resize and eager PyTorch of bench/released.py "
            f"({min(ratio):.1f}-{max(ratio):.1f}), with its checks of what it measures, of which that has none. Shown "
            "before anything was timed: the networks' outputs of the two correlate by "
            f"at least {min(both['correlations'].values()):.6f}; heart rate {ours} and {found['released']:.1f} bpm."
        )
        yield ""
    yield "Where the time goes, ms a frame (a decoder in a process of its own counts while it is waited for):"
    yield from ("", f"| | {' | '.join(STAGES)} |", f"|---|{'---|' * len(STAGES)}")
    for name, spent in run["stages"].items():
        yield f"| {name} | {' | '.join(f'{1000 * spent[stage] / frames:.2f}' for stage in STAGES)} |"
    yield ""
    grown = "; ".join(f"{way} {one:,.0f} and {four:,.0f}" for way, (one, four) in peaks["peaks"].items())
    yield f"Peak memory, MB, of this video and of four in a row: {grown}; {peaks['imports']:,.0f} are the imports."


def _hour(run: dict[str, Any]) -> Iterator[str]:
    resident = _by_stage(run)
    grown = "; ".join(
        f"{stage}: {mb[len(mb) // 6]:,.0f} MB after ten minutes, {mb[-1]:,.0f} at the end"
        for stage, (_, mb) in resident.items()
    )
    width, height = run["size"]
    yield ""
    yield (
        f"An hour of a capture, {run['frames']:,} frames of {width}x{height}, recorded and measured in "
        f"{run['seconds'] / 60:.1f} minutes; resident memory while {grown}. {provenance(run)}"
    )


def _by_stage(run: dict[str, Any]) -> dict[str, tuple[list[float], list[float]]]:
    """Stage -> minutes of the hour, MB."""
    stages = dict.fromkeys(stage for stage, _, _ in run["resident"])
    return {
        stage: ([m for s, m, _ in run["resident"] if s == stage], [mb for s, _, mb in run["resident"] if s == stage])
        for stage in stages
    }


def picture(run: dict[str, Any], path: Path) -> None:
    every = {"seconds": _draw_speeds, "stages": _draw_stages, "hour": _draw_hour}
    panels = [draw for key, draw in every.items() if key in run]
    figure, axes = plt.subplots(len(panels), figsize=(9, 2.6 * len(panels)), layout="constrained", squeeze=False)
    for draw, ax in zip(panels, axes[:, 0], strict=True):
        draw(run, ax)
    with whole(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _draw_speeds(run: dict[str, Any], ax: Any) -> None:
    names = list(run["seconds"])[::-1]
    speeds = [run["video"]["frames"] / median(run["seconds"][name]) for name in names]
    bars = ax.barh(names, speeds, color="tab:blue")
    ax.bar_label(bars, [f" {speed:,.0f}" for speed in speeds])
    ax.set(xscale="log", xlim=(10, 2 * max(speeds)))
    ax.set_xlabel("frames/s, end to end")


def _draw_stages(run: dict[str, Any], ax: Any) -> None:
    names, left = list(run["stages"])[::-1], np.zeros(len(run["stages"]))
    for stage in STAGES:
        ms = np.array([1000 * run["stages"][name][stage] / run["video"]["frames"] for name in names])
        ax.barh(names, ms, left=left, label=stage)
        left += ms
    ax.set_xlabel("ms a frame")
    ax.legend(ncols=len(STAGES), fontsize=7, loc="lower left", bbox_to_anchor=(-0.3, 1))


def _draw_hour(run: dict[str, Any], ax: Any) -> None:
    for stage, (minutes, megabytes) in _by_stage(run["hour"]).items():
        ax.plot(minutes, megabytes, label=stage)
    ax.set_ylim(bottom=0)
    ax.set(xlabel="minutes of a capture", ylabel="MB resident")
    ax.legend(fontsize=7)


if __name__ == "__main__":
    main()
