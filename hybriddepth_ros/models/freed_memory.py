"""What a network frees on a CPU, it soon asks for again."""

from __future__ import annotations

import ctypes
import functools

# <malloc.h> of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_MMAP_THRESHOLD = 32 << 20  # bytes; glibc takes no more
_KEPT = 1 << 30  # bytes at the top of the heap


@functools.cache
def keep_freed_memory() -> None:
    """Have the process keep its freed memory, up to a gigabyte, where glibc would return it at once.

    A network's intermediate images have some megabytes each. Returned and asked for again for every depth
    map, their pages come back one by one and zeroed, which takes a quarter of sweepnet's time. Other C
    libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _KEPT)
