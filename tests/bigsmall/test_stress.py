"""The stress report: one factor at a time, the same people at each level, every video measured once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bigsmall import models, weights
from bigsmall.cli import app
from bigsmall.evaluation import stress as module
from bigsmall.evaluation.stress import BASE, FACTORS, RATES, markdown, stress, summary
from bigsmall.evaluation.stress_plot import draw
from bigsmall.synthesis import synthesize

TASKS = ("au", "pulse", "respiration")
SMALL: dict[str, Any] = {"base": {"size": 96, "fps": 15, "pulse": 0.03, "crf": 4}, "people": 2, "seconds": 9.0}
MOTION = {"motion": (0, 1)}  # the second is the base point's


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], list[tuple[int, int | None]]]:
    """A report of four videos by the shipped model, and how its progress was told."""
    folder, told = tmp_path_factory.mktemp("stress"), []
    report = stress("default", folder, factors=MOTION, **SMALL, progress=lambda _, n, of: told.append((n, of)))
    return folder, report, told


def rate(true: float, measured: float | None, half: float = 1.0) -> dict[str, Any]:
    low, high = (None, None) if measured is None else (measured - half, measured + half)
    return {"true": true, "measured": measured, "low": low, "high": high, "confidence": 0.9, "note": None}


def video(level: float, heart: float | None, pos: float | None = None, found: int = 0, both: int = 0) -> dict[str, Any]:
    frames = {name: [n, *[0] * 11] for name, n in (("found", found), ("shown", 4), ("both", both))}
    rates = {"heart_rate": rate(70, heart), "pos": rate(70, pos), "chrom": rate(70, None)}
    return {"factor": "light", "level": level, **rates, "respiration_rate": rate(15, 15.5), "frames": frames}


VIDEOS = [
    video(0.2, None), video(0.2, 74, both=0), video(0.2, None),
    video(0.8, 70.5, 71, found=4, both=4), video(0.8, 72, 71, found=4, both=2), video(0.8, 69, None, found=0),
]  # fmt: skip
HAND_MADE = {
    "simulated": True, "about": "Simulated videos only.", "names": ["a toy"], "base": BASE,
    "levels": summary(VIDEOS, TASKS, BASE),
}  # fmt: skip


# --- from rows to levels ----------------------------------------------------------------------------------------------


def test_a_level_is_its_refusals_and_the_errors_of_the_others() -> None:
    dim, base = HAND_MADE["levels"]
    assert (dim["factor"], dim["level"], dim["base"], dim["n"]) == ("light", 0.2, False, 3)
    assert (base["level"], base["base"], base["n"]) == (0.8, True, 3)
    assert dim["heart_rate"] == {"refused": 2, "mae": 4.0, "se": None, "worst": 4.0, "inside": 0.0}
    assert dim["pos"] == {"refused": 3, "mae": None, "se": None, "worst": None, "inside": None}
    errors = [0.5, 2.0, 1.0]
    assert base["heart_rate"] == {
        "refused": 0, "mae": pytest.approx(7 / 6, abs=1e-3),
        "se": pytest.approx(np.std(errors, ddof=1) / np.sqrt(3), abs=1e-3), "worst": 2.0,
        "inside": pytest.approx(2 / 3, abs=1e-3),
    }  # fmt: skip
    assert base["pos"]["refused"] == 1
    assert base["respiration_rate"]["mae"] == 0.5
    assert (dim["au_f1"], base["au_f1"]) == (0.0, 0.6)  # 2 * 6 / (8 + 12)


def test_what_the_weights_do_not_answer_is_not_reported() -> None:
    (level,) = summary(VIDEOS[:3], ("respiration",), BASE)
    assert list(level) == ["factor", "level", "base", "n", "pos", "respiration_rate"]
    page = markdown({**HAND_MADE, "levels": [level]})
    assert "heart rate by POS: error" in page
    assert "heart rate: error" not in page
    assert "AU F1 |" not in page
    assert len(draw({**HAND_MADE, "levels": [level]}).axes) == 2


def test_the_tables_say_what_they_are_of() -> None:
    lines = markdown(HAND_MADE).splitlines()
    assert "Simulated videos only." in lines[2]
    assert "skin_tone 0.5, heart_rate 75" in lines[2]
    assert "Not a medical device" in lines[2]
    assert (
        lines[-2]
        == "| 0.2 | 4.00 (4.00) | 2 of 3 | 0 % | - | 3 of 3 | - | 0.50 ± 0.00 (0.50) | 0 of 3 | 100 % | 0.00 |"
    )
    assert lines[-1].startswith("| **0.8** (base) | 1.17 ± 0.44 (2.00) | 0 of 3 | 67 % | 1.00 ± 0.00 (1.00) | 1 of 3 |")


def test_the_picture_shows_the_levels() -> None:
    errors, refused, units = draw(HAND_MADE).axes
    levels = HAND_MADE["levels"]
    drawn = {bars.get_label(): bars for bars in errors.containers}
    assert list(drawn) == list(RATES.values())
    for k, (name, title) in enumerate(RATES.items()):
        expected = [np.nan if row[name]["mae"] is None else row[name]["mae"] for row in levels]
        np.testing.assert_array_equal(drawn[title].lines[0].get_ydata(), expected)
        (bars,) = drawn[title].lines[2]
        ends = np.array([segment[:, 1] for segment in bars.get_segments() if len(segment)])
        half = np.array([row[name]["se"] or 0.0 for row in levels if row[name]["mae"] is not None])
        np.testing.assert_allclose(np.ptp(ends, axis=1), 2 * half, atol=1e-9)
        share = [100 * row[name]["refused"] / row["n"] for row in levels]
        np.testing.assert_allclose(refused.lines[k].get_ydata(), share)
    np.testing.assert_array_equal(units.lines[0].get_ydata(), [0.0, 0.6])
    assert [label.get_text() for label in units.get_xticklabels()] == ["0.2", "0.8"]
    assert errors.get_title("left") == FACTORS["light"].title
    low, high = errors.get_ylim()
    assert low < 0.5
    assert high > 4


# --- from end to end --------------------------------------------------------------------------------------------------


def test_a_report_is_measured_from_end_to_end(done: Any) -> None:
    folder, report, told = done
    assert told == [(n, 4) for n in range(5)]
    assert sorted(path.name for path in folder.iterdir()) == [
        "rows",
        "stress.csv",
        "stress.json",
        "stress.md",
        "stress.png",
    ]
    assert json.loads((folder / "stress.json").read_text()) == report
    assert report["simulated"]
    assert report["base"] == {**BASE, **SMALL["base"]}
    still, base = report["levels"]
    assert (still["level"], still["base"], base["level"], base["base"]) == (0, False, 1, True)
    table = pd.read_csv(folder / "stress.csv")
    assert table[["factor", "level", "person"]].to_numpy().tolist() == [
        ["motion", 0, 0], ["motion", 0, 1], ["motion", 1, 0], ["motion", 1, 1],
    ]  # fmt: skip
    for level, rows in table.groupby("level"):
        row = report["levels"][level]
        for name in RATES:
            errors = (rows[f"{name}_measured"] - rows[f"{name}_true"]).abs()
            assert row[name]["refused"] == errors.isna().sum()
            assert row[name]["mae"] == (None if errors.isna().all() else pytest.approx(errors.mean(), abs=1e-3))
    assert table["heart_rate_measured"].notna().any()
    assert "head motion" in (folder / "stress.md").read_text()


def test_the_same_people_are_at_each_level(done: Any) -> None:
    folder, *_ = done
    rows = [json.loads(path.read_text()) for path in (folder / "rows").iterdir()]
    specs = {(row["spec"].pop("motion"), row["spec"]["seed"]): row["spec"] for row in rows}
    assert set(specs) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert specs[0, 0] == specs[1, 0]
    assert specs[0, 1] == specs[1, 1]
    for row in rows:  # the lives are the same too, however the head moves
        life = {**specs[1, row["spec"]["seed"]], "size": (96, 96)}
        del life["crf"]
        assert row["heart_rate"]["true"] == pytest.approx(synthesize(**life).truth.heart_rate.mean(), abs=0.01)


def test_what_was_measured_is_not_measured_again(done: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, report, _ = done
    out, asked = tmp_path / "out", []
    shutil.copytree(folder / "rows", out / "rows")
    row = next((folder / "rows").iterdir()).read_text()

    def counted(work: object, jobs: list[tuple[Any, ...]], workers: int, done: int) -> list[tuple[int, int]]:
        for _, spec, path in jobs:
            asked.append((spec["light"], spec["seed"]))
            path.write_text(row)
        return [(done, done + len(jobs))]

    monkeypatch.setattr(module, "counted", counted)
    assert stress("default", out, factors=MOTION, **SMALL) == report
    assert asked == []
    stress("default", out, factors={**MOTION, "light": (0.5, 0.8)}, **SMALL)
    assert asked == [(0.5, 0), (0.5, 1)]  # 0.8 is the base point, which the motion's videos show
    asked.clear()
    stress("default", out, factors=MOTION, **{**SMALL, "people": 3})
    assert asked == [(0.8, 2)] * 2  # one more person
    asked.clear()
    toy = tmp_path / "toy.safetensors"
    card = weights.Card("toy", "big", ("au",), "exact", "face", {"big_size": 16})
    weights.save(toy, models.build("big", big_size=16), card)
    stress(toy, out, factors=MOTION, **SMALL)
    assert len(asked) == 4  # other weights


def test_every_factor_holds_its_base_point() -> None:
    assert set(BASE) >= {factor.option for factor in FACTORS.values()}
    for name, factor in FACTORS.items():
        assert BASE[factor.option] in factor.levels, name
        assert list(factor.levels) == sorted(set(factor.levels)), name


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"factors": ["mood"]}, "no factor is called mood"),
        ({"factors": []}, "at least one"),
        ({"factors": {"light": ()}}, "at least one level"),
        ({"factors": {"light": (9,)}}, "light 9: light must be from 0.02 to 4"),
        ({"base": {"mood": 1}}, "base has no mood"),
        ({"people": 0}, "people was 0"),
        ({"workers": 0}, "workers was 0"),
        ({"seed": -1}, "seed was -1"),
        ({"seconds": 0.0}, "seconds must give at least one frame"),
    ],
)
def test_wrong_arguments_are_told_before_anything_is_made(
    arguments: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        stress("default", tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()


def test_the_command_says_that_its_videos_are_simulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def run(model: str, output: Path, **options: Any) -> dict[str, Any]:
        asked.update(model=model, output=output, **options)
        return HAND_MADE

    monkeypatch.setattr(module, "stress", run)
    out = tmp_path / "out"
    ran = CliRunner().invoke(app, ["stress", "default", "-o", str(out), "--factors", "light,motion", "--people", "3"])
    assert ran.exit_code == 0, ran.output
    assert (asked["model"], asked["output"], asked["factors"], asked["people"]) == (
        "default",
        out,
        ["light", "motion"],
        3,
    )
    for said in (
        "Simulated videos only",
        "Not a medical device",
        "0.8 (base)",
        "1.17, 0 of 3",
        "-, 3 of 3",
        "stress.png",
    ):
        assert said in " ".join(ran.output.split()), said


def test_the_command_turns_wrong_arguments_into_a_sentence(tmp_path: Path) -> None:
    for more, said in (
        (["--factors", "mood"], "no factor is called mood"),
        (["--people", "0"], "people was 0"),
    ):
        ran = CliRunner().invoke(app, ["stress", "default", "-o", str(tmp_path), *more])
        assert (ran.exit_code, said in ran.output) == (2, True)
    ran = CliRunner().invoke(app, ["stress", "no-such-weights", "-o", str(tmp_path)])
    assert (ran.exit_code, "no weights at" in ran.output) == (2, True)
