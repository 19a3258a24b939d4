"""What the environment asks of ROS that it cannot do is one line, not the end of the process."""

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from hybriddepth_ros.config_files import find_config
from hybriddepth_ros.errors import ParameterError
from hybriddepth_ros.ros.dds import check_environment

PROFILE = find_config("fastdds_two_machines.xml")


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


# -- the profile for two machines, taken by Fast DDS itself

PEER = """
import sys, time
import rclpy
from std_msgs.msg import String

rclpy.init()
node = rclpy.create_node(sys.argv[1])
if sys.argv[1] == "talker":
    publisher = node.create_publisher(String, "link", 10)
    node.create_timer(0.1, lambda: publisher.publish(String(data="here")))
if sys.argv[1] == "listener":
    node.create_subscription(String, "link", lambda message: print("HEARD", flush=True), 10)
print("READY", flush=True)
if sys.argv[1] != "alone":
    rclpy.spin(node)
"""


def write_profile(path: Path, *, peer: str | None = None, shared_memory: bool = True) -> Path:
    """The shipped profile as a user would edit it: loopback only, and this address for every machine."""
    assert PROFILE is not None
    text = PROFILE.read_text()
    if peer is not None:
        text = re.sub(r"<interface>.*?</interface>", "<interface>lo</interface>", text)
        text = re.sub(r"<address>.*?</address>", f"<address>{peer}</address>", text)
    if not shared_memory:  # in which participants of one machine find each other anyhow
        head, tail = text.split("<userTransports>")
        used = "<transport_id>hybriddepth_shared_memory</transport_id>"
        assert used in tail
        text = f"{head}<userTransports>{tail.replace(used, '', 1)}"
    path.write_text(text)
    return path


def start_peer(stack: ExitStack, role: str, profile: Path, domain: int, log: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(profile),
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "SYSTEM_DEFAULT",
        "ROS_DOMAIN_ID": str(domain),
    }
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PEER, role], env=environment, stdout=output, stderr=output, text=True
        )
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.fixture
def processes() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_the_profile_for_two_machines_is_taken_as_it_is_shipped(tmp_path: Path, processes: ExitStack) -> None:
    """On a machine that has one of its interfaces; a wrong tag is an error."""
    shipped = write_profile(tmp_path / "shipped.xml")
    wrong = tmp_path / "wrong.xml"
    wrong.write_text(shipped.read_text().replace("initialPeersList", "initialPeerList"))
    logs = {}
    for profile in (shipped, wrong):
        logs[profile] = tmp_path / f"{profile.stem}.log"
        process = start_peer(processes, "alone", profile, random.randint(1, 100), logs[profile])
        assert process.wait(60.0) == 0, logs[profile].read_text()
    assert "READY" in logs[shipped].read_text() and "XMLPARSER" not in logs[shipped].read_text()
    assert "XMLPARSER" in logs[wrong].read_text()


def test_two_machines_find_each_other_at_the_addresses_of_the_profile_and_nowhere_else(
    tmp_path: Path, processes: ExitStack
) -> None:
    first = random.randint(1, 99)
    right = write_profile(tmp_path / "right.xml", peer="localhost", shared_memory=False)
    # 192.0.2.0/24 is for documentation: nobody is there
    wrong = write_profile(tmp_path / "wrong.xml", peer="192.0.2.77", shared_memory=False)
    for domain, profile in ((first, right), (first + 1, wrong)):
        for role in ("talker", "listener"):
            start_peer(processes, role, profile, domain, tmp_path / f"{profile.stem}_{role}.log")
    listeners = [tmp_path / f"{name}_listener.log" for name in ("right", "wrong")]
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        texts = [listener.read_text() for listener in listeners]
        if texts[0].count("HEARD") > 10 and "READY" in texts[1]:
            break
        time.sleep(0.1)
    assert texts[0].count("HEARD") > 10, texts[0]
    time.sleep(1.0)
    assert "READY" in texts[1] and "HEARD" not in listeners[1].read_text()
