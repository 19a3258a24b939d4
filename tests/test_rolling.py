"""Depth for every new slice: what a whole stack gives, at one slice's work; old slices are left out."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybriddepth_ros import estimator as estimator_module
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator, EstimatorOptions, load_estimator
from hybriddepth_ros.focal_stack import CameraIntrinsics, FocalSlice, FocalStack
from hybriddepth_ros.models import classical
from hybriddepth_ros.models.focus_fit import StackOptics
from hybriddepth_ros.optics import ThinLens
from hybriddepth_ros.rolling import RollingEstimator
from hybriddepth_ros.slice_windows import RollingOptions
from tests.stacks import defocused_stack

WIDTH, HEIGHT, PERIOD_NS = 320, 240, 33_333_333
FOCI = np.linspace(0.4, 2.8, 5).astype(np.float32)
BLUR = 8.0
CAMERA = CameraIntrinsics(300.0, 300.0, 159.5, 119.5, WIDTH, HEIGHT)
LENS = ThinLens(4.0, 4.0 / (BLUR * 1e3 / 300.0), 4.0 * 1e3 / 300.0)
SURFACE = np.linspace(0.6, 2.4, HEIGHT, dtype=np.float32)[:, None].repeat(WIDTH, 1)  # 1/m
Drops = list[tuple[str, int]]


@pytest.fixture(scope="module")
def images() -> npt.NDArray[np.uint8]:
    return defocused_stack(SURFACE, FOCI, BLUR, (HEIGHT, WIDTH))


def slices(images: npt.NDArray[np.uint8], count: int, first_ns: int = 1) -> list[FocalSlice]:
    """So many in the order of a saw-tooth, a period apart."""
    return [
        FocalSlice(images[n % 5], float(FOCI[n % 5]), first_ns + n * PERIOD_NS, CAMERA) for n in range(count)
    ]


def rolling(drops: Drops | None = None, age_s: float = 2.0, register: bool = True) -> RollingEstimator:
    estimator = load_estimator("classical", "cpu", EstimatorOptions(reference="last", register=register))
    told: Drops = [] if drops is None else drops
    return RollingEstimator(estimator, RollingOptions(age_s), lambda *drop: told.append(drop))


def feed(estimator: RollingEstimator, given: list[FocalSlice]) -> list[DepthEstimate | None]:
    return [estimator(one, len(FOCI), lens=LENS) for one in given]


def whole(given: list[FocalSlice], register: bool = True) -> DepthEstimate:
    estimator = load_estimator("classical", "cpu", EstimatorOptions(reference="last", register=register))
    return estimator(FocalStack(tuple(given), lens=LENS))


def test_every_slice_after_the_first_sweep_gives_depth_in_its_own_frame(
    images: npt.NDArray[np.uint8],
) -> None:
    given = slices(images, 12)
    found = feed(rolling(), given)
    assert [estimate is None for estimate in found] == [True] * 4 + [False] * 8
    assert [estimate.stamp_ns for estimate in found if estimate] == [one.stamp_ns for one in given[4:]]
    assert all(len(estimate.registration.used) == 5 for estimate in found if estimate)


def test_of_slices_that_lie_over_each_other_it_is_exactly_the_whole_stacks(
    images: npt.NDArray[np.uint8],
) -> None:
    given = slices(images, 13)
    estimate = feed(rolling(register=False), given)[-1]
    expected = whole(given[-5:], register=False)
    assert estimate is not None
    assert np.array_equal(estimate.depth, expected.depth, equal_nan=True)
    assert np.array_equal(estimate.sigma, expected.sigma, equal_nan=True)
    assert np.array_equal(estimate.all_in_focus, expected.all_in_focus)


def test_of_a_still_scene_it_is_the_whole_stacks_within_a_millimetre(images: npt.NDArray[np.uint8]) -> None:
    given = slices(images, 27)
    estimate = feed(rolling(), given)[-1]
    expected = whole(given[-5:])
    assert estimate is not None
    both = np.isfinite(estimate.depth) & np.isfinite(expected.depth)
    assert both.mean() > 0.95
    assert np.sqrt(np.square(estimate.depth - expected.depth)[both].mean()) < 1e-3


def test_a_slice_is_measured_once(images: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[int] = []
    real = classical.measure_slice
    monkeypatch.setattr(classical, "measure_slice", lambda grey: (measured.append(1), real(grey))[1])
    estimator = rolling()
    feed(estimator, slices(images, 15))
    assert len(measured) == 15


def test_an_unknown_lens_is_looked_for_once_a_sweep(
    images: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[float] = []
    real = classical.find_optics

    def find(*arguments: object) -> StackOptics:
        optics = real(*arguments)  # type: ignore[arg-type]
        looked.append(optics.blur_px_per_diopter)
        return optics

    monkeypatch.setattr(classical, "find_optics", find)
    estimator = rolling()
    found = [estimator(one, len(FOCI)) for one in slices(images, 16)]
    assert len(looked) == 3 and looked[0] == pytest.approx(BLUR, rel=0.2)
    assert [estimate.blur_px_per_diopter for estimate in found[4:9] if estimate] == [looked[0]] * 5


class AskedPrior:
    """Says that the scene is a slope, in the frame of the slice that it is asked for."""

    weights = "none"

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.asked += 1
        return SURFACE + np.arange(WIDTH, dtype=np.float32) / WIDTH


def test_the_prior_is_asked_once_a_sweep_and_moves_with_its_slice(
    images: npt.NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    prior, said = AskedPrior(), []
    real = estimator_module.with_prior
    monkeypatch.setattr(estimator_module, "load_prior", lambda *_: prior)
    monkeypatch.setattr(
        estimator_module, "with_prior", lambda focus, map_: (said.append(map_), real(focus, map_))[1]
    )
    speed = 2.0  # px per slice
    found = feed(rolling(), [shifted(one, speed * n) for n, one in enumerate(slices(images, 20))])
    assert sum(estimate is not None for estimate in found) == len(said) == 16
    assert prior.asked == 4
    fresh, later = said[0], said[4]  # a sweep's first and last
    inside = np.s_[20:-20, 60:-20]
    assert np.abs(later[inside] - (fresh[inside] - 4.0 * speed / WIDTH)).max() < 5e-3


def shifted(one: FocalSlice, x_px: float) -> FocalSlice:
    transform = np.array([[1.0, 0.0, x_px], [0.0, 1.0, 0.0]])
    moved = cv2.warpAffine(one.image, transform, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT_101)
    return replace(one, image=np.asarray(moved, np.uint8))


def test_slices_are_moved_into_the_frame_of_the_newest(images: npt.NDArray[np.uint8]) -> None:
    speed = 1.5  # px per slice
    given = [shifted(one, speed * n) for n, one in enumerate(slices(images, 20))]
    drops: Drops = []
    estimate = feed(rolling(drops), given)[-1]
    assert estimate is not None and not drops
    x_px = estimate.registration.transforms[:, 0, 2]
    assert x_px == pytest.approx([-4 * speed, -3 * speed, -2 * speed, -speed, 0.0], abs=0.3)
    inside = np.s_[20:-20, 50:-20]
    ratio = estimate.depth[inside] * SURFACE[inside]
    assert np.nanmedian(abs(ratio - 1.0)) < 0.02


def test_a_slice_that_is_too_old_is_left_out_and_sigma_says_so(images: npt.NDArray[np.uint8]) -> None:
    given = slices(images, 10)
    drops: Drops = []
    estimator = rolling(drops, age_s=0.3)
    before = feed(estimator, given)[-1]
    # Only the two far foci go on.
    later = [replace(given[n % 2], stamp_ns=given[-1].stamp_ns + (n + 1) * 2 * PERIOD_NS) for n in range(6)]
    after = feed(estimator, later)[-1]
    assert before is not None and after is not None
    assert len(after.registration.used) == 2
    assert sum(count for cause, count in drops if cause == "slice too old") == 3
    near = np.s_[-60:, :]  # what the missing slices had in focus
    known = np.isfinite(after.sigma[near])
    assert known.mean() < 0.5 or np.median(after.sigma[near][known]) > 2.0 * np.nanmedian(before.sigma[near])


def test_a_view_that_is_lost_begins_anew(images: npt.NDArray[np.uint8]) -> None:
    other = np.ascontiguousarray(defocused_stack(SURFACE, FOCI, BLUR, (HEIGHT, WIDTH), seed=5))
    drops: Drops = []
    estimator = rolling(drops)
    feed(estimator, slices(images, 8))
    found = feed(estimator, slices(other, 30, 1 + 8 * PERIOD_NS))
    assert ("view lost", 5) in drops or any(cause == "slice out of view" for cause, _ in drops)
    last = found[-1]
    assert last is not None and np.nanmedian(abs(last.depth * SURFACE - 1.0)) < 0.03


def test_what_comes_twice_late_or_from_another_time_is_told(images: npt.NDArray[np.uint8]) -> None:
    given = slices(images, 9, 10_000_000_000)
    drops: Drops = []
    estimator = rolling(drops)
    feed(estimator, given)
    assert feed(estimator, [given[-1], given[-3]]) == [None, None]
    assert drops == [("duplicate slice", 1), ("stamps out of order", 1)]
    again = feed(estimator, slices(images, 6))
    assert drops[2:] == [("stamps jumped back", 5)]
    assert [estimate is not None for estimate in again] == [False] * 4 + [True] * 2
    smaller = FocalSlice(images[0][:120], 0.4, given[-1].stamp_ns)
    assert feed(estimator, [smaller]) == [None]
    assert drops[3:] == [("image size changed", 5)]


def test_a_camera_too_slow_for_the_age_limit_gives_depth_of_what_is_not_too_old(
    images: npt.NDArray[np.uint8],
) -> None:
    slow = [replace(one, stamp_ns=1 + n * 1_000_000_000) for n, one in enumerate(slices(images, 8))]
    found = feed(rolling(age_s=2.0), slow)
    assert [estimate is None for estimate in found] == [True] * 4 + [False] * 4
    assert all(len(estimate.registration.used) == 3 for estimate in found if estimate)
    unnumbered = rolling(age_s=2.0)
    assert [unnumbered(one, lens=LENS) is None for one in slow] == [True] * 5 + [False] * 3


def test_a_focus_that_never_comes_leaves_depth_of_the_others(images: npt.NDArray[np.uint8]) -> None:
    given = [one for n, one in enumerate(slices(images, 15)) if n % 5 != 2]
    found = feed(rolling(), given)
    assert [estimate is None for estimate in found] == [True] * 9 + [False] * 3
    assert all(len(estimate.registration.used) == 4 for estimate in found if estimate)


def test_a_triangle_joined_near_its_end_is_waited_for_until_every_focus_came(
    images: npt.NDArray[np.uint8],
) -> None:
    order = [3, 4, 4, 3, 2, 1, 0, 0, 1]
    given = [
        FocalSlice(images[focus], float(FOCI[focus]), 1 + n * PERIOD_NS, CAMERA)
        for n, focus in enumerate(order)
    ]
    assert [estimate is None for estimate in feed(rolling(), given)] == [True] * 6 + [False] * 3


@settings(max_examples=20)
@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(-3, 60)), min_size=2, max_size=40), st.integers(2, 5)
)
def test_a_window_holds_each_focus_once_its_newest_and_no_more_than_a_sweep(
    sent: list[tuple[int, int]], slice_count: int
) -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    windows = rolling(age_s=1.0, register=False).windows
    stamp_ns = 10_000_000_000
    for focus, periods in sent:
        stamp_ns += periods * PERIOD_NS
        window = windows.add(FocalSlice(image, 0.3 * focus, stamp_ns), slice_count)
        if window is None:
            continue
        foci = [kept.focus_diopters for kept in window.slices]
        stamps = [kept.slice.stamp_ns for kept in window.slices]
        assert len(set(foci)) == len(foci) <= slice_count
        assert stamps == sorted(stamps) and stamps[-1] == stamp_ns
        assert stamps[-1] - stamps[0] <= 1_000_000_000


@pytest.fixture(scope="module")
def sweepnet() -> DepthEstimator:
    return load_estimator("sweepnet", "cpu", EstimatorOptions(reference="last"))


def test_sweepnet_says_of_a_still_scene_what_it_says_of_the_whole_stack(
    images: npt.NDArray[np.uint8], sweepnet: DepthEstimator
) -> None:
    sweepnet.options = EstimatorOptions(reference="last", register=False)
    given = slices(images, 9)
    estimate = feed(RollingEstimator(sweepnet), given)[-1]
    expected = sweepnet(FocalStack(tuple(given[-5:]), lens=LENS))
    assert estimate is not None
    np.testing.assert_allclose(estimate.depth, expected.depth, rtol=1e-4)
    np.testing.assert_allclose(estimate.sigma, expected.sigma, rtol=1e-3)


def test_sweepnet_moves_what_it_keeps(images: npt.NDArray[np.uint8], sweepnet: DepthEstimator) -> None:
    sweepnet.options = EstimatorOptions(reference="last")
    given = [shifted(one, 1.5 * n) for n, one in enumerate(slices(images, 10))]
    estimate = feed(RollingEstimator(sweepnet), given)[-1]
    expected = sweepnet(FocalStack(tuple(given[-5:]), lens=LENS))
    assert estimate is not None
    both = np.isfinite(estimate.depth) & np.isfinite(expected.depth)
    assert both.mean() > 0.9
    assert np.median(abs(estimate.depth / expected.depth - 1.0)[both]) < 0.02


def test_sweepnet_begins_anew_where_the_foci_change(
    images: npt.NDArray[np.uint8], sweepnet: DepthEstimator
) -> None:
    sweepnet.options = EstimatorOptions(reference="last", register=False)
    estimator = RollingEstimator(sweepnet)
    given = slices(images, 7)
    feed(estimator, given)
    other = replace(given[2], focus_diopters=1.5, stamp_ns=given[-1].stamp_ns + PERIOD_NS)
    estimate = feed(estimator, [other])[-1]
    expected = sweepnet(FocalStack((*given[-4:], other), lens=LENS))
    assert estimate is not None
    np.testing.assert_allclose(estimate.depth, expected.depth, rtol=1e-4)
