"""Table 3: trained on one dataset, tested on others."""

from __future__ import annotations

from ..datasets import open_prepared
from .paper import HEART, TABLE3
from .rows import PEERS, ROWS, measure, report, unsupervised, wanted
from .study import QUALITY, Spec, Split, Study
from .tables import Results


def run(study: Study) -> str:
    """All of `data` is learnt, all of each of `tests` tested on; without any, less easy simulated people."""
    of = study.options
    rows = [row for row in wanted(study, ROWS, PEERS) if row.name in TABLE3["pure"]]
    peers = unsupervised(study)
    networks = [network for row in rows for network in row.networks]
    learn = study.learnt(networks)
    tests: dict[str, Spec | None] = {**of.tests} or {"harder": None}
    texts = []
    for name, spec in tests.items():
        tested, results = open_prepared(study.whole(name, spec, networks)), Results()
        measure(study, rows, [Split("", learn, tested, tested, f"on-{name}")], results, peers)
        data = f"learnt from {of.data or 'simulated people'}, tested on {spec or 'simulated people less easy'}"
        title = f"Table 3: trained on one dataset, tested on {name}"
        texts.append(
            report(
                study, f"table3-{name}", title, results, TABLE3.get(tested[0].dataset, {}), (*HEART, *QUALITY), (), data
            )
        )
    return "\n".join(texts)
