"""A network over prepared recordings, and what it gives beside what is known, kept so that it need not run again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor

from .. import weights
from ..datasets.prepared import Prepared
from ..files import whole
from ..models import TASKS, Network, answer
from ..weights import Predictor

Model = str | os.PathLike[str] | Predictor | Network
FRAMES = 96  # that go through the network at once
ARRAYS = (
    "timestamps", "stretches", "au", "pulse", "respiration", "colours", "au_labels", "bvp_wave", "respiration_wave",
    "heart_rate", "respiration_rate",
)  # fmt: skip


@dataclass(frozen=True)
class Prediction:
    """What a network gave for a recording, and what is known of it, on the recording's clock of T frames.

    Attributes:
        name, subject, dataset, fps: of the recording.
        model: names of the weights' cards, or of the network's class.
        key: of network and recording: the same key, the same prediction.
        timestamps: (T,) float64 seconds. stretches: (R + 1,) int64 bounds of what follows one another, 0 ... T.
        au: (T, U) float32 probabilities of `action_units`; pulse, respiration: (T,) float32 changes from each frame to
            the next. NaN where there was no whole clip to read; None: not predicted.
        colours: (T, 3) float32 mean red, green and blue of the pictures; None where not every frame has one.
        au_labels: (T, V) uint8 of `labelled_units`, 255 unknown; bvp_wave, respiration_wave, heart_rate,
            respiration_rate: (T,) float32, NaN unknown; None: the recording has none.
        notes: what a reader of its numbers must know.
    """

    name: str
    subject: str
    dataset: str
    fps: float
    model: str
    key: str
    timestamps: np.ndarray
    stretches: np.ndarray
    action_units: tuple[str, ...] = ()
    labelled_units: tuple[str, ...] = ()
    au: np.ndarray | None = None
    pulse: np.ndarray | None = None
    respiration: np.ndarray | None = None
    colours: np.ndarray | None = None
    au_labels: np.ndarray | None = None
    bvp_wave: np.ndarray | None = None
    respiration_wave: np.ndarray | None = None
    heart_rate: np.ndarray | None = None
    respiration_rate: np.ndarray | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def tasks(self) -> tuple[str, ...]:
        """What was predicted."""
        return tuple(task for task in TASKS if getattr(self, task) is not None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """One safetensors file, whole or not at all."""
        held = {name: getattr(self, name) for name in ARRAYS}
        plain = {of.name: getattr(self, of.name) for of in fields(self) if of.name not in ARRAYS}
        arrays = {name: np.ascontiguousarray(array) for name, array in held.items() if array is not None}
        data = save(arrays, {"prediction": json.dumps(plain)})
        with whole(path) as aside:
            aside.write_bytes(data)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Prediction:
        """What `save` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            with safe_open(path, framework="numpy") as file:
                plain = json.loads((file.metadata() or {})["prediction"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        except (SafetensorError, KeyError) as error:
            raise ValueError(f"path: {path} holds no saved prediction: {error}") from error
        lists = {name: tuple(plain[name]) for name in ("action_units", "labelled_units", "notes")}
        return cls(**{**plain, **lists, **arrays})


def load_predictions(folder: str | os.PathLike[str]) -> list[Path]:
    """Files of the predictions that `evaluate` saved in a folder, or in the folder `predictions` of its output.

    Raises:
        ValueError: there is none.
    """
    found = sorted(Path(folder).rglob("*.safetensors")) if Path(folder).is_dir() else []
    if not found:
        raise ValueError(f"folder: {folder} holds no saved predictions")
    return found


class Runner:
    """A network as `predict` uses it: its inputs, clips, outputs and name, whatever it is.

    Args:
        model: a file or name of weights, a `Predictor`, or a `models.Network`.
    """

    def __init__(self, model: Model) -> None:
        if isinstance(model, (str, os.PathLike)):
            model = weights.load(os.fspath(model))
        self.model = model
        self.networks: tuple[Network, ...]
        self.tasks, self.reads, self.n, self.big_every = model.tasks, model.reads, model.n_segment, model.big_every
        if isinstance(model, Predictor):
            self.networks = model.networks
            self.name = " + ".join(dict.fromkeys(card.name for card in model.cards))
        else:
            self.networks = (model,)
            self.name = type(model).__name__
        tensors = [tensor for network in self.networks for tensor in network.state_dict().values()]
        self.device = tensors[0].device if tensors else torch.device("cpu")
        digest = hashlib.sha256(repr((self.name, self.tasks, self.n, self.big_every, self.reads)).encode())
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        self.digest = digest.hexdigest()

    def wanted(self, tasks: Sequence[str] | None) -> tuple[str, ...]:
        """Those of its tasks; None: all.

        Raises:
            ValueError: it does not answer one of them.
        """
        if lacking := [task for task in tasks or () if task not in self.tasks]:
            raise ValueError(f"tasks: the network answers {', '.join(self.tasks)}, not {', '.join(lacking)}")
        return tuple(task for task in self.tasks if tasks is None or task in tasks)

    @torch.inference_mode()
    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Outputs by task, on the CPU, float32."""
        there = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        made = self.model.answer(there) if isinstance(self.model, Predictor) else answer(self.model, there)
        return {task: made[task].float().cpu() for task in self.tasks}

    def units(self, recording: Prepared) -> tuple[str, ...]:
        """Names of the action units it gives; a bare network is taken to give those of the recording."""
        return tuple(self.model.action_units if isinstance(self.model, Predictor) else recording.action_units)

    def key(self, recording: Prepared) -> str:
        """Of a prediction: another for other weights, pictures or references."""
        return hashlib.sha256((self.digest + _fingerprint(recording)).encode()).hexdigest()[:16]


def _fingerprint(recording: Prepared) -> str:
    """Of what a recording says of itself and when it was written; its arrays are not read for this."""
    state = recording.path.stat()
    return json.dumps([recording.meta, recording.arrays, state.st_size, state.st_mtime_ns], sort_keys=True)


def predict(
    model: Model | Runner,
    recording: Prepared,
    *,
    tasks: Sequence[str] | None = None,
) -> Prediction:
    """Run a network over a prepared recording, FRAMES at a time.

    Args:
        model: a file or name of weights, what `weights.load` made of it, or a network of the registry on any device.
        tasks: only these.

    Returns:
        its answers on the recording's clock; NaN where a stretch ends within a clip, or where pictures are missing.

    Raises:
        ValueError: the network does not answer one of `tasks`, or the recording lacks something that it reads.
    """
    run = model if isinstance(model, Runner) else Runner(model)
    wanted = run.wanted(tasks)
    if lacking := [name for name in run.reads if not recording.has([name])]:
        raise ValueError(f"recording: {recording.name} has no {', '.join(lacking)}, which the network reads")
    training = [network.training for network in run.networks]
    for network in run.networks:
        network.eval()
    try:
        outputs = {task: array for task, array in _outputs(run, recording).items() if task in wanted}
    finally:
        for network, was in zip(run.networks, training, strict=True):
            network.train(was)
    units = run.units(recording) if "au" in outputs else ()
    if units and outputs["au"].shape[1] != len(units):
        raise ValueError(f"model: it gives {outputs['au'].shape[1]} action units, expected one for each of {units}")
    notes = []
    if isinstance(run.model, Predictor):
        for name in ("convention", "crop"):
            own, theirs = getattr(run.model, name), recording.meta[name]
            if own != theirs:
                notes.append(f"prepared with the {name} {theirs!r}; the weights were trained with {own!r}")
    return Prediction(
        model=run.name, key=run.key(recording), notes=tuple(notes), action_units=units,
        labelled_units=recording.action_units if "au" in recording.arrays else (),
        au_labels=np.asarray(recording.au) if "au" in recording.arrays else None,
        **_known(recording), **outputs,
    )  # fmt: skip


def unpredicted(recording: Prepared) -> Prediction:
    """What POS and CHROM are scored by, which need no network: its pulse is unknown everywhere."""
    pulse = np.full(len(recording), np.nan, np.float32)
    return Prediction(model="no network", key="", pulse=pulse, **_known(recording))


def _known(recording: Prepared) -> dict[str, Any]:
    """Whose it is, its mean colours, and what there is to compare signals with."""
    references = set(ARRAYS) & set(recording.arrays) - set(TASKS)  # `au` and `respiration` are what is trained on
    plain = {name: getattr(recording, name) for name in ("name", "subject", "dataset", "fps")}
    held = {name: np.asarray(getattr(recording, name)) for name in references}
    return {**plain, **held, "colours": _colours(recording)}


def _outputs(run: Runner, recording: Prepared) -> dict[str, Any]:
    starts = recording.starts(run.n, run.reads, run.big_every)
    made: dict[str, np.ndarray] = {}
    each = max(1, FRAMES // run.n)
    for first in range(0, len(starts), each):
        some = starts[first : first + each]
        rows = (some[:, None] + np.arange(run.n)).ravel()
        for task, tensor in run(recording.inputs(run.reads, some, run.n, run.big_every)).items():
            values = tensor.sigmoid().numpy() if task == "au" else tensor[:, 0].numpy()
            made.setdefault(task, np.full((len(recording), *values.shape[1:]), np.nan, np.float32))[rows] = values
    for task in run.tasks:  # of a recording without a clip
        columns = (len(run.units(recording)),) if task == "au" else ()
        made.setdefault(task, np.full((len(recording), *columns), np.nan, np.float32))
    return made


def _colours(recording: Prepared) -> np.ndarray | None:
    """Mean colours (T, 3) of the smallest pictures that every frame has."""
    sizes = sorted(int(name[7:]) for name in recording.arrays if name.startswith("frames_"))
    name = f"frames_{sizes[0]}" if sizes else "big"
    if name not in recording.arrays or len(pictures := getattr(recording, name)) != len(recording):
        return None
    parts = [pictures[first : first + FRAMES] for first in range(0, len(pictures), FRAMES)]
    return np.concatenate([part.mean(axis=(1, 2), dtype=np.float64) for part in parts]).astype(np.float32)
