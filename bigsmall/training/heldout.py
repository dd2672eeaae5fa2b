"""How a model does on simulated videos that it has not seen, measured from end to end as a user's would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..measure import measure
from ..results import AU_THRESHOLD, Reading
from ..synthesis import AUS, synthesize
from ..weights import Predictor


def evaluate(predictor: Predictor, test: dict[str, Any], told: Callable[[str], None]) -> dict[str, Any]:
    """Measure the videos that `test` describes: `common` options of `synthesize`; `videos`, `no_pulse`: more for each.

    Returns:
        per video the rates, true and measured (None: refused), by the model and by POS; mean absolute errors per minute
        of what was not refused; F1 of the AUs over all frames (None where an AU never shows); how many of the videos
        without a pulse were refused.
    """
    rows, found, shown = [], [], []
    for options in test["videos"] + test["no_pulse"]:
        video = synthesize(**_options(test["common"] | options))
        result = measure(np.stack(list(video)), weights=predictor, fps=video.fps)
        row = {
            "seed": options["seed"],
            "heart_rate": _pair(options["heart_rate"], result.heart_rate),
            "pos_heart_rate": _pair(options["heart_rate"], result.unsupervised["pos"]),
        }
        if "respiration_rate" in options:
            row["respiration_rate"] = _pair(options["respiration_rate"], result.respiration_rate)
        rows.append(row)
        told(", ".join(f"{name} {value}" for name, value in row.items()))
        known = result.frames[list(AUS)].notna().all(axis=1).to_numpy()
        found.append(result.frames[list(AUS)].to_numpy(dtype=float)[known] >= AU_THRESHOLD)
        shown.append(video.truth.aus[known].astype(bool))

    pulsing, still = rows[: len(test["videos"])], rows[len(test["videos"]) :]
    summary: dict[str, Any] = {"band_bpm": [60 * 0.7, 60 * 3.0]}
    for name in ("heart_rate", "pos_heart_rate", "respiration_rate"):
        pairs = [row[name] for row in pulsing]
        errors = [abs(pair["measured"] - pair["true"]) for pair in pairs if pair["measured"] is not None]
        summary[name] = {
            "mean_absolute_error": round(float(np.mean(errors)), 2) if errors else None,
            "measured": f"{len(errors)} of {len(pulsing)}",
        }
    summary["au_f1_on_rendered_faces"] = _f1(np.concatenate(found), np.concatenate(shown))
    refused = sum(row["heart_rate"]["measured"] is None for row in still)
    summary["without_a_pulse"] = f"{refused} of {len(still)} refused"
    return {"summary": summary, "videos": rows}


def _options(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"size": tuple(options["size"])}


def _pair(true: float | None, reading: Reading) -> dict[str, float | None]:
    return {"true": true, "measured": None if reading.value is None else round(reading.value, 2)}


def _f1(found: np.ndarray, shown: np.ndarray) -> dict[str, float | None]:
    both, either = (found & shown).sum(0), found.sum(0) + shown.sum(0)
    scores = np.round(2 * both / np.maximum(either, 1), 3)
    seen = np.asarray(shown.any(axis=0))
    by_au = {au: float(score) if s else None for au, score, s in zip(AUS, scores, seen, strict=True)}
    return by_au | {"mean": round(float(scores[seen].mean()), 3)}
