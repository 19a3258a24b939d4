"""docs/optotune.md describes the options that there are, and its example runs."""

import re
from pathlib import Path

import pytest

from hybriddepth_ros.cameras.optotune import USB_IDS, OptotuneOptions
from hybriddepth_ros.parameters import parameter_fields

PAGE = (Path(__file__).parents[2] / "docs/optotune.md").read_text()


def test_every_option_is_described_with_its_default_and_unit() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
    fields = parameter_fields(OptotuneOptions)
    assert set(rows) == set(fields)
    for name, (default, info) in fields.items():
        told, unit, allowed, _ = (cell.strip(" `") for cell in rows[name].split("|"))
        text = f"{default:g}" if isinstance(default, float) else str(default)
        assert told == (text.lower() if isinstance(default, bool) else text), name
        assert unit == info.unit, name
        if info.minimum is not None:
            assert allowed == f"{info.minimum:g} to {info.maximum:g}", name
        assert all(choice in allowed for choice in info.choices), name


def test_the_usb_numbers_are_those_that_are_looked_for() -> None:
    assert all(f"{vendor:04x}:{product:04x}" in PAGE for vendor, product in USB_IDS.values())


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(compile(example, "docs/optotune.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    current_ma, bad_answers = printed[-1].split()  # the last command before the plug was pulled
    assert float(current_ma) == pytest.approx(120.0, abs=0.04)
    assert int(bad_answers) >= 1
