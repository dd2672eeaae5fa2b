"""From a video with labels to the arrays of a prepared recording, in two passes of bounded memory.

What is trained on is what is measured: the frames that are used, the boxes that are cut and the stretches within which
differences are taken are those of `bigsmall.measure` (`bigsmall.pipeline`). A dataset says what its recordings are,
and `jobs` makes of each what `prepare` runs.
"""

from __future__ import annotations

import inspect
import math
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from ..face import CropPolicy, parse_crop
from ..video import Frame, Times, Video, open_video
from ..video.files import IMAGE_SUFFIXES
from .align import Signal

CONVENTIONS = ("exact", "bigsmall", "toolbox", "toolbox-pre225")
SPREAD = {"linspace": 1, "toolbox": 0}  # of the labels' readings: how far past the last sample the last frame reads


@dataclass(frozen=True)
class Labels:
    """What a dataset says about a video. None: it says nothing of it.

    Attributes:
        bvp, respiration: waves that the targets are made of.
        bvp_wave, respiration_wave: waves to evaluate against, where they are others.
        heart_rate, respiration_rate: per minute.
        au: (n, U) uint8, 1 present, 0 absent, 255 not coded, named by `action_units`.
        au_frames: (n,) which frame of the video, from 0, each row is of; or
        au_times: (n,) seconds of the video, at least two; a frame takes the nearest row, half a step away at most.
        landmarks: (n, 49, 2) x, y in pixels of the video's frames 0, 1, ..., in FACTS 3.5's order; NaN unknown.
        notes: what is wrong with them, for people.
    """

    bvp: Signal | None = None
    respiration: Signal | None = None
    bvp_wave: Signal | None = None
    respiration_wave: Signal | None = None
    heart_rate: Signal | None = None
    respiration_rate: Signal | None = None
    au: np.ndarray | None = None
    au_frames: np.ndarray | None = None
    au_times: np.ndarray | None = None
    landmarks: np.ndarray | None = None
    action_units: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Zipped(NamedTuple):
    """The images in one folder of a zip file, in the order of the zip (BP4D+, FACTS 4)."""

    archive: Path
    folder: str


@dataclass(frozen=True)
class Recording:
    """A video and its labels.

    Attributes:
        name: of the prepared file, without its suffix; no other recording of the dataset has it.
        subject: who is seen.
        video: a file, a folder of images, or `Zipped`.
        labels: reads them; picklable, so a function of a module or a `functools.partial` of one.
        fps: frames per second, of folders, or in place of a file's own clock; timestamps: seconds, of each frame.
        first, last: frames of the video that are used, from 0, both included; None: to the end.
        start, end: seconds of the video that are used, likewise.
        crop: the dataset's own, which `prepare`'s option replaces.
        pseudo: "pos": the target of the pulse is made of the frames' colours (FACTS 4).
    """

    name: str
    subject: str
    video: Path | Zipped
    labels: Callable[[], Labels]
    fps: float | None = None
    timestamps: Times | None = None
    first: int = 0
    last: int | None = None
    start: float = -math.inf
    end: float | None = None
    crop: str = "face"
    pseudo: str | None = None

    def has(self, frame: Frame) -> bool:
        """Whether this frame of the video is among those that are used."""
        late, after = frame.timestamp >= self.start, frame.index >= self.first
        early, before = self.end is None or frame.timestamp <= self.end, self.last is None or frame.index <= self.last
        return late and after and early and before

    @contextmanager
    def open(self) -> Iterator[Video]:
        """The video, readable as often as wanted; of a zip, unpacked for as long."""
        if not isinstance(self.video, Zipped):
            yield open_video(self.video, fps=self.fps, timestamps=self.timestamps)
            return
        with tempfile.TemporaryDirectory() as folder:
            _unpack(self.video, Path(folder))
            yield open_video(Path(folder), fps=self.fps, timestamps=self.timestamps)


def _unpack(zipped: Zipped, folder: Path) -> None:
    try:
        with zipfile.ZipFile(zipped.archive) as archive:
            names = [PurePosixPath(member.filename) for member in archive.infolist()]
            pictures = [name for name in names if name.suffix.lower() in IMAGE_SUFFIXES]  # beside them lie 3D models
            inside = [name for name in pictures if name.parent == PurePosixPath(zipped.folder)]
            for number, name in enumerate(inside):  # numbered: the zip's order is kept
                (folder / f"{number:07d}{name.suffix}").write_bytes(archive.read(str(name)))
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{zipped.archive} cannot be unpacked: {error}") from error
    if not inside:
        raise ValueError(f"{zipped.archive} has no images in {zipped.folder!r}")


@dataclass(frozen=True)
class Settings:
    """How videos are prepared: the options of every dataset of videos.

    Attributes:
        convention: of the inputs, as `bigsmall_kernels.bigsmall_inputs` takes it.
        crop: as `bigsmall.face.parse_crop` takes it; None: each recording's own.
        n_segment: frames of a clip; every stretch is cut to a multiple of it.
        big_every: of every so many frames of a stretch the first one's Big picture is kept; None: of each clip.
        frames: sizes of further pictures, such as (72, 36).
        labels: "times": read at the frames' timestamps. Spread evenly over the frames, whatever the clocks say:
            "linspace", as the released weights were trained (FACTS 3.3); "toolbox", as rPPG-Toolbox reads PURE.
    """

    convention: str = "exact"
    crop: CropPolicy | None = None
    n_segment: int = 3
    big_every: int | None = None
    frames: tuple[int, ...] = ()
    labels: str = "times"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Settings:
        """Checked.

        Raises:
            ValueError: an option outside what is possible, named.
        """
        made = dict(options)
        for name, known in (("convention", CONVENTIONS), ("labels", ("times", *SPREAD))):
            if made.get(name, known[0]) not in known:
                raise ValueError(f"{name} was {made[name]!r}, expected one of {', '.join(known)}")
        for name in ("n_segment", "big_every"):
            if made.get(name) is not None:
                _positive(name, made[name])
        sizes = made.get("frames", ())
        made["frames"] = tuple(sizes) if isinstance(sizes, (list, tuple)) else (sizes,)
        for size in made["frames"]:
            _positive("frames", size)
        if made.get("crop") is not None:
            made["crop"] = parse_crop(made["crop"])
        return cls(**made)


def _positive(name: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} was {value!r}, expected an integer of at least 1")


@dataclass(frozen=True)
class RecordingJob:
    """A recording to be prepared; picklable."""

    recording: Recording
    dataset: str
    settings: Settings = field(default_factory=Settings)

    @property
    def name(self) -> str:
        return self.recording.name

    @property
    def subject(self) -> str:
        return self.recording.subject

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The arrays and the meta data of `prepared.write_prepared`.

        Raises:
            ValueError: no face, too few frames, or labels that cannot be read; `VideoError`: no video.
        """
        from .reading import read  # decodes, and imports what that needs

        return read(self.recording, self.dataset, self.settings)


def jobs(find: Callable[..., Sequence[Recording]], spec: Mapping[str, Any]) -> list[RecordingJob]:
    """What is to be done for a dataset of videos.

    Args:
        find: the dataset's own, `find(root, **options)`.
        spec: dataset, root, the options of `Settings` and those of `find`.

    Raises:
        ValueError: an option that neither has, or a value that is not possible.
    """
    common = {f.name for f in fields(Settings)}
    own = set(list(inspect.signature(find).parameters)[1:])
    given = {name: value for name, value in spec.items() if name not in ("dataset", "root")}
    if unknown := sorted(set(given) - common - own):
        raise ValueError(f"{unknown[0]} is no option of {spec['dataset']}, expected {', '.join(sorted(common | own))}")
    settings = Settings.of({name: value for name, value in given.items() if name in common - own})
    root = Path(spec["root"])
    if not root.exists():
        raise ValueError(f"root was {str(root)!r}, which does not exist")
    recordings = find(root, **{name: value for name, value in given.items() if name in own})
    return [RecordingJob(recording, spec["dataset"], settings) for recording in recordings]
