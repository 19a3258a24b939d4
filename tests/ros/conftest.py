"""Real rclpy on real DDS, kept to this machine and to a domain of its own."""

import os
import random

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
# Even in one of two processes that share the tests, odd in the other.
os.environ["ROS_DOMAIN_ID"] = str(
    2 * random.SystemRandom().randint(1, 49)
    + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 2
)

from collections.abc import Iterator

import pytest
from rclpy.context import Context

from tests.ros.helpers import Peer


@pytest.fixture
def context() -> Iterator[Context]:
    made = Context()
    made.init(args=[])
    yield made
    made.try_shutdown()


@pytest.fixture
def peer(context: Context) -> Iterator[Peer]:
    """Another participant: listens, publishes and calls."""
    made = Peer(context)
    yield made
    made.close()
