import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.protocols import EvaluationProtocol, load_protocol, parse_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdFolder
from tests.conftest import shared_path
from tests.rgbd_files import one_line, rgb_and_depth, write_pair


def protocol(**frames: Any) -> EvaluationProtocol:
    content = {
        "camera": {"width": 64, "height": 48, "blur_px_per_diopter": 5.0},
        "sweep": {"focus_diopters": [0.2, 1.0]},
        "frames": frames,
    }
    return parse_protocol(content, "p", "p.yaml")


def refusal(folder: Path) -> str:
    with pytest.raises(HybridDepthError) as caught:
        source = RgbdFolder(folder, protocol())
        source.load(len(source) - 1)
    return one_line(caught.value)


def write_manifest(folder: Path, entries: Any) -> None:
    (folder / "manifest.json").write_text(json.dumps(entries))


def entry(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "rgb": f"{name}.rgb.png", "depth": f"{name}.depth_mm.png"} | more


def test_pairs_are_found_by_their_names(tmp_path: Path) -> None:
    for name in ("b", "a"):
        write_pair(tmp_path, name)
    (tmp_path / "README.md").write_text("no frame")
    source = RgbdFolder(tmp_path, protocol())
    assert source.names() == ["a", "b"] and len(source) == 2 and source.name == tmp_path.name
    frame = source.load(1)
    assert frame.name == "b" and not source.oracle and frame.stack.camera is None
    assert frame.depth_m() == pytest.approx(
        np.where(rgb_and_depth()[1] > 0, rgb_and_depth()[1], np.nan), nan_ok=True
    )


def test_a_manifest_rules_the_order_and_gives_intrinsics(tmp_path: Path) -> None:
    for name in ("b", "a", "unlisted"):
        write_pair(tmp_path, name)
    write_manifest(tmp_path, [entry("b", K=[60.0, 61.0, 31.5, 23.5], note="kept"), entry("a", K=None)])
    source = RgbdFolder(tmp_path, protocol())
    assert source.names() == ["b", "a"]
    camera = source.load(0).stack.camera
    assert camera is not None and (camera.fx, camera.fy, camera.cx, camera.cy) == (60.0, 61.0, 31.5, 23.5)
    assert source.load(1).stack.camera is None


def test_frames_are_chosen_by_where_most_of_their_pixels_are(tmp_path: Path) -> None:
    write_pair(tmp_path, "table", near=0.4, far=0.9)
    write_pair(tmp_path, "room", near=2.0, far=4.0)
    write_pair(tmp_path, "table in a room", near=0.4, far=4.0)
    (tmp_path / "broken.rgb.png").write_bytes(b"")
    (tmp_path / "broken.depth_mm.png").write_bytes(b"not an image")
    chosen = RgbdFolder(tmp_path, protocol(scene_depth_m=[0.25, 1.0])).names()
    assert chosen == ["broken", "table"]  # what cannot be read is for the runner to report
    (tmp_path / "broken.depth_mm.png").unlink()
    with pytest.raises(
        HybridDepthError, match=r"a frame mostly 8 to 9 m away \(protocol p\), found none in 3"
    ):
        RgbdFolder(tmp_path, protocol(scene_depth_m=[8, 9]))


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ({}, "manifest.json: expected a list of frames"),
        (["a"], "manifest.json: [0]: expected a frame with rgb and depth"),
        ([{"rgb": "a.rgb.png"}], "manifest.json: [0]: expected depth, which is missing"),
        ([entry("a"), entry("a")], "expected another id for each frame, got 'a' twice"),
        ([entry("a", depth="../a.png")], "manifest.json: [0]: depth: expected a file in"),
        ([entry("a", rgb=3)], "manifest.json: [0]: rgb: expected a file name"),
        ([entry("a", K=[1, 2])], "manifest.json: [0]: K: expected fx, fy, cx, cy"),
        ([entry("a", K=[0, 1, 2, 3])], "fx: expected a finite number above 0"),
        (
            [entry("absent")],
            "absent.depth_mm.png: expected the ground truth of absent.rgb.png, found nothing",
        ),
    ],
)
def test_manifest_that_misleads_is_refused_in_one_line(tmp_path: Path, entries: Any, expected: str) -> None:
    write_pair(tmp_path, "a")
    write_manifest(tmp_path, entries)
    assert expected in refusal(tmp_path)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    assert "expected manifest.json or <name>.depth_mm.png, found neither" in refusal(tmp_path)
    write_pair(tmp_path, "a")
    depth = tmp_path / "a.depth_mm.png"
    whole = depth.read_bytes()
    depth.write_bytes(whole[:-30])
    assert "a.depth_mm.png: expected an image, could not decode it" in refusal(tmp_path)
    depth.write_bytes(whole)
    (tmp_path / "manifest.json").write_text("[{")
    assert "manifest.json: expected JSON" in refusal(tmp_path)
    (tmp_path / "manifest.json").unlink()
    (tmp_path / "a.rgb.png").unlink()
    assert "a.depth_mm.png: expected a.rgb.jpg or a.rgb.png beside it" in refusal(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "frames", "one"),
    [
        ("rooms_handheld", 11, "redwood_0"),
        ("tables", 3, "cleargrasp_080"),
        ("nyu_published", 14, "redwood_0"),
    ],
)
def test_real_frames_become_stacks_with_the_truth_that_was_measured(name: str, frames: int, one: str) -> None:
    source = RgbdFolder(shared_path("data/rgbd"), load_protocol(name))
    assert len(source) == frames
    frame = source.load(source.names().index(one))
    assert frame.stack.slices[0].image.shape == (480, 640, 3)
    low, middle, high = np.nanpercentile(frame.depth_m(), (1, 50, 99))
    # As the manifest says; of 1280x720 px, 720 are made 480.
    wanted, fx = {"redwood_0": ((0.98, 1.86, 2.63), 525.0), "cleargrasp_080": ((0.44, 0.6, 0.93), 614.0)}[one]
    assert (low, middle, high) == pytest.approx(wanted, abs=0.02)
    assert frame.stack.camera is not None and frame.stack.camera.fx == pytest.approx(fx)
