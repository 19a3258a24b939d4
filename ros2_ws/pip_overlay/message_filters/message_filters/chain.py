"""Chain: filters one behind the other, as one filter."""

from __future__ import annotations

from typing import Any

from message_filters.simple_filter import SimpleFilter


class Chain(SimpleFilter):
    """Passes each message through the filters that were added, in that order, and the last one's output
    on."""

    def __init__(self, message_filter: SimpleFilter | None = None) -> None:
        super().__init__()
        self.incoming_connection: int | None = None
        self._filters: list[Any] = []
        self._output_connection = -1
        if message_filter is not None:
            self.connectInput(message_filter)

    def connectInput(self, message_filter: SimpleFilter) -> None:  # noqa: N802
        if self.incoming_connection is not None:
            raise RuntimeError("Already connected")
        self.incoming_connection = message_filter.registerCallback(self.add)

    def add(self, message: Any) -> None:
        if self._filters:
            self._filters[0].add(message)
        else:
            self.signalMessage(message)

    def addFilter(self, message_filter: Any) -> int:  # noqa: N802
        """Append a filter (anything with `add` and `registerCallback`); gives its index."""
        if self._filters:
            self._filters[-1].unregisterCallback(self._output_connection)
            self._filters[-1].registerCallback(message_filter.add)
        self._output_connection = message_filter.registerCallback(self.signalMessage)
        self._filters.append(message_filter)
        return len(self._filters) - 1

    def getFilter(self, index: int) -> Any:  # noqa: N802
        """The filter at `index`; KeyError if there is none."""
        if not 0 <= index < len(self._filters):
            raise KeyError(index)
        return self._filters[index]
