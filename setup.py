"""Builds the compiled library where there is a C++ compiler; without one the distribution is pure Python.

The GPU kernels are a second library, built where there is nvcc and a torch with CUDA, or with BIGSMALL_KERNELS_CUDA=1
for any torch. BIGSMALL_KERNELS_CUDA_ARCHS names the architectures ("8.0;9.0+PTX"; by default those of the GPUs at
hand). A failing CUDA build leaves the rest of the installation as it is.
"""

import json
import os
import pathlib
import platform
import shlex
import shutil
import subprocess
import sys

from setuptools import Extension, setup
from setuptools.errors import CompileError

ROOT = pathlib.Path(__file__).resolve().parent
RECORD = ROOT / "bigsmall_kernels" / "_build.json"  # what was built, readable without loading it
TARGET = (2, 10)  # the oldest torch the stable ABI is asked for
DEFINITIONS = [("TORCH_TARGET_VERSION", f"0x{TARGET[0]:02x}{TARGET[1]:02x}000000000000")]
CUDA = "bigsmall_kernels._C_cuda"


def compiler() -> str | None:
    """The C++ compiler's command, if it runs."""
    command = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "c++")
    for candidate in dict.fromkeys((command, "g++", "clang++")):
        if shutil.which(candidate.split()[0]):
            return candidate
    return None


def nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    places = [str(pathlib.Path(home) / "bin")] if home else [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return shutil.which("nvcc", path=os.pathsep.join(places))


def architectures() -> list[str]:
    """nvcc's options for the architectures that are asked for, or of the GPUs at hand, or for a wheel."""
    import torch

    asked = os.environ.get("BIGSMALL_KERNELS_CUDA_ARCHS", "")
    if not asked and torch.cuda.is_available():
        found = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        asked = ";".join(f"{major}.{minor}" for major, minor in sorted(found))
    options = []
    for name in (asked or "8.0;9.0+PTX").split(";"):
        number = name.removesuffix("+PTX").replace(".", "")
        if number == "103":  # nvcc 13 compiles wrongly for it; it runs what is for sm_100
            number = "100"
        options += ["-gencode", f"arch=compute_{number},code=sm_{number}"]
        if name.endswith("+PTX"):
            options += ["-gencode", f"arch=compute_{number},code=compute_{number}"]
    return options


def cuda_plan() -> tuple[str | None, str]:
    """(nvcc if the GPU kernels are to be built, one sentence on why or why not)."""
    import torch

    command, asked = nvcc(), os.environ.get("BIGSMALL_KERNELS_CUDA")
    if asked == "0":
        return None, "no GPU kernels were built: BIGSMALL_KERNELS_CUDA=0"
    if command is None:
        return None, "no GPU kernels were built: no nvcc on the PATH or in CUDA_HOME at install time"
    if torch.version.cuda is None and asked != "1":
        return None, "no GPU kernels were built: this torch has no CUDA (BIGSMALL_KERNELS_CUDA=1 asks for them)"
    targets = ", ".join(option.rpartition("=")[2] for option in architectures()[1::2])
    return command, f"GPU kernels for {targets}, built by {command}"


def build_cuda(command: str, library: pathlib.Path, folder: pathlib.Path) -> None:
    """The GPU kernels' library, by ninja: only what has changed, and the files beside each other."""
    import torch

    root = pathlib.Path(torch.__file__).parent
    # The runtime is linked in: the library fits a torch with another CUDA, and with -z lazy loads beside one without.
    compile_options = [
        *("-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Xcompiler", "-fPIC,-fvisibility=hidden", "-DUSE_CUDA"),
        *(f"-D{name}={value}" for name, value in DEFINITIONS),
        *("-I", str(ROOT / "csrc"), "-isystem", str(root / "include"), "--threads", "0"),
        *architectures(),
    ]
    link_options = [
        *("-shared", "-cudart", "static", "-L", str(root / "lib")),
        *("-Xlinker", "--no-as-needed", "-ltorch", "-ltorch_cpu", "-lc10", "-Xlinker", "-z", "-Xlinker", "lazy"),
    ]

    def path(p: pathlib.Path) -> str:
        return str(p).replace("$", "$$").replace(" ", "$ ").replace(":", "$:")

    def run(options: list[str]) -> str:
        return shlex.join([command, *options]).replace("$", "$$")

    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    objects = {source: folder.resolve() / f"{source.stem}.o" for source in sources}
    rules = [
        "rule compile",
        f"  command = {run(compile_options)} -MD -MF $out.d -c $in -o $out",
        "  depfile = $out.d",
        "  deps = gcc",
        "rule link",
        f"  command = {run(link_options)} -o $out $in",
        *(f"build {path(o)}: compile {path(source)}" for source, o in objects.items()),
        f"build {path(library.resolve())}: link {' '.join(map(path, objects.values()))}",
    ]
    folder.mkdir(parents=True, exist_ok=True)
    library.parent.mkdir(parents=True, exist_ok=True)
    (folder / "build.ninja").write_text("\n".join(rules) + "\n")
    jobs = ["-j", os.environ["MAX_JOBS"]] if "MAX_JOBS" in os.environ else []
    try:
        subprocess.run(["ninja", "-C", str(folder), *jobs], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CompileError(f"the GPU kernels could not be built ({error}); going on without them") from error


def extension_arguments() -> dict[str, object]:
    cxx = compiler()
    if cxx is None:
        print("bigsmall-kernels: no C++ compiler found, installing without the compiled library")
        return {}
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    cuda_compiler, note = cuda_plan()
    cuda = {"built": cuda_compiler is not None, "note": note}

    class Build(BuildExtension):
        """Builds both libraries and records beside them what is built."""

        def build_extension(self, extension: Extension) -> None:
            if extension.name != CUDA:
                super().build_extension(extension)
                return
            assert cuda_compiler is not None
            try:
                folder = pathlib.Path(self.build_temp) / "cuda"
                build_cuda(cuda_compiler, pathlib.Path(self.get_ext_fullpath(CUDA)), folder)
            except CompileError:
                cuda.update(built=False, note="no GPU kernels were built: nvcc failed at install time")
                raise

        def run(self) -> None:
            super().run()
            banner = subprocess.run([*cxx.split(), "--version"], capture_output=True, text=True).stdout.splitlines()
            record = {
                "built_for": f"torch >= {TARGET[0]}.{TARGET[1]} on {platform.system()} {platform.machine()}",
                "built_with": f"torch {torch.__version__}",
                "compiler": banner[0] if banner else cxx,
                "cuda": cuda,
            }
            places = [RECORD] if self.inplace else [pathlib.Path(self.build_lib) / RECORD.relative_to(ROOT)]
            for place in places:
                place.write_text(json.dumps(record, indent=2) + "\n")

    sources = ["csrc/module.cpp", *sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc" / "cpu").glob("*.cpp"))]
    library = CppExtension(
        "bigsmall_kernels._C",
        sources,
        include_dirs=[str(ROOT / "csrc")],
        depends=sorted(str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.h")),
        define_macros=[*DEFINITIONS, ("Py_LIMITED_API", "0x030A0000")],
        extra_compile_args=[
            *("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
            "-falign-loops=64",  # else where the linker puts a product's loop decides over a twentieth of its time
            *("-fvisibility=hidden", "-Wall", "-Wno-psabi"),
        ],
        py_limited_api=True,
    )
    extensions = [library]
    if cuda_compiler:  # its sources are none of the C++ compiler's; being optional, it may fail
        extensions.append(Extension(CUDA, [], py_limited_api=True, optional=True))
    return {
        "ext_modules": extensions,
        "cmdclass": {"build_ext": Build},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


if __name__ == "__main__":
    setup(**extension_arguments())
