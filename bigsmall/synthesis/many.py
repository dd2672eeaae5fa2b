"""Many simulated videos, rendered by several processes."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from ..files import whole
from ..workers import each
from .negatives import negatives
from .simulator import Simulation


def people(count: int, *, seed: int = 0, **options: object) -> list[dict[str, object]]:
    """What to ask `synthesize_many` for: `count` people with seeds from `seed` on and rates of their own.

    Args:
        options: of `synthesize`, for all; a heart or respiration rate among them is everybody's.
    """
    specs: list[dict[str, object]] = []
    for n in range(seed, seed + count):
        rng = np.random.default_rng((n, 2))
        rates = {"heart_rate": round(rng.uniform(45, 140), 1), "respiration_rate": round(rng.uniform(8, 26), 1)}
        specs.append({"seed": n, **rates, **options})
    return specs


def synthesize_many(
    folder: str | os.PathLike[str],
    specs: Sequence[Mapping[str, object]],
    *,
    suffix: str = ".mkv",
    workers: int | None = None,
) -> list[Path]:
    """Render a video with its truth for each of `specs`, in several processes, with a progress bar on stderr.

    What the folder holds already is not made again, so that an interrupted call is taken up by the same one; more
    specs may follow those of the call before. The videos do not depend on the number of processes.

    Args:
        folder: gets 00000.mkv, 00000.csv, 00001.mkv ... in the order of `specs`, which it keeps as specs.json.
        specs: options of `synthesize` for each video, `crf` among them; with `negative`, one of NEGATIVES, it is a
            negative control.
        suffix: ".mkv", lossless, or ".mp4", x264.
        workers: processes; None: one for each core.

    Returns:
        the videos' paths.

    Raises:
        ValueError: the folder holds other videos, or an option is out of its range (what was made before stays).
    """
    folder = Path(folder)
    if suffix not in (".mkv", ".mp4"):
        raise ValueError(f"suffix must be '.mkv' or '.mp4', got {suffix!r}")
    wanted = [suffix, *(json.loads(json.dumps(dict(spec))) for spec in specs)]
    written = folder / "specs.json"
    before = json.loads(written.read_text(encoding="utf-8")) if written.exists() else []
    if any(one != other for one, other in zip(before, wanted, strict=False)):
        raise ValueError(f"folder: {folder} holds other videos than those of specs; take another folder")
    folder.mkdir(parents=True, exist_ok=True)
    if len(wanted) > len(before):
        with whole(written) as aside:
            aside.write_text("[" + ",\n".join(json.dumps(spec) for spec in wanted) + "]\n", encoding="utf-8")
    paths = [folder / f"{k:05d}{suffix}" for k in range(len(specs))]
    jobs = [(path, dict(spec)) for path, spec in zip(paths, specs, strict=True) if not _there(path)]
    in_parallel(_make, jobs, workers=workers, label="simulating", before=len(paths) - len(jobs))
    return paths


def in_parallel(
    work: Callable[..., object], jobs: Sequence[tuple[Any, ...]], *, workers: int | None, label: str, before: int = 0
) -> None:
    """`workers.each`, with a progress bar on stderr that begins at `before`."""
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        bar = progress.add_task(label, completed=before, total=before + len(jobs))
        for _ in each(work, jobs, workers):
            progress.advance(bar)


def _there(path: Path) -> bool:
    return path.exists() and path.with_suffix(".csv").exists()  # the truth is written last, and either whole


def _make(path: Path, spec: dict[str, Any]) -> None:
    crf, kind = spec.pop("crf", None), spec.pop("negative", None)
    video = Simulation(**spec) if kind is None else negatives(kind, **spec)
    video.write(path, crf=crf)
