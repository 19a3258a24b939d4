"""`hybriddepth calibrate`: what a camera's moving focus means, step by step, into one YAML file."""

# ruff: noqa: UP045
# The typer of Ubuntu 24.04 knows neither `X | None` nor annotations that are not evaluated (__future__).

import re
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from hybriddepth_ros.commands.options import parse_assignments
from hybriddepth_ros.errors import HybridDepthError, OutputError, ParameterError
from hybriddepth_ros.parameters import nearest_name
from hybriddepth_ros.yaml_files import read_yaml

if TYPE_CHECKING:
    from hybriddepth_ros.calibration.board import BoardSpec
    from hybriddepth_ros.calibration.session import Session
    from hybriddepth_ros.cameras.calibration import CameraCalibration

STEPS = ("intrinsics", "latency", "breathing", "focus_table", "aperture")


def calibrate(
    camera: Annotated[str, typer.Option("--camera", help="Which camera: v4l2, or emulated.")] = "",
    out: Annotated[Path, typer.Option("--out", help="Folder of calibration.yaml and report.html.")] = Path(
        "out/calibration"
    ),
    only: Annotated[
        Optional[list[str]],
        typer.Option("--only", metavar="STEP", help=f"One step, may be repeated: {', '.join(STEPS)}."),
    ] = None,
    from_folder: Annotated[
        Optional[Path],
        typer.Option("--from-folder", metavar="DIR", help="Captured images with captures.yaml, no camera."),
    ] = None,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Write the images to OUT/images, for --from-folder.")
    ] = False,
    assignments: Annotated[
        Optional[list[str]],
        typer.Option("-p", metavar="NAME:=VALUE", help="An option of the camera; may be repeated."),
    ] = None,
    params: Annotated[
        Optional[Path],
        typer.Option(
            "--params", metavar="FILE", help="YAML file of the camera's options, or of the nodes' parameters."
        ),
    ] = None,
    board: Annotated[
        str, typer.Option("--board", metavar="CxR", help="Squares of the board, across and down.")
    ] = "9x7",
    square_mm: Annotated[
        float, typer.Option("--square-mm", help="Side of a square, as measured on the print [mm].")
    ] = 36.0,
    dictionary: Annotated[str, typer.Option("--dictionary", help="Marker set of the board.")] = "DICT_4X4_50",
    print_board: Annotated[
        Optional[Path],
        typer.Option("--print-board", metavar="FILE", help="Write the board as .pdf or .png, and leave."),
    ] = None,
    dpi: Annotated[float, typer.Option("--dpi", help="Resolution of that file.")] = 300.0,
    seed: Annotated[
        Optional[int], typer.Option("--seed", min=0, help="Which emulated camera.  [default: 0]")
    ] = None,
) -> int:
    """Calibrate a camera whose focus moves: intrinsics, breathing, focus table, settle time, latency, blur.

    Guided in the terminal; each step writes calibration.yaml at once, and --only repeats one. The camera
    `emulated` runs unattended and is held against truth.yaml.
    """
    from hybriddepth_ros.calibration.board import BoardSpec

    sides = re.fullmatch(r"(\d{1,3})x(\d{1,3})", board)
    if sides is None:
        raise ParameterError(f"--board {board}: expected squares across and down, such as 9x7")
    spec = BoardSpec(int(sides[1]), int(sides[2]), 1e-3 * square_mm, dictionary)
    if print_board is not None:
        from hybriddepth_ros.calibration.printing import write_board

        print(write_board(print_board, spec, dpi))
        return 0
    steps = _steps(only)
    if bool(camera) == (from_folder is not None):
        raise ParameterError("calibrate: expected --camera NAME or --from-folder DIR, one of both")
    if from_folder is not None:
        _refuse_for_folder(
            p=bool(assignments), params=params is not None, keep_images=keep_images, seed=seed is not None
        )
    elif seed is not None and camera != "emulated":
        raise ParameterError(f"--seed: expected none with --camera {camera}, only with emulated")
    _check_writable(out)
    with ExitStack() as opened:
        if from_folder is not None:
            session, truth = _from_folder(from_folder, out, spec), None
        elif camera == "emulated":
            options = {"seed": seed or 0, **_options(camera, params, assignments)}
            session, truth = _emulated(options, out, spec, keep_images, opened)
        else:
            options = _options(camera, params, assignments)
            session, truth = _live(camera, options, out, spec, keep_images, opened), None
        return _run(session, steps, out, from_folder or camera, truth)


def _steps(only: Optional[list[str]]) -> tuple[str, ...]:
    for name in only or ():
        if name not in STEPS:
            expected = f"expected one of {', '.join(STEPS)}{nearest_name(name, STEPS)}"
            raise ParameterError(f"--only {name}: {expected}")
    return tuple(only) if only else STEPS


def _options(camera: str, params: Optional[Path], assignments: Optional[list[str]]) -> dict[str, Any]:
    return {
        **(_of_file(camera, params) if params is not None else {}),
        **parse_assignments(assignments or []),
    }


def _of_file(camera: str, path: Path) -> dict[str, Any]:
    """The camera's options of a file that holds them alone, or of a parameter file of the nodes."""
    values = read_yaml(path, option="--params")
    if not isinstance(values, dict):
        raise ParameterError(f"--params {path}: expected the camera's options by name")
    sections = [
        v["ros__parameters"] for v in values.values() if isinstance(v, dict) and "ros__parameters" in v
    ]
    if not sections:
        return values
    found: dict[str, Any] = {}
    for section in (s for s in sections if isinstance(s, dict)):
        if isinstance(section.get(camera), dict):
            found |= section[camera]
        prefix = f"{camera}."
        found |= {name.removeprefix(prefix): v for name, v in section.items() if str(name).startswith(prefix)}
    if not found:
        raise ParameterError(
            f"--params {path}: expected options of the camera ({camera}:) in ros__parameters"
        )
    found.pop("calibration", None)  # it is what is being found, and need not be there yet
    return found


def _refuse_for_folder(**given: bool) -> None:
    for name, is_given in given.items():
        if is_given:
            option = "-p" if name == "p" else f"--{name.replace('_', '-')}"
            raise ParameterError(f"{option}: expected none with --from-folder, which needs no camera")


def _check_writable(out: Path) -> None:
    """Before anybody holds a board."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        raise OutputError(f"--out {out}: expected a writable folder ({error.strerror})") from None


def _from_folder(folder: Path, out: Path, board: "BoardSpec") -> "Session":
    from hybriddepth_ros.calibration.captures import read_captures
    from hybriddepth_ros.calibration.session import Session

    captures = read_captures(folder, board)
    return Session(out, captures.board, captures=captures)


def _emulated(
    options: dict[str, Any], out: Path, board: "BoardSpec", keep_images: bool, opened: ExitStack
) -> "tuple[Session, CameraCalibration]":
    from hybriddepth_ros.calibration.rig import Rig
    from hybriddepth_ros.calibration.session import Session
    from hybriddepth_ros.cameras.calibration import write_calibration
    from hybriddepth_ros.cameras.emulated import EmulatedCameraOptions, make_truth
    from hybriddepth_ros.emulation.bench import EmulatedBench
    from hybriddepth_ros.emulation.operator import BenchOperator
    from hybriddepth_ros.emulation.parts import EmulatedMotor, EmulatedSource, VirtualClock
    from hybriddepth_ros.parameters import from_mapping

    known = from_mapping(EmulatedCameraOptions, options, where="camera emulated")
    bench = EmulatedBench(make_truth(known), board, known.seed)
    clock = VirtualClock()
    source, motor = EmulatedSource(bench, clock), EmulatedMotor(bench, clock)
    for part in (source, motor):
        opened.callback(part.close)
        part.open()
    truth = bench.truth.as_calibration()
    write_calibration(out / "truth.yaml", truth)
    operator = BenchOperator(bench, known.seed, say=lambda text: print(f"  {text}", flush=True))
    rig = Rig(source, motor, board)
    return Session(out, board, rig, operator, name="emulated", keep_images=keep_images), truth


def _live(
    camera: str, options: dict[str, Any], out: Path, board: "BoardSpec", keep_images: bool, opened: ExitStack
) -> "Session":
    from hybriddepth_ros.calibration.parts import open_parts
    from hybriddepth_ros.calibration.rig import Rig
    from hybriddepth_ros.calibration.session import Session
    from hybriddepth_ros.calibration.terminal import TerminalOperator

    source, lens = open_parts(camera, options)
    opened.callback(lens.close)
    opened.callback(source.close)
    return Session(
        out, board, Rig(source, lens, board), TerminalOperator(), name=camera, keep_images=keep_images
    )


def _run(
    session: "Session", steps: tuple[str, ...], out: Path, source: object, truth: "CameraCalibration | None"
) -> int:
    """Runs the steps; the report is written for what was done, also after Ctrl-C or an error."""
    began = time.perf_counter()
    interrupted = False
    try:
        session.run(steps, lambda step: print(f"{step} ...", flush=True))
    except KeyboardInterrupt:
        interrupted = True
    except HybridDepthError:
        if session.calibration is not None and session.found_something:
            with suppress(OutputError):  # the first error is what is told
                _write_report(session, out, str(source), truth)
        raise
    if session.calibration is None:
        print("interrupted before the first result")
        return 130
    _write_report(session, out, str(source), truth)
    print(f"written to {out} in {time.perf_counter() - began:.0f} s: calibration.yaml report.html")
    if interrupted:
        print("interrupted; what was done is kept, --only STEP goes on")
        return 130
    return 0


def _write_report(session: "Session", out: Path, source: str, truth: "CameraCalibration | None") -> None:
    from hybriddepth_ros.calibration.report import calibration_report, compare
    from hybriddepth_ros.report import render_report

    assert session.calibration is not None
    page = render_report(calibration_report(session, source, truth))
    try:
        (out / "report.html").write_text(page, encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--out {out}: report.html cannot be written ({error.strerror})") from None
    for row in compare(session.calibration, truth) if truth else ():
        aimed = f" (aimed at {row.target:g})" if row.target is not None else ""
        values = f"{row.found:10.4f}  truth {row.truth:10.4f}  error {row.error:+.4f} {row.unit}"
        print(f"{row.name:<42}{values}{aimed}")
