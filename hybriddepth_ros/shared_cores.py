"""Threads of PyTorch on cores that other processes also want: a robot's always are."""

from __future__ import annotations

import os


def share_cores() -> None:
    """Let PyTorch's threads sleep while one waits for another, unless the user says what they shall do.

    They would spin, and on busy cores keep the very thread waiting for which they wait: with one other
    process on two cores `sweepnet` took 668 ms instead of 385, with two of them 1862 instead of 729; with
    none 276 instead of 303 (AMD EPYC). To be called before torch is imported, which reads the variable then.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
