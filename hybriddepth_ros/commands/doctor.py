"""`hybriddepth doctor`: what is installed, what is missing, and what to do about it."""

# The typer of Ubuntu 24.04 does not evaluate annotations, so they are not postponed (__future__) here.

from dataclasses import asdict
from typing import Annotated

import typer

from hybriddepth_ros.commands.doctor_check import Check
from hybriddepth_ros.commands.doctor_checks import NEEDED_FOR_ROS, run_checks
from hybriddepth_ros.commands.output import to_json

_COLOURS = {"ok": "green", "warn": "yellow", "missing": "red"}


def doctor(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> int:
    """Check this machine: Python, packages, ROS, GPU, cameras, lenses, DDS, weights, disk.

    Each check is ok, warn (works, with a limit) or missing, with the next step. Exit 0 unless something that
    every use needs is missing (1).
    """
    checks = run_checks()
    sound = not any(check.essential and check.state == "missing" for check in checks)
    if json:
        print(to_json({"sound": sound, "checks": [asdict(check) for check in checks]}), end="")
    else:
        _print_table(checks, sound)
    return 0 if sound else 1


def _print_table(checks: list[Check], sound: bool) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        state = typer.style(f"{check.state:<8}", fg=_COLOURS[check.state])
        typer.echo(f"{state}{check.name:<{width}}  {check.found}")
        if check.next_step:
            typer.echo(f"{'':<{8 + width}}  -> {check.next_step}")
    typer.echo()
    missing = [check.name for check in checks if check.state == "missing"]
    if not sound:
        typer.echo(
            f"nothing works without: {', '.join(c.name for c in checks if c.essential and c.name in missing)}"
        )
    elif lacking := [name for name in missing if name in NEEDED_FOR_ROS]:
        typer.echo(f"`hybriddepth depth` works; `run` and `demo` lack: {', '.join(lacking)}")
    else:
        typer.echo("all commands work")
