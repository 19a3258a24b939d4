"""The slices of a stack laid over one of them, as their registration says."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from hybriddepth_ros.focal_stack import FocalStack
from hybriddepth_ros.models import AlignedStack
from hybriddepth_ros.optics import blur_px_per_diopter
from hybriddepth_ros.rectification import is_distorted, warp_rectifying
from hybriddepth_ros.registration import Registration
from hybriddepth_ros.warping import corners_of


def align(stack: FocalStack, registration: Registration) -> AlignedStack:
    """The used slices over the (rectified) reference, sorted from far focus to near. Each image is warped
    once.
    """
    height, width = stack.slices[0].image.shape[:2]
    order = [int(i) for i in np.argsort(stack.focus_diopters, kind="stable") if registration.used[i]]
    images = np.empty((len(order), height, width, 3), np.uint8)
    covered = np.ones((len(order), height, width), np.bool_)
    for row, index in enumerate(order):
        image, transform = stack.slices[index].image, registration.transforms[index]
        camera = stack.slices[index].camera or stack.camera
        if camera is not None and is_distorted(camera):
            covered[row] = warp_rectifying(image, transform, camera, images[row])
        elif np.array_equal(transform, np.eye(3)):
            images[row] = image
        else:
            flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
            cv2.warpPerspective(
                image,
                transform,
                (width, height),
                dst=images[row],
                flags=flags,
                borderMode=cv2.BORDER_REFLECT_101,
            )
            covered[row] = inside(transform, width, height)
    lens_blur = blur_px_per_diopter(stack.lens) if stack.lens else None
    reference = order.index(registration.reference)
    return AlignedStack(images, covered, stack.focus_diopters[order], lens_blur, reference)


def inside(transform: npt.NDArray[np.float64], width: int, height: int) -> npt.NDArray[np.bool_]:
    """Which pixels of the reference [H, W] fall into the slice."""
    back = cv2.perspectiveTransform(corners_of(width, height), np.linalg.inv(transform))
    mask = np.zeros((height, width), np.uint8)
    cv2.fillConvexPoly(mask, np.round(back[0]).astype(np.int32), 1)
    return mask.astype(np.bool_)
