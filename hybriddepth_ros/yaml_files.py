"""YAML files of the user's: read with one line about what is wrong, written whole or not at all."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from hybriddepth_ros.errors import ParameterError


def read_yaml(path: Path, expected: str = "", option: str = "") -> Any:
    """What a file holds; ParameterError names it, after the `option` that it was given with, and what it was
    expected to be, where that is not plain from the option."""
    where = f"{option} {path}".lstrip()
    try:
        return yaml.safe_load(path.read_bytes())
    except OSError as error:
        what = f"expected {expected}: " if expected else ""
        raise ParameterError(f"{where}: {what}{error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: a date such as 2024-99-99
        mark = getattr(error, "problem_mark", None)
        raise ParameterError(f"{where}: expected YAML{f' at line {mark.line + 1}' if mark else ''}") from None


def write_whole(path: Path, text: str) -> None:
    """What was there stays until the new text is written; folders are made. OSError if it cannot be."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        with suppress(OSError):
            part.unlink()
