"""Results on disk, frame by frame: what is there need not be computed again, and nothing of it is lost.

One folder per model below `results/`: `settings.json`, and one .npz per frame, written whole or not at all.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import OutputError
from hybriddepth_ros.evaluation.frames import Floats
from hybriddepth_ros.evaluation.scoring import FrameScore, Reading, Subject
from hybriddepth_ros.image_files import ImageRGB

FOLDER = "results"
_SETTINGS = "settings.json"
THUMBNAIL_PX = 360  # longest side of a picture in the report


@dataclass(frozen=True, eq=False)
class Thumbnails:
    """Pictures of one estimate, made small: scene [h, w, 3] RGB; depth, sigma, truth [h, w] float32 m."""

    scene: ImageRGB
    depth: Floats
    sigma: Floats
    truth: Floats

    @classmethod
    def of(cls, subject: Subject, reading: Reading) -> Thumbnails:
        """Colours averaged; depths taken from one pixel each, since between two surfaces there is none."""
        height, width = reading.depth.shape
        factor = min(1.0, THUMBNAIL_PX / max(height, width))
        size = (max(round(width * factor), 1), max(round(height * factor), 1))
        scene = subject.scene if reading.scene is None else reading.scene
        maps = (reading.depth, reading.sigma, subject.depth_m())
        return cls(
            np.asarray(cv2.resize(scene, size, interpolation=cv2.INTER_AREA), np.uint8),
            *(np.asarray(cv2.resize(m, size, interpolation=cv2.INTER_NEAREST), np.float32) for m in maps),
        )


@dataclass(frozen=True, eq=False)
class FrameResult:
    """The score of one frame, with pictures of it or without."""

    name: str
    score: FrameScore
    thumbnails: Thumbnails | None = field(default=None, repr=False)


class ResultStore:
    """The results of one model in OUT/results/<label>."""

    def __init__(self, out: Path, label: str) -> None:
        self.out = out
        self.folder = out / FOLDER / quote(label, safe=" +=")  # one folder for each label
        self._label = label

    def begin(self, settings: dict[str, Any], resume: bool) -> None:
        """Makes the folder; OutputError if it holds results of other settings and is to be resumed."""
        settings = json.loads(json.dumps(settings))  # as they will be read again: tuples are lists
        found = self._read_settings()
        if found is not None and not resume:
            self._clear()
        elif found is not None and (difference := _difference(found, settings)):
            raise OutputError(
                f"--out {self.out}: holds results of {self._label} with other settings"
                f" ({difference}); name another folder, or begin anew with --no-resume"
            )
        self._write(self.folder / _SETTINGS, (json.dumps(settings, indent=2) + "\n").encode())

    def save(self, index: int, result: FrameResult) -> None:
        """Writes one result; OutputError if the disk refuses it."""
        score = result.score
        arrays: dict[str, npt.NDArray[Any]] = {
            "row": np.frombuffer(
                json.dumps({"name": result.name, "measures": score.measures}).encode(), np.uint8
            ),
            "reliability": score.reliability,
            "curves": score.curves,
            "sample": score.sample,
        }
        if result.thumbnails is not None:
            arrays |= {f"thumbnail_{name}": values for name, values in vars(result.thumbnails).items()}
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
        self._write(self._path(index), buffer.getvalue())

    def load(self, index: int, name: str) -> FrameResult | None:
        """The result of a frame, None if there is none that can be read."""
        try:
            with np.load(self._path(index), allow_pickle=False) as arrays:
                row = json.loads(arrays["row"].tobytes())
                if row["name"] != name:
                    return None
                score = FrameScore(
                    {key: float(value) for key, value in row["measures"].items()},
                    *(arrays[key] for key in ("reliability", "curves", "sample")),
                )
                pictures = [key for key in arrays.files if key.startswith("thumbnail_")]
                made = {key.removeprefix("thumbnail_"): arrays[key] for key in pictures}
                return FrameResult(name, score, Thumbnails(**made) if made else None)
        except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error):
            return None  # absent, or damaged: computed again

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.npz"

    def _read_settings(self) -> dict[str, Any] | None:
        try:
            found = json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            found = None
        return found if isinstance(found, dict) else {}

    def _clear(self) -> None:
        for file in self.folder.glob("*.npz"):
            if re.fullmatch(r"\d{6}", file.stem):
                file.unlink(missing_ok=True)

    def _write(self, path: Path, data: bytes) -> None:
        staged = path.with_name(f".{os.getpid()}.{path.name}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(data)
            os.replace(staged, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                staged.unlink(missing_ok=True)
            raise OutputError(
                f"--out {self.out}: {path.relative_to(self.out)} cannot be written ({error.strerror});"
                " what is there stays, the same command goes on from it"
            ) from None


def _difference(found: dict[str, Any], wanted: dict[str, Any], within: str = "") -> str:
    """`estimator.max_depth: 20.0 there, 5.0 now`: the first setting that differs, "" if none does; absent
    counts as null.
    """
    for key in sorted({*found, *wanted}):
        there, now = found.get(key), wanted.get(key)
        if isinstance(there, dict) and isinstance(now, dict):
            if difference := _difference(there, now, f"{within}{key}."):
                return difference
        elif there != now:
            return f"{within}{key}: {_brief(there)} there, {_brief(now)} now"
    return ""


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 or isinstance(value, str) else f"{text[:57]}..."
