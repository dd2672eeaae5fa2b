"""Fig. 5: does wrapping the temporal shift help? A TS-CAN at 9x9 without pooling, over a clip's frames (FACTS 3.6).

The paper's way: `data` PURE, `tests` UBFC-rPPG, train.batch=40 and a one-cycle schedule, train.schedule=onecycle, that
goes up to train.learning_rate=9e-3 (how it differs from theirs: `bigsmall.training.Config`).
"""

from __future__ import annotations

from ..datasets import open_prepared
from .paper import HEART
from .rows import said
from .study import QUALITY, Row, Split, Study, network, numbers
from .tables import Results, curves, write

SHIFTS = {"wtsm": "WTSM", "tsm": "TSM", "none": "no shift"}
COLUMNS = ("HR MAE", "HR SNR", "HR MACC")


def run(study: Study) -> str:
    """`tests` in place of folds."""
    of, results = study.options, Results()
    rows = {
        (shift, n): Row(f"{name}, N = {n}", (network("tscan9", n_segment=n, shift=shift),))
        for n in of.segments
        for shift, name in SHIFTS.items()
    }
    networks = [row.networks[0] for row in rows.values()]
    if of.tests:
        tested = [r for name, spec in of.tests.items() for r in open_prepared(study.whole(name, spec, networks))]
        splits = [Split("", study.learnt(networks), tested, tested)]
    else:
        splits = study.splits(networks)
    for seed in of.seeds:
        for row in rows.values():
            results.add(row.name, seed, numbers(study.measured(row, splits, seed)))
    panels = {
        column: {
            name: {float(n): results.values(rows[shift, n].name, column) for n in of.segments}
            for shift, name in SHIFTS.items()
        }
        for column in COLUMNS
    }
    curves(study.folder / "fig5.png", panels, "N, frames of a clip")
    pairs = [(rows["wtsm", n].name, rows[other, n].name) for n in of.segments for other in ("tsm", "none")]
    data = f"learnt from {of.data or 'simulated people'}, tested on {of.tests}" if of.tests else ""
    about = ["The paper gives Fig. 5 as a picture only: there are no numbers to stand beside ours.", *said(study, data)]
    title = "Fig. 5: WTSM, TSM and no shift over N"
    return write(study.folder, "fig5", title, results, {}, (*HEART, *QUALITY), about, pairs, COLUMNS)
