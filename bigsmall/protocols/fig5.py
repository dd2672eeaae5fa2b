"""Fig. 5: does wrapping the temporal shift help? A TS-CAN at 9x9 without pooling, over a clip's frames (FACTS 3.6)."""

from __future__ import annotations

from .paper import HEART
from .rows import said
from .study import QUALITY, Row, Study, network, numbers
from .tables import Results, curves, write

SHIFTS = {"wtsm": "WTSM", "tsm": "TSM", "none": "no shift"}
COLUMNS = ("HR MAE", "HR SNR", "HR MACC")


def run(study: Study) -> str:
    """Every network sees as many frames a step, whatever the length of its clips."""
    of, results = study.options, Results()
    rows = {
        (shift, n): Row(f"{name}, N = {n}", (network("tscan9", n_segment=n, shift=shift),))
        for n in of.segments
        for shift, name in SHIFTS.items()
    }
    splits = study.splits([row.networks[0] for row in rows.values()])
    frames = 3 * study.recipe()["batch"]
    for seed in of.seeds:
        for (_, n), row in rows.items():
            summary = study.measured(row, splits, seed, batch=max(1, round(frames / n)))
            results.add(row.name, seed, numbers(summary))
    panels = {
        column: {
            name: {float(n): results.values(rows[shift, n].name, column) for n in of.segments}
            for shift, name in SHIFTS.items()
        }
        for column in COLUMNS
    }
    curves(study.folder / "fig5.png", panels, "N, frames of a clip")
    pairs = [(rows["wtsm", n].name, rows[other, n].name) for n in of.segments for other in ("tsm", "none")]
    about = ["The paper gives Fig. 5 as a picture only: there are no numbers to stand beside ours.", *said(study)]
    title = "Fig. 5: WTSM, TSM and no shift over N"
    return write(study.folder, "fig5", title, results, {}, (*HEART, *QUALITY), about, pairs, COLUMNS)
