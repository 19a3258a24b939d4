from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.evaluation.protocols import (
    ProtocolCamera,
    load_protocol,
    parse_protocol,
    shipped_protocols,
)
from hybriddepth_ros.focal_stack import FocalSlice, FocalStack
from hybriddepth_ros.optics import blur_px_per_diopter

SWEEP = {"count": 5, "farthest_diopters": 0.12, "nearest_diopters": 1.4}
CAMERA = {"width": 64, "height": 48, "blur_px_per_diopter": 13.7}
LENS = {"focal_length_mm": 50.0, "f_number": 8.0, "pixel_pitch_um": 12.0}


def document(**changes: Any) -> dict[str, Any]:
    return {"camera": CAMERA, "sweep": SWEEP} | changes


def refusal(content: Any) -> str:
    with pytest.raises(ParameterError) as caught:
        parse_protocol(content, "p", "p.yaml")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "slices", "far", "near", "blur"),
    [
        ("rooms", 5, 0.12, 1.4, 13.7),
        ("rooms_no_lens", 5, 0.12, 1.4, 13.7),
        ("rooms_handheld", 5, 0.12, 1.4, 13.7),
        ("tables", 5, 0.5, 2.9, 13.7),
        ("tables_fine", 10, 0.3, 3.3, 4.6),
    ],
)
def test_shipped_sweep_is_even_in_diopters(
    name: str, slices: int, far: float, near: float, blur: float
) -> None:
    protocol = load_protocol(name)
    focus = protocol.sweep.fixed_diopters
    assert focus is not None and len(focus) == slices and not protocol.oracle
    assert focus == pytest.approx([far + (near - far) * i / (slices - 1) for i in range(slices)])
    assert blur_px_per_diopter(protocol.camera.lens) == pytest.approx(blur)
    assert (protocol.camera.width, protocol.camera.height) == (640, 480)
    assert protocol.camera.lens_known == (name != "rooms_no_lens")
    assert (protocol.motion is not None) == (name == "rooms_handheld")


def test_the_published_protocols_are_oracles_with_the_lens_and_the_window_of_their_papers() -> None:
    nyu, arkit = load_protocol("nyu_published"), load_protocol("arkitscenes_published")
    for protocol in (nyu, arkit):
        assert protocol.oracle and protocol.renderer == "published" and protocol.window == 7
        assert protocol.sweep.fixed_diopters is None and protocol.exposure is None
    assert vars(nyu.camera.lens) == LENS
    assert nyu.frames.depth_m == (1e-3, 10.0)
    assert arkit.camera.lens.pixel_pitch_um == pytest.approx(3.1e3 / 560)


def test_every_shipped_protocol_is_known_here() -> None:
    rooms = {"rooms", "rooms_no_lens", "rooms_handheld"}
    assert set(shipped_protocols()) == rooms | {
        "tables",
        "tables_fine",
        "nyu_published",
        "arkitscenes_published",
    }


@given(blur=st.floats(0.1, 200.0), width=st.integers(16, 4000))
def test_a_camera_known_by_its_blur_gets_a_lens_that_blurs_as_much(blur: float, width: int) -> None:
    lens = ProtocolCamera(width=width, blur_px_per_diopter=blur).lens
    assert blur_px_per_diopter(lens) == pytest.approx(blur, rel=1e-9)
    assert blur_px_per_diopter(lens, 4.0) == pytest.approx(blur, rel=5e-3)


def test_a_list_of_focus_positions_is_taken_as_it_is() -> None:
    sweep = parse_protocol(document(sweep={"focus_diopters": [2.0, 0.1, 1]}), "p", "p.yaml").sweep
    assert sweep.fixed_diopters == (2.0, 0.1, 1.0)


@given(focus=st.lists(st.integers(0, 10), min_size=2, max_size=6))
def test_every_sweep_that_is_taken_makes_a_stack(focus: list[int]) -> None:
    diopters = [0.5 * value for value in focus]
    if len({*focus}) < len(focus):
        assert "expected each slice at another focus" in refusal(document(sweep={"focus_diopters": diopters}))
    else:
        sweep = parse_protocol(document(sweep={"focus_diopters": diopters}), "p", "p.yaml").sweep
        image = np.zeros((4, 4, 3), np.uint8)
        FocalStack(tuple(FocalSlice(image, value) for value in sweep.fixed_diopters or ()))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ([], "p.yaml: expected camera and sweep, got list"),
        (document(sweeep={}), "p.yaml: unknown key 'sweeep'; did you mean sweep?"),
        (document(camera={"blur_px_per_dioptre": 3}), "did you mean blur_px_per_diopter?"),
        (document(sweep={"from_thruth": {}}), "did you mean from_truth?"),
        (document(sweep={"from_truth": {"counts": 3}}), "p.yaml: sweep: from_truth: unknown key 'counts'"),
        (document(sweep={"from_truth": {}, "count": 3}), "expected from_truth alone"),
        ({"camera": CAMERA}, "p.yaml: expected sweep, which is missing"),
        (document(camera={"width": 64}), "p.yaml: camera: expected either blur_px_per_diopter or"),
        (document(camera=CAMERA | LENS), "p.yaml: camera: expected either"),
        (document(camera={"focal_length_mm": 5.0}), "p.yaml: camera: expected either"),
        (document(camera=CAMERA | {"width": 64.5}), "expected a whole number, got 64.5"),
        (document(camera=CAMERA | {"width": 1e9}), "expected 16 to 8192 px"),
        (document(camera=None), "p.yaml: camera: expected width"),
        (document(sweep={}), "p.yaml: sweep: expected one of"),
        (document(sweep={"focus_diopters": [1.0]}), "p.yaml: sweep: expected at least 2 slices"),
        (document(sweep={"focus_diopters": ["far", 1]}), "expected a number, got 'far'"),
        (
            document(sweep={"focus_diopters": [1, 2, 1]}),
            "p.yaml: sweep: expected each slice at another focus",
        ),
        (document(sweep={"focus_diopters": [1, 1.00005]}), "another focus, got 1 and 1.00005 1/m"),
        (
            document(sweep=SWEEP | {"nearest_diopters": 0.1201}),
            "p.yaml: sweep: expected each slice at another",
        ),
        (document(sweep=SWEEP | {"nearest_diopters": 0.1}), "farthest_diopters below nearest_diopters"),
        (document(renderer="thinlens"), "expected one of thin_lens, published"),
        (document(renderer="published"), "p.yaml: renderer: published needs focal_length_mm"),
        (document(renderer="published", camera=LENS, motion={"step_px": 1}), "has no exposure, motion"),
        (document(window=6), "expected an odd number of pixels, got 6"),
        (document(frames={"depth_m": [3, 1]}), "p.yaml: frames: depth_m: expected two ascending"),
        (document(exposure={"gain": float("nan")}), "expected a finite number"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(content: Any, expected: str) -> None:
    assert expected in refusal(content)


def test_a_file_is_loaded_and_named_when_it_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(document(seed=3)))
    assert load_protocol(path).name == "mine" and load_protocol(path).seed == 3
    path.write_text("camera: [")
    with pytest.raises(ParameterError, match=r"mine\.yaml: expected YAML"):
        load_protocol(path)
    with pytest.raises(ParameterError, match=r"absent\.yaml: expected a file that can be read"):
        load_protocol(tmp_path / "absent.yaml")
    with pytest.raises(ParameterError, match="did you mean tables"):
        load_protocol("table")
