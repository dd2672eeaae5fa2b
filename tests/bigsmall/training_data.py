"""Small prepared recordings to train on, and a configuration for them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bigsmall.datasets import write_prepared

UNITS = ("AU01", "AU12")
SIZE = 16  # of Big's pictures; Small's have one pixel


def write_recording(path: Path, seed: int, frames: int = 30, units: Sequence[str] = UNITS, **changes: Any) -> None:
    """Two stretches of as many frames; Small shows the pulse and respiration, Big's brightness the first AU."""
    rng, t = np.random.default_rng(seed), np.arange(frames)
    bvp, respiration = (1.4 * np.sin(w * t + rng.uniform(0, 6)).astype(np.float32) for w in (0.7, 0.3))
    small = rng.normal(size=(frames, 3, 1, 1)) * 0.2
    small[:, 0, 0, 0] += bvp
    small[:, 1, 0, 0] += respiration
    au = (rng.random((frames, len(units))) < 0.4).astype(np.uint8).repeat(3, 0)[:frames]
    shown = t[::3]
    arrays = {
        "small": small.astype(np.float16),
        "big": (rng.integers(0, 128, (len(shown), SIZE, SIZE, 3)) + 100 * au[shown, 0, None, None, None]).astype(
            np.uint8
        ),
        "big_frame": shown,
        "stretches": np.array([0, frames // 2, frames]),
        "timestamps": t / 30,
        "bvp": bvp,
        "respiration": respiration,
        "au": au,
    }
    meta = {
        "name": path.stem, "subject": path.stem, "dataset": "made", "fps": 30.0, "convention": "exact", "crop": "face",
        "big_mean": 110.0, "big_std": 60.0, "action_units": units,
    }  # fmt: skip
    write_prepared(path, {**arrays, **changes}, meta)


def write_folder(folder: Path, count: int = 4, **options: Any) -> Path:
    """A prepared folder of recordings r0, r1, ..."""
    folder.mkdir(parents=True)
    entries = []
    for i in range(count):
        write_recording(folder / f"r{i}.safetensors", i, **options)
        entries.append({"name": f"r{i}", "subject": f"r{i}", "status": "done", "file": f"r{i}.safetensors"})
    manifest = {"version": 1, "spec": {}, "recordings": entries}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def configuration(folder: Path, **changes: Any) -> dict[str, Any]:
    """Six steps of BigSmall on one folder, on the CPU."""
    model = {"name": "bigsmall", "options": {"big_size": SIZE, "out_size": len(UNITS)}}
    return {
        "model": model,
        "data": {"made": {"prepared": str(folder)}},
        "steps": 6,
        "batch": 6,
        "dropout": False,
        "device": "cpu",
    } | changes
