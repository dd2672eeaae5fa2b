"""Whether there is a rhythm, where, and how surely: what one waveform shows, and what two independent ones agree on.

A waveform is cut into windows that overlap by half. In each, a line of the tapered spectrum stands `ratio` times above
the noise, a power law fitted to the rest of the spectrum; the evidence for it is minus the logarithm of the chance that
such noise reaches so high (an F test, so a noise known from few bins counts for less). Evidence of windows and of
independent waveforms at one frequency adds up (Fisher's method): a rhythm is what all of them show, and a burst in one
window, or a disturbance that only one of two waveforms knows, is not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import maximum_filter1d
from scipy.signal import detrend as remove_line
from scipy.signal import find_peaks
from scipy.signal.windows import hann

from bigsmall.signals.filters import Array
from bigsmall.signals.rates import peak_frequency

HANN_BINS = 1.5  # the noise bandwidth of a Hann window, in units of one over the duration
PAD = 8  # zero-padding of a window, so that a spectrum's top is found between its bins
LINE = 1.5  # logarithm above the noise beyond which a bin is not taken for noise
BELOW = 0.7  # how far the mean logarithm of exponential noise, cut off at LINE, lies below the logarithm of its mean
OVERTONE = 0.35  # the least strength, beside its overtone, of a rhythm that is weaker than that
SIGNIFICANT = 3.0  # nats: noise does that once in twenty times
FEW = 3.5  # cycles in a window, of which the spectrum's top is no longer the frequency
NOTHING = 1e-9  # of the strongest power: what is so much weaker than something else is not looked at
WANDER = 0.05  # a rhythm varies by so much of its frequency from window to window
MARGIN = 0.03  # a band is searched a little beyond its ends, so that these can be measured themselves


@dataclass(frozen=True)
class Band:
    """Where a rhythm is looked for, and beside what.

    Attributes:
        low, high: Hz. window: seconds.
        noise: the noise is taken from between these two, Hz; `slope`: its power law falls no more steeply than so.
    """

    low: float
    high: float
    window: float
    noise: tuple[float, float]
    slope: float


class Spectra:
    """The spectra of a waveform (T,) over windows, and the evidence for a line at every frequency.

    Attributes:
        frequencies: (F,) Hz, from 0 to a little beyond the band.
        power: (W, F), a sinusoid of amplitude a gives a^2 at its frequency. ratio: (W, F), over the noise there.
        evidence: (W, F), nats; none on the flanks of something stronger.
    """

    def __init__(self, x: Array, fs: float, band: Band) -> None:
        parts, step = _windows(x, fs, band.window)
        self._parts, n = parts, parts.shape[1]
        taper = hann(n, sym=False)
        nfft = 1 << (PAD * n - 1).bit_length()
        frequencies = np.fft.rfftfreq(nfft, 1 / fs)
        power = np.abs(np.fft.rfft(remove_line(parts, axis=1) * taper, nfft)) ** 2 * (2 / taper.sum()) ** 2
        self._strongest = power.argmax(axis=1)[:, None]
        self._peak = np.take_along_axis(power, self._strongest, 1)
        useful = slice(int(np.searchsorted(frequencies, max(1.25 * band.high, band.noise[1]), "right")))
        self.frequencies: Array = frequencies[useful].astype(np.float64)
        self.power: Array = power[:, useful].astype(np.float64)
        self.seconds = n / fs
        self.windows = 1 + (len(parts) - 1) * min(1.0, 1.6 * step / n)  # that count as independent
        self._tops = np.diff(np.sign(np.diff(self.power, prepend=0)), append=1) < 0
        self.searched = (band.low * (1 - MARGIN), band.high * (1 + MARGIN))
        self.ratio, bins = self._noise(band, fs)
        beside = round(1 / self.seconds / frequencies[1])
        flank = self.power < 0.4 * maximum_filter1d(self.power, 2 * beside + 1, axis=1)
        self.evidence = np.where(flank, 0, bins * np.log1p(self.ratio / bins))

    def _noise(self, band: Band, fs: float) -> tuple[Array, Array]:
        """How many times each bin is above the noise, (W, F), and from how many other bins that is known, (W, 1)."""
        f, power = self.frequencies, np.maximum(self.power, np.finfo(float).tiny)
        noise = (f >= band.noise[0]) & (f <= min(band.noise[1], 0.48 * fs))
        position, level = np.log(f[noise]), np.log(power[:, noise])
        among = np.ones(level.shape, dtype=bool)
        for _ in range(5):  # lines are taken out of the noise until none is left in it
            n = among.sum(axis=1, keepdims=True)
            centre = (among * position).sum(axis=1, keepdims=True) / n
            middle = (among * level).sum(axis=1, keepdims=True) / n
            slope = (among * (position - centre) * (level - middle)).sum(axis=1, keepdims=True)
            slope = np.clip(slope / (among * (position - centre) ** 2).sum(axis=1, keepdims=True), band.slope, 0)
            rest = level - middle - slope * (position - centre)
            among = rest <= np.maximum(LINE, np.quantile(rest, 0.4, axis=1, keepdims=True))
        floor = np.exp(middle + BELOW + slope * (np.log(np.maximum(f, f[1])) - centre))
        # what the strongest line, wherever it is, leaks through the window, and as much again, for it is no sinusoid
        strongest = f[1] * self._strongest
        bins = np.abs(f - strongest) * self.seconds
        leak = 4 / (np.pi * bins * (bins**2 - 1) + 1e-9) ** 2
        floor = floor + self._peak * np.where(bins > 2, leak, 0) + NOTHING * self._peak.max()
        bins = np.maximum(among.sum(axis=1, keepdims=True) * f[1] * self.seconds / HANN_BINS, 2.0)
        return np.asarray(power / floor), np.asarray(bins)

    @property
    def total(self) -> Array:
        """(F,) over the windows."""
        return np.asarray(self.evidence.mean(axis=0) * self.windows)

    @property
    def best(self) -> float:
        """Hz: where in the band the evidence is the greatest."""
        inside = (self.frequencies >= self.searched[0]) & (self.frequencies <= self.searched[1])
        return float(self.frequencies[np.argmax(np.where(inside, self.total, -1))])

    def near(self, frequency: float) -> np.ndarray:
        """Which bins belong to a rhythm of this frequency."""
        reach = max(0.5 / self.seconds, WANDER * frequency)
        return np.asarray(np.abs(self.frequencies - frequency) <= reach)

    def at(self, frequency: float) -> float:
        """The evidence for a rhythm of about this frequency: 0 where noise would do, in nats."""
        near = self.near(frequency)
        tries = 1 + (near.sum() - 1) * self.frequencies[1] * self.seconds / HANN_BINS
        highest = np.where(self._tops, self.evidence, 0)[:, near].max(axis=1)
        chance = -np.expm1(tries * np.log1p(-np.exp(-np.clip(highest, 1e-3, 30))))  # of the highest of so many
        found = np.where(highest < 30, -np.log(chance), highest - np.log(tries)).mean()
        return float(self.windows * (found - 1 - np.log(found))) if found > 1 else 0.0

    def mean(self, frequency: float) -> tuple[float, float]:
        """Hz: the mean over windows of their spectra's tops near a frequency, and its standard error.

        Cramer and Rao's for a line that stands `ratio` above the noise, doubled for the taper; and what windows differ.
        """
        near = np.flatnonzero(self.near(frequency))
        tops = near[self.power[:, near].argmax(axis=1)]
        if frequency * self.seconds < FEW:
            rates = [_sinusoid(part, self.frequencies[near] * self.seconds) / self.seconds for part in self._parts]
        else:
            rates = [peak_frequency(self.frequencies, self.power[i], int(top)) for i, top in enumerate(tops)]
        variance = 8 / self.ratio[np.arange(len(tops)), tops].mean() / (2 * np.pi * self.seconds) ** 2 + np.var(rates)
        return float(np.mean(rates)), float(np.sqrt(variance / self.windows))

    def amplitude(self, frequency: float) -> float:
        """Of the rhythm at about this frequency, in the waveform's unit; the root mean square over windows."""
        return float(np.sqrt(self.power[:, self.near(frequency)].max(axis=1).mean()))


def _windows(x: Array, fs: float, seconds: float) -> tuple[Array, float]:
    """Windows (W, n) of about `seconds`, each overlapping the next by half or more, and the step between two."""
    n = len(x) if len(x) <= 1.25 * seconds * fs else round(seconds * fs)
    starts = np.linspace(0, len(x) - n, 1 + int(np.ceil((len(x) - n) / (n / 2))))
    step = starts[1] - starts[0] if len(starts) > 1 else n
    return np.stack([x[start : start + n] for start in np.rint(starts).astype(int)]), float(step)


def _sinusoid(x: Array, cycles: Array) -> float:
    """How many cycles, of those given, `x` goes through: the least squares of a sinusoid on a straight line."""
    t = np.linspace(0, 1, len(x), endpoint=False)
    straight = np.stack([np.ones_like(t), t])
    left = []
    for count in cycles:
        basis = np.concatenate([straight, [np.cos(2 * np.pi * count * t), np.sin(2 * np.pi * count * t)]]).T
        left.append(float(np.linalg.lstsq(basis, x, rcond=None)[1].sum()))
    return float(cycles[np.argmin(left)])


@dataclass(frozen=True)
class Line:
    """The rhythm that a waveform shows, or that two agree on.

    Attributes:
        frequency: Hz, the mean over windows.
        spread: Hz, its standard error: of windows, over windows, and between the two waveforms.
        first, second: evidence in either waveform; second is 0 without one.
        rival: the most evidence for another rhythm, in both together.
    """

    frequency: float
    spread: float
    first: float
    second: float
    rival: float


def find_line(first: Spectra, second: Spectra | None = None) -> Line | None:
    """The rhythm with the most evidence in both together; None where that is no top within the band."""
    f = first.frequencies
    total = first.total
    if second is not None:
        total = total + np.interp(f, second.frequencies, second.total)
    tops, _ = find_peaks(total)
    low, high = first.searched
    near = 0.25 / first.seconds  # a spectrum's top may lie so far from a slow rhythm
    tops = tops[(f[tops] >= low - near) & (f[tops] <= high + near)]
    if not len(tops):
        return None
    tops = tops[np.argsort(-total[tops])][:8]
    both = [spectra for spectra in (first, second) if spectra is not None]
    top = _fundamental(float(f[tops[0]]), both)
    evidence = [spectra.at(top) for spectra in both]
    means, errors = np.array([spectra.mean(top) for spectra in both]).T
    weights = np.array(evidence) + 1e-3
    frequency = float(np.average(means, weights=weights))
    if not low <= frequency <= high:
        return None
    variance = np.average(errors**2 + (means - frequency) ** 2, weights=weights)
    # other rhythms: neither this one's neighbours nor its overtones
    others = [g for g in f[tops] if min(abs(g - k * top) for k in (1, 2, 3)) > 2 / first.seconds]
    rival = max((sum(spectra.at(float(g)) for spectra in both) for g in others), default=0.0)
    return Line(frequency, float(np.sqrt(variance)), evidence[0], evidence[1] if second else 0.0, rival)


def _fundamental(frequency: float, both: list[Spectra]) -> float:
    """Half of `frequency`, where that is a rhythm too in every waveform: the pulse has a second wave (dicrotic)."""
    half = frequency / 2
    if half < both[0].searched[0]:
        return frequency
    for spectra in both:
        apart = abs(2 * spectra.mean(half)[0] - spectra.mean(frequency)[0])
        strong = spectra.amplitude(half) >= OVERTONE * spectra.amplitude(frequency)
        if not strong or apart > 0.5 / spectra.seconds or spectra.at(half) < SIGNIFICANT:
            return frequency
    return half
