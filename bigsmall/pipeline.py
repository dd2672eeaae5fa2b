"""How `measure` works: a face video in; pulse, respiration and facial action units out.

Two passes over the video, both in bounded memory: the first finds the face, its mean colours and the statistics that
scale the inputs; the second makes the inputs and runs the networks. What is kept of a frame is a few numbers.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import bigsmall_kernels as bk
from bigsmall import weights as weight_files
from bigsmall.face import Box, CropPolicy, FaceTracker, Track, crop_box
from bigsmall.measure import Progress
from bigsmall.readings import MAX_GAP, Outputs, Seen, conclude
from bigsmall.results import Measurement
from bigsmall.video import Frame, Times, Video, open_video
from bigsmall.weights import Predictor

PIECE_FRAMES, PIECE_BYTES = 60, 96 << 20  # frames that are held at once
OVERLAP = 2  # frames: a difference needs the next frame, and some conventions leave out the last difference


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


class _Piece(NamedTuple):
    """Successive frames of one stretch with a face; `own` of them, the rest is the beginning of the next piece."""

    first: int
    frames: torch.Tensor  # (T, H, W, 3) uint8
    boxes: torch.Tensor  # (T, 4) float64
    own: int


def _pieces(frames: Iterable[tuple[Frame, Box | None]], size: int) -> Iterator[_Piece]:
    """Cut the stretches with a box into pieces of `size` frames; a stretch of fewer than three frames gives none."""
    held: list[tuple[Frame, Box]] = []

    def piece(own: int, length: int) -> _Piece:
        pixels = torch.from_numpy(np.stack([frame.rgb for frame, _ in held[:length]]))
        boxes = torch.tensor([box for _, box in held[:length]], dtype=torch.float64)
        return _Piece(held[0][0].index, pixels, boxes, own)

    for frame, box in frames:
        if held and (box is None or frame.timestamp - held[-1][0].timestamp > MAX_GAP):
            if len(held) > OVERLAP:
                yield piece(len(held), len(held))
            held = []
        if box is not None:
            held.append((frame, box))
            if len(held) > size + OVERLAP:  # more than the overlap is left: a piece of its own
                yield piece(size, size + OVERLAP)
                held = held[size:]
    if len(held) > OVERLAP:
        yield piece(len(held), len(held))


def _piece_size(video: Video, n_segment: int) -> int:
    """Frames of a piece: whole clips, within the memory allowed."""
    frames = min(PIECE_FRAMES, PIECE_BYTES // (3 * video.width * video.height))
    return max(1, frames // n_segment) * n_segment


def _look(video: Video, predictor: Predictor, crop: CropPolicy | None, tell: Progress) -> Seen:
    seen, sums = Seen(), []
    policy: CropPolicy = predictor.crop if crop is None else crop
    tracker = FaceTracker() if crop in (None, "face") else None

    def looked_at() -> Iterator[tuple[Frame, Box | None]]:
        for frame in video:
            height, width = frame.rgb.shape[:2]
            track = tracker.update(frame) if tracker else None
            box = None
            if track or not tracker:
                box = crop_box(policy, track.face if track else None, width, height)
            seen.timestamps.append(frame.timestamp)
            seen.tracks.append(track)
            seen.boxes.append(box)
            seen.colours.append(_colour(frame.rgb, track, box))
            tell("finding the face", frame.index + 1, video.n_frames)
            yield frame, box

    options: dict[str, Any] = {"big_size": predictor.big_size, "convention": predictor.convention}
    for piece in _pieces(looked_at(), _piece_size(video, predictor.n_segment)):
        sums.append(bk.bigsmall_input_sums(piece.frames, piece.boxes, **options)[: piece.own])
    if sums:
        seen.stats = bk.InputStats.from_sums(torch.cat(sums), **options)
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


def _predict(video: Video, predictor: Predictor, seen: Seen, tell: Progress) -> Outputs:
    n = len(seen.boxes)
    outputs = Outputs(np.full((n, len(predictor.action_units)), np.nan), np.full(n, np.nan), np.full(n, np.nan))

    def seen_again() -> Iterator[tuple[Frame, Box | None]]:
        for frame in video:
            tell("measuring", frame.index + 1, n)
            yield frame, seen.boxes[frame.index]

    for piece in _pieces(seen_again(), _piece_size(video, predictor.n_segment)):
        big, small = bk.bigsmall_inputs(
            piece.frames, piece.boxes, big_size=predictor.big_size, small_size=predictor.small_size,
            n_segment=predictor.n_segment, all_big=predictor.all_big, convention=predictor.convention, stats=seen.stats,
        )  # fmt: skip
        small = small[: piece.own]
        if not len(small):  # less than a clip
            continue
        big = big[: len(small) if predictor.all_big else len(small) // predictor.n_segment]
        at = slice(piece.first, piece.first + len(small))
        for output, given in zip(outputs, predictor(big, small), strict=True):
            if given is not None:
                output[at] = given.double().numpy().reshape(output[at].shape)
    return outputs
