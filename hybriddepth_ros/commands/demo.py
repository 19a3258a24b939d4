"""`hybriddepth demo`: the whole graph on a simulated camera, recorded, scored against the truth, reported."""

# The typer of Ubuntu 24.04 does not evaluate annotations, so they are not postponed (__future__) here.

import contextlib
import os
import random
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybriddepth_ros.commands.options import check_device
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.commands.status import StatusLine, describe, losses, quiet_start
from hybriddepth_ros.commands.stopping import StopRequest, stop_on_signals
from hybriddepth_ros.errors import HybridDepthError, OutputError

if TYPE_CHECKING:
    from hybriddepth_ros.ros.bag import TopicCount

FILES = ("depth.png", "report.html", "summary.json")
NAMESPACE = "focus_camera"
# At 30 Hz the recorder takes 110 MB/s beside an estimator that cannot use the half of it on two cores.
CAMERA = {"camera": "simulated", "simulated.frame_rate": 15.0}


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out/demo"),
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, max=600.0, help="How long to record.")
    ] = 10.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the simulated scene and its noise.")
    ] = 0,
    model: Annotated[str, typer.Option("--model", help="Depth model, by its name.")] = "classical",
    device: Annotated[str, typer.Option("--device", help="Where the model runs: auto, cpu, cuda.")] = "auto",
) -> int:
    """Simulated camera, whole ROS graph, MCAP bag, pictures and a report with the error against the truth.

    Writes bag/ (every topic incl. the ground truth), depth.png, report.html and summary.json. Needs no
    hardware and stays on this machine: discovery is local and the ROS domain a free one, unless the
    environment sets them.
    """
    began = time.perf_counter()
    with stop_on_signals() as stop, OutputFolder(out, FILES) as folder, _BagFolder(out) as bag:
        keep_to_this_machine()
        overrides: dict[str, dict[str, Any]] = {
            "focus_sweep": {**CAMERA, "simulated.seed": seed},
            "depth": {"model": model, "device": check_device(device)},
        }
        recorded = record(bag.recording, overrides, seconds, stop)
        bag.keep()
        if stop:
            print(f"interrupted; the bag so far is in {bag.path}")
            return stop.exit_code
        from hybriddepth_ros.commands.demo_results import write_results

        print("scoring the bag against the ground truth ...", flush=True)
        lines = write_results(folder, bag.path, recorded, {"seconds": seconds, "seed": seed, "model": model})
    print("\n".join(lines))
    print(f"written to {out} in {time.perf_counter() - began:.0f} s: bag/ {' '.join(FILES)}")
    return 0


def keep_to_this_machine() -> None:
    """Local discovery and a free ROS domain, unless the user chose; before ROS starts."""
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    if "ROS_DOMAIN_ID" not in os.environ:
        domains = random.sample(range(1, 101), 20)  # higher ones reach into the ports that Linux hands out
        os.environ["ROS_DOMAIN_ID"] = str(next((d for d in domains if _is_free(d)), domains[0]))


def _is_free(domain: int) -> bool:
    """Whether no participant of the domain is on this machine: the first takes this port (RTPS 9.6.1.1)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind(("", 7400 + 250 * domain + 10))
        except OSError:
            return False
    return True


@dataclass(frozen=True)
class Recorded:
    """What a recording leaves beside its bag: message counts per topic, and losses in the graph per cause."""

    counts: "dict[str, TopicCount]"
    lost: dict[str, int]


def record(bag: Path, overrides: dict[str, dict[str, Any]], seconds: float, stop: StopRequest) -> Recorded:
    """Runs the graph and records all its topics until `seconds` after its first depth image, or a stop."""
    from rclpy.context import Context

    from hybriddepth_ros.ros.bag import Arrival, BagRecorder
    from hybriddepth_ros.ros.graph import DepthGraph, set_dds_profile

    depth_topic = f"/{NAMESPACE}/depth/image_rect"
    first_depth_s: list[float] = []

    def arrived(arrival: Arrival) -> None:
        if arrival.topic == depth_topic and not first_depth_s:
            first_depth_s.append(time.monotonic())

    set_dds_profile()
    context = Context()
    context.init(args=[])
    graph = DepthGraph(overrides=overrides, namespace=NAMESPACE, stop_event=stop.event)
    lost: dict[str, int] = {}
    with contextlib.ExitStack() as cleanup:
        spinning = _Spinning(context, "demo_recorder")
        cleanup.callback(spinning.close)
        recorder = BagRecorder(spinning.node, bag, all_topics(), on_arrival=arrived)
        cleanup.callback(graph.close)
        # Closed before the nodes are: the bag must be whole even if they take their time.
        cleanup.callback(lambda: recorder.close(timeout_s=0.5 if stop else 10.0))
        with contextlib.suppress(KeyboardInterrupt), StatusLine() as status:  # raised by start when stopped
            status.show("preparing the simulated camera ...")
            with quiet_start(NAMESPACE):
                graph.start()
            status.rest(after_s=1.0)
            _watch(graph, status, seconds, first_depth_s, stop)
            lost = losses(graph)
    return Recorded(recorder.counts, lost)


def _watch(
    graph: Any, status: StatusLine, seconds: float, first_depth_s: list[float], stop: StopRequest
) -> None:
    """Shows the rates until the time is over; HybridDepthError if no depth came at all."""
    patience = time.monotonic() + 20.0
    while not stop:
        graph.wait(timeout=0.1)
        now = time.monotonic()
        if first_depth_s and now >= first_depth_s[0] + seconds:
            return
        if not first_depth_s and now > patience:
            raise HybridDepthError(
                "demo: expected depth within 20 s of the camera's start, none came: see doctor"
            )
        if status.due:
            elapsed = now - first_depth_s[0] if first_depth_s else 0.0
            status.show(f"recording {min(elapsed, seconds):4.0f} of {seconds:.0f} s  {describe(graph)}")


def all_topics() -> dict[str, str]:
    """Absolute topic -> `package/msg/Name` of everything that the graph publishes on a simulated camera."""
    from hybriddepth_ros.ros.interface import INTERFACE

    published = {endpoint.name: endpoint.type for endpoint in INTERFACE if endpoint.direction == "publishes"}
    return {
        name if name.startswith("/") else f"/{NAMESPACE}/{name}": kind for name, kind in published.items()
    }


class _Spinning:
    """A node that spins in its own thread, so that recording and the graph do not wait for one another."""

    def __init__(self, context: Any, name: str) -> None:
        import threading

        import rclpy
        from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

        self._context = context
        self.node = rclpy.create_node(
            name, context=context, use_global_arguments=False, start_parameter_services=False
        )
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self.node)

        def spin() -> None:
            with contextlib.suppress(ExternalShutdownException):
                self._executor.spin()

        self._thread = threading.Thread(target=spin, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._executor.shutdown(timeout_sec=0.5)
        self._thread.join(0.5)
        self.node.destroy_node()
        self._context.try_shutdown()


class _BagFolder:
    """OUT/bag: replaces an earlier one when the new one is finished, and only if nothing else lies in it.

    rosbags names the file in a bag after its folder, so a recording gets its final name in a hidden folder.
    """

    OURS = frozenset({"bag.mcap", "metadata.yaml"})

    def __init__(self, out: Path) -> None:
        self.path = out / "bag"
        self._hidden = out / f".recording-{os.getpid()}"
        self.recording = self._hidden / "bag"
        if self.path.exists():
            foreign = {p.name for p in self.path.iterdir()} - self.OURS if self.path.is_dir() else {"a file"}
            if foreign:
                found = ", ".join(sorted(foreign)[:3])
                raise OutputError(
                    f"--out {out}: expected bag/ to hold a recording of the demo, found {found}"
                )

    def keep(self) -> None:
        """Puts the finished recording in its place."""
        if self.path.exists():
            for name in self.OURS:
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()
        os.replace(self.recording, self.path)

    def __enter__(self) -> "_BagFolder":
        for left_over in self.path.parent.glob(".recording-*"):
            if not Path(f"/proc/{left_over.name.rpartition('-')[2]}").exists():  # its process was killed
                shutil.rmtree(left_over, ignore_errors=True)
        self._hidden.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._hidden, ignore_errors=True)
