"""The all-in-focus image against the scene that the slices were made from."""

import cv2
import numpy as np

from hybriddepth_ros.all_in_focus import all_in_focus
from hybriddepth_ros.models import AlignedStack
from tests import stacks

FOCUS = np.array([0.4, 0.9, 1.4, 1.9, 2.4], np.float32)
BLUR = 12.0
INNER = (slice(20, -20), slice(20, -20))


def slanted(seed=0):
    """(slices [S, H, W, 3], inverse depth [H, W], the sharp scene [H, W])."""
    diopters = np.broadcast_to(np.linspace(0.45, 2.35, 240, dtype=np.float32)[:, None], (240, 320))
    images = stacks.defocused_stack(diopters, FOCUS, BLUR, noise=0.0, seed=seed)
    return images, diopters, cv2.GaussianBlur(stacks.texture((240, 320), seed), (0, 0), 0.5)


def test_every_pixel_comes_from_the_slice_that_was_focused_nearest():
    images, diopters, sharp = slanted()
    covered = np.ones(images.shape[:3], np.bool_)
    found = all_in_focus(AlignedStack(images, covered, FOCUS, BLUR), diopters, BLUR)
    nearest = np.abs(FOCUS[:, None] - diopters[:, 0]).argmin(axis=0)
    best = images[nearest, np.arange(240)]
    error = np.abs(found[..., 0] - sharp)[INNER].mean()
    assert error < 1.1 * np.abs(best[..., 0] - sharp)[INNER].mean()


def test_slices_that_did_not_look_show_nothing():
    """What they hold there is mirrored: their neighbour in focus stands in, and black where none looked."""
    images, diopters, sharp = slanted(seed=1)
    covered = np.ones(images.shape[:3], np.bool_)
    covered[0, :, :60] = covered[1, :, 100:160] = covered[4, :, 140:200] = False
    covered[:4, :, 240:280] = False
    covered[:, :, 300:] = False
    truth = all_in_focus(AlignedStack(images, np.ones_like(covered), FOCUS, BLUR), diopters, BLUR)
    images[~covered] = 255 - images[~covered]
    found = all_in_focus(AlignedStack(images, covered, FOCUS, BLUR), diopters, BLUR)
    everywhere = covered.all(axis=0)
    np.testing.assert_array_equal(found[everywhere], truth[everywhere])
    assert (found[:, 300:] == 0).all()
    np.testing.assert_array_equal(found[:, 240:280], images[4, :, 240:280])
    partly = ~everywhere
    partly[:, 240:] = False
    assert np.abs(found[..., 0] - sharp)[partly].mean() < 8.0
