"""Filters, rates, their quality, and pulses without a network: against the released code's numbers and the truth."""

import numpy as np
import pytest

from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Rate, Vital, assess, macc, rate_fft, rate_peaks, snr
from bigsmall.signals.filters import (
    bandpass,
    detrend,
    diff_normalize_label,
    integrate,
    resample,
    standardize_label,
)
from bigsmall.signals.quality import ACCEPTED
from bigsmall.signals.unsupervised import chrom, green, pos, pseudo_label

T20, T40 = np.arange(600) / 30, np.arange(400) / 10
PULSES = ("c0", "c1", "c2", "c3")
BREATHS = ("r0", "r1")
TOOLBOX, BIGSMALL, BREATH, BREATH_PEAKS = (0.6, 3.3), (0.75, 2.5), (0.13, 0.5), (0.08, 0.5)  # Hz, FACTS 6


def close(actual, expected, tolerance=1e-6):
    """Relative to the largest expected value, as the golden numbers' README has it."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


@pytest.fixture(scope="module")
def golden(reference_dir):
    return np.load(reference_dir / "golden" / "postproc.npz")


@pytest.fixture(scope="module")
def colours(reference_dir):
    with np.load(reference_dir / "golden" / "unsupervised.npz") as arrays:
        return {name.removeprefix("fs30_"): arrays[name] for name in arrays.files}


# ---- filters


@pytest.mark.parametrize("case", PULSES)
def test_waveform_as_released(golden, case):
    wave = detrend(integrate(golden[f"{case}_pred_diff"]))
    close(wave, golden[f"{case}_pred_detrended"])
    fs = float(golden[f"{case}_fs"])
    close(bandpass(wave, fs, *TOOLBOX), golden[f"{case}_pred_filtered_tb"])
    close(bandpass(wave, fs, *BIGSMALL), golden[f"{case}_pred_filtered_bs"])


@pytest.mark.parametrize("lam", [100, 10])
def test_detrend_as_released(colours, lam):
    close(detrend(colours["detrend_in"], lam), colours[f"detrend_out_lambda{lam}"])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 60])
def test_detrend_is_its_formula(n):
    x = np.random.default_rng(n).normal(size=(n, 2))
    second = np.diff(np.eye(n), 2, axis=0)
    trend = np.linalg.solve(np.eye(n) + 30.0**2 * second.T @ second, x)
    np.testing.assert_allclose(detrend(x, 30), x - trend, atol=1e-10)


def test_detrend_is_linear_in_time_and_takes_an_hour():
    beat = np.sin(2 * np.pi * 1.2 * np.arange(108_000) / 30)
    drift = np.linspace(0, 50, beat.size) + 3 * np.sin(np.arange(beat.size) / 2000)
    np.testing.assert_allclose(detrend(beat + drift), detrend(beat), atol=1e-3)


def test_filters_leave_nothing_of_a_straight_line():
    line = 117.3 + 3 * np.arange(900.0)
    assert not detrend(line).any()
    assert not detrend(np.full(900, 117.3)).any()
    assert not bandpass(detrend(line), 30, 0.7, 3).any()


def test_bandpass_keeps_the_band_and_its_phase():
    t = np.arange(1800) / 30
    inside, outside = np.sin(2 * np.pi * 1.4 * t), np.sin(2 * np.pi * 0.02 * t)
    out = bandpass(inside + outside, 30, 0.7, 3)
    assert np.corrcoef(out, inside)[0, 1] > 0.999


def test_resample_follows_true_timestamps():
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.045, 600)) + 5
    times = np.delete(times, rng.integers(0, 600, 30))  # dropped frames
    both = np.stack([np.sin(2 * np.pi * times), 3 * times], axis=1)
    out = resample(both, times, 30)
    clock = times[0] + np.arange(len(out)) / 30
    assert clock[-1] <= times[-1] < clock[-1] + 1 / 30
    np.testing.assert_allclose(out[:, 1], 3 * clock)
    np.testing.assert_allclose(out[:, 0], np.sin(2 * np.pi * clock), atol=0.1)
    np.testing.assert_allclose(resample(both[:, 0], times, 30), out[:, 0])


def test_resample_of_a_uniform_clock_changes_nothing():
    x = np.random.default_rng(0).normal(size=250)
    np.testing.assert_allclose(resample(x, 7 + np.arange(250) / 25, 25), x, atol=1e-9)


def test_labels_as_released(reference_dir):
    with np.load(reference_dir / "golden" / "preproc_9.npz") as arrays:
        label = arrays["label"]
        close(diff_normalize_label(label, pad=True), arrays["toolbox_diffnorm_label"])
        close(diff_normalize_label(label), arrays["bigsmall_diffnorm_label"])
        close(standardize_label(label), arrays["standardized_label"])


def test_constant_labels_become_zeros_as_released(reference_dir):
    label = np.full(16, 3.0)
    with np.load(reference_dir / "golden" / "preproc_degenerate.npz") as arrays:
        np.testing.assert_array_equal(diff_normalize_label(label, pad=True), arrays["constlabel_toolbox"])
        np.testing.assert_array_equal(diff_normalize_label(label), arrays["constlabel_bigsmall"])
        np.testing.assert_array_equal(standardize_label(label), arrays["constlabel_std"])


# ---- rates


@pytest.mark.parametrize("case", PULSES)
@pytest.mark.parametrize("kind", ["diff", "raw"])
def test_heart_rates_as_released(golden, case, kind):
    fs = float(golden[f"{case}_fs"])
    for band, name in ((TOOLBOX, "tb"), (BIGSMALL, "bs")):
        label, prediction = (_filtered(golden, f"{case}_{who}_{kind}", fs, band) for who in ("label", "pred"))
        fft, peak = golden[f"{case}_{name}_{kind}_FFT"], golden[f"{case}_{name}_{kind}_Peak"]
        bins = [rate_fft(x, fs, *band, interpolate=False) for x in (label, prediction)]
        np.testing.assert_allclose(bins, fft[:2], rtol=1e-12)
        np.testing.assert_allclose([rate_peaks(label, fs), rate_peaks(prediction, fs)], peak[:2], rtol=1e-6)
        if name == "tb":
            for rate, row in ((bins[0], fft), (rate_peaks(label, fs), peak)):
                np.testing.assert_allclose(snr(prediction, fs, rate, *band), row[2], rtol=1e-6)
                np.testing.assert_allclose(macc(prediction, label), row[3], rtol=1e-6)


@pytest.mark.parametrize("case", BREATHS)
@pytest.mark.parametrize("kind", ["diff", "raw"])
def test_breathing_rates_as_released(golden, case, kind):
    fs = float(golden[f"{case}_fs"])
    for name in ("tb", "bs"):
        label, prediction = (_filtered(golden, f"{case}_{who}_{kind}", fs, BREATH) for who in ("label", "pred"))
        fft = golden[f"{case}_{name}_{kind}_FFT"]
        bins = [rate_fft(x, fs, *BREATH, interpolate=False) for x in (label, prediction)]
        np.testing.assert_allclose(bins, fft[:2], rtol=1e-12)
        if name == "tb":
            np.testing.assert_allclose(snr(prediction, fs, bins[0], *BREATH), fft[2], rtol=1e-6)
        band = BREATH_PEAKS if name == "bs" else BREATH
        peaks = [rate_peaks(_filtered(golden, f"{case}_{who}_{kind}", fs, band), fs) for who in ("label", "pred")]
        np.testing.assert_allclose(peaks, golden[f"{case}_{name}_{kind}_Peak"][:2], rtol=1e-6)


def _filtered(golden, name, fs, band):
    signal = golden[name]
    return bandpass(detrend(integrate(signal) if name.endswith("diff") else signal), fs, *band)


@pytest.mark.parametrize("case", PULSES + BREATHS)
def test_interpolation_is_finer_than_a_bin(golden, case):
    fs = float(golden[f"{case}_fs"])
    band = TOOLBOX if case in PULSES else BREATH
    truth = float(golden[f"{case}_{'hr' if case in PULSES else 'rr'}_true"])
    wave = _filtered(golden, f"{case}_pred_diff", fs, band)
    assert abs(rate_fft(wave, fs, *band) - truth) < 0.3  # bins are 0.9 to 3.5 apart


@pytest.mark.parametrize("bpm", [45.3, 61.7, 88.88, 149.1])
def test_a_clean_line_is_found_to_a_hundredth(bpm):
    t = np.arange(900) / 30
    assert rate_fft(np.sin(2 * np.pi * bpm / 60 * t + 1), 30, 0.6, 3.3) == pytest.approx(bpm, abs=0.01)


def test_peaks_need_two():
    assert np.isnan(rate_peaks([0, 1, 0, 0], 30))


def test_macc_finds_a_shift_in_either_sign():
    x = np.random.default_rng(0).normal(size=501)
    assert macc(x, -np.roll(x, 77)) == pytest.approx(1)
    lags = [abs(np.corrcoef(x[:200], np.roll(x[200:400], lag))[0, 1]) for lag in range(200)]
    assert macc(x[:200], x[200:400]) == pytest.approx(max(lags))
    assert np.isnan(macc(x, np.ones(501)))


def test_the_released_networks_output_gives_the_true_rate(reference_dir):
    with np.load(reference_dir / "golden" / "heart_end2end.npz") as arrays:
        wave, fs, truth = integrate(arrays["heart_split1"].ravel()), float(arrays["fs"]), float(arrays["hr"])
    rate = assess(detrend(wave), fs, HEART_RATE)
    assert rate.value == pytest.approx(truth, abs=0.1)
    assert rate.interval[0] <= truth <= rate.interval[1]


# ---- pulses without a network


def test_unsupervised_as_released(colours):
    rgb = colours["rgb_mean"]
    close(pos(rgb, 30), colours["pos"])
    close(pos(rgb.astype(np.float32), 30), colours["pos_f32in"], 1e-5)
    close(chrom(rgb, 30), colours["chrom"])
    close(chrom(rgb, 30), colours["chrom_bigsmall"])
    close(green(rgb, 30), colours["green"])


def test_pseudo_labels_as_released(colours):
    rgb = colours["rgb_mean"]
    pulse, normalized = pseudo_label(rgb, 30, colours["HR_bpm"].mean())
    close(pulse, colours["bp4d_pos_bvp"])
    close(normalized, colours["bp4d_pos_env_norm_bvp"])
    close(pseudo_label(rgb, 30)[1], colours["toolbox_generic_pseudo"])


@pytest.mark.parametrize("fs", [6.5, 10, 120])
@pytest.mark.parametrize("method", [pos, chrom, green])
def test_unsupervised_at_any_frame_rate(method, fs):
    t = np.arange(round(20 * fs)) / fs
    rgb = 100 * (1 - 0.01 * np.sin(2 * np.pi * 1.1 * t)[:, None] * [0.33, 0.77, 0.53])
    assert rate_fft(method(rgb, fs), fs, 0.7, 3) == pytest.approx(66, abs=1)


@pytest.mark.parametrize("method", [pos, chrom])
@pytest.mark.parametrize("level", [0.0, 117.0])
def test_a_still_picture_has_no_pulse(method, level):
    assert not method(np.full((300, 3), level), 30).any()


# ---- quality


def coloured(rng, n, exponent):
    """Noise whose power falls with frequency to the `exponent`: 0 white, 1 pink."""
    frequencies = np.fft.rfftfreq(n)
    frequencies[0] = frequencies[1]
    noise = np.fft.irfft(np.fft.rfft(rng.normal(size=n)) * frequencies ** (-exponent / 2), n)
    return noise / noise.std()


def rhythm(rng, vital: Vital, per_minute, seconds, fs, noise):
    """A pulse or a breath with a harmonic, a rate that wanders by 2 %, and white and pink noise; and its mean rate."""
    t = np.arange(int(seconds * fs)) / fs
    wander = 0.02 * np.interp(t, [0, seconds], rng.normal(size=2)) + 0.02 * np.sin(2 * np.pi * vital.high / 12 * t)
    rate = per_minute / 60 * (1 + wander)
    phase = 2 * np.pi * np.cumsum(rate) / fs + rng.uniform(0, 6)
    wave = np.sin(phase) + 0.3 * np.sin(2 * phase + 1)
    white = rng.normal(size=t.size) * np.sqrt(fs / 30 * 3 / vital.high)  # the same in the band at any fs
    wave += noise * (white + coloured(rng, t.size, 1))
    return wave, 60 * rate.mean()


NOISES = {
    "white": lambda rng, n: rng.normal(size=n),
    "pink": lambda rng, n: coloured(rng, n, 1),
    "integrated": lambda rng, n: detrend(integrate(rng.normal(size=n)), 1000),
}


@pytest.mark.parametrize("colour", NOISES)
@pytest.mark.parametrize(
    ("vital", "seconds"),
    [(HEART_RATE, 8), (HEART_RATE, 20), (HEART_RATE, 60), (RESPIRATION_RATE, 20), (RESPIRATION_RATE, 60)],
)
def test_noise_is_refused(vital, seconds, colour):
    """At most 3 of 60 pass, alone or beside a second noise; over many seeds it is about 1."""
    rng = np.random.default_rng(int(seconds) + len(colour))
    alone = together = 0
    for _ in range(60):
        first, second = (NOISES[colour](rng, int(seconds * 30)) for _ in range(2))
        alone += assess(first, 30, vital).value is not None
        together += assess(first, 30, vital, second).value is not None
    assert alone <= 3
    assert together <= 3


@pytest.mark.parametrize("fs", [15, 30, 60])
@pytest.mark.parametrize("bpm", [45, 60, 90, 120, 150])
def test_pulses_are_measured(bpm, fs):
    rng = np.random.default_rng(bpm + fs)
    results = []
    for _ in range(10):
        wave, truth = rhythm(rng, HEART_RATE, bpm, 20, fs, 0.5)
        results.append((assess(wave, fs, HEART_RATE), truth))
    _all_true(results, at_least=9, error=1)


@pytest.mark.parametrize("per_minute", [9, 15, 22, 28])
def test_breaths_are_measured(per_minute):
    rng = np.random.default_rng(per_minute)
    results = []
    for _ in range(10):
        wave, truth = rhythm(rng, RESPIRATION_RATE, per_minute, 60, 30, 0.3)
        results.append((assess(wave, 30, RESPIRATION_RATE), truth))
    _all_true(results, at_least=9, error=0.5)


def test_a_pulse_of_eight_seconds_is_enough():
    rng = np.random.default_rng(8)
    results = []
    for bpm in np.linspace(48, 150, 40):
        wave, truth = rhythm(rng, HEART_RATE, bpm, 8, 30, 0.2)
        results.append((assess(wave, 30, HEART_RATE), truth))
    _all_true(results, at_least=38, error=1)


def _all_true(results: list[tuple[Rate, float]], at_least, error):
    given = [(rate, truth) for rate, truth in results if rate.value is not None]
    assert len(given) >= at_least
    for rate, truth in given:
        assert abs(rate.value - truth) < error
        assert ACCEPTED <= rate.confidence <= 1
        assert rate.note is None
    inside = [rate.interval[0] <= truth <= rate.interval[1] for rate, truth in given]
    assert np.mean(inside) >= 0.9  # intervals of 95 %


@pytest.mark.parametrize("bpm", [40, 41, 88, 120, 179, 180])
def test_the_whole_band_is_measured_and_nothing_is_halved_or_doubled(bpm):
    """With a second wave as strong as the first, as long as it is no stronger; beside white and pink noise."""
    rng, fs = np.random.default_rng(bpm), 20
    t = np.arange(20 * fs) / fs
    for overtone in (0.0, 0.3, 0.6, 0.9):
        phase = 2 * np.pi * bpm / 60 * t + rng.uniform(0, 6)
        wave = np.sin(phase) + overtone * np.sin(2 * phase + rng.uniform(0, 6))
        first, second = (wave + 0.3 * (rng.normal(size=t.size) + coloured(rng, t.size, 1)) for _ in range(2))
        rate = assess(detrend(first), fs, HEART_RATE, detrend(second))
        assert rate.value == pytest.approx(bpm, abs=1)


@pytest.mark.parametrize("per_minute", [6, 30])
def test_the_whole_band_of_breaths_is_measured(per_minute):
    rng = np.random.default_rng(per_minute)
    first, second = (np.sin(2 * np.pi * per_minute / 60 * T40) + 0.2 * rng.normal(size=T40.size) for _ in range(2))
    assert assess(first, 10, RESPIRATION_RATE, second).value == pytest.approx(per_minute, abs=0.3)


@pytest.mark.parametrize("bpm", [30, 33, 190, 220])
def test_what_beats_outside_the_band_is_not_given_within(bpm):
    rng = np.random.default_rng(bpm)
    first, second = (np.sin(2 * np.pi * bpm / 60 * T40) + 0.1 * rng.normal(size=T40.size) for _ in range(2))
    assert assess(first, 10, HEART_RATE, second).value is None


def test_the_rate_by_peaks_and_the_signal_to_noise_ratio_come_with_it():
    rng = np.random.default_rng(0)
    wave = np.sin(2 * np.pi * 1.3 * T20)
    clean = assess(wave + 0.02 * rng.normal(size=600), 30, HEART_RATE)
    noisy = assess(wave + 0.7 * rng.normal(size=600), 30, HEART_RATE)
    assert clean.by_peaks == pytest.approx(78, abs=1)
    assert clean.snr > noisy.snr > 0
    assert assess(rng.normal(size=600), 30, HEART_RATE).by_peaks is None


def test_a_burst_is_no_pulse():
    """Ten of 40 seconds beat, at the strength at which 40 seconds of it are found."""
    rng = np.random.default_rng(0)
    beat, noises = np.sin(2 * np.pi * 1.3 * T40), rng.normal(size=(2, T40.size))
    waves = (beat * (end > T40) + noises for end in (40, 10))
    always, once = (assess(first, 10, HEART_RATE, second) for first, second in waves)
    assert always.value == pytest.approx(78, abs=1)
    assert once.value is None


def test_what_only_one_of_two_waveforms_shows_is_no_pulse():
    rng = np.random.default_rng(0)
    beat, noises = 0.7 * np.sin(2 * np.pi * 1.3 * T40), rng.normal(size=(2, T40.size))
    assert assess(beat + noises[0], 10, HEART_RATE, beat + noises[1]).value == pytest.approx(78, abs=1)
    one = assess(beat + noises[0], 10, HEART_RATE, noises[1])
    assert one.confidence < assess(beat + noises[0], 10, HEART_RATE).confidence


def test_confidence_falls_and_the_interval_grows_with_noise():
    rates = []
    for noise in (0.1, 0.4, 0.7):
        runs = [rhythm(np.random.default_rng(seed), HEART_RATE, 80, 12, 30, noise)[0] for seed in range(10)]
        rates.append([assess(wave, 30, HEART_RATE) for wave in runs])
    confidence = [np.mean([rate.confidence for rate in group]) for group in rates]
    width = [np.mean([r.interval[1] - r.interval[0] for r in group if r.interval]) for group in rates]
    assert confidence[0] > confidence[1] > confidence[2]
    assert width[0] < width[1] < width[2]


def test_agreement_raises_confidence_and_contradiction_refuses():
    rng = np.random.default_rng(4)
    weak, _ = rhythm(rng, HEART_RATE, 80, 10, 30, 1.0)
    same, _ = rhythm(rng, HEART_RATE, 80, 10, 30, 0.5)
    other, _ = rhythm(rng, HEART_RATE, 120, 10, 30, 0.3)
    alone = assess(weak, 30, HEART_RATE)
    assert assess(weak, 30, HEART_RATE, same).confidence > alone.confidence
    refused = assess(same, 30, HEART_RATE, other)
    assert refused.value is None
    assert "the two signals disagree, 80 and 120" in refused.note


def test_an_interval_reaches_to_the_agreeing_second_signal():
    t = np.arange(900) / 30
    rate = assess(np.sin(2 * np.pi * 1.2 * t), 30, HEART_RATE, np.sin(2 * np.pi * 1.25 * t))
    assert rate.interval[0] <= 72
    assert rate.interval[1] >= 75


SMOOTH = {
    "nothing": 0 * T20,
    "constant": 0 * T20 + 117.3,
    "line": 3 * T20 + 5,
    "parabola": T20**2,
    "exponential": np.exp(T20 / 5),
    "sigmoid": 1 / (1 + np.exp(10 - T20)),
    "step": (T20 > 7).astype(float),
    "spike": (T20 == 10).astype(float),
    "slow wave": np.sin(2 * np.pi * 0.05 * T20),
    "flicker": (-1.0) ** np.arange(600),
}


@pytest.mark.parametrize("vital", [HEART_RATE, RESPIRATION_RATE])
@pytest.mark.parametrize("shape", SMOOTH)
def test_trends_are_refused_with_a_reason(vital, shape):
    x = SMOOTH[shape]
    smoothness = (30 / (2 * np.pi * vital.low * 2 / 3)) ** 2  # as `measure` detrends
    for wave in (x, detrend(x, smoothness), x.astype(np.float32)):
        rate = assess(wave, 30, vital)
        assert rate.value is None
        assert rate.interval is None
        assert vital.name in rate.note


@pytest.mark.parametrize(
    ("x", "fs", "vital", "reason"),
    [
        (T20[:239], 30, HEART_RATE, "8 s of signal are needed to measure a heart rate; there are 8.0 s"),
        (T20[:599], 30, RESPIRATION_RATE, "20 s of signal are needed to measure a respiration rate; there are 20.0 s"),
        ([], 30, HEART_RATE, "there are 0.0 s"),
        (T20, 5, HEART_RATE, "6 samples a second are needed to measure a heart rate; there are 5"),
        (np.where(T20 == 10, np.nan, T20), 30, HEART_RATE, "not numbers"),
    ],
)
def test_what_cannot_be_measured_is_refused(x, fs, vital, reason):
    rate = assess(x, fs, vital)
    assert (rate.value, rate.interval, rate.confidence, rate.unit) == (None, None, 0.0, vital.unit)
    assert reason in rate.note


# ---- bad arguments


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: detrend([1, 2, 3], -1), "lam"),
        (lambda: detrend([1, np.nan, 3]), "x: expected finite"),
        (lambda: integrate(np.zeros((2, 2, 2))), "x: expected"),
        (lambda: bandpass(T20, 30, 3, 0.7), "low, high"),
        (lambda: bandpass(T20, 30, 0.7, 16), "low, high"),
        (lambda: bandpass(T20[:3], 30, 0.7, 3), "T >= 4"),
        (lambda: bandpass(T20, 0, 0.7, 3), "fs: expected"),
        (lambda: resample(T20, T20[1:], 30), "timestamps: expected one for each"),
        (lambda: resample(T20, T20[::-1], 30), "timestamps: expected increasing"),
        (lambda: diff_normalize_label([1.0]), "y: expected"),
        (lambda: rate_fft(T20, 30, 16, 20), "low, high"),
        (lambda: rate_fft(np.zeros((30, 3)), 30, 0.7, 3), "one signal"),
        (lambda: macc(T20, T20[1:]), "of one length"),
        (lambda: pos(np.ones((300, 4)), 30), "rgb: expected"),
        (lambda: pos(np.ones((48, 3)), 30), "rgb: expected"),
        (lambda: chrom(-np.ones((300, 3)), 30), "rgb: expected"),
        (lambda: assess(T20, -1, HEART_RATE), "fs: expected"),
        (lambda: assess(np.zeros((300, 2)), 30, HEART_RATE), "one signal"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
