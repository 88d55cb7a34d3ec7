"""The bounds on glibc's memory, seen from outside the process that sets them."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

from edgevoice import native_memory

GROW_AND_FREE = """
import ctypes, sys
from edgevoice import native_memory
if sys.argv[1] == "bounded":
    assert native_memory.bound()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
# The first freed block of 8 MB teaches glibc to keep blocks of up to that size in its heap.
libc.free(libc.malloc(8 << 20))
blocks = [libc.malloc(4 << 20) for _ in range(16)]
for block in blocks:
    ctypes.memset(ctypes.c_void_p(block), 1, 4 << 20)
# The last one stays, on top of the heap, and keeps what lies below it.
for block in blocks[:-1]:
    libc.free(block)
status = open("/proc/self/status").read()
print(int(status.split("VmRSS:")[1].split()[0]) // 1024)
"""


def resident_mb(mode: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", GROW_AND_FREE, mode], capture_output=True, text=True, check=True
    )
    return int(done.stdout)


def test_freed_memory_goes_back_to_the_system() -> None:
    assert resident_mb("bounded") < resident_mb("free") - 32


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not native_memory.bound()
