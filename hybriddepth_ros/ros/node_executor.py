"""An executor whose messages wait for nothing, and which waits without turning in circles."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from rclpy.context import Context
from rclpy.executors import ConditionReachedException, Executor, ShutdownException, TimeoutException
from rclpy.subscription import Subscription
from rclpy.task import Task
from rclpy.timer import Timer

SERVICE_THREADS = 2  # one may wait for the next estimate while another changes the state


class NodeExecutor(Executor):
    """Subscriptions and timers are called in the thread that spins, one after the other; services, which may
    take as long as a model takes to load, in others.

    rclpy's MultiThreadedExecutor hands every message to another thread. Until that has taken it, the
    middleware says at once that there is something to do, and the thread that spins finds nothing and asks
    again: with large messages it held the interpreter as long as the estimates did. on_error: told what a
    callback raised, by the thread that called it.
    """

    def __init__(self, context: Context, on_error: Callable[[BaseException], None]) -> None:
        super().__init__(context=context)
        self._on_error = on_error
        self._pool = ThreadPoolExecutor(SERVICE_THREADS, thread_name_prefix="service")
        self._waiting: set[Task] = (
            set()
        )  # for a thread of the pool; until then the base class offers it again

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for work, at most so long, and do it or have it done; ExternalShutdownException where the
        context is no more.
        """
        try:
            task, entity, _ = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException, ConditionReachedException):
            return
        if isinstance(entity, (Subscription, Timer)):
            self._run(task)
        elif task not in self._waiting:
            self._waiting.add(task)
            self._pool.submit(self._run, task)

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """As the base class; what runs in other threads is not waited for longer than that."""
        ended: bool = super().shutdown(timeout_sec)
        self._pool.shutdown(wait=False)
        return ended

    def _run(self, task: Task) -> None:
        task()
        self._waiting.discard(task)
        error = task.exception()
        if error is not None:
            self._on_error(error)
