"""The transfer matrix: BigSmall learns one task, and another one starts from there."""

from __future__ import annotations

from ..models import TASKS
from .paper import UNITS
from .rows import SHOWN, report
from .study import Row, Study, network, numbers, run_name
from .tables import Results


def run(study: Study) -> str:
    """A row for each task that was learnt first, and one for none; a column for what each task then comes to."""
    of, results = study.options, Results()
    bigsmall = network("bigsmall")
    splits = study.splits([bigsmall])
    tasks = [task for task in TASKS if all(study.told(bigsmall, split.learn, [task]) for split in splits)]
    firsts = [task for task in TASKS if task in tasks or task in of.pretrained]
    for seed in of.seeds:
        for first in (None, *firsts):
            name, starts = f"{first} first" if first else "from nothing", {}
            for split in splits if first else ():  # each of its own people, for the others test it
                start = of.pretrained.get(str(first))
                if start is None:
                    run = run_name(Row(f"only {first}", (bigsmall,)), bigsmall, split, seed)
                    start = str(study.train(run, bigsmall, split.learn, seed, tasks=[str(first)]))
                starts[split.name] = start
            for second in tasks:
                row = Row(f"{name}, then {second}", (bigsmall,))
                summary = study.measured(row, splits, seed, starts, second=True, tasks=[second])
                results.add(name, seed, numbers(summary))
    pairs = [(f"{first} first", "from nothing") for first in firsts]
    study.notes["The second training is the shorter one where `finetune` says so; the paper prints no such table."] = (
        None
    )
    title = "Transfer: rows learnt first, columns fine-tuned from it"
    return report(study, "transfer", title, results, {}, (*SHOWN, *UNITS[1:]), pairs)
