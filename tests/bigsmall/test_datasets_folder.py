"""Your own videos: an index, label files, and `bigsmall prepare` from end to end."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from bigsmall import synthesis
from bigsmall.cli import app
from bigsmall.datasets import Clips, folder, open_prepared
from bigsmall.datasets.recording import Labels
from bigsmall.signals.filters import diff_normalize_label


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Two simulated people with their truth, in a folder."""
    root = tmp_path_factory.mktemp("people")
    for k in range(2):
        synthesis.synthesize(root / f"p{k}.mkv", seconds=3, fps=20, size=(64, 64), seed=k)
    return root


def index(root, text, name="index.csv"):
    (root / name).write_text(text, encoding="utf-8")
    return root / name


def test_prepare_makes_of_an_index_what_training_reads(people, tmp_path):
    path = index(
        people,
        "video,subject,labels,start,end\np0.mkv,ann,p0.csv,,\np1.mkv,bob,p1.csv,0.5,2\nlost.mkv,bob,,,\n",
        "all.csv",
    )
    called = ["prepare", "folder", str(path), "-o", str(tmp_path / "out"), "crop=square", "frames=[9]", "--workers=1"]
    result = CliRunner().invoke(app, called)
    assert result.exit_code == 1  # something failed, and is named
    assert "failed: lost: VideoError" in result.output.replace("\n", "")
    assert "2 prepared, 0 skipped, 1 failed" in result.output
    result = CliRunner().invoke(app, [*called, "skip=[lost]"])
    assert result.exit_code == 0
    assert "2 prepared, 1 skipped, 0 failed" in result.output
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    ratios = [of["ratio"] for entry in manifest["recordings"] for of in entry.get("drift", {}).values()]
    assert f"labels' clocks: at most {100 * max(abs(r - 1) for r in ratios):.2f} % off" in result.output

    first, second = open_prepared(tmp_path / "out")
    truth = np.genfromtxt(people / "p0.csv", delimiter=",", names=True)
    assert (first.name, first.subject, len(first), len(second)) == ("p0", "ann", 57, 30)
    np.testing.assert_allclose(first.bvp_wave, truth["bvp"][:57], atol=1e-2)
    np.testing.assert_allclose(first.heart_rate, truth["heart_rate"][:57], rtol=1e-3)
    np.testing.assert_allclose(first.respiration, diff_normalize_label(truth["respiration"])[:57], atol=1e-2)
    assert first.action_units == synthesis.AUS
    np.testing.assert_array_equal(first.au[:, 6], truth["AU12"][:57])
    np.testing.assert_allclose(second.timestamps[[0, -1]], [0.5, 1.95], atol=1e-3)
    clips = Clips([first, second], 3, ("big", "small", "difference:9"), ("au", "pulse", "respiration"))
    read, targets = clips.batch([0, 20])
    assert len(clips) == 19 + 10
    assert read["big"].shape == (2, 3, 144, 144)
    assert not any(target.isnan().any() for target in targets.values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["frames=[9"], "'frames=[9' is no option, expected KEY=VALUE"),
        (["crop=square", "9"], "'9' is no option, expected KEY=VALUE"),
        (["size=9"], "size is no option of folder"),
    ],
)
def test_wrong_calls_of_prepare(people, tmp_path, arguments, message):
    index(people, "video,subject\np0.mkv,ann\n")
    result = CliRunner().invoke(app, ["prepare", "folder", str(people), *arguments, "-o", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in result.output.replace("\n", "")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["index.csv", "index.tsv", "index.json"])
def test_an_index_of_any_kind(tmp_path, name):
    rows = [
        {"video": "a/one film.mp4", "subject": "1", "labels": ["x.csv", "y.csv"], "fps": 12.5, "start": None},
        {"video": "b.mp4", "subject": "2", "timestamps": "t.csv", "end": 4, "name": "second"},
    ]
    index(tmp_path, "timestamp\n0\n0.1\n0.3\n", "t.csv")
    columns = ("video", "subject", "labels", "fps", "timestamps", "start", "end", "name")
    cells = [[";".join(v) if isinstance(v, list) else str(v or "") for v in map(row.get, columns)] for row in rows]
    lines = [("\t" if "tsv" in name else ",").join(line) for line in [columns, *cells]]
    index(tmp_path, json.dumps(rows) if "json" in name else "\n".join(lines), name)
    first, second = folder.find(tmp_path)
    assert (first.name, first.subject, first.video) == ("a_one_film", "1", tmp_path / "a" / "one film.mp4")
    assert (first.fps, first.timestamps, first.start, first.end) == (12.5, None, -np.inf, None)
    assert first.labels.args == ([tmp_path / "x.csv", tmp_path / "y.csv"],)
    assert (second.name, second.fps, second.end) == ("second", None, 4.0)
    np.testing.assert_array_equal(second.timestamps, [0, 0.1, 0.3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("video,labels\na.mp4,\n", "row 2, column subject: was empty"),
        ("video,subject\na.mp4,x\n,y\n", "row 3, column video: was empty"),
        ("video,subject,fsp\na.mp4,x,3\n", "has a column 'fsp', expected video, subject, labels, fps"),
        ("video,subject,fps\na.mp4,x,fast\n", "row 2, column fps: was 'fast', expected a number"),
        ("video,subject,end\na.mp4,x,inf\n", "row 2, column end: was 'inf', expected a number"),
        ("video,subject\na.mp4,x\na.avi,x\n", "row 3: the name 'a' is that of .*row 2 too"),
        ("video,subject\na.mp4\n", "row 2: it has 1 cells, expected 2"),
        ("video,video\na.mp4,x\n", "row 1: the columns were"),
        ("video,subject\n", "has no rows"),
        ("", "has no rows"),
    ],
)
def test_a_wrong_index_says_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"index.csv.*{message}"):
        folder.find(index(tmp_path, text))


def test_an_index_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"holds 0 of index.csv, index.tsv and index.json"):
        folder.find(tmp_path)
    with pytest.raises(ValueError, match=r"index.json is no JSON"):
        folder.find(index(tmp_path, "{", "index.json"))
    with pytest.raises(ValueError, match=r"index.json holds something else"):
        folder.find(index(tmp_path, "{}", "index.json"))
    with pytest.raises(ValueError, match=r"ends in '.xls', expected .csv or .tsv"):
        folder.find(index(tmp_path, "video", "index.xls"))


def test_label_files_with_clocks_of_their_own(tmp_path):
    wave = index(tmp_path, "timestamp,bvp,pressure\n0,1,9\n0.5,,9\n1,3,9\n", "wave.csv")
    faces = index(tmp_path, "frame\tAU12\tau1\n4\t1\t\n6\t0\t1\n", "faces.tsv")
    rates = index(tmp_path, "frame,heart_rate\n0,60\n10,70\n", "rates.csv")
    labels = folder.read_labels([wave, faces, rates])
    np.testing.assert_array_equal(labels.bvp.values, [1, np.nan, 3])
    np.testing.assert_array_equal(labels.bvp.times, [0, 0.5, 1])
    assert (labels.bvp.frames, labels.heart_rate.frames) == (False, True)
    assert labels.action_units == ("AU01", "AU12")
    np.testing.assert_array_equal(labels.au, [[255, 1], [1, 0]])
    np.testing.assert_array_equal(labels.au_frames, [4, 6])
    assert labels.notes == ("wave.csv: not used: pressure",)
    assert labels.respiration is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,bvp\n0,1\n1,high\n", "row 3, column bvp: was 'high', expected a number"),
        ("timestamp,bvp\n0,1\n0,2\n", "row 3, column timestamp: was '0', expected increasing seconds"),
        ("timestamp,bvp\n0,1\n,2\n", "row 3, column timestamp: was '', expected increasing seconds"),
        ("frame,bvp\n0,1\n1.5,2\n", "row 3, column frame: was '1.5', expected increasing whole numbers"),
        ("timestamp,AU04\n0,1\n1,3\n", "row 3, column AU04: was '3', expected 1 .present., 0 .absent. or nothing"),
        ("time,bvp\n0,1\n", "has the columns time, bvp, expected timestamp or frame among them"),
        ("frame,pulse\n0,1\n", "has the columns frame, pulse, expected bvp"),
    ],
)
def test_a_wrong_label_file_says_where(tmp_path, text, message):
    with pytest.raises(ValueError, match=rf"labels.csv.*{message}"):
        folder.read_labels([index(tmp_path, text, "labels.csv")])


def test_label_files_that_cannot_be_taken(tmp_path):
    one, two = (index(tmp_path, "frame,bvp\n0,1\n1,2\n", name) for name in ("one.csv", "two.csv"))
    with pytest.raises(ValueError, match=r"two.csv has bvp, which another label file of the recording has too"):
        folder.read_labels([one, two])
    with pytest.raises(ValueError, match=r"three.csv cannot be read: No such file"):
        folder.read_labels([tmp_path / "three.csv"])
    (tmp_path / "four.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match=r"four.csv is no table of text"):
        folder.read_labels([tmp_path / "four.csv"])


def test_a_broken_file_of_timestamps_is_one_recordings_affair(tmp_path):
    index(tmp_path, "timestamp\n0\nsoon\n", "t.csv")
    recordings = folder.find(index(tmp_path, "video,subject,timestamps\na.mp4,x,t.csv\nb.mp4,x,\n"))
    with pytest.raises(ValueError, match=r"t.csv, row 3, column timestamp: was 'soon'"):
        recordings[0].labels()
    assert recordings[1].labels() == Labels()
