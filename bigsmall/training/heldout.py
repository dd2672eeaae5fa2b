"""How a model does on simulated videos that it has not seen, measured from end to end as a user's would be."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ..files import whole
from ..measure import measure
from ..results import AU_THRESHOLD, Measurement, Reading
from ..synthesis import AUS, NEGATIVES, Simulation
from . import videos

Row = dict[str, Any]
RATES = ("heart_rate", "pos", "chrom", "respiration_rate")
COUNTS = ("found", "shown", "both")  # frames


def evaluate(weights: Path, test: videos.Config, folder: Path, workers: int) -> Iterator[tuple[int, int]]:
    """Measure what `test` describes and `folder` holds no row of, in `workers` processes; yields rows there, in all.

    `test` has the ranges that `videos.simulation` draws from, how many `videos`, and how many `negatives` of each kind,
    videos without a pulse, compressed alike. A row that was made for another `test` counts as none.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kinds: list[str | None] = [None] * test["videos"] + [kind for kind in NEGATIVES for _ in range(test["negatives"])]
    jobs = [(weights, test, index, kind, folder / f"{index:05d}.json") for index, kind in enumerate(kinds)]
    missing = [job for job in jobs if not job[-1].exists() or json.loads(job[-1].read_text())["test"] != test]
    yield len(jobs) - len(missing), len(jobs)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for done, job in enumerate([pool.submit(_keep, *job) for job in missing], len(jobs) - len(missing) + 1):
            job.result()
            yield done, len(jobs)


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
        inside = [rate["low"] <= rate["true"] <= rate["high"] for rate in given]
        found[name] = {
            "mean_absolute_error": round(float(np.mean(errors)), 2) if given else None,
            "largest_error": round(max(errors), 2) if given else None,
            "refused": round(1 - len(given) / len(faces), 3),
            "inside_interval": round(float(np.mean(inside)), 3) if given else None,
        }
    counts = (np.sum([row["frames"][name] for row in faces], axis=0) for name in COUNTS)
    wrong = sum(row["heart_rate"]["measured"] is not None for row in others)
    return found | {
        "au_f1_on_rendered_faces": f1(*counts),
        "without_a_pulse": {"videos": len(others), "given_a_heart_rate": wrong},
    }


def f1(found: np.ndarray, shown: np.ndarray, both: np.ndarray) -> dict[str, float | None]:
    """F1 by AU, None where it never shows, and the mean of the others, from numbers of frames (12,)."""
    scores = {
        au: round(float(2 * b / (f + s)), 3) if s else None for au, f, s, b in zip(AUS, found, shown, both, strict=True)
    }
    known = [score for score in scores.values() if score is not None]
    return scores | {"mean": round(float(np.mean(known)), 3) if known else None}


def rows(folder: Path, test: videos.Config) -> list[Row]:
    """What `evaluate` has kept in `folder` for `test`."""
    kept = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return [row for row in kept if row["test"] == test]


def table(rows: Sequence[Row]) -> pd.DataFrame:
    """One row a video: its kind and rates, true and measured, with confidence, interval and the reason of a refusal."""
    plain = [{name: row[name] for name in ("index", "kind", "crf", "fps", *RATES)} for row in rows]
    return pd.json_normalize(plain, sep="_")


def _keep(weights: Path, test: videos.Config, index: int, kind: str | None, path: Path) -> None:
    torch.set_num_threads(1)
    video, rng = videos.simulation(test, test["seed"] + index, kind)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "video.mp4"
        crf = round(videos.draw(test["crf"], rng))
        video.write(file, crf=crf)
        result = measure(file, weights=weights)
    row = {"index": index, "kind": kind, "crf": crf, "fps": round(video.fps, 2), **_row(video, result), "test": test}
    with whole(path) as aside:
        aside.write_text(json.dumps(row), encoding="utf-8")


def _row(video: Simulation, result: Measurement) -> Row:
    found = {"heart_rate": result.heart_rate, "respiration_rate": result.respiration_rate}
    found |= {name: result.unsupervised[name] for name in ("pos", "chrom")}
    known = result.frames[list(AUS)].notna().all(axis=1).to_numpy()
    seen = result.frames[list(AUS)].to_numpy(dtype=float)[known] >= AU_THRESHOLD
    shown = video.truth.aus[known].astype(bool)
    counts = dict(zip(COUNTS, (a.sum(0).tolist() for a in (seen, shown, seen & shown)), strict=True))
    true = dict.fromkeys(RATES, video.truth.heart_rate) | {"respiration_rate": video.truth.respiration_rate}
    return {name: _rate(true[name], found[name]) for name in RATES} | {"frames": counts}


def _rate(true: np.ndarray, reading: Reading) -> Row:
    """The mean of the true rate, None where there is none, beside what was measured of it."""
    low, high = reading.interval or (None, None)
    mean = None if np.isnan(true).all() else float(true.mean())
    values = {"true": mean, "measured": reading.value, "low": low, "high": high}
    rounded = {name: None if value is None else round(value, 2) for name, value in values.items()}
    return rounded | {"confidence": round(reading.confidence, 3), "note": reading.note}
