"""What waits to be sent to one client: filled by any thread, emptied by the event loop, bounded.

A client that does not read makes it overflow; then the owner ends the session, since there is no
part of a conversation that could be left out.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque

Message = str | bytes


class Outbox:
    """Messages for one client, oldest first.

    Args:
        limit_bytes: Beyond this, :attr:`overflowed` is set and nothing more is taken.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit_bytes = limit_bytes
        self._messages: deque[Message] = deque()
        self._waiting_bytes = 0
        self._changed = asyncio.Event()
        self._closed = False
        self.overflowed = asyncio.Event()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that were put and not yet sent."""
        return self._waiting_bytes

    def put(self, message: Message) -> None:
        """Append a message, from any thread; returns at once."""
        with contextlib.suppress(RuntimeError):  # The loop has ended, and so has the client.
            self._loop.call_soon_threadsafe(self._append, message)

    def _append(self, message: Message) -> None:
        if self.overflowed.is_set() or self._closed:
            return
        if self._waiting_bytes + len(message) > self._limit_bytes:
            self.overflowed.set()
            return
        self._waiting_bytes += len(message)
        self._messages.append(message)
        self._changed.set()

    def close(self) -> None:
        """Take no more; :meth:`next` gives what is left. From any thread, after what was put."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._closed = True
        self._changed.set()

    async def next(self) -> Message | None:
        """Return the oldest message, or None when the box is closed and empty."""
        while not self._messages:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()

    def sent(self, message: Message) -> None:
        """Note that ``message``, which :meth:`next` gave, has been taken by the network."""
        self._waiting_bytes -= len(message)
