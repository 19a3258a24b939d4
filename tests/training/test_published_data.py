"""What the papers' networks are shown of a frame, and which frames in which order."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import DatasetError
from hybriddepth_ros.evaluation.ddff12 import Ddff12
from hybriddepth_ros.evaluation.frames import DisparityTruth, EvaluationFrame, MetricTruth
from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.simulation import published_defocus
from hybriddepth_ros.training.published_data import (
    Frames,
    TrainingStacks,
    ValidationStacks,
    check_usable,
    jittered,
    open_frames,
    random_crop,
    target_of,
    training_look,
    validation_look,
)
from hybriddepth_ros.training.published_settings import HybridDepthTraining, PublishedTraining
from tests.evaluation.conftest import MadeSource, make_frame
from tests.rgbd_files import rgb_and_depth, write_depth_mm, write_rgb
from tests.training.conftest import DDFF12_METRES

METRES = WeightsConfig("m", "hybriddepth", focus_unit="metres", depth_range=(0.02, 10.0), invert_depth=True)
DISPARITY = WeightsConfig(
    "d", "hybriddepth", focus_unit="disparity", disparity_metres=DDFF12_METRES, slice_order="falling"
)
DIOPTERS = WeightsConfig("p", "hybriddepth", focus_unit="diopters", depth_range=(0.02, 10.0))


def settings(**changes: Any) -> PublishedTraining:
    keys = {"data": "nowhere", "init_from": "nothing", "slices": 3, "batch_size": 2}
    return HybridDepthTraining(**keys | changes)


class Large(MadeSource):
    """Frames that a crop fits into, each with another depth."""

    def load(self, index: int) -> EvaluationFrame:
        if index in self.bad:
            raise DatasetError(f"f{index}: expected a frame, found none")
        self.loaded.append(index)
        frame = make_frame(f"f{index}", seed=index)
        slices = tuple(replace(s, image=np.tile(s.image, (4, 3, 1))) for s in frame.stack.slices)
        truth = np.full((96, 96), 1.0 + index, np.float32)
        return EvaluationFrame(
            f"f{index}", replace(frame.stack, slices=slices), MetricTruth(truth), truth > 0
        )


def stacks(source: Large, **changes: Any) -> TrainingStacks:
    wanted = settings(crop_height_px=64, crop_width_px=64, **changes)
    return TrainingStacks(Frames(source, tuple(range(source.count))), wanted, METRES, 100)


def depths(data: TrainingStacks, index: int) -> list[float]:
    return data[index].target[:, 0, 0, 0].tolist()


def test_a_truth_is_told_in_the_unit_of_training() -> None:
    metric = MetricTruth(np.array([[2.0, 0.0, np.nan, 0.5]], np.float32))
    assert target_of(metric, METRES).tolist() == [[2.0, 0.0, 0.0, 0.5]]
    assert target_of(metric, DIOPTERS).tolist() == [[0.5, 0.0, 0.0, 2.0]]
    assert target_of(metric, DISPARITY)[0] == pytest.approx([DDFF12_METRES / 2, 0, 0, DDFF12_METRES / 0.5])
    disparity = DisparityTruth(np.array([[0.1, 0.3, np.inf, 0.0]], np.float32), DDFF12_METRES)
    found = target_of(disparity, DISPARITY)
    assert np.array_equal(found, np.array([[0.1, 0.3, 0.0, 0.0]], np.float32)) and found.dtype == np.float32
    assert target_of(disparity, METRES)[0, 0] == pytest.approx(DDFF12_METRES / 0.1)


def test_published_slices_of_ddff12_are_validated_on_and_any_sorted_ones_trained_on(ddff12: Path) -> None:
    wanted = settings(slices=5, crop_height_px=64, crop_width_px=64, focus_unit="disparity")
    source = Ddff12(ddff12, "val", 10)
    published = Ddff12(ddff12, "val", 5).load(0)
    look = validation_look(source.load(0), wanted, DISPARITY)
    assert np.array_equal(look.stack, [item.image for item in published.stack.slices])
    assert look.focus == pytest.approx(np.linspace(0.28, 0.02, 10)[[0, 2, 4, 6, 9]], rel=1e-5)
    assert np.array_equal(look.rgb, look.stack[0]), "a camera gives no sharp image"
    seen = set()
    for seed in range(30):
        focus = training_look(source.load(0), wanted, DISPARITY, np.random.default_rng(seed)).focus
        assert (np.diff(focus) < 0).all() and len(focus) == 5
        seen |= set(focus.tolist())
    assert len(seen) == 10


def test_synthetic_stacks_are_the_papers_gather_and_the_prior_sees_the_sharp_image(rooms: Path) -> None:
    wanted = settings(data=str(rooms), protocol=str(rooms.with_suffix(".yaml")), slices=4)
    training, validation = open_frames(wanted)
    assert len(training) == 5 and len(validation) == 1 and training.source.oracle
    look = validation_look(training.load(0), wanted, METRES)
    rgb, depth = rgb_and_depth(80, 112, near=1.0, far=2.0, seed=0)
    assert np.array_equal(look.rgb, rgb)
    known = depth[depth > 0]
    assert look.focus == pytest.approx(np.linspace(known.min(), known.max(), 4), rel=1e-5)
    lens = training.source.protocol.camera.lens  # type: ignore[attr-defined]
    image = rgb.transpose(2, 0, 1).astype(np.float32) / np.float32(255.0)
    expected = published_defocus(image, depth, np.linspace(known.min(), known.max(), 4), lens)
    difference = look.stack.astype(np.float32).transpose(0, 3, 1, 2) / 255.0 - expected
    assert np.abs(difference).max() < 0.01 and np.array_equal(look.valid, depth > 0)
    first = validation_look(training.load(0), replace(wanted, prior_image="first_slice"), METRES)
    assert np.array_equal(first.rgb, look.stack[0]) and not np.array_equal(first.rgb, look.rgb)


def test_a_flip_turns_images_and_truth_alike() -> None:
    """Red is the truth: it stays so however the look is cropped and mirrored."""
    frame = Large(1).load(0)
    truth = np.tile(np.arange(1, 97, dtype=np.float32), (96, 1)) + np.arange(96, dtype=np.float32)[:, None]
    image = np.repeat(truth[:, :, None], 3, axis=2).astype(np.uint8)
    slices = tuple(replace(item, image=image) for item in frame.stack.slices)
    frame = replace(frame, stack=replace(frame.stack, slices=slices), truth=MetricTruth(truth))
    wanted = settings(crop_height_px=64, crop_width_px=64)
    directions = set()
    for seed in range(20):
        look = training_look(frame, wanted, METRES, np.random.default_rng(seed))
        assert look.target.shape == (64, 64)
        for seen in (look.rgb, *look.stack):
            assert np.array_equal(seen[..., 0], look.target)
        directions.add((look.target[0, 0] < look.target[0, 1], look.target[0, 0] < look.target[1, 0]))
    assert len(directions) == 4


@given(seed=st.integers(0, 1000), share=st.floats(0.0, 1.0))
def test_a_crop_has_its_share_of_truth_where_there_is_such_a_crop(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    known = rng.random((9, 12)) < rng.random()
    size = (4, 5)
    shares = np.lib.stride_tricks.sliding_window_view(known, size).mean(axis=(2, 3))
    top, left = random_crop(known, size, share, rng)
    assert 0 <= top <= 5 and 0 <= left <= 7
    assert shares[top, left] >= share - 1e-9 or shares.max() < share


def test_jitter_changes_all_slices_alike_and_not_by_more_than_said() -> None:
    images = np.full((4, 2, 2, 3), 100, np.uint8)
    found = [jittered(images, 0.2, np.random.default_rng(seed)) for seed in range(40)]
    levels = [int(image[0, 0, 0, 0]) for image in found]
    assert all(np.unique(image).size == 1 for image in found)
    assert min(levels) >= 80 and max(levels) <= 120 and max(levels) - min(levels) > 25


def test_a_pass_takes_every_frame_once_and_the_next_in_another_order() -> None:
    data = stacks(Large(6))
    first, second = ([d for i in range(3) for d in depths(data, 3 * p + i)] for p in (0, 1))
    assert sorted(first) == sorted(second) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] and first != second
    ordered = stacks(Large(6), shuffle=False)
    assert [depths(ordered, i) for i in range(4)] == [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [1.0, 2.0]]


def test_a_batch_depends_on_its_number_and_the_seed_alone() -> None:
    one, other = stacks(Large(6)), stacks(Large(6))
    for index in (0, 1, 2):
        one[index]
    for kept, again in zip(one[4][:5], other[4][:5], strict=True):
        assert torch.equal(kept, again)
    assert not torch.equal(stacks(Large(6), seed=2)[4].stack, other[4].stack)


def test_the_next_frame_stands_for_one_that_cannot_be_used() -> None:
    source = Large(4, bad=(1,))
    data = stacks(source, shuffle=False)
    batch = data[0]
    assert batch.target[:, 0, 0, 0].tolist() == [1.0, 3.0]
    assert batch.skipped == ("f1: expected a frame, found none",)
    assert stacks(Large(3, bad=(0, 2)))[0].target.shape == (1, 1, 64, 64), "there is one to be had"


def test_frames_that_do_not_suit_the_settings_are_refused_by_name() -> None:
    small = Large(1)
    with pytest.raises(DatasetError, match="f0: expected 6 slices or more, got 5"):
        training_look(small.load(0), settings(slices=6), METRES, np.random.default_rng(0))
    with pytest.raises(DatasetError, match="f0: expected at least 224x224 px, got 96x96"):
        training_look(small.load(0), settings(), METRES, np.random.default_rng(0))


def test_no_usable_frame_at_all_is_an_error() -> None:
    source = Large(3, bad=(0, 1, 2))
    batch = stacks(source)[0]
    assert len(batch.target) == 0 and len(batch.skipped) == 3
    held_out = ValidationStacks(Frames(source, (0, 1, 2)), settings(), METRES)
    with pytest.raises(DatasetError, match=r"here: expected at least one frame .* the first: f0: expected a"):
        check_usable(held_out, 3, "here")
    check_usable(ValidationStacks(Frames(Large(3, bad=(0, 1)), (0, 1, 2)), settings(), METRES), 3, "here")


def test_data_sets_are_split_as_published(tmp_path: Path, ddff12: Path) -> None:
    training, validation = open_frames(settings(data=str(ddff12)))
    names = [frames.source.name for frames in (training, validation)]
    assert names == ["DDFF12 train, 10 slices", "DDFF12 val, 10 slices"]
    for split in ("Training", "Validation"):
        rgb, depth = rgb_and_depth(48, 64)
        write_rgb(tmp_path / "arkit" / split / "1" / "wide" / "a.png", rgb)
        write_depth_mm(tmp_path / "arkit" / split / "1" / "highres_depth" / "a.png", depth)
    training, validation = open_frames(settings(data=str(tmp_path / "arkit")))
    assert [f.source.name for f in (training, validation)] == [
        f"ARKitScenes {s}" for s in ("Training", "Validation")
    ]
    assert training.load(0).sharp.shape == (480, 640, 3) and len(training.load(0).stack.slices) == 3
    for folder, split in (("sync", "train"), ("test", "test")):
        rgb, depth = rgb_and_depth(480, 640)
        write_rgb(tmp_path / "nyu" / folder / "a.png", rgb)
        write_depth_mm(tmp_path / "nyu" / folder / "d.png", depth)
        (tmp_path / "nyu" / f"nyudepthv2_{split}_files.txt").write_text("/a.png /d.png 518.8\n")
    training, validation = open_frames(settings(data=str(tmp_path / "nyu"), slices=10))
    assert [f.source.name for f in (training, validation)] == ["NYU Depth V2 train", "NYU Depth V2"]
    frame = training.load(0)
    assert frame.valid.shape == (384, 512) and len(frame.stack.slices) == 10


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"data": "nowhere"}, "data: nowhere: expected a data set there"),
        ({"validation_data": "elsewhere"}, "validation_data: elsewhere: expected a data set there"),
        ({"protocol": "nyu_published"}, "protocol: expected none for ddff12, whose stacks are given"),
        ({"kind": "nyu"}, r"expected one list of train images \(\*train\*.txt\)"),
    ],
)
def test_data_that_is_not_there_is_named(changes: dict[str, str], expected: str, ddff12: Path) -> None:
    with pytest.raises(DatasetError, match=expected) as refusal:
        open_frames(settings(**{"data": str(ddff12)} | changes))
    assert "\n" not in str(refusal.value)


def test_fewer_frames_may_be_validated_on(rooms: Path) -> None:
    keys = {"data": str(rooms), "protocol": str(rooms.with_suffix(".yaml")), "validation_data": str(rooms)}
    training, validation = open_frames(settings(**keys, validation_frames=2))
    assert len(training) == 6 and validation.indices == (0, 5)
