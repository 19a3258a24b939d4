"""Hundreds of faults, at random and on top of one another, into the supervisor that the node runs."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from hybriddepth_ros.cameras import FocusCamera, SweepOptions, SweptFrame
from hybriddepth_ros.cameras.supervisor import SweepListener, SweepSupervisor
from hybriddepth_ros.errors import CameraError
from tests.emulation.timed_pair import Pair, shows

FOCI = (0.5, 3.1, 1.2, 4.0)
FEWEST_FAULTS = 500
RESUMES_WITHIN_S = 3.0
seconds = st.floats(0.05, 12.0)


class FaultySweep(RuleBasedStateMachine):
    """`ends_ns`: when the last fault is over, in time that nobody sets."""

    faults: ClassVar[dict[str, int]] = {}
    slowest_s: ClassVar[float] = 0.0
    slices: ClassVar[int] = 0

    @initialize(
        mode=st.sampled_from(["stop_and_go", "free_running"]),
        approach=st.sampled_from(["any", "rising"]),
        delivery=st.floats(0.5, 40.0),
        dropped=st.sampled_from([0.0, 0.01]),
        seed=st.integers(0, 99),
    )
    def begin(self, mode: str, approach: str, delivery: float, dropped: float, seed: int) -> None:
        hysteresis = 0.1 if approach == "rising" else 0.0
        self.pair = Pair.of(
            delivery_ms=delivery,
            dropped=dropped,
            hysteresis=hysteresis,
            seed=seed,
            jitter_ms=4.0,
            opening_ms=1000.0,  # as long as a webcam has to find its exposure
        )
        self.ends_ns = 0
        self.failures: list[str] = []
        self.last: SweptFrame | None = None
        self.supervisor = SweepSupervisor(
            self.pair.camera,
            lambda camera: FOCI,
            SweepOptions(mode, approach),
            SweepListener(
                frame=self.judge,
                failed=lambda error, delay_s: self.failures.append(str(error)),
                unexpected=self.unexpected,
                recovered=lambda: self.failures.clear(),
            ),
            clock=self.pair.clock,
            in_thread=False,
        )
        self.step(6)

    def judge(self, swept: SweptFrame, camera: FocusCamera) -> None:
        FaultySweep.slices += 1
        assert camera is self.supervisor.camera
        assert shows(swept, FOCI[swept.slice_index]), swept
        if self.last is not None and swept.slice_index:
            assert (swept.sweep_id, swept.slice_index) == (self.last.sweep_id, self.last.slice_index + 1)
        self.last = swept

    def unexpected(self, error: Exception) -> None:
        raise AssertionError("no exception but a CameraError may come") from error

    def step(self, count: int) -> None:
        for _ in range(count):
            self.supervisor.step()

    def injected(self, kind: str, lasts_s: float, steps: int) -> None:
        FaultySweep.faults[kind] = FaultySweep.faults.get(kind, 0) + 1
        self.ends_ns = max(self.ends_ns, self.pair.clock.steady_ns + round(lasts_s * 1e9))
        self.step(steps)

    @rule(lasts=seconds, steps=st.integers(0, 9))
    def unplug_camera(self, lasts: float, steps: int) -> None:
        self.pair.source.plug.pull(lasts)
        self.injected("camera unplugged", lasts, steps)

    @rule(lasts=seconds, steps=st.integers(0, 9))
    def unplug_lens(self, lasts: float, steps: int) -> None:
        self.pair.lens.plug.pull(lasts)
        self.injected("lens unplugged", lasts, steps)

    @rule(lasts=seconds, busy=seconds, which=st.sampled_from(["source", "lens"]), steps=st.integers(0, 9))
    def unplug_and_find_it_busy(self, lasts: float, busy: float, which: str, steps: int) -> None:
        plug = getattr(self.pair, which).plug
        plug.pull(lasts)
        plug.occupy(lasts + busy)
        self.injected("busy when opened again", lasts + busy, steps)

    @rule(lasts=seconds, steps=st.integers(0, 9))
    def fall_silent(self, lasts: float, steps: int) -> None:
        self.pair.source.fall_silent(lasts)
        self.injected("silence", lasts, steps)

    @rule(frames=st.integers(1, 8), late=st.floats(0.01, 0.6), steps=st.integers(0, 9))
    def delay_frames(self, frames: int, late: float, steps: int) -> None:
        self.pair.source.delay_next(frames, late)
        self.injected("late frames", late, steps)

    @rule(frames=st.integers(1, 40), steps=st.integers(0, 9))
    def drop_frames(self, frames: int, steps: int) -> None:
        self.pair.source.drop_next(frames)
        self.injected("dropped frames", frames / 60.0, steps)

    @rule(celsius=st.floats(60.5, 90.0), lasts=seconds, steps=st.integers(0, 9))
    def overheat(self, celsius: float, lasts: float, steps: int) -> None:
        self.pair.lens.heat(celsius, lasts)
        self.injected("too hot", lasts, steps)

    @rule(by=st.floats(0.002, 7200.0), back=st.booleans(), steps=st.integers(0, 9))
    def set_clock(self, by: float, back: bool, steps: int) -> None:
        self.pair.clock.set_by(-by if back else by)
        self.injected("clock set", 0.0, steps)

    @rule(lasts=st.floats(0.001, 1.5), steps=st.integers(0, 9))
    def be_suspended(self, lasts: float, steps: int) -> None:
        """The process gets no processor: the driver's buffers fill up with stale frames."""
        self.pair.clock.pass_ns(round(lasts * 1e9))
        self.injected("process suspended", 0.0, steps)

    @rule()
    def resumes(self) -> None:
        """After the last fault has ended a slice comes within three seconds, and then whole sweeps."""
        while self.pair.clock.steady_ns < self.ends_ns:
            self.supervisor.step()
        while self.supervisor.step() is None:
            assert self.pair.clock.steady_ns < self.ends_ns + 60e9, self.failures
        took_s = 1e-9 * (self.pair.clock.steady_ns - self.ends_ns) if self.ends_ns else 0.0
        FaultySweep.slowest_s = max(FaultySweep.slowest_s, took_s)
        assert took_s <= RESUMES_WITHIN_S, self.failures
        first = self.last
        assert first is not None
        self.step(3 * len(FOCI))
        assert self.last is not None and self.last.sweep_id > first.sweep_id
        assert self.supervisor.error == "" and not self.failures
        self.ends_ns = self.pair.clock.steady_ns

    def teardown(self) -> None:
        if hasattr(self, "supervisor"):
            self.resumes()
            self.supervisor.stop()
            self.supervisor.close()


def test_five_hundred_faults_end_no_sweep_and_give_no_slice_a_wrong_focus() -> None:
    FaultySweep.faults = {}
    run_state_machine_as_test(
        FaultySweep,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            phases=(Phase.generate,),  # a failure is reproducible as it is, and shortening it takes minutes
            suppress_health_check=list(HealthCheck),
        ),
    )
    print(FaultySweep.faults, FaultySweep.slices, f"{FaultySweep.slowest_s:.2f} s")
    assert sum(FaultySweep.faults.values()) >= FEWEST_FAULTS
    assert len(FaultySweep.faults) == 9


def supervised(pair: Pair, **listener: Any) -> SweepSupervisor:
    return SweepSupervisor(
        pair.camera,
        lambda camera: FOCI,
        listener=SweepListener(**listener),
        clock=pair.clock,
        in_thread=False,
    )


def test_the_reason_stands_until_a_whole_sweep_has_come() -> None:
    pair = Pair.of()
    told: list[Any] = []
    supervisor = supervised(pair, failed=lambda *why: told.append(why), recovered=lambda: told.append("well"))
    for _ in range(5):
        assert supervisor.step() is not None
    pair.lens.heat(75.0, 1.0)
    assert supervisor.step() is None
    assert supervisor.error == "lens timed: expected at most 60 deg C, got 75"
    assert supervisor.sweep is None and supervisor.camera is None
    while supervisor.step() is None:
        pass
    assert supervisor.error and told[-1] != "well"
    for _ in FOCI[1:]:
        supervisor.step()
    assert supervisor.error == "" and told[-1] == "well"
    delays = [why[1] for why in told[:-1]]
    assert delays == [0.25, 0.5, 1.0][: len(delays)] and all(isinstance(w[0], CameraError) for w in told[:-1])


def test_the_wait_for_the_next_attempt_doubles_up_to_its_limit() -> None:
    pair = Pair.of()
    delays: list[float] = []
    supervisor = supervised(pair, failed=lambda error, delay_s: delays.append(delay_s))
    pair.source.plug.pull()
    for _ in range(6):
        before_ns = pair.clock.steady_ns
        assert supervisor.step() is None
        assert pair.clock.steady_ns - before_ns == round(delays[-1] * 1e9)
    assert delays == [0.25, 0.5, 1.0, 1.0, 1.0, 1.0]
    pair.source.plug.put_in()
    assert supervisor.step() is not None
