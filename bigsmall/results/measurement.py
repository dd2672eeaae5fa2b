"""What a measurement found, and its writers. Each file appears whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bigsmall.files import whole
from bigsmall.signals import Rate, Vital
from bigsmall.signals.conditions import Conditions

if TYPE_CHECKING:
    import pandas as pd

    from bigsmall.measure import Progress
    from bigsmall.video import Video

SCHEMA_VERSION = 2
DISCLAIMER = "Not a medical device: not for diagnosis, treatment or monitoring of any person's health."
AU_THRESHOLD = 0.5  # on the probability, as the authors count an action unit (FACTS 6)
WINDOW_COLUMNS = (
    "face_id", "vital", "start", "end", "value", "unit", "confidence", "low", "high", "snr", "peaks", "pos", "note",
)  # fmt: skip


@dataclass(frozen=True)
class Reading:
    """A rate per minute that was measured, or refused: then `value` and `interval` are None and `note` says why.

    Attributes:
        value: per minute. unit: "bpm" or "breaths/min".
        confidence: 0 to 1, the estimated chance that `value` is right.
        interval: 95 %, per minute.
        note: the reason of a refusal, or what part of the video was measured.
        band: between which two rates it was looked for, per minute.
        snr: dB, estimated from the signal alone.
        by_peaks: the same rate from the distances between the waveform's peaks, None where they cannot be told apart.
    """

    value: float | None
    unit: str
    confidence: float
    interval: tuple[float, float] | None
    note: str | None
    band: tuple[float, float]
    snr: float | None
    by_peaks: float | None

    @classmethod
    def of(cls, rate: Rate, vital: Vital) -> Reading:
        band = (60 * vital.low, 60 * vital.high)
        return cls(rate.value, rate.unit, rate.confidence, rate.interval, rate.note, band, rate.snr, rate.by_peaks)

    @classmethod
    def refused(cls, vital: Vital, note: str) -> Reading:
        return cls.of(Rate(None, vital.unit, 0.0, None, note), vital)

    def noting(self, more: str) -> Reading:
        """The same with `more` in its note."""
        return replace(self, note=f"{self.note}; {more}" if self.note else more)


@dataclass(frozen=True, eq=False)
class Trace:
    """One evenly sampled waveform of the stretch that the rates come from."""

    values: np.ndarray  # (T,), band-passed, at unit standard deviation
    unfiltered: np.ndarray  # (T,), only detrended: what the rate is read from
    fs: float  # Hz
    start: float  # seconds, the first sample's timestamp

    @property
    def seconds(self) -> np.ndarray:
        """The timestamp of every sample."""
        return self.start + np.arange(len(self.values)) / self.fs

    def between(self, start: float, end: float) -> Trace:
        """The part from `start` to `end` seconds."""
        first, last = (round((t - self.start) * self.fs) for t in (start, end))
        part = slice(max(first, 0), max(last, 0))
        return Trace(self.values[part], self.unfiltered[part], self.fs, self.start + part.start / self.fs)


class Thumbnail(NamedTuple):
    """The face at one moment."""

    timestamp: float  # seconds
    rgb: np.ndarray  # (96, 96, 3) uint8


@dataclass(frozen=True, eq=False)
class Measurement:
    """Everything that was measured of one face of a video.

    Attributes:
        source: name, width, height, fps, frames, repeated (frames that show the picture before them again), seconds
            and, where something was wrong, a note.
        heart_rate, respiration_rate: from the network.
        unsupervised: the heart rate without a network, as an independent check, by method: "pos", "chrom", "green".
        frames: one row a frame: frame, timestamp (s), face_id, success, confidence, x, y, w, h (pixels), bvp,
            respiration (unit standard deviation, NaN where not measured), AU01 ... AU24 (probabilities), AU01_c ...
            (0, 1 or missing).
        windows: sliding windows: face_id, vital, start, end (s), value, unit, confidence, low, high, snr (dB), peaks
            (the rate by peaks), pos (the rate by POS), note.
        lost: stretches without a face, (first, last) timestamps in seconds.
        model: weights, cards of the files, crop, and what a reader of the numbers must know.
        action_units: names of the columns in `frames`; empty where the weights have none.
        traces: "pulse", "pos", "chrom", "green", "respiration", "chest" (how chest and shoulders move), where there was
            enough video for them.
        face_id: which face: 0, 1, ... in the order in which they appeared.
        others: the other faces of the video, where all were measured.
        thumbnails: the face at some moments, in order.
        conditions: under which the face was seen, in the stretch that the rates come from.
        video: what was measured, to be read again by `overlay`; None where it cannot be.
    """

    source: Mapping[str, Any]
    heart_rate: Reading
    respiration_rate: Reading
    unsupervised: Mapping[str, Reading]
    frames: pd.DataFrame
    windows: pd.DataFrame
    lost: tuple[tuple[float, float], ...]
    model: Mapping[str, Any]
    action_units: tuple[str, ...]
    traces: Mapping[str, Trace]
    face_id: int = 0
    others: tuple[Measurement, ...] = ()
    thumbnails: tuple[Thumbnail, ...] = field(default=(), repr=False)
    conditions: Conditions | None = field(default=None, repr=False)
    video: Video | None = field(default=None, repr=False)

    @property
    def faces(self) -> tuple[Measurement, ...]:
        """This one and the others."""
        return self, *self.others

    @property
    def measured(self) -> bool:
        """Whether anything was, of any face: a rate, or action units in any frame."""
        return any(
            face.measured_units or face.heart_rate.value is not None or face.respiration_rate.value is not None
            for face in self.faces
        )

    @property
    def measured_units(self) -> bool:
        """Whether action units were, in any frame of this face."""
        return bool(self.frames[list(self.action_units)].notna().to_numpy().any())

    def to_dict(self) -> dict[str, Any]:
        """As `to_json` writes it; numbers that are not finite become None."""
        from bigsmall import __version__

        result: dict[str, Any] = _plain(
            {
                "schema_version": SCHEMA_VERSION,
                "bigsmall_version": __version__,
                "source": dict(self.source),
                "heart_rate": asdict(self.heart_rate),
                "respiration_rate": asdict(self.respiration_rate),
                "faces": [face._face() for face in self.faces],
                "model": dict(self.model),
                "disclaimer": DISCLAIMER,
            }
        )
        return result

    def _face(self) -> dict[str, Any]:
        """What `to_dict` says of one face."""
        units = {}
        for name in self.action_units:
            probability = self.frames[name].dropna()
            if len(probability):
                units[name] = {
                    "mean_probability": float(probability.mean()),
                    "active_share": float((probability >= AU_THRESHOLD).mean()),
                }
        return {
            "face_id": self.face_id,
            "heart_rate": asdict(self.heart_rate),
            "respiration_rate": asdict(self.respiration_rate),
            "unsupervised": {name: asdict(reading) for name, reading in self.unsupervised.items()},
            "action_units": units or None,
            "frames_with_face": int(self.frames["success"].sum()),
            "frames": len(self.frames),
            "lost": [{"start": start, "end": end} for start, end in self.lost],
        }

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write the rates, their confidence and everything about how they came to be."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        with whole(path) as aside:
            aside.write_text(text, encoding="utf-8")

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write the `frames` of all faces, by frame and face_id, to a millionth of every unit."""
        with whole(path) as aside:
            _csv(self._all_frames(), aside)

    def to_parquet(self, path: str | os.PathLike[str]) -> None:
        """Write the `frames` of all faces, by frame and face_id, as they are.

        Raises:
            ImportError: pyarrow is not installed, which the extra `bigsmall-kernels[parquet]` brings.
        """
        if find_spec("pyarrow") is None:
            raise ImportError("to_parquet needs pyarrow: pip install 'bigsmall-kernels[parquet]'")
        with whole(path) as aside:
            self._all_frames().to_parquet(aside, index=False)

    def _all_frames(self) -> pd.DataFrame:
        return _together([face.frames for face in self.faces]).sort_values(["frame", "face_id"], ignore_index=True)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw this face: waveforms, rates over time, spectra, action units, and what was refused.

        The suffix of `path` names the format: png, svg, pdf.
        """
        from bigsmall.results.plot import draw

        figure = draw(self)
        kind = Path(path).suffix.lstrip(".") or "png"
        with whole(path) as aside, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph")  # a name in letters that the font does not have: empty boxes
            figure.savefig(aside, format=kind, dpi=130)

    def report(self, path: str | os.PathLike[str]) -> None:
        """Write one HTML page about all faces that needs no other file, no script and no network."""
        from bigsmall.results.report import page

        with whole(path) as aside:
            aside.write_text(page(self), encoding="utf-8")

    def overlay(self, path: str | os.PathLike[str], *, progress: Progress | None = None) -> None:
        """Write the video again, as x264 at its own timestamps, with what was measured drawn into it.

        Timestamps that begin before zero or after an hour are counted from the first.

        Args:
            path: where to; `.mp4`.
            progress: called as by `bigsmall.measure`.

        Raises:
            ValueError: `video` is None.
            VideoError: it cannot be read any more.
        """
        from bigsmall.results.overlay import write

        write(self, path, progress or (lambda stage, done, total: None))

    def save(self, folder: str | os.PathLike[str]) -> list[Path]:
        """Write measurement.json, frames.csv, windows.csv, report.html, signals.png into `folder`, each whole.

        Other faces get a signals_<face_id>.png each.

        Returns:
            the files' paths.
        """
        folder = Path(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        # a folder that is there may be a mount of its own, from which nothing can be renamed to elsewhere
        beside = folder if folder.is_dir() else folder.parent
        with tempfile.TemporaryDirectory(dir=beside, prefix=f".{folder.name}.") as name:
            aside = Path(name)
            self.to_json(aside / "measurement.json")
            self.to_csv(aside / "frames.csv")
            _csv(_together([face.windows for face in self.faces]), aside / "windows.csv")
            self.report(aside / "report.html")
            self.plot(aside / "signals.png")
            for face in self.others:
                face.plot(aside / f"signals_{face.face_id}.png")
            folder.mkdir(exist_ok=True)
            made = sorted(path.name for path in aside.iterdir())
            for file in made:
                os.replace(aside / file, folder / file)
        for old in folder.glob("signals_*.png"):  # of faces that a measurement before this one found
            if old.name not in made and old.stem.removeprefix("signals_").isdigit():
                old.unlink()
        return [folder / file for file in made]


def _together(tables: list[pd.DataFrame]) -> pd.DataFrame:
    import pandas as pd

    filled = [table for table in tables if len(table)]
    return pd.concat(filled, ignore_index=True) if len(filled) > 1 else (filled or tables)[0]


def _csv(table: pd.DataFrame, path: Path) -> None:
    table.round(6).to_csv(path, index=False)


def _plain(value: Any) -> Any:
    """For JSON: plain dictionaries, lists and numbers."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return round(float(value), 6) if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
