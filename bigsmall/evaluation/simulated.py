"""How weights do on simulated videos that they have not seen, measured from end to end as a user's would be.

The videos are rendered once, into a folder of their own, and measured by as many weights as wanted::

    for done, of in evaluate("model.safetensors", test, "held_out", workers=2, videos="videos"): ...
    summary(rows("model.safetensors", test, "held_out"))
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..datasets.simulator import Spec, draw, simulation
from ..files import whole
from ..measure import measure
from ..results import AU_THRESHOLD, Measurement, Reading
from ..signals import calibration
from ..signals.quality import ACCEPTED
from ..synthesis import AUS, NEGATIVES
from ..weights import Predictor, load
from ..workers import each

Row = dict[str, Any]
PathLike = str | os.PathLike[str]
RATES = ("heart_rate", "pos", "chrom", "respiration_rate")
COUNTS = ("found", "shown", "both")  # frames
# The default model's own test. Light, compression and motion are all beyond its training's, and a video is as long as
# UBFC-rPPG's and PURE's are.
HELD_OUT: Spec = {
    "seed": 910000,
    "videos": 40,
    "negatives": 2,
    "seconds": 60,
    "crf": [13, 16],
    "no_pulse": 0,
    "no_breathing": 0,
    "simulator": {
        "fps": [24, 30],
        "heart_rate": [45, 165],
        "respiration_rate": [9, 27],
        "pulse": {"log": [0.01, 0.03]},
        "variability": [0.01, 0.05],
        "breathing": {"log": [0.8, 2.0]},
        "expressions": [6, 20],
        "motion": [2.2, 2.8],
        "gestures": [0, 1],
        "light": {"any": [[0.33, 0.38], [1.07, 1.15]]},
        "drift": [0.01, 0.04],
        "noise": [0.5, 2.0],
        "face": [0.36, 0.5],
        "size": [256, 320],
    },
}


def render(test: Spec, folder: PathLike, workers: int | None) -> Iterator[tuple[int, int]]:
    """Render what `test` describes and `folder` does not hold yet, in `workers` processes; yields videos there, in all.

    Args:
        test: the ranges that `datasets.simulator.simulation` draws from, how many `videos`, how many `negatives` of
            each kind, videos without a pulse, and the `crf` of x264 that all go through.
        folder: gets a folder of its own for each test: 00000.mp4 with its truth, 00000.csv, and what it is, 00000.json.
        workers: processes; None: one for each core.
    """
    jobs = list(_videos(test, Path(folder)))
    missing = [job for job in jobs if not _told(job[-1]).exists()]
    yield from counted(_render, missing, workers, done=len(jobs) - len(missing))


def evaluate(
    weights: PathLike, test: Spec, folder: PathLike, workers: int | None, videos: PathLike | None = None
) -> Iterator[tuple[int, int]]:
    """Measure what `test` describes and `folder` holds no row of, in `workers` processes; yields rows there, in all.

    Args:
        weights: as `measure` takes them; what was measured with others, whatever their name, or with another
            calibration of the confidence counts for nothing.
        test: as for `render`.
        folder: of the rows.
        videos: as `render`'s folder; what it does not hold is rendered. None: "videos" in `folder`.
    """
    rows, videos = _rows(weights, test, folder), Path(videos or Path(folder) / "videos")
    jobs = [(weights, job, rows / _told(job[-1]).name) for job in _videos(test, videos)]
    missing = [job for job in jobs if not job[-1].exists()]
    yield from counted(_evaluate, missing, workers, done=len(jobs) - len(missing))


def rows(weights: PathLike, test: Spec, folder: PathLike) -> list[Row]:
    """What `evaluate` has kept in `folder`."""
    kept = sorted(_rows(weights, test, folder).glob("*.json"))
    return [json.loads(path.read_text(encoding="utf-8")) for path in kept]


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """What the rows of `evaluate` come to.

    For the heart rate by the network, POS and CHROM and for the respiration rate: the mean absolute error per minute of
    what was not refused, the largest, the share refused, and the share inside their 95 % intervals. F1 of the AUs over
    all frames (None where one never shows). How many of the videos without a pulse were given a heart rate.
    """
    faces = [row for row in rows if row["kind"] is None]
    others = [row for row in rows if row["kind"] is not None]
    found: dict[str, Any] = {"videos": len(faces)}
    for name in RATES:
        given = [row[name] for row in faces if row[name]["measured"] is not None]
        errors = [abs(rate["measured"] - rate["true"]) for rate in given]
        found[name] = {
            "mean_absolute_error": round(float(np.mean(errors)), 2) if given else None,
            "largest_error": round(max(errors), 2) if given else None,
            "refused": round(1 - len(given) / len(faces), 3),
            "inside_interval": round(float(np.mean([inside(rate) for rate in given])), 3) if given else None,
        }
    wrong = sum(row["heart_rate"]["measured"] is not None for row in others)
    return found | {
        "au_f1_on_rendered_faces": f1(faces),
        "without_a_pulse": {"videos": len(others), "given_a_heart_rate": wrong},
    }


def inside(rate: Row) -> bool:
    """Whether the true rate is in the interval that was given."""
    return bool(rate["low"] <= rate["true"] <= rate["high"])


def f1(rows: Sequence[Row]) -> dict[str, float | None]:
    """F1 by AU over all frames, None where it never shows, and the mean of the others."""
    found, shown, both = (np.sum([row["frames"][name] for row in rows], axis=0) for name in COUNTS)
    scores = {
        au: round(float(2 * b / (f + s)), 3) if s else None for au, f, s, b in zip(AUS, found, shown, both, strict=True)
    }
    known = [score for score in scores.values() if score is not None]
    return scores | {"mean": round(float(np.mean(known)), 3) if known else None}


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a video: its kind and rates, true and measured, with confidence, interval and the reason of a refusal."""
    plain = [{name: row[name] for name in ("index", "kind", "crf", "fps", *RATES)} for row in rows]
    return pd.json_normalize(plain, sep="_")


def measured(weights: PathLike, video: Path) -> Row:
    """Measure one simulated video, whose truth is beside it as .csv.

    Returns:
        for each of RATES what is true, the mean over the video or None, what was measured, with its interval,
        confidence and note; and in "frames" how many show each AU, were found to, and both, (12,) each in the order of
        AUS.
    """
    truth, result = pd.read_csv(video.with_suffix(".csv")), measure(video, weights=str(weights))
    readings: dict[str, Reading] = {"heart_rate": result.heart_rate, "respiration_rate": result.respiration_rate}
    readings |= {name: result.unsupervised[name] for name in ("pos", "chrom")}
    of = {name: truth["respiration_rate" if name == "respiration_rate" else "heart_rate"] for name in RATES}
    return {name: _rate(of[name], readings[name]) for name in RATES} | {"frames": _frames(truth, result)}


def counted(
    work: Callable[..., object], jobs: Sequence[tuple[Any, ...]], workers: int | None, done: int = 0
) -> Iterator[tuple[int, int]]:
    """`workers.each`; yields how many are done, from `done` on, and of all."""
    total = done + len(jobs)
    yield done, total
    for number, _ in enumerate(each(work, jobs, workers), done + 1):
        yield number, total


def key(of: Any) -> str:
    """A short name for something that JSON can hold, other for another."""
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:12]


def row_key(predictor: Predictor, of: Any) -> str:
    """What a row stands for: which weights measured what, and how sure a rate had to be."""
    sureness = [ACCEPTED, repr(calibration.CONFIDENCE), repr(calibration.INTERVAL)]
    return f"{predictor.checksum()[:12]}-{key([of, sureness])}"


def keep(path: Path, row: Row) -> None:
    """Write a row, whole."""
    with whole(path) as aside:
        aside.write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")


def _videos(test: Spec, folder: Path) -> Iterator[tuple[Spec, int, str | None, Path]]:
    folder = folder / key(test)
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder / "test.json", test)
    kinds: list[str | None] = [None] * test["videos"] + [kind for kind in NEGATIVES for _ in range(test["negatives"])]
    for index, kind in enumerate(kinds):
        yield test, index, kind, folder / f"{index:05d}.mp4"


def _told(video: Path) -> Path:
    return video.with_suffix(".json")


def _rows(weights: PathLike, test: Spec, folder: PathLike) -> Path:
    path = Path(folder) / row_key(load(str(weights)), test)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _render(test: Spec, index: int, kind: str | None, path: Path) -> None:
    video, rng = simulation(test, test["seed"] + index, kind)
    crf = round(draw(test["crf"], rng))
    video.write(path, crf=crf)
    keep(_told(path), {"index": index, "kind": kind, "crf": crf, "fps": round(video.fps, 2)})


def _evaluate(weights: PathLike, job: tuple[Spec, int, str | None, Path], row: Path) -> None:
    video = job[-1]
    if not _told(video).exists():
        _render(*job)
    keep(row, json.loads(_told(video).read_text(encoding="utf-8")) | measured(weights, video))


def _rate(true: pd.Series, reading: Reading) -> Row:
    low, high = reading.interval or (None, None)
    mean = None if true.isna().all() else float(true.mean())
    values = {"true": mean, "measured": reading.value, "low": low, "high": high}
    rounded = {name: None if value is None else round(value, 2) for name, value in values.items()}
    return rounded | {"confidence": round(reading.confidence, 3), "note": reading.note}


def _frames(truth: pd.DataFrame, result: Measurement) -> dict[str, list[int]]:
    units = [name for name in AUS if name in result.action_units]
    known = result.frames[units].notna().all(axis=1).to_numpy()
    seen = result.frames.loc[known, units].astype(float) >= AU_THRESHOLD
    shown = truth.loc[known, units].astype(bool)
    sums = (a.sum().reindex(AUS, fill_value=0) for a in (seen, shown, seen & shown))
    return {name: [int(n) for n in count] for name, count in zip(COUNTS, sums, strict=True)}
