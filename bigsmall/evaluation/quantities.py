"""What a row says: the rates of one part of a prediction, beside their references."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..signals import unsupervised
from .metrics import UNDEFINED
from .postprocess import Compared, Convention, compare
from .predict import Prediction

EXCERPT = 20.0  # s, of the waves that are kept for a picture
Row = dict[str, Any]


class Quantity(NamedTuple):
    """A rate: of which vital sign, from which signal of a `Prediction`, against which references, for which task."""

    name: str
    vital: str
    by: str
    task: str
    wave: str
    column: str


PEERS = {"pos": unsupervised.pos, "chrom": unsupervised.chrom}
QUANTITIES = (
    Quantity("heart_rate", "heart_rate", "network", "pulse", "bvp_wave", "heart_rate"),
    *(Quantity(peer, "heart_rate", peer.upper(), "pulse", "bvp_wave", "heart_rate") for peer in PEERS),
    Quantity("respiration_rate", "respiration_rate", "network", "respiration", "respiration_wave", "respiration_rate"),
)


def signal(prediction: Prediction, of: Quantity) -> np.ndarray | None:
    """(T,), NaN unknown: a network's output, or a pulse from the mean colours of each stretch of frames."""
    if of.name not in PEERS:
        wave: np.ndarray | None = getattr(prediction, of.task)
        return wave
    if prediction.colours is None:
        return None
    pulse, fs = np.full(len(prediction), np.nan), prediction.fps
    for a, b in zip(prediction.stretches[:-1], prediction.stretches[1:], strict=True):
        if b - a > 2 * unsupervised.WINDOW * fs and fs > 6:  # windows enough, and a band that ends at 3 Hz
            wave = PEERS[of.name](prediction.colours[a:b], fs)
            pulse[a : a + len(wave)] = wave
    return pulse


def columns(
    prediction: Prediction, of: Quantity, signal: np.ndarray, part: slice, how: Convention
) -> tuple[Row, Compared | None]:
    """The columns of a quantity, by what stands behind its name."""
    given = getattr(prediction, of.column)
    rates = np.array([]) if given is None else given[part][given[part] > 0]
    values: Row = dict.fromkeys(("", "_true", "_peaks", "_peaks_true", "_snr", "_macc"), UNDEFINED)
    values |= {"_column": float(rates.mean()) if len(rates) else UNDEFINED, "_seconds": 0.0, "_note": ""}
    wave = getattr(prediction, of.wave)
    known, reference = np.isfinite(signal[part]), None if wave is None else wave[part]
    if reference is not None and (known & np.isfinite(reference)).any():
        known &= np.isfinite(reference)
    else:
        reference = None
    run = longest(known, prediction.stretches - part.start)
    compared = compare(
        signal[part][run], None if reference is None else reference[run], prediction.timestamps[part][run],
        of.vital, how, derivative=of.name not in PEERS,
    )  # fmt: skip
    if isinstance(compared, str):
        return {**values, "_note": compared}, None
    values |= {
        "": compared.rate, "_true": compared.true, "_peaks": compared.peaks, "_peaks_true": compared.peaks_true,
        "_snr": compared.snr, "_macc": compared.macc, "_seconds": (run.stop - run.start) / prediction.fps,
        "_note": "" if compared.reference is not None else "there is no wave to compare with",
    }  # fmt: skip
    return values, compared


def longest(known: np.ndarray, bounds: np.ndarray) -> slice:
    """The longest run of True in (n,) that crosses none of the bounds; the first of several."""
    cut = np.zeros(len(known) + 1, dtype=bool)
    cut[[0, -1]] = True
    cut[1:-1] = known[1:] != known[:-1]
    cut[bounds[(bounds > 0) & (bounds < len(known))]] = True
    edges = np.flatnonzero(cut)
    lengths = np.diff(edges) * known[edges[:-1]]
    best = int(np.argmax(lengths))
    return slice(int(edges[best]), int(edges[best] + lengths[best]))


def excerpt(compared: Compared, of: Quantity) -> Compared:
    """The middle of the waves, as they went together: a change from one frame to the next belongs to the next."""
    n, late = len(compared.times), int(of.name not in PEERS)
    fs = (n - 1) / (compared.times[-1] - compared.times[0])
    first = max(late, round((n - EXCERPT * fs) / 2))
    part, before = slice(first, n - first + late), slice(first - late, n - first)
    reference = None if compared.reference is None else compared.reference[part].copy()
    return compared._replace(times=compared.times[part].copy(), wave=compared.wave[before].copy(), reference=reference)
