"""The weights that a run keeps: the last, the best by a validation metric, and what it ends in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from .. import weights
from ..models import Network
from ..weights import Card
from .config import Keep


class Kept:
    """Weight files with their cards: last.safetensors, best.safetensors, top/step-NNNNNN.safetensors.

    A file of `ranking` is written before the checkpoint that names it and removed after the one that does not.

    Attributes:
        ranking: (metric, step) of the best, the first the best of all.
    """

    def __init__(self, keep: Keep, card: Card, folder: Path) -> None:
        self.keep, self.card, self.folder = keep, card, folder
        self.ranking: list[tuple[float, int]] = []

    def last(self, model: Network, step: int) -> None:
        self._save("last.safetensors", model, step, {})

    def consider(self, model: Network, step: int, found: Mapping[str, float]) -> None:
        """Keep these weights if they are among the best.

        Raises:
            ValueError: the validation found no metric of the name that decides.
        """
        if self.keep.metric not in found:
            raise ValueError(f"keep.metric was {self.keep.metric!r}; the validation finds {', '.join(found)}")
        if not self.keep.top:
            return
        self.ranking.append((found[self.keep.metric], step))
        self.ranking.sort(key=self._worse)
        del self.ranking[self.keep.top :]
        steps = [at for _, at in self.ranking]
        if step in steps:
            self._save(self._name(step), model, step, found)
        if step == steps[0]:
            self._save("best.safetensors", model, step, found)

    def _worse(self, of: tuple[float, int]) -> tuple[bool, float, int]:
        value, step = of
        return math.isnan(value), -value if self.keep.largest else value, step

    def forget(self) -> None:
        """Remove the files that are no longer among the best."""
        wanted = {self.folder / self._name(step) for _, step in self.ranking}
        for path in set(self.folder.glob("top/*.safetensors")) - wanted:
            path.unlink()

    def end(self, model: Network, step: int) -> Path:
        """Write model.safetensors, of the last weights or the best."""
        card, path = self._card(step, {}), self.folder / "model.safetensors"
        if self.keep.final == "best":
            model, card = weights.load_network(self.folder / "best.safetensors")
        weights.save(path, model.half() if self.keep.half else model, card)
        return path

    def _save(self, name: str, model: Network, step: int, found: Mapping[str, float]) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        weights.save(path, model, self._card(step, found))

    def _card(self, step: int, found: Mapping[str, float]) -> Card:
        validation = {"validation": dict(found)} if found else {}
        return replace(self.card, details={**self.card.details, "step": step, **validation})

    @staticmethod
    def _name(step: int) -> str:
        return f"top/step-{step:06d}.safetensors"
