"""UBFC-rPPG: 42 people in DATASET_2 and 8 videos in DATASET_1, 640x480 at about 30 and 29 Hz, with a finger's pulse.

DATASET_2 (FACTS 4) is `subject<k>/vid.avi` with `ground_truth.txt`, whose three lines are the wave, the heart rate
and the time of each sample, seconds. DATASET_1 is `<k>-gt/vid*.avi` with `gtdump.xmp`, rows of time in milliseconds,
heart rate, oxygen saturation and wave, comma-separated, at 62 Hz (the dataset's readme). Who is seen in DATASET_1 is
not said beyond the folder's name, so somebody may be in both parts: do not part the two by folds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..video import open_video
from .recording import Labels, Recording, RecordingJob
from .recording import jobs as recording_jobs
from .text import forward, not_here, rate, table

LAYOUT = "folders subject<k> with vid.avi and ground_truth.txt (DATASET_2), or <k>-gt with vid.avi and gtdump.xmp"
FILES = ("vid*.avi", "ground_truth.txt", "gtdump.xmp")


def find(root: Path, *, per_frame: bool = False) -> list[Recording]:
    """The recordings under `root`, which is a part of the dataset or holds its parts.

    Args:
        per_frame: take DATASET_2's samples as one for each frame, whatever their times, as the released weights'
            loader does (FACTS 4).

    Raises:
        ValueError: `root` has not the layout.
    """
    folders = {path.parent for depth in ("*", "*/*") for name in FILES for path in root.glob(f"{depth}/{name}")}
    if not folders:
        not_here(root, LAYOUT)
    return [_recording(folder, per_frame) for folder in sorted(folders)]


def _recording(folder: Path, per_frame: bool) -> Recording:
    videos = list(folder.glob(FILES[0]))
    video = videos[0] if len(videos) == 1 else folder / "vid.avi"
    return Recording(folder.name, folder.name, video, partial(labels, folder, video if per_frame else None))


def labels(folder: Path, video: Path | None = None) -> Labels:
    """Pulse and heart rate; of DATASET_2 with `video` at the video's nominal rate.

    Raises:
        ValueError: no label file, or not one of the dataset's; `VideoError`: the video cannot be opened.
    """
    if (dump := folder / FILES[2]).is_file():
        milliseconds, beats, _, wave = table(dump, delimiter=",", columns=4).T
        times = milliseconds / 1000
    else:
        rows = table(folder / FILES[1])
        if len(rows) != 3:
            raise ValueError(f"{folder / FILES[1]} has {len(rows)} lines, expected 3: the wave, heart rates and times")
        wave, beats, times = rows
        if video is not None:
            times = np.arange(len(wave)) / open_video(video).fps
    return Labels(bvp=forward(wave, times), heart_rate=forward(rate(beats), times))


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `find` and of `recording.Settings`."""
    return recording_jobs(find, spec)
