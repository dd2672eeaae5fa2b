"""The video again, with what was measured drawn into it: faces, action units, waveforms and rates."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bigsmall.results.measurement import AU_THRESHOLD, Measurement
from bigsmall.results.series import BREATH, PULSE, Sign
from bigsmall.video import VideoWriter

if TYPE_CHECKING:
    from bigsmall.measure import Progress

Colour = tuple[int, int, int]
LATEST_START = 3600.0  # s: a clock that begins later counts from somewhere else than the video
LONG_SIDE, SHORT_SIDE = 1920, 1080  # pixels; larger videos are made smaller
SCROLL = {PULSE: 8.0, BREATH: 24.0}  # s of waveform in sight
COLOURS: dict[Sign, Colour] = {PULSE: (255, 118, 135), BREATH: (95, 214, 200)}
WHITE, GREY, ACTIVE = (255, 255, 255), (176, 182, 192), (255, 190, 80)


def write(m: Measurement, path: str | os.PathLike[str], tell: Progress) -> None:
    """`Measurement.overlay`: frame by frame, in bounded memory."""
    if Path(path).suffix.lower() != ".mp4":
        raise ValueError(f"path was {os.fspath(path)!r}, expected a name that ends in .mp4")
    if m.video is None:
        raise ValueError("video was None, expected the video that was measured, to be read again")
    width, height, scale = _size(m.video.width, m.video.height)
    faces = [_Face(face, scale) for face in m.faces]
    canvas = _Canvas(width, height, m.action_units)
    with VideoWriter(path, m.video.fps, codec="libx264", options={"crf": "20", "preset": "veryfast"}) as writer:
        start: float | None = None
        for frame in m.video:
            if start is None:  # players take no time before zero, nor a date
                start = 0.0 if 0 <= frame.timestamp < LATEST_START else frame.timestamp
            picture = Image.fromarray(frame.rgb)
            if scale < 1:
                picture = picture.resize((width, height), Image.Resampling.BOX)
            rgb = np.array(picture)[:height, :width]
            writer.write(canvas.draw(rgb, faces, frame.index, frame.timestamp), frame.timestamp - start)
            tell("drawing", frame.index + 1, m.source["frames"])


def _size(width: int, height: int) -> tuple[int, int, float]:
    """Of the new video, both even as players expect it, and its scale."""
    scale = min(1.0, LONG_SIDE / max(width, height), SHORT_SIDE / min(width, height))
    even = (max(2, int(side * scale) // 2 * 2) for side in (width, height))
    return *even, scale  # type: ignore[return-value]


class _Face:
    """What there is to draw of one face, by the number of the frame and by time."""

    def __init__(self, m: Measurement, scale: float) -> None:
        self.name = f"face {m.face_id}"
        rows = m.frames[m.frames["success"] == 1]
        self._row = np.full(m.source["frames"], -1)
        self._row[rows["frame"]] = np.arange(len(rows))
        self._boxes = scale * rows[["x", "y", "w", "h"]].to_numpy(dtype=float)
        self._units = rows[list(m.action_units)].to_numpy(dtype=float, na_value=np.nan)
        self._times = m.frames["timestamp"].to_numpy(dtype=float)
        self._waves = {sign: m.frames[sign.column].to_numpy(dtype=float) for sign in SCROLL}
        self._windows = {
            sign: m.windows.loc[m.windows["vital"] == sign.vital, ["start", "end", "value"]].to_numpy(dtype=float)
            for sign in SCROLL
        }
        self.unit = {sign: sign.reading(m).unit for sign in SCROLL}

    def _at(self, index: int) -> int:
        return int(self._row[index]) if index < len(self._row) else -1

    def box(self, index: int) -> np.ndarray | None:
        """x, y, w, h in this frame."""
        return self._boxes[self._at(index)] if self._at(index) >= 0 else None

    def units(self, index: int) -> np.ndarray:
        """Probabilities of the action units in this frame."""
        return self._units[self._at(index)] if self._at(index) >= 0 else np.full(self._units.shape[1], np.nan)

    def rate(self, sign: Sign, now: float) -> str:
        """Of the window whose middle is nearest; a dash where that was refused or there is none."""
        windows = self._windows[sign]
        windows = windows[(windows[:, 0] <= now) & (now <= windows[:, 1])]
        value = windows[np.abs(windows[:, :2].sum(1) / 2 - now).argmin(), 2] if len(windows) else np.nan
        return f"{'-' if np.isnan(value) else format(value, '.0f')} {self.unit[sign]}"

    def wave(self, sign: Sign, now: float) -> tuple[np.ndarray, np.ndarray]:
        """The waveform up to now: how long ago as a share of what is in sight, and standard deviations."""
        first, last = np.searchsorted(self._times, (now - SCROLL[sign], now + 1e-9))
        return (now - self._times[first:last]) / SCROLL[sign], self._waves[sign][first:last]


class _Canvas:
    """Where everything goes in a picture of one size; what would be too small to read is left out."""

    def __init__(self, width: int, height: int, action_units: tuple[str, ...]) -> None:
        self.width, self.height, self.action_units = width, height, action_units
        size = max(10, round(min(width, height) / 30))
        file = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
        self.font = ImageFont.truetype(str(file), size)
        self.row, self.gap, self.thick = round(1.25 * size), size // 2, max(1, size // 8)
        self.strip = 4 * self.row if height > 8 * self.row else 0  # both waveforms, at the bottom
        rows = (height - self.strip - 2 * self.gap) // self.row
        self.bars = action_units if len(action_units) <= rows and width > 16 * size else ()
        self.label = round(max(self.font.getlength(text) for text in ("000 breaths/min", *action_units)))

    def draw(self, rgb: np.ndarray, faces: list[_Face], index: int, now: float) -> np.ndarray:
        first = faces[0]
        if self.strip:
            rgb[-self.strip :] //= 3
        if self.bars:
            right = 2 * self.gap + round(self.font.getlength("AU00 ")) + 3 * self.row
            rgb[: len(self.bars) * self.row + 2 * self.gap, :right] //= 3
        picture = Image.fromarray(rgb)
        pen = ImageDraw.Draw(picture)
        for face in faces:
            self._box(pen, face, index, face.name + ", " + face.rate(PULSE, now) if len(faces) > 1 else "")
        if self.bars:
            self._units(pen, first.units(index))
        if self.strip:
            for i, sign in enumerate(SCROLL):
                self._wave(pen, first, sign, now, self.height - self.strip + 2 * i * self.row)
        return np.asarray(picture)

    def _box(self, pen: ImageDraw.ImageDraw, face: _Face, index: int, label: str) -> None:
        box = face.box(index)
        if box is None:
            return
        x, y, w, h = box
        pen.rectangle((x, y, x + w, y + h), outline=WHITE, width=self.thick)
        # above the box, or within it where there is no room
        pen.text((x + self.thick, y - self.row if y >= self.row else y + self.thick), label, WHITE, self.font,
                 stroke_width=self.thick, stroke_fill=(0, 0, 0))  # fmt: skip

    def _units(self, pen: ImageDraw.ImageDraw, probabilities: np.ndarray) -> None:
        left, full = self.gap + self.font.getlength("AU00 "), 3 * self.row
        for i, (name, probability) in enumerate(zip(self.bars, probabilities, strict=True)):
            y = self.gap + i * self.row
            colour = ACTIVE if probability >= AU_THRESHOLD else GREY
            pen.text((self.gap, y), name, colour, self.font)
            top, base = y + 0.3 * self.row, y + 0.75 * self.row
            pen.rectangle((left, top, left + full, base), outline=(90, 96, 106))
            if probability > 0:
                pen.rectangle((left, top, left + probability * full, base), fill=colour)

    def _wave(self, pen: ImageDraw.ImageDraw, face: _Face, sign: Sign, now: float, top: int) -> None:
        pen.text((self.gap, top + 0.4 * self.row), face.rate(sign, now), COLOURS[sign], self.font)
        left, right = 2 * self.gap + self.label, self.width - self.gap
        ago, values = face.wave(sign, now)
        x = right - ago * (right - left)
        y = top + self.row - np.clip(values, -3, 3) / 3 * 0.9 * self.row
        known = np.isfinite(y)
        for part in np.split(np.arange(len(x))[known], np.flatnonzero(np.diff(np.flatnonzero(known)) > 1) + 1):
            if len(part) > 1:
                points = np.stack([x[part], y[part]], 1).ravel().tolist()
                pen.line(points, COLOURS[sign], self.thick, joint="curve")
