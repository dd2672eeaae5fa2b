"""From a dataset to a folder of prepared recordings: in parallel, resumable, and nothing lost in silence.

Every recording found ends as processed, as skipped with a reason, or as failed with a reason; if any failed, so does
the call, after the others are done. What is there is not made again: `journal.jsonl` has a line for every recording
that ended, `manifest.json` is the whole list.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from ..files import sweep, whole
from ..threads import one_thread
from ..workers import each
from .folds import in_fold
from .prepared import Prepared, write_prepared

NAMES = ("simulator", "folder", "bp4d_plus", "ubfc_rppg", "pure", "disfa", "scamps")
VERSION = 1
Entry = dict[str, Any]


class Skip(Exception):  # noqa: N818  # no error
    """Raised by a job whose recording is known to be of no use; its text is the reason in the manifest."""


class Job(Protocol):
    """One recording to be made. Its properties and itself can be pickled."""

    @property
    def name(self) -> str: ...
    @property
    def subject(self) -> str: ...

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and meta, as `write_prepared` takes them."""


class PrepareError(ValueError):
    """Some recordings could not be prepared.

    Attributes:
        manifest: has all the reasons; None where the run did not come to its end.
    """

    def __init__(self, message: str, manifest: Path | None = None) -> None:
        super().__init__(message)
        self.manifest = manifest


def names() -> tuple[str, ...]:
    """The datasets that `prepare` knows."""
    return NAMES


def jobs(spec: Mapping[str, Any]) -> list[Job]:
    """The recordings that a specification describes.

    Raises:
        ValueError: no such dataset; or as the dataset says, such as a root that has not its layout.
    """
    if spec.get("dataset") not in NAMES:
        raise ValueError(f"dataset was {spec.get('dataset')!r}, expected one of {', '.join(NAMES)}")
    found: list[Job] = importlib.import_module(f".{spec['dataset']}", __package__).jobs(dict(spec))
    names = [job.name for job in found]
    if not found:
        raise ValueError(f"dataset: {spec['dataset']} holds no recording here")
    if bad := [name for name in names if not re.fullmatch(r"[\w.+-]+", name) or names.count(name) > 1]:
        raise ValueError(f"dataset: recordings need names of their own, of letters, digits, . + -; got {bad[0]!r}")
    return found


def prepare(
    spec: Mapping[str, Any], folder: str | os.PathLike[str], *, workers: int | None = None, verify: bool = False
) -> Path:
    """Prepare what `folder` does not hold yet.

    Args:
        spec: `{"dataset": NAME, "root": PATH, ...}` with the options of the dataset. `skip`: names of recordings that
            are to be left out, such as those whose files are damaged; they are listed as that.
        folder: gets a .safetensors for each recording, journal.jsonl and manifest.json.
        workers: processes; None: one for each core.
        verify: read what is there and compare it with its checksum, instead of its size alone; what differs is made
            anew.

    Returns:
        the manifest.

    Raises:
        PrepareError: recordings failed; the others are there.
        ValueError: a wrong specification, or a folder that holds something else.
    """
    folder, wanted = Path(folder), json.loads(json.dumps(dict(spec)))
    left_out = set(wanted.pop("skip", []))
    written = folder / "spec.json"
    if written.exists() and (before := json.loads(written.read_text(encoding="utf-8"))) != wanted:
        differing = sorted(key for key in {*before, *wanted} if before.get(key) != wanted.get(key))
        told = "; ".join(f"{key} was {before.get(key)!r}, now {wanted.get(key)!r}" for key in differing)
        raise ValueError(f"folder: {folder} was prepared otherwise ({told}); take another folder")
    found = jobs(wanted)
    if unknown := left_out - {job.name for job in found}:
        raise ValueError(f"skip: no recording is called {', '.join(sorted(unknown))}")
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    with whole(written) as aside:
        aside.write_text(json.dumps(wanted, indent=1), encoding="utf-8")
    journal = folder / "journal.jsonl"
    entries = {entry["name"]: entry for entry in _read(journal) if _there(folder, entry, verify)}
    for job in found:
        if job.name in left_out:
            entry = {"name": job.name, "subject": job.subject, "status": "skipped", "reason": "left out as asked for"}
            entries[job.name] = entry
    todo = [job for job in found if job.name not in entries]
    _run(todo, folder, workers, entries, len(found))
    listed = [entries[job.name] for job in found]
    manifest = folder / "manifest.json"
    with whole(manifest) as aside:
        text = json.dumps({"version": VERSION, "spec": wanted, "recordings": listed}, indent=1)
        aside.write_text(text, encoding="utf-8")
    if failed := [entry for entry in listed if entry["status"] == "failed"]:
        reasons = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in failed[:5])
        more = f"; and {len(failed) - 5} more, see {manifest}" if len(failed) > 5 else ""
        share = f"{len(failed)} of {len(listed)}"
        raise PrepareError(f"{share} recordings could not be prepared: {reasons}{more}", manifest)
    return manifest


def _run(todo: Sequence[Job], folder: Path, workers: int | None, entries: dict[str, Entry], total: int) -> None:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, open(folder / "journal.jsonl", "a") as journal:
        if journal.tell():
            journal.write("\n")  # a line that a kill has cut short ends here
        bar = progress.add_task("preparing", completed=total - len(todo), total=total)
        if not todo:
            return
        try:
            for entry in _made(todo, folder, min(workers or os.cpu_count() or 1, len(todo))):
                entries[entry["name"]] = entry
                journal.write(json.dumps(entry) + "\n")
                journal.flush()
                progress.advance(bar)
        except BrokenProcessPool:
            left = total - len(entries)
            raise PrepareError(
                f"a process was killed, perhaps for memory; {left} recordings are left: call again, with fewer workers"
            ) from None


def _made(todo: Sequence[Job], folder: Path, workers: int) -> Iterator[Entry]:
    """In the order in which they end; one worker is this process."""
    if workers == 1:
        yield from (_make(job, folder) for job in todo)
        return
    yield from each(_make, [(job, folder) for job in todo], workers)


def _make(job: Job, folder: Path) -> Entry:
    entry: Entry = {"name": job.name, "subject": job.subject}
    path, usual = folder / f"{job.name}.safetensors", tempfile.tempdir
    tempfile.tempdir = str(folder)  # where there is room for pictures; the usual folder may be in memory
    try:
        with one_thread():
            arrays, meta = job.make()
            write_prepared(path, arrays, {**meta, "name": job.name, "subject": job.subject})
    except Skip as reason:
        return {**entry, "status": "skipped", "reason": str(reason)}
    except Exception as error:
        return {**entry, "status": "failed", "reason": f"{type(error).__name__}: {error}"}
    finally:
        tempfile.tempdir = usual
    kept = {"file": path.name, "bytes": path.stat().st_size, "sha256": _checksum(path)}
    told = {"frames": len(arrays["timestamps"]), "notes": meta.get("notes", []), "drift": meta.get("drift", {})}
    return {**entry, "status": "done", **kept, **told}


def _read(journal: Path) -> list[Entry]:
    """What is in the journal; a line that was being written when the power went counts for nothing."""
    entries = []
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.exists() else ():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return entries


def _there(folder: Path, entry: Entry, verify: bool) -> bool:
    if entry["status"] != "done":
        return bool(entry["status"] == "skipped")  # what failed is tried again
    path = folder / entry["file"]
    if not path.exists() or path.stat().st_size != entry["bytes"]:
        return False
    return not verify or _checksum(path) == entry["sha256"]


def _checksum(path: Path) -> str:
    made = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            made.update(block)
    return made.hexdigest()


def open_prepared(
    folder: str | os.PathLike[str],
    *,
    subjects: Sequence[str] | str | os.PathLike[str] | None = None,
    fold: Mapping[str, Any] | None = None,
) -> list[Prepared]:
    """The recordings of a prepared folder, mapped.

    Args:
        subjects: only theirs; a sequence, or a text file with one a line.
        fold: only one part of a subject-exclusive fold: `{index: 0, of: 3, part: train | test, seed: 0}`.

    Raises:
        ValueError: no prepared folder, one whose preparation has not ended or has failed for some, or whose files are
            gone; unknown subjects.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if not manifest.is_file():
        raise ValueError(f"folder: {folder} has no manifest.json, expected what `bigsmall prepare` made to its end")
    listed = json.loads(manifest.read_text(encoding="utf-8"))["recordings"]
    if failed := [entry["name"] for entry in listed if entry["status"] == "failed"]:
        raise ValueError(
            f"folder: {len(failed)} of {len(listed)} recordings of {folder} failed, {failed[0]} the first; prepare it "
            f"again, or leave them out with skip=[{','.join(failed[:3])}{', ...' * (len(failed) > 3)}]"
        )
    every = {entry["subject"] for entry in listed}  # also of what was skipped: folds are the same without it
    entries = [entry for entry in listed if entry["status"] == "done"]
    wanted = every if fold is None else in_fold(sorted(every), fold)
    if subjects is not None:
        if isinstance(subjects, (str, os.PathLike)):
            subjects = Path(subjects).read_text(encoding="utf-8").split()
        if unknown := sorted(set(subjects) - every):
            raise ValueError(f"subjects: {folder} has no {', '.join(unknown[:5])}")
        wanted = wanted & set(subjects)
    if gone := [entry["file"] for entry in entries if not (folder / entry["file"]).is_file()]:
        raise ValueError(f"folder: {len(gone)} files of {folder} are gone, {gone[0]} the first; prepare it again")
    return [Prepared(folder / entry["file"]) for entry in entries if entry["subject"] in wanted]
