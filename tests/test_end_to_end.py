"""From an uncalibrated camera to metres, through the protocols of real devices and on a clock of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hybriddepth_ros import load_estimator
from hybriddepth_ros.calibration.report import compare
from hybriddepth_ros.calibration.rig import Rig as CalibrationRig
from hybriddepth_ros.calibration.session import STEPS, Session
from hybriddepth_ros.cameras.calibration import (
    CameraCalibration,
    FocusTable,
    read_calibration,
    write_calibration,
)
from hybriddepth_ros.cameras.sweep import FocusSweep, SweepOptions, SweptFrame
from hybriddepth_ros.cameras.sweep_engine import STOP_AND_GO, SWEEP_MODES
from hybriddepth_ros.cameras.v4l2 import V4L2Camera, V4L2Options, make_parts
from hybriddepth_ros.emulation.bench import BoardPose
from hybriddepth_ros.emulation.operator import BenchOperator
from hybriddepth_ros.emulation.optotune import EmulatedLensDriver
from tests.cameras.optotune_rig import RETRIES, TIMEOUT_MS
from tests.e2e_rig import EXPOSURE_MS, READOUT_MS, TRANSFER_MS, Rig, rig, stack_of
from tests.emulated_v4l2 import PATH

SEED = 2
FOCI = (0.6, 1.1, 1.6, 2.1, 2.6)  # 1/m
BOARD = BoardPose(0.6, x_m=0.02, tilt_y_deg=20.0)
FOCUS_LIMIT = 0.03  # 1/m, between what a frame says and what was


def sweep(camera: V4L2Camera, mode: str, sweeps: int = 2) -> list[SweptFrame]:
    """The last of so many sweeps."""
    frames = FocusSweep(camera, FOCI, SweepOptions(mode=mode)).frames()
    return [next(frames) for _ in range(sweeps * len(FOCI))][-len(FOCI) :]


def check_focus(bench: Rig, swept: list[SweptFrame], limit: float = FOCUS_LIMIT) -> None:
    for one in swept:
        truth = bench.true_focus(one)
        assert truth == pytest.approx(one.frame.focus_diopters, abs=limit), one.slice_index
        assert np.ptp(truth) < 0.01  # 1/m: at rest from the first to the last light


def check_depth(bench: Rig, camera: V4L2Camera, swept: list[SweptFrame], limit: float) -> None:
    """Median over the board, and over its near and its far half, by the model `classical`."""
    estimate = load_estimator("classical")(stack_of(swept, camera.lens))
    assert estimate.camera is not None and estimate.blur_px_per_diopter == pytest.approx(
        bench.bench.truth.blur_px_per_diopter, rel=0.05
    )
    truth = bench.true_depth(estimate.camera)
    on_board = np.isfinite(truth)
    known = on_board & np.isfinite(estimate.depth)
    assert on_board.sum() > 0.2 * truth.size
    assert known.sum() > 0.7 * on_board.sum()
    ratio = estimate.depth / truth
    middle = float(np.median(truth[on_board]))
    assert middle == pytest.approx(0.6, rel=0.02)
    for part in (known, known & (truth < middle), known & (truth > middle)):
        assert np.median(ratio[part]) == pytest.approx(1.0, abs=limit)
    assert np.ptp(truth[known]) > 0.1  # the halves are apart by more than the limit


@pytest.mark.slow
def test_a_webcam_is_calibrated_and_tells_metres(tmp_path: Path) -> None:
    with rig(SEED) as bench:
        source, motor = make_parts(V4L2Options(device=PATH), bench.clock, bench.device.monotonic_ns)
        with closing(source), closing(motor):
            source.open()
            motor.open()
            operator = BenchOperator(bench.bench, SEED, say=lambda text: None)
            board = bench.bench.board
            session = Session(tmp_path, board, CalibrationRig(source, motor, board), operator, name="webcam")
            session.run(tuple(STEPS), lambda step: None)
        found = read_calibration(tmp_path / "calibration.yaml")
        known_delay_ms = 0.5 * (EXPOSURE_MS + READOUT_MS) + TRANSFER_MS
        truth = replace(bench.bench.truth.as_calibration(), latency_ms=known_delay_ms)
        for compared in compare(found, truth):
            if compared.target is not None:
                assert abs(compared.error) <= compared.target, compared

        bench.bench.place(BOARD)
        options = V4L2Options(device=PATH, calibration=str(tmp_path / "calibration.yaml"))
        for mode in SWEEP_MODES:
            with V4L2Camera(options, bench.clock, bench.device.monotonic_ns) as camera:
                swept = sweep(camera, mode)
                check_focus(bench, swept)
                check_depth(bench, camera, swept, 0.02)


def test_a_motor_of_coarse_steps_tells_the_focus_that_it_has(tmp_path: Path) -> None:
    path = tmp_path / "calibration.yaml"
    with rig(SEED, motor_step=15) as bench:  # of 0.18 1/m
        write_calibration(path, bench.bench.truth.as_calibration())
        bench.bench.place(BOARD)
        options = V4L2Options(device=PATH, calibration=str(path))
        with V4L2Camera(options, bench.clock, bench.device.monotonic_ns) as camera:
            swept = sweep(camera, STOP_AND_GO)
            nearest = [camera.nearest_focus(focus) for focus in FOCI]
        check_focus(bench, swept, 0.005)
        # The first is approached from above, where play turns it onto another step.
        assert nearest[1:] == pytest.approx([one.frame.focus_diopters for one in swept[1:]], abs=1e-9)
        assert (
            max(abs(one.frame.focus_diopters - wanted) for one, wanted in zip(swept, FOCI, strict=True))
            > 0.03
        )


# The current falls from 130 to -125 mA where the motor's position rises from 0 to 255.


def to_actuator(current_ma: float) -> float:
    return 130.0 - current_ma


def in_milliampere(calibration: CameraCalibration) -> CameraCalibration:
    def turned(table: FocusTable | None) -> FocusTable:
        assert table is not None
        return FocusTable(tuple((130.0 - actuator, diopters) for actuator, diopters in reversed(table.pairs)))

    return replace(
        calibration,
        focus_table=turned(calibration.focus_table),
        focus_table_falling=turned(calibration.focus_table_falling),
    )


@pytest.fixture
def optotune(tmp_path: Path) -> Iterator[tuple[Rig, V4L2Camera]]:
    """An open camera without a motor, behind a lens on a serial port that moves the bench."""
    path = tmp_path / "calibration.yaml"
    with rig(SEED, motor_step=None) as bench:
        write_calibration(path, in_milliampere(bench.bench.truth.as_calibration()))
        bench.bench.place(BOARD)

        def on_command(time_ns: int, current_ma: float) -> None:
            bench.bench.command(to_actuator(current_ma), time_ns)

        with EmulatedLensDriver(on_command=on_command, clock=bench.clock) as driver:
            options = V4L2Options(device=PATH, calibration=str(path), lens="optotune")
            own = {"port": driver.port, "answer_timeout_ms": TIMEOUT_MS, "retries": RETRIES}
            with V4L2Camera(options, bench.clock, bench.device.monotonic_ns, own) as camera:
                yield bench, camera


@pytest.mark.parametrize("mode", SWEEP_MODES)
def test_a_lens_on_a_serial_port_is_kept_in_step(optotune: tuple[Rig, V4L2Camera], mode: str) -> None:
    bench, camera = optotune
    swept = sweep(camera, mode)
    check_focus(bench, swept, 0.005)
    currents = [one.frame.actuator_position for one in swept]
    assert currents == sorted(currents, reverse=True) and np.ptp(currents) > 100.0
    check_depth(bench, camera, swept, 0.02)
