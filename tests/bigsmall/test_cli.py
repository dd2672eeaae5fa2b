"""The command line: its exit codes, its sentences, and what it leaves behind."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from bigsmall import models, weights
from bigsmall.cli import app
from bigsmall.video import VideoWriter

FILES = ["frames.csv", "measurement.json", "report.html", "signals.png", "windows.csv"]


def bigsmall(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory) -> Path:
    """Weights of a small random network: action units of any video, rates of none."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.safetensors"
    card = weights.Card(
        "untrained", "bigsmall", weights.TASKS, "exact", "face", {"big_size": 16}, note="an untrained toy"
    )
    weights.save(path, models.build("bigsmall", big_size=16), card)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    rng = np.random.default_rng(0)
    with VideoWriter(path, 25) as writer:
        for _ in range(30):
            writer.write(rng.integers(0, 256, (32, 48, 3), dtype=np.uint8))
    return path


def test_something_measured_is_0_with_five_files(clip, untrained, tmp_path):
    done = bigsmall("measure", clip, "--weights", untrained, "--crop", "frame", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == FILES
    found = json.loads((tmp_path / "out" / "measurement.json").read_text())
    assert found["heart_rate"]["value"] is None
    assert "8 s" in found["heart_rate"]["note"]
    assert found["faces"][0]["action_units"]["AU12"]["mean_probability"] > 0
    assert found["model"]["crop"] == "frame"
    assert len(pd.read_csv(tmp_path / "out" / "frames.csv")) == 30
    for said in (
        "heart rate",
        "refused",
        "action units",
        "an untrained toy",
        "Not a medical device",
        "measurement.json",
    ):
        assert said in done.stdout.replace("\n", " ")


def test_nothing_is_written_where_no_folder_is_named(clip, untrained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert bigsmall("measure", clip, "--weights", untrained, "--crop", "2,3,20,20").exit_code == 0
    assert list(tmp_path.iterdir()) == []


def test_the_video_with_what_was_measured_comes_on_request(clip, untrained, tmp_path):
    plain = ("measure", clip, "--weights", untrained, "--crop", "frame", "--overlay")
    assert bigsmall(*plain, "-o", tmp_path / "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == sorted([*FILES, "overlay.mp4"])
    nowhere = bigsmall(*plain)
    assert nowhere.exit_code == 2
    assert "--overlay was given without --output" in nowhere.stderr


def test_every_face_needs_a_crop_around_faces(clip, untrained):
    done = bigsmall("measure", clip, "--weights", untrained, "--crop", "frame", "--all-faces")
    assert done.exit_code == 2
    assert "all_faces was True and crop was 'frame'" in done.stderr


def test_nothing_measurable_is_3_and_one_sentence(clip, untrained):
    done = bigsmall("measure", clip, "--weights", f"pulse={untrained}", "--crop", "frame")
    assert done.exit_code == 3
    assert done.stdout == ""
    assert "nothing could be measured" in done.stderr
    assert "8 s with a face are needed" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("make", [
    lambda p: None,
    lambda p: p.write_bytes(b""),
    lambda p: p.write_text("This is a letter and no video.\n" * 200),
    lambda p: p.write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(4000)),
], ids=["missing", "empty", "text", "cut"])  # fmt: skip
def test_an_unreadable_video_is_4_and_one_sentence(untrained, tmp_path, make):
    make(tmp_path / "video.mp4")
    before = sorted(tmp_path.iterdir())
    done = bigsmall("measure", tmp_path / "video.mp4", "--weights", untrained, "-o", tmp_path / "out")
    assert done.exit_code == 4, done.output
    assert done.stdout == ""
    assert done.stderr.startswith("bigsmall: ")
    assert "video.mp4" in done.stderr
    assert done.stderr.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_wrong_usage_is_2(clip, untrained, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, says in (
        ((), "Missing argument"),
        ((clip, "--bogus"), "No such option"),
        ((clip, "--weights", "nothing"), "no weights at 'nothing'"),
        ((clip, "--weights", untrained, "--crop", "circle"), "crop was 'circle'"),
        ((clip, "--weights", untrained, "--crop", "40,0,20,20"), "inside the picture of 48x32"),
        ((clip, "--weights", untrained, "--fps", "-3"), "fps was -3"),
        ((clip, "--weights", untrained, "-o", tmp_path / "file"), f"{tmp_path / 'file'} is no folder"),
        ((clip, "--weights", untrained, "-o", tmp_path / "file" / "out"), f"{tmp_path / 'file'} is no folder"),
    ):
        done = bigsmall("measure", *arguments)
        assert done.exit_code == 2, (arguments, done.output)
        assert says in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert bigsmall("bogus").exit_code == 2
    assert bigsmall("info", "bogus").exit_code == 2
    untold = bigsmall("train", "nothing.yaml", "-o", tmp_path / "run")
    assert untold.exit_code == 2
    assert "nothing.yaml" in untold.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_where_nothing_can_be_written_nothing_is_measured(clip, tmp_path, monkeypatch):
    monkeypatch.setattr("bigsmall.measure", lambda *_, **__: pytest.fail("measured for nothing"))
    monkeypatch.setattr("os.access", lambda *_: False)
    done = bigsmall("measure", clip, "-o", tmp_path / "new" / "out")
    assert done.exit_code == 2
    assert f"{tmp_path} cannot be written to" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_of_our_own_is_not_disguised(clip, monkeypatch):
    def broken(*_, **__):
        raise TypeError("a bug")

    monkeypatch.setattr("bigsmall.measure", broken)
    assert isinstance(bigsmall("measure", clip).exception, TypeError)


def test_synthesize_writes_the_video_and_its_truth(tmp_path):
    options = ("--heart-rate", 80, "--respiration-rate", 12, "--seconds", 1, "--fps", 20, "--seed", 3)
    done = bigsmall("synthesize", tmp_path / "a.mkv", *options)
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv(tmp_path / "a.csv")) == 20
    assert bigsmall("synthesize", tmp_path / "b.mkv", *options).exit_code == 0
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.mkv", "b.csv", "b.mkv"]
    assert bigsmall("synthesize", tmp_path / "c.mkv", "--heart-rate", 1000).exit_code == 2
    assert not (tmp_path / "c.mkv").exists()


def test_synthesize_fills_a_folder_and_takes_it_up_again(tmp_path):
    options = ("--seconds", 0.5, "--fps", 10, "--negative", "photograph", "--crf", 23)
    done = bigsmall("synthesize", tmp_path / "many", "--count", 2, *options)
    assert done.exit_code == 0, done.output
    files = {p: p.stat().st_mtime_ns for p in sorted((tmp_path / "many").iterdir())}
    assert [p.name for p in files] == ["00000.csv", "00000.mp4", "00001.csv", "00001.mp4", "specs.json"]
    assert pd.read_csv(tmp_path / "many" / "00000.csv")["heart_rate"].isna().all()
    assert bigsmall("synthesize", tmp_path / "many", "--count", 2, *options).exit_code == 0
    assert {p: p.stat().st_mtime_ns for p in files} == files
    other = bigsmall("synthesize", tmp_path / "many", "--count", 2, *options, "--seed", 7)
    assert other.exit_code == 2
    assert "holds other videos" in other.stderr
    assert bigsmall("synthesize", tmp_path / "one.mp4", *options).exit_code == 0
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "many" / "00000.mp4").read_bytes()


def test_info_counts_as_the_paper_does():
    said = bigsmall("info", "bigsmall").stdout.replace("\n", " ")
    assert "2,142,478 parameters" in said
    assert "155.384 MFLOPs" in said
    assert "flopth" in said
    assert "776,972 parameters" in bigsmall("info", "big").stdout
    assert "701,697 parameters" in bigsmall("info", "small").stdout


def test_help_waits_for_nothing_heavy():
    code = (
        "import sys; from bigsmall.cli import app; from typer.testing import CliRunner;"
        "done = CliRunner().invoke(app, ['--help']); assert 'measure' in done.stdout;"
        "print([name for name in ('torch', 'av', 'pandas', 'scipy', 'matplotlib') if name in sys.modules])"
    )
    assert run(sys.executable, "-c", code) == "[]"


def test_the_module_is_the_command():
    assert "Usage: bigsmall" in run(sys.executable, "-m", "bigsmall", "--help")


def run(*command: str) -> str:
    root = str(Path(__file__).resolve().parents[2])
    environment = os.environ | {"PYTHONPATH": root}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()
