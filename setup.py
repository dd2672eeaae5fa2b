"""Builds the compiled library where there is a C++ compiler; without one the distribution is pure Python."""

import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys

from setuptools import setup

ROOT = pathlib.Path(__file__).resolve().parent
RECORD = ROOT / "bigsmall_kernels" / "_build.json"  # what was built, readable without loading it
TARGET = (2, 10)  # the oldest torch the stable ABI is asked for


def compiler() -> str | None:
    """The C++ compiler's command, if it runs."""
    command = os.environ.get("CXX") or ("cl" if sys.platform == "win32" else "c++")
    for candidate in dict.fromkeys((command, "g++", "clang++")):
        if shutil.which(candidate.split()[0]):
            return candidate
    return None


def extension_arguments() -> dict[str, object]:
    cxx = compiler()
    if cxx is None:
        print("bigsmall-kernels: no C++ compiler found, installing without the compiled library")
        return {}
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension

    class Build(BuildExtension):
        """Records what is built, beside it."""

        def run(self) -> None:
            super().run()
            banner = subprocess.run([*cxx.split(), "--version"], capture_output=True, text=True).stdout.splitlines()
            record = {
                "built_for": f"torch >= {TARGET[0]}.{TARGET[1]} on {platform.system()} {platform.machine()}",
                "built_with": f"torch {torch.__version__}",
                "compiler": banner[0] if banner else cxx,
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
        define_macros=[
            ("TORCH_TARGET_VERSION", f"0x{TARGET[0]:02x}{TARGET[1]:02x}000000000000"),
            ("Py_LIMITED_API", "0x030A0000"),
        ],
        extra_compile_args=[
            *("-std=c++17", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math"),
            *("-fvisibility=hidden", "-Wall", "-Wno-psabi"),
        ],
        py_limited_api=True,
    )
    return {
        "ext_modules": [library],
        "cmdclass": {"build_ext": Build},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**extension_arguments())
