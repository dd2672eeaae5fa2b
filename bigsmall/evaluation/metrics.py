"""Errors of rates and scores of action units, with the formulas of FACTS 6."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..datasets.prepared import UNKNOWN
from ..results import AU_THRESHOLD

UNDEFINED = math.nan
COUNTS = ("true_positives", "false_positives", "false_negatives", "true_negatives")  # frames
SCORES = ("f1", "precision", "accuracy")


class Estimate(NamedTuple):
    """A number and its standard error; NaN where there are too few values to tell."""

    value: float
    error: float


def mean(values: ArrayLike) -> Estimate:
    """Mean of the values that are known, and std / sqrt(n) (ddof 0); the error of one value is unknown."""
    known = np.asarray(values, dtype=np.float64)
    known = known[np.isfinite(known)]
    n = len(known)
    return Estimate(float(known.mean()) if n else UNDEFINED, float(known.std() / math.sqrt(n)) if n > 1 else UNDEFINED)


def rate_errors(measured: ArrayLike, true: ArrayLike) -> dict[str, Any]:
    """How far rates (n,) are from their references (n,), both per minute.

    Pairs of which one is not known (NaN) are left out, and `n` says how many are not.

    Returns:
        n; as `Estimate`s: mae and rmse (per minute), mape (per cent of the reference) and pearson, with the toolbox's
        standard errors: std(|e|) / sqrt(n), sqrt(std(e^2) / sqrt(n)), and sqrt((1 - r^2) / (n - 2)), which needs three;
        bias and limits: mean difference and where 95 % of them lie (Bland and Altman 1986, 1.96 std with ddof 1).

    Raises:
        ValueError: two lengths.
    """
    found, reference = np.asarray(measured, dtype=np.float64), np.asarray(true, dtype=np.float64)
    if found.shape != reference.shape or found.ndim != 1:
        raise ValueError(f"measured, true: expected two (n,), got shapes {found.shape} and {reference.shape}")
    known = np.isfinite(found) & np.isfinite(reference)
    found, reference = found[known], reference[known]
    n, difference = len(found), found - reference
    share = np.divide(np.abs(difference), np.abs(reference), out=np.full(n, np.nan), where=reference != 0)
    square, spread = mean(difference**2), 1.96 * float(difference.std(ddof=1)) if n > 1 else UNDEFINED
    bias = mean(difference)
    return {
        "n": n,
        "mae": mean(np.abs(difference)),
        "rmse": Estimate(math.sqrt(square.value), math.sqrt(square.error)),
        "mape": mean(100 * share),
        "pearson": pearson(found, reference),
        "bias": bias,
        "limits": (bias.value - spread, bias.value + spread),
    }


def pearson(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Correlation of (n,) and (n,): NaN where one of them does not vary."""
    n = len(x)
    if n < 2 or not (np.ptp(x) and np.ptp(y)):
        return Estimate(UNDEFINED, UNDEFINED)
    r = float(np.corrcoef(x, y)[0, 1])
    return Estimate(r, math.sqrt(max(0.0, 1 - r**2) / (n - 2)) if n > 2 else UNDEFINED)


def au_counts(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Frames by what was found and what is shown: (U, 4) int64, in the order of COUNTS.

    Args:
        probabilities: (T, U); an action unit counts as found from `AU_THRESHOLD` on; NaN unknown.
        labels: (T, U), 1 shown, 0 not, UNKNOWN; a frame of which either is not known is left out.

    Raises:
        ValueError: two shapes.
    """
    if probabilities.shape != labels.shape or labels.ndim != 2:
        raise ValueError(
            f"probabilities, labels: expected two (T, U), got shapes {probabilities.shape} and {labels.shape}"
        )
    known = (labels != UNKNOWN) & ~np.isnan(probabilities)
    found, shown = probabilities >= AU_THRESHOLD, labels == 1
    cases = (found & shown, found & ~shown, ~found & shown, ~found & ~shown)
    return np.stack([(case & known).sum(0) for case in cases], axis=1).astype(np.int64)


def au_scores(counts: Mapping[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """F1, precision and accuracy of each action unit, and of `mean` over those that have them.

    Args:
        counts: (4,) of each unit, as `au_counts` gives them, summed over everything that is pooled.

    Returns:
        of each unit SCORES from 0 to 1, `shown` and `frames`. What cannot be told is None: everything without a frame,
        F1 and precision of a unit that is never shown (whatever was found of it lowers its accuracy). A unit that is
        shown and never found has F1 and precision 0, as released.
    """
    scores: dict[str, dict[str, Any]] = {}
    for unit, row in counts.items():
        both, false, missed, neither = (int(count) for count in row)
        frames, shown = both + false + missed + neither, both + missed
        scores[unit] = {
            "f1": 2 * both / (2 * both + false + missed) if shown else None,
            "precision": both / max(both + false, 1) if shown else None,
            "accuracy": (both + neither) / frames if frames else None,
            "shown": shown,
            "frames": frames,
        }
    known = {name: [of[name] for of in scores.values() if of[name] is not None] for name in SCORES}
    average: dict[str, Any] = {name: sum(values) / len(values) if values else None for name, values in known.items()}
    return {**scores, "mean": {**average, "units": len(known["f1"])}}
