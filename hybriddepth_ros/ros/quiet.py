"""A terminal on which a command tells what went wrong, once, and not the nodes beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rclpy.logging import LoggingSeverity, set_logger_level

from hybriddepth_ros.ros.schema import NODES


@contextlib.contextmanager
def quiet_start(namespace: str) -> Iterator[None]:
    """Keeps the nodes' own log off the terminal: why a start failed is told once, by the command."""
    loggers = [".".join([*filter(None, namespace.split("/")), node]) for node in NODES]
    for logger in loggers:
        set_logger_level(logger, LoggingSeverity.FATAL)
    try:
        yield
    finally:
        for logger in loggers:
            set_logger_level(logger, LoggingSeverity.UNSET)
