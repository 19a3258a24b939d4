"""The lifecycle node that both nodes are: heavy transitions off the executor, everything released."""

from __future__ import annotations

import threading
import time
import traceback
from abc import abstractmethod
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, TypeVar

from diagnostic_msgs.msg import DiagnosticStatus
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup, ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.lifecycle.publisher import LifecyclePublisher
from rclpy.parameter import Parameter
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.task import Future

from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.ros.diagnostics import Counters, DiagnosticsPublisher, LogThrottle, StallWatch
from hybriddepth_ros.ros.parameters import NodeParameters
from hybriddepth_ros.ros.schema import parameter_groups

Result = TypeVar("Result")


class ManagedNode(LifecycleNode):
    """A lifecycle node whose subclass says what to acquire; what it acquires is released in reverse order.

    `configure(resources)` and `activate(resources)` enter contexts and callbacks into an ExitStack;
    deactivate, cleanup, shutdown and a failure half-way close it. HybridDepthError there is a failed
    transition with one logged line.
    """

    _destroyed = False

    def __init__(self, name: str, **node_arguments: Any) -> None:
        super().__init__(name, **node_arguments)
        self.counters = Counters()
        self.failure = ""
        self.closing = threading.Event()  # set for good: whatever waits or loops is to end
        self._throttle = LogThrottle()
        self._stalls = StallWatch()
        self._configured: ExitStack | None = None
        self._active: ExitStack | None = None
        self._transition_lock = threading.RLock()
        self.services_group = ReentrantCallbackGroup()
        self.input_group = MutuallyExclusiveCallbackGroup()
        groups = parameter_groups(name)
        self.parameters = NodeParameters(
            self, groups, lambda: self._state not in ("unconfigured", "finalized"), self.parameters_changed
        )
        for line in self.parameters.unknown(list(getattr(self, "_parameter_overrides", {}))):
            self.get_logger().warning(line)
        self.diagnostics = DiagnosticsPublisher(self, self._status, self.guarded)
        self._answer_transitions_off_the_executor()

    # -- what a node says

    @abstractmethod
    def configure(self, resources: ExitStack) -> None:
        """Take devices, load models, make publishers."""

    @abstractmethod
    def activate(self, resources: ExitStack) -> None:
        """Start to work."""

    @abstractmethod
    def status(self) -> tuple[bytes, str, Mapping[str, Any]]:
        """Level, message and values for /diagnostics while active."""

    def parameters_changed(self) -> None:
        """Called after dynamic parameters were applied."""

    # -- what a node uses

    @property
    def autostart(self) -> bool:
        """Whether to configure and activate without being told to."""
        return bool(self.get_parameter("autostart").value)

    @property
    def is_active(self) -> bool:
        return self._active is not None

    def problem(self, cause: str, text: str, amount: int = 1) -> None:
        """Count under `cause` and log one throttled warning: the node goes on."""
        self.counters.add(cause, amount)
        line = self._throttle.pass_through(cause, f"{cause}: {text}" if text else cause)
        if line:
            self.get_logger().warning(line)

    def tell(self, text: str) -> None:
        """Log at level info, throttled."""
        line = self._throttle.pass_through(text, text)
        if line:
            self.get_logger().info(line)

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """`callback`, made safe to hand to an executor, which would end at its first exception."""

        def run(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except HybridDepthError as error:
                self.problem(type(error).__name__, str(error))
            except Exception as error:
                self.unexpected(error)

        return run

    def unexpected(self, error: Exception) -> None:
        """Report an exception that nobody foresaw: counted, one throttled line, the trace at debug level."""
        self.problem("exceptions", f"{type(error).__name__}: {error}")
        self.get_logger().debug("".join(traceback.format_exception(error)))

    def publisher(self, resources: ExitStack, kind: type, topic: str, depth: int) -> LifecyclePublisher:
        """Reliable, keep-last, QoS overridable by parameter; destroyed with `resources`."""
        made = self.create_lifecycle_publisher(
            kind,
            topic,
            QoSProfile(depth=depth, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE),
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        resources.callback(self.destroy_lifecycle_publisher, made)
        return made

    def subscription(
        self, resources: ExitStack, kind: type, topic: str, callback: Callable[[Any], None], qos: QoSProfile
    ) -> None:
        """QoS overridable by parameter; the callback cannot raise; destroyed with `resources`."""
        made = self.create_subscription(
            kind,
            topic,
            self.guarded(callback),
            qos,
            callback_group=self.input_group,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )
        resources.callback(self.destroy_subscription, made)

    def send(self, publisher: LifecyclePublisher, message: Any) -> None:
        """Publish, whoever stalls: that is counted and told, and the newest messages replace what waits."""
        if self._stalls.seen(publisher):
            self.problem("messages to a subscriber that stalls", f"on {publisher.topic_name}")
        publisher.publish(message)

    def service(self, kind: type, name: str, answer: Callable[[Any, Any], Any]) -> None:
        """A service for as long as the node lives, whose `answer` may take its time: it runs in a thread.

        A service destroyed with a call under way would leave the caller waiting for ever. So in every state
        there is an answer, if only that the node is not active; whatever waits is to end with `is_active`.
        """

        def safe_answer(request: Any, response: Any) -> Any:
            try:
                return answer(request, response)
            except Exception as error:
                if not isinstance(error, HybridDepthError):
                    self.unexpected(error)
                response.success, response.message = False, str(error) or type(error).__name__
                return response

        async def serve(request: Any, response: Any) -> Any:
            return await self._in_thread(lambda: safe_answer(request, response))

        self.create_service(kind, name, serve, callback_group=self.services_group)

    # -- lifecycle

    def start(self) -> None:
        """Configure and activate; raises HybridDepthError with the reason when a transition fails."""
        with self._transition_lock:
            for transition in (self.trigger_configure, self.trigger_activate):
                if self.closing.is_set():
                    raise HybridDepthError(f"{self.get_name()}: stopped while starting")
                if transition() != TransitionCallbackReturn.SUCCESS:
                    raise HybridDepthError(f"{self.get_name()}: {self.failure}")

    def stop(self) -> None:
        """Release everything for good, whatever the state."""
        self.closing.set()
        with self._transition_lock:
            if self._state in ("unconfigured", "inactive", "active"):
                self.trigger_shutdown()
            self._release()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._configured, result = self._acquire(self.configure, "configure")
        return result

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        super().on_activate(state)  # publishers first: the first result must not be lost
        self._active, result = self._acquire(self.activate, "activate")
        if result != TransitionCallbackReturn.SUCCESS:
            super().on_deactivate(state)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release_active()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        self.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        self.stop()
        super().destroy_node()
        # rclpy leaves it to the garbage collector, and with it the participant and its shared memory
        self._destroyed = True
        self._state_machine.destroy_when_not_in_use()

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        # rclpy checks the descriptor's range before our callback and names neither the value nor the bounds
        refusal = self.parameters.check(parameter_list)
        return refusal if not refusal.successful else super().set_parameters_atomically(parameter_list)

    def _acquire(
        self, acquire: Callable[[ExitStack], None], name: str
    ) -> tuple[ExitStack | None, TransitionCallbackReturn]:
        self.failure = ""
        with ExitStack() as resources:
            try:
                acquire(resources)
                return resources.pop_all(), TransitionCallbackReturn.SUCCESS
            except HybridDepthError as error:
                self.failure = str(error)
            except Exception as error:
                self.failure = f"{type(error).__name__}: {error}"
                self.get_logger().debug(traceback.format_exc())
            self.get_logger().error(f"cannot {name}: {self.failure}")
        return None, TransitionCallbackReturn.FAILURE

    def _release(self) -> None:
        self._release_active()
        resources, self._configured = self._configured, None
        if resources:
            resources.close()

    def _release_active(self) -> None:
        resources, self._active = self._active, None
        if resources:
            resources.close()

    # -- off the executor

    def _answer_transitions_off_the_executor(self) -> None:
        """Loading a model takes seconds, in which an executor that waited would answer nothing, not even
        get_state.

        Also, rclpy lets the exception of a transition that the state does not allow end the executor.
        """
        inner = self._service_change_state.callback

        def change(request: Any, response: Any) -> Any:
            with self._transition_lock:
                try:
                    return inner(request, response)
                except Exception as error:  # RCLError is not a public name
                    self.get_logger().warning(f"transition refused in state {self._state}: {error}")
                    response.success = False
                    return response

        async def serve(request: Any, response: Any) -> Any:
            return await self._in_thread(lambda: change(request, response))

        self._service_change_state.callback = serve
        for service in (self._service_change_state, self._service_get_state):
            service.callback_group = self.services_group
            self.services_group.add_entity(service)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        """Await `work` without holding a thread of the executor."""
        future: Future = Future(executor=self.executor)

        def run() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)
            # An executor looks at awaiting tasks only when something wakes it, and may have looked just
            # before the result was set: the second call is for that case.
            for pause_s in (0.0, 0.01):
                time.sleep(pause_s)
                if self.executor is not None:
                    self.executor.wake()

        threading.Thread(target=run, name=f"{self.get_name()}_service", daemon=True).start()
        result: Result = await future
        return result

    def _status(self) -> tuple[bytes, str, Mapping[str, Any]]:
        if self.is_active:
            level, message, values = self.status()
        else:
            level = DiagnosticStatus.ERROR if self.failure else DiagnosticStatus.OK
            message, values = self.failure, {}
        state = self._state
        return level, message or state, {"state": state, **values, **self.counters.snapshot()}

    @property
    def _state(self) -> str:
        """The lifecycle state as ROS names it; during a transition `configuring`, `activating` ..."""
        return "finalized" if self._destroyed else str(self._state_machine.current_state[1])
