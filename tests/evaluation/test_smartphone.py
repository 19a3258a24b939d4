import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.smartphone import FOCUS_MM, Smartphone, depth_of_grey
from tests.rgbd_files import one_line, rgb_and_depth, write_rgb

SLICES = (0, 5, 11, 16, 21, 27, 32, 37, 43, 48)


def write_scene(root: Path, scene: str = "apt1_0") -> Path:
    rgb, _ = rgb_and_depth(504, 378)
    for number in SLICES:
        write_rgb(root / "test/scaled_images" / scene / str(number) / "result_scaled_image_center.jpg", rgb)
    depth = np.broadcast_to(np.arange(504)[:, None] % 256, (504, 378)).astype(np.uint8)
    folder = root / "test/merged_depth" / scene
    folder.mkdir(parents=True)
    cv2.imwrite(str(folder / "result_merged_depth_center.png"), depth)
    return root


def refusal(root: Path) -> str:
    with pytest.raises(HybridDepthError) as caught:
        Smartphone(root).load(0)
    return one_line(caught.value)


def test_ten_slices_far_to_near_and_the_middle_of_the_image(tmp_path: Path) -> None:
    source = Smartphone(write_scene(tmp_path))
    assert source.names() == ["apt1_0"] and not source.oracle
    frame = source.load(0)
    assert tuple(FOCUS_MM) == SLICES
    assert frame.stack.focus_diopters[[0, 9]] == pytest.approx([0.25570, 9.80296], rel=1e-4)
    assert (np.diff(frame.stack.focus_diopters) > 0).all()
    assert frame.stack.slices[0].image.shape == (336, 252, 3) and frame.confidence is None
    grey = np.arange(84, 420) % 256
    assert np.array_equal(frame.truth.values[:, 7], depth_of_grey(grey))
    assert np.array_equal(frame.valid, frame.truth.values > 0) and not frame.valid.all()


def test_grey_is_linear_in_diopters_and_what_is_beyond_the_farthest_focus_is_masked() -> None:
    grey = np.arange(256, dtype=np.uint8)
    depth = depth_of_grey(grey)
    seen = depth > 0
    assert 1 / depth[seen] == pytest.approx((5.0 - 4.99 * grey / 255)[seen], rel=1e-6)
    assert depth[0] == pytest.approx(0.2) and depth.max() <= 3.91092 and not seen[-1]
    assert np.array_equal(seen, 5.0 - 4.99 * grey / 255 >= 1 / 3.91092)


def test_confidences_are_read_where_opencv_may(tmp_path: Path) -> None:
    """OpenCV asks the environment once, when it first meets such a file: hence another process."""
    write_scene(tmp_path)
    code = f"""
import cv2, numpy as np, pathlib
from hybriddepth_ros.evaluation.smartphone import Smartphone
root = pathlib.Path({str(tmp_path)!r})
file = root / "test/merged_conf/apt1_0/result_merged_conf_center.exr"
file.parent.mkdir(parents=True)
values = np.broadcast_to(np.linspace(0, 1, 504, dtype=np.float32)[:, None], (504, 378))
file.write_bytes(cv2.imencode(".exr", np.ascontiguousarray(values))[1].tobytes())
confidence = Smartphone(root).load(0).confidence
assert confidence.shape == (336, 252) and np.allclose(confidence, values[84:420, :252], atol=1e-3)
file.write_bytes(b"")
try:
    Smartphone(root).load(0)
except Exception as error:
    print(error)
"""
    environment = {**os.environ, "OPENCV_IO_ENABLE_OPENEXR": "1"}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert "result_merged_conf_center.exr: expected an OpenEXR image" in finished.stdout


@pytest.mark.parametrize("flag", ["0", "1"])
def test_whether_there_are_confidences_is_an_option_of_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setenv("OPENCV_IO_ENABLE_OPENEXR", flag)
    assert Smartphone(write_scene(tmp_path)).options == {"confidence": flag == "1"}


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    assert "expected scenes in test/scaled_images, found none" in refusal(tmp_path)
    write_scene(tmp_path)
    depth = tmp_path / "test/merged_depth/apt1_0/result_merged_depth_center.png"
    for values, expected in (
        (np.full((504, 378), 255, np.uint8), "expected depths within the sweep, found none"),
        (np.zeros((504, 378), np.uint16), "expected 8 bits per pixel, got uint16"),
        (np.zeros((378, 504), np.uint8), "expected 378x504, got 504x378"),
    ):
        cv2.imwrite(str(depth), values)
        assert f"result_merged_depth_center.png: {expected}" in refusal(tmp_path)
    depth.unlink()
    assert "center.png: expected the ground truth of the scene, found nothing" in refusal(tmp_path)
    (tmp_path / "test/scaled_images/apt1_0/5/result_scaled_image_center.jpg").unlink()
    assert "5/result_scaled_image_center.jpg: expected a file that can be read" in refusal(tmp_path)
