"""The examples in docs/published_models.md run as they stand; that of the export in test_onnx_export.py."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from hybriddepth_ros.models import HybridDepth
from tests.published_weights import make_weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "published_models.md"


def test_the_example_prints_what_it_says(
    hybriddepth: HybridDepth, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = make_weights(hybriddepth.published_layout().shapes)
    checkpoint = {"state_dict": {f"model.{name}": value for name, value in weights.items()}, "epoch": 1}

    def load(name: str, *, weights_only: bool) -> dict[str, Any]:
        assert name == "NYUBest5-DFV-Trained.ckpt" and weights_only
        return checkpoint

    monkeypatch.setattr(torch, "load", load)
    examples = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(examples) == 3
    exec(compile(examples[0], str(PAGE), "exec"), {})
    assert capsys.readouterr().out.startswith("torch.Size([1, 1, 120, 160]) tensor([[")
    spoken: dict[str, Any] = {}
    exec(compile(examples[2], str(PAGE), "exec"), spoken)
    assert spoken["ready"].invert_depth and spoken["ready"] is not spoken["network"]


def test_the_page_names_every_flag() -> None:
    text = PAGE.read_text()
    for flag in ("batch_of_four_defect", "guard_relative", "slice_order", "flat", "alignment", "depth_range"):
        assert flag in text
