"""Rows of networks, trained and tested over folds and seeds: what Tables 1 to 3 and cross-validation are made of."""

from __future__ import annotations

from collections.abc import Sequence

from .. import models
from ..datasets import open_prepared
from ..evaluation import unpredicted
from ..evaluation.postprocess import named
from .paper import COLUMNS, Table
from .study import Row, Spec, Split, Study, built, network, numbers
from .tables import Results, bars, write

SHOWN = ("HR MAE", "HR MACC", "BR MAE", "BR MACC", "AU F1")  # in pictures and comparisons
PEERS = ("pos", "chrom")


def single(name: str, network_name: str | None = None) -> Row:
    """A row of a network for one signal: once for the pulse, once for the respiration."""
    return Row(name, tuple(network(network_name or name, task=task) for task in ("pulse", "respiration")))


ROWS = (  # of Tables 2 to 4, by the names that `paper` has for them
    Row("efficientphys", (network("efficientphys", n_segment=3),)),
    Row("mttscan", (network("mttscan9"),)),
    single("deepphys", "deepphys9"),
    *(Row(name, (network(name),)) for name in ("drml", "alexnet")),
    Row("jaa", (network("jaanet"),)),
    Row("jaa2", (network("jaanet2"),)),
    *(Row(name, (network(name),)) for name in ("big", "bigsmall")),
    Row("bigsmall++", (network("bigsmall_plus"),)),
)
HEAVY = ("drml", "alexnet", "jaa", "jaa2", "bigsmall++")


def wanted(study: Study, rows: Sequence[Row], beside: Sequence[str] = ()) -> list[Row]:
    """The rows that the options ask for, else all; of those, on simulated people, the HEAVY ones only if asked for.

    Args:
        beside: other names that the options may ask for.

    Raises:
        ValueError: there is no such row.
    """
    asked = study.options.rows
    if asked is None:
        left = [row.name for row in rows if study.options.data is None and row.name in HEAVY]
        if left:
            study.notes[
                f"Left out, for they take long without a GPU, unless rows=[...] names them: {', '.join(left)}."
            ] = None
        return [row for row in rows if row.name not in left]
    known = [*(row.name for row in rows), *beside]
    if unknown := set(asked) - set(known):
        raise ValueError(f"rows: no {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return [row for row in rows if row.name in asked]


def taught(study: Study, rows: Sequence[Row], learns: Sequence[Spec]) -> list[Row]:
    """The rows whose networks find in the data all that they are trained with; the others are noted."""
    folders = {of["prepared"] for of in learns}
    held = [{array for r in open_prepared(folder) for array in r.arrays} for folder in folders]
    also = {row.name: {name for of in row.networks for name in built(of).also} for row in rows}
    left = [name for name, needs in also.items() if any("au" in arrays and needs - arrays for arrays in held)]
    if left:
        study.notes[
            "Left out, for what is learnt holds no landmarks, which they are trained with (BP4D+ with aligned: "
            f"landmarks does, and DISFA's _land.txt lists): {', '.join(left)}."
        ] = None
    return [row for row in rows if row.name not in left]


def unsupervised(study: Study) -> list[str]:
    """Those of PEERS that the options ask for; data are prepared for them from here on."""
    asked = [name for name in PEERS if study.options.rows is None or name in study.options.rows]
    study.pictures = bool(asked)
    return asked


def measure(
    study: Study, rows: Sequence[Row], splits: Sequence[Split], results: Results, peers: Sequence[str] = ()
) -> None:
    """Every row with every seed, a seed of all rows before the next; `peers`: what needs no training, once."""
    first, rows = study.options.seeds[0], taught(study, rows, [split.learn for split in splits])
    for seed in study.options.seeds:
        for row in rows:
            if summary := study.measured(row, splits, seed):
                results.add(row.name, seed, numbers(summary))
    if peers:
        study.tell(f"measuring {' and '.join(peers)}")
        summary = study.scores((unpredicted(r) for split in splits for r in split.rates), ["pulse"])
        for peer in peers:
            if peer in summary:
                results.add(peer, first, numbers(summary, peer))
                study.note_videos(peer, summary, sum(len(split.rates) for split in splits), peer)
    if any(peer not in results.rows for peer in peers):
        study.notes["POS and CHROM are measured where the data hold a picture of every frame (`frames`)."] = None
    for row in (row for row in rows if row.name in results.rows):
        cost = models.describe(row.networks[0]["name"], **row.networks[0]["options"])
        results.add(row.name, first, {"MFLOPs": cost.flops_per_frame / 1e6, "M parameters": cost.parameters / 1e6})


def report(
    study: Study,
    name: str,
    title: str,
    results: Results,
    paper: Table,
    columns: Sequence[str] = COLUMNS,
    pairs: Sequence[tuple[str, str]] = (),
    data: str = "",
) -> str:
    """Write the table, its CSV and its picture; the text of the first.

    Args:
        pairs: rows to compare seed by seed. data: what was learnt and tested on, where it is not folds of one dataset.
    """
    results.sort(paper)
    text = write(study.folder, name, title, results, paper, columns, said(study, data), pairs, results.columns(SHOWN))
    bars(study.folder / f"{name}.png", results, paper, SHOWN)
    return text


def said(study: Study, data: str = "") -> list[str]:
    """What every table says of itself; `data` as of `report`."""
    of = study.options
    how = named(of.convention)
    folds = f"{of.data}, folds by subject: {of.folds}"
    data = data or ("simulated people, tested on other simulated people" if of.data is None else folds)
    return [
        f"Ours: {data}; mean ± standard deviation over training runs of the seeds {', '.join(map(str, of.seeds))}. "
        "The paper's, where there are some: real people of BP4D+ in three folds, unless the title says otherwise.",
        f"Heart rates: {how.describe('heart_rate')}",
        f"Respiration rates: {how.describe('respiration_rate')}",
        "One rate a video, over the longest stretch of it that is known; standard errors over videos stand in the "
        "report of each run, under runs/.",
        "The paper's bands: 0.75-2.5 Hz and 0.13-0.5 Hz, strongest bin of the periodogram.",
        "MAE and RMSE per minute, MAPE and action units in per cent; SNR in dB and MACC, the correlation of the waves, "
        "are not in the paper's tables; MFLOPs are multiply-adds of a frame.",
        f"Frames that a step of training learnt from: {', '.join(study.seen) or 'none'}. Where Small sees more clips "
        "than Big, those have no action units, so that networks of action units alone see as many labelled frames.",
        *study.notes,
    ]
