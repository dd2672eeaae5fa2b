"""Cross-validation by subject, of the BigSmall of the paper or of any networks (`rows=[bigsmall,tscan]`).

Of BP4D+ the coded trials are learnt from; rates are then tested on all trials of the held-out people, action units on
their coded ones (FACTS 5).
"""

from __future__ import annotations

from .. import models
from .paper import TABLE1, TABLE2
from .rows import ROWS, measure, report
from .study import Row, Study, network
from .table1 import ROWS as ABLATED
from .tables import Results


def run(study: Study) -> str:
    """Names in `rows` are those of Tables 1 and 2, with their options; else networks of the registry.

    Raises:
        ValueError: `rows` names no network.
    """
    asked = study.options.rows or ["bigsmall"]
    known = {**{name: Row(name, (network(name),)) for name in models.names()}, **{r.name: r for r in (*ROWS, *ABLATED)}}
    if unknown := set(asked) - set(known):
        raise ValueError(f"rows: no network is called {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows, results = [known[name] for name in asked], Results()
    measure(study, rows, study.splits([of for row in rows for of in row.networks]), results)
    paper = {name: of for name, of in {**TABLE2, **TABLE1}.items() if name in asked}
    return report(study, "crossval", "Cross-validation by subject", results, paper)
