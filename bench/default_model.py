"""What the training runs of the default model came to, seed by seed: bench/results/default.{md,json,csv,png}.

    bigsmall train default -o runs/seed1 seed=1        # and 2, 3
    bigsmall held-out runs/seed?/model.safetensors -o held_out
    python bench/default_model.py runs/seed? --held-out held_out/held_out.json --clip evm_face.mp4 \
        --authors BP4D_Small_Heart_Clip3_Split1....pth --square 0,0,528,528

The clip, a real face, is measured by each of them, by POS and by the authors' weights for the pulse, in their own crop
and in the square that is given. It tells nothing but what it says: no choice is made by it.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import typer
from omegaconf import OmegaConf

import bigsmall
from bigsmall.files import whole

RESULTS = Path(__file__).parent / "results" / "default"
LOSSES = {"au": "action units (BCE)", "pulse": "pulse (MSE)", "respiration": "respiration (MSE)"}
SMOOTH = 50  # steps
COLOURS = ("#c2364b", "#2a8c82", "#5b74a8", "#b8641b", "#8a6bb0")


def _losses(run: Path) -> dict[str, np.ndarray]:
    with (run / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: np.array([float(row[name]) for row in rows]) for name in LOSSES}


def _log(seeds: list[dict[str, Any]], losses: list[dict[str, np.ndarray]], path: Path) -> None:
    """The losses' means over so many steps."""
    with whole(path) as aside, aside.open("w", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(("seed", "step", *LOSSES))
        for seed, of in zip(seeds, losses, strict=True):
            for first in range(0, len(of["au"]), SMOOTH):
                means = (f"{values[first : first + SMOOTH].mean():.4f}" for values in of.values())
                rows.writerow((seed["seed"], min(first + SMOOTH, len(of["au"])), *means))


def _clip(weights: str, clip: Path, **crop: str) -> dict[str, Any]:
    """Heart rates and confidences of a real clip by the network and by POS."""
    found = bigsmall.measure(clip, weights=weights, **crop)
    readings = {"network": found.heart_rate, "POS": found.unsupervised["pos"]}
    return {name: {"value": r.value, "confidence": r.confidence, "note": r.note} for name, r in readings.items()}


def _spread(values: list[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return "" if not known else f"{known[0]:.{digits}f}"
    return f"{mean(known):.{digits}f} ± {stdev(known):.{digits}f}"


def _rate(reading: dict[str, Any]) -> str:
    return "refused" if reading["value"] is None else f"{reading['value']:.1f} ({reading['confidence']:.2f})"


def _table(seeds: list[dict[str, Any]]) -> str:
    tests = [seed["test"] for seed in seeds]

    def row(name: str, values: list[float | None], digits: int) -> str:
        cells = ["" if v is None else f"{v:.{digits}f}" for v in values]
        return f"| {name} | {' | '.join(cells)} | {_spread(values, digits)} |"

    lines = [
        f"| seed | {' | '.join(str(seed['seed']) for seed in seeds)} | mean ± standard deviation |",
        f"|---|{'---|' * (len(seeds) + 1)}",
    ]
    for name, title in (("heart_rate", "heart rate"), ("pos", "the same by POS"), ("respiration_rate", "respiration")):
        rates = [test[name] for test in tests]
        lines.append(row(f"{title}: mean absolute error, per minute", [r["mean_absolute_error"] for r in rates], 2))
        lines.append(row(f"{title}: largest error", [r["largest_error"] for r in rates], 2))
        lines.append(row(f"{title}: refused, %", [100 * r["refused"] for r in rates], 1))
        shares = [None if (of := r["inside_interval"]) is None else 100 * of for r in rates]
        lines.append(row(f"{title}: inside its 95 % interval, %", shares, 0))
    units = [test["au_f1_on_rendered_faces"] for test in tests]
    lines += [row(f"{name}: F1 on rendered faces", [unit[name] for unit in units], 2) for name in units[0]]
    controls = [test["without_a_pulse"] for test in tests]
    given = " | ".join(f"{c['given_a_heart_rate']} of {c['videos']}" for c in controls)
    lines.append(f"| without a pulse: given a heart rate | {given} | |")
    for name in ("network", "POS"):
        cells = " | ".join(_rate(seed["clip"][name]) for seed in seeds)
        lines.append(f"| the real clip by {name}, bpm (confidence) | {cells} | |")
    return "\n".join(lines) + "\n"


def _picture(seeds: list[dict[str, Any]], losses: list[dict[str, np.ndarray]], path: Path) -> None:
    figure, axes = plt.subplots(1, len(LOSSES), figsize=(12, 3), layout="constrained")
    for plot, (name, title) in zip(axes, LOSSES.items(), strict=True):
        for seed, of, colour in zip(seeds, losses, COLOURS, strict=False):
            smooth = np.convolve(of[name], np.ones(SMOOTH) / SMOOTH, "valid")
            plot.plot(np.arange(len(smooth)) + SMOOTH, smooth, color=colour, label=f"seed {seed['seed']}")
        plot.set_title(title, fontsize=10)
        plot.set_xlabel("step")
        plot.set_ylim(0)
    axes[0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main(
    runs: Annotated[list[Path], typer.Argument(help="Folders of training runs that ended.")],
    held_out: Annotated[Path, typer.Option(help="held_out.json of their models.")],
    clip: Annotated[Path, typer.Option(help="A real clip to be measured by each.")],
    authors: Annotated[Path, typer.Option(help="The authors' weights for the pulse.")],
    square: Annotated[str, typer.Option(help="x,y,width,height of the clip's face for them.")],
) -> None:
    tests = {Path(r["weights"]).resolve(): r for r in json.loads(held_out.read_text(encoding="utf-8"))["results"]}
    losses = [_losses(run) for run in runs]
    seeds = []
    for run, of in zip(runs, losses, strict=True):
        model = run / "model.safetensors"
        last = {name: float(values[-200:].mean()) for name, values in of.items()}
        seed: dict[str, Any] = {
            "seed": OmegaConf.load(run / "config.yaml").seed,
            "weights": bigsmall.weights.load(str(model)).checksum(),
            "losses of the last 200 steps": last,
            "test": {name: value for name, value in tests[model.resolve()].items() if name != "weights"},
        }
        seeds.append(seed | {"clip": _clip(str(model), clip)})
    crops: dict[str, dict[str, str]] = {"their own crop": {}, square: {"crop": square}}
    beside = {name: _clip(f"pulse={authors}", clip, **crop)["network"] for name, crop in crops.items()}
    settings = OmegaConf.to_container(OmegaConf.load(runs[0] / "config.yaml"))
    RESULTS.parent.mkdir(exist_ok=True)
    with whole(RESULTS.with_suffix(".json")) as aside:
        found = {"config": settings, "seeds": seeds, "the clip by the authors' weights": beside}
        aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    with whole(RESULTS.with_suffix(".md")) as aside:
        told = "; ".join(f"in {name} {_rate(reading)}" for name, reading in beside.items())
        aside.write_text(
            f"{_table(seeds)}\nThe real clip by the authors' weights for the pulse: {told}.\n", encoding="utf-8"
        )
    _log(seeds, losses, RESULTS.with_suffix(".csv"))
    _picture(seeds, losses, RESULTS.with_suffix(".png"))


if __name__ == "__main__":
    typer.run(main)
