"""Bags under evaluation: estimated anew, recorded, live give the same; what is wrong is one line."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image

from hybriddepth_msgs.msg import FocalSlice
from hybriddepth_ros.cli import main
from hybriddepth_ros.errors import DatasetError, HybridDepthError
from hybriddepth_ros.estimator import load_estimator
from hybriddepth_ros.evaluation.bag_frames import (
    COMPRESSED_SLICE_TYPE,
    BagSource,
    RecordedSource,
    is_bag,
)
from hybriddepth_ros.ros.bag import bag_counts, message_definition
from hybriddepth_ros.ros.decoding import from_time
from hybriddepth_ros.ros.messages import (
    camera_intrinsics,
    compressed_slice_message,
    image_array,
    to_time,
)
from hybriddepth_ros.ros.recorded_graph import RecordedGraph
from hybriddepth_ros.ros.replayed import ReplayedGraph
from hybriddepth_ros.ros.spin import spinning_node
from tests.ros.helpers import wait_for

pytestmark = pytest.mark.ros

CAMERA = {
    "simulated.width": 320,
    "simulated.height": 240,
    "simulated.loop_frames": 10,
    "simulated.frame_rate": 10.0,
}
SLICE, COMPRESSED, TRUTH, DEPTH = (
    "/focus_camera/slice",
    "/focus_camera/slice/compressed",
    "/focus_camera/ground_truth/depth",
    "/focus_camera/depth/image_rect",
)


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few seconds of the demo's graph, with smaller pictures."""
    path = tmp_path_factory.mktemp("recorded") / "bag"
    overrides = {"focus_sweep": CAMERA, "depth": {"model": "classical"}}
    graph = RecordedGraph(path, overrides, "focus_camera", threading.Event(), lambda done, total: None)
    with graph:
        assert wait_for(lambda: graph.counts[DEPTH].written >= 3, 120.0)
    return path


Message = tuple[str, bytes]  # of a topic


def rewritten(bag: Path, out: Path, change: Callable[[str, bytes], Message | None]) -> Path:
    """A copy of a bag with each message's topic and bytes changed, or left out."""

    def changed(topic: str, data: bytes, kind: str) -> list[tuple[str, bytes, str]]:
        found = change(topic, data)
        return [] if found is None else [(*found, kind)]

    return copied(bag, out, changed)


def copied(bag: Path, out: Path, change: Callable[[str, bytes, str], list[tuple[str, bytes, str]]]) -> Path:
    """A copy of a bag with any number of messages, (topic, bytes, type), in place of each."""
    from rosbags.highlevel import AnyReader
    from rosbags.rosbag2 import StoragePlugin, Writer

    writer = Writer(out, version=9, storage_plugin=StoragePlugin.MCAP)
    with AnyReader([bag]) as reader, writer:
        made: dict[tuple[str, str], Any] = {}
        for connection, received_ns, data in reader.messages():
            for topic, written, kind in change(connection.topic, data, connection.msgtype):
                key = (topic, kind)
                if key not in made:
                    text, type_hash = message_definition(kind)
                    made[key] = writer.add_connection(topic, kind, msgdef=text, rihs01=type_hash)
                writer.write(made[key], received_ns, written)
    return out


def compressed(bag: Path, out: Path, codec: str, keep_raw: bool = False) -> Path:
    """A copy of a bag whose slices, or further ones, are compressed as the sweep node does it."""

    def change(topic: str, data: bytes, kind: str) -> list[tuple[str, bytes, str]]:
        as_it_is = [(topic, data, kind)]
        if topic != SLICE:
            return as_it_is
        raw = deserialize_message(data, FocalSlice)
        image, camera = image_array(raw.image), camera_intrinsics(raw.camera_info)
        assert camera is not None
        made = serialize_message(compressed_slice_message(image, camera, raw.focus, codec))
        return [*(as_it_is if keep_raw else []), (COMPRESSED, made, COMPRESSED_SLICE_TYPE)]

    return copied(bag, out, change)


def without(topic: str) -> Callable[[str, bytes], tuple[str, bytes] | None]:
    return lambda name, data: None if name == topic else (name, data)


def test_offline_recorded_and_live_give_the_same_depth(bag: Path) -> None:
    source, recorded = BagSource(bag), RecordedSource(bag)
    # A recorder on a busy machine may miss an image: then there is no sigma.
    whole = [n for i, n in enumerate(recorded.names()) if np.isfinite(recorded.load(i).reading.sigma).any()]
    common = sorted({*source.names()} & {*whole})
    assert len(common) >= 2
    estimator = load_estimator("classical", "cpu")
    with ReplayedGraph(source, {"model": "classical", "device": "cpu"}) as graph:
        for name in common[:3]:
            frame = source.load(source.names().index(name))
            offline = estimator(frame.stack, frame.reference)
            of_then = recorded.load(recorded.names().index(name))
            subject, live = graph.judge(frame)
            for reading in (of_then.reading, live):
                assert np.array_equal(reading.depth, offline.depth, equal_nan=True)
                assert np.array_equal(reading.sigma, offline.sigma, equal_nan=True)
            assert np.array_equal(subject.depth_m(), of_then.subject.depth_m(), equal_nan=True)
            assert np.isfinite(offline.depth).mean() > 0.5
            error = np.abs(offline.depth - frame.depth_m()) / frame.depth_m()
            assert np.nanmedian(error) < 0.08


def test_frames_of_a_bag_have_the_reference_that_the_node_takes(bag: Path) -> None:
    for rule, place in (("first", 0), ("last", 4)):
        source = BagSource(bag, reference=rule)
        frame = source.load(0)
        assert frame.reference == place == len(frame.stack.slices) - 5 + place
        assert frame.stack.slices[place].stamp_ns == int(frame.name)
        assert not frame.oracle and frame.unit == "m"
    focus = BagSource(bag).load(0).stack.focus_diopters
    assert np.ptp(focus) > 1.0


def test_the_command_scores_a_bag_in_all_three_ways(bag: Path, tmp_path: Path) -> None:
    means = []
    model = ["--model", "classical"]  # with which the bag was recorded
    for mode in (model, ["--recorded"], ["--live", *model]):
        out = tmp_path / "".join(["out", *mode])
        assert main(["evaluate", str(bag), "--out", str(out), "--pictures", "1", *mode]) == 0
        document = json.loads((out / "metrics.json").read_text())
        assert document["oracle_focus"] is False and not document["failures"]
        assert str(bag) not in (out / "metrics.json").read_text() + (out / "report.html").read_text()
        rows = {row["frame"]: row["abs_rel"] for row in document["per_frame"]}
        means.append(rows)
    offline, recorded, live = means
    assert offline.keys() == live.keys() and recorded.keys() & offline.keys()
    assert live == pytest.approx(offline)
    for frame in recorded.keys() & offline.keys():
        assert recorded[frame] == pytest.approx(offline[frame])


def test_compressed_slices_of_a_bag_are_read_where_there_are_no_others(bag: Path, tmp_path: Path) -> None:
    raw, png, jpeg = (
        BagSource(path)
        for path in (
            bag,
            compressed(bag, tmp_path / "png", "png"),
            compressed(bag, tmp_path / "jpeg", "jpeg"),
        )
    )
    assert png.compressed and jpeg.compressed and not raw.compressed
    assert png.names() == jpeg.names() == raw.names()
    estimator = load_estimator("classical", "cpu")
    errors = []
    for source in (raw, png, jpeg):
        frame = source.load(0)
        estimate = estimator(frame.stack, frame.reference)
        errors.append(np.nanmedian(np.abs(estimate.depth / frame.depth_m() - 1.0)))
    # PNG: every bit, and so the same to the last digit; JPEG nearly.
    for one, other in zip(raw.load(0).stack.slices, png.load(0).stack.slices, strict=True):
        assert np.array_equal(one.image, other.image) and one.camera == other.camera
    assert errors[1] == errors[0] and errors[2] != errors[0]
    assert errors[2] == pytest.approx(errors[0], abs=0.01)


def test_of_a_bag_with_both_kinds_the_raw_slices_are_read(bag: Path, tmp_path: Path) -> None:
    both = BagSource(compressed(bag, tmp_path / "both", "jpeg", keep_raw=True))
    assert not both.compressed and both.slice_topic == SLICE
    for one, other in zip(BagSource(bag).load(0).stack.slices, both.load(0).stack.slices, strict=True):
        assert np.array_equal(one.image, other.image)


def test_the_command_scores_a_compressed_bag_offline_and_live_alike(bag: Path, tmp_path: Path) -> None:
    sent = compressed(bag, tmp_path / "jpeg", "jpeg")
    found = []
    for mode in ([], ["--live"]):
        out = tmp_path / "".join(["out", *mode])
        command = ["evaluate", str(sent), "--out", str(out), "--model", "classical", "--frames", "2", *mode]
        assert main(command) == 0
        document = json.loads((out / "metrics.json").read_text())
        assert not document["failures"]
        found.append({row["frame"]: row["abs_rel"] for row in document["per_frame"]})
    assert len(found[0]) == 2 and found[1] == pytest.approx(found[0])


def test_a_damaged_compressed_slice_is_passed_over_and_counted(bag: Path, tmp_path: Path) -> None:
    sent, broken = compressed(bag, tmp_path / "png", "png"), bytearray()

    def damage(topic: str, data: bytes) -> Message:
        if topic == COMPRESSED and not broken:
            middle = len(data) // 2
            broken.extend(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
            return topic, bytes(broken)
        return topic, data

    source = BagSource(rewritten(sent, tmp_path / "broken", damage))
    assert source.dropped["slice refused"] == 1


def test_live_results_say_which_weights_the_node_ran(bag: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = ["evaluate", str(bag), "--out", str(out), "--live", "--frames", "1", "--model", "sweepnet"]
    assert main(command) == 0
    (model,) = json.loads((out / "metrics.json").read_text())["models"]
    assert model["settings"]["weights"].startswith("sweepnet@")


WITHOUT_ROS = """
import sys
for name in ("rclpy", "sensor_msgs", "builtin_interfaces", "hybriddepth_msgs"):
    sys.modules[name] = None
from hybriddepth_ros.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_bag_is_scored_where_there_is_no_ros(bag: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(bag), "--frames", "1", "--pictures", "0", "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_ROS, *command], timeout=900, check=False)
    assert done.returncode == 0


def test_a_sweep_that_the_node_refuses_is_one_bad_frame(bag: Path) -> None:
    source = BagSource(bag)
    graph = ReplayedGraph(source, {"max_residual": 0.0001, "device": "cpu"})
    with graph, pytest.raises(HybridDepthError, match="gave no depth: stacks refused"):
        graph.judge(source.load(0))


def test_an_image_that_cannot_be_used_is_one_bad_frame_and_the_replay_goes_on(bag: Path) -> None:
    source = BagSource(bag)
    with ReplayedGraph(source, {"device": "cpu"}, timeout_s=60.0) as graph, spinning_node("stranger") as node:
        stranger = node.create_publisher(Image, DEPTH, 1)
        assert wait_for(stranger.get_subscription_count)
        publish = graph._slices.publish
        broken = Image(height=1, width=1, step=1, encoding="mono8")
        broken.header.stamp = to_time(int(source.names()[0]))

        def with_a_broken_image(message: Any) -> None:
            stranger.publish(broken)
            time.sleep(0.2)
            publish(message)

        graph._slices.publish = with_a_broken_image  # type: ignore[method-assign]
        with pytest.raises(HybridDepthError, match=r"depth/image_rect: .*mono8"):
            graph.judge(source.load(0))
        graph._slices.publish = publish  # type: ignore[method-assign]
        _, reading = graph.judge(source.load(1))
        assert np.isfinite(reading.depth).any()


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Runs `evaluate`; the one line with which it ends."""

    def run(source: Path, *options: str) -> str:
        capfd.readouterr()
        assert main(["evaluate", str(source), "--out", str(tmp_path / "refused"), *options]) == 2
        line = capfd.readouterr().err
        assert len(line.splitlines()) == 1 and "Traceback" not in line, line
        assert not (tmp_path / "refused").exists()
        return line

    yield run


def test_a_bag_without_slices_or_truth_names_topic_and_expectation(
    bag: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    no_slices = rewritten(bag, tmp_path / "no_slices", without(SLICE))
    line = refused(no_slices)
    assert str(no_slices) in line and f"expected slices on {SLICE}" in line and DEPTH in line
    no_truth = rewritten(bag, tmp_path / "no_truth", without(TRUTH))
    assert f"expected a ground-truth depth on {TRUTH}" in refused(no_truth)
    assert f"expected a ground-truth depth on {TRUTH}" in refused(no_truth, "--recorded")
    no_depth = rewritten(bag, tmp_path / "no_depth", without(DEPTH))
    assert f"expected recorded depth on {DEPTH}" in refused(no_depth, "--recorded")
    assert "/elsewhere/slice or /elsewhere/slice/compressed" in refused(bag, "--namespace", "elsewhere")


def test_a_model_beside_recorded_is_refused_as_none_runs(bag: Path, refused: Callable[..., str]) -> None:
    line = refused(bag, "--recorded", "--model", "classical")
    assert "--model: expected not with --recorded" in line


def test_a_topic_of_another_type_names_both_types(
    bag: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    def swap(topic: str, data: bytes) -> tuple[str, bytes] | None:
        if topic == SLICE:
            return None
        return (SLICE if topic == "/focus_camera/image_raw" else topic), data

    line = refused(rewritten(bag, tmp_path / "swapped", swap))
    assert SLICE in line and "hybriddepth_msgs/msg/FocalSlice" in line and "sensor_msgs/msg/Image" in line


def test_a_type_that_nobody_knows_is_told(bag: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(bag, tmp_path / "unknown")
    metadata = tmp_path / "unknown" / "metadata.yaml"
    mcap = tmp_path / "unknown" / "bag.mcap"
    for file in (metadata, mcap):
        data = file.read_bytes().replace(
            b"hybriddepth_msgs/msg/FocalSlice", b"hybriddepth_msgs/msg/FocalSpice"
        )
        file.write_bytes(data)
    assert str(tmp_path / "unknown") in refused(tmp_path / "unknown")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.999])
def test_a_truncated_bag_is_one_line(
    bag: Path, tmp_path: Path, refused: Callable[..., str], share: float
) -> None:
    shutil.copytree(bag, tmp_path / "cut")
    file = tmp_path / "cut" / "bag.mcap"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    assert str(tmp_path / "cut") in refused(tmp_path / "cut")


def test_a_bag_without_metadata_is_one_line(bag: Path, tmp_path: Path, refused: Callable[..., str]) -> None:
    shutil.copytree(bag, tmp_path / "bare")
    (tmp_path / "bare" / "metadata.yaml").unlink()
    assert is_bag(tmp_path / "bare")
    assert "metadata.yaml" in refused(tmp_path / "bare")
    assert "nothing" in refused(tmp_path / "nowhere.mcap")


def test_slices_with_a_broken_image_are_passed_over_and_counted(bag: Path, tmp_path: Path) -> None:
    broken = bytearray()

    def damage(topic: str, data: bytes) -> tuple[str, bytes]:
        if topic == SLICE and not broken:
            broken.extend(data.replace(b"rgb8", b"rgb9"))
            return topic, bytes(broken)
        return topic, data

    source = BagSource(rewritten(bag, tmp_path / "broken", damage))
    assert source.dropped["slice refused"] == 1
    assert len(source) == len(BagSource(bag)) - 1 or source.dropped.get("incomplete sweep")


def test_a_recorded_frame_whose_truth_holds_nowhere_is_a_bad_frame(bag: Path, tmp_path: Path) -> None:
    def blank(topic: str, data: bytes) -> tuple[str, bytes]:
        pixels = 4 * CAMERA["simulated.width"] * CAMERA["simulated.height"]
        return topic, data[:-pixels] + bytes(pixels) if topic == TRUTH else data

    source = RecordedSource(rewritten(bag, tmp_path / "blank", blank))
    with pytest.raises(DatasetError, match="expected a ground truth that holds somewhere, got none"):
        source.load(0)


def test_the_last_sweep_of_a_camera_that_counts_none_is_a_frame(bag: Path, tmp_path: Path) -> None:
    frame = BagSource(bag).load(0)
    stamps = {item.stamp_ns for item in frame.stack.slices}

    def alone(topic: str, data: bytes) -> tuple[str, bytes] | None:
        if topic != SLICE:
            return topic, data
        message = deserialize_message(data, FocalSlice)
        if from_time(message.header.stamp) not in stamps:
            return None
        message.focus.slice_count = 0
        return topic, serialize_message(message)

    source = BagSource(rewritten(bag, tmp_path / "alone", alone))
    assert source.names() == [frame.name] and len(source.load(0).stack.slices) == len(stamps)


def test_truths_of_other_stamps_are_no_truths(bag: Path, tmp_path: Path) -> None:
    def shift(topic: str, data: bytes) -> tuple[str, bytes]:
        if topic != TRUTH:
            return topic, data
        nanosec = int.from_bytes(data[8:12], "little") ^ 1
        return topic, data[:8] + nanosec.to_bytes(4, "little") + data[12:]

    shifted = rewritten(bag, tmp_path / "shifted", shift)
    with pytest.raises(DatasetError, match=r"found none \(.*sweep without a ground truth"):
        BagSource(shifted)
    with pytest.raises(DatasetError, match="with the stamp of a depth image"):
        RecordedSource(shifted)
    assert bag_counts(shifted)[TRUTH] == bag_counts(bag)[TRUTH]
