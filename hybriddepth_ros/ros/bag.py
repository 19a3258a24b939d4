"""Bags (MCAP): recording topics as the bytes that came off the wire, and reading them back without ROS.

Reading needs only `rosbags`; rclpy is imported by the recorder alone.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hybriddepth_ros.errors import HybridDepthError, OutputError

if TYPE_CHECKING:
    from rclpy.node import Node

_SEPARATOR = "=" * 80
_STAMP = struct.Struct("<iI")  # sec, nanosec, behind the 4 bytes of the CDR encapsulation
_SUBSCRIBER_DEPTH = 50  # messages that wait in DDS while Python is busy: 1 to 2 s of a camera


@dataclass
class TopicCount:
    """What became of a topic's messages; dropped: queue full or closing, lost: on the way, told by DDS."""

    received: int = 0
    written: int = 0
    dropped: int = 0
    lost: int = 0


@dataclass(frozen=True)
class Arrival:
    """A message as the recorder saw it: stamp of its header and time of receipt, both of `time.time_ns`."""

    topic: str
    stamp_ns: int
    received_ns: int


@dataclass
class _Channel:
    connection: Any
    count: TopicCount = field(default_factory=TopicCount)


class BagRecorder:
    """Subscribes to topics on the caller's node and writes them to a new MCAP bag, in a thread of its own.

    Subscriber callbacks only queue the serialised bytes. When the disk is slower than the topics and
    `queue_bytes` are waiting, the newest message is dropped and counted. `close` may be called twice and
    always leaves a readable bag.
    """

    def __init__(
        self,
        node: Node,
        path: Path,
        topics: Mapping[str, str],
        queue_bytes: int = 256 * 2**20,
        on_arrival: Callable[[Arrival], None] | None = None,
    ) -> None:
        """`topics`: absolute name -> `package/msg/Name`; `on_arrival` gets each message with a header."""
        self._node = node
        self._queue_limit = queue_bytes
        self._queued_bytes = 0
        self._queue: queue.SimpleQueue[tuple[_Channel, int, bytes] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._deadline = float("inf")
        self._failure: OSError | None = None
        self._on_arrival = on_arrival
        self._writer = _open_writer(path)
        self._channels: dict[str, _Channel] = {}
        for topic, type_name in topics.items():
            text, type_hash = message_definition(type_name)
            connection = self._writer.add_connection(
                topic, type_name, msgdef=text, rihs01=type_hash, offered_qos_profiles=[_reliable_qos()]
            )
            self._channels[topic] = _Channel(connection)
        self._thread = threading.Thread(target=self._write_loop, name="bag_writer", daemon=True)
        self._thread.start()
        self._subscriptions = [self._subscribe(topic, type_name) for topic, type_name in topics.items()]

    @property
    def counts(self) -> dict[str, TopicCount]:
        """Topic -> what became of its messages."""
        return {topic: channel.count for topic, channel in self._channels.items()}

    def close(self, timeout_s: float = 10.0) -> None:
        """Stops taking messages, writes what is queued for at most `timeout_s`, and finishes the bag.

        OutputError if the disk refused it.
        """
        if self._closing.is_set():
            return
        self._deadline = time.monotonic() + timeout_s
        self._closing.set()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._queue.put(None)
        self._thread.join()
        try:
            self._writer.close()
        except OSError as error:
            self._failure = self._failure or error
        if self._failure is not None:
            raise OutputError(f"{self._writer.path}: the bag cannot be written ({self._failure.strerror})")

    def _subscribe(self, topic: str, type_name: str) -> Any:
        from rclpy.event_handler import SubscriptionEventCallbacks
        from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

        message_type = message_class(type_name)
        has_header = "header" in message_type.get_fields_and_field_types()
        channel = self._channels[topic]

        def received(data: bytes) -> None:
            self._take(channel, topic, data, has_header)

        def lost(event: Any) -> None:
            channel.count.lost = event.total_count

        return self._node.create_subscription(
            message_type,
            topic,
            received,
            QoSProfile(
                history=HistoryPolicy.KEEP_LAST,
                depth=_SUBSCRIBER_DEPTH,
                reliability=ReliabilityPolicy.RELIABLE,
            ),
            raw=True,
            event_callbacks=SubscriptionEventCallbacks(message_lost=lost),
        )

    def _take(self, channel: _Channel, topic: str, data: bytes, has_header: bool) -> None:
        now = time.time_ns()
        channel.count.received += 1
        with self._lock:
            full = self._closing.is_set() or self._queued_bytes + len(data) > self._queue_limit
            if full:
                channel.count.dropped += 1
            else:
                self._queued_bytes += len(data)
                self._queue.put((channel, now, data))
        if has_header and self._on_arrival is not None:
            self._on_arrival(Arrival(topic, header_stamp_ns(data), now))

    def _write_loop(self) -> None:
        while (item := self._queue.get()) is not None:
            channel, received_ns, data = item
            if self._failure is not None or time.monotonic() > self._deadline:
                written = False
            else:
                written = self._write(channel, received_ns, data)
            with self._lock:
                self._queued_bytes -= len(data)
                channel.count.written += written
                channel.count.dropped += not written

    def _write(self, channel: _Channel, received_ns: int, data: bytes) -> bool:
        try:
            self._writer.write(channel.connection, received_ns, data)
        except OSError as error:
            self._failure = error
            return False
        return True


def header_stamp_ns(data: bytes) -> int:
    """The stamp of a serialised message that begins with a std_msgs/Header [ns]."""
    seconds, nanoseconds = _STAMP.unpack_from(data, 4)
    return int(seconds) * 10**9 + int(nanoseconds)


def message_class(type_name: str) -> Any:
    """`sensor_msgs/msg/Image` -> its Python class."""
    import importlib

    package, _, name = type_name.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def message_definition(type_name: str) -> tuple[str, str]:
    """Definition of a message and of all that it contains, as bags carry it, and its type hash (RIHS01).

    Both come from the installed package's share folder, so that they are those of the messages on the wire.
    """
    texts: dict[str, str] = {}
    open_types = [type_name]
    while open_types:
        current = open_types.pop(0)
        if current not in texts:
            texts[current] = _share_file(current, ".msg").read_text(encoding="utf-8")
            open_types += _contained_types(current, texts[current])
    description = json.loads(_share_file(type_name, ".json").read_text(encoding="utf-8"))
    hashes = {entry["type_name"]: entry["hash_string"] for entry in description["type_hashes"]}
    parts = [texts.pop(type_name)]
    for name, text in texts.items():
        package, _, short = name.split("/")
        parts.append(f"{_SEPARATOR}\nMSG: {package}/{short}\n{text}")
    return "\n".join(part.rstrip("\n") for part in parts) + "\n", hashes[type_name]


def _contained_types(type_name: str, definition: str) -> list[str]:
    """Full names of the message types that the fields of a definition have."""
    package = type_name.split("/")[0]
    found = []
    for line in definition.splitlines():
        words = line.split("#", 1)[0].split()
        if len(words) < 2:
            continue
        base = words[0].split("[", 1)[0].split("<", 1)[0]
        parts = base.split("/")
        if len(parts) == 1 and base[0].islower():  # a primitive; messages are in CamelCase
            continue
        found.append(f"{parts[0] if len(parts) > 1 else package}/msg/{parts[-1]}")
    return found


def _share_file(type_name: str, suffix: str) -> Path:
    """A file of an interface package: below AMENT_PREFIX_PATH, or where the wheels put it."""
    package, kind, name = type_name.split("/")
    prefixes = [*filter(None, os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)), sys.prefix]
    for prefix in prefixes:
        path = Path(prefix) / "share" / package / kind / f"{name}{suffix}"
        if path.is_file():
            return path
    raise HybridDepthError(
        f"{type_name}: expected its definition below share/{package} in {' or '.join(prefixes)}"
    )


def _open_writer(path: Path) -> Any:
    from rosbags.rosbag2 import StoragePlugin, Writer

    writer = Writer(path, version=9, storage_plugin=StoragePlugin.MCAP)
    try:
        writer.open()
    except OSError as error:
        raise OutputError(f"{path}: the bag cannot be written ({error.strerror})") from None
    return writer


def _reliable_qos() -> Any:
    """What a player should offer: reliable, keep last 10, nothing kept for late joiners."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    unlimited = QosTime(9223372036, 854775807)  # as rosbag2 writes it
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        avoid_ros_namespace_conventions=False,
    )


@dataclass(frozen=True)
class BagMessage:
    """One message of a bag, with the fields of its ROS type; stamp_ns: its header's, else received_ns.

    data: the message as it was on the wire.
    """

    topic: str
    stamp_ns: int
    received_ns: int
    message: Any
    data: bytes = field(default=b"", repr=False)


def bag_counts(path: Path) -> dict[str, int]:
    """Topic -> number of messages in the bag."""
    with _reader(path) as reader:
        counts: collections.Counter[str] = collections.Counter()
        for connection in reader.connections:
            counts[connection.topic] += connection.msgcount
        return dict(counts)


def bag_types(path: Path) -> dict[str, str]:
    """Topic -> type of its messages, `package/msg/Name`; of topics that have messages."""
    with _reader(path) as reader:
        return {c.topic: c.msgtype for c in reader.connections if c.msgcount}


def read_bag(
    path: Path,
    topics: Sequence[str] | None = None,
    stamps_ns: Iterable[int] | None = None,
    received_ns: tuple[int, int] | None = None,
) -> Iterator[BagMessage]:
    """The messages in order of arrival, of `topics` only, with these header stamps only and received from
    then to then only, if given.

    Messages that are passed over are not deserialised, and what was received at another time is mostly not
    even read. Types come from the bag itself, so no ROS is needed.
    """
    start, stop = (None, None) if received_ns is None else (received_ns[0], received_ns[1] + 1)
    wanted = None if stamps_ns is None else frozenset(stamps_ns)
    with _reader(path) as reader:
        connections = [c for c in reader.connections if topics is None or c.topic in topics]
        if not connections:
            return
        for connection, arrived_ns, data in reader.messages(connections, start=start, stop=stop):
            stamp_ns = header_stamp_ns(data) if _has_header(reader, connection) else arrived_ns
            if wanted is None or stamp_ns in wanted:
                message = reader.deserialize(data, connection.msgtype)
                yield BagMessage(connection.topic, stamp_ns, arrived_ns, message, data)


def read_stamps(path: Path, topics: Sequence[str]) -> dict[str, dict[int, int]]:
    """Topic -> header stamp -> time of receipt [ns] of the messages with a header, which are not decoded."""
    found: dict[str, dict[int, int]] = {}
    with _reader(path) as reader:
        connections = [c for c in reader.connections if c.topic in topics and _has_header(reader, c)]
        if connections:
            for connection, received_ns, data in reader.messages(connections=connections):
                found.setdefault(connection.topic, {})[header_stamp_ns(data)] = received_ns
    return found


@contextlib.contextmanager
def _reader(path: Path) -> Iterator[Any]:
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    if not os.path.exists(path):
        raise HybridDepthError(f"{path}: expected a bag, found nothing")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise HybridDepthError(f"{path}: expected a bag's folder, found no metadata.yaml in it")
    try:
        with AnyReader([path], default_typestore=get_typestore(Stores.ROS2_JAZZY)) as reader:
            yield reader
    except HybridDepthError:
        raise
    except Exception as error:  # of a damaged file the parser tells whatever it stumbled over
        said = " ".join(str(error).split()) or type(error).__name__
        raise HybridDepthError(f"{path}: expected a bag that is whole ({said})") from None


def _has_header(reader: Any, connection: Any) -> bool:
    fields = reader.typestore.fielddefs[connection.msgtype][1]
    return bool(fields) and fields[0][0] == "header"
