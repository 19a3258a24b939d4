"""The `focus_sweep` node: sweeps a camera's focus and publishes every slice with its focus."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus

from hybriddepth_msgs.srv import CaptureStack, SetFocus
from hybriddepth_ros.cameras import (
    FocusCamera,
    FocusSweep,
    FrameTimeout,
    SweptFrame,
    camera_config_type,
    make_camera,
)
from hybriddepth_ros.errors import CameraEnded, CameraError
from hybriddepth_ros.optics import plan_sweep
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.messages import stack_message
from hybriddepth_ros.ros.schema import FocusSweepParameters
from hybriddepth_ros.ros.spin import run_node
from hybriddepth_ros.ros.sweep_outputs import SweepOutputs, swept_message

FIRST_REOPEN_DELAY_S = 0.25


class FocusSweepNode(ManagedNode):
    """The sweep runs in one thread, a second one publishes, the executor only answers services."""

    def __init__(self, **node_arguments: Any) -> None:
        self._camera: FocusCamera | None = None
        self._sweep: FocusSweep | None = None
        self._camera_error = ""
        self._finished = ""  # why there are no more frames, when that is no failure
        self._stopping = threading.Event()  # of this configuration or activation
        self._focus_lock = threading.Lock()
        self._new_frame = threading.Condition()
        self._last: SweptFrame | None = None
        super().__init__("focus_sweep", **node_arguments)
        self.service(SetFocus, "~/set_focus", self._on_set_focus)
        self.service(CaptureStack, "~/capture_stack", self._on_capture_stack)

    # -- lifecycle

    def configure(self, resources: ExitStack) -> None:
        parameters = self.parameters[FocusSweepParameters]
        if self.get_parameter("use_sim_time").value:
            raise CameraError("use_sim_time: expected false: frames are exposed, and stamped, in system time")
        self._stopping = threading.Event()
        resources.callback(self._close_camera)
        self._open_camera()
        self.diagnostics.hardware_id = parameters.camera
        self._outputs = SweepOutputs(self, resources, parameters)

    def activate(self, resources: ExitStack) -> None:
        self._camera_error = self._finished = ""
        self._stopping = stop = threading.Event()
        resources.callback(self._end_sweep)
        self._begin_sweep()
        thread = threading.Thread(target=self._run, args=(stop,), name="sweep_publisher", daemon=True)
        resources.callback(thread.join)
        resources.callback(stop.set)
        thread.start()

    def _open_camera(self) -> None:
        """Take the device, after what it needs ahead of streaming (the simulated one renders)."""
        name = self.parameters[FocusSweepParameters].camera
        camera = make_camera(name, self.parameters[camera_config_type(name)])
        camera.prepare(self._positions(camera), self._tell_progress)
        camera.open()
        self._camera = camera

    def _close_camera(self) -> None:
        camera, self._camera = self._camera, None
        if camera is not None:
            camera.close()

    def _positions(self, camera: FocusCamera) -> Sequence[float]:
        """The foci to sweep [1/m]: as given, else as the camera suggests, else planned."""
        parameters = self.parameters[FocusSweepParameters]
        low, high = camera.focus_range_diopters
        if parameters.focus_diopters:
            for focus in parameters.focus_diopters:
                if not low <= focus <= high:
                    raise CameraError(
                        f"focus_diopters: expected {low:g} to {high:g} 1/m as the lens reaches, got {focus:g}"
                    )
            return parameters.focus_diopters
        if camera.default_focus_diopters:
            return camera.default_focus_diopters
        far = parameters.far_distance or float("inf")
        plan = plan_sweep(parameters.near_distance, far, parameters.slice_count, camera.lens)
        for warning in plan.warnings:
            self.get_logger().warning(f"sweep: {warning}")
        return [min(max(focus, low), high) for focus in plan.focus_diopters]

    def _tell_progress(self, done: int, total: int) -> None:
        if self.closing.is_set() or self._stopping.is_set():
            raise CameraError("stopped while preparing the camera")
        if done % max(total // 4, 1) == 0:
            self.get_logger().info(f"preparing the camera: {done} of {total}")

    # -- the publishing thread

    def _begin_sweep(self) -> None:
        if self._camera is None:
            self._open_camera()
        assert self._camera is not None
        sweep = FocusSweep(self._camera, self._positions(self._camera))
        sweep.start(self._tell_progress)
        self._sweep, self._last = sweep, None

    def _end_sweep(self) -> None:
        sweep, self._sweep = self._sweep, None
        if sweep is not None:
            sweep.stop()
        with self._new_frame:
            self._new_frame.notify_all()

    def _run(self, stop: threading.Event) -> None:
        """Publish until told to stop; a camera that fails is reopened, after longer and longer waits."""
        delay_s = FIRST_REOPEN_DELAY_S
        while not stop.is_set():
            try:
                if self._sweep is None:
                    self._begin_sweep()
                while not stop.is_set():
                    if self._publish_next() and self._camera_error:  # a whole sweep: it works again
                        self.tell("the camera delivers again")
                        self._camera_error, delay_s = "", FIRST_REOPEN_DELAY_S
                return
            except CameraEnded as end:
                self._finished = f"finished: {end}"
                self.get_logger().info(self._finished)
            except CameraError as error:
                self._camera_error = str(error)
                if not stop.is_set():
                    self.problem("camera failures", f"{error}; next attempt in {delay_s:g} s")
            except Exception as error:
                self._camera_error = f"{type(error).__name__}: {error}"
                self.unexpected(error)
            finally:
                self._end_sweep()
            self._close_camera()
            if self._finished:
                return
            stop.wait(delay_s)
            delay_s = min(2.0 * delay_s, self.parameters[FocusSweepParameters].reopen_delay_max)

    def _publish_next(self) -> bool:
        """Whether a frame came, and with it a sweep was whole."""
        assert self._camera is not None and self._sweep is not None
        try:
            swept = self._sweep.read(0.2)
        except FrameTimeout:
            return False
        self._outputs.publish(swept, self._camera.lens)
        with self._new_frame:
            self._last = swept
            self._new_frame.notify_all()
        return swept.slice_index == swept.slice_count - 1

    # -- services and diagnostics

    def _running_sweep(self) -> FocusSweep:
        sweep = self._sweep
        if sweep is None:
            raise CameraError(self._camera_error or self._finished or "the node is not active")
        return sweep

    def _on_set_focus(self, request: SetFocus.Request, response: SetFocus.Response) -> SetFocus.Response:
        response.focus_diopters = float("nan")
        with self._focus_lock:  # one call after the other: each gets its focus
            sweep = self._running_sweep()
            if math.isnan(request.focus_diopters) and not request.hold:
                sweep.resume()
                response.success = True
                return response
            held = sweep.held_diopters  # what a call that fails leaves as it was
            first_sweep_id = sweep.hold(request.focus_diopters)
            try:
                reached = self._await_sweep(sweep, first_sweep_id)
                held = request.focus_diopters if request.hold else None
            finally:
                if held is None:
                    sweep.resume()
                else:
                    sweep.hold(held)
        response.focus_diopters = float(reached.frame.focus_diopters)
        response.success = True
        return response

    def _await_sweep(self, sweep: FocusSweep, sweep_id: int) -> SweptFrame:
        """A frame of this sweep or a later one."""
        patience_s = sweep.time_for_s(1)
        with self._new_frame:
            self._new_frame.wait_for(
                lambda: self._sweep is not sweep or (self._last and self._last.sweep_id >= sweep_id),
                patience_s,
            )
            last = self._last
        if self._running_sweep() is not sweep:
            raise CameraError("set_focus: the camera failed and was opened again")
        if last is None or last.sweep_id < sweep_id:
            raise CameraError(f"set_focus: no frame at the new focus within {patience_s:.1f} s")
        return last

    def _on_capture_stack(
        self, request: CaptureStack.Request, response: CaptureStack.Response
    ) -> CaptureStack.Response:
        sweep, camera = self._running_sweep(), self._camera
        wanted = len(request.focus_diopters) or len(sweep.focus_diopters)
        frames = sweep.capture(list(request.focus_diopters), sweep.time_for_s(wanted))
        lens = camera.lens if camera is not None else None
        frame_id = self.parameters[FocusSweepParameters].frame_id
        middle = int(np.argsort([swept.frame.focus_diopters for swept in frames])[len(frames) // 2])
        response.stack = stack_message(
            [swept_message(swept, frame_id, lens) for swept in frames], lens, middle
        )
        response.success = True
        return response

    def status(self) -> tuple[bytes, str, Mapping[str, Any]]:
        values: dict[str, Any] = {"camera": self.parameters[FocusSweepParameters].camera}
        sweep = self._sweep
        if self._finished:
            return DiagnosticStatus.OK, self._finished, values
        if self._camera_error or sweep is None:
            return DiagnosticStatus.ERROR, self._camera_error or "the camera is starting", values
        statistics, held = sweep.statistics, sweep.held_diopters
        values |= {
            "slice rate [Hz]": statistics.achieved_rate_hz,
            "possible slice rate [Hz]": statistics.possible_rate_hz,
            "sweeps": statistics.sweeps,
            "frames discarded: lens moving": statistics.frames_discarded,
            "frames lost by the camera": statistics.frames_lost,
            "frames dropped: publishing too slow": statistics.frames_dropped,
            "focus": "sweeping" if held is None else f"held at {held:g} 1/m",
        }
        slow = 0.0 < statistics.achieved_rate_hz < 0.8 * statistics.possible_rate_hz
        level = DiagnosticStatus.WARN if slow else DiagnosticStatus.OK
        return level, f"{statistics.achieved_rate_hz:.1f} slices/s", values


def main() -> int:
    """`ros2 run hybriddepth_ros focus_sweep`."""
    return run_node(FocusSweepNode)


if __name__ == "__main__":
    sys.exit(main())
