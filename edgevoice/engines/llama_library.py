"""The llama.cpp library as this process uses it: its CPU code, its threads' waiting, its log.

Import ``llama_cpp`` from here and nowhere else, so that both hold before its first call.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path

# llama.cpp's threads wait for each other through libgomp, which reads these once, when it is
# loaded. Its default is a busy loop that is long enough to starve, on two busy cores, the very
# thread that is waited for (480 tokens had not been read after 40 s at a load of 5). Sleeping at
# once is slow as well: 20 tokens a second of SmolLM2-135M on two idle cores, where a short busy
# loop before the sleep makes 100.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "20000")

import llama_cpp
from llama_cpp._ggml import libggml

__all__ = ["last_error", "llama_cpp", "prepare"]

_log = logging.getLogger(__name__)
_last_error = "it gives no reason"
_GGML_LEVEL_ERROR = 4


def prepare() -> None:
    """Set the library up; may be called more than once."""
    llama_cpp.llama_log_set(_on_log, None)
    _load_cpu_code()
    llama_cpp.llama_backend_init()


def _load_cpu_code() -> None:
    """Load the file with this CPU's code where a build has one file for each kind of CPU.

    The wheel that `tools/cross-llama` makes is such a build. llama.cpp itself would look for the
    files beside Python's own program.
    """
    if libggml.ggml_backend_reg_count() == 0:
        folder = Path(llama_cpp.__file__).parent / "lib"
        libggml.ggml_backend_load_all_from_path(os.fsencode(folder))


def last_error() -> str:
    """Return llama.cpp's last error line."""
    return _last_error


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_log(level: int, text: bytes, _user_data: object) -> None:
    """Keep llama.cpp off stderr: its lines are for ``--debug``, its last error for messages."""
    global _last_error  # noqa: PLW0603 - the callback of a process-wide native setting
    line = text.decode("utf-8", "replace").strip()
    if level == _GGML_LEVEL_ERROR and line:
        _last_error = line
    _log.debug("%s", line)
