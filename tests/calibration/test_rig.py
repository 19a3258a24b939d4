"""How pictures are taken: with the lens at rest, approached from the right side, about the peak."""

import cv2
import numpy as np
import pytest

from hybriddepth_ros.calibration.rig import Placement
from hybriddepth_ros.calibration.sharpness import (
    central_region,
    magnified,
    region_sharpness,
    sharpness_products,
)
from tests.calibration.conftest import MakeRig


def test_a_shot_shows_the_lens_at_rest(make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(1)
    operator.place(Placement("", 0.5), rig.live_sharpness)
    focused = round(truth.table.actuator(2.0))
    rig.know_settle(truth.settle_ms)
    rig.shot(focused - 60)
    first = rig.shot(focused)
    rig.wait(1.0)
    later, _ = rig.read()
    region = central_region((640, 480))
    assert region_sharpness(first.image, region) == pytest.approx(region_sharpness(later, region), rel=0.02)
    assert first.actuator == focused


def test_shots_are_approached_from_one_side(make_rig: MakeRig) -> None:
    rig, operator, truth = make_rig(1)
    operator.place(Placement("", 0.5), rig.live_sharpness)
    middle = truth.table.actuator(2.0)
    rig.know_settle(truth.settle_ms)
    positions = [middle - 10, middle, middle + 10]
    assert [s.actuator for s in rig.shots(positions, 1)] == sorted(round(p) for p in positions)
    falling = rig.shots(positions, -1)
    assert [s.actuator for s in falling] == sorted((round(p) for p in positions), reverse=True)
    assert {s.approach for s in falling} == {-1}


@pytest.mark.parametrize("approach", [1, -1])
def test_what_cannot_be_approached_is_left_out(make_rig: MakeRig, approach: int) -> None:
    rig, _, _ = make_rig(1)
    rig.know_settle(60.0)
    taken = [shot.actuator for shot in rig.shots([0.0, 3.0, 8.0, 128.0, 247.0, 252.0, 255.0], approach)]
    assert taken == ([8.0, 128.0, 247.0, 252.0, 255.0] if approach > 0 else [247.0, 128.0, 8.0, 3.0, 0.0])


def test_a_position_beyond_the_range_is_its_end(make_rig: MakeRig) -> None:
    rig, _, _ = make_rig(1)
    rig.command(300.0)
    assert rig.position == 255.0


def test_a_region_grows_about_the_principal_point() -> None:
    centre = np.array([300.0, 200.0])
    grown = magnified(np.array([[310.0, 200.0], [300.0, 180.0]]), centre, 1.1)
    assert grown == pytest.approx(np.array([[311.0, 200.0], [300.0, 178.0]]))


def test_a_region_outside_the_image_is_not_sharp() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (100, 100), np.uint8)
    assert region_sharpness(noise, central_region((100, 100)) + 500.0) == 0.0
    assert region_sharpness(noise, central_region((100, 100))) > 0.1


def test_products_tell_the_sharpness_of_a_mean_of_images() -> None:
    rng = np.random.default_rng(3)
    sharp = rng.integers(40, 200, (100, 120)).astype(np.uint8)
    images = [sharp, cv2.GaussianBlur(sharp, (0, 0), 1.5), cv2.GaussianBlur(sharp, (0, 0), 3.0)]
    region = central_region((120, 100))
    products = sharpness_products(images, region)
    assert np.diag(products) == pytest.approx([region_sharpness(image, region) for image in images], rel=1e-5)
    weights = np.array([0.2, 0.5, 0.3])
    mean = np.tensordot(weights, np.stack(images).astype(np.float64), axes=1)
    assert weights @ products @ weights == pytest.approx(
        region_sharpness(np.round(mean).astype(np.uint8), region), rel=0.01
    )
    assert not sharpness_products(images, region + 500.0).any()
