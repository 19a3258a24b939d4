"""A depth model that is inside PyTorch's C++ for a minute.

`python -m tests.busy_model depth|hybriddepth ...` is the node, or the command, with the model `busy` beside
the others.
"""

from __future__ import annotations

import importlib
import sys
import time

from hybriddepth_ros.models import AlignedStack, FocusEstimate, base

PROGRAMS = {"depth": "hybriddepth_ros.ros.depth_node", "hybriddepth": "hybriddepth_ros.__main__"}
BEGUN = "the model is computing"


class Busy:
    """Says when it begins. Each product is some 50 ms without the interpreter's lock, as a convolution is."""

    device = "cpu"

    def __init__(self, device: str) -> None:
        import torch  # as late as real models do, and as early: while they load

        torch.set_num_threads(1)
        self._multiply, self._matrix = torch.mm, torch.rand(1500, 1500)

    def __call__(self, stack: AlignedStack) -> FocusEstimate:
        print(BEGUN, flush=True)
        end = time.monotonic() + 60.0
        while time.monotonic() < end:
            self._multiply(self._matrix, self._matrix)
        raise AssertionError("nobody stopped it")


if __name__ == "__main__":
    base._MODELS["busy"] = "tests.busy_model:Busy"
    program = PROGRAMS[sys.argv.pop(1)]
    sys.exit(importlib.import_module(program).main())
