"""Where a command writes its results: checked before the work, and all or nothing after it."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from hybriddepth_ros.errors import OutputError


class OutputFolder:
    """A folder for a command's files, refused at once if it cannot be written.

    Files are staged under temporary names beside their places and renamed when the `with` block ends well;
    when it does not (an error, Ctrl-C), they vanish, and so do the folders made for them. All else stays.
    """

    def __init__(self, path: Path, names: Sequence[str] = (), option: str = "--out") -> None:
        """`names`: the files to come, so that a folder is refused where one of them cannot be replaced;
        option: by which the user named it.
        """
        self.path, self._option = path, option
        self._staged: dict[str, Path] = {}
        self._made: list[Path] = []
        try:
            self._made = _missing_folders(path)
            if path.exists() and not path.is_dir():
                raise OutputError(f"{option} {path}: expected a folder, found a file")
            path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=path):
                pass
        except OSError as error:
            self._remove_made()
            raise OutputError(f"{option} {path}: expected a writable folder ({error.strerror})") from None
        for name in names:
            if (path / name).is_dir():
                raise OutputError(
                    f"{option} {path}: expected to write the file {name}, found a folder of that name"
                )

    def staged_path(self, name: str) -> Path:
        """Where to write a file that is to become `name`, for writers that take a path."""
        return self._staged.setdefault(name, self.path / f".{os.getpid()}.{name}")

    def write_bytes(self, name: str, data: bytes) -> None:
        """Stages one file."""
        try:
            self.staged_path(name).write_bytes(data)
        except OSError as error:
            raise OutputError(
                f"{self._option} {self.path}: {name} cannot be written ({error.strerror})"
            ) from None

    def write_text(self, name: str, text: str) -> None:
        """Stages one UTF-8 file."""
        self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Any) -> None:
        """Stages one JSON file; NaN and infinity, which JSON lacks, become null."""
        self.write_text(name, to_json(value))

    def __enter__(self) -> OutputFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            for name, staged in self._staged.items():
                try:
                    os.replace(staged, self.path / name)
                except OSError as error:
                    raise OutputError(
                        f"{self._option} {self.path}: {name} cannot be written ({error.strerror})"
                    ) from None
            return
        for staged in self._staged.values():
            staged.unlink(missing_ok=True)
        self._remove_made()

    def _remove_made(self) -> None:
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:  # not empty, or never made: someone else's files stay
                return


def _missing_folders(path: Path) -> list[Path]:
    """The folders that `mkdir(parents=True)` will make, innermost first."""
    missing = []
    while not path.exists() and path != path.parent:
        missing.append(path)
        path = path.parent
    return missing


def to_json(value: Any) -> str:
    """Indented JSON of plain data, numpy numbers, lists and mappings; floats to 6 significant digits."""
    return json.dumps(_plain(value), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy arrays and scalars
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
