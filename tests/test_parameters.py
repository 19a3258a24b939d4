"""Parameters as dataclass fields: what is accepted, in which type, and what each refusal names."""

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.parameters import from_mapping, nearest_name, parameter, parameter_fields


@dataclass(frozen=True)
class LampOptions:
    brightness: float = parameter(0.5, "how bright", unit="lx", minimum=0.0, maximum=10.0, dynamic=True)
    count: int = parameter(3, "how many", minimum=1)
    lit: bool = parameter(True, "whether it is on")
    colour: str = parameter("white", "which colour", choices=("white", "red"))
    angles: tuple[float, ...] = parameter(
        (0.0, 1.5), "where it points", unit="rad", minimum=-3.2, maximum=3.2
    )
    cable: int = 7  # no parameter


def test_fields_keep_their_order_and_what_is_said_of_them() -> None:
    fields = parameter_fields(LampOptions)
    assert list(fields) == ["brightness", "count", "lit", "colour", "angles"]
    default, info = fields["brightness"]
    assert default == 0.5 and (info.unit, info.minimum, info.maximum, info.dynamic) == ("lx", 0.0, 10.0, True)
    assert fields["colour"][1].choices == ("white", "red") and not fields["count"][1].dynamic


def test_no_values_give_the_defaults() -> None:
    assert from_mapping(LampOptions, {}) == LampOptions()


@given(st.floats(0.0, 10.0), st.integers(1, 10**6), st.lists(st.floats(-3.2, 3.2)))
def test_values_within_their_bounds_are_taken(brightness: float, count: int, angles: list[float]) -> None:
    options = from_mapping(LampOptions, {"brightness": brightness, "count": count, "angles": angles})
    assert (options.brightness, options.count, options.angles) == (brightness, count, tuple(angles))


def test_values_take_the_type_of_the_default() -> None:
    options = from_mapping(LampOptions, {"brightness": 2, "count": 4.0, "angles": [1, 2]})
    assert isinstance(options.brightness, float) and isinstance(options.count, int)
    assert options.angles == (1.0, 2.0) and all(isinstance(angle, float) for angle in options.angles)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"brightness": 11}, "lamp: brightness: expected 0.0 to 10.0 lx, got 11"),
        ({"brightness": -0.1}, "lamp: brightness: expected 0.0 to 10.0 lx, got -0.1"),
        ({"brightness": math.nan}, "lamp: brightness: expected a finite number, got nan"),
        ({"brightness": math.inf}, "lamp: brightness: expected a finite number, got inf"),
        ({"brightness": "bright"}, "lamp: brightness: expected a number, got 'bright'"),
        ({"brightness": True}, "lamp: brightness: expected a number, got True"),
        ({"brightness": None}, "lamp: brightness: expected a number, got None"),
        ({"count": 2.5}, "lamp: count: expected a whole number, got 2.5"),
        ({"count": 0}, "lamp: count: expected 1 to inf, got 0"),
        ({"lit": 1}, "lamp: lit: expected true or false, got 1"),
        ({"colour": "rot"}, "lamp: colour: expected one of white, red, got 'rot'"),
        ({"colour": 1}, "lamp: colour: expected text, got 1"),
        ({"angles": 1.0}, "lamp: angles: expected a list, got 1.0"),
        ({"angles": "12"}, "lamp: angles: expected a list, got '12'"),
        ({"angles": [0.0, 4.0]}, "lamp: angles: expected -3.2 to 3.2 rad, got 4.0"),
        ({"brightnes": 1.0}, "lamp: unknown parameter 'brightnes'; did you mean brightness?"),
        ({"zzz": 1.0}, "lamp: unknown parameter 'zzz'"),
        ({"cable": 1}, "lamp: unknown parameter 'cable'"),
    ],
)
def test_a_value_that_cannot_be_applied_is_refused_by_name(values: dict, expected: str) -> None:
    with pytest.raises(ParameterError) as caught:
        from_mapping(LampOptions, values, where="lamp")
    assert str(caught.value) == expected


def test_nearest_name_is_silent_when_nothing_is_near() -> None:
    assert nearest_name("strid", ("stride", "organised")) == "; did you mean stride?"
    assert nearest_name("qqq", ("stride", "organised")) == ""


@pytest.mark.parametrize("name", ["count", "brightness"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, 10**400])
def test_numbers_that_are_none_are_refused_not_raised_through(name: str, value: float) -> None:
    with pytest.raises(ParameterError, match=f"{name}: expected"):
        from_mapping(LampOptions, {name: value})


def test_a_key_that_is_not_text_is_refused() -> None:
    with pytest.raises(ParameterError, match="unknown parameter 1"):
        from_mapping(LampOptions, {1: 2})  # type: ignore[dict-item]
