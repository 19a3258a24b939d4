"""The bytes of the Lens Driver 4: known vectors, and that what is encoded is decoded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybriddepth_ros.cameras import optotune_protocol as protocol

QUERIES = (
    protocol.FIRMWARE_TYPE,
    protocol.LENS_SERIAL,
    protocol.CURRENT,
    protocol.FOCAL_POWER,
    protocol.TEMPERATURE,
    protocol.ENTER_FOCAL_POWER_MODE,
)


@pytest.mark.parametrize(
    ("data", "crc"),
    # The check value of CRC-16/ARC; its well-known residues; the handshake's, from a public driver's tests.
    [(b"123456789", 0xBB3D), (b"", 0x0000), (b"\0", 0x0000), (b"\x01", 0xC0C1), (b"Start", 0xA5EA)],
)
def test_the_crc_has_its_published_values(data: bytes, crc: int) -> None:
    assert protocol.crc16(data) == crc


def test_the_manuals_example_of_a_focal_power_has_its_bytes() -> None:
    """5 1/m on firmware of type A: 2000 steps, then two dummy bytes and the CRC 0xfd31, low byte first."""
    command = protocol.set_focal_power(protocol.focal_power_steps(5.0, protocol.POWER_OFFSET_DIOPTERS["A"]))
    assert command == b"PwDA\x07\xd0\x00\x00"
    assert protocol.framed(command)[-2:] == b"\x31\xfd"


def test_a_current_is_two_letters_two_bytes_and_a_crc() -> None:
    command = protocol.framed(protocol.set_current(-2))
    assert command[:4] == b"Aw\xff\xfe"
    assert len(command) == 6
    assert protocol.crc16(command) == 0  # as the manual checks one: over the whole, it is zero


def test_the_upper_temperature_limit_goes_first() -> None:
    assert protocol.set_temperature_limits(-10.0, 60.0).command == b"PwTA\x03\xc0\xff\x60"


@given(st.binary(min_size=1, max_size=12), st.integers(0, 200))
def test_an_answer_with_one_flipped_bit_is_not_taken(data: bytes, bit: int) -> None:
    answer = bytearray(protocol.framed(data) + protocol.END)
    assert protocol.unframed(bytes(answer)) == data
    answer[bit // 8 % len(answer)] ^= 1 << bit % 8
    assert protocol.unframed(bytes(answer)) is None


@given(st.sampled_from(QUERIES), st.data())
def test_an_answer_is_found_behind_anything_and_never_in_half(
    query: protocol.Query, drawn: st.DataObject
) -> None:
    body = drawn.draw(st.binary(min_size=query.data_length - 1, max_size=query.data_length - 1))
    data = query.command[:1] + body
    answer = protocol.framed(data) + protocol.END
    junk = drawn.draw(st.sampled_from([b"", b"N\r\n", b"\r\n\r\n", b"Ready\r\n", b"\x00\xff"]))
    assert protocol.find_answer(junk + answer, query) == (data, len(junk) + len(answer))
    for length in range(len(answer)):
        assert protocol.find_answer(junk + answer[:length], query) is None


@given(st.floats(-290.0, 290.0), st.floats(100.0, 300.0))
def test_a_current_comes_back_within_half_a_step(current_ma: float, largest_ma: float) -> None:
    current_ma = max(-largest_ma * 0.999, min(largest_ma * 0.999, current_ma))
    steps = protocol.current_steps(current_ma, largest_ma)
    assert protocol.current_ma(steps, largest_ma) == pytest.approx(current_ma, abs=0.51 * largest_ma / 4096)


def test_the_largest_current_fits_into_the_scale() -> None:
    assert protocol.current_steps(293.0, 293.0) == 4095
    assert protocol.current_steps(-293.0, 293.0) == -4095


@given(st.floats(-10.0, 15.0), st.sampled_from(sorted(protocol.POWER_OFFSET_DIOPTERS)))
def test_a_focal_power_comes_back_within_half_a_step(diopters: float, firmware_type: str) -> None:
    offset = protocol.POWER_OFFSET_DIOPTERS[firmware_type]
    steps = protocol.focal_power_steps(diopters, offset)
    assert protocol.focal_power_diopters(steps, offset) == pytest.approx(diopters, abs=0.0026)


def test_a_status_that_tells_only_of_the_last_command_is_no_complaint() -> None:
    assert protocol.complaints(0x48) == ()
    assert protocol.complaints(0x4A) == ("no or faulty EEPROM in the lens",)


@pytest.mark.parametrize(
    ("received", "complaint"),
    [
        (b"N\r\n", "N (bad CRC)"),
        (protocol.framed(b"E1") + b"\r\n", "E1"),
        (b"E1\0\0\r\n", None),
        (b"A\0\0", None),
    ],
)
def test_what_the_driver_complains_of_is_told(received: bytes, complaint: str | None) -> None:
    assert protocol.error_in(received) == complaint
