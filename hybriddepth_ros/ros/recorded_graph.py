"""The whole graph in one process with a recorder beside it: what the demo runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybriddepth_ros.cameras.base import Progress
from hybriddepth_ros.ros.bag import Arrival, BagRecorder, TopicCount
from hybriddepth_ros.ros.dds import set_dds_profile
from hybriddepth_ros.ros.focus_sweep_node import FocusSweepNode
from hybriddepth_ros.ros.graph import DepthGraph
from hybriddepth_ros.ros.interface import INTERFACE
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.quiet import quiet_start
from hybriddepth_ros.ros.spin import spinning_node


class RecordedGraph(DepthGraph):
    """A graph on a simulated camera, of which every topic goes into a bag while the context is entered.

    progress: told how far the camera is while it prepares, from another thread. first_depth_s: when the
    recorder got the first depth image, in `time.monotonic()`.
    """

    def __init__(
        self,
        bag: Path,
        overrides: Mapping[str, Mapping[str, Any]],
        namespace: str,
        stop_event: threading.Event,
        progress: Progress,
    ) -> None:
        super().__init__(overrides=overrides, namespace=namespace, stop_event=stop_event)
        self.first_depth_s: float | None = None
        self.depth_images = 0
        self._bag = bag
        self._progress = progress
        self._recorder: BagRecorder | None = None
        self._cleanup = contextlib.ExitStack()

    @property
    def counts(self) -> dict[str, TopicCount]:
        """Topic -> what became of its messages; final after `close`."""
        return self._recorder.counts if self._recorder is not None else {}

    def start(self) -> None:
        """The recorder, then the graph, whose own log stays off the terminal meanwhile."""
        set_dds_profile()
        try:
            node = self._cleanup.enter_context(spinning_node("demo_recorder"))
            self._cleanup.callback(super().close)
            topics = published_topics(self._namespace)
            self._recorder = BagRecorder(node, self._bag, topics, on_arrival=self._on_arrival)
            # Closed before the nodes are: the bag must be whole even if they take their time.
            self._cleanup.callback(self._close_recorder, self._recorder)
            with quiet_start(self._namespace):
                super().start()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Finish the bag, then stop and destroy everything; safe to call again."""
        self._cleanup.close()

    def _close_recorder(self, recorder: BagRecorder) -> None:
        recorder.close(timeout_s=0.5 if self._stop_event.is_set() else 10.0)

    def _on_arrival(self, arrival: Arrival) -> None:
        if arrival.topic == f"/{self._namespace}/depth/image_rect":
            self.depth_images += 1
            if self.first_depth_s is None:
                self.first_depth_s = time.monotonic()

    def _start_node(self, node: ManagedNode) -> None:
        if isinstance(node, FocusSweepNode):
            tell_the_log = node._tell_progress

            def tell_both(done: int, total: int) -> None:
                tell_the_log(done, total)  # raises when the node is to stop
                self._progress(done, total)

            node._tell_progress = tell_both  # type: ignore[method-assign]
        super()._start_node(node)


def published_topics(namespace: str) -> dict[str, str]:
    """Absolute topic -> `package/msg/Name` of everything that the graph publishes on a simulated camera by
    default.
    """
    published = {e.name: e.type for e in INTERFACE if e.direction == "publishes" and e.by_default}
    return {
        name if name.startswith("/") else f"/{namespace}/{name}": kind for name, kind in published.items()
    }
