"""`update: slice`: decoding, registering and estimating in one thread, publishing in another.

A backlog of slices is allowed, as each is needed; all that wait are registered before the next estimate,
which is of the newest. To register beside it, in a third thread, was slower on two cores: the steps of both
are short, and what let go of the interpreter lock for one waits to get it back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hybriddepth_msgs.msg import CompressedFocalSlice
from hybriddepth_ros.errors import HybridDepthError
from hybriddepth_ros.estimator import DepthEstimate, DepthEstimator
from hybriddepth_ros.focal_stack import FocalSlice
from hybriddepth_ros.rolling import RollingEstimator
from hybriddepth_ros.ros.compressed import compressed_focal_slice
from hybriddepth_ros.ros.inputs import AnySlice
from hybriddepth_ros.ros.messages import equivalent_lens, focal_slice
from hybriddepth_ros.ros.worker import NewestFirstWorker
from hybriddepth_ros.slice_windows import NOT_TAKEN, RollingOptions, SliceWindow

ESTIMATING, PUBLISHING = "estimating", "publishing"
RECEIVED, ESTIMATED, REFUSED = "slices received", "stacks estimated", "slices refused"
MISSING = "slices missing"  # did not come, so that nothing is to be accounted for
NOT_NEEDED, MOVING, INACTIVE = (
    "slices not needed",
    "slices dropped: lens moving",
    "slices dropped: not active",
)
_WAITING = "slices waiting for a whole sweep"
_BEHIND = f"slices dropped: {ESTIMATING} is behind"
_NOT_MADE = "estimates not made: a newer slice came first"
_NOT_MADE_OF = "estimates refused"
_NOT_PUBLISHED = "estimates not published: a newer one came first"
# Each slice that is received ends under one of these, once. Other counts are of slices that had served.
ENDS = (
    ESTIMATED,
    REFUSED,
    MOVING,
    NOT_NEEDED,
    INACTIVE,
    _BEHIND,
    _WAITING,
    *(f"dropped: {cause}" for cause in NOT_TAKEN),
    _NOT_MADE,
    _NOT_MADE_OF,
    _NOT_PUBLISHED,
    "exceptions",
)


def unaccounted(counts: Mapping[str, int]) -> int:
    """Of the counters of a node with `update: slice`: slices received of which nothing says where they went.

    0 as soon as the node has none in hand.
    """
    return counts.get(RECEIVED, 0) - sum(counts.get(end, 0) for end in ENDS)


@dataclass(frozen=True)
class PipelineEvents:
    """What the node is told, by the stages' threads. estimated: publish this, with its frame_id; refused: an
    error of a slice or an estimate; unexpected: any other exception; dropped: of slices, cause and how many;
    surplus: the same of what there was no time for.
    """

    estimated: Callable[[DepthEstimate, str], None]
    refused: Callable[[str, HybridDepthError], None]
    unexpected: Callable[[Exception], None]
    dropped: Callable[[str, int], None]
    surplus: Callable[[str, int], None]


def read_slice(message: AnySlice) -> FocalSlice:
    """The slice of a message, decoded: milliseconds, so never in a callback. MessageError if it cannot be."""
    if isinstance(message, CompressedFocalSlice):
        return compressed_focal_slice(message)
    return focal_slice(message)


class SlicePipeline:
    """`offer` never blocks. It is closed once, and then forgets what waits."""

    def __init__(
        self, estimator: DepthEstimator, options: RollingOptions, backlog: int, events: PipelineEvents
    ) -> None:
        self._events = events
        self._rolling = RollingEstimator(estimator, options, events.dropped)
        self._publisher: NewestFirstWorker[tuple[DepthEstimate, str]] = NewestFirstWorker(
            lambda made: events.estimated(*made), events.unexpected, name=f"depth_{PUBLISHING}"
        )
        self._estimator = NewestFirstWorker(
            self._take_in, events.unexpected, backlog, name=f"depth_{ESTIMATING}"
        )

    def offer(self, message: AnySlice) -> None:
        """Take a slice in."""
        if dropped := self._estimator.offer(message):
            self._events.surplus(_BEHIND, dropped)

    def set_options(self, options: RollingOptions) -> None:
        """From the next slice on."""
        self._rolling.windows.rolling = options

    @property
    def alive(self) -> bool:
        """Whether every stage still works, or it was closed."""
        return all(stage.alive for stage in (self._estimator, self._publisher))

    def close(self, timeout_s: float) -> None:
        """Wait for what each stage has in hand."""
        for stage in (self._estimator, self._publisher):
            if dropped := stage.close(timeout_s):
                self._events.surplus(INACTIVE, dropped)

    def _take_in(self, message: AnySlice) -> None:
        try:
            new = read_slice(message)
            lens = equivalent_lens(new.camera, float(message.focus.blur_px_per_diopter))
            window = self._rolling.windows.add(new, message.focus.slice_count, lens=lens)
        except HybridDepthError as error:
            self._events.refused(REFUSED, error)
            return
        if window is None:
            if self._rolling.windows.newest is new:  # of any other, its cause was told
                self._events.surplus(_WAITING, 1)
        elif self._estimator.waiting:
            self._events.surplus(_NOT_MADE, 1)
        else:
            self._estimate(window, message.header.frame_id)

    def _estimate(self, window: SliceWindow, frame_id: str) -> None:
        try:
            estimate = self._rolling.estimate(window)
        except HybridDepthError as error:
            self._events.refused(_NOT_MADE_OF, error)
            return
        if dropped := self._publisher.offer((estimate, frame_id)):
            self._events.surplus(_NOT_PUBLISHED, dropped)
