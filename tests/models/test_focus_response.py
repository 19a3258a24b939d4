"""The response curve against a direct measurement on blurred texture."""

import numpy as np
import pytest

from hybriddepth_ros.models.focus_measure import measure_focus
from hybriddepth_ros.models.focus_response import BLUR_STEP_PX, energy_response
from tests import stacks


def test_response_is_one_in_focus_and_falls():
    diameters, energy = energy_response(0.5)
    np.testing.assert_allclose(energy[0], 1.0)
    first = diameters <= 10.0
    assert (np.diff(energy[first], axis=0) < 0).all()
    assert (energy[-1] < 0.01).all()


@pytest.mark.parametrize("diameter", [1.5, 3.0, 6.0, 10.0])
def test_response_is_what_blur_does_to_natural_texture(diameter):
    sharp = stacks.disc_blur(stacks.texture((512, 512), seed=1), 1.5)
    sharp_energy, blurred_energy = (
        measure_focus([image]).energies[0][:, 8:-8, 8:-8].mean(axis=(1, 2))
        for image in (stacks.as_bytes(sharp), stacks.as_bytes(stacks.disc_blur(sharp, diameter)))
    )
    _, response = energy_response(0.4)
    expected = np.log(response[round(diameter / BLUR_STEP_PX)])
    measured = np.log(blurred_energy / sharp_energy)
    np.testing.assert_allclose(measured[1:], expected[1:], atol=0.35)
    assert measured[0] == pytest.approx(
        expected[0], abs=0.6
    )  # the finest band hangs on the texture's own sharpness
