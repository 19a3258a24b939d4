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
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import Float32MultiArray

from hybriddepth_msgs.srv import CaptureStack, SetFocus
from hybriddepth_ros.cameras import (
    FocusCamera,
    FocusSweep,
    SweptFrame,
    make_camera,
)
from hybriddepth_ros.cameras.lens import lens_config_type, lens_names, make_lens
from hybriddepth_ros.cameras.supervisor import SweepListener, SweepSupervisor
from hybriddepth_ros.cameras.sweep_patterns import ADAPTIVE, TRIANGLE, Pattern, Triangle, sawtooth
from hybriddepth_ros.errors import CameraError, ParameterError
from hybriddepth_ros.ros.adaptive_foci import AdaptiveFoci
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.local_slices import LocalSlices
from hybriddepth_ros.ros.messages import demand_from, stack_message
from hybriddepth_ros.ros.schema import FocusSweepParameters, sweep_camera_type
from hybriddepth_ros.ros.spin import run_node
from hybriddepth_ros.ros.sweep_outputs import SweepOutputs, swept_message
from hybriddepth_ros.ros.sweep_positions import sweep_positions
from hybriddepth_ros.ros.topic_camera import topic_camera
from hybriddepth_ros.ros.topic_options import TopicCameraOptions

DEMAND_QOS = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)  # only the newest counts


class FocusSweepNode(ManagedNode):
    """A supervisor sweeps and reconnects, and its thread publishes; the executor only answers services."""

    def __init__(self, local_slices: LocalSlices | None = None, **node_arguments: Any) -> None:
        """local_slices: give slices there too."""
        self._local_slices = local_slices or LocalSlices()
        self._supervisor: SweepSupervisor | None = None
        self._focus_lock = threading.Lock()
        self._new_frame = threading.Condition()
        self._last: SweptFrame | None = None
        self._plan_warnings: set[str] = set()
        self._adaptive: AdaptiveFoci | None = None  # with `sweep: adaptive`, once a camera is open
        super().__init__("focus_sweep", **node_arguments)
        self.service(SetFocus, "~/set_focus", self._on_set_focus)
        self.service(CaptureStack, "~/capture_stack", self._on_capture_stack)

    # -- lifecycle

    def configure(self, resources: ExitStack) -> None:
        parameters = self.parameters[FocusSweepParameters]
        if self.get_parameter("use_sim_time").value:
            raise CameraError("use_sim_time: expected false: frames are exposed, and stamped, in system time")
        self._plan_warnings.clear()
        listener = SweepListener(
            frame=self._publish,
            failed=self._on_failure,
            unexpected=self.unexpected,
            recovered=lambda: self.tell("the camera delivers again"),
            finished=self.tell,
            warned=lambda text: self.problem("devices left behind", text),
            progress=self._tell_progress,
        )
        self._supervisor = supervisor = SweepSupervisor(
            self._make_camera,
            self._positions,
            parameters.sweep_options,
            listener,
            make_pattern=self._make_pattern,
            reopen_delay_max_s=lambda: self.parameters[FocusSweepParameters].reopen_delay_max,
        )
        resources.callback(supervisor.close)
        supervisor.open()
        self.diagnostics.hardware_id = parameters.camera
        self._outputs = SweepOutputs(self, resources, parameters, self._local_slices)

    def activate(self, resources: ExitStack) -> None:
        assert self._supervisor is not None
        self._last = None
        resources.callback(self._wake_waiting)
        resources.callback(self._supervisor.stop)
        self._adaptive = None
        self._supervisor.start()
        if self.parameters[FocusSweepParameters].sweep == ADAPTIVE:
            self.subscription(resources, Float32MultiArray, "focus_demand", self._on_demand, DEMAND_QOS)

    def _make_camera(self) -> FocusCamera:
        name = self.parameters[FocusSweepParameters].camera
        options: Any = self.parameters[sweep_camera_type(name)]
        lens_name = getattr(options, "lens", "")
        lens: Any = self.parameters[lens_config_type(lens_name)] if lens_name in lens_names() else None
        if not isinstance(options, TopicCameraOptions):
            return make_camera(name, options) if lens is None else make_camera(name, options, lens)
        if lens is None:
            raise CameraError(f"topic.lens: expected one of {', '.join(lens_names())}, got none")
        return topic_camera(self, options, make_lens(options.lens, lens), self._stopped)

    def _stopped(self) -> bool:
        return self.closing.is_set() or self._supervisor is None or self._supervisor.stopping

    def _positions(self, camera: FocusCamera) -> Sequence[float]:
        """The foci to sweep [1/m]."""
        positions, warnings = sweep_positions(self.parameters[FocusSweepParameters], camera)
        for warning in warnings:
            if warning not in self._plan_warnings:  # asked anew whenever the camera is opened again
                self._plan_warnings.add(warning)
                self.get_logger().warning(f"sweep: {warning}")
        return positions

    def _make_pattern(self, camera: FocusCamera) -> Pattern:
        parameters = self.parameters[FocusSweepParameters]
        if parameters.sweep == ADAPTIVE:
            foci, _ = sweep_positions(parameters, camera)
            self._adaptive = AdaptiveFoci(
                camera,
                parameters.sweep_options.focus_range(camera),
                parameters.adaptive_slice_count or len(foci),
                parameters.full_sweep_period,
            )
            return self._adaptive
        return Triangle() if parameters.sweep == TRIANGLE else sawtooth

    def _on_demand(self, message: Float32MultiArray) -> None:
        try:
            demand = demand_from(message)
        except ParameterError as error:
            self.problem("focus demands refused", str(error))
            return
        if (adaptive := self._adaptive) is not None:
            adaptive.take(demand)

    def _tell_progress(self, done: int, total: int) -> None:
        if self._stopped():
            raise CameraError("stopped while preparing the camera")
        if done % max(total // 4, 1) == 0:
            self.get_logger().info(f"preparing the camera: {done} of {total}")

    # -- in the supervisor's thread

    def _publish(self, swept: SweptFrame, camera: FocusCamera) -> None:
        self._outputs.publish(swept, camera.lens)
        with self._new_frame:
            self._last = swept
            self._new_frame.notify_all()

    def _on_failure(self, error: CameraError, delay_s: float) -> None:
        self._wake_waiting()
        self.problem("camera failures", f"{error}; next attempt in {delay_s:g} s")

    def _wake_waiting(self) -> None:
        with self._new_frame:
            self._new_frame.notify_all()

    # -- services and diagnostics

    @property
    def _sweep(self) -> FocusSweep | None:
        return self._supervisor.sweep if self._supervisor else None

    def _running_sweep(self) -> FocusSweep:
        supervisor, sweep = self._supervisor, self._sweep
        if sweep is None:
            reason = supervisor.error or supervisor.finished if supervisor and self.is_active else ""
            raise CameraError(reason or "the node is not active")
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
        sweep = self._running_sweep()
        camera = self._supervisor.camera if self._supervisor else None
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
        supervisor, sweep = self._supervisor, self._sweep
        if supervisor is not None and supervisor.finished:
            return DiagnosticStatus.OK, supervisor.finished, values
        error = supervisor.error if supervisor else ""
        if error or sweep is None:
            return DiagnosticStatus.ERROR, error or "the camera is starting", values
        statistics, held = sweep.statistics, sweep.held_diopters
        values |= {
            "slice rate [Hz]": statistics.achieved_rate_hz,
            "possible slice rate [Hz]": statistics.possible_rate_hz,
            "slice rate / possible": statistics.rate_ratio,
            "sweeps": statistics.sweeps,
            "frames discarded: lens moving": statistics.frames_discarded,
            "frames lost by the camera": statistics.frames_lost,
            "slices taken again": statistics.slices_retaken,
            "frames dropped: publishing too slow": statistics.frames_dropped,
            "focus": "sweeping" if held is None else f"held at {held:g} 1/m",
        }
        if (adaptive := self._adaptive) is not None:
            values |= {"sweeps: full": adaptive.full_sweeps, "sweeps: adaptive": adaptive.adaptive_sweeps}
        slow = 0.0 < statistics.rate_ratio < 0.8
        level = DiagnosticStatus.WARN if slow else DiagnosticStatus.OK
        return level, f"{statistics.achieved_rate_hz:.1f} slices/s", values


def main() -> int:
    """`ros2 run hybriddepth_ros focus_sweep`."""
    return run_node(FocusSweepNode)


if __name__ == "__main__":
    sys.exit(main())
