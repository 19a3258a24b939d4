"""sweepnet as a depth model: its file, what it does to a stack, and that being made ready changes nothing."""

import copy
import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ModelError, WeightsError
from hybriddepth_ros.models import AlignedStack, load_model
from hybriddepth_ros.models.checkpoint_files import read_safetensors, write_safetensors
from hybriddepth_ros.models.sweepnet import SweepNet
from hybriddepth_ros.models.sweepnet_estimator import (
    MOST_SLICES,
    WIDEST_SWEEP_PX,
    SweepNetEstimator,
    ready,
    thinned,
    working_scale,
)
from hybriddepth_ros.models.sweepnet_weights import (
    SigmaCalibration,
    SweepNetWeights,
    load_sweepnet,
    save_sweepnet,
)


@pytest.fixture(scope="module")
def network() -> SweepNet:
    """Drawn weights, and statistics of batch normalisation that are not those of the beginning."""
    torch.manual_seed(3)
    made = SweepNet()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.05 * torch.randn(parameter.shape)
        made.train()
        made(torch.rand(2, 4, 3, 64, 64), torch.tensor([[1.0, 4.0, 6.0, 11.0]]).expand(2, 4))
    return made.eval()


@pytest.fixture(scope="module")
def file(network: SweepNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "drawn.safetensors"
    save_sweepnet(path, SweepNetWeights(network, SigmaCalibration((0.0, 1.0), (0.5, 2.0)), {"steps": 7}))
    return path


def aligned(
    slices: int = 5, height: int = 50, width: int = 70, blur: float | None = 10.0, last: float = 2.0
) -> AlignedStack:
    rng = np.random.default_rng(1)
    return AlignedStack(
        rng.integers(0, 255, (slices, height, width, 3)).astype(np.uint8),
        np.ones((slices, height, width), np.bool_),
        np.linspace(0.2, last, slices).astype(np.float32),
        blur,
    )


def test_a_file_holds_the_network_its_calibration_and_its_card(network: SweepNet, file: Path) -> None:
    loaded = load_sweepnet(file)
    assert loaded.calibration == SigmaCalibration((0.0, 1.0), (0.5, 2.0)) and loaded.card == {"steps": 7}
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, loaded.network.state_dict()[name])


def test_sigma_beyond_the_sweep_is_calibrated_by_itself(tmp_path: Path) -> None:
    texture = np.random.default_rng(1).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    within, nearing = (1.5, 0.8, 0.01, 0.8, 1.5), (3.5, 3.0, 2.5, 2.0, 1.5)  # blur [px], slice by slice
    halves = [[cv2.GaussianBlur(texture, (0, 0), s) for s in sigmas] for sigmas in (within, nearing)]
    images = np.concatenate([np.stack(half) for half in halves], axis=2)
    focus, covered = np.linspace(0.2, 1.0, 5).astype(np.float32), np.ones(images.shape[:3], np.bool_)
    stack = AlignedStack(images, covered, focus, 8.0)
    path, network = tmp_path / "w.safetensors", load_sweepnet().network
    estimates = []
    for beyond in (None, SigmaCalibration((0.0,), (2.0,))):
        save_sweepnet(path, SweepNetWeights(network, SigmaCalibration((0.0,), (0.5,)), {}, beyond))
        assert load_sweepnet(path).beyond == beyond
        estimates.append(SweepNetEstimator("cpu", str(path))(stack))
    same, larger = estimates
    past = (same.diopters < 0.2) | (same.diopters > 1.0)
    assert past[:, 160:].mean() > 0.5 and past[:, :96].mean() < 0.1
    ratio = larger.sigma_diopters / same.sigma_diopters
    np.testing.assert_allclose(ratio[~past], 1.0, rtol=1e-4)
    np.testing.assert_allclose(ratio[past], np.exp(1.5), rtol=1e-4)


def test_weights_are_called_by_their_files_name_and_content(file: Path, tmp_path: Path) -> None:
    copy_of_it = tmp_path / file.name
    copy_of_it.write_bytes(file.read_bytes())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    for path in (file, copy_of_it):
        assert SweepNetEstimator("cpu", str(path)).weights == f"drawn@{digest[:12]}"
    assert SweepNetEstimator("cpu").weights.startswith("sweepnet@")


def test_being_made_ready_changes_no_number(network: SweepNet) -> None:
    stack, positions = torch.rand(1, 4, 3, 64, 96), torch.tensor([[1.0, 4.0, 6.0, 11.0]])
    with torch.inference_mode():
        one, other = network(stack, positions), ready(copy.deepcopy(network), "cpu")(stack, positions)
    torch.testing.assert_close(other.position, one.position, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(other.scale, one.scale, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [(50, 70), (32, 64), (97, 33)])
def test_any_size_gives_an_estimate_per_pixel(file: Path, size: tuple[int, int]) -> None:
    found = SweepNetEstimator("cpu", str(file))(aligned(3, *size))
    assert found.diopters.shape == found.sigma_diopters.shape == size
    assert found.diopters.dtype == found.sigma_diopters.dtype == np.float32
    assert np.isfinite(found.diopters).all() and (found.sigma_diopters > 0).all()


def test_diopters_and_sigma_scale_with_the_lens(file: Path) -> None:
    """The network sees px of blur: twice the blur per diopter over half the diopters is the same to it."""
    model = SweepNetEstimator("cpu", str(file))
    stack = aligned()
    other = AlignedStack(stack.images, stack.covered, 0.5 * stack.focus_diopters, 20.0)
    one, half = model(stack), model(other)
    np.testing.assert_allclose(half.diopters, 0.5 * one.diopters, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(half.sigma_diopters, 0.5 * one.sigma_diopters, rtol=1e-3)


def test_where_a_slice_did_not_look_sigma_is_larger(file: Path) -> None:
    model, stack = SweepNetEstimator("cpu", str(file)), aligned()
    covered = stack.covered.copy()
    covered[2, :10] = False
    less = model(AlignedStack(stack.images, covered, stack.focus_diopters, 10.0))
    more = model(stack)
    np.testing.assert_allclose(less.sigma_diopters[:10], 2.0 * more.sigma_diopters[:10], rtol=1e-5)
    np.testing.assert_array_equal(less.sigma_diopters[10:], more.sigma_diopters[10:])


def test_an_unknown_lens_is_found_from_the_stack(file: Path) -> None:
    found = SweepNetEstimator("cpu", str(file))(aligned(blur=None))
    assert 0.5 < found.blur_px_per_diopter < 60.0


@given(count=st.integers(2, 100))
def test_of_many_slices_some_are_taken_evenly_and_both_ends(count: int) -> None:
    index = thinned(count)
    assert len(index) == min(count, MOST_SLICES) and index[0] == 0 and index[-1] == count - 1
    assert (np.diff(index) > 0).all() and np.ptp(np.diff(index)) <= 1


@given(height=st.integers(1, 4000), width=st.integers(1, 4000), sweep=st.floats(0.0, 1e4))
def test_a_wide_sweep_is_seen_smaller_but_never_too_small(height: int, width: int, sweep: float) -> None:
    factor = working_scale((height, width), sweep)
    assert 0.0 < factor <= 1.0
    assert factor == 1.0 or min(height, width) * factor >= 95.9
    assert factor * sweep <= WIDEST_SWEEP_PX + 1e-6 or min(height, width) * factor < 96.1


def test_a_sweep_seen_smaller_gives_estimates_of_full_size(file: Path) -> None:
    found = SweepNetEstimator("cpu", str(file))(aligned(3, 200, 260, blur=60.0, last=2.0))
    assert found.diopters.shape == (200, 260) and np.isfinite(found.diopters).all()


def test_another_file_is_refused_in_one_line(file: Path, tmp_path: Path) -> None:
    tensors, metadata = read_safetensors(file)
    cases = {
        "missing.safetensors": (None, None, "expected"),
        "other.safetensors": (tensors, {}, "expected sweepnet's weights"),
        "vague.safetensors": (tensors, metadata | {"network": "{"}, "description of a sweepnet"),
        "less.safetensors": (dict(list(tensors.items())[1:]), metadata, "Missing key"),
    }
    for name, (content, about, said) in cases.items():
        if content is not None and about is not None:
            write_safetensors(tmp_path / name, content, about)
        with pytest.raises(WeightsError, match=said) as refusal:
            load_sweepnet(tmp_path / name)
        assert name in str(refusal.value) and "\n" not in str(refusal.value)
    (tmp_path / "text.safetensors").write_text("no weights")
    with pytest.raises(WeightsError, match=r"text\.safetensors"):
        load_sweepnet(tmp_path / "text.safetensors")


def test_int8_is_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="sweepnet knows float32"):
        load_model("sweepnet", "cpu", str(file), "int8")
