"""Cross-validation by subject, of the BigSmall of the paper or of any networks (`rows=[bigsmall,tscan]`).

Of BP4D+ the coded trials are learnt from; rates are then tested on all trials of the held-out people, action units on
their coded ones (FACTS 5).
"""

from __future__ import annotations

from .. import models
from .paper import TABLE1, TABLE2
from .rows import measure, report
from .study import Row, Study, network
from .tables import Results


def run(study: Study) -> str:
    """
    Raises:
        ValueError: `rows` names no network.
    """
    asked = study.options.rows or ["bigsmall"]
    if unknown := set(asked) - set(models.names()):
        raise ValueError(
            f"rows: no network is called {', '.join(sorted(unknown))}; there are {', '.join(models.names())}"
        )
    rows, results = [Row(name, (network(name),)) for name in asked], Results()
    measure(study, rows, study.splits([row.networks[0] for row in rows]), results)
    paper = {name: of for name, of in {**TABLE2, **TABLE1}.items() if name in asked}
    return report(study, "crossval", "Cross-validation by subject", results, paper)
