"""`hybriddepth bench`: how fast the package is on this machine, as figures, a page and a plot."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Annotated, Optional

import typer

from hybriddepth_ros.commands.demo import keep_to_this_machine
from hybriddepth_ros.commands.output import OutputFolder, to_json
from hybriddepth_ros.commands.stopping import stop_on_signals
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.ros.dds import check_environment


def bench(
    json: Annotated[
        Optional[Path], typer.Option("--json", metavar="FILE", help="Also write the figures into FILE.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer runs: four minutes on two cores, less exact.")
    ] = False,
    docs: Annotated[
        Optional[Path],
        typer.Option(
            "--docs", metavar="FOLDER", help="Also write benchmarks.md and benchmarks.png, or soak.md."
        ),
    ] = None,
    soak: Annotated[
        Optional[float],
        typer.Option(
            "--soak",
            metavar="SECONDS",
            min=10.0,
            help="Instead, feed the depth node for so long, and print whether it leaks memory or slices.",
        ),
    ] = None,
) -> int:
    """Measure rate, latency, time per stage and memory, each beside a baseline of the same run.

    Nothing else should run meanwhile. Where ROS is missing, the figures of the node are left out.
    --soak: exit code 1 where memory grew or a slice was lost uncounted.
    """
    keep_to_this_machine()
    check_environment()
    with stop_on_signals() as stop, stop.interrupting():  # else SIGTERM would leave the node's process alone
        return _bench(json, quick, docs) if soak is None else _soak(soak, json, docs)


def _bench(json: Optional[Path], quick: bool, docs: Optional[Path]) -> int:
    from hybriddepth_ros.bench.measuring import measure
    from hybriddepth_ros.bench.report import FILES, chart, markdown, print_table
    from hybriddepth_ros.bench.rows import document

    with _folder(docs, FILES, "--docs") as pages:
        with _folder(json and json.parent, [json.name] if json else [], "--json") as folder:
            made = document(*measure(quick, lambda what: print(f"measuring: {what} ...", flush=True)))
            if json is not None and folder is not None:
                folder.write_json(json.name, made)
        print_table(made)
        if pages is not None:
            pages.write_text(FILES[0], markdown(made, f"hybriddepth bench{' --quick' if quick else ''}"))
            pages.write_bytes(FILES[1], chart(made))
    return 0


def _soak(seconds: float, json: Optional[Path], docs: Optional[Path]) -> int:
    try:
        from hybriddepth_ros.ros.soak import soak
    except ImportError as error:
        raise HybridDepthError(f"bench --soak needs ROS: {error}") from None
    from hybriddepth_ros.bench.report import SOAK_FILE, soak_markdown
    from hybriddepth_ros.bench.rows import commit, machine

    with _folder(docs, [SOAK_FILE], "--docs") as pages:
        with _folder(json and json.parent, [json.name] if json else [], "--json") as folder:
            result = soak(seconds)
            if json is not None and folder is not None:
                folder.write_text(json.name, to_json(result))
        print(to_json(result), end="")
        if pages is not None:
            pages.write_text(SOAK_FILE, soak_markdown(result, machine(), commit()))
    return 0 if result["passed"] else 1


def _folder(
    path: Optional[Path], names: Sequence[str], option: str
) -> AbstractContextManager[Optional[OutputFolder]]:
    """Refused before anything is measured, where it cannot be written."""
    return nullcontext() if path is None else OutputFolder(path, names, option)
