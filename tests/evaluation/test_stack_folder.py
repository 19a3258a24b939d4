from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.estimator import reference_index
from hybriddepth_ros.evaluation.stack_folder import StackFolder
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.optics import ThinLens
from tests.rgbd_files import one_line, rgb_and_depth, write_depth_mm, write_rgb

LENS = ThinLens(4.0, 1.8, 2.0)


def write_named_stack(folder: Path) -> None:
    for name in ("image_1_0.50.jpg", "image_2_1.00.jpg", "image_3_inf.jpg"):
        write_rgb(folder / name, rgb_and_depth()[0])


def test_a_stack_yaml_with_an_array_of_depths(tmp_path: Path) -> None:
    rgb, depth = rgb_and_depth()
    stack = FocalStack((FocalSlice(rgb, 2.0), FocalSlice(rgb, 0.1), FocalSlice(rgb, 1.0)), lens=LENS)
    stack.write_folder(tmp_path / "desk")
    depth[0, 0] = np.nan
    np.save(tmp_path / "desk" / "depth.npy", depth)
    source = StackFolder(tmp_path / "desk")
    assert len(source) == 1 and source.names() == ["desk"] and source.name == "desk" and not source.oracle
    frame = source.load(0)
    assert frame.unit == "m" and frame.stack.lens == LENS
    assert np.array_equal(frame.valid, np.nan_to_num(depth) > 0)
    assert frame.reference == 2 == reference_index(frame.stack, "middle")


def test_a_depth_image_beside_named_slices_is_none_of_them(tmp_path: Path) -> None:
    write_named_stack(tmp_path)
    write_depth_mm(tmp_path / "depth_mm.png", rgb_and_depth()[1])
    assert len(FocalStack.from_folder(tmp_path).slices) == 3
    assert StackFolder(tmp_path).load(0).depth_m()[40, 32] == pytest.approx(rgb_and_depth()[1][40, 32])


def test_a_folder_of_stacks_gives_those_with_a_truth(tmp_path: Path) -> None:
    for name in ("b", "a", "no_truth"):
        write_named_stack(tmp_path / name)
        if name != "no_truth":
            write_depth_mm(tmp_path / name / "depth_mm.png", rgb_and_depth()[1])
    (tmp_path / "b" / "image_1_0.50.jpg").write_bytes(b"")
    source = StackFolder(tmp_path)
    assert source.names() == ["a", "b"] and source.load(0).name == "a"
    with pytest.raises(HybridDepthError) as caught:
        source.load(1)
    assert "image_1_0.50.jpg: expected an image" in one_line(caught.value)


def test_a_truth_of_another_size_or_none_is_refused_by_name(tmp_path: Path) -> None:
    write_named_stack(tmp_path)
    with pytest.raises(
        HybridDepthError, match=r"expected depth\.npy \(m\) or depth_mm\.png beside a focal stack"
    ):
        StackFolder(tmp_path)
    np.save(tmp_path / "depth.npy", np.ones((5, 6), np.float32))
    with pytest.raises(HybridDepthError) as caught:
        StackFolder(tmp_path).load(0)
    assert "truth: expected float32 [48, 64], as its slices are, got float32 [5, 6]" in one_line(caught.value)
