"""From a network's output to rates and errors: as released, on signals whose rates are known, and where little is."""

import math
from dataclasses import replace

import numpy as np
import pytest

from bigsmall.evaluation import CONVENTIONS, Prediction, score
from bigsmall.evaluation.postprocess import Compared, compare, named
from bigsmall.evaluation.quantities import longest
from bigsmall.signals import macc, rate_fft, rate_peaks, snr
from bigsmall.signals.filters import bandpass, detrend, integrate

FPS = 30.0
RELEASED = {"tb": "toolbox", "bs": "bigsmall"}  # the golden numbers' names of the conventions


def recording(name="r", seconds=20.0, bpm=72.0, breaths=15.0, fps=FPS, noise=0.0, **changes):
    """A prediction of a clean pulse and breath, with the waves that they are the changes of."""
    n = round(seconds * fps)
    t, rng = np.arange(n + 1) / fps, np.random.default_rng(len(name))
    waves = [np.sin(2 * np.pi * rate / 60 * t + 1) for rate in (bpm, breaths)]
    changes_of = [(np.diff(wave) + noise * rng.normal(size=n)).astype(np.float32) for wave in waves]
    made = Prediction(
        name=name, subject=name, dataset="made", fps=fps, model="toy", key="", timestamps=t[:-1],
        stretches=np.array([0, n]), pulse=changes_of[0], respiration=changes_of[1],
        bvp_wave=waves[0][1:].astype(np.float32), respiration_wave=waves[1][1:].astype(np.float32),
        heart_rate=np.full(n, bpm, np.float32), respiration_rate=np.full(n, breaths, np.float32),
    )  # fmt: skip
    return replace(made, **changes)


def one(prediction, **options):
    """The only row of a prediction."""
    (row,) = score([prediction], **options).rows.to_dict("records")
    return row


# ---- as released


@pytest.fixture(scope="module")
def golden(reference_dir):
    return np.load(reference_dir / "golden" / "postproc.npz")


@pytest.mark.parametrize("kind", ["diff", "raw"])
@pytest.mark.parametrize("case", ["c0", "c1", "c2", "c3", "r0", "r1"])
def test_rates_as_released(golden, case, kind):
    vital = "heart_rate" if case.startswith("c") else "respiration_rate"
    signal, label, fs = golden[f"{case}_pred_{kind}"], golden[f"{case}_label_{kind}"], float(golden[f"{case}_fs"])
    wave, times = (integrate(label) if kind == "diff" else label), 7 + np.arange(len(label)) / fs
    for theirs, ours in RELEASED.items():
        fft, peaks = (golden[f"{case}_{theirs}_{kind}_{name}"] for name in ("FFT", "Peak"))
        found = compare(signal, wave, times, vital, named(ours), derivative=kind == "diff")
        np.testing.assert_allclose([found.true, found.rate], fft[:2], rtol=1e-9)
        np.testing.assert_allclose([found.peaks_true, found.peaks], peaks[:2], rtol=1e-6)
        if theirs == "tb":
            np.testing.assert_allclose(found.snr, fft[2], rtol=1e-6)
        if theirs == "tb" and vital == "heart_rate":
            np.testing.assert_allclose(found.macc, fft[3], rtol=1e-6)


def test_a_table_as_released(golden):
    """Four videos through the whole of `score`: the released rates, and the errors that follow from them."""
    cases = {case: float(golden[f"{case}_fs"]) for case in ("c0", "c1", "c2", "c3")}
    predictions = [
        recording(
            name=case, fps=fs, timestamps=np.arange(len(golden[f"{case}_pred_diff"])) / fs, respiration=None,
            stretches=np.array([0, len(golden[f"{case}_pred_diff"])]), pulse=golden[f"{case}_pred_diff"],
            bvp_wave=integrate(golden[f"{case}_label_diff"]), heart_rate=None,
        )
        for case, fs in cases.items()
    ]  # fmt: skip
    found = score(predictions, convention="toolbox")
    label, measured, ratio, alike = np.array([golden[f"{case}_tb_diff_FFT"] for case in cases]).T
    errors = measured - label
    assert found.summary["heart_rate"]["mae"].value == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    assert found.summary["heart_rate"]["mae"].error == pytest.approx(np.abs(errors).std() / 2, rel=1e-6)
    assert found.summary["heart_rate"]["snr"] == pytest.approx((ratio.mean(), ratio.std() / 2), rel=1e-6)
    assert found.summary["heart_rate"]["macc"] == pytest.approx((alike.mean(), alike.std() / 2), rel=1e-6)
    peaks = np.array([golden[f"{case}_tb_diff_Peak"][:2] for case in cases])
    expected = np.abs(peaks[:, 1] - peaks[:, 0]).mean()
    assert found.summary["heart_rate_peaks"]["mae"].value == pytest.approx(expected, rel=1e-6)
    assert "respiration_rate" not in found.summary


@pytest.mark.parametrize("seconds", [21.0, 20.2])  # an end of 30 samples counts, one of 6 does not
def test_windows_follow_one_another_as_released(seconds):
    prediction, how = recording(seconds=seconds, noise=0.05), CONVENTIONS["toolbox"]
    expected = []
    for start in range(0, len(prediction), 300):
        part = slice(start, start + 300)
        if len(prediction.pulse[part]) < 9:
            continue
        wave, true = (
            bandpass(detrend(x, 100), FPS, *how.heart_rate)
            for x in (integrate(prediction.pulse[part]), prediction.bvp_wave[part])
        )
        rates = [rate_fft(x, FPS, *how.heart_rate, interpolate=False) for x in (wave, true)]
        expected.append([*rates, rate_peaks(wave, FPS), snr(wave, FPS, rates[1], *how.heart_rate), macc(wave, true)])
    rows = score([prediction], tasks=["pulse"], convention="toolbox", window=10).rows
    columns = ["heart_rate", "heart_rate_true", "heart_rate_peaks", "heart_rate_snr", "heart_rate_macc"]
    assert rows["start"].tolist() == [0.0, 10.0, 20.0]
    np.testing.assert_allclose(rows[columns].dropna(how="all").to_numpy(), expected, rtol=1e-6)
    assert rows["heart_rate_note"].tolist() == (
        ["", "", "" if seconds == 21 else "6 samples in a row are known, 9 are needed"]
    )


# ---- what is known to be there


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_rates_of_clean_signals(convention):
    row = one(recording(seconds=60, noise=0.01), convention=convention)
    bin = 0 if convention == "ours" else 60 * FPS / 2048
    assert row["heart_rate"] == pytest.approx(72, abs=0.1 + bin)
    assert row["heart_rate_true"] == pytest.approx(72, abs=0.1 + bin)
    assert row["heart_rate_peaks"] == pytest.approx(72, abs=1)
    assert row["respiration_rate"] == pytest.approx(15, abs=0.1 + bin)
    assert row["heart_rate_column"] == 72
    assert row["respiration_rate_column"] == 15
    assert row["heart_rate_macc"] > 0.98
    assert row["heart_rate_snr"] > 10


def test_a_band_keeps_out_what_another_lets_in():
    """Prefer the right band to a flattering one: 170 bpm is 2.83 Hz."""
    fast = recording(seconds=60, bpm=170)
    found = {name: one(fast, convention=name)["heart_rate_true"] for name in CONVENTIONS}
    assert found["ours"] == pytest.approx(170, abs=0.1)
    assert found["toolbox"] == pytest.approx(170, abs=1)
    assert found["bigsmall"] < 151
    assert found["toolbox-2023"] < 151


def test_the_clock_is_the_timestamps():
    """Every tenth frame dropped: 30 frames a second in name, 27 in truth."""
    whole = recording(seconds=60)
    kept = np.arange(len(whole)) % 10 != 9
    wave = np.sin(2 * np.pi * 72 / 60 * whole.timestamps[kept])
    some = recording(
        timestamps=whole.timestamps[kept], stretches=np.array([0, kept.sum()]), bvp_wave=wave,
        pulse=np.append(np.diff(wave), 0), respiration=None, heart_rate=None,
    )  # fmt: skip
    row = one(some)
    assert row["heart_rate"] == pytest.approx(72, abs=0.2)
    assert row["heart_rate_true"] == pytest.approx(72, abs=0.2)


def test_pos_and_chrom_stand_beside_the_network():
    t = np.arange(900) / FPS
    colours = 100 * (1 - 0.01 * np.sin(2 * np.pi * 1.2 * t)[:, None] * [0.33, 0.77, 0.53])
    found = score([recording(seconds=30, colours=colours.astype(np.float32))])
    for peer in ("pos", "chrom"):
        assert found.rows[peer][0] == pytest.approx(72, abs=0.5)
        assert found.summary[peer]["n"] == 1
    assert "| POS | FFT |" in found.markdown()
    assert "pos" not in score([recording(seconds=30)]).rows
    assert "POS and CHROM are left out" in score([recording(seconds=30)]).markdown()


def test_videos_and_subjects_are_counted():
    videos = [recording(name, subject=subject) for name, subject in (("a", "1"), ("bb", "1"), ("ccc", "2"))]
    about = score(videos, window=10).about
    assert (about["videos"], about["subjects"], about["model"]) == (3, 2, "toy")
    assert about["tasks"] == ["pulse", "respiration"]


# ---- where little is known


def test_the_longest_known_stretch_counts():
    pulse = recording(seconds=60).pulse.copy()
    pulse[300:310] = np.nan  # 10 s, a gap, 50 s
    pulse[-2:] = np.nan  # the partial clip at the end
    pulse[:300] = np.diff(np.sin(2 * np.pi * 2 * np.arange(301) / FPS))  # 120 bpm, in the shorter one
    row = one(recording(seconds=60, pulse=pulse))
    assert row["heart_rate"] == pytest.approx(72, abs=0.1)
    assert row["heart_rate_seconds"] == pytest.approx((1800 - 312) / FPS)


def test_no_stretch_is_crossed():
    row = one(recording(seconds=60, stretches=np.array([0, 500, 1800])))
    assert row["heart_rate_seconds"] == pytest.approx(1300 / FPS)


@pytest.mark.parametrize(
    ("known", "bounds", "expected"),
    [
        ("0110111", [0, 7], (4, 7)),
        ("0110111", [0, 6, 7], (1, 3)),
        ("111", [-5, 2, 9], (0, 2)),
        ("000", [0, 3], (0, 0)),
        ("1", [0, 1], (0, 1)),
    ],
)
def test_longest_run(known, bounds, expected):
    run = longest(np.array([c == "1" for c in known]), np.array(bounds))
    assert (run.start, run.stop) == expected


def test_a_network_that_says_nothing_is_wrong_and_not_left_out():
    """Its rate is the low end of the band, as released, and nothing correlates."""
    row = one(recording(pulse=np.zeros(600, np.float32)), convention="toolbox")
    assert 0.6 * 60 <= row["heart_rate"] < 0.7 * 60
    assert row["heart_rate_macc"] == 0
    assert math.isnan(row["heart_rate_peaks"])
    found = score([recording(pulse=np.zeros(600, np.float32))])
    assert found.summary["heart_rate"]["n"] == 1
    assert found.summary["heart_rate"]["mae"].value == pytest.approx(72 - 40, abs=1)


@pytest.mark.parametrize("wave", [None, np.full(600, np.nan, np.float32), np.zeros(600, np.float32)])
def test_without_a_reference_wave_the_column_is_left(wave):
    found = score([recording(bvp_wave=wave)])
    assert found.summary["heart_rate"]["n"] == 0
    assert math.isnan(found.summary["heart_rate"]["snr"].value)
    assert found.summary["heart_rate_column"]["mae"].value < 0.2
    assert "there is no wave to compare with" in found.markdown()


def test_without_any_reference_there_are_rates_and_no_errors():
    nothing = {"bvp_wave": None, "respiration_wave": None, "heart_rate": None, "respiration_rate": None}
    found = score([recording(**nothing)])
    assert found.rows["heart_rate"][0] == pytest.approx(72, abs=0.2)
    assert found.table().query("n > 0").empty


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pulse": np.full(600, np.nan, np.float32)}, "0 samples in a row are known, 9 are needed"),
        ({"seconds": 0.2}, "6 samples in a row are known, 9 are needed"),
        ({"fps": 5.0}, "5 frames a second are too few for 3 Hz"),
        ({"seconds": 0.3}, "0.3 s are too short for 0.667 to 3 Hz"),
    ],
)
def test_what_cannot_be_measured_says_why(changes, reason):
    found = score([recording(**changes)], tasks=["pulse"])
    row = found.rows.to_dict("records")[0]
    assert row["heart_rate_note"] == reason
    assert math.isnan(row["heart_rate"])
    assert found.summary["heart_rate"]["n"] == 0
    assert f"heart_rate of r: {reason}" in found.markdown()


def test_a_reference_that_is_unknown_in_part_is_used_where_it_is_known():
    wave = recording().bvp_wave.copy()
    wave[:200] = np.nan
    assert one(recording(bvp_wave=wave))["heart_rate_seconds"] == pytest.approx(400 / FPS)


def test_a_rate_of_zero_is_no_rate():
    rates = np.array([0.0, 80.0, np.nan, 90.0] * 150, np.float32)
    assert one(recording(heart_rate=rates))["heart_rate_column"] == 85


def test_aus_are_matched_by_name_and_pooled_over_videos():
    """FACTS 6: by position, DISFA's labels would meet other units."""
    labels = np.array([[1, 0], [1, 255], [0, 1]], np.uint8)
    units = {"action_units": ("AU01", "AU02", "AU06"), "labelled_units": ("AU06", "AU01"), "au_labels": labels}
    said = np.array([[0.2, 0.9, 0.8], [0.9, 0.9, 0.1], [0.7, 0.9, 0.3]], np.float32)
    silent = {"pulse": None, "respiration": None, "timestamps": np.arange(3.0), "stretches": np.array([0, 3])}
    video = recording(au=said, **units, **silent)
    found = score([video, replace(video, name="other")])
    au = found.summary["au"]
    assert set(au) == {"AU01", "AU06", "mean"}
    assert au["AU06"] == {
        "f1": pytest.approx(2 / 3),
        "precision": 1,
        "accuracy": pytest.approx(2 / 3),
        "shown": 4,
        "frames": 6,
    }
    assert au["AU01"] == {"f1": 1, "precision": 1, "accuracy": 1, "shown": 2, "frames": 4}
    assert "heart_rate" not in found.summary
    assert found.about["notes"] == ["without labels of AU02 (2 recordings)"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: score([]), "predictions: expected one or more"),
        (lambda: score([recording()], convention="theirs"), "convention was 'theirs', expected one of ours, toolbox"),
        (lambda: score([recording()], window=0), "window was 0, expected seconds"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_every_table_names_its_band_window_and_convention():
    text = score([recording()], convention="bigsmall", window=10).markdown()
    assert 'Convention "bigsmall": 0.75-2.5 Hz (45-150 per minute); detrended (lambda 100)' in text
    assert 'Convention "bigsmall": 0.13-0.5 Hz (7.8-30 per minute), 0.08-0.5 Hz for peaks' in text
    assert text.count("windows of 10 s") == 2


def test_compared_waves_lie_on_one_clock():
    prediction = recording()
    args = (prediction.pulse, prediction.bvp_wave, prediction.timestamps, "heart_rate", named("ours"))
    found = compare(*args, derivative=True)
    assert isinstance(found, Compared)
    assert len(found.times) == len(found.wave) == len(found.reference) == 600
    assert np.corrcoef(found.wave, found.reference)[0, 1] > 0.99
