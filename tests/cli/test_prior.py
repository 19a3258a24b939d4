"""`hybriddepth depth --prior`: a mistake is one line and exit code 2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Outcome


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
    stack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_cli: Callable[..., Outcome],
) -> None:
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path / "weights"))
    outcome = run_cli("depth", stack, "--out", tmp_path / "out", *arguments)
    assert outcome.code == 2 and len(outcome.err.splitlines()) == 1
    assert said in outcome.err
    assert not (tmp_path / "out").exists()
