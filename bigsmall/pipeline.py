"""How `measure` works: a face video in; pulse, respiration and facial action units out.

Two passes over the video, both in bounded memory: the first finds the faces, their mean colours and the statistics that
scale the inputs; the second makes the inputs and runs the networks. What is kept of a frame is a few numbers.

Not every frame is used: one that repeats the picture before it (a 25 fps film re-encoded at 60) says nothing new, and
of a fast camera no more than `MAX_RATE` frames a second are. Differences are taken between successive used frames, and
stand at their timestamps.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bigsmall import weights as weight_files
from bigsmall.face import Box, CropPolicy, FaceTracker, Track, crop_box, face_scale, parse_crop
from bigsmall.inputs import InputPieces, InputSums
from bigsmall.measure import Progress
from bigsmall.readings import MAX_GAP, Clock, Outputs, Seen, conclude
from bigsmall.results import Measurement, Thumbnail
from bigsmall.signals import conditions
from bigsmall.signals.motion import Breathing
from bigsmall.video import Frame, Times, Video, open_video
from bigsmall.weights import Predictor

MAX_RATE = 45.0  # frames a second that are used: weights are trained at 20 to 35
THUMBNAILS, THUMBNAIL_SIDE = 24, 96  # pictures of a face that are kept, and their size in pixels


def run(
    source: Any,
    weights: str | Path | Predictor,
    fps: float | None,
    timestamps: Times | None,
    crop: CropPolicy | None,
    all_faces: bool,
    tell: Progress,
) -> Measurement:
    """`bigsmall.measure`, with every argument given."""
    predictor = weights if isinstance(weights, Predictor) else weight_files.load(weights)
    policy: CropPolicy = predictor.crop if crop is None else parse_crop(crop)
    around_faces = face_scale(policy) is not None
    if all_faces and not around_faces:
        raise ValueError(f"all_faces was True and crop was {policy!r}, expected a crop around faces, such as 'face'")
    video = open_video(source, fps=fps, timestamps=timestamps)
    tracker = FaceTracker(several=all_faces) if crop is None or around_faces else None
    clock, subjects = _look(video, predictor, policy, tracker, tell)
    outputs = _predict(video, predictor, clock, subjects, tell)
    spec = ", ".join(card.name for card in predictor.cards) if isinstance(weights, Predictor) else os.fspath(weights)
    return conclude(video, predictor, spec, policy, clock, {face: s.seen for face, s in subjects.items()}, outputs)


class _Subject:
    """One face in the first pass."""

    def __init__(self, predictor: Predictor) -> None:
        self.seen = Seen()
        self._sums = InputSums(big_size=predictor.big_size, convention=predictor.convention)
        self._breathing = Breathing()
        self._before: Frame | None = None  # the last used frame of this stretch
        self._face: Sequence[float] = ()  # in it
        self._gain = np.ones(3)  # of the colours, so that a box that moves makes no step

    def add(self, frame: Frame, track: Track | None, box: Box, used: bool) -> None:
        seen, before = self.seen, self._before
        follows = bool(seen.frames) and seen.frames[-1] == frame.index - 1
        seen.frames.append(frame.index)
        seen.tracks.append(track)
        seen.boxes.append(box)
        if not used:
            return
        if not follows or before is None or frame.timestamp - before.timestamp > MAX_GAP:
            self.cut()
            before = None
            seen.starts.append(len(seen.used))
        face, margin = (track.face[:4], 0.1) if track else (box, 0.0)
        moved = before is None or self._face != face
        if before is not None and moved:
            now = colour(before.rgb, face, margin)
            self._gain *= np.divide(colour(before.rgb, self._face, margin), now, out=np.ones(3), where=now > 0)
        seen.used.append(frame.index)
        seen.colours.append(self._gain * colour(frame.rgb, face, margin))
        seen.looks.append(conditions.look(frame.rgb, face, before.rgb if before else None))
        seen.chest.append(self._breathing.update(frame.rgb, face, moved))
        self._sums.add(frame.rgb, box)
        self._before, self._face = frame, face

    def cut(self) -> None:
        self._sums.cut()
        self._before = None

    def finish(self) -> None:
        """Also forgets the last pictures."""
        self.cut()
        if self.seen.runs():
            self.seen.stats = self._sums.stats()


def _look(
    video: Video, predictor: Predictor, policy: CropPolicy, tracker: FaceTracker | None, tell: Progress
) -> tuple[Clock, dict[int, _Subject]]:
    clock = Clock()
    subjects: dict[int, _Subject] = {}
    tracks: list[Track] = []
    for frame in video:
        height, width = frame.rgb.shape[:2]
        used = clock.add(frame, 1 / MAX_RATE)
        if tracker is None:
            places: list[tuple[int, Track | None, Box | None]] = [(0, None, crop_box(policy, None, width, height))]
        else:
            if not frame.repeated:
                tracks = tracker.update(frame)
            places = [(track.face_id, track, crop_box(policy, track.face, width, height)) for track in tracks]
        for face_id, track, box in places:
            if box is not None:
                subjects.setdefault(face_id, _Subject(predictor)).add(frame, track, box, used)
        tell("finding the face", frame.index + 1, video.n_frames)
    for subject in subjects.values():
        subject.finish()
    clock.note = video.note  # the second pass ends with the last face, and does not learn how the file ends
    return clock, subjects


def colour(rgb: np.ndarray, face: Sequence[float], margin: float) -> np.ndarray:
    """Mean colour (3,) of a face's box less a margin, a share of its sides, on every side."""
    x, y, w, h = face
    left, top = round(max(0, x + margin * w)), round(max(0, y + margin * h))
    part = rgb[top : top + max(1, round((1 - 2 * margin) * h)), left : left + max(1, round((1 - 2 * margin) * w))]
    total = part.sum(0, dtype=np.uint32).sum(0, dtype=np.float64)  # exact, and 20 times as fast as floats
    return np.asarray(total / (part.shape[0] * part.shape[1]))


class _Follower:
    """One face in the second pass."""

    def __init__(self, predictor: Predictor, seen: Seen) -> None:
        n = len(seen.used)
        self.outputs = Outputs.nothing(n, len(predictor.action_units))
        self._predictor, self._seen = predictor, seen
        self._boxes = dict(zip(seen.frames, seen.boxes, strict=True))
        self._at = self._done = 0  # of the used frames: taken, and given outputs
        self._shown = set(np.linspace(0, n - 1, min(n, THUMBNAILS)).astype(int).tolist())
        assert seen.stats is not None
        self._pieces = InputPieces(
            seen.stats, big_size=predictor.big_size, small_size=predictor.small_size, n_segment=predictor.n_segment,
            all_big=predictor.all_big, convention=predictor.convention,
        )  # fmt: skip

    def add(self, frame: Frame) -> None:
        seen = self._seen
        if self._at >= len(seen.used) or seen.used[self._at] != frame.index:
            return
        if self._at in seen.starts:
            self.cut()
        box = self._boxes[frame.index]
        if self._at in self._shown:
            seen.thumbnails.append(Thumbnail(frame.timestamp, _thumbnail(frame.rgb, box)))
        self._at += 1
        self._keep(self._pieces.add(frame.rgb, box))

    def cut(self) -> None:
        """The next frame begins a stretch of its own."""
        self._keep(self._pieces.cut())
        self._done = self._at

    def _keep(self, inputs: tuple[Tensor, Tensor] | None) -> None:
        if inputs is None:
            return
        n, outputs = len(inputs[1]), self.outputs
        if n:
            for output, given in zip(outputs, self._predictor(*inputs), strict=True):
                if given is not None:
                    output[self._done : self._done + n] = given.double().numpy().reshape(n, *output.shape[1:])
        self._done += n


def _thumbnail(rgb: np.ndarray, box: Box) -> np.ndarray:
    """The middle square of the box."""
    x, y, w, h = box
    side = min(w, h)
    x, y = x + (w - side) // 2, y + (h - side) // 2
    part = torch.from_numpy(rgb[y : y + side, x : x + side].copy()).permute(2, 0, 1)[None].float()
    small: np.ndarray = F.interpolate(part, THUMBNAIL_SIDE, mode="area")[0].permute(1, 2, 0).round().byte().numpy()
    return small


def _predict(
    video: Video, predictor: Predictor, clock: Clock, subjects: dict[int, _Subject], tell: Progress
) -> dict[int, Outputs]:
    n, units = len(clock.timestamps), len(predictor.action_units)
    followers = {face: _Follower(predictor, s.seen) for face, s in subjects.items() if s.seen.stats is not None}
    last = max((subjects[face].seen.used[-1] for face in followers), default=-1)
    for frame in video if followers else ():
        for follower in followers.values():
            follower.add(frame)
        tell("measuring", n if frame.index >= last else frame.index + 1, n)
        if frame.index >= last and frame.index != n - 1:  # a decoder read to its end is used again
            break
    for follower in followers.values():
        follower.cut()
    return {
        face: followers[face].outputs if face in followers else Outputs.nothing(len(subject.seen.used), units)
        for face, subject in subjects.items()
    }
