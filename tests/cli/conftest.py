"""A small stack on disk and the command line as a function."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from hybriddepth_ros.cli import main

FOCUS_M = (0.4, 0.8, 2.0)


class Outcome(NamedTuple):
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(capfd: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Runs the command line in this process, through its own error handling."""

    def run(*arguments: object) -> Outcome:
        code = main([str(a) for a in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """The stack of `write_stack`."""
    return write_stack(tmp_path / "stack")


def write_stack(folder: Path) -> Path:
    """Three slices of 320x240 px: a texture whose left half is near and whose right half is far."""
    folder.mkdir()
    rng = np.random.default_rng(5)
    octaves = [cv2.resize(rng.random((240 // n, 320 // n, 3)), (320, 240)) for n in (2, 4, 8, 16)]
    sharp = np.uint8(255 * np.mean(octaves, axis=0))
    for index, distance in enumerate(FOCUS_M):
        image = sharp.copy()
        for half, depth in ((np.s_[:, :160], 0.5), (np.s_[:, 160:], 1.6)):
            blur = 0.3 + 1.2 * abs(1 / distance - 1 / depth)
            image[half] = cv2.GaussianBlur(sharp, (0, 0), blur)[half]
        cv2.imwrite(str(folder / f"image_{index}_{distance}.png"), image)
    return folder
