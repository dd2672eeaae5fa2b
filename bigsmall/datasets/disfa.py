"""DISFA: 27 people watching a film, 1024x768 at 20 Hz, each frame coded for 12 action units from 0 to 5.

Two layouts: the release, `Videos_LeftCamera/LeftVideoSN001_comp.avi` with `ActionUnit_Labels/SN001/SN001_au1.txt`,
whose lines are frame (from 1) and intensity; and JAANet's (FACTS 4), pictures `SN001/<n>.jpg`, n from 0, named by the
lines of `<part>_path.txt`, with their units, 0 or 1, in the same line of `<part>_AUoccur.txt` and, where that is there,
their landmarks, x y x y ... in pixels, of `<part>_land.txt`. The video of SN010 is one frame shorter than its labels.
The field's three folds are those of `datasets.folds`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .prepared import POINTS, UNKNOWN
from .recording import Labels, Recording, RecordingJob
from .recording import jobs as recording_jobs
from .text import broken, not_here, table

LAYOUT = (
    "Videos_LeftCamera/LeftVideoSN001_comp.avi with ActionUnit_Labels/SN001/SN001_au1.txt, or JAANet's SN001/0.jpg "
    "with lists such as DISFA_part1_path.txt and DISFA_part1_AUoccur.txt"
)
UNITS = {12: (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26), 8: (1, 2, 4, 6, 9, 12, 25, 26)}
FPS = 20.0


def find(root: Path, *, units: int = 12, present: int = 2, lists: str | None = None) -> list[Recording]:
    """The recordings under `root`.

    Args:
        units: 12, or the 8 that JAANet and the paper's Table 4 use.
        present: the least intensity that counts as present; JAANet's is 2 (the lists of its layout have it in them).
        lists: the folder of JAANet's lists; None: `root`.

    Raises:
        ValueError: `root` has not the layout, or an option is wrong.
    """
    if units not in UNITS:
        raise ValueError(f"units was {units!r}, expected 8 or 12")
    if not 1 <= present <= 5:
        raise ValueError(f"present was {present!r}, expected an intensity from 1 to 5")
    videos = {p.name[9:14]: p for p in (root / "Videos_LeftCamera").glob("LeftVideoSN???_comp.avi")}
    coded = {p.name: p for p in (root / "ActionUnit_Labels").glob("SN???")}
    if videos or coded:
        nowhere = root / "Videos_LeftCamera"
        return [
            Recording(
                name, name, videos.get(name, nowhere / f"LeftVideo{name}_comp.avi"),
                partial(labels, root / "ActionUnit_Labels" / name, units, present),
            )
            for name in sorted({*videos, *coded})
        ]  # fmt: skip
    listed = sorted(Path(lists or root).glob("*_path.txt"))
    if not listed:
        not_here(root, LAYOUT)
    return _listed(root, listed, units)


def labels(folder: Path, units: int, present: int) -> Labels:
    """The action units of the release's folder of one person.

    Raises:
        ValueError: a file is missing or not as the release has it.
    """
    files = [folder / f"{folder.name}_au{unit}.txt" for unit in UNITS[units]]
    read = [table(path, delimiter=",", columns=2).astype(np.int64) for path in files]
    if any(not np.array_equal(of[:, 0], read[0][:, 0]) for of in read):
        raise ValueError(f"{folder}: the files of the units name different frames")
    intensity = np.stack([of[:, 1] for of in read], axis=1)
    au = np.where((intensity >= 0) & (intensity <= 5), intensity >= present, UNKNOWN).astype(np.uint8)
    return Labels(au=au, au_frames=read[0][:, 0] - 1, action_units=_names(units))


def _names(units: int) -> tuple[str, ...]:
    return tuple(f"AU{unit:02d}" for unit in UNITS[units])


def _listed(root: Path, lists: list[Path], units: int) -> list[Recording]:
    """JAANet's layout: the recordings are the folders that the lists name."""
    coded: dict[Path, dict[int, np.ndarray]] = defaultdict(dict)
    seen: dict[Path, dict[int, np.ndarray]] = defaultdict(dict)  # landmarks
    for path in lists:
        occur = table(path.with_name(path.name.replace("_path.txt", "_AUoccur.txt")))
        pictures = [Path(line.strip()) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if occur.shape != (len(pictures), units):
            shape = f"{len(pictures)} pictures and labels of shape {occur.shape}"
            raise ValueError(f"{path} has {shape}, expected {units} units for each picture (option units)")
        land = path.with_name(path.name.replace("_path.txt", "_land.txt"))
        points = table(land, columns=2 * POINTS) if land.is_file() else np.full((len(pictures), 2 * POINTS), np.nan)
        if len(points) != len(pictures):
            raise ValueError(f"{land} has {len(points)} lines, expected {len(pictures)}, one for each picture")
        for picture, row, of in zip(pictures, occur, points, strict=True):
            if not picture.stem.isdecimal():
                raise ValueError(f"{path} names {picture}, expected pictures <person>/<number>.jpg")
            coded[root / picture.parent][int(picture.stem)] = row
            seen[root / picture.parent][int(picture.stem)] = of.reshape(POINTS, 2)
    return [_pictures(folder, coded[folder], seen[folder], units) for folder in sorted(coded)]


def _pictures(folder: Path, coded: dict[int, np.ndarray], seen: dict[int, np.ndarray], units: int) -> Recording:
    numbers = sorted(int(p.stem) for p in folder.glob("*.jpg") if p.stem.isdecimal())
    if gone := sorted(set(coded) - set(numbers)):
        reason = f"{folder} has no {gone[0]}.jpg and {len(gone) - 1} other pictures that the lists name"
        return Recording(folder.name, folder.name, folder, partial(broken, reason))
    rows = np.array([coded.get(n, np.full(units, UNKNOWN)) for n in numbers])
    au = np.where(np.isin(rows, (0, 1)), rows, UNKNOWN).astype(np.uint8)
    landmarks = np.array([seen.get(n, np.full((POINTS, 2), np.nan)) for n in numbers])
    made = Labels(au=au, au_frames=np.arange(len(numbers)), action_units=_names(units), landmarks=landmarks)
    return Recording(folder.name, folder.name, folder, partial(_as_is, made), timestamps=np.array(numbers) / FPS)


def _as_is(made: Labels) -> Labels:
    return made


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `find` and of `recording.Settings`."""
    return recording_jobs(find, spec)
