from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.arkitscenes import ArkitScenes, read_mixed
from hybriddepth_ros.evaluation.datasets import open_source
from hybriddepth_ros.evaluation.protocols import load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdPair
from tests.rgbd_files import one_line, rgb_and_depth, write_depth_mm, write_rgb

SIZE = (240, 320)


def write_scene(root: Path, video: str = "41048190", names: tuple[str, ...] = ("1.0", "2.0")) -> Path:
    rgb, depth = rgb_and_depth(*SIZE)
    for name in names:
        write_rgb(root / "Validation" / video / "wide" / f"{name}.png", rgb)
        write_depth_mm(root / "Validation" / video / "highres_depth" / f"{name}.png", depth)
    return root


def refusal(root: Path, index: int = 0, split: str = "") -> str:
    with pytest.raises(HybridDepthError) as caught:
        ArkitScenes(root, split=split).load(index)
    return one_line(caught.value)


def test_frames_are_found_at_480x640_with_depths_that_were_measured(tmp_path: Path) -> None:
    source = ArkitScenes(write_scene(tmp_path))
    assert source.names() == ["41048190/1.0", "41048190/2.0"] and source.oracle
    frame = source.load(0)
    depth = rgb_and_depth(*SIZE)[1]
    assert frame.truth.values.shape == (480, 640) and frame.oracle
    assert np.array_equal(frame.valid, np.kron(depth > 0, np.ones((2, 2), bool)))
    expected = np.linspace(depth[depth > 0].min(), depth.max(), 5)
    assert 1 / frame.stack.focus_diopters == pytest.approx(expected, rel=1e-5)
    assert not ArkitScenes(tmp_path, load_protocol("rooms")).oracle


def test_a_folder_with_training_only_is_read(tmp_path: Path) -> None:
    (write_scene(tmp_path) / "Validation").rename(tmp_path / "Training")
    source = open_source(tmp_path)
    assert source.name == "ARKitScenes Training" and len(source) == 2
    write_scene(tmp_path)
    assert open_source(tmp_path).name == "ARKitScenes Validation"


def test_a_list_chooses_the_frames_by_their_lowres_paths(tmp_path: Path) -> None:
    write_scene(tmp_path)
    listing = tmp_path / "Validation" / "list.txt"
    listing.write_text("raw/Validation/41048190/lowres_wide/2.0.png 41048190/lowres_depth/2.0.png\n")
    assert ArkitScenes(tmp_path).names() == ["41048190/2.0"]
    listing.write_text("41048190/vga_wide/2.0.png")
    assert "list.txt: expected <video>/lowres_wide/<name>.png, got '41048190/vga_wide" in refusal(tmp_path)


def test_the_published_resizing_mixes_depth_with_holes_and_ours_does_not(tmp_path: Path) -> None:
    rgb, depth = rgb_and_depth(960, 1280)
    pair = RgbdPair("a", write_rgb(tmp_path / "rgb.png", rgb), write_depth_mm(tmp_path / "depth.png", depth))
    mixed = read_mixed(pair)
    assert mixed.rgb.shape == (480, 640, 3) and mixed.depth.shape == (480, 640)
    between = (mixed.depth > 0) & (mixed.depth < 0.9 * depth[depth > 0].min())
    assert between.any()  # nearer than anything in the scene
    flat = mixed.depth[200:, 200:]
    assert flat == pytest.approx(depth[400:, 400:].reshape(280, 2, 440, 2).mean(axis=(1, 3)), abs=2e-3)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    assert "expected the folder Validation or Training of ARKitScenes" in refusal(tmp_path)
    write_scene(tmp_path)
    assert "not 'Training'" in refusal(tmp_path, split="Training")
    (tmp_path / "Validation" / "41048190" / "highres_depth" / "2.0.png").unlink()
    expected = "highres_depth/2.0.png: expected the ground truth of 2.0.png, found nothing"
    assert expected in refusal(tmp_path, index=1)
    (tmp_path / "Training").mkdir()
    assert "Training: expected <video>/wide/<name>.png, found none" in refusal(tmp_path, split="Training")
