"""Captured images: what is written is read, and what is wrong is named."""

from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.calibration.board import BoardSpec
from hybriddepth_ros.calibration.captures import (
    BoardViews,
    Captures,
    Shot,
    Sweep,
    read_captures,
    write_captures,
)
from hybriddepth_ros.errors import ParameterError


def image(seed: int) -> np.ndarray:  # type: ignore[type-arg]
    return np.random.default_rng(seed).integers(0, 255, (12, 16), np.uint8)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    sweep = Sweep((Shot(image(1), 10.0, 1), Shot(image(2), 5.5, -1)), 0.75)
    written = Captures(
        BoardSpec(7, 5, 0.025),
        BoardViews(33.0, (image(3), image(4)), Sweep((Shot(image(5), 33.0),))),
        (sweep,),
    )
    write_captures(tmp_path / "images", written)
    read = read_captures(tmp_path / "images")
    assert read.board == written.board and read.views is not None and written.views is not None
    assert read.views.actuator == 33.0 and read.views.sweep.distance_m is None
    assert np.array_equal(read.views.images[1], written.views.images[1])
    assert read.sweeps[0].distance_m == 0.75
    for got, wanted in zip(read.sweeps[0].shots, sweep.shots, strict=True):
        assert np.array_equal(got.image, wanted.image)
        assert (got.actuator, got.approach) == (wanted.actuator, wanted.approach)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- 1", "expected keys and values"),
        ("sweeps: 3", "sweeps: expected a list"),
        ("sweeps: [3]", r"sweeps\[0\]: expected shots"),
        (
            "sweeps: [{shots: [{image: a.png}]}]",
            r"sweeps\[0\].shots\[0\].actuator: expected a number, got None",
        ),
        ("sweeps: [{shots: [{actuator: 1, approach: up}]}]", "expected rising or falling, got 'up'"),
        ("sweeps: [{shots: [{actuator: 1}]}]", "expected the name of a file, got None"),
        ("board: {columns: 9, rows: 7}", "board.square_mm: expected a number"),
        ("a: [", "expected YAML"),
        ("a: 2024-99-99", "expected YAML"),
        ("board: {columns: .nan, rows: 7, square_mm: 36}", "board.columns: expected a finite number"),
        ("board: {columns: 9.5, rows: 7, square_mm: 36}", "board.columns: expected a whole number, got 9.5"),
        ("sweeps: [{shots: [{actuator: .inf}]}]", r"shots\[0\].actuator: expected a finite number"),
        ("sweeps: [{shots: [{actuator: 1, approach: [rising]}]}]", "expected rising or falling"),
        ("sweeps: [{shots: []}]", r"sweeps\[0\].shots: expected one or more"),
        ("sweeps: [{distance_m: -1, shots: []}]", r"sweeps\[0\].distance_m: expected more than 0 m, got -1"),
        ("sweeps: [{shots: [{actuator: 1, image: no.png}]}]", r"sweeps\[0\].shots\[0\].image: .*no.png"),
        ("intrinsics: {actuator: 1, images: [no.png]}", r"intrinsics.images\[0\]: .*no.png"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "captures.yaml").write_text(text)
    with pytest.raises(ParameterError, match=said) as caught:
        read_captures(tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_the_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"captures\.yaml: expected the list of captured images"):
        read_captures(tmp_path)


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    larger = np.zeros((24, 32), np.uint8)
    write_captures(tmp_path, Captures(BoardSpec(), None, (Sweep((Shot(image(1), 1.0), Shot(larger, 2.0))),)))
    with pytest.raises(ParameterError, match="of one size, got 16x12 and 32x24 px"):
        read_captures(tmp_path)
