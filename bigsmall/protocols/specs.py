"""Specifications of data as protocols need them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..datasets import folds
from ..models import Network

PICTURE = 36  # pixels: the steps of a mean colour are then far below a pulse


def needs(networks: Iterable[Network], pictures: bool) -> dict[str, Any]:
    """Options of `prepare` for what networks read; `pictures`: and for one of every frame, at least a small one."""
    made = list(networks)
    sizes = {int(name.partition(":")[2]) for model in made for name in model.reads if ":" in name}
    every = math.gcd(*(model.big_every for model in made if "big" in model.reads))
    if pictures and every != 1:
        sizes = sizes or {PICTURE}
    return {"frames": sorted(sizes), **({"big_every": every} if every else {})}


def coded(data: dict[str, Any]) -> dict[str, Any]:
    """What is learnt of BP4D+, unless something else is said: the trials whose action units are coded (FACTS 5)."""
    return {"au_subset": True, **data} if data.get("dataset") == "bp4d_plus" else data


def all_trials(data: dict[str, Any]) -> dict[str, Any]:
    """What rates are tested on where `data` is learnt, of BP4D+ more than that."""
    return {**data, "au_subset": False} if data.get("dataset") == "bp4d_plus" else data


def tested_on(of: Any, subjects: set[str]) -> list[set[str]]:
    """The subjects of each fold; arguments as `Options.folds`, and all that there are.

    Raises:
        ValueError: somebody in two of the files, or nobody in one.
    """
    if isinstance(of, int):
        where = folds(sorted(subjects), of)
        return [{name for name, k in where.items() if k == index} for index in range(of)]
    lists = [set(Path(path).read_text(encoding="utf-8").split()) & subjects for path in of]
    if sum(map(len, lists)) > len(set().union(*lists)) or not all(lists):
        raise ValueError(f"folds was {of}, expected files of subjects of the data, nobody in two of them")
    return lists
