"""The board: drawn, printed at true scale, found again."""

from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.calibration.board import BoardSpec, draw_board, find_corners
from hybriddepth_ros.calibration.printing import printable_board, write_board
from hybriddepth_ros.errors import ParameterError


@pytest.mark.parametrize("spec", [BoardSpec(), BoardSpec(7, 5, 0.03), BoardSpec(6, 9, 0.02, "DICT_5X5_100")])
def test_a_drawn_board_is_found_corner_by_corner(spec: BoardSpec) -> None:
    image = np.pad(draw_board(spec, 40), 60, constant_values=255)
    found = find_corners(image, spec)
    assert found is not None and len(found) == (spec.columns - 1) * (spec.rows - 1)
    # A pixel's middle is a whole number, so an edge between pixels lies half a pixel before one.
    middle = 0.5 * (np.array(image.shape[::-1]) - 1.0)
    expected = found.of_board(spec)[:, :2] / spec.square_m * 40.0 + middle
    assert np.abs(found.points - expected).max() < 0.15


def test_no_board_is_none() -> None:
    assert find_corners(np.full((200, 200), 128, np.uint8), BoardSpec()) is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"rows": 6}, "odd number of rows, got 6"),
        ({"columns": 3}, "4x4 squares or more"),
        ({"square_m": 0.0}, "1 to 1000 mm"),
    ],
)
def test_boards_that_cannot_be_are_refused(spec: dict[str, float], said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        BoardSpec(**spec)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (BoardSpec(15, 11), "need 82 markers, DICT_4X4_50 has 50"),
        (BoardSpec(dictionary="DICT_4X4_5O"), "did you mean DICT_4X4_50"),
    ],
)
def test_marker_sets_that_do_not_do_are_refused(spec: BoardSpec, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        draw_board(spec, 20)


@pytest.mark.parametrize("name", ["board.png", "board.pdf"])
def test_the_print_has_true_scale(tmp_path: Path, name: str) -> None:
    image = pytest.importorskip("PIL.Image")
    spec = BoardSpec()
    told = write_board(tmp_path / name, spec, 300.0)
    assert "print it at 100 %" in told
    sheet, dpi = printable_board(spec, 300.0)
    width_mm = sheet.shape[1] / dpi * 25.4
    assert width_mm == pytest.approx(10 * 36.0, abs=0.1)  # nine squares and half of one on each side
    found = find_corners(sheet, spec)
    assert found is not None
    row = found.points[found.ids < 8]
    assert np.diff(row[:, 0]).mean() / dpi * 25.4 == pytest.approx(36.0, abs=0.02)
    if name.endswith("png"):
        with image.open(tmp_path / name) as picture:
            assert picture.info["dpi"][0] == pytest.approx(dpi, rel=1e-3)
            assert picture.size == sheet.shape[::-1]
    else:
        text = (tmp_path / name).read_bytes()
        box = text.split(b"/MediaBox")[1].split(b"]")[0].replace(b"[", b"").split()
        assert float(box[2]) / 72.0 * 25.4 == pytest.approx(width_mm, abs=0.2)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"\.png or \.pdf"):
        write_board(tmp_path / "board.jpg", BoardSpec(), 300.0)
