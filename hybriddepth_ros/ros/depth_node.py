"""The `depth` node: focal slices in; depth, sigma, all-in-focus image and point cloud out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import SetBool, Trigger

from hybriddepth_msgs.msg import CompressedFocalSlice
from hybriddepth_ros.clock_check import ClockCheck
from hybriddepth_ros.errors import HybridDepthError, ModelError
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator, EstimatorOptions, load_estimator
from hybriddepth_ros.focal_stack import FocalSlice
from hybriddepth_ros.models import usable_precision
from hybriddepth_ros.point_cloud import PointCloudOptions
from hybriddepth_ros.ros.assembler import MAX_SLICES, SliceGaps, StackAssembler
from hybriddepth_ros.ros.compressed import check_compressed_slice
from hybriddepth_ros.ros.decoding import stack_of_read
from hybriddepth_ros.ros.depth_outputs import DepthOutputs, save_estimate
from hybriddepth_ros.ros.diagnostics import LatencyMeter, RateMeter, resident_memory_mb
from hybriddepth_ros.ros.inputs import SLICE_TOPICS, AnySlice, subscribe
from hybriddepth_ros.ros.lifecycle import ManagedNode
from hybriddepth_ros.ros.local_slices import LocalSlices
from hybriddepth_ros.ros.messages import check_place, check_slice, from_time
from hybriddepth_ros.ros.schema import SLICE, DepthParameters
from hybriddepth_ros.ros.slice_pipeline import (
    ESTIMATED,
    INACTIVE,
    MISSING,
    MOVING,
    NOT_NEEDED,
    RECEIVED,
    REFUSED,
    PipelineEvents,
    SlicePipeline,
    read_slice,
)
from hybriddepth_ros.ros.spin import run_node
from hybriddepth_ros.ros.worker import NewestFirstWorker
from hybriddepth_ros.slice_windows import RollingOptions

SAVE_TIMEOUT_S = 5.0
ESTIMATE_TIMEOUT_S = 10.0
LAST_ESTIMATE_TIMEOUT_S = 0.5  # a Spinner waits longer, and then destroys what else would stay in /dev/shm


class DepthNode(ManagedNode):
    """Callbacks only hand references on; one worker converts, estimates and publishes the newest stack."""

    def __init__(self, local_slices: LocalSlices | None = None, **node_arguments: Any) -> None:
        """local_slices: take slices from there instead of from the topic."""
        self._local_slices = local_slices
        self._estimator: DepthEstimator | None = None
        self._outputs: DepthOutputs | None = None
        self._worker: NewestFirstWorker[list[AnySlice]] | None = None
        self._assembler: StackAssembler[AnySlice] | None = None
        self._pipeline: SlicePipeline | None = None
        self._gaps = SliceGaps()
        self.replaced = ""  # which model runs in place of which, and why
        self._enabled = True
        self._latest: DepthEstimate | None = None
        self._estimating_since_s: float | None = None  # in time.monotonic()
        self._new_estimate = threading.Condition()
        self._saves_waiting = 0
        self._slice_rate, self._depth_rate, self._latency = RateMeter(), RateMeter(), LatencyMeter()
        self._clocks, self._clocks_told = ClockCheck(), False
        super().__init__("depth", **node_arguments)
        self.service(SetBool, "~/enable", self._on_enable)
        self.service(Trigger, "~/save", self._on_save)

    # -- lifecycle

    def configure(self, resources: ExitStack) -> None:
        parameters = self.parameters[DepthParameters]
        resources.callback(self._forget)
        self._estimator = self._load_estimator()
        if parameters.warm_up:
            self._warm_up(self._estimator)
        self.diagnostics.hardware_id = parameters.device
        self._outputs = DepthOutputs(self, resources, parameters.output_queue_size)

    def _warm_up(self, estimator: DepthEstimator) -> None:
        """Whatever comes of it: real stacks may be smaller than the made-up one."""
        try:
            estimator.warm_up(rolling=self.parameters[DepthParameters].update == SLICE)
        except HybridDepthError as error:
            self.problem("warm-up failed", str(error))

    def activate(self, resources: ExitStack) -> None:
        parameters = self.parameters[DepthParameters]
        self._clocks, self._clocks_told = ClockCheck(), False
        self._gaps = SliceGaps()
        if parameters.update == SLICE:
            assert self._estimator is not None
            self._pipeline = SlicePipeline(
                self._estimator,
                self.parameters[RollingOptions],
                parameters.input_queue_size,
                PipelineEvents(
                    self._publish, self._on_refused, self.unexpected, self._on_drop, self.counters.add
                ),
            )
        else:
            self._assembler = StackAssembler(self._on_drop, parameters.min_slices)
            self._worker = NewestFirstWorker(
                self._estimate, self.unexpected, parameters.stack_queue_size, name="depth_worker"
            )
        resources.callback(self._close_workers)
        resources.callback(self._wake_savers)
        if self._local_slices is not None and parameters.input == "slices":
            resources.callback(self._local_slices.connect(self.guarded(self._on_slice)))
        else:
            subscribe(self, resources, parameters, self._on_slice)

    def is_wanted(self, topic: str) -> bool:
        """Whether anybody subscribes to one of the outputs."""
        return self._outputs is not None and self._outputs.wanted(topic)

    def parameters_changed(self) -> None:
        if self._estimator is not None:
            self._estimator.options = self.parameters[EstimatorOptions]
        if self._assembler is not None:
            self._assembler.min_slices = self.parameters[DepthParameters].min_slices
        if self._pipeline is not None:
            self._pipeline.set_options(self.parameters[RollingOptions])

    def _close_workers(self) -> None:
        """Wait for the estimate in hand, as there is to be one at a time; a node that ends waits less."""
        for worker in (self._worker, self._pipeline):
            if worker is not None:
                worker.close(LAST_ESTIMATE_TIMEOUT_S if self.closing.is_set() else ESTIMATE_TIMEOUT_S)
        self._worker = self._assembler = self._pipeline = None

    def _wake_savers(self) -> None:
        with self._new_estimate:
            self._new_estimate.notify_all()

    def _load_estimator(self) -> DepthEstimator:
        parameters, options = self.parameters[DepthParameters], self.parameters[EstimatorOptions]
        try:
            return load_estimator(
                parameters.model,
                parameters.device,
                options,
                parameters.weights,
                parameters.precision,
                parameters.prior,
                parameters.prior_weights,
                parameters.engine,
            )
        except ModelError as error:
            if not parameters.model_fallback:
                raise
            self.replaced = f"{parameters.model_fallback} runs instead of {parameters.model}: {error}"
            self.problem("model replaced", self.replaced)
            precision = usable_precision(parameters.model_fallback, parameters.precision)
            return load_estimator(parameters.model_fallback, parameters.device, options, precision=precision)

    def _forget(self) -> None:
        self._estimator = self._outputs = self._latest = None
        self.replaced = ""

    # -- from slices to a stack, in the executor: references only

    def _on_slice(self, message: AnySlice) -> None:
        self._slice_rate.tick()
        self.counters.add(RECEIVED)
        focus = message.focus
        if missing := self._gaps.before(focus.sweep_id, focus.slice_index, focus.slice_count):
            self.problem(
                MISSING, f"{missing} before sweep {focus.sweep_id}, slice {focus.slice_index}", missing
            )
        try:
            if isinstance(message, CompressedFocalSlice):
                check_compressed_slice(message)
            else:
                check_slice(message)
            check_place(focus, MAX_SLICES)
        except HybridDepthError as error:
            self.problem(REFUSED, str(error))
            return
        stamp_ns = from_time(message.header.stamp)
        self._clocks.add(stamp_ns, self.get_clock().now().nanoseconds)
        if not focus.settled:
            self.problem(MOVING, f"sweep {focus.sweep_id}, slice {focus.slice_index}")
            return
        if (pipeline := self._pipeline) is not None:
            if self._is_needed():
                pipeline.offer(message)
            else:
                self.counters.add(NOT_NEEDED)
        elif (assembler := self._assembler) is not None:
            for stack in assembler.add(
                focus.sweep_id, focus.slice_index, focus.slice_count, stamp_ns, message
            ):
                self._on_stack(stack)
        else:
            self.counters.add(INACTIVE)

    def _is_needed(self) -> bool:
        return self._enabled and bool(
            self._saves_waiting or (self._outputs is not None and self._outputs.any_wanted())
        )

    def _on_stack(self, slices: list[AnySlice]) -> None:
        assert self._worker is not None
        if len(slices) < 2:
            self.counters.add("sweeps of one slice: focus held")
            return
        self.counters.add("stacks received")
        if not self._is_needed():
            self.counters.add("stacks not needed")
        elif dropped := self._worker.offer(slices):
            self.counters.add("stacks dropped: a newer one came first", dropped)

    def _on_drop(self, cause: str, slices: int) -> None:
        self.problem(f"dropped: {cause}", f"{slices} slices" if slices != 1 else "1 slice")

    def _on_refused(self, what: str, error: HybridDepthError) -> None:
        self.problem(what, str(error))

    # -- from a stack to messages, in the worker

    def _estimate(self, messages: list[AnySlice]) -> None:
        estimator = self._estimator
        if estimator is None:
            return
        self._estimating_since_s = time.monotonic()
        try:
            messages, read = self._read(messages)
            if not read:
                return
            estimate = estimator(stack_of_read(read, messages))
        except HybridDepthError as error:
            self.problem("stacks refused", str(error))
            return
        finally:
            self._estimating_since_s = None
        self._publish(estimate, messages[estimate.registration.reference].header.frame_id)

    def _publish(self, estimate: DepthEstimate, frame_id: str) -> None:
        outputs = self._outputs
        if self.closing.is_set() or outputs is None:
            self.counters.add(INACTIVE)
            return  # nobody waited for it: the publishers may be gone
        if estimate.camera is None:
            self.problem("no intrinsics", "camera_info has K = 0: no depth/points, no camera_info")
        outputs.publish(
            estimate,
            frame_id,
            self.parameters[DepthParameters].depth_encoding,
            self.parameters[PointCloudOptions],
        )
        now_ns = self.get_clock().now().nanoseconds
        self._latency.add((now_ns - estimate.stamp_ns) * 1e-6)
        self._depth_rate.tick()
        self.counters.add(ESTIMATED)
        if unused := int((~estimate.registration.used).sum()):
            self.counters.add("slices dropped by registration", unused)
        with self._new_estimate:
            self._latest = estimate
            self._new_estimate.notify_all()

    def _read(self, messages: list[AnySlice]) -> tuple[list[AnySlice], list[FocalSlice]]:
        """The slices that can be decoded, and their messages; none if they are too few for `min_slices`."""
        good, read = [], []
        for message in messages:
            try:
                read.append(read_slice(message))
                good.append(message)
            except HybridDepthError as error:
                self.problem("slices refused", str(error))
        if len(read) < len(messages) and not 2 <= self.parameters[DepthParameters].min_slices <= len(read):
            self._on_drop("incomplete sweep", len(read))
            return [], []
        return good, read

    # -- services and diagnostics

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled"
        return response

    def _on_save(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        estimate = self._await_estimate()
        if estimate is None:
            waited = f"none came within {SAVE_TIMEOUT_S:g} s" if self.is_active else "the node is not active"
            raise HybridDepthError(f"no estimate yet, and {waited}")
        directory = Path(self.parameters[DepthParameters].save_directory).expanduser().absolute()
        save_estimate(estimate, directory, self.parameters[PointCloudOptions])
        response.success, response.message = True, f"{directory} (stamp {estimate.stamp_ns * 1e-9:.6f})"
        return response

    def _await_estimate(self) -> DepthEstimate | None:
        """The next estimate, made even if nobody subscribes; the last one if none comes."""
        with self._new_estimate:
            before = self._latest
            self._saves_waiting += 1
            try:
                if self.is_active and self._enabled:
                    self._new_estimate.wait_for(
                        lambda: self._latest is not before or not self.is_active, SAVE_TIMEOUT_S
                    )
                return self._latest
            finally:
                self._saves_waiting -= 1

    def status(self) -> tuple[bytes, str, Mapping[str, Any]]:
        parameters = self.parameters[DepthParameters]
        slice_rate, depth_rate = self._slice_rate.hz, self._depth_rate.hz
        values: dict[str, Any] = {
            "model": getattr(self._estimator, "model_name", parameters.model),
            "weights": getattr(self._estimator, "weights", parameters.weights),
            "prior": getattr(self._estimator, "prior_name", parameters.prior),
            "prior weights": getattr(self._estimator, "prior_weights", parameters.prior_weights),
            "device": str(getattr(self._estimator, "device", parameters.device)),
            "engine": parameters.engine,
            "update": parameters.update,
            "enabled": self._enabled,
            "slice rate [Hz]": slice_rate,
            "depth rate [Hz]": depth_rate,
            **{f"latency {name} [ms]": value for name, value in self._latency.summary().items()},
            "memory [MB]": resident_memory_mb(),
        }
        if (least_ms := self._clocks.least_ms) is not None:
            values["least latency of a slice [ms]"] = least_ms
        if (since_s := self._estimating_since_s) is not None:
            values["estimate running [s]"] = time.monotonic() - since_s
        if self._latest is not None:
            values |= {f"time {stage} [ms]": float(ms) for stage, ms in self._latest.timings_ms.items()}
        if not all(worker.alive for worker in (self._worker, self._pipeline) if worker is not None):
            return DiagnosticStatus.ERROR, "the thread that estimates has ended", values
        warnings = []
        if slice_rate == 0.0:
            warnings.append(f"no slices arrive ({parameters.input}){self._hint()}")
        elif self._latest is not None and self._latest.camera is None:
            warnings.append("no intrinsics: neither a cloud nor camera_info")
        if clocks := self._clocks.verdict():
            warnings.append(clocks)
            if not self._clocks_told:
                self.get_logger().warning(clocks)
                self._clocks_told = True
        if self.replaced:
            warnings.append(self.replaced)
        if warnings:
            return DiagnosticStatus.WARN, "; ".join(warnings), values
        return DiagnosticStatus.OK, f"{depth_rate:.1f} depth images/s", values

    def _hint(self) -> str:
        """Which other `input` there would be slices for."""
        others = {
            name: topic
            for name, topic in SLICE_TOPICS.items()
            if name != self.parameters[DepthParameters].input
        }
        for name, topic in others.items():
            if self.count_publishers(topic):
                return f", but {topic} is published: `input: {name}`"
        return ""


def main() -> int:
    """`ros2 run hybriddepth_ros depth`."""
    return run_node(DepthNode)


if __name__ == "__main__":
    sys.exit(main())
