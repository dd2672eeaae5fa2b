"""Folds of subjects: nobody is trained on and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def folds(subjects: Sequence[str], of: int, seed: int = 0) -> dict[str, int]:
    """Which of `of` folds each subject is tested in: shuffled by `seed`, as many in each as can be."""
    known = sorted(set(subjects))
    if not 2 <= of <= len(known):
        raise ValueError(f"fold: of was {of}, expected 2 to the number of subjects, {len(known)}")
    order = np.random.default_rng(seed).permutation(len(known))
    return {known[i]: k % of for k, i in enumerate(order.tolist())}


def in_fold(subjects: Sequence[str], fold: Mapping[str, Any]) -> set[str]:
    """The subjects of one part of a fold: `{index: 0, of: 3, part: train | test, seed: 0}`."""
    unknown = set(fold) - {"index", "of", "part", "seed"}
    if unknown or not {"index", "of", "part"} <= set(fold) or fold["part"] not in ("train", "test"):
        raise ValueError(f"fold was {dict(fold)}, expected index, of, part: train or test, and perhaps seed")
    if not 0 <= fold["index"] < fold["of"]:
        raise ValueError(f"fold: index was {fold['index']}, expected 0 to {fold['of'] - 1}")
    where = folds(subjects, fold["of"], fold.get("seed", 0))
    return {name for name, k in where.items() if (k == fold["index"]) == (fold["part"] == "test")}
