"""bigsmall.results: what a measurement writes, whole or not at all."""

import json

import numpy as np
import pandas as pd
import pytest

from bigsmall import results
from bigsmall.results import Measurement, Reading, Trace
from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Rate
from bigsmall.weights import ACTION_UNITS

WINDOW_COLUMNS = [
    "face_id", "vital", "start", "end", "value", "unit", "confidence", "low", "high", "snr", "peaks", "pos", "note",
]  # fmt: skip


def measurement(*, units=ACTION_UNITS, refused=False, traces=True, n=300) -> Measurement:
    t = np.arange(n) / 30
    wave = np.sin(2 * np.pi * 1.2 * t)
    lost = (t > 6) & (t < 7)
    face = np.where(lost, np.nan, 1.0)
    frames = pd.DataFrame(
        {"frame": np.arange(n), "timestamp": t, "face_id": np.zeros(n, int), "success": (~lost).astype(int),
         "confidence": 0.99 * face, "x": 10 * face, "y": 20 * face, "w": 30 * face, "h": 40 * face,
         "bvp": wave * face, "respiration": wave * face}
        | dict.fromkeys(units, 0.2 * face)
        | {f"{name}_c": pd.array(np.where(lost, np.nan, 0.0), dtype="Int64") for name in units}
    )  # fmt: skip
    found = Rate(71.98, "bpm", 0.97, (70.1, 73.9))
    nothing = Rate(None, "bpm", 0.1, None, "no heart rate found")
    trace = Trace(wave, wave, 30.0, 0.0)
    return Measurement(
        source={"name": "face.mp4", "width": 320, "height": 240, "fps": 30.0, "frames": n, "seconds": n / 30,
                "note": None},
        heart_rate=Reading.of(nothing if refused else found, HEART_RATE),
        respiration_rate=Reading.refused(RESPIRATION_RATE, "20 s with a face are needed"),
        unsupervised={"pos": Reading.of(found, HEART_RATE)},
        frames=frames,
        windows=pd.DataFrame(
            [[0, "heart_rate", 0, 10, 72, "bpm", 0.97, 70, 74, 9.0, 72.5, 71, None]], columns=WINDOW_COLUMNS
        ),
        lost=((6.03, 6.97),) if n == 300 else (),
        model={"weights": "default", "crop": "face", "cards": [{"name": "default"}]},
        action_units=tuple(units),
        traces={"pulse": trace, "pos": trace, "respiration": trace} if traces else {},
    )  # fmt: skip


def test_json(tmp_path):
    measurement().to_json(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    found = json.loads(text)
    assert "NaN" not in text
    assert found["schema_version"] == 2
    expected = {"value": 71.98, "unit": "bpm", "confidence": 0.97, "interval": [70.1, 73.9], "note": None}
    assert found["heart_rate"] == expected | {"band": [42.0, 180.0], "snr": None, "by_peaks": None}
    assert found["respiration_rate"]["value"] is None
    assert found["respiration_rate"]["interval"] is None
    assert found["respiration_rate"]["note"] == "20 s with a face are needed"
    assert found["respiration_rate"]["band"] == [7.8, 30.0]
    (face,) = found["faces"]
    assert face["unsupervised"]["pos"]["value"] == 71.98
    assert list(face["action_units"]) == list(ACTION_UNITS)
    assert face["action_units"]["AU12"] == {"mean_probability": 0.2, "active_share": 0.0}
    assert (face["frames_with_face"], face["frames"], face["lost"]) == (271, 300, [{"start": 6.03, "end": 6.97}])
    assert found["model"]["cards"] == [{"name": "default"}]
    assert found["source"]["name"] == "face.mp4"
    assert found["disclaimer"].startswith("Not a medical device")


def test_csv_has_the_columns_that_were_promised(tmp_path):
    measurement().to_csv(tmp_path / "f.csv")
    frames = pd.read_csv(tmp_path / "f.csv")
    first = ["frame", "timestamp", "face_id", "success", "confidence", "x", "y", "w", "h", "bvp", "respiration"]
    units = ["AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24"]
    assert list(frames) == first + units + [f"{name}_c" for name in units]
    assert len(frames) == 300
    lost = frames["success"] == 0
    assert frames.loc[lost, "bvp"].isna().all()
    assert frames.loc[lost, "AU01_c"].isna().all()
    assert set(frames.loc[~lost, "AU01_c"]) == {0}
    assert "0.0," not in (tmp_path / "f.csv").read_text().splitlines()[1].split(",", 22)[-1]  # 0/1, not 0.0/1.0


@pytest.mark.parametrize(
    "options",
    [{}, {"refused": True}, {"units": ()}, {"traces": False, "refused": True}, {"n": 1, "traces": False}],
    ids=["all", "refused", "no action units", "no waveforms", "a photograph"],
)
def test_the_picture_can_be_drawn_of_anything(tmp_path, options):
    measurement(**options).plot(tmp_path / "s.png")
    data = (tmp_path / "s.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 20_000


def texts(figure) -> str:
    return "\n".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_the_picture_says_what_was_measured_and_what_was_refused():
    from bigsmall.plot import draw

    said = texts(draw(measurement()))
    assert "72.0 bpm" in said
    assert "95 % 70.1 to 73.9" in said
    assert "20 s with a face are needed" in said
    assert "no face" in said
    assert "refused" in texts(draw(measurement(refused=True)))


def test_saving_writes_all_four_files(tmp_path):
    written = measurement().save(tmp_path / "new" / "folder")
    assert [path.name for path in written] == ["measurement.json", "frames.csv", "windows.csv", "signals.png"]
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == sorted(p.name for p in written)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["folder"]
    assert list(pd.read_csv(written[2])) == WINDOW_COLUMNS
    measurement(refused=True).save(tmp_path / "new" / "folder")  # over the old ones
    assert json.loads(written[0].read_text())["heart_rate"]["value"] is None


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    m = measurement()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "measurement.json").write_text("old")

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(Measurement, "plot", broken)
    for folder in ("kept", "never"):
        with pytest.raises(OSError, match="disk full"):
            m.save(tmp_path / folder)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert [(p.name, p.read_text()) for p in (tmp_path / "kept").iterdir()] == [("measurement.json", "old")]

    (tmp_path / "m.json").write_text("old")
    monkeypatch.setattr(results.os, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        m.to_json(tmp_path / "m.json")
    assert (tmp_path / "m.json").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept", "m.json"]


def test_measured_means_a_rate_or_action_units():
    assert measurement(units=()).measured
    assert measurement(refused=True).measured  # its action units
    assert not measurement(refused=True, units=()).measured
