"""Small data and small networks to train HybridDepth and CrossDepth with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from hybriddepth_ros.models.weights_config import WeightsConfig
from hybriddepth_ros.training.published_settings import PublishedTraining
from tests.rgbd_files import rgb_and_depth, write_depth_mm, write_rgb
from tests.stacks import disc_blur, texture
from tests.training import tiny_networks

SIZE = (80, 112)  # of a frame
DDFF12_METRES = 1982.0250823695178 / 7317.020641763665 * 1e-3 * 521.4052
METRES = {"focus_unit": "metres", "depth_range": (0.02, 10.0), "invert_depth": True}
PROTOCOL = {
    "camera": {"width": 112, "height": 80, "focal_length_mm": 50.0, "f_number": 8.0, "pixel_pitch_um": 12.0},
    "sweep": {"from_truth": {"count": 5}},
    "renderer": "published",
    "frames": {"depth_m": [0.001, 10.0]},
}


@pytest.fixture
def tiny_prior(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every v1-small is tiny."""
    tiny_networks.make_tiny(monkeypatch.setitem, monkeypatch.setattr)


@pytest.fixture(scope="session")
def start_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights of a tiny HybridDepth, random but for their range: hybriddepth.safetensors."""
    folder = tmp_path_factory.mktemp("weights")
    with pytest.MonkeyPatch.context() as patch:
        tiny_networks.make_tiny(patch.setitem, patch.setattr)
        tiny_networks.install(folder, WeightsConfig("hybriddepth", "hybriddepth", **METRES))
    return folder


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of six colour and depth images and, beside it, the protocol that makes stacks of them."""
    folder = tmp_path_factory.mktemp("data") / "rooms"
    for index in range(6):
        rgb, depth = rgb_and_depth(*SIZE, near=1.0, far=2.0 + 0.5 * index, seed=index)
        write_rgb(folder / f"{index}.rgb.png", rgb)
        write_depth_mm(folder / f"{index}.depth_mm.png", depth)
    folder.with_suffix(".yaml").write_text(yaml.safe_dump(PROTOCOL))
    return folder


@pytest.fixture(scope="session")
def ddff12(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file like DDFF12's with 4 stacks to train on and 2 to validate on: slanted walls."""
    path = tmp_path_factory.mktemp("data") / "ddff12.h5"
    focus = np.linspace(0.28, 0.02, 10)
    with h5py.File(path, "w") as file:
        for split, count in (("train", 4), ("val", 2)):
            disparity = np.empty((count, *SIZE), np.float32)
            stacks = np.empty((count, 10, *SIZE, 3), np.uint8)
            for index in range(count):
                disparity[index] = np.linspace(0.05 + 0.03 * index, 0.25, SIZE[1])
                sharp = texture(SIZE, seed=index)
                for number, at in enumerate(focus):
                    blurred = disc_blur(sharp, 1.0 + 20.0 * abs(at - float(disparity[index].mean())))
                    stacks[index, number] = blurred[..., None].astype(np.uint8)
            file.create_dataset(f"stack_{split}", data=stacks)
            file.create_dataset(f"disp_{split}", data=disparity)
    return path


def tiny_keys(data: Path, weights: Path, **changes: Any) -> dict[str, Any]:
    """The keys of a training of seconds."""
    keys: dict[str, Any] = {
        "data": str(data),
        "init_from": str(weights / "hybriddepth.safetensors"),
        "crop_height_px": 64,
        "crop_width_px": 64,
        "slices": 3,
        "batch_size": 2,
        "steps": 6,
        "steps_per_epoch": 2,
        "workers": 0,
    }
    if data.is_dir():
        keys["protocol"] = str(data.with_suffix(".yaml"))
    else:
        keys["focus_unit"] = "disparity"
    return keys | changes


def tiny_settings(kind: type[PublishedTraining], data: Path, weights: Path, **changes: Any) -> Any:
    return kind(**tiny_keys(data, weights, **changes))
