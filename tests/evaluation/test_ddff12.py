import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybriddepth_ros.cli import main
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.evaluation.ddff12 import Ddff12
from hybriddepth_ros.evaluation.frames import DisparityTruth
from tests.rgbd_files import one_line

h5py = pytest.importorskip("h5py")

CONSTANT = 1982.0250823695178 / 7317.020641763665 * 1e-3 * 521.4052  # baseline [m] times focal length [px]


def write_ddff12(path: Path, **changes: Any) -> Path:
    """Two stacks of 12x16; slice s of stack n is of the grey 100 n + 10 s."""
    grey = 100 * np.arange(2)[:, None] + 10 * np.arange(10)[None, :]
    stack = np.broadcast_to(grey[:, :, None, None, None], (2, 10, 12, 16, 3)).astype(np.uint8)
    disparity = np.broadcast_to(np.linspace(0.0, 0.3, 16, dtype=np.float32), (2, 12, 16)).copy()
    data = {"stack_val": stack, "disp_val": disparity} | changes
    with h5py.File(path, "w") as file:
        for name, values in data.items():
            if values is not None:
                file.create_dataset(name, data=values, compression="gzip" if values.ndim > 1 else None)
    return path


def refusal(path: Path, index: int = 0, **options: Any) -> str:
    with pytest.raises(HybridDepthError) as caught:
        Ddff12(path, **options).load(index)
    return one_line(caught.value)


def test_five_slices_near_to_far_are_the_published_ones(tmp_path: Path) -> None:
    source = Ddff12(write_ddff12(tmp_path / "d.h5"))
    assert source.names() == ["val_000", "val_001"] and len(source) == 2 and not source.oracle
    frame = source.load(1)
    assert [int(s.image[0, 0, 0]) for s in frame.stack.slices] == [100 + 10 * s for s in (0, 2, 4, 6, 9)]
    expected = np.linspace(0.28, 0.02, 10)[[0, 2, 4, 6, 9]] / CONSTANT
    assert frame.stack.focus_diopters == pytest.approx(expected, rel=1e-6)
    assert 1 / frame.stack.focus_diopters[[0, -1]] == pytest.approx([0.504, 7.06], abs=0.01)
    assert frame.stack.lens is None and frame.reference == 2


def test_ten_slices_are_all_of_them(tmp_path: Path) -> None:
    frame = Ddff12(write_ddff12(tmp_path / "d.h5"), count=10).load(0)
    assert len(frame.stack.slices) == 10 and frame.stack.focus_diopters[9] == pytest.approx(0.02 / CONSTANT)


def test_the_command_evaluates_all_ten_slices_and_says_how_to(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(0)
    near_to_far = np.stack([rng.integers(0, 256, (10, 48, 64, 3), np.uint8)])
    disparity = np.full((1, 48, 64), 0.1, np.float32)
    path = write_ddff12(tmp_path / "d.h5", stack_val=near_to_far, disp_val=disparity)
    command = ["evaluate", str(path), "--out", str(tmp_path / "out"), "-p", "register:=false"]
    limits = ["-p", "max_sigma_diopters:=10", "-p", "max_relative_sigma:=10"]
    assert main([*command, "--slices", "10"]) == 2
    line = capfd.readouterr().err
    assert len(line.splitlines()) == 1
    assert "--slices 10: expected at most 5 of DDFF12 val" in line and "--kind ddff12_10" in line
    assert main([*command, *limits, "--kind", "ddff12_10", "--slices", "10", "--slices", "5"]) == 0
    document = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert document["source"] == "DDFF12 val, 10 slices" and not document["failures"]
    assert [model["settings"]["slices"] for model in document["models"]] == [10, 5]
    capfd.readouterr()
    assert main([*command, *limits, "--slices", "5"]) == 2
    assert "reader.slices: 10 there, 5 now" in capfd.readouterr().err


def test_truth_is_disparity_that_counts_between_both_ends(tmp_path: Path) -> None:
    row = np.array([0.0, 0.02, 0.0201, 0.1, 0.2799, 0.28, np.nan, np.inf] * 2, np.float32)
    path = write_ddff12(tmp_path / "d.h5", disp_val=np.broadcast_to(row, (2, 12, 16)).copy())
    frame = Ddff12(path).load(0)
    assert isinstance(frame.truth, DisparityTruth) and frame.unit == "disparity"
    inside = [False, False, True, True, True, False, False, False]
    assert frame.valid[0].tolist() == inside * 2
    assert frame.depth_m()[0, 3] == pytest.approx(CONSTANT / 0.1)


def test_colours_kept_as_floats_are_the_same(tmp_path: Path) -> None:
    stack = np.full((2, 10, 12, 16, 3), 77.0, np.float32)
    frame = Ddff12(write_ddff12(tmp_path / "d.h5", stack_val=stack)).load(0)
    assert frame.stack.slices[0].image.dtype == np.uint8 and (frame.stack.slices[0].image == 77).all()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"disp_val": None}, "d.h5: expected the data set disp_val of DDFF12, which is missing"),
        ({"disp_val": np.zeros((2, 12, 16), np.float32)}, "val[0]: expected disparities of 0.02 to 0.28"),
        ({"disp_val": np.full((2, 12, 16), np.nan)}, "val[0]: expected disparities of 0.02 to 0.28"),
        (
            {"disp_val": np.ones((2, 12, 15))},
            "d.h5: expected stack_val [N, 10, H, W, 3] and disp_val [N, H, W]",
        ),
        ({"stack_val": np.ones((2, 9, 12, 16, 3))}, "d.h5: expected stack_val [N, 10, H, W, 3]"),
        ({"stack_val": np.ones(3)}, "d.h5: expected stack_val [N, 10, H, W, 3]"),
        ({"stack_val": np.full((2, 10, 12, 16, 3), np.nan)}, "val[0]: expected colours of 0 to 255"),
        ({"stack_val": np.full((2, 10, 12, 16, 3), 300.0)}, "expected colours of 0 to 255, got 300 to 300"),
    ],
)
def test_contents_that_are_no_stacks_are_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    assert expected in refusal(write_ddff12(tmp_path / "d.h5", **changes))


def test_a_damaged_file_is_refused_by_name(tmp_path: Path) -> None:
    path = write_ddff12(
        tmp_path / "d.h5", stack_val=np.random.default_rng(0).integers(0, 256, (2, 10, 12, 16, 3), np.uint8)
    )
    whole = path.read_bytes()
    for content in (b"", b"no HDF5", whole[:3000]):
        path.write_bytes(content)
        assert "d.h5: expected an HDF5 file, could not open it as one" in refusal(path)
    path.write_bytes(whole)
    with h5py.File(path) as file:
        chunk = file["stack_val"].id.get_chunk_info(0)
    path.write_bytes(
        whole[: chunk.byte_offset] + b"\xff" * chunk.size + whole[chunk.byte_offset + chunk.size :]
    )
    assert "val[0]: expected a stack and its disparity, could not read them" in refusal(path)
    assert "absent.h5: expected the HDF5 file of DDFF12, found no file" in refusal(tmp_path / "absent.h5")


def test_splits_and_counts_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    path = write_ddff12(tmp_path / "d.h5")
    assert "expected 5 or 10 slices, got 7" in refusal(path, count=7)
    assert "expected the split train or val, got 'test'" in refusal(path, split="test")
    assert "expected the data set stack_train" in refusal(path, split="train")
