"""YAML files of the user's: one line about what is wrong; written whole or not at all."""

from pathlib import Path

import pytest

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.yaml_files import read_yaml, write_whole


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"a: [", "expected YAML at line 1"), (b"a: 2024-99-99", "expected YAML"), (b"\xff\xfe\x00", "YAML")],
)
def test_what_cannot_be_read_is_one_line_with_the_file(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(ParameterError, match=said) as caught:
        read_yaml(path, "a calibration")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_a_missing_file_says_what_was_expected_and_the_option(tmp_path: Path) -> None:
    path = tmp_path / "no.yaml"
    with pytest.raises(ParameterError) as caught:
        read_yaml(path, "a calibration")
    assert str(caught.value) == f"{path}: expected a calibration: No such file or directory"
    with pytest.raises(ParameterError) as caught:
        read_yaml(path, option="--params")
    assert str(caught.value) == f"--params {path}: No such file or directory"


def test_what_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.yaml"
    write_whole(path, "a: 1\n")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "a: \ud800\n")
    assert path.read_text() == "a: 1\n" and list(path.parent.iterdir()) == [path]
