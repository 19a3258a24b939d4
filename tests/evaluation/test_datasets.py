from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.arkitscenes import ArkitScenes
from hybriddepth_ros.evaluation.datasets import open_source
from hybriddepth_ros.evaluation.nyu import NyuDepth
from hybriddepth_ros.evaluation.protocols import load_protocol
from hybriddepth_ros.evaluation.rgbd_folder import RgbdFolder
from hybriddepth_ros.evaluation.smartphone import Smartphone
from hybriddepth_ros.evaluation.stack_folder import StackFolder
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from tests.evaluation.test_arkitscenes import write_scene as write_arkit
from tests.evaluation.test_nyu import write_nyu
from tests.evaluation.test_smartphone import write_scene as write_phone
from tests.rgbd_files import one_line, rgb_and_depth, write_pair


def write_stack(folder: Path) -> Path:
    rgb, depth = rgb_and_depth()
    FocalStack((FocalSlice(rgb, 2.0), FocalSlice(rgb, 0.1))).write_folder(folder)
    np.save(folder / "depth.npy", depth)
    return folder


def write_rgbd(folder: Path) -> Path:
    write_pair(folder, "a")
    return folder


def refusal(*arguments: object, **options: object) -> str:
    with pytest.raises(HybridDepthError) as caught:
        open_source(*arguments, **options)  # type: ignore[arg-type]
    return one_line(caught.value)


@pytest.mark.parametrize(
    ("write", "kind"),
    [
        (write_rgbd, RgbdFolder),
        (write_stack, StackFolder),
        (write_nyu, NyuDepth),
        (write_arkit, ArkitScenes),
        (write_phone, Smartphone),
    ],
)
def test_a_path_is_recognised_by_what_lies_there(tmp_path: Path, write: object, kind: type) -> None:
    source = open_source(write(tmp_path / "data"))  # type: ignore[operator]
    assert type(source) is kind and len(source) == len(source.names()) > 0
    assert source.oracle == (kind in (NyuDepth, ArkitScenes))  # with no protocol given, as published


def test_ddff12_is_recognised_by_its_suffix(tmp_path: Path) -> None:
    pytest.importorskip("h5py")
    from tests.evaluation.test_ddff12 import write_ddff12

    assert open_source(write_ddff12(tmp_path / "d.h5")).name == "DDFF12 val"


def test_a_protocol_is_for_what_has_no_stacks_of_its_own(tmp_path: Path) -> None:
    tables = load_protocol("tables")
    source = open_source(write_rgbd(tmp_path / "rgbd"), load_protocol("rooms"))
    assert isinstance(source, RgbdFolder) and source.protocol.name == "rooms"
    assert not open_source(write_nyu(tmp_path / "nyu"), load_protocol("rooms")).oracle
    assert "expected no protocol for stack, whose stacks are given" in refusal(
        write_stack(tmp_path / "s"), tables
    )


def test_what_is_none_of_them_is_told_what_was_looked_for(tmp_path: Path) -> None:
    text = refusal(tmp_path)
    for mark in (
        "DDFF12 file (*.h5)",
        "test/scaled_images",
        "Validation",
        "manifest.json",
        "test*.txt",
        "depth.npy",
    ):
        assert mark in text
    (tmp_path / "bag.mcap").write_bytes(b"")
    assert "found none of them" in refusal(tmp_path / "bag.mcap")
    assert "absent: expected a data set, found nothing there" in refusal(tmp_path / "absent")
    assert "did you mean stack?" in refusal(tmp_path, kind="stacks")
    assert "expected the folder Validation or Training" in refusal(tmp_path, kind="arkitscenes")
    assert "expected manifest.json or <name>.depth_mm.png" in refusal(tmp_path, kind="rgbd")
