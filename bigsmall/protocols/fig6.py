"""Fig. 6: what BigSmall's last convolutions see, its waveforms, and the angles between its tasks' gradients.

Named as what they are: the means over channels of the last Big and Small convolutions' maps, and Grad-CAM of each task.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from ..datasets import Prepared
from ..evaluation import evaluate
from ..evaluation.postprocess import Compared
from ..models import Network, answer
from ..models.maps import activations, grad_cam
from ..weights import load_network
from .rows import said
from .study import Row, Study, network, run_name
from .tables import COLOURS, FAINT, Results, figure_of, save, write

PEOPLE = 3
EVERY = 10  # steps between angles
VITALS = ("heart_rate", "respiration_rate")


def run(study: Study) -> str:
    """The network is that of `pretrained.bigsmall`, or one that is trained first, with angles every so many steps."""
    of, bigsmall = study.options, network("bigsmall")
    split = study.splits([bigsmall])[0]
    run = run_name(Row("fig6", (bigsmall,)), bigsmall, split, of.seeds[0])
    given = of.pretrained.get("bigsmall")
    weights = Path(given or study.train(run, bigsmall, split.learn, of.seeds[0], angles_every=EVERY))
    weights = weights / "model.safetensors" if weights.is_dir() else weights
    people = list({r.subject: r for r in split.units}.values())[:PEOPLE]
    model, _ = load_network(weights)
    _maps(study.folder / "fig6-maps.png", model, people)
    found = evaluate(weights, people, convention=of.convention)
    _waves(
        study.folder / "fig6-waves.png", [found.excerpts.get((r.dataset, r.name, v)) for r in people for v in VITALS]
    )
    results = Results("steps")
    if (log := weights.parent / "angles.csv").is_file():
        _angles(study.folder / "fig6-angles.png", log, results)
    about = [
        f"fig6-maps.png: of {len(people)} people one clip each: the mean over channels of the last convolutions' maps "
        "of Big (once) and of Small (the clip's middle frame), and each task's Grad-CAM on them (of the likeliest "
        "action unit, for au).",
        "fig6-waves.png: what was predicted, and the reference, both filtered.",
        "Angles in degrees between the gradients of two tasks, of every layer that they share: mean ± deviation over "
        f"the steps (every {EVERY}th); below 90 they agree. The paper gives Fig. 6 as pictures only.",
    ]
    columns = list(dict.fromkeys(c for seeds in results.rows.values() for step in seeds.values() for c in step))
    title = "Fig. 6: what the network sees, and whether its tasks agree"
    return write(study.folder, "fig6", title, results, {}, columns, [*about, *said(study)])


def _maps(path: Path, model: Network, people: Sequence[Prepared]) -> None:
    rows = [_looks(model, recording) for recording in people]
    figure = figure_of(1.5 * len(rows) + 0.5, 1.5 * len(rows[0]))
    for axes_row, looks in zip(figure.subplots(len(rows), len(rows[0]), squeeze=False), rows, strict=True):
        for axes, (title, picture) in zip(axes_row, looks.items(), strict=True):
            axes.imshow(picture, cmap=None if picture.ndim == 3 else "magma")
            axes.axis("off")
            axes.set_title(title, fontsize=6)
    save(path, figure)


def _looks(model: Network, recording: Prepared) -> dict[str, np.ndarray]:
    """Pictures by title, of the clip with the most action units shown, else the first."""
    n = model.n_segment
    starts = recording.starts(n, model.reads, model.big_every)
    shown = [int((recording.au[s] == 1).sum()) for s in starts] if "au" in recording.arrays else [0]
    start = starts[[int(np.argmax(shown))]]
    inputs = recording.inputs(model.reads, start, n, model.big_every)
    looks = {"the frame": recording.big[np.searchsorted(recording.big_frame, start[0])]}
    for branch, maps in activations(model, inputs).items():
        looks[f"{branch}: mean of channels"] = _middle(maps.mean(1))
    for task, (unit, of) in _asked(model, inputs, recording).items():
        for branch, cam in grad_cam(model, inputs, task, unit).items():
            looks[f"{branch}: Grad-CAM, {of}"] = _middle(cam)
    return looks


def _asked(model: Network, inputs: Mapping[str, Tensor], recording: Prepared) -> dict[str, tuple[int, str]]:
    """Of each task the output that is asked about, and its name: of action units the likeliest one's."""
    asked = {task: (0, task) for task in model.tasks}
    if "au" in asked:
        with torch.no_grad():
            unit = int(answer(model, inputs)["au"].sum(0).argmax())
        asked["au"] = (unit, recording.action_units[unit])
    return asked


def _middle(maps: Tensor) -> np.ndarray:
    picture: np.ndarray = maps[len(maps) // 2].numpy()
    return picture


def _waves(path: Path, waves: Sequence[Compared | None]) -> None:
    figure = figure_of(1.1 * len(waves) + 0.6, 8.0)
    for axes, compared in zip(np.atleast_1d(figure.subplots(len(waves), 1)), waves, strict=True):
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        if compared is None:
            continue
        if compared.reference is not None:
            axes.plot(compared.times, compared.reference / compared.reference.std(), color=FAINT, label="reference")
        axes.plot(compared.times, compared.wave / compared.wave.std(), color=COLOURS[0], label="predicted")
    figure.axes[0].legend(frameon=False, fontsize=8, loc="upper right")
    figure.supxlabel("time, s; pulse and respiration of each person", fontsize=9)
    save(path, figure)


def _angles(path: Path, log: Path, results: Results) -> None:
    """Read a run's angles into `results`, a row a layer, and draw their means over layers."""
    steps: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with log.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            step, layer = int(line.pop("step")), line.pop("layer")
            values = {pair: float(angle) for pair, angle in line.items() if angle != "nan"}
            results.add(layer, step, values)
            for pair, angle in values.items():
                steps[pair][step].append(angle)
    figure = figure_of(3.2, 5.2)
    axes = figure.subplots()
    for (pair, of), colour in zip(steps.items(), COLOURS, strict=False):
        axes.plot(list(of), [mean(angles) for angles in of.values()], color=colour, label=pair)
    axes.axhline(90, color=FAINT, linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("angle, degrees, mean of layers")
    axes.legend(frameon=False)
    save(path, figure)
