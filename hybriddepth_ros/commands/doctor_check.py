"""One finding of `hybriddepth doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Check:
    """state is ok, warn or missing; `essential` if nothing works without it."""

    name: str
    state: str
    found: str
    next_step: str = ""
    essential: bool = False
