"""What each published file was when it was first fetched here: later fetches must bring the same."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, Published
from hybriddepth_ros.models.weights_config import weights_folder, write_yaml

if TYPE_CHECKING:
    from hybriddepth_ros.models.download import Downloaded

RECORD = "fetched.yaml"
_HEADER = "# What each file was when it was first fetched; later fetches must bring the same.\n"


def known_hashes(folder: str | Path | None = None) -> dict[str, str]:
    """SHA-256 of each published file, by name: as stated, or as it was when first fetched."""
    recorded = {name: str(entry.get("sha256", "")) for name, entry in _read(folder).items()}
    stated = {entry.name: entry.sha256 for entry in CATALOGUE.values() if entry.sha256}
    return {name: digest for name, digest in (recorded | stated).items() if name in CATALOGUE and digest}


@contextlib.contextmanager
def locked(folder: str | Path | None = None) -> Iterator[None]:
    """Alone with the folder's record: what one fetch reads there, no other changes before it has written."""
    descriptor = os.open(weights_folder(folder), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def record_first_fetch(published: Published, came: Downloaded, folder: str | Path | None = None) -> None:
    """Keep what came, unless an earlier fetch is on record. Call it under `locked`."""
    record = _read(folder)
    if published.name in record:
        return
    record[published.name] = {
        "url": published.url,
        "revision": published.revision,
        "sha256": came.sha256,
        "size": came.size,
        "licence": published.licence,
        "first_fetched": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    write_yaml(weights_folder(folder) / RECORD, record, _HEADER)


def _read(folder: str | Path | None) -> dict[str, dict[str, Any]]:
    path = weights_folder(folder) / RECORD
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, yaml.YAMLError, ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise WeightsError(f"{path}: expected the record of fetched files; it is damaged")
    return content
