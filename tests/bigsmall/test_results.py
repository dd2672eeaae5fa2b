"""bigsmall.results: what a measurement writes, whole or not at all."""

import dataclasses
import json
import os
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from bigsmall.files import whole
from bigsmall.results import WINDOW_COLUMNS, Measurement, Reading, Thumbnail, Trace, measurement
from bigsmall.signals import HEART_RATE, RESPIRATION_RATE, Rate, Vital
from bigsmall.video import open_video
from bigsmall.weights import ACTION_UNITS

FOUND = Rate(71.98, "bpm", 0.97, (70.1, 73.9), None, 8.2, 72.6)
NOTHING = Rate(None, "bpm", 0.1, None, "no heart rate found: the strongest rhythm, 51.2 bpm, is weak", 1.5, None)
FACE_CSV = ["frame", "timestamp", "face_id", "success", "confidence", "x", "y", "w", "h", "bvp", "respiration"]
NAMES = ["AU01", "AU02", "AU04", "AU06", "AU07", "AU10", "AU12", "AU14", "AU15", "AU17", "AU23", "AU24"]


def measured(*, units=ACTION_UNITS, refused=False, traces=True, n=300, face_id=0, name="face.mp4") -> Measurement:
    """A face for n frames at 30 a second, gone from 6 to 7 s; of its six windows the third and fourth are refused."""
    t = np.arange(n) / 30
    wave = np.sin(2 * np.pi * 1.2 * t)
    lost = (t > 6) & (t < 7)
    face = np.where(lost, np.nan, 1.0)
    frames = pd.DataFrame(
        {"frame": np.arange(n), "timestamp": t, "face_id": np.full(n, face_id), "success": (~lost).astype(int),
         "confidence": 0.99 * face, "x": 10 * face, "y": 20 * face, "w": 30 * face, "h": 40 * face,
         "bvp": wave * face, "respiration": wave * face}
        | dict.fromkeys(units, 0.2 * face)
        | {f"{name}_c": pd.array(np.where(lost, np.nan, 0.0), dtype="Int64") for name in units}
    )  # fmt: skip
    reading = Reading.of(NOTHING if refused else FOUND, HEART_RATE)
    rows = []
    for start in range(6 if traces else 0):
        fine = start not in (2, 3) and not refused
        why = None if fine else f"the head moved too much: {start}.5 %"
        values = (72 + start, "bpm", 0.9, 70, 74) if fine else (None, "bpm", 0.2, None, None)
        rows.append([face_id, "heart_rate", start, start + 4.0, *values, 9.0, 72.5, 71.0, why])
    trace = Trace(wave, wave, 30.0, 0.0)
    return Measurement(
        source={"name": name, "width": 64, "height": 48, "fps": 30.0, "frames": n, "repeated": 0,
                "seconds": n / 30 if n > 1 else 0.0, "note": None},
        heart_rate=reading,
        respiration_rate=Reading.refused(RESPIRATION_RATE, "20 s with a face are needed"),
        unsupervised={"pos": reading, "chrom": reading, "green": Reading.of(NOTHING, HEART_RATE)},
        frames=frames,
        windows=pd.DataFrame(rows, columns=list(WINDOW_COLUMNS)),
        lost=((6.03, 6.97),) if n == 300 else (),
        model={"weights": "default", "crop": "face", "cards": [{"name": "default", "note": "a toy & more"}]},
        action_units=tuple(units),
        traces=dict.fromkeys(("pulse", "respiration", "pos", "chrom", "chest"), trace) if traces else {},
        face_id=face_id,
        thumbnails=tuple(Thumbnail(s, np.full((96, 96, 3), 20 * s, np.uint8)) for s in (1, 5, 9)) if n == 300 else (),
    )  # fmt: skip


def band(vital: Vital) -> list[float]:
    return [round(60 * vital.low, 6), round(60 * vital.high, 6)]


def two_faces() -> Measurement:
    """The second is seen in frames 100 to 149 only, and so are its rows."""
    other = measured(face_id=3)
    part = other.frames.iloc[100:150].reset_index(drop=True)
    other = dataclasses.replace(other, frames=part, lost=((0.0, 3.3), (5.0, 10.0)))
    return dataclasses.replace(measured(), others=(other,))


CASES = {
    "all": {}, "refused": {"refused": True}, "no action units": {"units": ()},
    "no waveforms": {"traces": False, "refused": True}, "a photograph": {"n": 1, "traces": False},
}  # fmt: skip
anything = pytest.mark.parametrize("options", CASES.values(), ids=CASES)


# --- tables -----------------------------------------------------------------------------------------------------------


def test_json(tmp_path):
    measured().to_json(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    found = json.loads(text)
    assert "NaN" not in text
    assert found["schema_version"] == 2
    expected = {"value": 71.98, "unit": "bpm", "confidence": 0.97, "interval": [70.1, 73.9], "note": None}
    assert found["heart_rate"] == expected | {"band": band(HEART_RATE), "snr": 8.2, "by_peaks": 72.6}
    assert found["respiration_rate"]["value"] is None
    assert found["respiration_rate"]["interval"] is None
    assert found["respiration_rate"]["note"] == "20 s with a face are needed"
    assert found["respiration_rate"]["band"] == band(RESPIRATION_RATE)
    (face,) = found["faces"]
    assert face["face_id"] == 0
    assert face["heart_rate"] == found["heart_rate"]
    assert list(face["unsupervised"]) == ["pos", "chrom", "green"]
    assert face["unsupervised"]["pos"]["value"] == 71.98
    assert face["unsupervised"]["green"]["value"] is None
    assert list(face["action_units"]) == NAMES
    assert face["action_units"]["AU12"] == {"mean_probability": 0.2, "active_share": 0.0}
    assert (face["frames_with_face"], face["frames"], face["lost"]) == (271, 300, [{"start": 6.03, "end": 6.97}])
    assert found["model"]["cards"][0]["name"] == "default"
    assert found["source"]["name"] == "face.mp4"
    assert found["disclaimer"].startswith("Not a medical device")


def test_json_holds_every_face(tmp_path):
    two_faces().to_json(tmp_path / "m.json")
    found = json.loads((tmp_path / "m.json").read_text())
    assert [(face["face_id"], face["frames_with_face"]) for face in found["faces"]] == [(0, 271), (3, 50)]


def test_csv_has_the_columns_that_were_promised(tmp_path):
    measured().to_csv(tmp_path / "f.csv")
    frames = pd.read_csv(tmp_path / "f.csv")
    assert list(frames) == FACE_CSV + NAMES + [f"{name}_c" for name in NAMES]
    assert len(frames) == 300
    lost = frames["success"] == 0
    assert frames.loc[lost, "bvp"].isna().all()
    assert frames.loc[lost, "AU01_c"].isna().all()
    assert set(frames.loc[~lost, "AU01_c"]) == {0}
    assert "0.0," not in (tmp_path / "f.csv").read_text().splitlines()[1].split(",", 22)[-1]  # 0/1, not 0.0/1.0


def test_csv_keeps_a_millionth_even_after_an_hour(tmp_path):
    m = measured()
    m.frames["timestamp"] += 3600.0
    m.to_csv(tmp_path / "f.csv")
    again = pd.read_csv(tmp_path / "f.csv")
    for column in FACE_CSV + NAMES:
        np.testing.assert_allclose(again[column], m.frames[column].astype(float), rtol=0, atol=0.6e-6)


def test_parquet_reads_back_as_it_was(tmp_path):
    m = measured()
    m.to_parquet(tmp_path / "f.parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "f.parquet"), m.frames)


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install 'bigsmall-kernels\[parquet\]'"):
        measured().to_parquet(tmp_path / "f.parquet")
    assert list(tmp_path.iterdir()) == []


def test_tables_hold_every_face_by_frame_and_face_id(tmp_path):
    m = two_faces()
    m.to_csv(tmp_path / "f.csv")
    m.to_parquet(tmp_path / "f.parquet")
    for frames in (pd.read_csv(tmp_path / "f.csv"), pd.read_parquet(tmp_path / "f.parquet")):
        assert len(frames) == 350
        assert list(zip(frames["frame"], frames["face_id"], strict=True)) == sorted(
            zip(frames["frame"], frames["face_id"], strict=True)
        )
        assert list(frames.loc[frames["face_id"] == 3, "frame"]) == list(range(100, 150))


# --- the picture ------------------------------------------------------------------------------------------------------


@anything
def test_the_picture_can_be_drawn_of_anything(tmp_path, options):
    measured(**options).plot(tmp_path / "s.png")
    data = (tmp_path / "s.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(data) > 20_000


def test_the_suffix_names_the_format(tmp_path):
    measured(units=()).plot(tmp_path / "s.svg")
    assert "<svg" in (tmp_path / "s.svg").read_text()


def texts(m: Measurement) -> str:
    from bigsmall.results.plot import draw

    return "\n".join(text.get_text() for axes in draw(m).axes for text in (*axes.texts, axes.title, axes._left_title))


def test_the_picture_says_what_was_measured_and_what_was_refused():
    said = texts(measured())
    for words in (
        "face.mp4", "72.0 bpm", "95 % 70.1 to 73.9", "SNR 8.2 dB, by peaks 72.6", "POS 72.0, CHROM 72.0, GREEN refused",
        "20 s with a face are needed", "no face", "the head moved too much", "windows of 4 s", "lip corner puller",
    ):  # fmt: skip
        assert words in said, words
    assert "face 0" not in said
    refused = texts(measured(refused=True))
    assert "refused" in refused
    assert "the strongest rhythm" in refused


def test_a_picture_of_one_face_among_others_says_which():
    m = two_faces()
    assert "face 0" in texts(m)
    assert "face 3" in texts(m.others[0])


@pytest.mark.filterwarnings("error")
def test_a_file_name_is_no_formula_and_may_be_in_any_alphabet(tmp_path):
    measured(n=5, units=(), name="\u65e5\u672c").plot(tmp_path / "p.png")
    assert "a $x_1$ b" in texts(measured(units=(), name="a $x_1$ b"))


def test_nothing_is_drawn_where_a_face_was_not_seen():
    from bigsmall.results import series

    (other,) = two_faces().others
    assert series.span(other) == (0.0, 10.0)
    edges, values = series.averages(other)
    shown = edges[:-1][np.isfinite(values[:, 0])]
    assert 3.2 < shown.min() < shown.max() < 5.0
    gone = dataclasses.replace(other, frames=other.frames.drop(index=range(20, 30)).reset_index(drop=True))
    times, wave = series.waveform(gone, series.PULSE, (0.0, 10.0))
    assert np.isnan(wave).sum() == 1  # the curve breaks there
    assert 3.9 < times[np.isnan(wave)][0] < 4.4


def test_windows_are_joined_to_runs_by_their_reason():
    from bigsmall.results import series

    found = series.runs(measured(), series.PULSE)
    assert [(run.start, run.end, run.why) for run in found] == [
        (1.5, 3.5, None), (3.5, 5.5, "the head moved too much"), (5.5, 7.5, None)
    ]  # fmt: skip
    m = measured()
    m = dataclasses.replace(m, windows=m.windows.drop(index=4).reset_index(drop=True))
    assert [run.end for run in series.runs(m, series.PULSE)] == [3.5, 5.5, 7.5]
    assert series.runs(m, series.PULSE)[-1].start == 6.5  # a lost face leaves a gap


# --- the page ---------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements that are open, every element's name and attributes, and the text."""

    VOID = frozenset({"meta", "path", "rect", "image", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in self.VOID or tag in ("rect", "image"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data


def page(m: Measurement, tmp_path) -> Page:
    m.report(tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    parsed = Page(text)
    assert parsed.open == []
    return parsed


@anything
def test_a_page_can_be_written_of_anything_and_needs_nothing_else(tmp_path, options):
    found = page(measured(**options), tmp_path)
    assert {"script", "link", "iframe", "object"}.isdisjoint(name for name, _ in found.elements)
    for _, attributes in found.elements:
        for name in ("src", "href", "xlink:href", "data", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:image/jpeg;base64,") or name not in attributes
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w|@import|url\(", re.sub(r"base64,[\w+/=]+", "", text))
    assert "default-src 'none'" in text


def test_the_page_says_what_was_measured_and_what_was_refused_and_why(tmp_path):
    said = page(measured(), tmp_path).text
    for words in (
        "face.mp4", "72.0 bpm", "95 % 70.1 to 73.9, confidence 0.97", "POS 72.0, CHROM 72.0, GREEN refused",
        "What was refused, and why", "Respiration rate", "20 s with a face are needed", "no face", "6.0 to 7.0 s",
        "Heart rate, 2 windows", "3.5 to 5.5 s", "the head moved too much", "the strongest rhythm, 51.2 bpm",
        "a toy & more", "Not a medical device",
    ):  # fmt: skip
        assert words in said, words
    assert "Face 0" not in said


def test_where_nothing_was_refused_the_page_says_so(tmp_path):
    m = measured()
    fine = Reading.of(FOUND, HEART_RATE)
    m = dataclasses.replace(
        m, respiration_rate=fine, unsupervised={"pos": fine}, lost=(), windows=m.windows.dropna(subset=["value"])
    )
    assert "Nothing was refused." in page(m, tmp_path).text


def test_the_page_has_a_section_for_every_face(tmp_path):
    said = page(two_faces(), tmp_path).text
    assert "Face 0" in said
    assert "Face 3" in said
    assert said.count("What was refused, and why") == 2


def test_what_others_wrote_is_text_on_the_page_and_no_markup(tmp_path):
    evil = '<img src=x onerror="alert(1)">&amp;</style></title>'
    m = measured(name=evil, units=(evil,))
    m.frames[f"{evil}_c"] = 1
    model = m.model | {"weights": evil, "cards": [{"name": evil, "note": evil}]}
    m = dataclasses.replace(m, heart_rate=Reading.refused(HEART_RATE, evil), model=model)
    m.windows["note"] = m.windows["note"].where(m.windows["note"].isna(), evil)
    found = page(m, tmp_path)
    assert "img" not in {name for name, _ in found.elements}
    assert found.text.count(evil) >= 6


def test_charts_are_described_for_those_who_do_not_see_them(tmp_path):
    elements = page(measured(), tmp_path).elements
    labels = [attributes.get("aria-label") for name, attributes in elements if name in ("svg", "image")]
    assert len(labels) == 7 + 3  # three charts of each rate, the action units, three thumbnails
    assert all(labels)
    assert "Heart rate over time: 72 to 77 bpm in 4 of 6 windows" in labels
    assert "Spectrum of the pulse: peak at 72.0" in labels
    assert "the face at 5.0 s" in labels


def hour() -> Measurement:
    n = 108_000
    m, t = measured(), np.arange(n) / 30
    frames = m.frames.iloc[np.arange(n) % 300].assign(frame=np.arange(n), timestamp=t).reset_index(drop=True)
    frames[NAMES] = np.random.default_rng(0).random((n, 12))
    windows = m.windows.iloc[np.arange(3590) % 6].assign(start=np.arange(3590.0)).reset_index(drop=True)
    wave = np.sin(7.5 * t)
    return dataclasses.replace(
        m, source=m.source | {"seconds": 3600.0, "frames": n}, frames=frames,
        windows=windows.assign(end=windows["start"] + 10), lost=(), traces={"pulse": Trace(wave, wave, 30.0, 0.0)},
        thumbnails=tuple(Thumbnail(30.0 * i, np.random.default_rng(i).integers(0, 256, (96, 96, 3), np.uint8))
                         for i in range(120)),
    )  # fmt: skip


def test_an_hour_is_a_page_below_3_megabytes(tmp_path):
    m = hour()
    found = page(m, tmp_path)
    assert (tmp_path / "report.html").stat().st_size < 3e6
    assert "windows.csv has them all" in found.text
    assert "0:00 to 60:00" in found.text  # the clock counts minutes
    assert 5 < sum(name == "image" for name, _ in found.elements) < 20  # those that do not cover each other


# --- the folder -------------------------------------------------------------------------------------------------------


def test_saving_writes_everything(tmp_path):
    written = measured().save(tmp_path / "new" / "folder")
    assert [p.name for p in written] == ["frames.csv", "measurement.json", "report.html", "signals.png", "windows.csv"]
    assert sorted((tmp_path / "new" / "folder").iterdir()) == written
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["folder"]
    windows = pd.read_csv(written[4])
    assert list(windows) == list(WINDOW_COLUMNS)
    assert list(windows["value"].isna()) == [False, False, True, True, False, False]
    measured(refused=True).save(tmp_path / "new" / "folder")  # over the old ones
    assert json.loads(written[1].read_text())["heart_rate"]["value"] is None


def test_saving_several_faces_draws_each(tmp_path):
    two_faces().save(tmp_path / "out")
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"signals.png", "signals_3.png"}
    assert list(pd.read_csv(tmp_path / "out" / "windows.csv")["face_id"].unique()) == [0, 3]
    (tmp_path / "out" / "signals_mine.png").write_text("")
    measured().save(tmp_path / "out")  # and no face of an older measurement stays
    assert {p.name for p in (tmp_path / "out").glob("*.png")} == {"signals.png", "signals_mine.png"}


def test_into_a_folder_that_is_there_files_are_renamed_within_it(tmp_path, monkeypatch):
    """It may be a mount, or its parent closed."""
    moved = []
    monkeypatch.setattr(measurement.os, "replace", lambda a, b, replace=os.replace: (moved.append(a), replace(a, b)))
    measured().save(tmp_path)
    assert all(tmp_path in path.parents for path in moved)
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_who_writes_the_same_file_last_wins(tmp_path):
    with whole(tmp_path / "a.txt") as first, whole(tmp_path / "a.txt") as second:
        first.write_text("first")
        second.write_text("second")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "first")]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    """Else a power cut may leave an empty file where the old one was."""
    path, done = tmp_path / "a.txt", []
    path.write_text("old")
    sync = os.fsync

    def synced(descriptor: int) -> None:
        done.append((os.fstat(descriptor).st_size, path.read_text()))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", synced)
    with whole(path) as aside:
        aside.write_text("newer")
    assert done == [(5, "old")]
    assert path.read_text() == "newer"


def test_a_measurement_is_equal_to_itself_only():
    one, other = measured(n=5), measured(n=5)
    assert {one, other, one} == {other, one}
    assert one != other


def test_a_failure_leaves_what_was_there(tmp_path, monkeypatch):
    m = measured()
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "measurement.json").write_text("old")

    def broken(*_, **__):
        raise OSError("disk full")

    monkeypatch.setattr(Measurement, "plot", broken)
    for folder in ("kept", "never"):
        with pytest.raises(OSError, match="disk full"):
            m.save(tmp_path / folder)
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]
    assert [(p.name, p.read_text()) for p in (tmp_path / "kept").iterdir()] == [("measurement.json", "old")]
    monkeypatch.undo()

    writers = {"m.json": m.to_json, "f.csv": m.to_csv, "f.parquet": m.to_parquet, "s.png": m.plot, "r.html": m.report}
    monkeypatch.setattr(measurement.os, "replace", broken)
    for name, write in writers.items():
        (tmp_path / name).write_text("old")
        with pytest.raises(OSError, match="disk full"):
            write(tmp_path / name)
        assert (tmp_path / name).read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["kept", *writers])


def test_measured_means_a_rate_or_action_units_of_any_face():
    assert measured(units=()).measured
    assert measured(refused=True).measured  # its action units
    nobody = measured(refused=True, units=())
    assert not nobody.measured
    assert dataclasses.replace(nobody, others=(measured(face_id=1),)).measured


# --- the video --------------------------------------------------------------------------------------------------------


def with_video(m: Measurement, *, size=(240, 320), level=90, times=None) -> Measurement:
    n = m.source["frames"]
    frames = np.full((n, *size, 3), level, np.uint8)
    times = m.frames["timestamp"].to_numpy() if times is None else times
    table = m.frames.assign(timestamp=times)
    return dataclasses.replace(m, frames=table, video=open_video(frames, timestamps=times))


def test_the_overlay_shows_boxes_units_traces_and_rates_at_the_true_times(tmp_path):
    m = measured(n=90)
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.05, 90)) + 0.5
    m.frames.loc[30:39, ["success"]] = 0
    m.frames.loc[m.frames["frame"] >= 50, "AU12"] = 0.9
    told = []
    with_video(m, times=times).overlay(tmp_path / "o.mp4", progress=lambda *step: told.append(step))
    assert told[0] == ("drawing", 1, 90)
    assert told[-1] == ("drawing", 90, 90)
    assert [p.name for p in tmp_path.iterdir()] == ["o.mp4"]
    frames = list(open_video(tmp_path / "o.mp4"))
    np.testing.assert_allclose([frame.timestamp for frame in frames], times, rtol=0, atol=1e-4)
    assert frames[0].rgb.shape == (240, 320, 3)

    def bright(index, x, y):
        return int(frames[index].rgb[y - 2 : y + 3, x - 2 : x + 3].max())

    assert bright(20, 40, 40) > 180  # the right edge of the box of 10..40 by 20..60 ...
    assert bright(35, 40, 58) < 150  # ... is not there where there is no face
    orange = [(frame.rgb[..., 0].astype(int) - frame.rgb[..., 2] > 90).sum() for frame in frames]
    assert max(orange[:49]) < 40 < min(orange[52:])  # AU12 lights up when it becomes active
    assert frames[60].rgb[-20:, 200:].max() > 130  # a trace over the darkened strip
    assert frames[60].rgb[-20:, 200:].min() < 45


@pytest.mark.parametrize(("start", "shown"), [(-3.0, 0.0), (1.76e9, 0.0), (12.5, 12.5)])
def test_the_overlay_of_a_clock_that_does_not_begin_with_the_video(tmp_path, start, shown):
    with_video(measured(n=5), times=start + np.arange(5) / 30).overlay(tmp_path / "o.mp4")
    frames = list(open_video(tmp_path / "o.mp4"))
    np.testing.assert_allclose([frame.timestamp for frame in frames], shown + np.arange(5) / 30, rtol=0, atol=1e-4)


def test_the_overlay_is_even_sized_and_at_most_full_hd(tmp_path):
    m = measured(n=3, units=(), traces=False)
    for size, expected in (((101, 75), (100, 74)), ((1300, 2600), (960, 1920)), ((9, 9), (8, 8))):
        with_video(m, size=size).overlay(tmp_path / "o.mp4")
        frames = list(open_video(tmp_path / "o.mp4"))
        assert len(frames) == 3
        assert frames[0].rgb.shape[:2] == expected


def test_the_overlay_of_several_faces_and_of_nothing_at_all(tmp_path):
    with_video(two_faces()).overlay(tmp_path / "o.mp4")
    assert len(list(open_video(tmp_path / "o.mp4"))) == 300
    nothing = measured(n=5, refused=True, traces=False)
    nothing.frames["success"] = 0
    with_video(nothing).overlay(tmp_path / "n.mp4")
    assert len(list(open_video(tmp_path / "n.mp4"))) == 5


def test_an_overlay_that_fails_leaves_nothing(tmp_path):
    def stop(stage, done, total):
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        with_video(measured(n=10)).overlay(tmp_path / "o.mp4", progress=stop)
    with pytest.raises(ValueError, match="video was None"):
        measured().overlay(tmp_path / "o.mp4")
    with pytest.raises(ValueError, match=r"path was '.*o\.avi', expected a name that ends in \.mp4"):
        with_video(measured(n=3)).overlay(tmp_path / "o.avi")
    assert list(tmp_path.iterdir()) == []
