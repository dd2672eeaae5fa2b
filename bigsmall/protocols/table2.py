"""Table 2: BigSmall beside other networks and beside POS and CHROM."""

from __future__ import annotations

from .paper import TABLE2
from .rows import PEERS, ROWS, measure, report, unsupervised, wanted
from .study import Row, Study
from .tables import Results


def run(study: Study) -> str:
    """With `aligned`, the networks of action units are measured on aligned faces as well."""
    of, results = study.options, Results()
    rows = [row for row in wanted(study, ROWS, PEERS) if row.name in TABLE2]
    peers = unsupervised(study)
    networks = [network for row in rows for network in row.networks]
    measure(study, rows, study.splits(networks), results, peers)
    if of.aligned is not None:
        faces = [row for row in wanted(study, ROWS, PEERS) if f"{row.name}, aligned" in TABLE2]
        splits = study.folded("aligned", of.aligned, None, [network for row in faces for network in row.networks])
        measure(study, [Row(f"{row.name}, aligned", row.networks) for row in faces], splits, results)
    else:
        study.notes["Rows of aligned faces are ours where `aligned` names such data."] = None
    study.notes[
        "JAA-Net and BigSmall++ learn action units with landmarks by their joint loss, and in all else by the recipe "
        "of the others, not their authors'; the fusion of BigSmall++ was not released."
    ] = None
    study.notes["EfficientPhys is the toolbox's at 72 pixels; its 9x9 of the paper was not released."] = None
    return report(study, "table2", "Table 2: other networks", results, TABLE2)
