"""Parameters: declared with descriptors, changed only to what is allowed, refused with the reason."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from rcl_interfaces.msg import ParameterType
from rclpy.context import Context
from rclpy.node import Node
from rclpy.parameter import Parameter

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import parameter
from hybriddepth_ros.ros.parameters import NodeParameters


@dataclass(frozen=True)
class Outer:
    size: int = parameter(5, "how many", minimum=1, maximum=9)
    reach: float = parameter(2.0, "how far", unit="m", minimum=0.5, maximum=20.0, dynamic=True)
    near: float = parameter(1.0, "not beyond reach", unit="m", dynamic=True)
    kind: str = parameter("a", "which", choices=("a", "b"), dynamic=True)
    foci: tuple[float, ...] = parameter((), "where", unit="1/m", minimum=-1.0, dynamic=True)

    def __post_init__(self) -> None:
        if self.near > self.reach:
            raise ParameterError(f"near: expected at most reach ({self.reach:g} m), got {self.near:g}")


@dataclass(frozen=True)
class Inner:
    rate: float = parameter(30.0, "frames per second", unit="Hz", minimum=0.1, dynamic=True)


class Fixture:
    def __init__(self, context: Context, **overrides: object) -> None:
        self.node = Node(
            "thing",
            context=context,
            use_global_arguments=False,
            parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()],
        )
        self.configured, self.changes = False, 0
        groups = (("", Outer), ("inner", Inner))
        self.parameters = NodeParameters(self.node, groups, lambda: self.configured, self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def set(self, name: str, value: object) -> str:
        """The reason of a refusal; empty = applied."""
        (result,) = self.node.set_parameters([Parameter(name, value=value)])
        return "" if result.successful else result.reason


@pytest.fixture
def thing(context: Context) -> Iterator[Fixture]:
    made = Fixture(context)
    yield made
    made.node.destroy_node()


def test_defaults_come_from_the_dataclass_and_nested_names_have_their_prefix(thing: Fixture) -> None:
    assert thing.parameters[Outer] == Outer() and thing.parameters[Inner] == Inner()
    assert thing.node.get_parameter("inner.rate").value == 30.0
    assert list(thing.node.get_parameter("foci").value) == []


def test_descriptors_say_unit_range_and_when_a_change_applies(thing: Fixture) -> None:
    reach = thing.node.describe_parameter("reach")
    assert reach.description == "how far [m]" and reach.type == ParameterType.PARAMETER_DOUBLE
    assert (reach.floating_point_range[0].from_value, reach.floating_point_range[0].to_value) == (0.5, 20.0)
    assert "dynamic" in reach.additional_constraints and not reach.read_only
    size = thing.node.describe_parameter("size")
    assert (size.integer_range[0].from_value, size.integer_range[0].to_value) == (1, 9)
    assert "static" in size.additional_constraints
    assert "one of a, b" in thing.node.describe_parameter("kind").additional_constraints
    assert thing.node.describe_parameter("foci").type == ParameterType.PARAMETER_DOUBLE_ARRAY


def test_a_whole_number_is_taken_where_a_double_is_declared(context: Context, thing: Fixture) -> None:
    assert thing.set("reach", 7) == "" and thing.parameters[Outer].reach == 7.0
    assert thing.set("foci", [0, 2]) == "" and thing.parameters[Outer].foci == (0.0, 2.0)
    assert thing.set("foci", []) == "" and thing.parameters[Outer].foci == ()
    started = Fixture(context, reach=9, foci=[1, 2])
    assert started.parameters[Outer].reach == 9.0 and started.parameters[Outer].foci == (1.0, 2.0)
    started.node.destroy_node()


def test_a_dynamic_change_swaps_the_snapshot_and_leaves_the_old_one(thing: Fixture) -> None:
    before = thing.parameters[Outer]
    assert thing.set("reach", 3.0) == ""
    assert thing.parameters[Outer].reach == 3.0 and before.reach == 2.0 and thing.changes == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("kind", "c", "kind: expected one of a, b, got 'c'"),
        ("foci", [-3.0], "foci: expected -1.0 to inf 1/m, got -3.0"),
        ("near", 5.0, "near: expected at most reach"),
        ("near", float("nan"), "finite"),
        ("kind", 3, "Wrong parameter type"),
    ],
)
def test_a_refusal_has_its_reason(thing: Fixture, name: str, value: object, reason: str) -> None:
    assert reason in thing.set(name, value)
    assert thing.parameters[Outer] == Outer() and thing.changes == 0


def test_a_static_parameter_is_refused_while_configured(thing: Fixture) -> None:
    thing.configured = True
    assert thing.set("size", 6) == "size: applied at the next configure: deactivate and cleanup first"
    assert thing.set("reach", 6.0) == ""
    thing.configured = False
    assert thing.set("size", 6) == "" and thing.parameters[Outer].size == 6


def test_values_that_depend_on_each_other_change_together(thing: Fixture) -> None:
    both = [Parameter("near", value=9.0), Parameter("reach", value=10.0)]
    assert thing.node.set_parameters_atomically(both).successful
    assert (thing.parameters[Outer].near, thing.parameters[Outer].reach) == (9.0, 10.0)


def test_a_bad_value_at_start_names_parameter_and_range(context: Context) -> None:
    with pytest.raises(ParameterError, match=r"reach: expected 0.5 to 20.0 m, got 99"):
        Fixture(context, reach=99.0)
    with pytest.raises(ParameterError, match="size: expected a number, got 'many'"):
        Fixture(context, size="many")


def test_a_name_that_nothing_declares_is_told_with_the_nearest(thing: Fixture) -> None:
    assert thing.parameters.unknown(
        ["reech", "use_sim_time", "qos_overrides./a.publisher.depth", "size"]
    ) == ["unknown parameter 'reech' is ignored; did you mean reach?"]
