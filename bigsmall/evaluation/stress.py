"""How error and refusal change with one circumstance at a time: simulated people, measured from end to end.

Every factor leaves one base point while all else stays there, and the same people, their looks, rooms and lives, are
at every level of every factor.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import weights as weight_files
from ..files import whole
from ..results import DISCLAIMER
from ..signals.quality import HEART_RATE, RESPIRATION_RATE
from ..synthesis import Simulation, synthesize
from .simulated import Row, counted, f1, inside, keep, measured, row_key

if TYPE_CHECKING:
    from ..measure import Progress


class Factor(NamedTuple):
    """What is varied."""

    option: str  # of BASE
    title: str
    levels: tuple[float, ...]


# A person who sits still in good light, as a good camera sees them: options of `synthesize`, size being both sides.
BASE: Mapping[str, float] = {
    "skin_tone": 0.5, "heart_rate": 75, "respiration_rate": 15, "pulse": 0.015, "expressions": 15, "motion": 1,
    "gestures": 0, "talking": 0, "light": 0.8, "flicker": 0, "noise": 1, "face": 0.45, "crf": 10, "fps": 30,
    "size": 256,
}  # fmt: skip
FACTORS: Mapping[str, Factor] = {
    "skin_tone": Factor("skin_tone", "skin tone, 0 light to 1 dark", (0, 0.25, 0.5, 0.75, 1)),
    "heart_rate": Factor("heart_rate", "heart rate, bpm", (45, 60, 75, 100, 130, 165)),
    "respiration_rate": Factor("respiration_rate", "respiration, breaths/min", (8, 11, 15, 20, 26)),
    "motion": Factor("motion", "head motion, 1 sits still", (0, 1, 2, 3, 5)),
    "gestures": Factor("gestures", "gestures per minute", (0, 3, 6, 12)),
    "talking": Factor("talking", "talking, share of time", (0, 0.25, 0.5, 1)),
    "light": Factor("light", "light, 1 nears saturation", (0.1, 0.2, 0.4, 0.8, 1.2)),
    "flicker": Factor("flicker", "flicker of the light", (0, 0.01, 0.03, 0.1)),
    "compression": Factor("crf", "compression, x264 crf", (6, 10, 14, 18, 22, 26)),
    "frame_rate": Factor("fps", "frames per second", (10, 15, 20, 30, 60)),
    "resolution": Factor("size", "resolution, pixels a side", (96, 128, 192, 256, 384)),
}
RATES = {"heart_rate": "heart rate", "pos": "heart rate by POS", "respiration_rate": "respiration rate"}  # reported
TASK = {"heart_rate": "pulse", "respiration_rate": "respiration"}  # that the weights must have for them
MOST = 1000  # people


def stress(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    factors: Mapping[str, Sequence[float]] | Sequence[str] = tuple(FACTORS),
    base: Mapping[str, float] | None = None,
    people: int = 8,
    seconds: float = 30.0,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure simulated people at every level of every factor; a video that was measured before is not measured again.

    Args:
        model: weights, as `bigsmall.measure` takes them.
        output: gets rows/ (a file a video), stress.csv (a row a video and factor), stress.json and stress.md (a row a
            level), stress.png.
        factors: which of FACTORS, or other levels of them, `{"motion": [0, 4]}`.
        base: what differs from BASE.
        people: at each level, the same ones. seconds: of each video. seed: others for another.
        workers: processes; None: one for each core.
        progress: called as by `bigsmall.measure`, with videos.

    Returns:
        what stress.json holds.

    Raises:
        ValueError: no such weights or factor, or a number out of its range.
    """
    predictor = weight_files.load(os.fspath(model))
    levels = dict(factors) if isinstance(factors, Mapping) else {name: FACTORS[name].levels for name in _known(factors)}
    point = {**BASE, **(base or {})}
    _check(levels, point, people, seconds, seed, workers)
    rows = Path(output) / "rows"
    rows.mkdir(parents=True, exist_ok=True)

    places = [(name, level, person) for name, some in levels.items() for level in some for person in range(people)]
    files: dict[Path, dict[str, Any]] = {}  # the base point, which the factors share, is one video a person
    found = []
    for name, level, person in places:
        spec = {**point, FACTORS[name].option: level, "seconds": seconds, "seed": MOST * seed + person}
        path = rows / f"{row_key(predictor, spec)}.json"
        files[path] = spec
        found.append(path)
    missing = [(os.fspath(model), spec, path) for path, spec in files.items() if not path.exists()]
    for done, of in counted(_measure, missing, workers, done=len(files) - len(missing)):
        if progress:
            progress("simulated videos", done, of)
    videos = [
        {"factor": name, "level": level, "person": person} | json.loads(path.read_text(encoding="utf-8"))
        for (name, level, person), path in zip(places, found, strict=True)
    ]
    report = {
        "simulated": True,
        "about": f"Simulated videos only: {people} people of {seconds:g} s at each level, the same at every one.",
        "weights": os.fspath(model),
        "names": [card.name for card in predictor.cards],
        "tasks": list(predictor.tasks),
        "people": people,
        "seconds": seconds,
        "seed": seed,
        "base": point,
        "levels": summary(videos, predictor.tasks, point),
    }
    _write(Path(output), report, videos)
    return report


def summary(videos: Sequence[Row], tasks: Sequence[str], base: Mapping[str, float]) -> list[dict[str, Any]]:
    """One row for each level, in the order in which they come.

    Args:
        videos: of `simulated.measured`, each with its factor and level.
        tasks: of the weights: only what they answer is reported; POS always is.
        base: the base point.

    Returns:
        factor, level, whether it is that of the base point, n, and for each of RATES: how many were refused, and of
        the others mae (mean absolute error), its standard error se, worst, inside (share whose 95 % interval holds the
        true rate); au_f1, the mean over the AUs of their F1 over all frames.
    """
    levels: dict[tuple[str, float], list[Row]] = {}
    for video in videos:
        levels.setdefault((video["factor"], video["level"]), []).append(video)
    wanted = [name for name in RATES if TASK.get(name) in (None, *tasks)]
    return [
        {"factor": factor, "level": level, "base": level == base[FACTORS[factor].option], "n": len(rows)}
        | {name: _errors([row[name] for row in rows]) for name in wanted}
        | ({"au_f1": f1(rows)["mean"]} if "au" in tasks else {})
        for (factor, level), rows in levels.items()
    ]


def markdown(report: Mapping[str, Any]) -> str:
    """What `stress` returns as a page of tables."""
    rates = [name for name in RATES if name in report["levels"][0]]
    units = "au_f1" in report["levels"][0]
    heads = [f"{RATES[name]}: {what}" for name in rates for what in ("error", "refused", "in interval")]
    heads += ["AU F1"] * units
    lines = [
        f"# Stress report on simulated videos: {', '.join(report['names'])}", "", about(report), "",
        "Error: mean absolute error per minute ± its standard error (the largest), of what was not refused. In "
        "interval: share of it whose 95 % interval holds the true rate. AU F1: mean over the action units, of rendered "
        "faces.",
    ]  # fmt: skip
    for factor in dict.fromkeys(row["factor"] for row in report["levels"]):
        lines += ["", f"| {FACTORS[factor].title} | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
        for row in report["levels"]:
            if row["factor"] == factor:
                cells = [f"**{row['level']:g}** (base)" if row["base"] else f"{row['level']:g}"]
                cells += [cell for name in rates for cell in _cells(row[name], row["n"])]
                cells += ["-" if row["au_f1"] is None else f"{row['au_f1']:.2f}"] if units else []
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def about(report: Mapping[str, Any]) -> str:
    """How a report was made, and what it is not."""
    base = ", ".join(f"{name} {value:g}" for name, value in report["base"].items())
    bands = " and ".join(f"{60 * v.low:.0f}-{60 * v.high:.0f} {v.unit}" for v in (HEART_RATE, RESPIRATION_RATE))
    return f"{report['about']} Rates are looked for in {bands}. Base point: {base}. {DISCLAIMER}"


def _errors(rates: Sequence[Row]) -> dict[str, Any]:
    given = [rate for rate in rates if rate["measured"] is not None]
    errors = np.array([abs(rate["measured"] - rate["true"]) for rate in given])
    n = len(given)
    return {
        "refused": len(rates) - n,
        "mae": round(float(errors.mean()), 3) if n else None,
        "se": round(float(errors.std(ddof=1) / math.sqrt(n)), 3) if n > 1 else None,
        "worst": round(float(errors.max()), 2) if n else None,
        "inside": round(sum(inside(rate) for rate in given) / n, 3) if n else None,
    }


def _cells(of: Mapping[str, Any], n: int) -> list[str]:
    refused = f"{of['refused']} of {n}"
    if of["mae"] is None:
        return ["-", refused, "-"]
    spread = "" if of["se"] is None else f" ± {of['se']:.2f}"
    return [f"{of['mae']:.2f}{spread} ({of['worst']:.2f})", refused, f"{100 * of['inside']:.0f} %"]


def _known(factors: Sequence[str]) -> Sequence[str]:
    if unknown := [name for name in factors if name not in FACTORS]:
        raise ValueError(f"factors: no factor is called {', '.join(unknown)}; there are {', '.join(FACTORS)}")
    return factors


def _check(
    levels: Mapping[str, Sequence[float]],
    base: Mapping[str, float],
    people: int,
    seconds: float,
    seed: int,
    workers: int | None,
) -> None:
    """Before an hour is measured for nothing."""
    _known(list(levels))
    if not levels or not all(levels.values()):
        raise ValueError("factors: expected at least one, each with at least one level")
    if unknown := set(base) - set(BASE):
        raise ValueError(f"base has no {', '.join(sorted(unknown))}; it has {', '.join(BASE)}")
    numbers = [("people", people, 1, MOST), ("seed", seed, 0, 10**9)]
    if workers is not None:
        numbers.append(("workers", workers, 1, 512))
    for name, value, low, high in numbers:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"{name} was {value!r}, expected an integer from {low} to {high}")
    for name, some in levels.items():
        for level in some:
            try:
                _video({**base, FACTORS[name].option: level, "seconds": seconds, "seed": seed})
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name} {level!r}: {error}") from None


def _video(spec: Mapping[str, Any]) -> tuple[Simulation, int]:
    options = {**spec, "size": (spec["size"], spec["size"])}
    crf = options.pop("crf")
    return synthesize(**options), crf


def _measure(model: str, spec: dict[str, Any], row: Path) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "video.mp4"
        video, crf = _video(spec)
        video.write(path, crf=crf)
        keep(row, {"spec": spec} | measured(model, path))


def _write(folder: Path, report: Mapping[str, Any], videos: Sequence[Row]) -> None:
    import pandas as pd

    from .stress_plot import draw

    columns = ("factor", "level", "person", *RATES, "chrom")
    plain = [{name: row[name] for name in columns} | {"au_f1": f1([row])["mean"]} for row in videos]
    with whole(folder / "stress.csv") as aside:
        pd.json_normalize(plain, sep="_").to_csv(aside, index=False)
    with whole(folder / "stress.json") as aside:
        aside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole(folder / "stress.md") as aside:
        aside.write_text(markdown(report), encoding="utf-8")
    with whole(folder / "stress.png") as aside:
        draw(report).savefig(aside, format="png", dpi=110)
