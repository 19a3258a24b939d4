"""Latency of slices over an emulated link: raw, JPEG and PNG at 10 to 1000 Mbit/s and 2 or 20 ms of delay.

.venv/bin/python benchmarks/transport_link.py [--seconds 5] [--rate 30] [--quality 90] [--markdown]

640x480 slices of the simulated camera's desk at 30 per second: compressed, published on real DDS in one
domain, carried to another by the emulated link (hybriddepth_ros.ros.relay), received and decoded there.
Latency is from before the compression to after the decoding; the first second is left out. `arrived` is the
share of slices that came at all: what no longer fits the link's queue, 4 MB, is lost.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import numpy as np
from measure import report
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from hybriddepth_msgs.msg import CompressedFocalSlice, FocalSlice, FocusState
from hybriddepth_ros.cameras.simulated import SimulatedCamera, SimulatedCameraOptions
from hybriddepth_ros.emulation.link import Link, LinkOptions
from hybriddepth_ros.focal_stack import CameraIntrinsics
from hybriddepth_ros.image_compression import RAW
from hybriddepth_ros.ros.compressed import compressed_focal_slice
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.messages import (
    compressed_slice_message,
    focal_slice,
    from_time,
    make_header,
    slice_message,
)
from hybriddepth_ros.ros.relay import Relay
from hybriddepth_ros.simulation import desk_scene, develop, render

TOPIC = "/focus_camera/slice"
RATES_MBIT = (10.0, 50.0, 100.0, 1000.0)
DELAYS_MS = (2.0, 20.0)
SETTLE_S = 1.0  # at the start, for discovery and for the queue to fill


@functools.cache
def desk_slices() -> tuple[CameraIntrinsics, list[tuple[float, np.ndarray]]]:
    """Intrinsics, and (focus [1/m], image [480, 640, 3]) of one sweep."""
    options = SimulatedCameraOptions()
    camera = SimulatedCamera(options)
    fx = float(0.5 * options.width / np.tan(np.radians(0.5 * options.horizontal_fov_deg)))
    intrinsics = CameraIntrinsics(fx, fx, 319.5, 239.5, options.width, options.height)
    scene, rng = desk_scene(0), np.random.default_rng(0)
    return intrinsics, [
        (focus, develop(render(scene, np.eye(4), intrinsics, camera.lens, focus)[0], rng))
        for focus in camera.default_focus_diopters
    ]


class Receiver:
    """Decodes what arrives, as the depth node's worker does, and notes when it had it."""

    def __init__(self, context: Context, transport: str) -> None:
        self.latencies_ms: dict[int, float] = {}  # stamp [ns] -> latency
        self._read = focal_slice if transport == RAW else compressed_focal_slice
        self.node = Node("depth", context=context, use_global_arguments=False)
        qos = QoSProfile(depth=16, reliability=ReliabilityPolicy.BEST_EFFORT)
        kind = FocalSlice if transport == RAW else CompressedFocalSlice
        self.node.create_subscription(kind, TOPIC, self._take, qos)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)
        threading.Thread(target=self._executor.spin, daemon=True).start()

    def _take(self, message: Any) -> None:
        self._read(message)
        stamp_ns = from_time(message.header.stamp)
        self.latencies_ms[stamp_ns] = (time.time_ns() - stamp_ns) * 1e-6

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=1.0)
        self.node.destroy_node()


def measure(
    transport: str, link: LinkOptions, contexts: tuple[Context, Context], options: argparse.Namespace
) -> dict[str, Any]:
    camera, sweep = desk_slices()
    kind = FocalSlice if transport == RAW else CompressedFocalSlice
    sender = Node("focus_sweep", context=contexts[0], use_global_arguments=False)
    publisher = sender.create_publisher(kind, TOPIC, 10)
    receiver = Receiver(contexts[1], transport)
    sent: list[int] = []
    with Relay(Link(link), *contexts, {TOPIC: kind}) as relay:
        while not (publisher.get_subscription_count() and receiver.node.count_publishers(TOPIC)):
            time.sleep(0.05)
        time.sleep(0.5)
        start = time.monotonic()
        for index in range(int(options.seconds * options.rate)):
            time.sleep(max(start + index / options.rate - time.monotonic(), 0.0))
            focus_diopters, image = sweep[index % len(sweep)]
            stamp_ns = time.time_ns()
            focus = FocusState(header=make_header(stamp_ns, "optical"), focus_diopters=focus_diopters)
            if transport == RAW:
                publisher.publish(slice_message(image, camera, focus))
            else:
                publisher.publish(compressed_slice_message(image, camera, focus, transport, options.quality))
            sent.append(stamp_ns)
        elapsed_s = time.monotonic() - start
        time.sleep(0.5 + 4e6 * 8e-6 / link.rate_mbit)  # until the queue is empty
        counts = dict(relay.counts)
    receiver.close()
    sender.destroy_node()
    counted = [stamp for stamp in sent if stamp > sent[0] + SETTLE_S * 1e9]
    latencies = [receiver.latencies_ms[stamp] for stamp in counted if stamp in receiver.latencies_ms]
    p50, p95 = np.percentile(latencies, (50, 95)) if latencies else (np.nan, np.nan)
    return {
        "transport": transport,
        "rate_mbit": link.rate_mbit,
        "delay_ms": link.delay_ms,
        "p50_ms": round(float(p50), 1),
        "p95_ms": round(float(p95), 1),
        "arrived": round(len(latencies) / len(counted), 3),
        "sent_per_s": round(len(sent) / elapsed_s, 1),
        "relay": counts,
    }


def markdown(rows: list[dict[str, Any]]) -> str:
    transports = list(dict.fromkeys(row["transport"] for row in rows))
    lines = ["| link | " + " | ".join(f"{name}: p50, p95, arrived" for name in transports) + " |"]
    lines.append("|---|" + "---|" * len(transports))
    for rate, delay in dict.fromkeys((row["rate_mbit"], row["delay_ms"]) for row in rows):
        cells = [f"{rate:g} Mbit/s, {delay:g} ms"]
        for row in rows:
            if (row["rate_mbit"], row["delay_ms"]) == (rate, delay):
                cells.append(f"{row['p50_ms']:.0f}, {row['p95_ms']:.0f} ms, {100 * row['arrived']:.0f} %")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="of sending, for each link")
    parser.add_argument("--rate", type=float, default=30.0, help="slices per second")
    parser.add_argument("--quality", type=int, default=90, help="of JPEG")
    parser.add_argument("--markdown", action="store_true", help="a table instead of JSON")
    options = parser.parse_args()
    set_dds_profile()
    contexts = (Context(), Context())
    first = random.SystemRandom().randint(1, 99)
    for number, context in enumerate(contexts):
        context.init(args=[], domain_id=first + number)
    rows = []
    for rate in RATES_MBIT:
        for delay in DELAYS_MS:
            for transport in (RAW, "jpeg", "png"):
                link = replace(LinkOptions(), rate_mbit=rate, delay_ms=delay)
                rows.append(measure(transport, link, contexts, options))
                print(rows[-1], file=sys.stderr)
    print(markdown(rows)) if options.markdown else report(rows)
    for context in contexts:
        context.try_shutdown()


if __name__ == "__main__":
    main()
