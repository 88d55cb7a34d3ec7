"""Keeps the C library from holding on to memory that the engines have given back.

glibc gives every thread an arena of its own and raises its threshold for returning blocks with
every large block that was freed. Engines that load with large buffers on several threads leave
much of that behind: three conversations peaked at 592 MB so, and at 532 MB with these bounds.
"""

from __future__ import annotations

import ctypes

# <malloc.h> of glibc. Another C library (musl, Android's bionic) has other numbers or no mallopt.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_ARENA_MAX = -8
_BLOCK_BYTES = 128 * 1024
_ARENAS = 2


def bound() -> bool:
    """Set the bounds for this process, before the engines start their threads.

    Returns:
        Whether there is a glibc to tell.
    """
    try:
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - only glibc has it
        mallopt = libc.mallopt
    except (OSError, AttributeError):
        return False
    settings = (
        (_M_ARENA_MAX, _ARENAS),
        (_M_MMAP_THRESHOLD, _BLOCK_BYTES),
        (_M_TRIM_THRESHOLD, _BLOCK_BYTES),
    )
    return all([mallopt(name, value) == 1 for name, value in settings])
