"""docs/training.md describes what is there: all of it, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from hybriddepth_ros.parameters import parameter_fields
from hybriddepth_ros.training.config import read_config
from hybriddepth_ros.training.published_settings import HybridDepthTraining

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "docs" / "training.md").read_text()
CONFIGS = {
    path.name: read_config(path).settings
    for path in sorted((REPOSITORY / "config" / "training").glob("*depth_*.yaml"))
}


def rows(heading: str, table: int = 0) -> list[list[str]]:
    """The cells of a table below a heading, without its first two lines."""
    below = TEXT.split(f"## {heading}\n")[1].split("\n## ")[0]
    found = re.findall(r"(?:^\|.*\n)+", below, re.MULTILINE)[table]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found.splitlines()[2:]]


def test_every_key_is_described_with_its_default() -> None:
    described = {key.strip("`"): default.strip("`") for key, default, _ in rows("Settings")}
    defaults = {}
    for name, (default, _) in parameter_fields(HybridDepthTraining).items():
        defaults[name] = "" if default == () else yaml.safe_dump(default).split("\n")[0].strip("'")
    assert {k: yaml.safe_load(v) if v else v for k, v in described.items()} == {
        k: yaml.safe_load(v) if v else v for k, v in defaults.items()
    }


def test_every_config_is_listed() -> None:
    assert sorted(name.strip("`") for name, *_ in rows("Ready configs")) == sorted(CONFIGS)


def test_the_table_of_settings_is_that_of_the_configs() -> None:
    columns = ("hybriddepth_ddff12", "hybriddepth_nyu", "hybriddepth_arkitscenes")
    columns += ("crossdepth_ddff12", "crossdepth_ddff12_paper")
    table = {name: cells for name, *cells in rows("Ready configs", 1)}
    for place, column in enumerate(columns):
        settings = CONFIGS[f"{column}.yaml"]
        assert table["optimiser"][place].lower() == settings.optimiser
        rate, decay = table["learning rate, weight decay"][place].split(", ")
        assert float(rate) == settings.learning_rate
        assert settings.weight_decay == (0.0 if decay == "*none*" else float(decay))
        assert table["schedule"][place] == settings.schedule
        batch, slices = table["batch, slices"][place].split(", ")
        assert int(batch) == settings.batch_size and str(settings.slices) in slices
        image = f"{settings.crop_height_px} x {settings.crop_width_px}"
        assert image in table["image"][place]
        assert ("flips" in table["augmentation"][place]) == settings.flip_horizontal
        assert ("both" in table["augmentation"][place]) == settings.flip_vertical
        assert ("jitter" in table["augmentation"][place]) == bool(settings.colour_jitter)
        assert ("shuffled" in table["order"][place]) == settings.shuffle
        assert settings.steps == 60_000
