"""Bags as sources of frames: their slices, assembled per sweep, or the depth that was recorded with them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hybriddepth_ros.errors import DatasetError, HybridDepthError, MessageError
from hybriddepth_ros.estimator import reference_index_of
from hybriddepth_ros.evaluation.frames import EvaluationFrame, MetricTruth
from hybriddepth_ros.evaluation.metrics import is_depth
from hybriddepth_ros.evaluation.recording import (
    COMPRESSED_SLICE,
    DEPTH,
    SCENE,
    SIGMA,
    SLICE,
    TRUTH,
    pixels,
)
from hybriddepth_ros.evaluation.scoring import Reading, Subject, texture
from hybriddepth_ros.ros.assembler import MAX_SLICES, StackAssembler
from hybriddepth_ros.ros.bag import BagMessage, bag_types, read_bag, read_stamps
from hybriddepth_ros.ros.compressed import check_compressed_slice, compressed_focal_slice
from hybriddepth_ros.ros.decoding import (
    check_place,
    check_slice,
    depth_array,
    focal_slice,
    stack_of_read,
)

SLICE_TYPE = "hybriddepth_msgs/msg/FocalSlice"
COMPRESSED_SLICE_TYPE = "hybriddepth_msgs/msg/CompressedFocalSlice"
IMAGE_TYPE = "sensor_msgs/msg/Image"
_BAG_SUFFIXES = (".mcap", ".db3", ".bag")


def is_bag(path: Path) -> bool:
    """Whether a path is to be read as a bag: a bag's file, or a folder with its metadata or such a file."""
    if not os.path.isdir(path):  # unlike Path's, also false for a name that is too long to be one
        return path.suffix in _BAG_SUFFIXES
    try:
        files = list(path.iterdir())
    except OSError as error:
        raise DatasetError(f"{path}: expected a folder that can be read: {error.strerror}") from None
    return any(file.name == "metadata.yaml" or file.suffix in _BAG_SUFFIXES for file in files)


@dataclass(frozen=True)
class _Slice:
    """Where a slice is in the bag, and its focus [1/m]."""

    stamp_ns: int
    received_ns: int
    focus_diopters: float


@dataclass(frozen=True)
class _Sweep:
    """A whole sweep; truth_ns: when the truth of its reference slice was received."""

    slices: tuple[_Slice, ...]
    reference: int
    truth_ns: int

    @property
    def stamp_ns(self) -> int:
        """That of the reference slice, and so of the depth."""
        return self.slices[self.reference].stamp_ns


class BagSource:
    """The sweeps of a bag that are whole and have a ground truth, as a FrameSource.

    A sweep becomes a stack as in the depth node: slices that it would refuse, or drop because the lens was
    moving, are passed over, and so are sweeps of which slices are missing. reference: see EstimatorOptions.
    Compressed slices are read where there are no others (`compressed`).
    """

    oracle = False

    def __init__(
        self,
        path: Path,
        namespace: str = "focus_camera",
        truth_topic: str = TRUTH,
        reference: str = "middle",
    ) -> None:
        self.path = path
        self.name = path.resolve().name
        raw, compressed = (in_namespace(topic, namespace) for topic in (SLICE, COMPRESSED_SLICE))
        self.truth_topic = in_namespace(truth_topic, namespace)
        self.dropped: dict[str, int] = {}  # cause -> slices, or sweeps, that were passed over
        types = bag_types(path)
        self.compressed = raw not in types and compressed in types
        self.slice_topic = compressed if self.compressed else raw
        self.options = {"slices": COMPRESSED_SLICE} if self.compressed else {}
        slice_type = COMPRESSED_SLICE_TYPE if self.compressed else SLICE_TYPE
        _check_topic(path, self.slice_topic, slice_type, types, "slices", f" or {compressed}")
        _check_topic(path, self.truth_topic, IMAGE_TYPE, types, "a ground-truth depth")
        truths = read_stamps(path, [self.truth_topic]).get(self.truth_topic, {})
        self._sweeps = []
        for sweep in self._assembled():
            reference_at = reference_index_of([s.focus_diopters for s in sweep], reference)
            stamp_ns = sweep[reference_at].stamp_ns
            if stamp_ns in truths:
                self._sweeps.append(_Sweep(tuple(sweep), reference_at, truths[stamp_ns]))
            else:
                self._drop("sweep without a ground truth", 1)
        if not self._sweeps:
            found = ", ".join(f"{cause}: {count}" for cause, count in self.dropped.items()) or "none at all"
            raise DatasetError(
                f"{path}: expected whole sweeps on {self.slice_topic} with a ground truth of the {reference} "
                f"slice's stamp on {self.truth_topic}, found none ({found})"
            )

    def __len__(self) -> int:
        return len(self._sweeps)

    def names(self) -> list[str]:
        """The stamps [ns] of the reference slices."""
        return [str(sweep.stamp_ns) for sweep in self._sweeps]

    def load(self, index: int) -> EvaluationFrame:
        """A sweep with its ground truth."""
        sweep, name = self._sweeps[index], self.names()[index]
        slices, truth_message = self._read(sweep)
        try:
            read = compressed_focal_slice if self.compressed else focal_slice
            recorded = [message.message for message in slices]
            stack = stack_of_read([read(each) for each in recorded], recorded, name=name)
            truth = depth_array(truth_message.message)
        except MessageError as error:
            raise DatasetError(f"{self.path}: {name}: {error}") from None
        valid = is_depth(truth)
        return EvaluationFrame(name, stack, MetricTruth(truth), valid, reference=sweep.reference)

    def messages(self, name: str) -> list[BagMessage]:
        """The slices of the sweep of this name, in the order of exposure."""
        return self._read(self._sweeps[self.names().index(name)])[0]

    def _read(self, sweep: _Sweep) -> tuple[list[BagMessage], BagMessage]:
        """Slices, and the truth of the reference slice."""
        received = [*(s.received_ns for s in sweep.slices), sweep.truth_ns]
        stamps = [s.stamp_ns for s in sweep.slices]
        topics = [self.slice_topic, self.truth_topic]
        found = {
            (m.topic, m.stamp_ns): m
            for m in read_bag(self.path, topics, stamps, (min(received), max(received)))
        }
        truth = found[self.truth_topic, sweep.stamp_ns]
        return [found[self.slice_topic, stamp] for stamp in stamps], truth

    def _assembled(self) -> list[list[_Slice]]:
        assembler: StackAssembler[_Slice] = StackAssembler(self._drop)
        stacks = []
        for message in read_bag(self.path, [self.slice_topic]):
            focus = message.message.focus
            try:
                if self.compressed:
                    check_compressed_slice(message.message)
                else:
                    check_slice(message.message)
                check_place(focus, MAX_SLICES)
            except HybridDepthError:
                self._drop("slice refused", 1)
                continue
            if not focus.settled:
                self._drop("lens moving", 1)
                continue
            item = _Slice(message.stamp_ns, message.received_ns, float(focus.focus_diopters))
            place = (focus.sweep_id, focus.slice_index, focus.slice_count, message.stamp_ns)
            stacks += assembler.add(*place, item)
        stacks += assembler.finish()
        return [stack for stack in stacks if len(stack) > 1]

    def _drop(self, cause: str, count: int) -> None:
        self.dropped[cause] = self.dropped.get(cause, 0) + count


@dataclass(frozen=True, eq=False)
class RecordedFrame:
    """A depth image of a bag and its ground truth."""

    subject: Subject
    reading: Reading


class RecordedSource:
    """The depth images of a bag with a ground truth of the same stamp; sigma and scene if they are there."""

    def __init__(self, path: Path, namespace: str = "focus_camera", truth_topic: str = TRUTH) -> None:
        self.path = path
        self.name = path.resolve().name
        self._topic = {name: in_namespace(name, namespace) for name in (DEPTH, SIGMA, SCENE)}
        self._topic[TRUTH] = in_namespace(truth_topic, namespace)
        types = bag_types(path)
        _check_topic(path, self._topic[DEPTH], IMAGE_TYPE, types, "recorded depth")
        _check_topic(path, self._topic[TRUTH], IMAGE_TYPE, types, "a ground-truth depth")
        self._received = read_stamps(path, list(self._topic.values()))  # topic -> stamp -> received
        truths = self._received.get(self._topic[TRUTH], {})
        self._stamps = sorted(self._received.get(self._topic[DEPTH], {}).keys() & truths.keys())
        if not self._stamps:
            raise DatasetError(
                f"{path}: expected a ground truth on {self._topic[TRUTH]} with the stamp of a depth image on "
                f"{self._topic[DEPTH]}, found none"
            )

    def __len__(self) -> int:
        return len(self._stamps)

    def names(self) -> list[str]:
        """The stamps [ns] of the depth images."""
        return [str(stamp) for stamp in self._stamps]

    def load(self, index: int) -> RecordedFrame:
        """One depth image with what has its stamp."""
        stamp = self._stamps[index]
        there = {t: at[stamp] for t, at in self._received.items() if stamp in at}
        window = (min(there.values()), max(there.values()))
        images: dict[str, npt.NDArray[np.generic]] = {}
        try:
            for message in read_bag(self.path, list(there), [stamp], window):
                images[message.topic] = pixels(message.message)
        except MessageError as error:
            raise DatasetError(f"{self.path}: {stamp}: {error}") from None
        truth = np.asarray(images[self._topic[TRUTH]], np.float32)
        depth_m = np.asarray(images[self._topic[DEPTH]], np.float32)
        sigma = np.asarray(images.get(self._topic[SIGMA], np.full_like(depth_m, np.nan)), np.float32)
        grey = np.zeros((*depth_m.shape, 3), np.uint8)
        scene = np.asarray(images.get(self._topic[SCENE], grey), np.uint8)
        for name, values in (("sigma", sigma), ("scene", scene), ("truth", truth)):
            if values.shape[:2] != depth_m.shape:
                raise DatasetError(
                    f"{self.path}: {stamp}: {name}: expected {list(depth_m.shape)} pixels, as the depth has, "
                    f"got {list(values.shape[:2])}"
                )
        valid = is_depth(truth)
        if not valid.any():
            raise DatasetError(
                f"{self.path}: {stamp}: expected a ground truth that holds somewhere, got none"
            )
        subject = Subject(str(stamp), MetricTruth(truth), valid, scene, texture([scene]))
        return RecordedFrame(subject, Reading(depth_m, sigma, scene))


def in_namespace(topic: str, namespace: str) -> str:
    """A relative topic in its namespace; an absolute one as it is."""
    return topic if topic.startswith("/") else "/" + "/".join(filter(None, (namespace.strip("/"), topic)))


def _check_topic(
    path: Path, topic: str, kind: str, types: dict[str, str], what: str, or_else: str = ""
) -> None:
    if topic not in types:
        found = _listed(list(types))
        raise DatasetError(
            f"{path}: expected {what} on {topic}{or_else}, found none; topics with messages: {found}"
        )
    if types[topic] != kind:
        raise DatasetError(f"{path}: {topic}: expected {kind}, got {types[topic]}")


def _listed(names: Sequence[str], most: int = 6) -> str:
    if not names:
        return "none"
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(sorted(names)[:most]) + more
