"""The board as a file to be printed at true scale: PNG or PDF, which carry their resolution."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from hybriddepth_ros.calibration.board import BoardSpec, Grey, draw_board
from hybriddepth_ros.errors import OutputError, ParameterError

_MARGIN_SQUARES = 0.5
_LARGEST_DPI = 2400.0
_MOST_PIXELS = 400_000_000


def printable_board(spec: BoardSpec, dpi: float) -> tuple[Grey, float]:
    """The board with a white margin and a line of text [h, w], and the resolution it has [dpi].

    A square is a whole number of pixels, so the resolution differs a little from the one asked for.
    """
    if not 1.0 <= dpi <= _LARGEST_DPI:
        raise ParameterError(f"dpi: expected 1 to {_LARGEST_DPI:g}, got {dpi:g}")
    px = round(spec.square_m / 0.0254 * dpi)
    if px < 8:
        raise ParameterError(f"dpi: expected squares of at least 8 px, got {px} at {dpi:g} dpi")
    if (spec.columns + 1) * (spec.rows + 1) * px**2 > _MOST_PIXELS:
        raise ParameterError(
            f"dpi: expected a sheet of {_MOST_PIXELS / 1e6:g} megapixels or less at {dpi:g} dpi"
        )
    margin = round(_MARGIN_SQUARES * px)
    sheet = np.pad(draw_board(spec, px), margin, constant_values=255)
    text = (
        f"{spec.columns}x{spec.rows} squares of {1e3 * spec.square_m:g} mm, {spec.dictionary}:"
        " print at 100 %, measure a square"
    )
    size, _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = min(0.25 * margin / size[1], (sheet.shape[1] - 2 * margin) / size[0])
    at = (margin, sheet.shape[0] - round(0.4 * margin))
    thickness = max(1, round(2 * scale))
    cv2.putText(sheet, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, 0, thickness)
    return np.asarray(np.where(sheet > 127, 255, 0), np.uint8), px * 0.0254 / spec.square_m


def write_board(path: Path, spec: BoardSpec, dpi: float) -> str:
    """Writes the file; returns what is to be told of it. ParameterError for another ending."""
    if path.suffix.lower() not in (".png", ".pdf"):
        raise ParameterError(f"--print-board {path}: expected a name that ends in .png or .pdf")
    try:
        from PIL import Image
    except ImportError:
        raise ParameterError("--print-board: pillow is missing: pip install pillow") from None
    sheet, actual_dpi = printable_board(spec, dpi)
    picture = Image.fromarray(sheet).convert("1")
    try:
        if path.suffix.lower() == ".pdf":
            picture.save(path, resolution=actual_dpi)
        else:
            picture.save(path, dpi=(actual_dpi, actual_dpi))
    except OSError as error:
        raise OutputError(f"--print-board {path}: could not be written ({error.strerror})") from None
    width, height = (1e3 * side * 0.0254 / actual_dpi for side in sheet.shape[::-1])
    return f"{path}: {width:.0f} x {height:.0f} mm at {actual_dpi:.2f} dpi; print it at 100 %"
