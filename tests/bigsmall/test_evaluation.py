"""Evaluation end to end: networks over prepared recordings, what is kept of them, and what is written."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from bigsmall import weights
from bigsmall.cli import app
from bigsmall.cli.evaluate import _show
from bigsmall.datasets import open_prepared, prepare, write_prepared
from bigsmall.datasets.prepared import Prepared
from bigsmall.evaluation import Prediction, evaluate, load_predictions, predict
from bigsmall.evaluation.predict import FRAMES
from bigsmall.models import Network

LENGTH, CUT = 200, 100  # frames; the second stretch begins at 100, which is no multiple of 3
WRITTEN = {"report.md", "videos.csv", "summary.csv", "summary.json", "au.csv", "bland_altman.png", "scatter.png",
           "waveforms.png"}  # fmt: skip


class Toy(Network):
    """Its pulse is the mean of each frame, its unit the mean of each clip's picture; it keeps count of its frames."""

    tasks, reads, n_segment, big_every = ("au", "pulse"), ("big", "small"), 3, 3

    def __init__(self):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, big, small):
        assert not self.training
        self.seen.append(len(small))
        return self.scale * big.mean((1, 2, 3)).repeat_interleave(3)[:, None], self.scale * small.mean((1, 2, 3))[
            :, None
        ]


@pytest.fixture
def arrays():
    rng = np.random.default_rng(0)
    pictures = np.delete(np.append(np.arange(0, CUT, 3), np.arange(CUT, LENGTH, 3)), 10)  # that of frame 30 is missing
    return {
        "small": rng.normal(size=(LENGTH, 3, 9, 9)).astype(np.float16),
        "big": rng.integers(0, 256, (len(pictures), 16, 16, 3), np.uint8),
        "big_frame": pictures,
        "stretches": np.array([0, CUT, LENGTH]),
        "timestamps": np.arange(LENGTH) / 20,
        "bvp": rng.normal(size=LENGTH).astype(np.float32),
        "respiration": rng.normal(size=LENGTH).astype(np.float32),
        "bvp_wave": rng.normal(size=LENGTH).astype(np.float32),
        "au": rng.integers(0, 2, (LENGTH, 1), np.uint8),
    }


@pytest.fixture
def recording(tmp_path, arrays):
    return written(tmp_path / "r.safetensors", arrays)


def written(path, arrays, **changes):
    meta = {"name": "r", "subject": "s", "dataset": "made", "fps": 20.0, "convention": "exact", "crop": "face",
            "big_mean": 127.5, "big_std": 70.0, "action_units": ["AU12"]}  # fmt: skip
    write_prepared(path, arrays, meta | changes)
    return Prepared(path)


# ---- predictions


def test_answers_stand_where_their_frames_are(recording, arrays):
    found = predict(Toy(), recording)
    whole = np.ones(LENGTH, dtype=bool)
    whole[[99, 199]] = False  # no clip ends there
    whole[30:33] = False  # no picture
    np.testing.assert_array_equal(np.isfinite(found.pulse), whole)
    means = arrays["small"].astype(np.float32).mean((1, 2, 3))
    np.testing.assert_allclose(found.pulse[whole], means[whole], atol=1e-6)
    picture = (arrays["big"][arrays["big_frame"] == 103].astype(np.float32).mean() - 127.5) / 70
    np.testing.assert_allclose(found.au[103:106, 0], 1 / (1 + np.exp(-picture)), rtol=1e-5)
    assert found.respiration is None
    assert found.tasks == ("au", "pulse")


def test_a_prediction_holds_the_references_and_not_what_is_trained_on(recording, arrays):
    found = predict(Toy(), recording)
    np.testing.assert_array_equal(found.bvp_wave, arrays["bvp_wave"])
    np.testing.assert_array_equal(found.au_labels, arrays["au"])
    np.testing.assert_array_equal(found.stretches, arrays["stretches"])
    assert (found.name, found.subject, found.dataset, found.fps, found.model) == ("r", "s", "made", 20.0, "Toy")
    assert found.action_units == found.labelled_units == ("AU12",)
    assert found.respiration_wave is None
    assert found.heart_rate is None


def test_few_frames_go_through_the_network_at_once(recording):
    model = Toy()
    predict(model, recording)
    assert max(model.seen) <= FRAMES < sum(model.seen) == 195


def test_a_network_in_training_goes_on_training(recording):
    model = Toy()
    predict(model, recording)
    assert model.training
    predict(model.eval(), recording)
    assert not model.training


def test_only_some_tasks(recording):
    assert predict(Toy(), recording, tasks=["pulse"]).tasks == ("pulse",)
    with pytest.raises(ValueError, match="tasks: the network answers au, pulse, not respiration"):
        predict(Toy(), recording, tasks=["respiration"])


def test_a_recording_without_what_is_read(tmp_path, arrays):
    bare = {name: array for name, array in arrays.items() if not name.startswith("big")}
    with pytest.raises(ValueError, match="recording: r has no big, which the network reads"):
        predict(Toy(), written(tmp_path / "bare.safetensors", bare))


def test_a_recording_too_short_for_a_clip_is_unknown(tmp_path, arrays):
    short = {name: array[:2] for name, array in arrays.items()} | {"stretches": np.array([0, 1, 2])}
    short |= {"big": arrays["big"][:1], "big_frame": np.array([0])}
    found = predict(Toy(), written(tmp_path / "short.safetensors", short))
    assert np.isnan(found.pulse).all()
    assert found.au.shape == (2, 1)
    assert np.isnan(found.au).all()


def test_the_number_of_units_must_fit(tmp_path, arrays):
    two = arrays | {"au": np.zeros((LENGTH, 2), np.uint8)}
    with pytest.raises(ValueError, match="model: it gives 1 action units"):
        predict(Toy(), written(tmp_path / "two.safetensors", two, action_units=["AU01", "AU02"]))


def test_mean_colours_need_a_picture_of_every_frame(tmp_path, recording, arrays):
    assert predict(Toy(), recording).colours is None
    pictures = np.random.default_rng(1).integers(0, 256, (LENGTH, 8, 8, 3), np.uint8)
    other = arrays | {"frames_8": pictures, "frames_16": np.zeros((LENGTH, 16, 16, 3), np.uint8)}
    found = predict(Toy(), written(tmp_path / "all.safetensors", other))
    np.testing.assert_allclose(found.colours, pictures.mean((1, 2)), rtol=1e-6)
    every = arrays | {"big": pictures, "big_frame": np.arange(LENGTH)}
    found = predict(Toy(), written(tmp_path / "every.safetensors", every))
    np.testing.assert_allclose(found.colours, pictures.mean((1, 2)), rtol=1e-6)


def test_a_prediction_is_kept_whole(tmp_path, recording):
    before = predict(Toy(), recording)
    before.save(tmp_path / "kept.safetensors")
    after = Prediction.load(tmp_path / "kept.safetensors")
    for name, value in vars(before).items():
        np.testing.assert_array_equal(getattr(after, name), value)
        assert type(getattr(after, name)) is type(value)


def test_what_is_no_prediction_is_said_so(tmp_path, recording):
    with pytest.raises(ValueError, match="holds no saved prediction"):
        Prediction.load(recording.path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no saved predictions"):
        load_predictions(tmp_path / "empty")


# ---- evaluations


def test_an_interrupted_evaluation_goes_on(tmp_path, recording, arrays):
    recordings = [recording, written(tmp_path / "other.safetensors", arrays, name="other")]
    model, told = Toy(), []

    def stop(*now):
        told.append(now)
        if now[1] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(model, recordings, output=tmp_path / "out", progress=stop)
    assert told == [("evaluating", 0, 2), ("evaluating", 1, 2)]
    assert [path.name for path in load_predictions(tmp_path / "out")] == ["r.safetensors"]
    model.seen.clear()
    evaluate(model, recordings, output=tmp_path / "out")
    assert sum(model.seen) == 195  # the other one alone


def test_what_was_made_with_other_weights_or_of_another_recording_is_made_again(tmp_path, recording, arrays):
    model, out = Toy(), tmp_path / "out"
    evaluate(model, [recording], output=out)
    model.seen.clear()
    evaluate(model, [recording], output=out, convention="toolbox", window=3, tasks=["pulse"])
    assert not model.seen
    assert Prediction.load(load_predictions(out)[0]).tasks == ("au", "pulse")
    with torch.no_grad():
        model.scale += 1
    evaluate(model, [recording], output=out)
    assert sum(model.seen) == 195
    changed = written(recording.path, arrays | {"bvp_wave": arrays["bvp_wave"] + 1}, crop="frame")
    evaluate(model, [changed], output=out)
    assert sum(model.seen) == 2 * 195


@pytest.mark.parametrize(
    ("times", "message"),
    [(0, "recordings: expected one or more"), (2, "recordings: r of made is there more than once")],
)
def test_wrong_recordings_are_named(recording, times, message):
    with pytest.raises(ValueError, match=message):
        evaluate(Toy(), [recording] * times)


def test_weights_for_other_inputs_are_told(tmp_path, arrays, capsys):
    other = arrays | {"big": np.zeros((len(arrays["big"]), 144, 144, 3), np.uint8)}
    recording = written(tmp_path / "other.safetensors", other, convention="toolbox", crop="frame")
    found = evaluate("default", [recording])
    notes = found.about["notes"]
    assert notes[0] == "prepared with the convention 'toolbox'; the weights were trained with 'exact' (1 recordings)"
    assert "the crop 'frame'" in notes[1]
    _show(found)
    shown = " ".join(capsys.readouterr().out.split())
    assert all(note in shown for note in notes)


# ---- the model that ships, on simulated people


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """Two people for 12 s."""
    folder = tmp_path_factory.mktemp("prepared")
    simulator = {"size": [96, 96], "fps": [15, 15], "pulse": [0.03, 0.03], "motion": [0.05, 0.05],
                 "heart_rate": [60, 90], "gestures": [0, 0], "talking": [0, 0]}  # fmt: skip
    spec = {"dataset": "simulator", "count": 2, "seconds": 12, "no_pulse": 0, "no_breathing": 0, "compressed": 0}
    prepare(spec | {"simulator": simulator, "frames": [9]}, folder, workers=1)
    return folder


def test_the_command_evaluates_and_scores_again(prepared, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    result = CliRunner().invoke(app, ["evaluate", "default", str(prepared), "-o", str(out)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in out.iterdir()} == WRITTEN | {"predictions"}
    rows = pd.read_csv(out / "videos.csv")
    assert len(rows) == 2
    assert rows[["pos", "chrom"]].notna().all(axis=None)
    assert (rows["heart_rate"] - rows["heart_rate_true"]).abs().max() < 3
    assert (rows["respiration_rate"] - rows["respiration_rate_true"]).abs().max() < 3

    summary = json.loads((out / "summary.json").read_text())
    error = (rows["heart_rate"] - rows["heart_rate_true"]).abs().mean()
    assert summary["heart_rate"]["mae"]["value"] == pytest.approx(error)
    assert summary["convention"]["name"] == "ours"
    assert 0 < summary["au"]["mean"]["accuracy"] <= 1
    assert pd.read_csv(out / "au.csv")["unit"].tolist() == [*weights.load("default").action_units, "mean"]
    long = pd.read_csv(out / "summary.csv")
    assert set(long["convention"] + ", " + long["band"]) == {"ours, 0.667-3 Hz", "ours, 0.1-0.5 Hz"}
    long = long.set_index(["quantity", "by", "rate_by", "reference", "metric"])["value"]
    assert long["heart_rate", "network", "FFT", "reference wave", "mae"] == pytest.approx(error)
    assert f"| network | FFT | reference wave | 2 of 2 | {error:.2f} ±" in (out / "report.md").read_text()

    arguments = ["evaluate", str(out / "predictions"), "-o", str(again), "--convention", "toolbox", "--window", "6"]
    result = CliRunner().invoke(app, [*arguments, "--task", "pulse"])
    assert result.exit_code == 0, result.output
    rows = pd.read_csv(again / "videos.csv")
    assert rows["start"].tolist() == pytest.approx([0, 6, 0, 6], abs=0.1)
    assert "respiration_rate" not in rows
    assert {path.name for path in again.iterdir()} == WRITTEN - {"au.csv"}


def test_a_fold_is_tested_on_its_own_subjects(prepared, tmp_path):
    for index in (0, 1):
        out = tmp_path / str(index)
        chosen = ["--fold", f"{index}/2", "--task", "pulse"]
        result = CliRunner().invoke(app, ["evaluate", "default", str(prepared), "-o", str(out), *chosen])
        assert result.exit_code == 0, result.output
        tested = open_prepared(prepared, fold={"index": index, "of": 2, "part": "test"})
        assert [p.stem for p in out.rglob("predictions/*/*.safetensors")] == [r.name for r in tested]


def test_the_same_numbers_with_and_without_files(prepared, tmp_path):
    recordings = open_prepared(prepared)
    kept = evaluate("default", recordings, output=tmp_path, convention="bigsmall")
    pd.testing.assert_frame_equal(evaluate("default", recordings, convention="bigsmall").rows, kept.rows)
    written = pd.read_csv(tmp_path / "videos.csv", dtype={"name": str, "subject": str}, keep_default_na=False)
    np.testing.assert_allclose(written["heart_rate"].astype(float), kept.rows["heart_rate"])
    estimate = kept.summary["heart_rate"]["mae"]
    assert estimate.value == pytest.approx(float((kept.rows["heart_rate"] - kept.rows["heart_rate_true"]).abs().mean()))
    assert math.isfinite(estimate.error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["default"], "PREPARED was not given"),
        (["default", "."], "manifest.json"),
        (["nothing", "prepared"], "no weights at"),
        (["default", "prepared", "--convention", "theirs"], "expected one of ours, toolbox"),
        (["default", "prepared", "--fold", "first"], "--fold was 'first', expected INDEX/OF"),
        (["default", "prepared", "--fold", "0/3"], "expected 2 to the number of subjects, 2"),
    ],
)
def test_usage_is_told_in_a_sentence(prepared, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prepared").symlink_to(prepared)
    result = CliRunner().invoke(app, ["evaluate", *arguments, "-o", "out"])
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "out").exists()
