"""Fetched weights are those that their publisher states, and ever after those that first came."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models import weights_fetch
from hybriddepth_ros.models.download import Limits
from hybriddepth_ros.models.weights import installed_names, verify
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, Published
from hybriddepth_ros.models.weights_fetch import fetch
from hybriddepth_ros.models.weights_import import import_checkpoint
from hybriddepth_ros.models.weights_record import known_hashes
from tests.file_server import FileServer, Served, file_server, point_hub_at
from tests.small_weights import small_networks, small_tensors

__all__ = ["small_networks"]  # a fixture

RELEASED, ON_HUB = "hybriddepth-nyu5", "depth-anything-v2-large"  # the publisher states no hash; the hub does
PATIENT = Limits(connect=20.0, silence=20.0, whole=60.0)

pytestmark = pytest.mark.usefixtures("small_networks")


@pytest.fixture
def server() -> Iterator[FileServer]:
    with file_server() as running:
        yield running


@pytest.fixture(autouse=True)
def folder(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The weights folder, and a catalogue whose files are on the server."""
    monkeypatch.setenv("HYBRIDDEPTH_WEIGHTS", str(tmp_path / "weights"))
    point_hub_at(server.url, tmp_path / "cache", monkeypatch)
    released = CATALOGUE[RELEASED]
    monkeypatch.setitem(CATALOGUE, RELEASED, replace(released, url=f"{server.url}/{released.file}"))
    on_hub = CATALOGUE[ON_HUB]
    settings = {**on_hub.settings, "variant": "v2-small"}  # of which size the small weights say they are
    monkeypatch.setitem(CATALOGUE, ON_HUB, replace(on_hub, settings=settings))
    yield tmp_path / "weights"
    huggingface_hub.close_session()


def checkpoint(tmp_path: Path, model: str = "hybriddepth", value: float = 1.0) -> bytes:
    path = tmp_path / "made.ckpt"
    torch.save({"state_dict": small_tensors(model, value)}, path)
    return path.read_bytes()


def publish(server: FileServer, name: str, body: bytes) -> Published:
    published = CATALOGUE[name]
    if published.repository:
        server.serve_hub(published, body)
    else:
        server.files[f"/{published.file}"] = Served(body)
    return published


def test_what_was_imported_by_name_alone_is_not_called_the_published_file(
    server: FileServer, tmp_path: Path
) -> None:
    body = checkpoint(tmp_path)
    published = publish(server, RELEASED, body)
    local = tmp_path / published.file
    local.write_bytes(body)
    import_checkpoint(local)
    refused(lambda: fetch(RELEASED, limits=PATIENT), "--replace")
    fetch(RELEASED, limits=PATIENT, replace_existing=True)
    fetch(RELEASED, limits=PATIENT)


def test_of_two_first_fetches_at_once_the_second_must_bring_the_same(
    server: FileServer, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published = publish(server, RELEASED, checkpoint(tmp_path, value=1.0))
    came = weights_fetch.download

    def overtaken(*arguments: Any) -> Any:
        """Another fetch runs between the download of this one and its installation."""
        monkeypatch.setattr(weights_fetch, "download", came)
        result = came(*arguments)
        server.files[f"/{published.file}"] = Served(checkpoint(tmp_path, value=2.0))
        fetch(RELEASED, limits=PATIENT)
        return result

    monkeypatch.setattr(weights_fetch, "download", overtaken)
    refused(lambda: fetch(RELEASED, limits=PATIENT), "SHA-256", "expected")
    assert verify(RELEASED).source_sha256 == known_hashes()[RELEASED]


def refused(run: Callable[[], Any], *names: str) -> None:
    with pytest.raises(WeightsError) as raised:
        run()
    assert "\n" not in str(raised.value)
    for name in names:
        assert name in str(raised.value)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.mark.parametrize(("name", "model"), [(RELEASED, "hybriddepth"), (ON_HUB, "depth_anything")])
def test_a_first_fetch_is_installed_and_recorded(
    server: FileServer, folder: Path, tmp_path: Path, name: str, model: str
) -> None:
    body = checkpoint(tmp_path, model)
    published = publish(server, name, body)
    assert name not in known_hashes()
    config = fetch(name, limits=PATIENT)
    digest = hashlib.sha256(body).hexdigest()
    assert (config.source, config.licence) == (published.url, published.licence)
    assert (config.revision, config.source_sha256) == (published.revision, digest)
    assert verify(name) == config
    assert files(folder) == sorted(["fetched.yaml", f"{name}.safetensors", f"{name}.yaml"])
    record = yaml.safe_load((folder / "fetched.yaml").read_text())[name]
    assert (record["sha256"], record["size"], record["url"]) == (digest, len(body), published.url)
    assert known_hashes()[name] == digest and installed_names() == [name]


@pytest.mark.parametrize(("name", "model"), [(RELEASED, "hybriddepth"), (ON_HUB, "depth_anything")])
def test_another_file_than_at_the_first_fetch_is_refused_and_changes_nothing(
    server: FileServer, folder: Path, tmp_path: Path, name: str, model: str
) -> None:
    publish(server, name, checkpoint(tmp_path, model))
    first = fetch(name, limits=PATIENT)
    other = checkpoint(tmp_path, model, value=2.0)
    publish(server, name, other)
    refused(
        lambda: fetch(name, limits=PATIENT, replace_existing=True),
        first.source_sha256,
        hashlib.sha256(other).hexdigest(),
    )
    assert verify(name) == first
    for end in ("yaml", "safetensors"):  # nor when the weights are gone: the record stays
        (folder / f"{name}.{end}").unlink()
    refused(lambda: fetch(name, limits=PATIENT), first.source_sha256)
    assert files(folder) == ["fetched.yaml"]


def test_the_hash_that_the_catalogue_states_counts_at_the_first_fetch(
    server: FileServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stated = "1" * 64
    monkeypatch.setitem(CATALOGUE, RELEASED, replace(CATALOGUE[RELEASED], sha256=stated))
    publish(server, RELEASED, checkpoint(tmp_path))
    refused(lambda: fetch(RELEASED, limits=PATIENT), stated)
    assert files(folder) == []


def test_what_is_installed_and_whole_is_not_fetched_again(
    server: FileServer, folder: Path, tmp_path: Path
) -> None:
    publish(server, RELEASED, checkpoint(tmp_path))
    first = fetch(RELEASED, limits=PATIENT)
    server.files.clear()
    assert fetch("HybridDepth_NYU5", limits=PATIENT) == first
    assert len(server.asked) == 1
    (folder / f"{RELEASED}.safetensors").write_bytes(b"damaged")
    refused(lambda: fetch(RELEASED, limits=PATIENT), f"{RELEASED}.safetensors")
    publish(server, RELEASED, checkpoint(tmp_path))
    record = (folder / "fetched.yaml").read_text()
    long_ago = re.sub(r"first_fetched: .*", "first_fetched: '2024-01-01T00:00:00Z'", record)
    (folder / "fetched.yaml").write_text(long_ago)
    assert fetch(RELEASED, limits=PATIENT, replace_existing=True) == first
    assert verify(RELEASED) == first and (folder / "fetched.yaml").read_text() == long_ago


@pytest.mark.parametrize("body", [b"<html>sign in</html>", b""], ids=["a page", "nothing"])
def test_what_is_no_checkpoint_is_neither_installed_nor_recorded(
    server: FileServer, folder: Path, body: bytes
) -> None:
    publish(server, RELEASED, body)
    refused(
        lambda: fetch(RELEASED, limits=PATIENT), "NYUBest5-DFV-Trained.ckpt", "expected a PyTorch checkpoint"
    )
    assert files(folder) == []


def test_a_checkpoint_of_another_model_is_not_recorded(
    server: FileServer, folder: Path, tmp_path: Path
) -> None:
    publish(server, RELEASED, checkpoint(tmp_path, "crossdepth"))
    refused(lambda: fetch(RELEASED, limits=PATIENT), "hybriddepth", "crossdepth")
    assert files(folder) == []


def test_a_damaged_record_is_named(folder: Path) -> None:
    for content in ("just text", "[1, 2]", "{a: [}", "hybriddepth-nyu5: 3"):
        folder.mkdir(exist_ok=True)
        (folder / "fetched.yaml").write_text(content)
        refused(lambda: fetch(RELEASED, limits=PATIENT), "fetched.yaml", "damaged")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "a file").write_text("")
    refused(lambda: fetch(RELEASED, tmp_path / "a file" / "in it"), "a file/in it")


def test_the_catalogue_is_as_it_has_to_be() -> None:
    """Each entry has what fetching it needs; a hash stands there whole or not at all."""
    for name, entry in CATALOGUE.items():
        assert entry.name == name and entry.url.endswith(entry.file) and entry.licence
        assert len(entry.sha256) in (0, 64) and len(entry.revision) == (40 if entry.repository else 0)
    non_commercial = {name for name, entry in CATALOGUE.items() if "NON-COMMERCIAL" in entry.terms}
    assert non_commercial == {"depth-anything-v2-base", "depth-anything-v2-large"}
    released = {entry.file for entry in CATALOGUE.values() if not entry.repository}
    assert len(released) == 4 and len(CATALOGUE) == 10
