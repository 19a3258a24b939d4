"""Subscriber: where messages enter a graph of filters."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node
from rclpy.qos import QoSProfile

from message_filters.simple_filter import SimpleFilter


class Subscriber(SimpleFilter):
    """A subscription as a filter; takes what `Node.create_subscription` takes, without the callback.

    Everything else that is asked of it is asked of the subscription.
    """

    def __init__(
        self, node: Node, msg_type: Any, topic: str, qos_profile: QoSProfile | int = 10, **kwargs: Any
    ) -> None:
        super().__init__()
        self.node = node
        self.topic = topic
        # Kilted names options that Jazzy's create_subscription does not know; left at None they are not
        # passed on.
        options = {name: value for name, value in kwargs.items() if value is not None}
        self.sub = node.create_subscription(msg_type, topic, self.callback, qos_profile, **options)

    def callback(self, msg: Any) -> None:
        self.signalMessage(msg)

    def getTopic(self) -> str:  # noqa: N802
        return self.topic

    def __getattr__(self, key: str) -> Any:
        if key == "sub":  # not made yet: asking for it here again would never end
            raise AttributeError(key)
        return getattr(self.sub, key)
