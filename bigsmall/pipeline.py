"""How `measure` works: a face video in; pulse, respiration and facial action units out.

Two passes over the video, both in bounded memory: the first finds the face, its mean colours and the statistics that
scale the inputs; the second makes the inputs and runs the networks. What is kept of a frame is a few numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bigsmall import weights as weight_files
from bigsmall.face import Box, CropPolicy, FaceTracker, Track, crop_box, face_scale
from bigsmall.inputs import LEAST, Crop, InputSums, iter_inputs
from bigsmall.measure import Progress
from bigsmall.readings import MAX_GAP, Outputs, Seen, conclude
from bigsmall.results import Measurement
from bigsmall.video import Times, Video, open_video
from bigsmall.weights import Predictor


def run(
    source: Any,
    weights: str | Path | Predictor,
    fps: float | None,
    timestamps: Times | None,
    crop: CropPolicy | None,
    tell: Progress,
) -> Measurement:
    """`bigsmall.measure`, with every argument given."""
    predictor = weights if isinstance(weights, Predictor) else weight_files.load(weights)
    video = open_video(source, fps=fps, timestamps=timestamps)
    seen = _look(video, predictor, crop, tell)
    outputs = _predict(video, predictor, seen, tell)
    spec = ", ".join(card.name for card in predictor.cards) if isinstance(weights, Predictor) else os.fspath(weights)
    return conclude(video, predictor, spec, predictor.crop if crop is None else crop, seen, outputs)


def _look(video: Video, predictor: Predictor, crop: CropPolicy | None, tell: Progress) -> Seen:
    seen, sums = Seen(), InputSums(big_size=predictor.big_size, convention=predictor.convention)
    policy: CropPolicy = predictor.crop if crop is None else crop
    tracker = FaceTracker() if crop is None or face_scale(crop) is not None else None
    for frame in video:
        height, width = frame.rgb.shape[:2]
        tracks = tracker.update(frame) if tracker else []
        track = tracks[0] if tracks else None
        box = None if tracker and track is None else crop_box(policy, track.face if track else None, width, height)
        seen.timestamps.append(frame.timestamp)
        seen.tracks.append(track)
        seen.boxes.append(box)
        seen.colours.append(_colour(frame.rgb, track, box))
        if box is None:
            sums.cut()
        else:
            if len(seen.timestamps) > 1 and frame.timestamp - seen.timestamps[-2] > MAX_GAP:
                sums.cut()
            sums.add(frame.rgb, box)
        tell("finding the face", frame.index + 1, video.n_frames)
    sums.cut()
    if _runs(seen):
        seen.stats = sums.stats()
    return seen


def _colour(rgb: np.ndarray, track: Track | None, box: Box | None) -> np.ndarray:
    """Mean colour (3,) of the inner four fifths of the face, or of the whole box where no face was looked for."""
    if box is None:
        return np.full(3, np.nan)
    x, y, w, h = box
    if track is not None:
        face = track.face
        x, y = round(max(0, face.x + 0.1 * face.w)), round(max(0, face.y + 0.1 * face.h))
        w, h = max(1, round(0.8 * face.w)), max(1, round(0.8 * face.h))
    part = rgb[y : y + h, x : x + w]
    return part.mean(axis=(0, 1), dtype=np.float64) if part.size else np.full(3, np.nan)


def _runs(seen: Seen) -> list[slice]:
    """Successive frames with a box, long enough for inputs: differences are taken within a run and never across."""
    runs: list[slice] = []
    for i, box in enumerate(seen.boxes):
        if box is None:
            continue
        follows = i > 0 and seen.boxes[i - 1] is not None and seen.timestamps[i] - seen.timestamps[i - 1] <= MAX_GAP
        runs[-1:] = [slice(runs[-1].start, i + 1)] if follows else [*runs[-1:], slice(i, i + 1)]
    return [run for run in runs if run.stop - run.start >= LEAST]


def _predict(video: Video, predictor: Predictor, seen: Seen, tell: Progress) -> Outputs:
    n = len(seen.boxes)
    outputs = Outputs(np.full((n, len(predictor.action_units)), np.nan), np.full(n, np.nan), np.full(n, np.nan))
    if seen.stats is None:
        return outputs
    frames = iter(video)

    def crops(run: slice) -> Iterator[Crop]:
        for frame in frames:
            if frame.index >= n:  # the source has grown since the first pass
                return
            tell("measuring", frame.index + 1, n)
            box = seen.boxes[frame.index]
            if frame.index >= run.start and box is not None:
                yield frame.rgb, box
            if frame.index == run.stop - 1:
                return

    for run in _runs(seen):
        done = run.start
        for big, small in iter_inputs(
            crops(run), seen.stats, big_size=predictor.big_size, small_size=predictor.small_size,
            n_segment=predictor.n_segment, all_big=predictor.all_big, convention=predictor.convention,
        ):  # fmt: skip
            if len(small):
                for output, given in zip(outputs, predictor(big, small), strict=True):
                    if given is not None:
                        output[done : done + len(small)] = given.double().numpy().reshape(len(small), *output.shape[1:])
            done += len(small)
    return outputs
