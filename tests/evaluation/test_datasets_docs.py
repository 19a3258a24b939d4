"""docs/datasets.md describes what is there, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from hybriddepth_ros.evaluation.datasets import AUTO, KINDS
from hybriddepth_ros.evaluation.protocols import load_protocol, parse_protocol, shipped_protocols
from hybriddepth_ros.models.weights_catalogue import DDFF12_DISPARITY_METRES
from tests.rgbd_files import write_pair

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "datasets.md").read_text()


def table(heading: str) -> dict[str, str]:
    """First column, without its backticks -> the row, of the first table after a heading."""
    paragraphs = TEXT.split(heading)[1].split("\n\n")
    rows = next(part for part in paragraphs if part.startswith("|")).splitlines()[2:]
    return {row.split("|")[1].strip(" `"): row for row in rows}


def test_every_kind_and_every_shipped_protocol_is_described_and_no_other() -> None:
    assert set(table("# Data for an evaluation")) == set(KINDS) - {AUTO}
    rows = table("## Protocols")
    assert set(rows) == set(shipped_protocols())
    for name, row in rows.items():
        assert ("oracle" in row) == load_protocol(name).oracle
    for name in ("rooms", "tables", "tables_fine"):
        protocol = load_protocol(name)
        focus = protocol.sweep.fixed_diopters
        assert focus is not None
        assert f"{len(focus)} slices, {min(focus):g} to {max(focus):g} 1/m" in rows[name]
        assert f"{protocol.camera.blur_px_per_diopter:g} px" in rows[name]
    assert f"{DDFF12_DISPARITY_METRES:.4f} m px" in TEXT


def test_the_example_protocol_is_one() -> None:
    (example,) = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    protocol = parse_protocol(yaml.safe_load(example), "example", "docs")
    assert protocol.motion is not None and protocol.exposure is not None
    assert len(protocol.sweep.fixed_diopters or ()) == 7


@pytest.mark.slow
def test_the_example_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "rgbd", "desk")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    exec(example, {})
    printed = capsys.readouterr().out
    assert printed.startswith("desk [0.12") and "(480, 640)" in printed
