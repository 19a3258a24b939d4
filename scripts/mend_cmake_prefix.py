#!/usr/bin/env python3
"""Point the CMake files of the ROS 2 wheels at the virtual environment they were installed into.

The wheels' message packages were built in a build image, and their exported CMake targets still name that
image's Python and numpy headers (`.../cp311-cp311/include/python3.11`, `.../numpy/_core/include`). CMake
refuses a target whose include folder does not exist, so no interface package can be built on them until the
two are replaced with those of the Python that will use the result.

    python scripts/mend_cmake_prefix.py .venv

Each file is written whole or not at all, and a second run finds nothing to do: safe to repeat.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

# The build image keeps each Python under a folder named after its ABI tag, such as cp312-cp312.
BUILD_IMAGE_PYTHON = r'[^";\s]*/cp3\d+-cp3\d+'
PYTHON_INCLUDE = re.compile(BUILD_IMAGE_PYTHON + r"/include/python3\.\d+")
NUMPY_INCLUDE = re.compile(BUILD_IMAGE_PYTHON + r"/lib/python3\.\d+/site-packages/numpy/_?core/include")


def include_folders(python: Path) -> tuple[str, str]:
    """The folders of the Python headers and of the numpy headers that `python` compiles against."""
    ask = "import numpy, sysconfig; print(sysconfig.get_paths()['include']); print(numpy.get_include())"
    answer = subprocess.run([str(python), "-c", ask], check=True, capture_output=True, text=True)
    python_include, numpy_include = answer.stdout.splitlines()
    return python_include, numpy_include


def mend(prefix: Path, python_include: str, numpy_include: str) -> list[Path]:
    """Rewrite the build image's folders in every CMake file of `prefix`; returns the files that changed."""
    changed = []
    for file in sorted([*prefix.glob("share/*/cmake/*.cmake"), *prefix.glob("lib/cmake/**/*.cmake")]):
        text = file.read_text(encoding="utf-8", errors="surrogateescape")
        mended = NUMPY_INCLUDE.sub(lambda _: numpy_include, text)
        mended = PYTHON_INCLUDE.sub(lambda _: python_include, mended)
        if mended == text:
            continue
        # A new file that takes the old one's place: an interruption leaves either, and a wheel file that is
        # hard-linked into an installer's cache keeps its cached content.
        draft = file.with_name(file.name + ".mending")
        draft.write_text(mended, encoding="utf-8", errors="surrogateescape")
        os.replace(draft, file)
        changed.append(file)
    return changed


def main() -> int:
    parser = argparse.ArgumentParser(description="Mend the CMake files of the ROS 2 wheels.")
    parser.add_argument("prefix", type=Path, help="the virtual environment the wheels were installed into")
    prefix = parser.parse_args().prefix
    if not (prefix / "share").is_dir():
        print(f"{prefix}: no share/ in it; expected a virtual environment with ROS 2 wheels", file=sys.stderr)
        return 2
    changed = mend(prefix, *include_folders(prefix / "bin" / "python"))
    print(f"{len(changed)} CMake files mended")
    return 0


if __name__ == "__main__":
    sys.exit(main())
