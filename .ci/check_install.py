"""Every way of installing, each tried: isolated, editable, from a wheel, from an sdist, without a compiler.

The sources are copied aside first (what git tracks or would), so that nothing is built in the checkout. Each way ends
in the same use of the installed package, outside the sources.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

USE = """
import json, torch, bigsmall, bigsmall_kernels as bk
x = torch.randn(6, 32, 9, 9)
with bk.use_backend("reference"):
    expected = bk.wtsm(x)
assert torch.equal(bk.wtsm(x), expected)
print(json.dumps({"info": bk.info(), "file": bk.__file__}))
"""


class Environment:
    """A virtual environment of its own; without a compiler only its own programs are on the PATH."""

    def __init__(self, folder: Path, *, compiler: bool = True) -> None:
        venv.create(folder, with_pip=True)
        self.bin = folder / ("Scripts" if os.name == "nt" else "bin")
        outer = {k: v for k, v in os.environ.items() if k not in ("CC", "CXX", "PYTHONPATH", "VIRTUAL_ENV")}
        path = [str(self.bin), os.environ["PATH"]] if compiler else [str(self.bin)]
        # constraints reach isolated build environments too; unpinned, torch would bring gigabytes of CUDA
        self.variables = outer | {"PATH": os.pathsep.join(path), "PIP_CONSTRAINT": str(ROOT / "requirements.txt")}
        self.away = folder

    def __call__(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run one of the environment's programs outside the sources; its output goes along if it fails."""
        program = shutil.which(str(command[0]), path=str(self.bin))
        assert program, f"{command[0]} is not installed"
        arguments = [program, *map(str, command[1:])]
        done = subprocess.run(arguments, cwd=self.away, env=self.variables, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(arguments)}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done

    def pip(self, *arguments: str | Path) -> None:
        self("python", "-m", "pip", "--quiet", *arguments)

    def use(self) -> dict:
        """Import and run the package and its command; what it says of itself."""
        self("bigsmall", "--help")
        return json.loads(self("python", "-c", USE).stdout.splitlines()[-1])


def check(what: str, condition: object, found: object) -> None:
    if not condition:
        sys.exit(f"{what}: FAILED, found {found}")
    print(f"{what}: ok", flush=True)


def check_compiled(what: str, environment: Environment) -> None:
    used = environment.use()
    kernels = {kernel["cpu"] for kernel in used["info"]["kernels"].values()}
    check(what, used["info"]["library"]["loaded"] and "cpp" in kernels, used)


def copy_sources(folder: Path) -> Path:
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True, text=True).stdout
    for name in listed.split("\0")[:-1]:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


def main(work: Path) -> None:
    sources = copy_sources(work / "sources")
    dist = work / "dist"

    one = Environment(work / "one")
    one.pip("install", sources)
    check_compiled("pip install . (isolated)", one)

    one.pip("install", "build")
    one("python", "-m", "build", "--outdir", dist, sources)  # the sdist, and the wheel from the sdist
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    check("the wheel serves every Python from 3.10 on", "-cp310-abi3-" in wheel.name, wheel.name)

    one.pip("uninstall", "--yes", "bigsmall-kernels")
    one.pip("install", "--editable", sources)
    check_compiled("pip install -e . (isolated)", one)
    check("an editable install runs the sources", str(sources) in one.use()["file"], one.use()["file"])

    one.pip("uninstall", "--yes", "bigsmall-kernels")
    shutil.rmtree(sources)
    one.pip("install", sdist)
    check_compiled("the sdist from its own archive", one)

    empty = Environment(work / "empty", compiler=False)
    empty.pip("install", wheel)
    check_compiled("the wheel in an empty environment without a compiler", empty)
    video = work / "face.mkv"
    empty("bigsmall", "synthesize", video, "--seconds", "10", "--heart-rate", "72")
    empty("bigsmall", "measure", video, "-o", work / "measured")
    found = json.loads((work / "measured" / "measurement.json").read_text())["heart_rate"]
    check("there it measures", found["value"] and abs(found["value"] - 72) < 3, found)

    (library,) = Path(empty.use()["file"]).parent.glob("_C*")
    library.write_bytes(b"no library")
    broken = empty("python", "-W", "always", "-c", USE)
    sentence = json.loads(broken.stdout.splitlines()[-1])["info"]["library"]["note"]
    said = "built for torch" in sentence and "could not be loaded" in sentence and broken.stderr.count(sentence) == 1
    check("a broken library is one sentence", said, sentence + broken.stderr)

    pure = work / "pure"
    empty.pip("wheel", "--no-deps", "--wheel-dir", pure, copy_sources(sources))
    (wheel,) = pure.glob("*.whl")
    check("without a compiler the wheel is pure Python", wheel.name.endswith("-py3-none-any.whl"), wheel.name)
    empty.pip("install", "--force-reinstall", "--no-deps", wheel)
    info = empty.use()["info"]
    missing = not info["library"]["loaded"] and "compiler" in info["library"]["note"]
    fallback = {kernel["cpu"] for kernel in info["kernels"].values()} == {"reference"}
    check("and says what is missing and what runs instead", missing and fallback, info)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))
