"""Folds of subjects: nobody is trained on and tested on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DISFA = (  # who is tested in the field's three folds, since JAANet (FACTS 4)
    ("SN003", "SN004", "SN005", "SN007", "SN008", "SN017", "SN023", "SN025", "SN029"),
    ("SN006", "SN011", "SN012", "SN013", "SN018", "SN021", "SN024", "SN028", "SN031"),
    ("SN001", "SN002", "SN009", "SN010", "SN016", "SN026", "SN027", "SN030", "SN032"),
)


def folds(subjects: Sequence[str], of: int, seed: int = 0) -> dict[str, int]:
    """Which of `of` folds each subject is tested in: shuffled by `seed`, as many in each as can be.

    Three of DISFA are always those that the field compares itself on.
    """
    known = sorted(set(subjects))
    if of == len(DISFA):
        published = {name: k for k, names in enumerate(DISFA) for name in names if name in known}
        if len(published) == len(known) and len(set(published.values())) == of:
            return published
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
