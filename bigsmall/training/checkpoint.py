"""What a run leaves on disk to be taken up from, whole at any instant: one file, renamed into its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..files import sweep, whole

State = dict[str, Any]


def write(folder: Path, state: State) -> None:
    """Keep tensors, numbers, texts, lists and dictionaries; what the folder held of the kind before is replaced."""
    with whole(folder / "checkpoint.pt") as aside:
        torch.save(state, aside)


def read(folder: Path) -> State | None:
    """What was kept last, on the CPU; None if nothing was. Removes what killed processes were writing."""
    sweep(folder)
    path = folder / "checkpoint.pt"
    return torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
