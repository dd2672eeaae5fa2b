"""Prepared recordings: files, clips, folds, and the engine that makes them."""

import json
import os
import subprocess
import sys
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

import bigsmall_kernels as bk
from bigsmall.datasets import Clips, PrepareError, Skip, folds, open_prepared, prepare, preparing, write_prepared
from bigsmall.datasets.prepared import Prepared
from bigsmall.files import sweep

META = {
    "name": "a", "subject": "s", "dataset": "made", "fps": 30.0, "convention": "exact", "crop": "frame",
    "big_mean": 120.0, "big_std": 40.0, "action_units": ["AU01", "AU12"],
}  # fmt: skip


def made(stretches=(0, 7, 20), seed=0, shown=None):
    rng, t = np.random.default_rng(seed), stretches[-1]
    shown = np.arange(t) if shown is None else np.array(shown)
    return {
        "small": rng.normal(size=(t, 3, 9, 9)).astype(np.float16),
        "big": rng.integers(0, 256, (len(shown), 32, 32, 3), dtype=np.uint8),
        "big_frame": shown,
        "frames_12": rng.integers(0, 256, (t, 12, 12, 3), dtype=np.uint8),
        "stretches": np.array(stretches),
        "timestamps": np.arange(t) / 30,
        "bvp": rng.normal(size=t).astype(np.float32),
        "respiration": np.where(np.arange(t) < 3, np.nan, rng.normal(size=t)).astype(np.float32),
        "au": rng.choice(np.array([0, 1, 255], np.uint8), (t, 2)),
    }


def faces(lacking=7):
    """Landmarks of 20 frames, but for some."""
    points = np.random.default_rng(1).random((20, 49, 2), dtype=np.float32)
    points[lacking] = np.nan
    return points


@pytest.fixture
def recording(tmp_path):
    write_prepared(tmp_path / "a.safetensors", made(), META)
    return Prepared(tmp_path / "a.safetensors")


# --- the file ---------------------------------------------------------------------------------------------------------


def test_what_was_written_is_mapped(recording):
    for name, array in made().items():
        np.testing.assert_array_equal(getattr(recording, name), array)
        assert not getattr(recording, name).flags.owndata
        assert not getattr(recording, name).flags.writeable
    assert (recording.name, recording.subject, recording.fps, len(recording)) == ("a", "s", 30.0, 20)
    assert recording.action_units == ("AU01", "AU12")
    with pytest.raises(AttributeError, match="no 'frames_72'"):
        _ = recording.frames_72


def test_the_file_is_one_of_safetensors(recording):
    with safe_open(recording.path, "numpy") as file:
        assert set(file.keys()) == set(made())
        for name, array in made().items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
    assert all(getattr(recording, name).flags.aligned for name in made())


def test_a_recording_larger_than_memory_is_written(tmp_path):
    t = 1000
    big = np.memmap(tmp_path / "big", np.uint8, "w+", shape=(t, 144, 144, 3))  # 62 MB
    arrays = {
        "big": big, "big_frame": np.arange(t), "stretches": np.array([0, t]), "timestamps": np.arange(t) / 30
    }  # fmt: skip
    tracemalloc.start()
    write_prepared(tmp_path / "a.safetensors", arrays, META)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < big.nbytes / 3


def test_more_files_than_a_process_may_keep_open(recording):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        several = [Prepared(recording.path) for _ in range(200)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert all(other.bvp[3] == recording.bvp[3] for other in several)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"small": np.zeros((20, 3, 9, 9), np.float32)}, "small was float32, expected float16"),
        ({"mouth": np.zeros(20)}, "mouth was float64, expected none"),
        ({"bvp": np.zeros(19, np.float32)}, "bvp has 19 rows, expected 20"),
        ({"stretches": np.array([0, 9, 9, 20])}, "stretches was .*expected increasing bounds from 0 to 20"),
        ({"stretches": np.array([0, 19])}, "stretches"),
        ({"big_frame": np.arange(20)[::-1].copy()}, "big_frame"),
        ({"big_frame": np.arange(1, 21)}, "big_frame"),
        ({"au": np.zeros((20, 3), np.uint8)}, r"au has shape \(20, 3\), expected \(20, 2\)"),
        ({"landmarks": np.zeros((20, 98), np.float32)}, r"landmarks has shape \(20, 98\), expected \(20, 49, 2\)"),
        ({"landmarks": faces(lacking=(7, 3, 0))}, "landmarks of frame 7 are known in part"),
    ],
)
def test_arrays_that_contradict_one_another_are_not_written(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        write_prepared(tmp_path / "a.safetensors", made() | change, META)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["stretches", "timestamps", "big_frame"])
def test_what_every_recording_needs(tmp_path, name):
    arrays = made()
    del arrays[name]
    with pytest.raises(ValueError, match=f"{name} is missing"):
        write_prepared(tmp_path / "a.safetensors", arrays, META)
    with pytest.raises(ValueError, match="meta: fps, convention, crop, big_mean, big_std, action_units missing"):
        write_prepared(tmp_path / "a.safetensors", made(), {"name": "a", **dict.fromkeys(list(META)[1:3], "b")})


# --- what networks read and should answer -----------------------------------------------------------------------------


def test_clips_do_not_cross_a_cut(recording):
    assert recording.starts(3).tolist() == [0, 3, 7, 10, 13, 16]
    assert recording.starts(8).tolist() == [7]


def test_clips_need_their_pictures(tmp_path):
    write_prepared(tmp_path / "a.safetensors", made(shown=(0, 7, 8, 10, 11, 12, 13, 14, 15)), META)
    recording = Prepared(tmp_path / "a.safetensors")
    assert recording.starts(3).tolist() == [0, 3, 7, 10, 13, 16]
    assert recording.starts(3, ("big", "small")).tolist() == [0, 7, 10, 13]  # the first frame of each
    assert recording.starts(3, ("big",), 1).tolist() == [10, 13]  # every frame
    with pytest.raises(ValueError, match="big_every=1"):
        recording.inputs(("big",), np.array([7]), 3, 1)


def test_inputs_are_what_the_normalisers_make(recording):
    starts = np.array([7, 0, 16])
    frames = torch.tensor([7, 8, 9, 0, 1, 2, 16, 17, 18])
    inputs = recording.inputs(("big", "small", "standard:12", "difference:12"), starts, 3)
    big = torch.from_numpy(np.array(recording.big))
    expected = bk.standardize(big, mean=120.0, std=40.0)[frames[::3]].permute(0, 3, 1, 2)
    torch.testing.assert_close(inputs["big"], expected)
    assert torch.equal(inputs["small"], torch.from_numpy(np.array(recording.small))[frames].float())
    pictures = torch.from_numpy(np.array(recording.frames_12))
    torch.testing.assert_close(inputs["standard:12"], bk.standardize(pictures)[frames].permute(0, 3, 1, 2))
    parts = [bk.diff_normalize(part, std=1.0) for part in (pictures[:7], pictures[7:])]
    std = torch.cat(parts).double().std(correction=0)  # no difference across the cut
    expected = torch.cat([torch.cat((part / std, torch.zeros(1, 12, 12, 3))) for part in parts])[frames]
    torch.testing.assert_close(inputs["difference:12"], expected.permute(0, 3, 1, 2).float())


def test_the_last_difference_of_a_stretch_is_zero(recording):
    last = recording.inputs(("difference:12",), np.array([6, 19, 5]), 1)["difference:12"]
    assert not last[:2].any()
    assert last[2].any()


def test_a_constant_video_has_inputs_of_zeros(tmp_path):
    arrays = made() | {"frames_12": np.full((20, 12, 12, 3), 117, np.uint8)}
    write_prepared(tmp_path / "a.safetensors", arrays, META | {"big_std": 0.0})
    inputs = Prepared(tmp_path / "a.safetensors").inputs(("big", "standard:12", "difference:12"), np.array([0]), 3)
    assert not any(x.any() for x in inputs.values())


def test_what_is_unknown_is_nan(recording):
    targets = recording.targets(("au", "pulse", "respiration"), np.array([0, 7]), 3)
    au = np.array(recording.au)[[0, 1, 2, 7, 8, 9]]
    np.testing.assert_array_equal(targets["au"].numpy(), np.where(au == 255, np.nan, au.astype(np.float32)))
    np.testing.assert_array_equal(targets["pulse"].numpy()[:, 0], np.array(recording.bvp)[[0, 1, 2, 7, 8, 9]])
    assert torch.isnan(targets["respiration"]).ravel().tolist() == [True] * 3 + [False] * 3


def test_labels_that_a_recording_has_not_are_nan(tmp_path):
    arrays = {name: array for name, array in made().items() if name not in ("au", "bvp")}
    write_prepared(tmp_path / "a.safetensors", arrays, META)
    targets = Prepared(tmp_path / "a.safetensors").targets(("au", "pulse"), np.array([0]), 3)
    assert torch.isnan(targets["au"]).all()
    assert torch.isnan(targets["pulse"]).all()
    assert targets["au"].shape == (3, 2)


# --- clips of many recordings -----------------------------------------------------------------------------------------


@pytest.fixture
def several(tmp_path):
    for k, stretches in enumerate([(0, 7), (0, 3), (0, 4, 10)]):
        write_prepared(tmp_path / f"{k}.safetensors", made(stretches, k), META | {"name": str(k)})
    return [Prepared(tmp_path / f"{k}.safetensors") for k in range(3)]


def test_a_batch_is_its_clips_one_after_another(several):
    reads, tasks = ("big", "small"), ("au", "pulse")
    clips = Clips(several, 3, reads, tasks)
    assert len(clips) == 2 + 1 + 1 + 2
    wanted = [5, 0, 2, 2, 1]
    inputs, targets = clips.batch(wanted)
    for row, index in enumerate(wanted):
        recording, start = several[clips.recording[index]], clips.start[index : index + 1]
        one = recording.inputs(reads, start, 3) | recording.targets(tasks, start, 3)
        for name, of in (inputs | targets).items():
            each = of.shape[0] // len(wanted)
            torch.testing.assert_close(of[row * each : (row + 1) * each], one[name], equal_nan=True, rtol=0, atol=0)


def test_a_mirrored_clip_is_mirrored_in_all_that_is_read(several):
    clips = Clips(several, 3, ("big", "small", "difference:12"), ("pulse",), 1)
    plain, targets = clips.batch([0, 3, 4])
    mirrored, same = clips.batch([0, 3, 4], np.array([False, True, False]))
    for name, x in plain.items():
        assert torch.equal(mirrored[name][3:6], x[3:6].flip(-1))
        assert torch.equal(mirrored[name][:3], x[:3])
        assert torch.equal(mirrored[name][6:], x[6:])
    assert torch.equal(targets["pulse"], same["pulse"])


def test_landmarks_are_mirrored_with_the_pictures(tmp_path):
    write_prepared(tmp_path / "a.safetensors", {**made(), "landmarks": faces(), "big": made()["big"]}, META)
    write_prepared(tmp_path / "b.safetensors", made(), META)
    clips = Clips([Prepared(tmp_path / f"{name}.safetensors") for name in "ab"], 3, ("big",), ("au", "landmarks"))
    first, second = (np.flatnonzero(clips.recording == i)[:3] for i in (0, 1))
    _, plain = clips.batch([*first, second[0]])
    _, mirrored = clips.batch([*first, second[0]], mirror=np.array([True, False, True, True]))
    assert plain["landmarks"].shape == (12, 49, 2)
    at = clips.start[first][:, None] + np.arange(3)
    np.testing.assert_array_equal(plain["landmarks"][:9], faces()[at.ravel()])  # of frame 7 none is known
    assert plain["landmarks"][9:].isnan().all()  # of b nothing is known
    there, back = plain["landmarks"][:3], mirrored["landmarks"][:3]
    pairs = {0: 9, 4: 5, 10: 10, 14: 18, 19: 28, 22: 25, 24: 29, 31: 37, 34: 34, 38: 42, 43: 45, 46: 48}
    for left, right in pairs.items():
        for a, b in ((left, right), (right, left)):
            torch.testing.assert_close(back[:, a, 0], 1 - there[:, b, 0])
            assert torch.equal(back[:, a, 1], there[:, b, 1])
    torch.testing.assert_close(mirrored["landmarks"][3:6], plain["landmarks"][3:6], equal_nan=True)
    assert torch.equal(mirrored["au"].nan_to_num(), plain["au"].nan_to_num())


def test_recordings_that_do_not_go_together(several, tmp_path):
    with pytest.raises(ValueError, match="3 lack one of standard:72, 0 the first"):
        Clips(several, 3, ("standard:72",), ("pulse",))
    with pytest.raises(ValueError, match="no clip of 30 frames"):
        Clips(several, 30, ("small",), ("pulse",))
    write_prepared(tmp_path / "d.safetensors", made(), META | {"action_units": ["AU01", "AU02"]})
    with pytest.raises(ValueError, match="the same action units"):
        Clips([*several, Prepared(tmp_path / "d.safetensors")], 3, ("small",), ("au",))


# --- folds ------------------------------------------------------------------------------------------------------------


def test_folds_are_of_subjects_and_cover_them_all():
    subjects = [f"S{i:03d}" for i in range(40)]
    where = folds(subjects + subjects, 3)
    assert sorted(where) == subjects
    assert sorted(list(where.values()).count(k) for k in range(3)) == [13, 13, 14]
    assert where == folds(subjects[::-1], 3)  # whatever the order
    assert where != folds(subjects, 3, seed=1)


def test_nobody_is_trained_on_and_tested_on(tmp_path):
    folder = recordings(tmp_path, 7)
    parts = {
        (k, part): {r.subject for r in open_prepared(folder, fold={"index": k, "of": 3, "part": part})}
        for k in range(3)
        for part in ("train", "test")
    }
    assert all(not parts[k, "train"] & parts[k, "test"] for k in range(3))
    assert all(len(parts[k, "train"] | parts[k, "test"]) == 7 for k in range(3))
    assert set.union(*(parts[k, "test"] for k in range(3))) == {f"S{i}" for i in range(7)}
    for wrong in ({"index": 3, "of": 3, "part": "train"}, {"index": 0, "of": 3}, {"index": 0, "of": 9, "part": "test"}):
        with pytest.raises(ValueError, match="fold"):
            open_prepared(folder, fold=wrong)


# --- the engine -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recording:
    name: str
    subject: str
    trouble: str = ""

    def make(self):
        if self.trouble == "skip":
            raise Skip("known to be of no use")
        if self.trouble and Path(self.trouble).exists():
            raise OSError("the disk is sick")
        return made(seed=int(self.name)), META


def found(monkeypatch, jobs):
    """The engine, with `jobs` as what its dataset holds."""
    monkeypatch.setattr(preparing, "jobs", lambda spec: jobs)


def recordings(tmp_path, count):
    with pytest.MonkeyPatch.context() as patch:
        found(patch, [Recording(str(i), f"S{i}") for i in range(count)])
        return prepare({"dataset": "made"}, tmp_path / "prepared", workers=1).parent


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.glob("*.safetensors")}


def test_every_recording_ends_in_the_manifest(tmp_path, monkeypatch):
    sick = tmp_path / "sick"
    sick.touch()
    jobs = [Recording("0", "A"), Recording("1", "A", str(sick)), Recording("2", "B", "skip"), Recording("3", "B")]
    found(monkeypatch, jobs)
    with pytest.raises(PrepareError, match="1 of 4 recordings could not be prepared: 1: OSError: the disk is sick"):
        prepare({"dataset": "made"}, tmp_path / "out", workers=2)
    entries = json.loads((tmp_path / "out" / "manifest.json").read_text())["recordings"]
    assert [entry["status"] for entry in entries] == ["done", "failed", "skipped", "done"]
    assert entries[2]["reason"] == "known to be of no use"
    with pytest.raises(ValueError, match=r"1 of 4 recordings .* failed, 1 the first; .*skip=\[1\]"):
        open_prepared(tmp_path / "out")  # nobody works with a part without knowing
    prepare({"dataset": "made", "skip": ["1"]}, tmp_path / "out")
    assert [r.path.stem for r in open_prepared(tmp_path / "out")] == ["0", "3"]
    with pytest.raises(ValueError, match="skip: no recording is called 7"):
        prepare({"dataset": "made", "skip": ["7"]}, tmp_path / "out")
    sick.unlink()  # what failed is tried again, and only that
    before = (tmp_path / "out" / "0.safetensors").stat().st_mtime_ns
    prepare({"dataset": "made"}, tmp_path / "out", workers=1)
    assert [r.path.stem for r in open_prepared(tmp_path / "out")] == ["0", "1", "3"]
    assert (tmp_path / "out" / "0.safetensors").stat().st_mtime_ns == before


def test_any_number_of_processes_makes_the_same_bytes(tmp_path):
    spec = {"dataset": "simulator", "count": 3, "seconds": 2, "simulator": {"fps": [10, 12], "size": [64, 80]}}
    one, two = (prepare(spec, tmp_path / str(n), workers=n).parent for n in (1, 2))
    assert contents(one) == contents(two)
    assert len(contents(one)) == 3


def test_an_interrupted_run_is_taken_up(tmp_path, monkeypatch):
    folder = recordings(tmp_path, 4)
    before = contents(folder)
    found(monkeypatch, [Recording(str(i), f"S{i}") for i in range(4)])
    (folder / "0.safetensors").unlink()
    (folder / "1.safetensors").write_bytes(before["1.safetensors"][:-5])  # as a full disk leaves it
    journal = (folder / "journal.jsonl").read_text()
    (folder / "journal.jsonl").write_text(journal[: journal.rindex("{") + 9])  # as a kill leaves it
    (folder / "manifest.json").unlink()
    (folder / ".2.99999999.0.part").write_bytes(b"cut short")
    with pytest.raises(ValueError, match="no manifest"):
        open_prepared(folder)
    prepare({"dataset": "made"}, folder, workers=1)
    assert contents(folder) == before
    assert len(open_prepared(folder)) == 4
    assert not list(folder.glob(".*"))
    stamps = [path.stat().st_mtime_ns for path in sorted(folder.glob("*.safetensors"))]
    prepare({"dataset": "made"}, folder, workers=1)
    assert [path.stat().st_mtime_ns for path in sorted(folder.glob("*.safetensors"))] == stamps


def test_what_another_process_is_writing_is_left_alone(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        under_way, cut_short = tmp_path / f".a.{other.pid}.0.part", tmp_path / f".a.{os.getpid()}.7.part"
        under_way.touch()
        cut_short.touch()
        sweep(tmp_path)
        assert under_way.exists()
        assert not cut_short.exists()
        other.communicate(b"\n")
    sweep(tmp_path)
    assert not under_way.exists()


def test_a_changed_file_is_found_by_its_checksum(tmp_path, monkeypatch):
    folder = recordings(tmp_path, 2)
    before = contents(folder)
    found(monkeypatch, [Recording(str(i), f"S{i}") for i in range(2)])
    (folder / "1.safetensors").write_bytes(before["1.safetensors"][:-1] + b"\x99")
    prepare({"dataset": "made"}, folder, workers=1)
    assert contents(folder) != before
    prepare({"dataset": "made"}, folder, workers=1, verify=True)
    assert contents(folder) == before


def test_a_folder_holds_one_specification(tmp_path, monkeypatch):
    folder = recordings(tmp_path, 2)
    with pytest.raises(ValueError, match=r"\(count was None, now 2; dataset was 'made', now 'simulator'\)"):
        prepare({"dataset": "simulator", "count": 2}, folder)


def test_what_is_asked_for_must_be_there(tmp_path):
    folder = recordings(tmp_path, 3)
    assert [r.subject for r in open_prepared(folder, subjects=["S2", "S0"])] == ["S0", "S2"]
    (tmp_path / "list.txt").write_text("S1\nS2\n")
    assert [r.subject for r in open_prepared(folder, subjects=tmp_path / "list.txt")] == ["S1", "S2"]
    with pytest.raises(ValueError, match="no S9"):
        open_prepared(folder, subjects=["S9"])
    (folder / "1.safetensors").unlink()
    with pytest.raises(ValueError, match=r"1 files of .* are gone, 1.safetensors"):
        open_prepared(folder)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"dataset": "BP4D"}, "dataset was 'BP4D', expected one of simulator, folder, bp4d_plus"),
        ({"dataset": "simulator", "persons": 3}, "no option persons"),
        ({"dataset": "simulator", "simulator": {"colour": [0, 1]}}, "no range is called colour"),
        ({"dataset": "simulator", "crop": "square"}, "crop was 'square', expected face"),
        ({"dataset": "simulator", "count": 0}, "holds no recording"),
    ],
)
def test_wrong_specifications(tmp_path, spec, message):
    with pytest.raises(ValueError, match=message):
        prepare(spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()
