"""Tells the service manager how the daemon is: ready, still alive, ending.

Owns systemd's protocol for that (sd_notify(3), sd_watchdog_enabled(3)): datagrams to the socket
that ``NOTIFY_SOCKET`` names. Without a service manager nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket

_MICROSECONDS = 1_000_000


def notify(state: str) -> None:
    """Send ``state``, ``READY=1`` for one; that nobody listens is no error."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            # "@" stands for the NUL of an abstract address.
            s.sendto(state.encode(), address.replace("@", "\0", 1))


def watchdog_s() -> float:
    """Return after how many seconds of silence this process is ended; 0 for never."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return 0.0  # meant for the process that started this one
    try:
        return max(0, int(os.environ.get("WATCHDOG_USEC", "0"))) / _MICROSECONDS
    except ValueError:
        return 0.0


async def keep_watchdog() -> None:
    """Tell the watchdog, twice as often as it asks, that this event loop turns; runs for ever.

    An event loop that hangs in native code, or waits for a lock that nobody gives back, does not
    come here, and systemd ends and restarts the process.
    """
    limit_s = watchdog_s()
    while limit_s:
        notify("WATCHDOG=1")
        await asyncio.sleep(limit_s / 2)
