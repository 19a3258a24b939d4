"""`hybriddepth depth` with the papers' networks: the numbers it writes are theirs, in metres."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

from hybriddepth_ros.models import CrossAttentionFusion, HybridDepth
from hybriddepth_ros.models.weights_config import WeightsConfig, write_config
from tests.cli.conftest import FOCUS_M, Outcome, write_stack
from tests.conftest import Checkpoints
from tests.published_weights import make_weights

RunCli = Callable[..., Outcome]

MEAN, STD = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
SIZE = (150, 110)  # (width, height) px: neither a multiple of 32 nor of 4
WIDE_OPEN = ("min_depth:=0.01", "max_depth:=1000", "max_relative_sigma:=10", "max_sigma_diopters:=10")


class Published(NamedTuple):
    """A stack; the depth of each model and DFV's std [H, W] m."""

    stack: Path
    depth: dict[str, Any]
    std: Any


@pytest.fixture(autouse=True)
def no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path / "weights"))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, checkpoints: Checkpoints) -> Published:
    """What the networks make of the stack when they are called as published: slices from near to far, all of
    them normalised, focus in metres, and the nearest, not normalised, as `rgb`.
    """
    folder = write_stack(tmp_path_factory.mktemp("published") / "stack")
    for file in folder.iterdir():
        cv2.imwrite(str(file), cv2.resize(cv2.imread(str(file)), SIZE, interpolation=cv2.INTER_AREA))
    pictures = np.stack([cv2.imread(str(f))[..., ::-1] for f in sorted(folder.iterdir())]) / 255.0
    images, normalised = (
        torch.from_numpy(p.transpose(0, 3, 1, 2).astype(np.float32))
        for p in (pictures, (pictures - MEAN) / STD)
    )
    network = HybridDepth(invert_depth=True).eval()
    network.load_published(torch.load(checkpoints.hybriddepth, weights_only=True, mmap=True))
    fusion = CrossAttentionFusion(depth_range=(0.02, 10.0)).eval()
    shapes = {name: tuple(tensor.shape) for name, tensor in fusion.state_dict().items()}
    fusion.load_published(make_weights(shapes, "depth_fusion."))
    with torch.inference_mode():
        out = network(images[:1], normalised[None], torch.tensor([FOCUS_M]))
        fused = fusion(out.focus_depth, out.relative_used, out.focus_std)
    depth = {"hybriddepth": out.depth[0, 0].numpy(), "crossdepth": fused[0, 0].numpy()}
    return Published(folder, depth, out.focus_std[0, 0].numpy())


def least_sigma(depth: Any) -> Any:
    """[m] 0.29 steps of the sweep, and the distance from it outside; in 1/m, times depth squared."""
    focus = np.sort(1.0 / np.array(FOCUS_M))
    diopters = 1.0 / depth
    outside = np.maximum(0.0, np.maximum(focus[0] - diopters, diopters - focus[-1]))
    return depth**2 * (np.interp(diopters, focus, np.gradient(focus)) / np.sqrt(12.0) + outside)


def options(*parameters: str) -> list[str]:
    return [argument for text in ("register:=false", *parameters) for argument in ("-p", text)]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["hybriddepth", "crossdepth"])
def test_a_checkpoint_gives_the_networks_own_depth_and_spread_in_metres(
    run_cli: RunCli,
    tmp_path: Path,
    checkpoints: Checkpoints,
    published: Published,
    caplog: pytest.LogCaptureFixture,
    model: str,
) -> None:
    checkpoint, out = getattr(checkpoints, model), tmp_path / "out"
    arguments = ("--model", model, "--weights", checkpoint, "--device", "cpu", *options(*WIDE_OPEN))
    outcome = run_cli("depth", published.stack, "--out", out, *arguments)
    assert outcome.code == 0, outcome.err
    warned = "taken to be for focus distances in metres" in caplog.text
    assert warned == (model == "crossdepth")  # the other bears the name of a published file, which says it
    depth, sigma = np.load(out / "depth.npy"), np.load(out / "sigma.npy")
    assert depth.shape == sigma.shape == SIZE[::-1] and depth.dtype == sigma.dtype == np.float32
    np.testing.assert_array_equal(np.isnan(depth), np.isnan(sigma))

    expected = published.depth[model]
    expected_sigma = np.maximum(published.std, least_sigma(expected))
    # estimated is what is inside the network's bounds and the (wide) limits; neither borders nor the rim
    clear = (
        (expected > 0.0201) & (expected < 9.99) & (expected_sigma < 9.9 * np.minimum(expected, expected**2))
    )
    doubtful = (expected > 0.0199) & (expected_sigma < 10.1 * np.minimum(expected, expected**2))
    clear[[0, -1], :] = clear[:, [0, -1]] = False
    known = np.isfinite(depth)
    assert known[clear].all() and not known[~doubtful].any() and clear.mean() > 0.5
    np.testing.assert_allclose(depth[clear], expected[clear], rtol=1e-3, atol=5e-4)
    np.testing.assert_allclose(sigma[clear], expected_sigma[clear], rtol=1e-2, atol=1e-3)
    if model == "crossdepth":
        assert not known[[0, -1], :].any() and not known[:, [0, -1]].any()

    summary = json.loads((out / "summary.json").read_text())
    assert summary["model"] == model
    assert re.fullmatch(re.escape(checkpoint.name) + "@[0-9a-f]{12}", summary["weights"])
    assert summary["valid_share"] == pytest.approx(known.mean(), abs=1e-5)
    assert summary["depth_percentiles_m"]["50"] == pytest.approx(np.median(depth[known]), rel=1e-4)


def refused(outcome: Outcome, *names: str) -> None:
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1, outcome
    for name in names:
        assert name in outcome.err


def test_a_checkpoint_of_the_other_model_is_refused_by_name(
    run_cli: RunCli, stack: Path, tmp_path: Path
) -> None:
    file = tmp_path / "mine.ckpt"
    torch.save({"state_dict": {"model.depth_fusion.embed_d.proj.bias": torch.ones(32)}}, file)
    arguments = ("depth", stack, "--model", "hybriddepth", "--weights", file, "--out", tmp_path / "out")
    refused(run_cli(*arguments), "mine.ckpt", "expected weights of hybriddepth", "these are of crossdepth")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_without_the_variable_weights_lie_in_the_users_cache(
    run_cli: RunCli, stack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    for name in ("HYBRIDDEPTH_WEIGHTS", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    folder = tmp_path / ("." if variable == "XDG_CACHE_HOME" else ".cache") / "hybriddepth_ros" / "weights"
    depth = ("depth", stack, "--model", "crossdepth", "--out", tmp_path / "out")
    refused(run_cli(*depth), f"no weights are installed in {folder}", "weights import FILE")
    assert not folder.exists()  # asking makes nothing
    write_config(WeightsConfig("mine", "crossdepth", focus_unit="metres", depth_range=(0.02, 10.0)))
    assert (folder / "mine.yaml").is_file() and "mine" in run_cli("weights", "list").out
    refused(run_cli(*depth), str(folder / "mine.safetensors"))  # found there; its tensors are missing
