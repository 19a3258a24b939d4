"""docs/weights.md describes what is there: all of it, and nothing else."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

from hybriddepth_ros.models.download import Limits
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, DDFF12_DISPARITY_METRES
from hybriddepth_ros.models.weights_config import FOLDER_VARIABLE, WeightsConfig

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "weights.md").read_text()


def test_every_entry_of_the_config_is_described_and_no_other() -> None:
    table = TEXT.split("## The config, entry by entry")[1].split("\n\n")[1]
    rows = [line.split("|")[1] for line in table.splitlines()[2:]]
    described = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(described) == sorted(field.name for field in fields(WeightsConfig))
    assert f"{DDFF12_DISPARITY_METRES:.4f}" in table


def test_every_fetchable_file_is_listed_with_its_licence() -> None:
    table = TEXT.split("## Fetch")[1].split("\n\n")[1].splitlines()[2:]
    listed = {}
    for _, names, _, licence, _ in (row.split("|") for row in table):
        first, *ends = re.findall(r"`([\w-]+)`", names)
        for name in (first, *(first.rpartition("-")[0] + end for end in ends)):
            listed[name] = licence.split(",")[0].strip()
    assert listed == {entry.name: entry.licence for entry in CATALOGUE.values()}
    for entry in CATALOGUE.values():
        assert f"`{entry.file}`" in TEXT


def test_the_limits_and_the_folder_are_those_of_the_code() -> None:
    limits = Limits()
    for said in (
        f"connection may take {limits.connect:g} s",
        f"silence {limits.silence:g} s",
        f"the whole {limits.whole / 3600:g} hours",
        f"`${FOLDER_VARIABLE}`",
    ):
        assert said in TEXT
