"""Your own videos: an index file of videos, and label files with named columns.

ROOT is the index, a .csv, .tsv or .json, or a folder that holds it as index.csv (.tsv, .json). A row (in JSON an
object of a list) is a recording; paths are relative to the index::

    video       a video file or a folder of images
    subject     who is seen: nobody is trained on and tested on
    labels      label files, several separated by ";"; empty: none
    fps         of folders of images, or in place of a file's own clock
    timestamps  instead of fps, a file with a column timestamp, a row for every frame
    start, end  seconds of the video that are used; empty: all
    name        of the prepared file; empty: the video's path with "_" for what is no letter, digit, ".", "+" or "-"

Only video and subject must be there. A label file (.csv, .tsv) has a row for every moment, which is in the column
`timestamp` (seconds of the video) or `frame` (number of the video's frame, from 0); its other columns are any of bvp,
respiration, bvp_wave, respiration_wave, heart_rate, respiration_rate and AU01, AU02 ... (1 present, 0 absent). An empty
cell is unknown. Signals with clocks of their own come in files of their own.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .align import Signal
from .prepared import UNKNOWN
from .recording import Labels, Recording, RecordingJob
from .recording import jobs as recording_jobs
from .text import broken

COLUMNS = ("video", "subject", "labels", "fps", "timestamps", "start", "end", "name")
SIGNALS = ("bvp", "respiration", "bvp_wave", "respiration_wave", "heart_rate", "respiration_rate")
UNIT = re.compile(r"AU(\d{1,2})", re.IGNORECASE)

Row = dict[str, str]


def find(root: Path) -> list[Recording]:
    """The recordings of the index at `root`.

    Raises:
        ValueError: no index, or one that is not as above; the message names file, row and column.
    """
    index = root
    if root.is_dir():
        held = [path for suffix in ("csv", "tsv", "json") if (path := root / f"index.{suffix}").is_file()]
        if len(held) != 1:
            raise ValueError(f"root: {root} holds {len(held)} of index.csv, index.tsv and index.json, expected one")
        (index,) = held
    rows = _objects(index) if index.suffix.lower() == ".json" else _rows(index)
    given = {name for _, row in rows for name in row}
    if unknown := sorted(given - set(COLUMNS)):
        raise ValueError(f"{index} has a column {unknown[0]!r}, expected {', '.join(COLUMNS)}")
    found = [_recording(index, where, row) for where, row in rows]
    first: dict[str, str] = {}
    for recording, (where, _) in zip(found, rows, strict=True):
        if first.setdefault(recording.name, where) != where:
            raise ValueError(
                f"{where}: the name {recording.name!r} is that of {first[recording.name]} too; give them a column name"
            )
    return found


def jobs(spec: Mapping[str, Any]) -> list[RecordingJob]:
    """As `datasets.jobs` wants it; options of `recording.Settings`."""
    return recording_jobs(find, spec)


def _rows(path: Path) -> list[tuple[str, Row]]:
    """The rows of a CSV or TSV file, each with where it is."""
    if path.suffix.lower() not in (".csv", ".tsv"):
        raise ValueError(f"{path} ends in {path.suffix!r}, expected .csv or .tsv, or of an index .json")
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
            header = [name.strip() for name in next(lines, [])]
            if len(set(header)) < len(header) or not all(header):
                raise ValueError(f"{path}, row 1: the columns were {header}, expected names, each once")
            rows = []
            for line in lines:
                if not any(cell.strip() for cell in line):
                    continue
                where = f"{path}, row {lines.line_num}"
                if len(line) != len(header):
                    raise ValueError(f"{where}: it has {len(line)} cells, expected {len(header)} as the columns' names")
                rows.append((where, dict(zip(header, map(str.strip, line), strict=True))))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} is no table of text: {error}") from error
    if not rows:
        raise ValueError(f"{path} has no rows, expected a row of names and at least one of values")
    return rows


def _objects(path: Path) -> list[tuple[str, Row]]:
    """The objects of a JSON index, as rows."""
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(held, list) or not held or not all(isinstance(row, dict) for row in held):
        raise ValueError(f"{path} holds something else, expected a list of objects with {', '.join(COLUMNS)}")
    return [
        (f"{path}, row {number}", {name: _text(value) for name, value in row.items()})
        for number, row in enumerate(held, 1)
    ]


def _text(value: Any) -> str:
    """As it would be in a cell."""
    return ";".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)


def _recording(index: Path, where: str, row: Row) -> Recording:
    for column in ("video", "subject"):
        if not row.get(column):
            raise ValueError(f"{where}, column {column}: was empty, expected {column} of every recording")
    name = row.get("name") or str(Path(row["video"]).with_suffix(""))
    files = [index.parent / part.strip() for part in row.get("labels", "").split(";") if part.strip()]
    labels, timestamps = partial(read_labels, files), None
    fps, start, end = (_number(where, column, row.get(column, "")) for column in ("fps", "start", "end"))
    if row.get("timestamps"):
        try:
            timestamps = _moments(_rows(index.parent / row["timestamps"]), "timestamp")
        except ValueError as error:  # is this recording's affair: the others go on
            labels = partial(broken, str(error))
    return Recording(
        re.sub(r"[^\w.+-]+", "_", name), row["subject"], index.parent / row["video"], labels,
        fps=None if np.isnan(fps) else fps, timestamps=timestamps,
        start=-np.inf if np.isnan(start) else start, end=None if np.isnan(end) else end,
    )  # fmt: skip


def read_labels(files: Sequence[Path]) -> Labels:
    """The labels in some files, each with a clock of its own.

    Raises:
        ValueError: a file is not as above, or two hold the same; the message names file, row and column.
    """
    made: dict[str, Any] = {}
    notes: list[str] = []
    for path in files:
        rows = _rows(path)
        columns = list(rows[0][1])
        clock = [name for name in ("timestamp", "frame") if name in columns]
        if not clock:
            raise ValueError(f"{path} has the columns {', '.join(columns)}, expected timestamp or frame among them")
        times = _moments(rows, clock[0])
        held: dict[str, Any] = {
            name: Signal(_column(rows, name), times, clock[0] == "frame") for name in SIGNALS if name in columns
        }
        units = {f"AU{int(match[1]):02d}": name for name in columns if (match := UNIT.fullmatch(name))}
        if units:
            held["action_units"] = tuple(sorted(units))
            held["au"] = np.stack([_unit(rows, units[unit]) for unit in sorted(units)], axis=1)
            if "frame" in columns:
                held["au_frames"] = _moments(rows, "frame").astype(np.int64)
            else:
                held["au_times"] = times
        if not held:
            raise ValueError(f"{path} has the columns {', '.join(columns)}, expected {', '.join(SIGNALS)} or AU01 ...")
        if twice := sorted(set(held) & set(made)):
            raise ValueError(f"{path} has {twice[0]}, which another label file of the recording has too")
        made |= held
        unused = [name for name in columns if name not in (*SIGNALS, "timestamp", "frame", *units.values())]
        notes += [f"{path.name}: not used: {', '.join(unused)}"] if unused else []
    return Labels(**made, notes=tuple(notes))


def _number(where: str, column: str, text: str) -> float:
    """NaN of an empty cell."""
    try:
        value = float(text) if text else np.nan
    except ValueError:
        value = np.inf
    if np.isinf(value):
        raise ValueError(f"{where}, column {column}: was {text!r}, expected a number")
    return value


def _column(rows: Sequence[tuple[str, Row]], name: str) -> np.ndarray:
    return np.array([_number(where, name, row[name]) for where, row in rows])


def _moments(rows: Sequence[tuple[str, Row]], name: str) -> np.ndarray:
    """The times of a file's rows: seconds, or numbers of frames."""
    if name not in rows[0][1]:
        raise ValueError(f"{rows[0][0]}: there is no column {name}")
    times = _column(rows, name)
    wrong = np.flatnonzero(~(np.diff(times, prepend=-np.inf) > 0) | ((times % 1 > 0) & (name == "frame")))
    if len(wrong):
        where, row = rows[wrong[0]]
        kind = "increasing seconds" if name == "timestamp" else "increasing whole numbers"
        raise ValueError(f"{where}, column {name}: was {row[name]!r}, expected {kind}")
    return times


def _unit(rows: Sequence[tuple[str, Row]], name: str) -> np.ndarray:
    values = _column(rows, name)
    for (where, row), value in zip(rows, values.tolist(), strict=True):
        if value not in (0, 1) and row[name]:
            raise ValueError(f"{where}, column {name}: was {row[name]!r}, expected 1 (present), 0 (absent) or nothing")
    return np.where(np.isnan(values), UNKNOWN, values).astype(np.uint8)
