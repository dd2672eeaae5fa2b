"""The paper's experiments on tiny made recordings: who is tested on what, what is not done twice, what is written."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bigsmall import models, protocols
from bigsmall.cli import app
from bigsmall.datasets import write_prepared
from bigsmall.evaluation import Evaluation
from bigsmall.protocols import (
    crossval,
    fig5,
    fig6,
    options,
    paper,
    rows,
    study,
    table1,
    table2,
    table3,
    table4,
    transfer,
)
from bigsmall.protocols.study import Row, Study, network, numbers
from bigsmall.protocols.tables import Results, bars, differences, markdown
from bigsmall.weights import ACTION_UNITS, load

FPS, FRAMES = 15, 180
TINY = {"bigsmall": {"big_size": 16}, "big": {"big_size": 16}, "small": {"small_size": 1}}


def made(
    folder: Path,
    subjects: str,
    *,
    trials: int = 1,
    units: tuple[str, ...] = ACTION_UNITS,
    known: bool = True,
    dataset: str = "made",
    every: int = 1,
) -> Path:
    """A prepared folder: a recording a subject (a letter) and trial, whose pulse and breath are in Small's colours."""
    folder.mkdir(parents=True)
    entries = []
    for name in [f"{subject}{trial}" for subject in subjects for trial in range(trials)]:
        rng, t = np.random.default_rng(ord(name[0])), np.arange(FRAMES) / FPS
        bvp, breath = (np.sin(2 * np.pi * rate * t).astype(np.float32) for rate in (rng.uniform(0.8, 2), 0.25))
        small = rng.normal(size=(FRAMES, 3, 1, 1)) * 0.1
        small[:-1, 0, 0, 0] += 4 * np.diff(bvp)
        au = rng.integers(0, 2, (FRAMES // 6, len(units)), np.uint8).repeat(6, 0)
        arrays = {
            "small": small.astype(np.float16),
            "big": rng.integers(0, 256, (FRAMES // every, 16, 16, 3), np.uint8),
            "big_frame": np.arange(0, FRAMES, every),
            "frames_9": rng.integers(90, 110, (FRAMES, 9, 9, 3), np.uint8),
            "stretches": np.array([0, FRAMES]), "timestamps": t,
            "bvp": np.append(np.diff(bvp), 0).astype(np.float32), "bvp_wave": bvp,
            "respiration": np.append(np.diff(breath), 0).astype(np.float32), "respiration_wave": breath,
        }  # fmt: skip
        meta = {
            "name": name, "subject": name[0], "dataset": dataset, "fps": FPS, "convention": "exact", "crop": "face",
            "big_mean": 127.0, "big_std": 74.0,
        }  # fmt: skip
        if known:
            arrays["au"], meta["action_units"] = au, list(units)
        write_prepared(folder / f"{name}.safetensors", arrays, meta)
        entries.append({"name": name, "subject": name[0], "status": "done", "file": f"{name}.safetensors"})
    (folder / "manifest.json").write_text(json.dumps({"version": 1, "spec": {}, "recordings": entries}))
    return folder


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of 16 pixels in place of the paper's, and no pictures of every run."""

    def shrunk(row: Row) -> Row:
        return Row(row.name, tuple(small(**of) for of in row.networks))

    def small(name: str, options: dict[str, object]) -> dict[str, object]:
        of = next((TINY[known] for known in ("bigsmall", "big", "small") if name.startswith(known)), {})
        return network(name, **of, **options)

    monkeypatch.setattr(Evaluation, "save", lambda *_: [])
    monkeypatch.setattr(transfer, "TASKS", ("au", "pulse"))
    monkeypatch.setattr(table1, "ROWS", tuple(map(shrunk, table1.ROWS)))
    monkeypatch.setattr(crossval, "ABLATED", table1.ROWS)
    for module in (crossval, table2, table3, table4):
        monkeypatch.setattr(module, "ROWS", tuple(map(shrunk, rows.ROWS)))
    for module in (transfer, fig6):
        monkeypatch.setattr(module, "network", lambda name, **options: small(name, options))


QUICK = ("train.epochs=1", "train.batch=40", "folds=2", "seeds=[0]")


def a_study(folder: Path, *overrides: str) -> Study:
    return Study(folder, options.read([*QUICK, *overrides]))


# --- the paper --------------------------------------------------------------------------------------------------------


def test_the_papers_costs_are_those_of_our_networks() -> None:
    """To the printed digits; of BigSmall the paper prints 154.01 where its own counting gives 155.38 (FACTS 1.3)."""
    for row in table1.ROWS:
        cost = models.describe(row.networks[0]["name"], **row.networks[0]["options"])
        printed = paper.TABLE1[row.name]
        assert cost.parameters / 1e6 == pytest.approx(printed["M parameters"], abs=0.005), row.name
        exact = row.name in ("small", "big", "bigsmall_full")
        assert cost.flops_per_frame / 1e6 == pytest.approx(printed["MFLOPs"], abs=0.005 if exact else 1.4), row.name


def test_every_row_of_the_paper_has_a_network_or_needs_none() -> None:
    known = {*(row.name for row in (*rows.ROWS, *table1.ROWS)), *rows.PEERS}
    tables = (paper.TABLE1, paper.TABLE2, *paper.TABLE3.values(), paper.TABLE4)
    assert {name.removesuffix(", aligned") for table in tables for name in table} <= known
    assert all(set(of) <= set(paper.COLUMNS) for table in tables for of in table.values())
    for row in (*rows.ROWS, *table1.ROWS):
        assert all(of["name"] in models.names() for of in row.networks)


# --- options ----------------------------------------------------------------------------------------------------------


def test_options() -> None:
    of = options.read(["data.prepared=x", "seeds=[4,5]", "train.steps=7", "tests.pure.root=/y"])
    here = str(Path("x").resolve())
    assert (of.data, of.seeds, of.train, of.tests) == (
        {"prepared": here},
        [4, 5],
        {"steps": 7},
        {"pure": {"root": "/y"}},
    )
    assert options.read(["pretrained.bigsmall=default"]).pretrained == {"bigsmall": "default"}  # a name, no path
    for wrong, said in (
        ("people=3", "people.*options are data"),
        ("seeds=[1,1]", "seeds"),
        ("convention=x", "convention"),
    ):
        with pytest.raises(ValueError, match=said):
            options.read([wrong])
    with pytest.raises(ValueError, match="simulator has no train"):
        options.simulated({"train": {}})


def test_real_data_are_evaluated_as_the_papers_numbers_were() -> None:
    for given, convention in ((), "ours"), (("data.prepared=x",), "bigsmall"), (("tests.a.prepared=x",), "bigsmall"):
        assert options.read(given).convention == convention
        assert options.read([*given, "convention=toolbox"]).convention == "toolbox"


def test_recipes(tmp_path: Path) -> None:
    simulated = a_study(tmp_path, "train.steps=7", "train.epochs=null")
    assert simulated.recipe()["steps"] == 7
    assert simulated.recipe(second=True)["steps"] == options.simulated({})["finetune"]["steps"]
    real = Study(tmp_path, options.read(["data.prepared=x", "finetune.epochs=2"]))
    assert (real.recipe()["epochs"], real.recipe()["batch"]) == (5, 180)  # FACTS 5
    assert real.recipe(second=True)["epochs"] == 2
    assert "data" not in real.recipe()


# --- who is tested on what --------------------------------------------------------------------------------------------


def test_folds_are_of_people_and_rates_are_tested_on_more(tmp_path: Path) -> None:
    """As of BP4D+: some people have no coded trial, and rates are tested on every trial of the held-out ones."""
    coded, every = made(tmp_path / "coded", "ABCDE"), made(tmp_path / "every", "ABCDEFG", trials=2)
    of = a_study(tmp_path / "out", f"data.prepared={coded}", f"rates.prepared={every}", "folds=3")
    splits = of.splits([network("small")])
    assert [split.name for split in splits] == ["fold0", "fold1", "fold2"]
    for split in splits:
        tested = {r.subject for r in (*split.units, *split.rates)}
        assert not tested & set(split.learn["subjects"])
        assert {r.subject for r in split.units} | set(split.learn["subjects"]) == set("ABCDE")
    assert sorted(r.name for split in splits for r in split.rates) == sorted(f"{s}{t}" for s in "ABCDEFG" for t in "01")
    assert sorted(r.name for split in splits for r in split.units) == [f"{s}0" for s in "ABCDE"]


def test_bp4d_plus_is_learnt_from_its_coded_trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And rates are tested on all of its trials, without that being said."""
    coded, every = made(tmp_path / "coded", "AB"), made(tmp_path / "every", "AB", trials=2)
    asked = []

    def prepared(self: Study, name: str, spec: dict[str, object], networks: object) -> Path:
        asked.append(spec)
        return coded if spec.get("au_subset") else every

    monkeypatch.setattr(Study, "prepared", prepared)
    bp4d_plus = {"dataset": "bp4d_plus", "root": "/r"}
    of = a_study(tmp_path, "data.dataset=bp4d_plus", "data.root=/r")
    split = of.splits([])[0]
    assert asked == [{**bp4d_plus, "au_subset": True}, {**bp4d_plus, "au_subset": False}]
    assert (len(split.units), len(split.rates)) == (1, 2)
    assert of.learnt([]) == {"prepared": str(coded)}
    assert of.whole("tested", bp4d_plus, []) == every
    asked.clear()
    a_study(tmp_path, "data.dataset=bp4d_plus", "data.root=/r", "data.au_subset=false").splits([])
    assert asked == [{**bp4d_plus, "au_subset": False}]


def test_folds_from_files(tmp_path: Path) -> None:
    folder = made(tmp_path / "data", "ABCD")
    for name, people in (("one", "A B"), ("two", "C D"), ("again", "B C")):
        (tmp_path / name).write_text(people)
    of = a_study(tmp_path, f"data.prepared={folder}", f"folds=[{tmp_path}/one,{tmp_path}/two]")
    assert [split.learn["subjects"] for split in of.splits([])] == [["C", "D"], ["A", "B"]]
    of = a_study(tmp_path, f"data.prepared={folder}", f"folds=[{tmp_path}/one,{tmp_path}/again]")
    with pytest.raises(ValueError, match="nobody in two"):
        of.splits([])


def test_what_is_prepared_is_what_the_networks_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = []
    monkeypatch.setattr(study, "prepare", lambda spec, folder, workers: specs.append(spec))
    of = a_study(tmp_path)
    spec = {"dataset": "pure", "root": "r"}
    of.prepared("a", spec, [network("tscan9"), network("efficientphys")])
    of.prepared("b", spec, [network("bigsmall"), network("small")])
    of.prepared("c", {**spec, "frames": [36]}, [network("bigsmall"), network("big"), network("tscan9")])
    assert specs == [
        {**spec, "frames": [9, 72]},
        {**spec, "frames": [], "big_every": 3},
        {**spec, "frames": [36], "big_every": 1},
    ]


def test_pos_and_chrom_find_a_picture_of_every_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = []
    monkeypatch.setattr(study, "prepare", lambda spec, folder, workers: specs.append(spec))
    of = a_study(tmp_path, "rows=[bigsmall,pos]")
    assert rows.unsupervised(of) == ["pos"]
    for networks in ((), ("bigsmall",), ("big",), ("bigsmall", "tscan9")):
        of.prepared("a", {"dataset": "pure"}, [network(name) for name in networks])
    assert [(spec["frames"], spec.get("big_every")) for spec in specs] == [([36], None), ([36], 3), ([], 1), ([9], 3)]
    of = a_study(tmp_path, "rows=[bigsmall]")
    assert rows.unsupervised(of) == []
    of.prepared("b", {"dataset": "pure"}, [network("bigsmall")])
    assert specs[-1]["frames"] == []


# --- training and scores ----------------------------------------------------------------------------------------------


def test_tasks_and_units_are_those_of_the_data(tmp_path: Path) -> None:
    few, none = made(tmp_path / "few", "AB", units=("AU06", "AU12")), made(tmp_path / "none", "AB", known=False)
    of = a_study(tmp_path, f"data.prepared={few}")
    predictor = load(of.train("few", network("bigsmall", big_size=16), {"prepared": str(few)}, 0))
    assert predictor.action_units == ("AU06", "AU12")
    assert load(of.train("none", network("bigsmall", big_size=16), {"prepared": str(none)}, 0)).tasks == (
        "pulse",
        "respiration",
    )


@pytest.mark.parametrize(
    ("recipe", "frames", "labelled"),
    [((), 540, 540), (("train.batch=16", "train.clips=4"), 192, 48)],  # FACTS 5; simulated.yaml
)
def test_a_step_of_any_network_learns_from_as_many_frames(
    recipe: tuple[str, ...], frames: int, labelled: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of Small, or of single frames; those of action units alone from as many labelled ones as BigSmall."""
    often, seldom = made(tmp_path / "often", "A"), made(tmp_path / "seldom", "A", every=3)
    asked = {}
    monkeypatch.setattr(study, "train", lambda config, output: asked.update({output.name: config}))
    of = Study(tmp_path, options.read([f"data.prepared={often}", *recipe]))
    signals = ("bigsmall", "bigsmall_full", "bigsmall_lateral", "bigsmall_plus", "small", "deepphys9", "mttscan9")
    signals += ("efficientphys", "tscan9")
    for name in (*signals, "big", "drml", "alexnet"):
        of.train(name, network(name), {"prepared": str(often)}, 0)
        n = asked[name].get("frames") or study.built(network(name)).n_segment
        seen = asked[name]["batch"] * n * asked[name].get("clips", 1)
        assert abs(seen - (frames if name in signals else labelled)) <= n / 2, name
        assert f"{name} {seen}" in " ".join(of.seen)
    assert asked["small"]["frames"] == asked["big"]["frames"] == 3  # the paper's clips
    assert f"bigsmall {frames} ({labelled // 3} of Big)" in of.seen
    of.train("seldom", network("big"), {"prepared": str(seldom)}, 0)
    assert "frames" not in asked["seldom"]
    assert asked["seldom"]["batch"] == labelled


def test_folds_are_scored_together_and_runs_done_once(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "data", "ABCD")
    of = a_study(tmp_path / "out", f"data.prepared={folder}")
    row = Row("small", tuple(network("small", small_size=1, task=task) for task in ("pulse", "respiration")))
    splits = of.splits(row.networks)
    summary = of.measured(row, splits, 0)
    assert summary["heart_rate"]["n"] == summary["respiration_rate"]["n"] == summary["pos"]["n"] == 4
    assert set(numbers(summary)) == {*paper.HEART, *paper.BREATH, *study.QUALITY} - {"BR r"}  # all breathe alike
    assert numbers({"pos": summary["pos"]}, "pos")["HR MAE"] == summary["pos"]["mae"].value
    runs = sorted(str(p.parent.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("model.safetensors"))
    assert runs == [f"runs/small-{task}/fold{k}/seed0" for task in ("pulse", "respiration") for k in (0, 1)]

    def fit(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("bigsmall.training.run.fit", fit)
    again = of.measured(row, splits, 0)
    assert numbers(again) == numbers(summary)


def test_only_what_is_tested_now_is_scored(tiny: None, tmp_path: Path) -> None:
    """Predictions of other recordings in the run's folder do not count, nor units in what rates are tested on."""
    coded, every = made(tmp_path / "coded", "ABCD"), made(tmp_path / "every", "ABCD", trials=2)
    of = a_study(tmp_path / "out", f"data.prepared={coded}", f"rates.prepared={every}")
    row = Row("bigsmall", (network("bigsmall", big_size=16),))
    splits = of.splits(row.networks)
    summary = of.measured(row, splits, 0)
    assert (summary["au"]["AU01"]["frames"], summary["heart_rate"]["n"]) == (4 * FRAMES, 8)
    fewer = [split._replace(units=split.units[:1], rates=split.rates[:1]) for split in splits]
    summary = of.measured(row, fewer, 0)
    assert (summary["au"]["AU01"]["frames"], summary["heart_rate"]["n"]) == (2 * FRAMES, 2)


def test_what_the_data_do_not_tell_of_is_left_out(tiny: None, tmp_path: Path) -> None:
    data = made(tmp_path / "data", "ABCD", known=False)
    text = protocols.run("table1", tmp_path / "out", [f"data.prepared={data}", *QUICK, "rows=[small,big,bigsmall]"])
    assert "**small**" in text
    assert "**bigsmall**" in text
    assert "**big**" not in text
    assert "big is left out where the data that it would learn tell nothing of au." in text


def test_transfer_starts_each_fold_from_its_own_people(tiny: None, tmp_path: Path) -> None:
    """Not from those that it is tested on; a task that nothing is known of is no part of the matrix."""
    data, out = made(tmp_path / "data", "ABCD", known=False), tmp_path / "out"
    text = protocols.run("transfer", out, [f"data.prepared={data}", *QUICK, "finetune.epochs=1"])
    assert "au first" not in text
    for fold in ("fold0", "fold1"):
        config = (out / "runs/pulse-first-then-pulse" / fold / "seed0/config.yaml").read_text()
        assert f"init_from: {out}/runs/only-pulse/{fold}/seed0/model.safetensors\n" in config


def test_pos_and_chrom_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "train", None)
    data, out = made(tmp_path / "data", "AB"), tmp_path / "out"
    text = protocols.run("table2", out, [f"data.prepared={data}", *QUICK, "rows=[pos]"])
    assert "| **pos** |" in text
    assert "| **chrom** |" not in text
    assert (out / "table2.png").is_file()
    bars(tmp_path / "none.png", Results(), paper.TABLE2, paper.COLUMNS)
    assert not (tmp_path / "none.png").exists()


def test_crossval_takes_the_papers_rows_before_the_registrys_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    monkeypatch.setattr(crossval, "measure", lambda study, rows, splits, results: found.extend(rows))
    data, asked = made(tmp_path / "data", "AB"), "rows=[small,deepphys,efficientphys,bigsmall,deepphys9]"
    text = protocols.run("crossval", tmp_path / "out", [f"data.prepared={data}", *QUICK, asked])
    own = {row.name: row for row in (*rows.ROWS, *table1.ROWS)}
    assert found == [
        *(own[name] for name in ("small", "deepphys", "efficientphys", "bigsmall")),
        Row("deepphys9", (network("deepphys9"),)),
    ]
    assert "deepphys, the paper" in text
    assert "deepphys9, the paper" not in text


def test_a_dataset_with_rates_and_no_waves_is_scored_by_its_rates() -> None:
    nothing = dict.fromkeys(study.SCORES, _estimate()) | {"n": 0}
    errors = dict(zip(study.SCORES, map(_estimate, (1, 2, 3, 0.5)), strict=True))
    summary = {
        "heart_rate": {**nothing, "snr": _estimate(), "macc": _estimate()},
        "heart_rate_column": {**errors, "n": 3},
    }
    assert numbers(summary) == {"HR MAE": 1, "HR RMSE": 2, "HR MAPE": 3, "HR r": 0.5}


def test_a_table_says_of_how_many_videos_a_row_is_and_against_what(tmp_path: Path) -> None:
    of = study.Study(tmp_path, study.Options())
    of.note_videos("ours", {"heart_rate": {"n": 4}, "respiration_rate": {"n": 3}}, 4)
    of.note_videos("others", {"pos": {"n": 0}, "pos_column": {"n": 4}}, 4, "pos")
    assert list(of.notes) == [
        "ours: respiration rates of 3 of 4 videos; the others yield or have none to compare with.",
        "others: heart rates against the rates that the data give; they hold no wave.",
    ]


def _estimate(value: float = float("nan")) -> object:
    from bigsmall.evaluation.metrics import Estimate

    return Estimate(value, float("nan"))


# --- tables -----------------------------------------------------------------------------------------------------------


def test_tables_show_means_and_deviations_over_the_papers_numbers() -> None:
    found = Results()
    for seed, (ours, theirs) in enumerate([(1.0, 2.0), (2.0, 2.5), (3.0, 6.0)]):
        found.add("a", seed, {"HR MAE": ours})
        found.add("b", seed, {"HR MAE": theirs})
    text = markdown(found, {"a": {"HR MAE": 4.5, "HR r": 0.9}, "c": {"HR MAE": 7.0}}, ("HR MAE", "HR r", "AU F1"))
    assert text.splitlines() == [
        "| | HR MAE | HR r |",
        "|---|---|---|",
        "| **a** (3 seeds) | 2.00 ± 1.00 |  |",
        "| the paper | 4.50 | 0.90 |",
        "| c, the paper | 7.00 |  |",
        "| **b** (3 seeds) | 3.50 ± 2.18 |  |",
    ]
    assert "| a less b | -1.50 ± 1.32, 3 of 3 lower |" in differences(found, [("a", "b"), ("a", "z")], ["HR MAE"])


# --- the protocols ----------------------------------------------------------------------------------------------------

EACH = {
    "crossval": ["rows=[bigsmall]"],
    "table1": ["rows=[small,bigsmall,bigsmall_tsm]", "seeds=[0,1]"],
    "table2": ["rows=[big,pos,chrom,bigsmall]", "aligned.prepared={data}"],
    "table3": ["rows=[bigsmall,pos]", "tests.wild.prepared={other}"],
    "table4": ["rows=[bigsmall]", "tests.disfa.prepared={units}"],
    "transfer": ["finetune.epochs=1"],
    "fig5": ["segments=[3]", "tests.wild.prepared={other}"],
    "fig6": [],
}
EXPECTED = {
    "crossval": {"bigsmall"},
    "table1": {"small", "bigsmall", "bigsmall_tsm"},
    "table2": {"bigsmall", "big", "pos", "chrom", "bigsmall, aligned", "big, aligned"},
    "table3-wild": {"bigsmall", "pos"},
    "table4": {"bigsmall"},
    "transfer": {"from nothing", "au first", "pulse first"},
    "fig5": {f"{name}, N = 3" for name in fig5.SHIFTS.values()},
    "fig6": {*(f"big_conv{i}" for i in range(1, 7)), *(f"small_conv{i}" for i in range(1, 5))},
}


@pytest.mark.parametrize("name", EACH)
def test_each_protocol_writes_its_table_beside_the_papers(name: str, tiny: None, tmp_path: Path) -> None:
    data, other = made(tmp_path / "data", "ABCD"), made(tmp_path / "other", "XY", known=False, dataset="pure")
    units = made(tmp_path / "units", "PQ", units=("AU01", "AU09")) if name == "table4" else other
    asked = [text.format(data=data, other=other, units=units) for text in EACH[name]]
    out = tmp_path / "out"
    text = protocols.run(name, out, [f"data.prepared={data}", *QUICK, *asked])
    stem = next(stem for stem in EXPECTED if stem.startswith(name))
    assert (out / f"{stem}.md").read_text() == text
    with (out / f"{stem}.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    ours = [line for line in lines if line["of"] == "ours"]
    assert {line["row"] for line in ours} == EXPECTED[stem]
    assert np.isfinite([float(line["value"]) for line in ours]).all()
    printed = {"table1": "2.38", "table2": "57.90", "table3-wild": "1.97", "table4": "42.40", "crossval": "43.30"}.get(
        stem
    )
    if printed:
        assert printed in text
        assert {line["of"] for line in lines} == {"ours", "paper"}
    assert sorted(out.glob(f"{name}*.png"))


def test_a_protocol_goes_on_where_it_was(tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = made(tmp_path / "data", "ABCD"), tmp_path / "out"
    overrides = [f"data.prepared={data}", *QUICK, "rows=[bigsmall]"]
    test, times = Study.test, []

    def interrupted(self: Study, *args: object, **options: object) -> Path:
        times.append(args)
        if len(times) == 2:
            raise KeyboardInterrupt
        return test(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Study, "test", interrupted)
    with pytest.raises(KeyboardInterrupt):
        protocols.run("table1", out, overrides)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    assert len(before) == 2
    text = protocols.run("table1", out, overrides)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert text == protocols.run("table1", tmp_path / "afresh", overrides)


def test_a_protocol_goes_on_from_another_working_directory(
    tiny: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "data", "ABCD")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    text = protocols.run("crossval", "out", ["data.prepared=data", *QUICK])

    def fit(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("bigsmall.training.run.fit", fit)
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert protocols.run("crossval", "../out", ["data.prepared=../data", *QUICK]) == text
    monkeypatch.setattr(crossval, "run", lambda study: str(study.folder))  # which names the data and runs of it
    assert protocols.run("crossval", "../out") == str(tmp_path / "out")


# --- the command ------------------------------------------------------------------------------------------------------


def test_command(tiny: None, tmp_path: Path) -> None:
    data = made(tmp_path / "data", "ABCD")
    run = CliRunner().invoke
    out = tmp_path / "out"
    found = run(app, ["protocol", "crossval", "-o", str(out), f"data.prepared={data}", *QUICK])
    assert found.exit_code == 0, found.output
    assert "the paper" in found.stdout
    for wrong, said in (
        (["table9"], "table9"),
        (["table1", "rows=[x]"], "rows: no x"),
        (["fig5", "nothing=1"], "nothing"),
    ):
        refused = run(app, ["protocol", wrong[0], "-o", str(tmp_path / "no"), *wrong[1:]])
        assert refused.exit_code == 2
        assert said in refused.output
