"""What is installed, built and running: the checks of `bigsmall doctor`.

Made for broken installations: nothing outside the standard library is imported before the check that needs it, and a
check that fails in any way says so while the others go on.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

DISTRIBUTION = "bigsmall-kernels"
REINSTALL, UPGRADE = f"pip install --force-reinstall {DISTRIBUTION}", "pip install --upgrade av"
REPORT = "please report this with the output of bigsmall doctor --json"
OK, WARNING, FAILED, SKIPPED = "ok", "warning", "failed", "skipped"
MAX_ERROR = 1e-5  # of a compiled kernel: max|y - reference| / max|reference|
ISAS = {"DEFAULT": "portable", "AVX2": "avx2", "AVX512": "avx512"}  # torch's names for what the processor can do
LEAST_FREE = 1 << 30  # bytes of the temporary folder
# Decoder, the encoders that can make a clip for it, and what is lost without one of those.
CODECS = {
    "h264": (("libx264", "libopenh264"), "videos cannot be written as mp4"),
    "hevc": (("libx265",), ""),
    "vp9": (("libvpx-vp9",), ""),
    "mpeg4": (("mpeg4",), ""),
    "mjpeg": (("mjpeg",), ""),
    "ffv1": (("ffv1",), "simulated videos and captures cannot be written"),
}
TIMES_MS = (0, 40, 73, 107, 140, 190, 250, 251, 300, 333, 400, 467)  # unevenly spaced, as phones do
MAX_PIXEL_ERROR = 8.0  # mean, of 255: a lossy codec; wrong colours are off by far more
# The self-test's video and how far its measurement may be off.
SIMULATED: dict[str, Any] = {
    "heart_rate": 75.0, "respiration_rate": 15.0, "seconds": 10.0, "fps": 20.0, "size": (192, 192), "seed": 1,
    "pulse": 0.02, "motion": 0.2, "noise": 0.5, "expressions": 0.0,
}  # fmt: skip
MAX_RATE_ERROR = 3.0  # bpm


class Finding(NamedTuple):
    """What a check came to: "ok", "warning", "failed" or "skipped"; what was found; what to do about it."""

    status: str
    found: str
    advice: str = ""


class Check(NamedTuple):
    """A finding with the name of what was looked at."""

    name: str
    status: str
    found: str
    advice: str = ""


def examine(
    *, camera: bool = False, self_test: bool = True, tell: Callable[[str], None] = lambda name: None
) -> list[Check]:
    """Look at the installation; takes about five seconds, most of them for the self-test.

    Args:
        camera: open the first camera and read from it for a second.
        self_test: simulate, write, read and measure a face video of ten seconds.
        tell: called with the name of each check before it runs.

    Returns:
        the checks; none raises, whatever is broken. Their texts hold no personal folder.
    """
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("Python", _python), ("platform", _platform), ("packages", _packages), ("compiled kernels", _library),
        *((f"kernel {op}", lambda op=op: _kernel(op)) for op in _KERNELS),
        ("face detector", _face_detector), ("default model", _default_model),
        *((f"codec {name}", lambda name=name: _codec(name)) for name in CODECS),
        ("temporary folder", _temporary_folder), ("camera", lambda: _camera(camera)), ("GPU", _gpu),
    ]  # fmt: skip
    if self_test:
        checks.append(("self-test", _self_test))
    done = []
    for name, check in checks:
        tell(name)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the checks say it in their own words
                finding = check()
        except Exception as error:
            finding = Finding(FAILED, _sentence(error), _remedy(error))
        done.append(Check(name, finding.status, _discreet(finding.found), finding.advice))
    return done


def _sentence(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _remedy(error: Exception) -> str:
    if isinstance(error, ImportError):
        return REINSTALL
    return REPORT


def _discreet(text: str) -> str:
    """Without the folders that say whose machine this is."""
    packages, temporary = Path(__file__).parents[1], tempfile.gettempdir()
    for folder, name in ((packages, ""), (sys.prefix, ""), (temporary, ""), (Path.home(), "~")):
        if len(str(folder)) > 1:
            text = text.replace(f"{folder}{os.sep}", f"{name}{os.sep}" if name else "")
    return text


def _python() -> Finding:
    return Finding(OK, f"{platform.python_implementation()} {platform.python_version()}")


def _platform() -> Finding:
    return Finding(OK, f"{platform.system()} {platform.release()} {platform.machine()}, {os.cpu_count()} cores")


def _packages() -> Finding:
    """Versions against what the distribution itself requires."""
    try:
        requires = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return Finding(WARNING, f"{DISTRIBUTION} runs from its sources and is not installed", "pip install .")
    from packaging.requirements import Requirement

    found, wrong = [f"{DISTRIBUTION} {metadata.version(DISTRIBUTION)}"], []
    for requirement in map(Requirement, requires):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            wrong.append((requirement, "is missing"))
            continue
        found.append(f"{requirement.name} {version}")
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append((requirement, f"is {version}"))
    if not wrong:
        return Finding(OK, ", ".join(found))
    sentences = [f"{requirement.name} {what}, {requirement} is needed" for requirement, what in wrong]
    return Finding(
        FAILED, "; ".join(sentences), "pip install " + " ".join(f"'{requirement}'" for requirement, _ in wrong)
    )


def _library() -> Finding:
    """Loaded or why not, and the instruction set in use against what the processor could."""
    import torch

    import bigsmall_kernels as bk

    info = bk.info()
    note = f"{bk.__version__}, {info['library']['note']}"
    if not info["library"]["loaded"]:
        built = "could not be loaded" in note
        advice = f"pip install --force-reinstall --no-deps {DISTRIBUTION}, with a C++ compiler at hand"
        return Finding(FAILED if built else WARNING, note, advice)
    isa, could = info["isa"], ISAS.get(torch.backends.cpu.get_cpu_capability(), "portable")
    found = f"{note}; instruction set {isa}, {info['threads']} threads"
    order = (*ISAS.values(), "avx512_vnni", "amx")
    if order.index(isa) >= order.index(could):
        return Finding(OK, found)
    asked = os.environ.get("BIGSMALL_KERNELS_ISA")
    advice = REINSTALL if asked is None else f"unset BIGSMALL_KERNELS_ISA, it is {asked!r}"
    return Finding(WARNING, f"{found}, of a processor with {could}", advice)


# A small call of each op: of the functions of bigsmall_kernels, and of torch.
_KERNELS: dict[str, Callable[[Any, Any], Any]] = {
    "wtsm": lambda bk, torch: bk.wtsm(torch.randn(6, 32, 9, 9)),
    "wtsm_conv2d": lambda bk, torch: bk.wtsm_conv2d(
        torch.randn(6, 32, 9, 9), torch.randn(32, 32, 3, 3), torch.randn(32), activation="relu"
    ),
    "wtsm_conv2d_stack": lambda bk, torch: bk.wtsm_conv2d_stack(
        torch.randn(6, 3, 9, 9), [torch.randn(32, 3, 3, 3), torch.randn(32, 32, 3, 3)], [torch.randn(32)] * 2
    ),
    "double_conv2d_pool": lambda bk, torch: bk.double_conv2d_pool(
        torch.randn(2, 3, 24, 24), torch.randn(32, 3, 3, 3), None, torch.randn(32, 32, 3, 3), torch.randn(32), 2
    ),
    "diff_normalize": lambda bk, torch: bk.diff_normalize(torch.rand(7, 24, 24, 3) + 0.1),
    "standardize": lambda bk, torch: bk.standardize(torch.rand(7, 24, 24, 3)),
    "bigsmall_inputs": lambda bk, torch: bk.bigsmall_inputs(torch.randint(1, 256, (7, 160, 200, 3), dtype=torch.uint8)),
}  # fmt: skip


def _kernel(op: str) -> Finding:
    """The compiled kernel of one op against its plain definition."""
    import torch

    import bigsmall_kernels as bk

    if bk.info()["kernels"][op]["cpu"] == "reference":
        return Finding(SKIPPED, "the PyTorch reference runs: nothing to compare it with")
    outputs = []
    for backend in ("cpp", "reference"):
        with torch.random.fork_rng([]), torch.inference_mode(), bk.use_backend(backend):
            torch.manual_seed(0)
            given = _KERNELS[op](bk, torch)
        outputs.append(given if isinstance(given, tuple) else (given,))
    error = max(float((y - true).abs().max() / true.abs().max()) for y, true in zip(*outputs, strict=True))
    found = f"cpp, differs from the reference by {error:.0e}"
    if error <= MAX_ERROR:  # a NaN is not
        return Finding(OK, found)
    return Finding(FAILED, f"{found}, at most {MAX_ERROR:.0e} is right", REINSTALL)


def _face_detector() -> Finding:
    from bigsmall.face import FaceWeightsError, networks

    try:
        for name in networks.SHA256:
            networks.load(name)
    except FaceWeightsError as error:
        return Finding(FAILED, str(error), "pip install --force-reinstall --no-deps mtcnn==1.0.0")
    return Finding(OK, f"the weights of {', '.join(networks.SHA256)} are there, with the right checksums")


def _default_model() -> Finding:
    from bigsmall import weights

    predictor = weights.load("default")
    return Finding(OK, f"{predictor.cards[0].name}: {', '.join(predictor.tasks)}")


def _codec(name: str) -> Finding:
    """A clip with uneven timestamps, written and read again."""
    import av
    import numpy as np

    encoders, lost = CODECS[name]
    try:
        av.codec.Codec(name, "r")
    except av.codec.codec.UnknownCodecError:
        return Finding(WARNING, "FFmpeg here has no decoder: such videos cannot be read", UPGRADE)
    encoder = next((encoder for encoder in encoders if encoder in av.codecs_available), None)
    if encoder is None:
        found = f"a decoder, and no encoder to test it with{'; ' if lost else ''}{lost}"
        return Finding(WARNING if lost else SKIPPED, found, UPGRADE if lost else "")
    frames = list(_clip(np))
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "clip.mkv")
        _encode(av, path, encoder, frames)
        with av.open(path) as container:
            stream = container.streams.video[0]
            decoder = stream.codec_context.name
            read = [(picture.time, picture.to_ndarray(format="rgb24")) for picture in container.decode(stream)]
    times = [round(1000 * seconds) for seconds, _ in read]
    if times != list(TIMES_MS):
        return Finding(FAILED, f"frames written at {list(TIMES_MS)} ms were read at {times}", UPGRADE)
    errors = [np.abs(rgb.astype(float) - true).mean() for (_, rgb), true in zip(read, frames, strict=True)]
    if max(errors) > MAX_PIXEL_ERROR:
        found = f"pixels differ by {max(errors):.0f} of 255 from what was written"
        return Finding(FAILED, found, UPGRADE)
    return Finding(OK, f"{encoder} and {decoder}: {len(read)} frames with exact timestamps")


def _clip(np: Any) -> Iterator[Any]:
    """Frames (48, 64, 3) uint8: red grows downwards, green to the right, blue with time."""
    down, right = np.mgrid[0:48, 0:64]
    for i in range(len(TIMES_MS)):
        channels = (40 + 3 * down, 40 + 2 * right, np.full((48, 64), 60 + 10 * i))
        yield np.stack(channels, -1).astype(np.uint8)


def _encode(av: Any, path: str, encoder: str, frames: list[Any]) -> None:
    formats = {"ffv1": "bgr0", "mjpeg": "yuvj420p"}
    with av.open(path, "w") as container:
        stream = container.add_stream(encoder, rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = formats.get(encoder, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        if encoder == "libx265":
            stream.options = {"x265-params": "log-level=none"}
        for ms, rgb in zip(TIMES_MS, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(rgb, "rgb24")
            picture.pts, picture.time_base = ms, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def _temporary_folder() -> Finding:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(1 << 20))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    found = f"can be written to, {free / 2**30:.1f} GB free"
    if free < LEAST_FREE:
        return Finding(WARNING, found, "make room, or set TMPDIR: captures are recorded there while they are measured")
    return Finding(OK, found)


def _camera_names() -> str:
    """Of the cameras that Linux knows."""
    devices = sorted(Path("/sys/class/video4linux").glob("video*/name"))
    return ", ".join(dict.fromkeys(device.read_text().strip() for device in devices))


def _camera(look: bool) -> Finding:
    names = _camera_names()
    if not look:
        if names:
            return Finding(OK, names, "--camera opens the first and reads from it")
        return Finding(SKIPPED, "none" if platform.system() == "Linux" else "not looked for; --camera opens the first")
    try:
        import cv2
    except ImportError:
        return Finding(SKIPPED, names or "none", f"to open it: pip install '{DISTRIBUTION}[opencv]'")
    capture = cv2.VideoCapture(0)
    try:
        read = [capture.read() for _ in range(5)]  # the first frames are slow and dark
        start = time.perf_counter()
        read += [capture.read() for _ in range(30)] if read[-1][0] else []
        seconds = time.perf_counter() - start
    finally:
        capture.release()
    pictures = [picture for ok, picture in read if ok]
    if not pictures:
        status = FAILED if names else SKIPPED
        return Finding(status, f"{names or 'none'}{': gives no picture' if names else ''}")
    height, width = pictures[-1].shape[:2]
    found = f"{names or 'a camera'}: {width}x{height}, {30 / seconds:.0f} frames/s"
    if pictures[-1].max() == 0:
        return Finding(WARNING, f"{found}, all black", "is the lens covered, or another program using the camera?")
    return Finding(OK, found)


def _gpu() -> Finding:
    import torch

    if not torch.cuda.is_available():
        return Finding(SKIPPED, "none that torch can use; the measurement runs on the processor")
    return Finding(OK, f"{torch.cuda.get_device_name(0)}; the measurement runs on the processor all the same")


def _self_test() -> Finding:
    """Simulate a face, write it, measure the file, and compare with the truth."""
    from bigsmall import measure
    from bigsmall.synthesis import synthesize

    marks: dict[str, list[tuple[float, int]]] = {}

    def tell(stage: str, done: int, total: int | None) -> None:
        marks.setdefault(stage, []).append((time.perf_counter(), done))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "self-test.mkv"
        start = time.perf_counter()
        truth = synthesize(path, **SIMULATED).truth
        speeds = [f"simulating {len(truth.timestamp) / (time.perf_counter() - start):,.0f}"]
        result = measure(path, progress=tell)
    for stage, times in marks.items():
        (begun, first), (ended, last) = times[0], times[-1]
        speeds.append(f"{stage} {(last - first) / max(ended - begun, 1e-9):,.0f}")
    speed = f"; {', '.join(speeds)} frames/s"
    true, found = SIMULATED["heart_rate"], result.heart_rate
    if len(result.frames) != len(truth.timestamp):
        wrong = f"{len(truth.timestamp)} frames were written and {len(result.frames)} read"
    elif found.value is None:
        wrong = f"the heart rate was refused: {found.note}"
    elif abs(found.value - true) > MAX_RATE_ERROR:
        wrong = f"the heart rate was {found.value:.1f} bpm, {true:.1f} is true"
    else:
        return Finding(OK, f"heart rate {found.value:.1f} bpm, true {true:.1f}{speed}")
    return Finding(FAILED, wrong + speed, REPORT)
