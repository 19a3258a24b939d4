"""How a program of ours ends: with its exit code, whatever its threads are still at."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time

GRACE_S = 0.3


def leave(code: int) -> int:
    """The exit code, for `sys.exit`; where a thread does not end by itself, the process ends here, with that
    code.

    To be called last, after everything was cleaned up. Python's exit would end a thread that is inside
    PyTorch, say, the moment it came back from there, and C++ aborts the process on that.
    """
    if not _is_anyone_at_work(GRACE_S):
        return code
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # closed, or nobody reads it any more
            stream.flush()
    os._exit(code)


def _is_anyone_at_work(patience_s: float) -> bool:
    """Whether a thread beside this one outlives the wait [s]."""
    end = time.monotonic() + patience_s
    others = [thread for thread in threading.enumerate() if thread is not threading.current_thread()]
    while any(thread.is_alive() for thread in others):
        if time.monotonic() >= end:
            return True
        time.sleep(0.01)
    return False
