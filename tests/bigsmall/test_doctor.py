"""bigsmall doctor: finds what is broken, whatever is broken, and tells nobody whose machine it is."""

import json
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import bigsmall
import bigsmall_kernels as bk
from bigsmall import doctor, synthesis
from bigsmall.cli import app
from bigsmall.face import networks


def examine(**options) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(self_test=False, **options)}


def statuses(checks: dict[str, doctor.Check], status: str) -> set[str]:
    return {name for name, check in checks.items() if check.status == status}


def test_this_installation_works():
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.stdout
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert {check["status"] for check in checks.values()} <= {"ok", "warning", "skipped"}
    assert "torch" in checks["packages"]["found"]
    assert "0.0.0" not in checks["packages"]["found"]
    for name in ("Python", "platform", "face detector", "default model", "codec h264", "codec ffv1", "self-test"):
        assert checks[name]["status"] == "ok", checks[name]
    assert "heart rate 7" in checks["self-test"]["found"]
    for stage in ("simulating", "finding the face", "measuring", "frames/s"):
        assert stage in checks["self-test"]["found"]
    assert str(Path.home()) not in done.stdout


def test_every_op_has_a_check_of_its_own_against_its_definition():
    checks = examine()
    forward = {op for op in bk.info()["kernels"] if not op.startswith("pack_") and not op.endswith("_backward")}
    assert {name.removeprefix("kernel ") for name in checks if name.startswith("kernel ")} == forward
    for op in forward:
        compiled = bk.info()["kernels"][op]["cpu"] == "cpp"
        assert checks[f"kernel {op}"].status == ("ok" if compiled else "skipped")


@pytest.mark.parametrize("wrong", [1.0, float("nan")])
def test_a_kernel_that_computes_something_else_has_failed(monkeypatch, wrong):
    def call(_, torch):
        return torch.randn(3) + (wrong if bk._library._backend == "cpp" else 0)

    monkeypatch.setitem(doctor._KERNELS, "wtsm", call)
    monkeypatch.setattr(bk._library, "has_kernel", lambda op, key: True)
    finding = doctor._kernel("wtsm")
    assert finding.status == "failed"
    assert "differs from the reference by" in finding.found


@pytest.mark.parametrize(("module", "needed_by"), [
    ("torch", ("compiled kernels", "kernel ", "face detector", "default model", "GPU", "self-test")),
    ("av", ("face detector", "codec ", "self-test")),
])  # fmt: skip
def test_without_a_package_the_other_checks_go_on(module, needed_by):
    code = (
        f"import sys, json; sys.modules[{module!r}] = None; from bigsmall import doctor;"
        "print(json.dumps([check._asdict() for check in doctor.examine()]))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    checks = {check["name"]: doctor.Check(**check) for check in json.loads(done.stdout)}
    assert statuses(checks, "failed") == {name for name in checks if name.startswith(needed_by)}
    for name in statuses(checks, "failed"):
        assert f"import of {module} halted" in checks[name].found
        assert "pip install" in checks[name].advice


@pytest.mark.parametrize(("module", "broken"), [("lz4.frame", "face detector"), ("packaging.requirements", "packages")])
def test_a_package_that_one_check_needs(monkeypatch, module, broken):
    monkeypatch.setitem(sys.modules, module, None)
    checks = examine()
    assert statuses(checks, "failed") == {broken}
    assert module in checks[broken].found


@pytest.mark.parametrize(("note", "status"), [
    ("no compiled library was built (no C++ compiler at install time)", "warning"),
    ("the compiled library was built for elsewhere and could not be loaded into torch", "failed"),
])  # fmt: skip
def test_without_the_compiled_library(monkeypatch, note, status):
    monkeypatch.setattr(bk._library, "library", None)
    monkeypatch.setattr(bk._library, "library_note", note)
    monkeypatch.setattr(bk._library, "has_kernel", lambda op, key: False)
    finding = doctor._library()
    assert finding.status == status
    assert note in finding.found
    assert "compiler" in finding.advice
    assert doctor._kernel("wtsm").status == "skipped"


def test_an_instruction_set_below_what_the_processor_can(monkeypatch):
    info = bk.info() | {"isa": "portable", "library": {"loaded": True, "note": "built"}}
    monkeypatch.setattr(bk, "info", lambda: info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setenv("BIGSMALL_KERNELS_ISA", "portable")
    check = doctor._library()
    assert check.status == "warning"
    assert "portable, " in check.found
    assert "avx2" in check.found
    assert "BIGSMALL_KERNELS_ISA" in check.advice


@pytest.mark.parametrize("isa", ["avx512", "avx512_vnni", "amx"])
def test_an_instruction_set_with_all_that_the_processor_can(monkeypatch, isa):
    info = bk.info() | {"isa": isa, "library": {"loaded": True, "note": "built"}}
    monkeypatch.setattr(bk, "info", lambda: info)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    check = doctor._library()
    assert check.status == "ok"
    assert isa in check.found


def test_packages_against_what_the_distribution_requires(monkeypatch):
    requires = ["numpy>=1.26", "torch>=2.10", "scipy", "x>=1; extra == 'y'"]
    monkeypatch.setattr(metadata, "requires", lambda name: requires)
    versions = {"numpy": "1.20", "torch": "2.13.0+cpu", doctor.DISTRIBUTION: "1.0"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)
    check = doctor._packages()
    assert check.status == "failed"
    assert check.found == "numpy is 1.20, numpy>=1.26 is needed; scipy is missing, scipy is needed"
    assert check.advice == "pip install 'numpy>=1.26' 'scipy'"


def test_sources_that_are_not_installed(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert doctor._packages().status == "warning"


def test_face_detector_weights_that_are_others(monkeypatch):
    monkeypatch.setitem(networks.SHA256, "rnet", "0" * 64)
    check = examine()["face detector"]
    assert check.status == "failed"
    assert "SHA-256" in check.found
    assert "mtcnn" in check.advice
    assert sys.prefix not in check.found


def test_a_codec_that_shifts_time_or_colour_has_failed(monkeypatch):
    encode = doctor._encode

    def swapped(av, path, encoder, frames):
        encode(av, path, encoder, [np.ascontiguousarray(rgb[..., ::-1]) for rgb in frames])

    monkeypatch.setattr(doctor, "_encode", swapped)
    for codec in ("ffv1", "h264", "mjpeg"):
        finding = doctor._codec(codec)
        assert finding.status == "failed"
        assert "pixels differ" in finding.found

    def late(av, path, encoder, frames):
        with monkeypatch.context() as patch:
            patch.setattr(doctor, "TIMES_MS", [ms + 1 for ms in doctor.TIMES_MS])
            encode(av, path, encoder, frames)

    monkeypatch.setattr(doctor, "_encode", late)
    finding = doctor._codec("ffv1")
    assert finding.status == "failed"
    assert "were read at [1, 41" in finding.found


def test_missing_encoders_matter_only_where_something_is_written(monkeypatch):
    monkeypatch.setattr(av, "codecs_available", set())
    for codec in ("h264", "ffv1"):
        finding = doctor._codec(codec)
        assert finding.status == "warning"
        assert "cannot be written" in finding.found
    for codec in ("hevc", "vp9", "mpeg4", "mjpeg"):
        assert doctor._codec(codec).status == "skipped"


def test_a_missing_decoder(monkeypatch):
    monkeypatch.setitem(doctor.CODECS, "h267", (("libx267",), ""))
    finding = doctor._codec("h267")
    assert finding == ("warning", "FFmpeg here has no decoder: such videos cannot be read", doctor.UPGRADE)


def test_a_temporary_folder_that_is_full_or_closed(monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    assert doctor._temporary_folder().status == "warning"

    def closed():
        raise PermissionError(13, "Permission denied", str(Path.home() / "secret" / "file"))

    monkeypatch.setattr(tempfile, "TemporaryFile", closed)
    checks = examine()
    assert statuses(checks, "failed") == {"temporary folder"}
    assert checks["temporary folder"].found == "PermissionError: [Errno 13] Permission denied: '~/secret/file'"


@pytest.mark.parametrize(("picture", "status", "says"), [
    (np.full((48, 64, 3), 90, np.uint8), "ok", "64x48"),
    (np.zeros((48, 64, 3), np.uint8), "warning", "all black"),
    (None, "skipped", "none"),
])  # fmt: skip
def test_the_camera_is_opened_only_when_asked(monkeypatch, picture, status, says):
    opened = []

    class VideoCapture:
        def __init__(self, index):
            opened.append(index)

        def read(self):
            return picture is not None, picture

        def release(self):
            opened.append("released")

    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=VideoCapture))
    monkeypatch.setattr(doctor, "_camera_names", lambda: "")
    assert doctor._camera(False).status == "skipped"
    assert opened == []
    finding = doctor._camera(True)
    assert finding.status == status
    assert says in finding.found
    assert opened == [0, "released"]


@pytest.mark.parametrize(("rate", "note", "frames", "says"), [
    (75.4, None, 200, None),
    (90.0, None, 200, "the heart rate was 90.0 bpm, 75.0 is true"),
    (None, "no pulse", 200, "the heart rate was refused: no pulse"),
    (75.0, None, 199, "200 frames were written and 199 read"),
])  # fmt: skip
def test_the_self_test_compares_with_the_truth(monkeypatch, rate, note, frames, says):
    truth = SimpleNamespace(timestamp=np.arange(200) / 20)
    monkeypatch.setattr(synthesis, "synthesize", lambda path, **options: SimpleNamespace(truth=truth))
    reading = SimpleNamespace(value=rate, note=note)

    def measure(path, progress):
        return SimpleNamespace(frames=range(frames), heart_rate=reading)

    monkeypatch.setattr(bigsmall, "measure", measure)
    finding = doctor._self_test()
    assert finding.status == ("failed" if says else "ok")
    assert (says or "heart rate 75.4 bpm, true 75.0") in finding.found


def test_the_table_says_what_to_do_and_1_that_something_failed(monkeypatch):
    checks = [doctor.Check("one", "ok", "fine [1]"), doctor.Check("two", "failed", "gone", "install it")]
    monkeypatch.setattr(doctor, "examine", lambda **options: checks)
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert [line.split() for line in done.stdout.splitlines()] == [
        ["one", "ok", "fine", "[1]"], ["two", "failed", "gone"], ["->", "install", "it"],
    ]  # fmt: skip
    monkeypatch.setattr(doctor, "examine", lambda **options: checks[:1])
    assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
