"""Table 4: action units of another dataset (DISFA), fine-tuned from what was learnt first."""

from __future__ import annotations

from .paper import TABLE4, UNITS
from .rows import ROWS, report, taught, wanted
from .study import Study, numbers
from .tables import Results


def run(study: Study) -> str:
    """`tests` names the dataset to fine-tune on, in folds; `pretrained` what to start from; else `data` comes first.

    Raises:
        ValueError: more than one dataset to fine-tune on.
    """
    of, results = study.options, Results()
    if len(of.tests) > 1:
        raise ValueError(f"tests was {', '.join(of.tests)}, expected one dataset to fine-tune on")
    rows = [row for row in wanted(study, ROWS) if row.name in TABLE4]
    networks = [row.networks[0] for row in rows]
    ((name, spec),) = of.tests.items() or [("test", None)]
    second = study.prepared(name, spec or study.simulated[name], networks)
    splits = study.folded(name, {"prepared": str(second)}, {"prepared": str(second)}, networks)
    rows, learn = taught(study, rows, [split.learn for split in splits]), {}
    if afresh := [row for row in rows if row.name not in of.pretrained]:
        learn = study.learnt(networks)
        ready = taught(study, afresh, [learn])
        rows = [row for row in rows if row in ready or row not in afresh]
    for seed in of.seeds:
        for row in rows:
            start = of.pretrained.get(row.name)
            if start is None:
                if not study.told(row.networks[0], learn):
                    continue
                start = str(study.train(f"{row.name}/first/seed{seed}", row.networks[0], learn, seed))
            if summary := study.measured(row, splits, seed, second=True, init_from=start, tasks=["au"]):
                results.add(row.name, seed, numbers(summary))
    study.notes[
        "A layer whose number of action units differs from the first training's starts anew; of JAA-Net and BigSmall++ "
        "each unit's own layers come from that unit's, AU25's and AU26's from AU23's and AU17's."
    ] = None
    title = f"Table 4: action units, fine-tuned and tested on {name}; the paper's on DISFA, 8 units"
    data = f"fine-tuned and tested on {spec or 'simulated people'}, folds by subject: {of.folds}"
    return report(study, "table4", title, results, TABLE4, UNITS, data=data)
