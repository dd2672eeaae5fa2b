"""Errors of rates and scores of action units, against their definitions written out."""

import math

import numpy as np
import pytest

from bigsmall.evaluation.metrics import Estimate, au_counts, au_scores, mean, rate_errors

RATES = [(70.0, 72.0), (81.5, 80.0), (99.0, 90.0), (60.0, 60.0), (120.0, 118.0)]


def std(values):
    middle = sum(values) / len(values)
    return math.sqrt(sum((v - middle) ** 2 for v in values) / len(values))


def plain(pairs):
    """FACTS 6, value and standard error, number by number."""
    n = len(pairs)
    absolute, square = [abs(a - b) for a, b in pairs], [(a - b) ** 2 for a, b in pairs]
    share = [100 * abs(a - b) / b for a, b in pairs]
    means = [sum(column) / n for column in zip(*pairs, strict=True)]
    spreads = [std(column) for column in zip(*pairs, strict=True)]
    r = sum((a - means[0]) * (b - means[1]) for a, b in pairs) / n / (spreads[0] * spreads[1])
    return {
        "mae": (sum(absolute) / n, std(absolute) / math.sqrt(n)),
        "rmse": (math.sqrt(sum(square) / n), math.sqrt(std(square) / math.sqrt(n))),
        "mape": (sum(share) / n, std(share) / math.sqrt(n)),
        "pearson": (r, math.sqrt((1 - r**2) / (n - 2))),
    }


@pytest.mark.parametrize("n", [3, 5, 42])
def test_rate_errors_are_their_formulas(n):
    rng = np.random.default_rng(n)
    true = rng.uniform(45, 150, n)
    pairs = list(zip((true + rng.normal(0, 5, n)).tolist(), true.tolist(), strict=True))
    found = rate_errors(*zip(*pairs, strict=True))
    assert found["n"] == n
    for name, expected in plain(pairs).items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-10, err_msg=name)
    differences = [a - b for a, b in pairs]
    spread = 1.96 * std(differences) * math.sqrt(n / (n - 1))
    bias = sum(differences) / n
    np.testing.assert_allclose([found["bias"].value, *found["limits"]], [bias, bias - spread, bias + spread])


def test_unknown_rates_are_left_out_and_counted():
    measured, true = map(list, zip(*RATES, strict=True))
    gaps = rate_errors([*measured, math.nan, 50, math.nan], [*true, 60, math.nan, math.nan])
    assert gaps == rate_errors(measured, true)
    assert gaps["n"] == len(RATES)


def test_one_video_has_errors_and_no_standard_errors():
    found = rate_errors([70], [72])
    assert [found[name].value for name in ("mae", "rmse", "mape", "bias")] == pytest.approx([2, 2, 100 / 36, -2])
    assert math.isnan(found["pearson"].value)
    assert all(math.isnan(found[name].error) for name in ("mae", "rmse", "mape", "pearson", "bias"))
    assert all(map(math.isnan, found["limits"]))


def test_two_videos_correlate_and_nobody_knows_how_surely():
    found = rate_errors([70, 80], [60, 90])["pearson"]
    assert found.value == pytest.approx(1)
    assert math.isnan(found.error)


@pytest.mark.parametrize("pair", [([], []), ([math.nan], [70.0])])
def test_no_video_has_no_errors(pair):
    found = rate_errors(*pair)
    assert found["n"] == 0
    assert all(math.isnan(found[name].value) for name in ("mae", "rmse", "mape", "pearson", "bias"))


def test_what_does_not_vary_does_not_correlate():
    assert math.isnan(rate_errors([70, 70, 70], [60, 70, 90])["pearson"].value)
    assert math.isnan(rate_errors([60, 70, 90], [70, 70, 70])["pearson"].value)


def test_a_mean_is_of_what_is_known():
    assert mean([1.0, math.nan, 3.0]) == Estimate(2.0, 1 / math.sqrt(2))
    assert math.isnan(mean([]).value)


def test_rates_come_in_pairs():
    with pytest.raises(ValueError, match="measured, true"):
        rate_errors([1, 2], [1])


# ---- action units


def test_au_scores_are_their_definitions():
    rng = np.random.default_rng(0)
    probabilities = rng.uniform(size=(500, 4)).astype(np.float32)
    probabilities[rng.uniform(size=500) < 0.1] = np.nan
    labels = (rng.uniform(size=(500, 4)) < [0.1, 0.3, 0.5, 0.9]).astype(np.uint8)
    labels[rng.uniform(size=labels.shape) < 0.1] = 255
    units = ("AU01", "AU02", "AU04", "AU06")
    scores = au_scores(dict(zip(units, au_counts(probabilities, labels), strict=True)))
    expected = {}
    for column, unit in enumerate(units):
        frames = [
            (p >= 0.5, label == 1)
            for p, label in zip(probabilities[:, column], labels[:, column], strict=True)
            if label != 255 and not math.isnan(p)
        ]
        both = sum(found and shown for found, shown in frames)
        precision = both / sum(found for found, _ in frames)
        recall = both / sum(shown for _, shown in frames)
        expected[unit] = {
            "f1": 2 * precision * recall / (precision + recall),
            "precision": precision,
            "accuracy": sum(found == shown for found, shown in frames) / len(frames),
            "shown": sum(shown for _, shown in frames),
            "frames": len(frames),
        }
        assert scores[unit] == pytest.approx(expected[unit])
    for name in ("f1", "precision", "accuracy"):
        assert scores["mean"][name] == pytest.approx(sum(of[name] for of in expected.values()) / 4)
    assert scores["mean"]["units"] == 4


@pytest.mark.parametrize(
    ("probability", "label", "f1", "precision", "accuracy"),
    [
        (0.9, 1, 1.0, 1.0, 1.0),  # always shown and found
        (0.1, 1, 0.0, 0.0, 0.0),  # always shown, never found
        (0.1, 0, None, None, 1.0),  # never shown, never found
        (0.9, 0, None, None, 0.0),  # never shown, always found
        (0.5, 1, 1.0, 1.0, 1.0),  # a half counts as found
        (0.9, 255, None, None, None),  # never known
    ],
)
def test_an_au_of_one_kind_is_no_error(probability, label, f1, precision, accuracy):
    counts = au_counts(np.full((7, 1), probability), np.full((7, 1), label, np.uint8))
    scores = au_scores({"AU01": counts[0]})
    assert [scores["AU01"][name] for name in ("f1", "precision", "accuracy")] == [f1, precision, accuracy]
    assert scores["mean"]["f1"] == f1
    assert scores["mean"]["units"] == (f1 is not None)


def test_the_mean_is_over_what_is_shown():
    scores = au_scores({"AU01": np.array([3, 1, 1, 5]), "AU02": np.array([0, 4, 0, 6])})
    assert scores["mean"] == {"f1": 0.75, "precision": 0.75, "accuracy": pytest.approx(0.7), "units": 1}


def test_pooling_adds_frames():
    rng = np.random.default_rng(1)
    probabilities, labels = rng.uniform(size=(90, 2)), rng.integers(0, 2, (90, 2)).astype(np.uint8)
    parts = [au_counts(probabilities[part], labels[part]) for part in (slice(0, 30), slice(30, 90))]
    np.testing.assert_array_equal(sum(parts), au_counts(probabilities, labels))


def test_probabilities_and_labels_have_one_shape():
    with pytest.raises(ValueError, match="probabilities, labels"):
        au_counts(np.zeros((5, 2)), np.zeros((5, 3), np.uint8))
