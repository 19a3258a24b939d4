import sys
from pathlib import Path

import pytest

from hybriddepth_ros import config_files
from hybriddepth_ros.config_files import find_config

CONFIG = Path(__file__).resolve().parents[1] / "config"


def test_files_and_folders_beside_the_sources_are_found() -> None:
    assert find_config("depth.yaml") == CONFIG / "depth.yaml"
    assert find_config("protocols") == CONFIG / "protocols"
    assert find_config("absent.yaml") is None


def test_without_sources_the_share_folder_of_the_environment_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        config_files, "__file__", str(tmp_path / "site-packages" / "hybriddepth_ros" / "x.py")
    )
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    installed = tmp_path / "share" / "hybriddepth_ros" / "config" / "only_here.yaml"
    assert find_config("only_here.yaml") is None
    installed.parent.mkdir(parents=True)
    installed.write_text("")
    assert find_config("only_here.yaml") == installed
