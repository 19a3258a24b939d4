from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.nyu import NyuDepth, inner_bounds, read_without_border
from hybriddepth_ros.evaluation.protocols import load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdPair
from tests.rgbd_files import one_line, rgb_and_depth, write_depth_mm, write_rgb

SIZE = (480, 640)
LINE = "/kitchen/rgb_1.png /kitchen/depth_1.png 518.8579"


def write_nyu(root: Path, lines: str = LINE, border: int = 0, near: float = 1.0, far: float = 4.0) -> Path:
    rgb, depth = rgb_and_depth(*SIZE, near=near, far=far)
    rgb = np.maximum(rgb, 30)
    rgb[:border] = rgb[:, :border] = 0
    if border:
        rgb[-border:] = rgb[:, -border:] = 0
    write_rgb(root / "test" / "kitchen" / "rgb_1.png", rgb)
    write_depth_mm(root / "test" / "kitchen" / "depth_1.png", depth)
    (root / "nyu_test_files.txt").write_text(lines)
    return root


def refusal(root: Path) -> str:
    with pytest.raises(HybridDepthError) as caught:
        NyuDepth(root).load(0)
    return one_line(caught.value)


def test_the_published_frame_is_the_middle_of_the_image_and_an_oracle(tmp_path: Path) -> None:
    source = NyuDepth(write_nyu(tmp_path, LINE + "\n\n"))
    assert source.names() == ["kitchen/rgb_1"] and source.oracle and source.name == "NYU Depth V2"
    frame = source.load(0)
    middle = (slice(48, 432), slice(64, 576))
    truth = rgb_and_depth(*SIZE, near=1.0, far=4.0)[1][middle]
    assert frame.oracle and frame.unit == "m" and frame.truth.values.shape == (384, 512)
    assert np.array_equal(frame.valid, truth > 0) and not frame.valid.all()
    assert frame.truth.values == pytest.approx(truth, abs=1e-6)
    expected = np.linspace(truth[truth > 0].min(), truth.max(), 5)
    assert 1 / frame.stack.focus_diopters == pytest.approx(expected, rel=1e-5)


def test_another_protocol_takes_the_whole_image_and_is_no_oracle(tmp_path: Path) -> None:
    source = NyuDepth(write_nyu(tmp_path, border=12), load_protocol("rooms"))
    assert not source.oracle
    frame = source.load(0)
    assert frame.truth.values.shape == SIZE and frame.stack.focus_diopters[0] == pytest.approx(0.12)
    assert not frame.valid[:12].any() and not frame.valid[:, -12:].any() and frame.valid[200, 13:620].all()


@given(borders=st.tuples(*[st.integers(0, 40)] * 4))
@settings(max_examples=25)
def test_a_border_is_found_from_5_to_21_pixels_inside(borders: tuple[int, int, int, int]) -> None:
    top, bottom, left, right = borders
    rgb = np.full((200, 300, 3), 128, np.uint8)
    rgb[:top] = rgb[200 - bottom :] = 3
    rgb[:, :left] = rgb[:, 300 - right :] = 3
    # What is dark from edge to edge along the other axis makes every row or column a border.
    many = [left + right > 0.1 * 300, top + bottom > 0.1 * 200]
    found = inner_bounds(rgb)
    for at, width, whole in ((found[0], top, many[0]), (found[2], left, many[1])):
        assert at == (21 if whole else min(max(width, 5), 21))
    for at, size, width, whole in ((found[1], 200, bottom, many[0]), (found[3], 300, right, many[1])):
        assert size - 1 - at == (21 if whole else min(max(width, 5), 21))


def test_white_borders_are_those_of_the_training_images() -> None:
    rgb = np.full((200, 300, 3), 128, np.uint8)
    rgb[:10] = 255
    assert inner_bounds(rgb, border_grey=255.0)[0] == 10 and inner_bounds(rgb)[0] == 5


def test_training_images_lie_in_sync_and_have_a_list_of_their_own(tmp_path: Path) -> None:
    rgb, depth = rgb_and_depth(*SIZE, near=1.0, far=4.0)
    rgb[:60] = 255
    write_rgb(tmp_path / "sync" / "kitchen" / "rgb_1.png", rgb)
    write_depth_mm(tmp_path / "sync" / "kitchen" / "depth_1.png", depth)
    (tmp_path / "nyu_train_files.txt").write_text(LINE)
    source = NyuDepth(tmp_path, load_protocol("rooms"), "train")
    assert source.name == "NYU Depth V2 train" and source.names() == ["kitchen/rgb_1"]
    frame = source.load(0)
    assert not frame.valid[:21].any() and frame.valid[25, 300], "the white border was not found"
    assert np.array_equal(frame.sharp[100:200, 100:500], rgb[100:200, 100:500])
    with pytest.raises(HybridDepthError, match=r"expected one list of test images \(\*test\*\.txt\)"):
        NyuDepth(tmp_path)
    with pytest.raises(HybridDepthError, match="expected the split test or train, got 'val'"):
        NyuDepth(tmp_path, split="val")


def test_inside_the_border_nothing_changes(tmp_path: Path) -> None:
    write_nyu(tmp_path, border=12)
    folder = tmp_path / "test" / "kitchen"
    pair = RgbdPair("a", folder / "rgb_1.png", folder / "depth_1.png")
    whole, inner = pair.read(), read_without_border(pair)
    inside = (slice(12, 467), slice(12, 627))
    assert np.array_equal(inner.rgb[inside], whole.rgb[inside])
    assert np.array_equal(inner.depth[inside], whole.depth[inside])
    assert (inner.rgb[:12] > 0).all() and not inner.depth[:12].any()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("kitchen/rgb_1.png", "line 1: expected rgb-path depth-path focal-length, got 'kitchen/rgb_1.png'"),
        ("", "nyu_test_files.txt: expected lines with rgb-path depth-path focal-length, found none"),
        ("../../a.png b.png 1", "line 1: expected a file in"),
        ("kitchen/rgb_1.png None 518.8", "None: expected the ground truth of rgb_1.png, found nothing"),
        ("kitchen/absent.png kitchen/depth_1.png 518.8", "absent.png: expected a file that can be read"),
    ],
)
def test_lists_that_mislead_are_refused_in_one_line(tmp_path: Path, lines: str, expected: str) -> None:
    assert expected in refusal(write_nyu(tmp_path, lines))


def test_images_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    def with_depth(values: Any) -> str:
        write_depth_mm(tmp_path / "test" / "kitchen" / "depth_1.png", values)
        return refusal(tmp_path)

    write_nyu(tmp_path)
    assert "depth_1.png: expected depth above 0, found none" in with_depth(np.zeros(SIZE))
    assert "depth_1.png: expected depth of the colour image's size" in with_depth(np.ones((240, 320)))
    assert "kitchen/rgb_1: expected depths of 0.001 to 10 m, found none" in with_depth(np.full(SIZE, 12.0))
    (tmp_path / "nyu_test_files.txt").unlink()
    assert "expected one list of test images (*test*.txt)" in refusal(tmp_path)
