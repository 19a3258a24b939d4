"""The camera `topic`: another node's images on real DDS, and a lens that the node moves."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from rclpy.context import Context
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_msgs.msg import CameraInfo, Image

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_ros.cameras import lens as lenses
from hybriddepth_ros.cameras.lens import FocusLens, LensState
from hybriddepth_ros.cameras.v4l2 import V4L2Camera
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.ros.decoding import image_array
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.messages import camera_info_message, make_header, picture_message
from hybriddepth_ros.ros.topic_camera import TopicSource
from hybriddepth_ros.ros.topic_options import TopicCameraOptions
from tests.ros.helpers import CAMERA, FRAME, HEIGHT, WIDTH, Peer, Running, wait_for

EXPOSURE_NS = 5_000_000
LONGEST_EXPOSURE_NS = 8_000_000


@dataclass(frozen=True)
class ShelfLensOptions:
    reach: float = parameter(4.0, "how far it goes", unit="1/m", minimum=1.0, maximum=9.0)


class ShelfLens(FocusLens):
    """Counts in diopters; moves at once, or so the settle time says."""

    made: list[ShelfLens] = []  # noqa: RUF012 - the one that the node made is what the test looks at

    def __init__(self, options: ShelfLensOptions) -> None:
        self._options = options
        self.moves = [(0, 0.0)]
        self.is_open = False
        ShelfLens.made.append(self)

    def open(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False

    def command(self, position: float) -> int:
        self.moves.append((time.time_ns(), position))
        return time.time_ns()

    @property
    def position_range(self) -> tuple[float, float]:
        return (0.0, self._options.reach)

    def state(self) -> LensState:
        return LensState(self.moves[-1][1], 33.0)

    @property
    def settle_ms(self) -> float:
        return 2.0


@pytest.fixture
def lens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ShelfLens, "made", [])
    monkeypatch.setitem(lenses.LENSES.entries, "shelf", (ShelfLensOptions, ShelfLens))


class Camera:
    """Another node: 50 frames/s, every pixel ten times the focus before and after the exposure, or 255."""

    def __init__(self, peer: Peer, size: tuple[int, int] = (WIDTH, HEIGHT)) -> None:
        self._images = peer.publisher(Image, "camera/image_raw")
        self._infos = peer.publisher(CameraInfo, "camera/camera_info")
        self._size = size
        self.plugged_in = True
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        width, height = self._size
        while not self._stop.wait(0.02 - EXPOSURE_NS * 1e-9):
            start_ns = time.time_ns()
            moves = list(ShelfLens.made[-1].moves) if ShelfLens.made else [(0, 0.0)]
            time.sleep(EXPOSURE_NS * 1e-9)
            during = list(ShelfLens.made[-1].moves) if ShelfLens.made else moves
            if not self.plugged_in or time.time_ns() - start_ns > LONGEST_EXPOSURE_NS:
                continue  # a busy machine: the exposure was longer than the node is told
            value = round(10 * moves[-1][1]) if len(during) == len(moves) else 255
            header = make_header(start_ns, "their_frame")
            self._images.publish(picture_message(np.full((height, width, 3), value, np.uint8), header))
            self._infos.publish(camera_info_message(CAMERA, header))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5.0)


@pytest.fixture
def camera(peer: Peer) -> Iterator[Camera]:
    made = Camera(peer)
    yield made
    made.stop()


def overrides(**more: Any) -> list[Parameter]:
    values = {
        "camera": "topic",
        "focus_diopters": [0.5, 1.0, 2.0],
        "topic.lens": "shelf",
        "topic.focus_in_diopters": True,
        "topic.frame_rate": 50.0,
        "topic.exposure_ms": LONGEST_EXPOSURE_NS * 1e-6,
        **more,
    }
    return [Parameter(name, value=value) for name, value in values.items()]


@pytest.mark.parametrize("mode", ["stop_and_go", "free_running"])
def test_another_node_s_images_become_slices_at_the_focus_that_they_show(
    context: Context, peer: Peer, lens: None, camera: Camera, mode: str
) -> None:
    received = peer.listen(FocalSlice, "slice", 1000)
    with Running(FocusSweepNode, context, parameter_overrides=overrides(sweep_mode=mode)) as node:
        node.start()
        assert wait_for(lambda: len(received) > 40, 30.0)
        assert ShelfLens.made[0].is_open
    for message in received:
        shown = {int(value) for value in np.unique(image_array(message.image))}
        assert shown == {round(10 * message.focus.focus_diopters)}
        assert message.header.frame_id == FRAME
        assert message.camera_info.k[0] == CAMERA.fx and message.focus.settled
    assert {message.focus.focus_diopters for message in received} == {0.5, 1.0, 2.0}
    assert not ShelfLens.made[-1].is_open


def test_silence_on_the_topic_is_told_and_the_sweep_goes_on_with_its_images(
    context: Context, peer: Peer, lens: None, camera: Camera
) -> None:
    newest = peer.diagnostics("focus_sweep")
    received = peer.listen(FocalSlice, "slice")
    with Running(FocusSweepNode, context, parameter_overrides=overrides(**{"topic.timeout": 0.5})) as node:
        node.start()
        assert wait_for(lambda: len(received) > 5, 30.0)
        camera.plugged_in = False
        assert wait_for(lambda: newest() and newest().level == b"\x02", 20.0)
        assert "no image on camera/image_raw" in newest().message or "got none within" in newest().message
        received.clear()
        camera.plugged_in = True
        # a warning at most: the machine may be too busy for the rate
        assert wait_for(lambda: received and "slices/s" in newest().message, 20.0)


def test_what_is_missing_fails_configure_with_its_name(context: Context, peer: Peer, lens: None) -> None:
    cases = [
        (overrides(**{"topic.lens": ""}), "topic.lens: expected one of "),
        (overrides(**{"topic.timeout": 0.2}), "expected messages on camera/image_raw, got none within 0.2 s"),
    ]
    for given, reason in cases:
        with Running(FocusSweepNode, context, parameter_overrides=given) as node:
            assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
            assert reason in node.failure
    assert not ShelfLens.made[-1].is_open


def test_intrinsics_of_another_size_fail_configure(context: Context, peer: Peer, lens: None) -> None:
    camera = Camera(peer, (WIDTH * 2, HEIGHT))
    with Running(FocusSweepNode, context, parameter_overrides=overrides()) as node:
        assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
        assert "camera/camera_info: expected a size of 64x24 px" in node.failure
    camera.stop()


def test_an_exposure_that_is_told_too_long_only_costs_frames(
    context: Context, peer: Peer, lens: None, camera: Camera
) -> None:
    """The images arrive before it would have ended."""
    received = peer.listen(FocalSlice, "slice", 1000)
    with Running(
        FocusSweepNode, context, parameter_overrides=overrides(**{"topic.exposure_ms": 400.0})
    ) as node:
        node.start()
        assert wait_for(lambda: len(received) > 10, 20.0)
    for message in received:
        assert set(np.unique(image_array(message.image))) == {round(10 * message.focus.focus_diopters)}


def test_a_frame_rate_that_the_stamps_belie_is_told(
    context: Context, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Frames each 20 ms of which every fifth is lost."""
    for told_hz, problems in ((50.0, 0), (30.0, 2)):
        with Running(FocusSweepNode, context) as node:
            source = TopicSource(node, TopicCameraOptions(frame_rate=told_hz), lambda: False)
            said: list[tuple[str, str]] = []
            monkeypatch.setattr(node, "problem", lambda *what, said=said: said.append(what))
            source._open, source._size = True, (WIDTH, HEIGHT)
            for number in (number for number in range(80) if number % 5):
                stamp_ns = 10**18 + number * 20_000_000
                picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
                source._on_image(picture_message(picture, make_header(stamp_ns, "their_frame")))
                source.read()
        assert len(said) == problems
        for cause, text in said:
            assert cause == "topic.frame_rate"
            assert text.startswith(
                "expected an image each 33.3 ms (30 Hz), by their stamps one comes each 20.0"
            )


def test_the_lens_has_parameters_of_its_own(context: Context, lens: None) -> None:
    given = overrides(**{"shelf_lens.reach": 1.5, "topic.timeout": 0.1})
    with Running(FocusSweepNode, context, parameter_overrides=given) as node:
        assert node.parameters[ShelfLensOptions].reach == 1.5


def test_the_camera_v4l2_takes_the_same_lens_with_the_same_parameters(context: Context, lens: None) -> None:
    chosen = {"camera": "v4l2", "v4l2.lens": "shelf", "v4l2.focus_in_diopters": True}
    given = overrides(**chosen, **{"shelf_lens.reach": 1.5})
    with Running(FocusSweepNode, context, parameter_overrides=given) as node:
        made = node._make_camera()
    assert isinstance(made, V4L2Camera) and made.parts[1].position_range == (0.0, 1.5)


def test_a_lens_that_nobody_knows_is_named() -> None:
    with pytest.raises(ParameterError, match=r"lens: expected one of .*optotune.*, got 'optotun'; did you"):
        TopicCameraOptions(lens="optotun")
