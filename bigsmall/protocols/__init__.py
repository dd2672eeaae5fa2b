"""The paper's experiments, each a function of a `Study`: `bigsmall protocol NAME -o DIR [key=value]`.

Without `data` they learn from simulated people, small enough for two cores (simulated.yaml); with the real datasets
they are the paper's tables. What is done is not done again.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path

ABOUT = {
    "crossval": "cross-validation by subject; of BP4D+ rates are tested on all trials, action units on the coded ones",
    "table1": "the ablations: branches, temporal shift, Big's down-sampling, with their cost",
    "table2": "BigSmall beside other networks, POS and CHROM",
    "table3": "trained on one dataset, tested on others",
    "table4": "action units fine-tuned on another dataset",
    "transfer": "a task learnt first, another fine-tuned from it: the matrix",
    "fig5": "WTSM, TSM and no shift on a TS-CAN without pooling, over N",
    "fig6": "what the last convolutions see, Grad-CAM, waveforms, angles between the tasks' gradients",
}


def names() -> list[str]:
    """The protocols."""
    return list(ABOUT)


def run(name: str, output: str | os.PathLike[str], overrides: Sequence[str] = ()) -> str:
    """Run a protocol, or go on with it.

    Args:
        name: one of `names()`.
        output: its folder: NAME.md, NAME.csv, NAME.png (table3 a table for each test, fig6 several pictures), data/
            and runs/.
        overrides: `key=value`, see `options.Options`.

    Returns:
        the text of NAME.md.

    Raises:
        ValueError: no such protocol or option; or as data, training and evaluation say.
    """
    if name not in ABOUT:
        raise ValueError(f"no protocol is called {name!r}; there are {', '.join(ABOUT)}")
    from .options import read
    from .study import Study

    protocol = importlib.import_module(f".{name}", __package__)
    folder = Path(output).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    text: str = protocol.run(Study(folder, read(overrides)))
    return text
