"""The Python filters of ROS's message_filters, with the same names and results.

Built only where ROS comes from PyPI, which has no message_filters. Positional arguments of both Jazzy and
Kilted are taken. Where it differs on purpose:

- an exception in a callback passes on to the executor, as upstream, but leaves no lock held and no message
  queued twice;
- a full queue drops what ARRIVED first, not what has the smallest stamp, so that after time jumps back (a bag
  that loops, a simulation that restarts) the old messages cannot push the new ones out and matching goes on;
- what is left from before such a jump is forgotten, so that it meets no message of the new run: at once when
  the stamps of an input fall by more than `JUMP_BACK_NS`, else after `queue_size` messages behind its newest
  stamp;
- a callback may feed the synchronizer that called it, and may be unregistered.

Not here, for nothing uses them: DeltaFilter, InputAligner, TimeSequencer.
"""

from message_filters.cache import Cache
from message_filters.chain import Chain
from message_filters.message_traits import JUMP_BACK_NS, get_time_from_message_header
from message_filters.simple_filter import SimpleFilter
from message_filters.subscriber import Subscriber
from message_filters.synchronizers import ApproximateTimeSynchronizer, TimeSynchronizer

PIP_OVERLAY = True  # tells this stand-in from the real package

__all__ = [
    "JUMP_BACK_NS",
    "PIP_OVERLAY",
    "ApproximateTimeSynchronizer",
    "Cache",
    "Chain",
    "SimpleFilter",
    "Subscriber",
    "TimeSynchronizer",
    "get_time_from_message_header",
]
