"""Real clips through the command: what is known of each is measured or refused with the reason, never made up.

They lie beside the checkout (../shared/reference/media, with what is known of them); without them these tests skip.
"""

import json
import shutil
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from bigsmall.cli import app
from bigsmall.video import VideoWriter

PUBLISHED = (50, 60)  # bpm of evm_face.mp4, about 53


class Measured(NamedTuple):
    exit_code: int
    said: str  # on either stream, in one line
    report: dict
    frames: pd.DataFrame


@pytest.fixture
def measure(tmp_path):
    """`bigsmall measure VIDEO ...`, and what it said and wrote."""

    def run(video: Path, *options: object) -> Measured:
        folder = tmp_path / "out"
        done = CliRunner().invoke(app, [str(o) for o in ("measure", video, "-o", folder, *options)])
        said = " ".join((done.stdout + done.stderr).split())
        if not folder.exists():
            return Measured(done.exit_code, said, {}, pd.DataFrame())
        found = json.loads((folder / "measurement.json").read_text()), pd.read_csv(folder / "frames.csv")
        shutil.rmtree(folder)
        return Measured(done.exit_code, said, *found)

    return run


@pytest.fixture(scope="session")
def media(reference_dir) -> Path:
    return reference_dir / "media"


@pytest.fixture(scope="session")
def authors(reference_dir) -> dict[str, str]:
    """The authors' three networks, as --weights takes them."""
    files = {"au": "Big_AU", "pulse": "Small_Heart", "respiration": "Small_Resp"}
    folder = reference_dir / "checkpoints"
    return {task: f"{task}={folder}/BP4D_{file}_Clip3_Split1_Epoch4.pth" for task, file in files.items()}


def true_times(path: Path) -> list[float]:
    """Seconds of every frame by the file's own clock, from its packets."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps = sorted(packet.pts for packet in container.demux(stream) if packet.pts is not None)
        return [float((pts - stamps[0]) * stream.time_base) for pts in stamps]


def remuxed(source: Path, target: Path) -> Path:
    """The same pictures in a container that can be read as far as it goes."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                made.mux(packet)
    return target


def right_or_refused(rate: dict) -> bool:
    return bool(rate["note"]) if rate["value"] is None else PUBLISHED[0] <= rate["value"] <= PUBLISHED[1]


def test_the_pulse_of_a_real_face(media, measure):
    m = measure(media / "evm_face.mp4")
    assert m.exit_code == 0
    assert right_or_refused(m.report["heart_rate"])
    assert all(map(right_or_refused, m.report["faces"][0]["unsupervised"].values()))
    assert m.report["respiration_rate"]["value"] is None
    assert "20 s with a face are needed" in m.report["respiration_rate"]["note"]
    assert m.report["source"]["frames"] == len(m.frames) == 301
    assert m.frames["success"].all()
    assert np.allclose(m.frames["timestamp"], np.arange(301) / 30, atol=1e-3)


def test_the_pulse_of_a_real_face_by_the_authors_weights(media, measure, authors):
    """The square at the top left is where their networks give 53.1 to 53.3 bpm (reference/media)."""
    m = measure(media / "evm_face.mp4", "--weights", ",".join(authors.values()), "--crop", "0,0,528,528")
    assert m.exit_code == 0
    assert m.report["heart_rate"]["value"] == pytest.approx(53.2, abs=1)
    assert [card["tasks"] for card in m.report["model"]["cards"]] == [["au"], ["pulse"], ["respiration"]]
    assert m.frames["AU12"].notna().sum() >= 297  # whole clips of three of the 301 frames
    as_trained = measure(media / "evm_face.mp4", "--weights", authors["pulse"])
    assert as_trained.report["model"]["crop"] == "square"
    assert right_or_refused(as_trained.report["heart_rate"])


def test_a_smile_comes_and_goes(media, measure, authors):
    m = measure(media / "pyfeat_single_face.mp4", "--weights", authors["au"], "--crop", "face")
    assert m.exit_code == 0
    assert len(m.frames) == 72
    before, smiling, after = (m.frames["AU12"][part].mean() for part in (slice(0, 10), slice(30, 60), slice(66, 72)))
    assert smiling > 3 * max(before, after)  # all of them far below the threshold: this is not BP4D+
    assert "these weights do not measure pulse" in m.report["heart_rate"]["note"]


def test_two_seconds_of_a_face_give_action_units_and_no_rate(media, measure):
    m = measure(media / "pyfeat_single_face.mp4")
    assert m.exit_code == 0
    assert m.report["heart_rate"]["value"] is m.report["respiration_rate"]["value"] is None
    assert "8 s with a face are needed to measure a heart rate; there are 2.4 s" in m.said
    assert "20 s with a face are needed" in m.said
    assert m.frames["AU12"].notna().sum() >= 69


def test_a_face_that_leaves_on_the_films_own_clock(media, measure):
    m = measure(media / "pyfeat_face_noface.mov")
    assert m.exit_code == 0
    times = m.frames["timestamp"].to_numpy()
    assert np.allclose(times, true_times(media / "pyfeat_face_noface.mov"), atol=1e-6)
    assert np.diff(times).min() < 0.015 < 0.04 < np.diff(times).max()  # not evenly spaced
    assert m.report["source"]["frames"] == len(times) == 169
    there = m.frames["success"] == 1
    assert there.to_numpy().tolist() == [True] * 72 + [False] * 97
    [lost] = m.report["faces"][0]["lost"]
    assert (lost["start"], lost["end"]) == pytest.approx((times[72], times[168]), abs=1e-6)
    assert "2.4 to 6.4 s" in m.said
    assert m.frames.loc[~there, ["confidence", "x", "bvp", "respiration", "AU12", "AU12_c"]].isna().all(axis=None)
    assert m.frames.loc[there, "AU12"].notna().sum() >= 69
    assert "there are 2.4 s" in m.report["heart_rate"]["note"]


def test_a_film_without_a_face_is_3(media, measure):
    m = measure(media / "pyfeat_no_face.mp4")
    assert m.exit_code == 3
    assert m.said.endswith("pyfeat_no_face.mp4: no face was found")
    assert m.report["heart_rate"]["note"] == "no face was found"
    assert not m.frames["success"].any()
    assert m.frames.filter(like="AU").isna().all(axis=None)


@pytest.mark.parametrize("name", ["pyfeat_single_face.jpg", "pyfeat_multi_face.jpg"])
def test_a_still_is_3(media, measure, name):
    m = measure(media / name)
    assert m.exit_code == 3
    assert "nothing could be measured" in m.said
    assert "action units need 3 different frames in a row with a face" in m.said
    assert len(m.frames) == 1
    assert m.frames["success"].tolist() == [1]
    assert m.frames.filter(like="AU").isna().all(axis=None)


def test_everyone_in_a_group(media, measure, tmp_path):
    with av.open(str(media / "pyfeat_multi_face.jpg")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="rgb24")
    rng = np.random.default_rng(0)
    with VideoWriter(tmp_path / "group.mkv", 25) as writer:
        for _ in range(7):
            writer.write(np.clip(picture + rng.normal(0, 2, picture.shape), 0, 255).astype(np.uint8))
    m = measure(tmp_path / "group.mkv", "--all-faces")
    assert m.exit_code == 0
    assert len(m.report["faces"]) == m.frames["face_id"].nunique() >= 4
    assert m.frames.groupby("face_id")["AU12"].count().ge(6).all()


@pytest.mark.parametrize("name", ["evm_face.mp4", "pyfeat_face_noface.mov"])
def test_a_cut_file_whose_index_is_lost_is_4(media, measure, tmp_path, name):
    cut = tmp_path / name
    cut.write_bytes((media / name).read_bytes()[:-20_000])
    m = measure(cut)
    assert m.exit_code == 4
    assert m.said.startswith("bigsmall: ")
    assert name in m.said
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_cut_file_is_measured_as_far_as_it_goes(media, measure, tmp_path):
    whole = remuxed(media / "pyfeat_single_face.mp4", tmp_path / "whole.mkv")
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    m = measure(cut)
    assert m.exit_code == 0
    assert 10 < len(m.frames) < 62
    assert "the file announces 2.40 s and could be read until" in m.report["source"]["note"]
    assert m.report["source"]["note"] in m.said
    assert m.frames["AU12"].notna().sum() >= len(m.frames) - 3


@pytest.mark.parametrize("name", ["film.jpg", "film"])
def test_a_name_decides_nothing(media, measure, tmp_path, name):
    shutil.copy(media / "pyfeat_single_face.mp4", tmp_path / name)
    m = measure(tmp_path / name)
    assert m.exit_code == 0
    assert len(m.frames) == 72
    assert np.allclose(m.frames["timestamp"], np.arange(72) / 30, atol=1e-3)


def test_a_still_by_the_name_of_a_film_is_a_still_and_a_text_no_film(media, measure, tmp_path):
    shutil.copy(media / "pyfeat_single_face.jpg", tmp_path / "film.mp4")
    assert measure(tmp_path / "film.mp4").exit_code == 3
    shutil.copy(media / "README.md", tmp_path / "film.mp4")
    assert measure(tmp_path / "film.mp4").exit_code == 4
