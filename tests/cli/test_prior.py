"""`--prior` of `depth` and `evaluate`: what it does there; a mistake is one line and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hybriddepth_ros import estimator
from hybriddepth_ros.models import AlignedStack, FocusEstimate
from tests.cli.conftest import Outcome


@pytest.fixture
def stack_with_truth(stack: Path) -> Path:
    """Its left half is at 0.5 m, its right half at 1.6 m."""
    truth = np.full((240, 320), 0.5, np.float32)
    truth[:, 160:] = 1.6
    np.save(stack / "depth.npy", truth)
    return stack


@pytest.mark.parametrize("command", ["depth", "evaluate"])
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--prior", "depth_anythin"), "prior: unknown prior 'depth_anythin'"),
        (("--prior-weights", "x"), "prior_weights: prior is none and takes no weights, got 'x'"),
        (("--prior", "depth_anything"), "no weights are installed in"),
        (("--prior", "depth_anything", "--model", "hybriddepth"), "hybriddepth has a prior of its own"),
    ],
)
def test_a_prior_that_cannot_be_is_refused(
    arguments: tuple[str, ...],
    said: str,
    command: str,
    stack_with_truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., Outcome],
) -> None:
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path / "weights"))
    outcome = run_cli(command, stack_with_truth, "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert said in outcome.err
    assert not (tmp_path / "out").exists()


class KnowsTheTruth:
    """A prior that knows the scene up to scale and shift."""

    weights = "made@0123456789ab"

    def __call__(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        return np.where(np.arange(320) < 160, 7.0, 3.0) * np.ones((240, 1), np.float32)


def test_an_evaluation_joins_the_prior_with_the_models_that_have_none(
    stack_with_truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_cli: Callable[..., Outcome]
) -> None:
    asked: list[tuple[str, str]] = []

    def load_prior(name: str, model: str, device: str, weights: str) -> KnowsTheTruth | None:
        asked.append((name, weights))
        return KnowsTheTruth() if name != "none" else None

    monkeypatch.setattr(estimator, "load_prior", load_prior)
    errors = {}
    for name, options in (("alone", ()), ("joined", ("--prior", "depth_anything", "--prior-weights", "x"))):
        out = tmp_path / name
        chosen = ("--pictures", "0", "--model", "classical")
        outcome = run_cli("evaluate", stack_with_truth, "--out", out, *chosen, *options)
        assert outcome.code == 0 and not outcome.err
        (model,) = json.loads((out / "metrics.json").read_text())["models"]
        errors[model["label"]] = model["means"]["abs_rel"]
    assert asked == [("none", ""), ("depth_anything", "x")]
    assert list(errors) == ["classical", "classical + depth_anything"]
    assert errors["classical + depth_anything"] < errors["classical"]
    assert model["settings"]["prior"] == "depth_anything"
    assert model["settings"]["prior_weights"] == KnowsTheTruth.weights


class Quick:
    """A model of whatever name: 1 m everywhere."""

    device, weights = "cpu", "made@0123456789ab"

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        ones = np.ones(stack.images.shape[1:3], np.float32)
        return FocusEstimate(ones, 0.1 * ones, 5.0)


@pytest.mark.parametrize(
    ("option", "models", "note", "settings"),
    [
        (
            ("--precision", "int8"),
            ("classical", "hybriddepth"),
            "classical knows float32 only: --precision int8 is for the others",
            ("float32", "int8"),
        ),
        (
            ("--prior", "depth_anything"),
            ("classical", "hybriddepth"),
            "hybriddepth has a prior of its own: --prior depth_anything is for the others",
            ("depth_anything", "none"),
        ),
    ],
)
def test_a_model_that_does_not_take_an_option_runs_without_and_a_line_says_so(
    stack_with_truth: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., Outcome],
    option: tuple[str, str],
    models: tuple[str, ...],
    note: str,
    settings: tuple[str, ...],
) -> None:
    monkeypatch.setattr(estimator, "load_model", lambda *_: Quick())
    monkeypatch.setattr(estimator, "load_prior", lambda name, *_: KnowsTheTruth() if name != "none" else None)
    chosen = [text for model in models for text in ("--model", model)]
    outcome = run_cli("evaluate", stack_with_truth, "--out", tmp_path / "out", *chosen, *option)
    assert outcome.code == 0 and outcome.err.splitlines() == [note]
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert tuple(m["settings"][option[0].removeprefix("--")] for m in document["models"]) == settings


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--precision", "int8", "--model", "classical"), "--precision int8: classical knows float32 only"),
        (
            ("--prior", "depth_anything", "--model", "hybriddepth", "--model", "crossdepth"),
            "--prior depth_anything: crossdepth has a prior of its own",
        ),
    ],
)
def test_an_option_that_no_model_takes_is_refused(
    stack_with_truth: Path,
    tmp_path: Path,
    run_cli: Callable[..., Outcome],
    arguments: tuple[str, ...],
    said: str,
) -> None:
    outcome = run_cli("evaluate", stack_with_truth, "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1 and said in outcome.err
    assert not (tmp_path / "out").exists()
