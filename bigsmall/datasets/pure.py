"""PURE: 10 people in 6 setups, a minute each, 640x480 PNG files at 30 Hz, with a finger oximeter at 60 Hz.

`01-01/01-01/Image<t>.png` and `01-01/01-01.json`, or both in one folder; person, then setup (FACTS 4). t is
nanoseconds, the clock of the JSON's `/FullPackage` too, whose entries have `Timestamp` and a `Value` of waveform and
pulseRate. Neither clock is even: labels are read at the pictures' own times; `labels: toolbox` is the released
reading, by index. 06-02 is empty in the public release.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .recording import Labels, Recording, RecordingJob
from .recording import jobs as recording_jobs
from .text import broken, forward, not_here, rate, skipped

LAYOUT = "folders such as 01-01 with the folder 01-01 of Image<nanoseconds>.png and the file 01-01.json"
EMPTY = ("06-02",)
IMAGE = re.compile(r"Image(\d+)\.png")


def find(root: Path) -> list[Recording]:
    """The recordings under `root`.

    Raises:
        ValueError: `root` has not the layout.
    """
    folders = sorted(p for p in root.glob("[0-9][0-9]-[0-9][0-9]") if p.is_dir())
    if not folders:
        not_here(root, LAYOUT)
    return [_recording(folder) for folder in folders]


def _recording(folder: Path) -> Recording:
    name, subject = folder.name, folder.name[:2]
    images = folder / name if (folder / name).is_dir() else folder
    pictures = sorted(images.glob("*.png"))
    stamps = [int(match[1]) for picture in pictures if (match := IMAGE.fullmatch(picture.name))]
    path = next((p for p in (folder / f"{name}.json", folder.parent / f"{name}.json") if p.is_file()), None)
    if not pictures and path is None and name in EMPTY:
        return Recording(name, subject, images, partial(skipped, "empty in the public release"))
    if len(stamps) < 2 or len(stamps) != len(pictures):
        reason = f"{images} has {len(pictures)} PNG files, {len(stamps)} of them Image<nanoseconds>.png, expected all"
        return Recording(name, subject, images, partial(broken, reason))
    if path is None:
        return Recording(name, subject, images, partial(broken, f"{folder / name}.json is missing"))
    first, *_ = stamps = sorted(stamps)
    times = np.array([stamp - first for stamp in stamps]) / 1e9
    return Recording(name, subject, images, partial(labels, path, first), timestamps=times)


def labels(path: Path, origin: int) -> Labels:
    """Pulse and pulse rate of a JSON file; `origin` is the time of the video's first frame, nanoseconds.

    Raises:
        ValueError: the file does not hold them.
    """
    try:
        package = json.loads(path.read_text(encoding="utf-8"))["/FullPackage"]
        times = np.array([entry["Timestamp"] - origin for entry in package]) / 1e9
        wave, beats = (np.array([e["Value"][key] for e in package], float) for key in ("waveform", "pulseRate"))
    except (KeyError, TypeError, ValueError) as error:
        expected = f"expected /FullPackage with Timestamp and Value ({type(error).__name__}: {error})"
        raise ValueError(f"{path} is no recording of PURE, {expected}") from None
    return Labels(bvp=forward(wave, times), heart_rate=forward(rate(beats), times))


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `recording.Settings`."""
    return recording_jobs(find, spec)
