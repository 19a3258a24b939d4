"""A program of ours ends with its exit code, whether or not a thread is inside C++."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, sys, threading, time, torch
from hybriddepth_ros.leaving import leave

torch.set_num_threads(1)
atexit.register(print, "Python's own exit")
matrix, begun = torch.rand(1200, 1200), threading.Event()

def work():
    begun.set()
    end = time.monotonic() + {seconds}
    while time.monotonic() < end:
        torch.mm(matrix, matrix)

threading.Thread(target=work, daemon=True).start()
begun.wait()
print("last words", end="")
sys.exit(leave(3))
"""


def ended(seconds: float) -> subprocess.CompletedProcess[str]:
    """The program above, whose thread computes for so long."""
    command = [sys.executable, "-c", PROGRAM.format(seconds=seconds)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)


def test_a_thread_inside_pytorch_changes_neither_the_exit_code_nor_the_output() -> None:
    done = ended(seconds=60.0)
    assert (done.returncode, done.stdout, done.stderr) == (3, "last words", "")


def test_without_such_a_thread_python_ends_as_ever() -> None:
    done = ended(seconds=0.0)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == "last wordsPython's own exit\n"
