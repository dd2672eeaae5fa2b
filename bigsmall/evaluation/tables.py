"""An evaluation as files: the report, the tables and the pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import whole
from ..results import DISCLAIMER
from .metrics import SCORES, Estimate
from .quantities import QUANTITIES

if TYPE_CHECKING:
    import pandas as pd

    from .evaluate import Evaluation

TITLES = {"heart_rate": "Heart rate, beats per minute", "respiration_rate": "Respiration rate, breaths per minute"}
METRICS = {"mae": "MAE", "rmse": "RMSE", "mape": "MAPE, %", "pearson": "Pearson", "snr": "SNR, dB", "macc": "MACC"}
COMPARED = {
    "": ("FFT", "reference wave"),
    "_peaks": ("peaks", "reference wave"),
    "_column": ("FFT", "dataset's own rate"),
}  # what is compared by the summary's suffixes
COLUMNS = (
    "quantity", "by", "rate_by", "reference", "convention", "band", "window", "n", "metric", "value", "standard_error",
)  # fmt: skip
MOST_NOTES = 10


def write(found: Evaluation, folder: Path) -> list[Path]:
    """Everything that `Evaluation.save` promises; each file whole or not at all."""
    from . import plots

    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.md": report(found),
        "videos.csv": found.rows.to_csv(index=False),
        "summary.json": json.dumps({**found.about, **_plain(found.summary)}, indent=2, allow_nan=False),
        "summary.csv": summary_table(found).to_csv(index=False),
    }
    if "au" in found.summary:
        texts["au.csv"] = au_table(found).to_csv(index=False)
    written = []
    for name, text in texts.items():
        with whole(folder / name) as aside:
            aside.write_text(text, encoding="utf-8")
        written.append(folder / name)
    return written + plots.draw(found, folder)


def summary_table(found: Evaluation) -> pd.DataFrame:
    """As `Evaluation.table` says."""
    import pandas as pd

    bands = found.about["bands"]
    rows = [
        {
            "quantity": of.vital, "by": of.by, "rate_by": rate_by, "reference": reference,
            "convention": found.about["convention"]["name"], "band": "{:.3g}-{:.3g} Hz".format(*bands[of.vital]),
            "window": found.rows["window"][0],
            "n": found.summary[of.name + suffix]["n"], "metric": metric, "value": value.value,
            "standard_error": value.error,
        }
        for of in QUANTITIES
        for suffix, (rate_by, reference) in COMPARED.items()
        for metric, value in found.summary.get(of.name + suffix, {}).items()
        if isinstance(value, Estimate)
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def au_table(found: Evaluation) -> pd.DataFrame:
    """A row an action unit, and the mean: unit, f1, precision, accuracy, shown, frames."""
    import pandas as pd

    table = pd.DataFrame([{"unit": unit, **of} for unit, of in found.summary["au"].items()])
    return table[["unit", *SCORES, "shown", "frames"]].astype({"shown": "Int64", "frames": "Int64"})


def report(found: Evaluation) -> str:
    """Markdown, with bands, filters, windows and references named under every table."""
    about = found.about
    window = "whole videos" if about["window"] is None else f"windows of {about['window']:g} s that follow one another"
    parts = [
        f"# {about['model']} on {', '.join(about['datasets'])}",
        f"{about['videos']} videos of {about['subjects']} subjects. {DISCLAIMER}",
        *(f"- {note}" for note in about["notes"]),
    ]
    for vital, title in TITLES.items():
        if lines := _rates(found, vital):
            conventions = f"{about['convention'][vital]} Over {window}, the longest stretch of each that is known."
            parts += [f"## {title}", "\n".join(lines), conventions]
    if len(parts) > 2 and any(of.name in found.summary for of in QUANTITIES):
        parts.append(
            "Value ± standard error: std / sqrt(n), of RMSE sqrt(std(e²) / sqrt(n)), of r sqrt((1 - r²) / (n - 2)). "
            "n: how many of all could be compared. SNR is against the reference's rate by FFT, MACC over all circular "
            "shifts. POS and CHROM are of the mean colours of the whole pictures."
        )
        if not {"pos", "chrom"} & set(found.rows) and "pulse" in about["tasks"]:
            parts.append("POS and CHROM are left out: no recording has pictures of every frame (frames_S, or all big).")
    if "au" in found.summary:
        parts += ["## Action units", *_units(found)]
    if notes := _missing(found):
        parts += ["## What is missing", "\n".join(notes)]
    return "\n\n".join(parts) + "\n"


def _rates(found: Evaluation, vital: str) -> list[str]:
    rows, total = [], len(found.rows)
    for of in QUANTITIES:
        for suffix, (rate_by, reference) in COMPARED.items():
            errors = found.summary.get(of.name + suffix)
            if of.vital != vital or errors is None or not errors["n"]:
                continue
            cells = [_cell(errors.get(name)) for name in METRICS]
            low, high = errors["limits"]
            agreement = f"{errors['bias'].value:.2f} ({low:.2f} to {high:.2f})" if math.isfinite(low) else ""
            rows.append([of.by, rate_by, reference, f"{errors['n']} of {total}", *cells, agreement])
    heads = ["by", "rate by", "against", "n", *METRICS.values(), "bias (95 % limits)"]
    return _markdown(heads, rows) if rows else []


def _units(found: Evaluation) -> list[str]:
    scores = found.summary["au"]
    rows = [
        [unit, *("" if of[name] is None else f"{100 * of[name]:.1f}" for name in SCORES), *_shown(of)]
        for unit, of in scores.items()
    ]
    return [
        "\n".join(_markdown(["unit", "F1", "precision", "accuracy", "shown", "frames"], rows)),
        "Per cent. A probability of 0.5 and more counts as found; frames of all videos are pooled, those without a "
        f"label left out. The means of F1 and precision are over the {scores['mean']['units']} units that are shown at "
        "all (one that never is has none, one that is shown and never found has 0), that of accuracy is over all.",
    ]


def _shown(of: dict[str, Any]) -> tuple[str, str]:
    return (f"{of['shown']:,}", f"{of['frames']:,}") if "frames" in of else ("", "")


def _missing(found: Evaluation) -> list[str]:
    rows, lines = found.rows, []
    for of in QUANTITIES:
        if of.name not in rows:
            continue
        for note, some in rows[rows[f"{of.name}_note"] != ""].groupby(f"{of.name}_note"):
            names = list(dict.fromkeys(some["name"]))
            more = f" and {len(names) - MOST_NOTES} more" if len(names) > MOST_NOTES else ""
            lines.append(f"- {of.name} of {', '.join(names[:MOST_NOTES])}{more}: {note}")
    return lines


def _cell(value: Estimate | None) -> str:
    if value is None or not math.isfinite(value.value):
        return ""
    return f"{value.value:.2f}" + (f" ± {value.error:.2f}" if math.isfinite(value.error) else "")


def _markdown(heads: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]


def _plain(value: Any) -> Any:
    """JSON of it: estimates as objects, what is unknown null."""
    if isinstance(value, Estimate):
        return {"value": _plain(value.value), "standard_error": _plain(value.error)}
    if isinstance(value, dict):
        return {name: _plain(of) for name, of in value.items()}
    if isinstance(value, tuple):
        return [_plain(of) for of in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
