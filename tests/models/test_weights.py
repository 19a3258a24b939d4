"""Weights are imported, listed, verified and loaded; what is wrong is refused by name and reason."""

from __future__ import annotations

import hashlib
import logging
import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models import weights_import
from hybriddepth_ros.models.checkpoint_files import read_checkpoint
from hybriddepth_ros.models.weights import build_network, installed_names, list_weights, load_weights, verify
from hybriddepth_ros.models.weights_catalogue import CATALOGUE
from hybriddepth_ros.models.weights_config import WeightsConfig, read_config, write_config
from hybriddepth_ros.models.weights_import import import_checkpoint
from tests.small_weights import small_networks, small_tensors

__all__ = ["small_networks"]  # a fixture

NYU5 = "NYUBest5-DFV-Trained.ckpt"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "weights"
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(place))
    return place


def saved(path: Path, tensors: dict[str, Tensor]) -> Path:
    """A Lightning file."""
    path.parent.mkdir(exist_ok=True)
    torch.save({"state_dict": {f"model.{name}": t for name, t in tensors.items()}, "epoch": 3}, path)
    return path


def refused(run: Callable[[], Any], *names: str) -> None:
    with pytest.raises(WeightsError) as raised:
        run()
    message = str(raised.value)
    assert "\n" not in message
    for name in names:
        assert name in message


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


# ---- import


@pytest.mark.usefixtures("small_networks")
def test_an_import_writes_tensors_and_a_config_that_says_what_they_do_not(
    tmp_path: Path, folder: Path
) -> None:
    source = saved(tmp_path / NYU5, small_tensors())
    config = import_checkpoint(source)
    assert files(folder) == ["hybriddepth-nyu5.safetensors", "hybriddepth-nyu5.yaml"]
    written = read_checkpoint(folder / "hybriddepth-nyu5.safetensors")
    assert all(torch.equal(written[name], tensor) for name, tensor in small_tensors().items())
    content = yaml.safe_load((folder / "hybriddepth-nyu5.yaml").read_text())
    assert list(content) == [field.name for field in fields(WeightsConfig)]
    expected = {
        "name": "hybriddepth-nyu5",
        "model": "hybriddepth",
        "variant": "v1-small",
        "focus_unit": "metres",
        "disparity_metres": 0.0,
        "slice_order": "rising",
        "depth_range": [0.02, 10.0],
        "invert_depth": True,
        "stack_normalisation": "imagenet",
        "rgb_normalisation": "none",
        "input_multiple": 32,
        "sigma_scale": 1.0,
        "licence": "GPL-3.0",
        "source": CATALOGUE["hybriddepth-nyu5"].url,
        "source_sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "revision": "",
        "sha256": hashlib.sha256((folder / "hybriddepth-nyu5.safetensors").read_bytes()).hexdigest(),
    }
    assert {key: content[key] for key in expected} == expected
    assert read_config(folder / "hybriddepth-nyu5.yaml") == config


@pytest.mark.usefixtures("small_networks")
@pytest.mark.parametrize(
    ("file", "unit", "order", "inverted", "rgb"),
    [
        ("NYUBest10-DFV-Trained.ckpt", "metres", "rising", True, "none"),
        ("NyuBest5.ckpt", "metres", "rising", True, "none"),
        ("DDFF12.ckpt", "disparity", "falling", False, "none"),
        ("NyuBest10.ckpt", "diopters", "rising", False, "imagenet"),
    ],
)
def test_the_name_of_a_published_file_says_its_conventions(
    tmp_path: Path, file: str, unit: str, order: str, inverted: bool, rgb: str
) -> None:
    config = import_checkpoint(saved(tmp_path / file, small_tensors()))
    found = (config.focus_unit, config.slice_order, config.invert_depth, config.rgb_normalisation)
    assert found == (unit, order, inverted, rgb)


@pytest.mark.usefixtures("small_networks")
def test_the_unit_of_a_file_that_is_not_published_must_be_said(tmp_path: Path, folder: Path) -> None:
    mine = saved(tmp_path / "Mine 2.ckpt", small_tensors())
    refused(lambda: import_checkpoint(mine), "Mine 2.ckpt", "--focus-unit")
    refused(lambda: import_checkpoint(mine, focus_unit="feet"), "feet", "metres, disparity, diopters")
    assert files(folder) == []
    config = import_checkpoint(mine, focus_unit="disparity")
    assert (config.name, config.focus_unit, config.slice_order) == ("mine-2", "disparity", "falling")
    assert 1 / config.disparity_metres == pytest.approx(7.08, abs=0.01)  # 1/m per unit of DDFF12's
    assert config.licence == "unknown" and config.source == "Mine 2.ckpt"


@pytest.mark.usefixtures("small_networks")
def test_the_same_import_makes_the_same_files(tmp_path: Path) -> None:
    source = saved(tmp_path / NYU5, small_tensors())
    made = [import_checkpoint(source, folder=tmp_path / str(i)) for i in range(8)]
    assert len({config.sha256 for config in made}) == 1


@pytest.mark.usefixtures("small_networks")
def test_a_name_is_not_taken_twice_unless_told_to(tmp_path: Path, folder: Path) -> None:
    source = saved(tmp_path / NYU5, small_tensors())
    before = import_checkpoint(source)
    saved(source, small_tensors(value=2.0))
    refused(lambda: import_checkpoint(source), "hybriddepth-nyu5", "--replace")
    assert verify("hybriddepth-nyu5") == before
    import_checkpoint(source, replace_existing=True)
    assert load_weights("hybriddepth-nyu5", "hybriddepth")[1]["DFF_model.w"][0] == 2.0


@pytest.mark.parametrize("name", ["../out", ".hidden", "a b", "fetched", "", "x" * 101])
@pytest.mark.usefixtures("small_networks")
def test_a_name_that_is_no_plain_file_name_is_refused(tmp_path: Path, folder: Path, name: str) -> None:
    source = saved(tmp_path / NYU5, small_tensors())
    if name:
        refused(lambda: import_checkpoint(source, name), repr(name))
        assert files(folder) == []
    else:
        assert import_checkpoint(source, name).name == "hybriddepth-nyu5"


@pytest.mark.usefixtures("small_networks")
def test_what_stops_an_import_leaves_nothing_behind(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def interrupted(*_: object) -> None:
        written.extend(folder.glob("*/*.safetensors"))
        raise KeyboardInterrupt

    source = saved(tmp_path / NYU5, small_tensors())
    with monkeypatch.context() as patch:
        patch.setattr(weights_import, "write_config", interrupted)
        with pytest.raises(KeyboardInterrupt):
            import_checkpoint(source)
        assert len(written) == 1 and files(folder) == []
    import_checkpoint(source)
    monkeypatch.setattr(weights_import, "write_config", interrupted)
    other = saved(tmp_path / "other.ckpt", small_tensors(value=2.0))
    with pytest.raises(KeyboardInterrupt):
        import_checkpoint(other, "mine", focus_unit="metres")
    assert files(folder) == ["hybriddepth-nyu5.safetensors", "hybriddepth-nyu5.yaml"]
    verify("hybriddepth-nyu5")


@pytest.mark.usefixtures("small_networks")
def test_a_published_name_is_for_the_published_file(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = saved(tmp_path / "mine.ckpt", small_tensors())
    refused(lambda: import_checkpoint(other, "hybriddepth-nyu5", focus_unit="metres"), "mine.ckpt", "--name")
    entry = CATALOGUE[import_checkpoint(saved(tmp_path / NYU5, small_tensors())).name]
    verify(entry.name)
    monkeypatch.setitem(CATALOGUE, entry.name, replace(entry, sha256="0" * 64))
    refused(lambda: verify(entry.name), "not the published file of this name", "0" * 64)


@pytest.mark.usefixtures("small_networks")
def test_a_file_is_not_imported_onto_itself_or_over_a_stray_one(tmp_path: Path, folder: Path) -> None:
    folder.mkdir()
    stray = saved(folder / "mine.safetensors", {})
    before = stray.read_bytes()
    source = saved(tmp_path / "mine.ckpt", small_tensors())
    refused(lambda: import_checkpoint(source, focus_unit="metres"), "--replace")
    refused(lambda: import_checkpoint(stray, focus_unit="metres", replace_existing=True), "elsewhere")
    assert stray.read_bytes() == before


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("licence: 2020-13-45", "as YAML"),
        ("licence: " + 3000 * "[", "as YAML"),
        ("sigma_scale: 1" + 400 * "0", "a number"),
        ("variant: v9", "variant"),
    ],
)
@pytest.mark.usefixtures("small_networks")
def test_a_config_that_is_none_is_refused_in_one_line(
    tmp_path: Path, folder: Path, entry: str, said: str
) -> None:
    import_checkpoint(saved(tmp_path / NYU5, small_tensors()))
    path = folder / "hybriddepth-nyu5.yaml"
    key = entry.partition(":")[0]
    kept = [line for line in path.read_text().splitlines() if not line.startswith(key)]
    path.write_text("\n".join([*kept, entry, ""]))
    refused(lambda: verify("hybriddepth-nyu5"), "hybriddepth-nyu5", said)


@pytest.mark.usefixtures("small_networks")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    source = saved(tmp_path / NYU5, small_tensors())
    refused(lambda: import_checkpoint(source, folder=tmp_path / "a file" / "in it"), "a file/in it")


# ---- wrong files


def test_a_renamed_file_is_known_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved(tmp_path / NYU5, small_tensors("depth_anything"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    entry = CATALOGUE["depth-anything-v2-small"]
    monkeypatch.setitem(CATALOGUE, entry.name, replace(entry, sha256=digest))
    refused(lambda: import_checkpoint(source), NYU5, "renamed", "depth_anything_v2_vits.pth")


@pytest.mark.usefixtures("small_networks")
def test_a_published_file_of_any_name_is_known_by_its_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = saved(tmp_path / "download(1)", small_tensors("depth_anything"))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    entry = CATALOGUE["depth-anything-v1-small"]
    monkeypatch.setitem(CATALOGUE, entry.name, replace(entry, sha256=digest))
    config = import_checkpoint(source)
    assert (config.name, config.variant, config.revision) == (entry.name, "v1-small", entry.revision)


def test_another_file_under_a_published_name_is_refused(tmp_path: Path) -> None:
    entry = CATALOGUE["depth-anything-v2-small"]
    source = saved(tmp_path / entry.file, small_tensors("depth_anything"))
    refused(lambda: import_checkpoint(source), entry.file, entry.sha256)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / NYU5, small_tensors("crossdepth"))
    refused(lambda: import_checkpoint(source), NYU5, "hybriddepth", "crossdepth")
    mine = saved(tmp_path / "mine.ckpt", small_tensors("crossdepth"))
    refused(lambda: import_checkpoint(mine, model="hybriddepth"), "mine.ckpt", "said", "crossdepth")
    refused(lambda: import_checkpoint(mine, model="resnet"), "resnet", "expected one of")
    refused(
        lambda: import_checkpoint(saved(tmp_path / "other.ckpt", {"fc.weight": torch.ones(2)})),
        "other.ckpt",
        "fc.weight",
    )


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"focus_unit": "metres"}, ("no focus unit", "'metres'")),
        ({"invert_depth": True}, ("no invert depth", "True")),
    ],
)
def test_what_depth_anything_has_not_is_refused_rather_than_ignored(
    tmp_path: Path, folder: Path, given: dict[str, Any], names: tuple[str, ...]
) -> None:
    mine = saved(tmp_path / "mine.pth", small_tensors("depth_anything"))
    refused(
        lambda: import_checkpoint(mine, variant="v1-small", **given), "mine.pth", "depth_anything", *names
    )
    assert files(folder) == []


@pytest.mark.usefixtures("small_networks")
def test_depth_anything_of_another_size_or_an_unknown_version_is_refused(tmp_path: Path) -> None:
    mine = saved(tmp_path / "mine.pth", small_tensors("depth_anything"))
    refused(lambda: import_checkpoint(mine), "mine.pth", "v2-small")
    refused(lambda: import_checkpoint(mine, variant="v2-large"), "v2-large", "small")
    assert import_checkpoint(mine, variant="v2-small").variant == "v2-small"


@pytest.fixture(scope="module")
def published_tensors() -> dict[str, Tensor]:
    """All published names in their shapes, each a single number in memory and on disk."""
    with torch.device("meta"):
        network = build_network(WeightsConfig("made", "hybriddepth", focus_unit="diopters"))
    shapes = network.published_layout().shapes
    return {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("DFF_model.decoder3.classify.2.0.weight", "reshape", "of another shape"),
        ("DFF_model.decoder3.classify.2.0.weight", "spoil", "not finite"),
        ("DFF_model.decoder3.classify.2.0.weight", "remove", "missing"),
        ("DFF_model.decoder9.classify.weight", "add", "unexpected"),
    ],
)
def test_the_real_network_refuses_what_does_not_fit_by_name(
    tmp_path: Path, folder: Path, published_tensors: dict[str, Tensor], name: str, change: str, reason: str
) -> None:
    tensors = dict(published_tensors)
    if change == "remove":
        del tensors[name]
    elif change == "spoil":
        tensors[name] = tensors[name].clone()
        tensors[name].flatten()[-1] = torch.nan
    else:
        tensors[name] = torch.zeros(2, 3)
    refused(
        lambda: import_checkpoint(saved(tmp_path / NYU5, tensors)), "hybriddepth-nyu5", f"1 {reason}: {name}"
    )
    assert files(folder) == []


# ---- what is installed


@pytest.fixture
def installed(tmp_path: Path, small_networks: None) -> WeightsConfig:
    return import_checkpoint(saved(tmp_path / NYU5, small_tensors()))


def test_an_identity_tells_other_numbers_and_another_calibration_apart(
    installed: WeightsConfig, tmp_path: Path
) -> None:
    changed = saved(tmp_path / "changed" / NYU5, small_tensors(value=2.0))
    again = import_checkpoint(changed, replace_existing=True)
    calibrated = replace(again, sigma_scale=2.0)
    identities = [config.identity for config in (installed, again, calibrated)]
    assert len({*identities}) == 3 and all(one.startswith(f"{installed.name}@") for one in identities)
    assert replace(again).identity == again.identity


def test_one_flipped_byte_is_found(installed: WeightsConfig, folder: Path) -> None:
    assert verify(installed.name) == installed
    path = folder / f"{installed.name}.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1  # in the numbers: the file reads as before
    path.write_bytes(data)
    for run in (lambda: verify(installed.name), lambda: load_weights(installed.name, "hybriddepth")):
        refused(run, str(path), "changed since it was installed", installed.sha256)


def test_a_file_that_is_cut_short_after_it_was_installed_is_found(
    installed: WeightsConfig, folder: Path
) -> None:
    path = folder / f"{installed.name}.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refused(lambda: verify(installed.name), str(path), "expected a whole safetensors file")


def test_files_that_were_renamed_or_lost_are_named(installed: WeightsConfig, folder: Path) -> None:
    config, tensors = (folder / f"{installed.name}.{end}" for end in ("yaml", "safetensors"))
    shutil.copy(config, folder / "other.yaml")
    refused(lambda: verify("other"), "other.yaml", "renamed", installed.name)
    (folder / "other.yaml").write_text(config.read_text().replace("name: hybriddepth-nyu5", "name: other"))
    refused(lambda: verify("other"), "other.safetensors", "No such file")
    shutil.copy(tensors, folder / "other.safetensors")
    refused(lambda: verify("other"), "other.safetensors", "renamed", installed.name)
    config.unlink()
    refused(lambda: verify(installed.name), f"{installed.name}.yaml is missing")
    refused(lambda: verify("hybriddepth-nyu"), "not installed")


def test_tensors_that_no_longer_fit_their_config_are_found(installed: WeightsConfig, folder: Path) -> None:
    write_config(replace(installed, model="crossdepth"))
    refused(lambda: verify(installed.name), installed.name, "missing: depth_fusion.w")


def test_a_config_that_cannot_be_read_hides_no_other(
    installed: WeightsConfig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "broken.yaml").write_text("name: broken\nmodel: nonsense\n")
    assert list_weights() == [installed] and installed_names() == ["broken", installed.name]
    assert "broken" in caplog.text and "nonsense" in caplog.text


@pytest.mark.parametrize(
    ("entry", "names"),
    [
        ("focus_unit: feet", ("focus_unit", "feet", "metres")),
        ("slice_order: random", ("slice_order", "random")),
        ("depth_range: [3, 1]", ("depth_range", "3 and 1")),
        ("depth_range: [0.1, .inf]", ("depth_range", "below infinity")),
        ("depth_range: 4", ("depth_range", "two numbers", "4")),
        ("sigma_scale: 0", ("sigma_scale", "above 0")),
        ("sigma_scale: .nan", ("sigma_scale", "a number")),
        ("invert_depth: 1", ("invert_depth", "bool")),
        ("input_multiple: 14", ("input_multiple", "32", "14")),
        ("focus_unit: disparity", ("disparity_metres", "depth times disparity")),
        ("rgb_normalization: none", ("rgb_normalization", "rgb_normalisation")),
    ],
)
def test_a_wrong_entry_of_a_config_is_named(tmp_path: Path, entry: str, names: tuple[str, ...]) -> None:
    lines = {
        "name": "made",
        "model": "hybriddepth",
        "focus_unit": "metres",
        "depth_range": "[0.02, 10.0]",
    }
    key, _, value = entry.partition(": ")
    path = tmp_path / "made.yaml"
    path.write_text("".join(f"{k}: {v}\n" for k, v in lines.items()))
    assert read_config(path).focus_unit == "metres"
    path.write_text("".join(f"{k}: {v}\n" for k, v in (lines | {key: value}).items()))
    refused(lambda: read_config(path), "made", *names)


# ---- what a model is given


def test_weights_are_found_by_name_as_their_authors_write_it_too(installed: WeightsConfig) -> None:
    for name in ("hybriddepth-nyu5", "HybridDepth_NYU5", ""):
        config, tensors = load_weights(name, "hybriddepth")
        assert config == installed and tensors.keys() == small_tensors().keys()


def test_without_a_name_the_first_of_the_model_is_taken(installed: WeightsConfig, tmp_path: Path) -> None:
    import_checkpoint(saved(tmp_path / "DDFF12.ckpt", small_tensors()))
    import_checkpoint(saved(tmp_path / "a.ckpt", small_tensors("crossdepth")), focus_unit="metres")
    assert load_weights("", "hybriddepth")[0].name == "hybriddepth-ddff5"
    assert load_weights("", "crossdepth")[0].name == "a"


def test_weights_of_another_model_or_none_are_refused(installed: WeightsConfig, folder: Path) -> None:
    refused(lambda: load_weights(installed.name, "crossdepth"), installed.name, "crossdepth", "hybriddepth")
    refused(lambda: load_weights("", "crossdepth"), "crossdepth", "weights import")
    refused(lambda: load_weights("hybriddepth-nyu10", "hybriddepth"), "weights fetch hybriddepth-nyu10")
    refused(lambda: load_weights("hybriddepth-nyu", "hybriddepth"), "did you mean hybriddepth-nyu5")
    refused(lambda: load_weights(str(folder), "hybriddepth"), "nor a file")
    for suffix in ("", ".safetensors"):
        refused(lambda end=suffix: load_weights("a" * 5000 + end, "hybriddepth"), "nor a file")


def test_installed_weights_may_lie_anywhere_together(
    installed: WeightsConfig, folder: Path, tmp_path: Path
) -> None:
    elsewhere = shutil.copytree(folder, tmp_path / "elsewhere")
    shutil.rmtree(folder)
    assert load_weights(str(elsewhere / f"{installed.name}.safetensors"), "hybriddepth")[0] == installed


@pytest.mark.usefixtures("small_networks")
def test_a_published_file_is_used_without_being_imported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, tensors = load_weights(str(saved(tmp_path / "DDFF12.ckpt", small_tensors())), "hybriddepth")
    assert config.focus_unit == "disparity" and tensors.keys() == small_tensors().keys()
    assert caplog.text == ""


@pytest.mark.usefixtures("small_networks")
def test_a_file_that_says_no_unit_is_used_as_in_metres_and_a_warning_says_so(
    tmp_path: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "mine.ckpt", small_tensors())
    config, tensors = load_weights(str(path), "hybriddepth")
    assert (config.name, config.focus_unit, config.calibrated) == ("mine.ckpt", "metres", False)
    assert tensors.keys() == small_tensors().keys() and files(folder) == []
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    for said in (str(path), "in metres, 0.02 to 10", f"weights import {path} --focus-unit"):
        assert said in record.getMessage()
    assert record.getMessage().count(str(path)) == 1
    refused(lambda: load_weights(str(path), "crossdepth"), "mine.ckpt", "hybriddepth")
