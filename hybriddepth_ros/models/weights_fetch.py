"""`hybriddepth weights fetch`: a published file is downloaded, checked, installed, and its hash kept."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hybriddepth_ros.errors import WeightsError
from hybriddepth_ros.models.download import Limits, Progress, download
from hybriddepth_ros.models.weights import verify
from hybriddepth_ros.models.weights_catalogue import CATALOGUE, Published, by_name
from hybriddepth_ros.models.weights_config import WeightsConfig, weights_folder
from hybriddepth_ros.models.weights_import import install
from hybriddepth_ros.models.weights_record import known_hashes, locked, record_first_fetch
from hybriddepth_ros.parameters import nearest_name


def fetch(
    name: str,
    folder: str | Path | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    replace_existing: bool = False,
) -> WeightsConfig:
    """Download published weights and install them; as they are, if they are installed and whole.

    The SHA-256 must be the stated one, else that of the first fetch, which is recorded.
    """
    published = published_entry(name)
    if is_installed(published, folder) and not replace_existing:
        if published.name not in known_hashes(folder):
            raise WeightsError(
                f"{published.name}: installed from a file, and nothing says what the published one is:"
                " --replace downloads it"
            )
        return verify(published.name, folder)
    expected = known_hashes(folder).get(published.name, "")
    target = weights_folder(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=".fetch-", dir=target)
    except OSError as error:
        raise WeightsError(f"{target}: expected a place that can be written: {error.strerror}") from None
    with scratch as place:
        came = download(published, Path(place), expected, limits, progress)
        with locked(folder):
            known = known_hashes(folder).get(published.name, came.sha256)
            if came.sha256 != known:  # of another fetch, which was first
                raise WeightsError(f"{came.origin}: SHA-256 {came.sha256}, expected {known}")
            config = install(
                came.path, published.name, published, {}, came.sha256, folder, replace_existing=True
            )
            record_first_fetch(published, came, folder)
    return config


def is_installed(published: Published, folder: str | Path | None = None) -> bool:
    """Whether weights of this name are there, whatever their state."""
    return (weights_folder(folder) / f"{published.name}.yaml").exists()


def published_entry(name: str) -> Published:
    """The catalogue's entry; WeightsError with the nearest name for one that is not there."""
    published = by_name(name)
    if published is None:
        known = ", ".join(CATALOGUE)
        raise WeightsError(
            f"unknown weights {name!r}, expected one of {known}{nearest_name(name, CATALOGUE)}"
        )
    return published
