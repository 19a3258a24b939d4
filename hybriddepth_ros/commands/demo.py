"""`hybriddepth demo`: the whole graph on a simulated camera, recorded, scored against the truth, reported."""

# The typer of Ubuntu 24.04 does not evaluate annotations, so they are not postponed (__future__) here.

import contextlib
import os
import random
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybriddepth_ros.commands.options import check_device
from hybriddepth_ros.commands.output import OutputFolder
from hybriddepth_ros.commands.status import StatusLine, describe, losses
from hybriddepth_ros.commands.stopping import StopRequest, stop_on_signals
from hybriddepth_ros.errors import HybridDepthError, OutputError
from hybriddepth_ros.ros.dds import check_environment

if TYPE_CHECKING:
    from hybriddepth_ros.ros.bag import TopicCount
    from hybriddepth_ros.ros.recorded_graph import RecordedGraph

FILES = ("depth.png", "report.html", "summary.json")
NAMESPACE = "focus_camera"
# At 30 Hz the recorder takes 110 MB/s beside an estimator that cannot use the half of it on two cores.
CAMERA = {"camera": "simulated", "simulated.frame_rate": 15.0}


FIRST_DEPTH_S = 60.0
DEPTH_IMAGES = 5  # of which the first two, of a graph that starts, are not scored
MORE_TIME_S = 60.0


def demo(
    out: Annotated[Path, typer.Option("--out", help="Folder for the results.")] = Path("out/demo"),
    seconds: Annotated[
        float, typer.Option("--seconds", min=1.0, max=600.0, help="How long to record.")
    ] = 10.0,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed of the simulated scene and its noise.")
    ] = 0,
    model: Annotated[str, typer.Option("--model", help="Depth model, by its name.")] = "sweepnet",
    device: Annotated[
        str, typer.Option("--device", help="Where the model runs: auto, cpu, cuda, cuda:1 ...")
    ] = "auto",
) -> int:
    """Simulated camera, whole ROS graph, MCAP bag, pictures and a report with the error against the truth.

    Writes bag/ (every topic incl. the ground truth), depth.png, report.html and summary.json. Needs no
    hardware and stays on this machine: discovery is local and the ROS domain a free one, unless the
    environment sets them.
    """
    began = time.perf_counter()
    with stop_on_signals() as stop, OutputFolder(out, FILES) as folder, _BagFolder(out) as bag:
        keep_to_this_machine()
        check_environment()
        overrides: dict[str, dict[str, Any]] = {
            "focus_sweep": {**CAMERA, "simulated.seed": seed},
            "depth": {"model": model, "device": check_device(device)},
        }
        counts, lost = record(bag.recording, overrides, seconds, stop)
        bag.keep()
        if stop:
            print(f"interrupted; the bag so far is in {bag.path}")
            return stop.exit_code
        from hybriddepth_ros.commands.demo_results import write_results

        print("scoring the bag against the ground truth ...", flush=True)
        settings = {"seconds": seconds, "seed": seed, "model": model}
        with stop.interrupting():  # nothing is open any more that a stop could spoil
            lines = write_results(folder, bag.path, counts, lost, settings)
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


def record(
    bag: Path, overrides: dict[str, dict[str, Any]], seconds: float, stop: StopRequest
) -> "tuple[dict[str, TopicCount], dict[str, int]]":
    """Records all topics of a graph until `seconds` after its first depth image, or a stop.

    Returns the counts per topic, and what was lost in the graph per cause.
    """
    from hybriddepth_ros.ros.recorded_graph import RecordedGraph

    lost: dict[str, int] = {}
    with StatusLine() as status:

        def tell_progress(done: int, total: int) -> None:
            if not stop and (status.due or done == total):
                status.show(f"preparing the simulated camera: {done} of {total} pictures")

        status.show("preparing the simulated camera ...")
        graph = RecordedGraph(bag, overrides, NAMESPACE, stop.event, tell_progress)
        with contextlib.suppress(KeyboardInterrupt), graph:  # raised by the start when stopped
            status.rest(after_s=1.0)
            _watch(graph, status, seconds, stop)
            lost = losses(graph)
    return graph.counts, lost


def _watch(graph: "RecordedGraph", status: StatusLine, seconds: float, stop: StopRequest) -> None:
    """Shows the rates until the time is over; HybridDepthError if no depth came at all.

    A machine that is slow or busy gets more time, until there is enough to be scored.
    """
    patience = time.monotonic() + FIRST_DEPTH_S
    while not stop:
        graph.wait(timeout=0.1)
        now, first = time.monotonic(), graph.first_depth_s
        if first is not None and now >= first + seconds:
            enough = graph.depth_images >= DEPTH_IMAGES
            if enough or now >= first + seconds + MORE_TIME_S:
                return
        if first is None and now > patience:
            raise HybridDepthError(
                f"demo: expected depth within {FIRST_DEPTH_S:g} s of the camera's start, none came:"
                " see doctor"
            )
        if status.due:
            elapsed = now - first if first is not None else 0.0
            status.show(f"recording {min(elapsed, seconds):4.0f} of {seconds:.0f} s  {describe(graph)}")


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
