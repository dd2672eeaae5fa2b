"""BP4D+: 140 people in ten trials, 1040x1392 at 25 Hz, with blood pressure, breathing and coded action units.

The layout and the columns are those of FACTS 3.1, 3.3 and 4: pictures in `2D+3D/F001.zip`, `Physiology/F001/T1/*.txt`
with a number a line, `AUCoding/AU_OCC/F001_T1.csv`. The authors' mistakes are not made here: no sample is lost, and a
unit that is not coded (9, -1, 999) is unknown, not absent. To train as they did: `skip_first: true`,
`missing_as_zero: true` and `labels: linspace`.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ..weights import ACTION_UNITS
from .align import Signal
from .landmarks import Aligned, with_landmarks
from .prepared import UNKNOWN
from .recording import Labels, Recording, RecordingJob, Zipped
from .recording import jobs as recording_jobs
from .text import broken, not_here, skipped, table

LAYOUT = "2D+3D/F001.zip of pictures F001/T1/*.jpg, Physiology/F001/T1/*.txt and AUCoding/AU_OCC/F001_T1.csv"
FPS = 25.0
CODED_TRIALS = ("T1", "T6", "T7", "T8")
CODED = (1, 2, 4, 5, 6, 7, *range(9, 21), 22, 23, 24, *range(27, 40))  # the columns of AU_OCC, after the frame's
GRADED = ("AU06", "AU10", "AU12", "AU14", "AU17")  # those with intensities
ALIGNED = ("landmarks", "released")
SKIPPED = {
    "F041T7": "bad data, left out by the authors",
    "F054T9": "bad data, left out by the authors",
    "F042T11": "not a trial: a name without data",
    "F082T1": "not in the release",
}
TRIAL = re.compile(r"([FM]\d{3})_?(T\d+)")
WAVES = {
    "bvp_wave": "BP_mmHg", "heart_rate": "Pulse Rate_BPM",
    "respiration": "Resp_Volts", "respiration_rate": "Respiration Rate_BPM",
}  # fmt: skip


def find(
    root: Path,
    *,
    au_subset: bool = False,
    missing_as_zero: bool = False,
    intensity: int | None = None,
    skip_first: bool = False,
    physiology_hz: float = 1000.0,
    pseudo: bool = True,
    aligned: str | None = None,
) -> list[Recording]:
    """The recordings under `root`.

    Args:
        au_subset: only the trials whose action units are coded, from the first to the last coded frame.
        missing_as_zero: a unit that is not coded counts as absent, as the released weights were trained.
        intensity: the least intensity at which AU06, AU10, AU12, AU14 and AU17 count as present; None: as coded.
        skip_first: lose the first sample of each signal, as the released reading does.
        physiology_hz: samples a second of the signals.
        pseudo: the pulse's target is made of the pictures (FACTS 4), as the paper trains; else the blood pressure is.
        aligned: "landmarks": faces are turned upright by those in 2DFeatures/F001_T1.mat (FACTS 3.5); "released": with
            the authors' mistake in it. Landmarks are then kept, which JAA-Net is trained with.

    Raises:
        ValueError: `root` has not the layout, or an option is wrong.
    """
    if intensity is not None and not 1 <= intensity <= 5:
        raise ValueError(f"intensity was {intensity!r}, expected 1 to 5")
    if not physiology_hz > 0:
        raise ValueError(f"physiology_hz was {physiology_hz!r}, expected a positive number")
    if aligned not in (None, *ALIGNED):
        raise ValueError(f"aligned was {aligned!r}, expected {' or '.join(ALIGNED)}")
    archives = sorted((root / "2D+3D").glob("*.zip"))
    pictures = {name: of for archive in archives for name, of in _trials(archive).items()}
    measured = {"".join(p.parts[-2:]) for p in (root / "Physiology").glob("[FM]*/T*") if p.is_dir()}
    coded = {p.stem.replace("_", "") for p in (root / "AUCoding" / "AU_OCC").glob("*.csv")}
    names = [match for name in {*pictures, *measured, *coded} if (match := TRIAL.fullmatch(name))]
    if not names and not archives:
        not_here(root, LAYOUT)
    found: list[Recording] = []
    for match in sorted(names, key=lambda m: (m[1], int(m[2][1:]))):
        name, subject, trial = match[0], match[1], match[2]
        if au_subset and trial not in CODED_TRIALS:
            continue
        video = pictures.get(name, Zipped(root / "2D+3D" / f"{subject}.zip", f"{subject}/{trial}"))
        read = partial(labels, root, subject, trial, missing_as_zero, intensity, skip_first, physiology_hz, pseudo)
        options: dict[str, Any] = {"fps": FPS, "crop": "square", "pseudo": "pos" if pseudo else None}
        if name in SKIPPED:
            read = partial(skipped, SKIPPED[name])
        elif au_subset:
            try:
                frames = _coding(root, subject, trial)[:, 0].astype(int)
                options |= {"first": int(frames.min()) - 1, "last": int(frames.max()) - 1}
            except ValueError as error:
                read = partial(broken, str(error))
        if aligned is None:
            found.append(Recording(name, subject, video, read, **options))
        else:
            path, released = root / "2DFeatures" / f"{subject}_{trial}.mat", aligned == "released"
            options |= {"crop": "frame", "landmarks": path, "released": released}
            found.append(Aligned(name, subject, video, partial(with_landmarks, read, path, released), **options))
    for archive in archives:
        if not any(match[1] == archive.stem for match in names):
            read = partial(broken, f"{archive} is no archive of pictures {archive.stem}/T1/*.jpg")
            found.append(Recording(archive.stem, archive.stem, archive, read))
    return found


def _trials(archive: Path) -> dict[str, Zipped]:
    """The folders of pictures in a person's archive, by the name of the trial."""
    try:
        with zipfile.ZipFile(archive) as opened:
            parents = {PurePosixPath(n).parent for n in opened.namelist() if n.lower().endswith(".jpg")}
    except zipfile.BadZipFile:  # told where its recordings are read
        return {}
    return {archive.stem + parent.name: Zipped(archive, str(parent)) for parent in parents}


def labels(
    root: Path,
    subject: str,
    trial: str,
    missing_as_zero: bool,
    intensity: int | None,
    skip_first: bool,
    physiology_hz: float,
    pseudo: bool,
) -> Labels:
    """The signals of a trial, and its action units where they are coded; options as of `find`.

    Raises:
        ValueError: a file is missing or not as the dataset has it.
    """
    folder = root / "Physiology" / subject / trial
    signals: dict[str, Any] = {
        name: Signal.even(table(folder / f"{file}.txt", columns=1)[int(skip_first) :, 0], physiology_hz)
        for name, file in WAVES.items()
    }
    if not pseudo:
        signals["bvp"] = signals["bvp_wave"]
    if not _coding_file(root, subject, trial).is_file():
        return Labels(**signals)
    rows = _coding(root, subject, trial)
    codes = rows[:, [1 + CODED.index(int(unit[2:])) for unit in ACTION_UNITS]]
    if intensity is not None:
        for unit in GRADED:
            codes[:, ACTION_UNITS.index(unit)] = _graded(root, subject, trial, unit, rows[:, 0], intensity)
    known = np.isin(codes, (0, 1)) | missing_as_zero
    au = np.where(known, codes == 1, UNKNOWN).astype(np.uint8)
    return Labels(**signals, au=au, au_frames=rows[:, 0].astype(np.int64) - 1, action_units=ACTION_UNITS)


def _coding_file(root: Path, subject: str, trial: str) -> Path:
    return root / "AUCoding" / "AU_OCC" / f"{subject}_{trial}.csv"


def _coding(root: Path, subject: str, trial: str) -> np.ndarray:
    """The coded frames (n, 35): the frame's number, from 1, then the units `CODED`."""
    return table(_coding_file(root, subject, trial), delimiter=",", columns=1 + len(CODED), header=1)


def _graded(root: Path, subject: str, trial: str, unit: str, frames: np.ndarray, least: int) -> np.ndarray:
    """Whether a unit has at least this intensity in the frames numbered `frames`; 9 where that is not known."""
    rows = table(root / "AUCoding" / "AU_INT" / unit / f"{subject}_{trial}_{unit}.csv", delimiter=",")
    if rows.shape[1] < 2:
        raise ValueError(f"the intensities of {unit} of {subject}{trial} have 1 column, expected frame and intensity")
    given = dict(zip(rows[:, 0].astype(int).tolist(), rows[:, 1].tolist(), strict=True))
    values = np.array([given.get(int(frame), 9.0) for frame in frames])
    return np.where((values >= 0) & (values <= 5), values >= least, 9.0)


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `find` and of `recording.Settings`."""
    return recording_jobs(find, spec)
