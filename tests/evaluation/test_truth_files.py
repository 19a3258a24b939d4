from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.truth_files import read_depth_array, read_depth_mm
from tests.rgbd_files import one_line, write_depth_mm


def test_millimetres_become_metres_and_holes_stay_zero(tmp_path: Path) -> None:
    stored = np.array([[0.0, 0.001], [1.234, 65.535]], np.float32)
    depth = read_depth_mm(write_depth_mm(tmp_path / "d.png", stored))
    assert depth.dtype == np.float32 and depth == pytest.approx(stored, abs=1e-6) and depth[0, 0] == 0.0


def test_an_array_in_metres_is_taken_with_its_holes(tmp_path: Path) -> None:
    stored = np.array([[np.nan, 1.5], [0.0, np.inf]], np.float64)
    np.save(tmp_path / "depth.npy", stored)
    depth = read_depth_array(tmp_path / "depth.npy")
    assert depth.dtype == np.float32 and np.array_equal(depth, stored.astype(np.float32), equal_nan=True)


def image_bytes(values: np.ndarray) -> bytes:
    return cv2.imencode(".png", values)[1].tobytes()


FULL = image_bytes(np.full((20, 30), 1500, np.uint16))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (FULL[: len(FULL) // 2], "d.png: expected an image, could not decode it"),
        (b"", "d.png: expected an image"),
        (image_bytes(np.full((4, 4), 99, np.uint8)), "d.png: expected 16 bits per pixel"),
        (image_bytes(np.full((4, 4, 3), 99, np.uint16)), "d.png: expected an image with one channel, got 3"),
        (image_bytes(np.zeros((4, 4), np.uint16)), "d.png: expected depth above 0, found none"),
    ],
)
def test_images_that_are_no_depth_are_refused_by_name(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "d.png").write_bytes(content)
    with pytest.raises(HybridDepthError) as caught:
        read_depth_mm(tmp_path / "d.png")
    assert expected in one_line(caught.value)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (
            np.ones((2, 2, 1), np.float32),
            "expected floating-point depth [H, W] in metres, got float32 [2, 2, 1]",
        ),
        (np.ones((2, 2), np.uint16), "expected floating-point depth"),
        (np.full((2, 2), np.nan, np.float32), "expected depth above 0, found none"),
        (np.array([[None]], object), "could not decode it"),
    ],
)
def test_arrays_that_are_no_depth_are_refused_by_name(
    tmp_path: Path, values: np.ndarray, expected: str
) -> None:
    np.save(tmp_path / "depth.npy", values, allow_pickle=True)
    with pytest.raises(HybridDepthError) as caught:
        read_depth_array(tmp_path / "depth.npy")
    assert expected in one_line(caught.value)


def test_an_array_that_is_cut_or_no_array_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "depth.npy"
    np.save(path, np.ones((100, 100), np.float32))
    whole = path.read_bytes()
    archive = tmp_path / "a.npz"
    np.savez(archive, np.ones(3))
    for content in (whole[:500], whole[:20], b"", b"not an array", archive.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(HybridDepthError) as caught:
            read_depth_array(path)
        assert "depth.npy: expected" in one_line(caught.value)
    path.unlink()
    with pytest.raises(
        HybridDepthError, match=r"depth\.npy: expected a \.npy file that can be read: No such"
    ):
        read_depth_array(path)
