"""What the environment asks of ROS that it cannot do is one line, not the end of the process."""

import pytest

from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.ros.dds import check_environment


@pytest.mark.parametrize("domain", ["abc", "500", "-1", "1.5"])
def test_a_domain_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, domain: str) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", domain)
    with pytest.raises(
        ParameterError, match=f"ROS_DOMAIN_ID: expected a number from 0 to 232, got '{domain}'"
    ):
        check_environment()


def test_a_middleware_that_is_not_installed_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_absent_cpp")
    with pytest.raises(ParameterError, match=r"RMW_IMPLEMENTATION: expected one of .*rmw_fastrtps_cpp"):
        check_environment()


@pytest.mark.parametrize("chosen", ["", "rmw_fastrtps_cpp"])
def test_what_is_there_passes(monkeypatch: pytest.MonkeyPatch, chosen: str) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", chosen)
    monkeypatch.setenv("ROS_DOMAIN_ID", "42")
    check_environment()
