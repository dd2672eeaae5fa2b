"""Table 1: what the branches, the temporal shift and Big's down-sampling are worth, and what they cost."""

from __future__ import annotations

from .paper import TABLE1
from .rows import measure, report, single, wanted
from .study import Row, Study, network
from .tables import Results

ABLATED = ("bigsmall_full", "bigsmall_noshift", "bigsmall_tsm", "bigsmall")
ROWS = (single("small"), Row("big", (network("big"),)), *(Row(name, (network(name),)) for name in ABLATED))


def run(study: Study) -> str:
    rows, results = wanted(study, ROWS), Results()
    measure(study, rows, study.splits([of for row in rows for of in row.networks]), results)
    pairs = [("bigsmall", other) for other in ("small", "big", *ABLATED[:-1])]
    return report(study, "table1", "Table 1: the ablations", results, TABLE1, pairs=pairs)
