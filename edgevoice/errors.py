"""The errors that edgevoice raises on purpose, and the exit code that each one means.

Every message is one line that names the value, what was allowed, and the next step. The
command line prints it and exits; tracebacks appear only under ``--debug``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_OK = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130


class EdgevoiceError(Exception):
    """Base of all deliberate errors. ``exit_code`` is what the command line returns."""

    exit_code = EXIT_USAGE


class ConfigError(EdgevoiceError):
    """A configuration file or option that cannot be used as written."""


class ArtifactError(EdgevoiceError):
    """A model artifact that is missing, truncated, of the wrong format, or fails its hash."""


class FetchError(EdgevoiceError):
    """A source could not deliver an artifact's file."""

    exit_code = EXIT_FAILURE


class ExportError(EdgevoiceError):
    """An export that cannot go on, or whose result missed its bounds; nothing was published."""

    exit_code = EXIT_FAILURE


class AudioError(EdgevoiceError):
    """An audio file, device or stream that cannot be read or written."""


class EngineError(EdgevoiceError):
    """An engine failed while it was running."""

    exit_code = EXIT_FAILURE


class ProtocolError(EdgevoiceError):
    """A message on the wire that is not what the protocol says."""

    exit_code = EXIT_FAILURE


class MissingDependencyError(EdgevoiceError):
    """An optional package or program is not installed; the message says how to get it."""


class DaemonError(EdgevoiceError):
    """The daemon cannot start, be reached, or take another session."""

    exit_code = EXIT_FAILURE


def refuse_unknown(kind: str, asked: Iterable[str], known: Iterable[str]) -> None:
    """Raise a :class:`ConfigError` if something is ``asked`` that is not ``known``."""
    names = set(known)
    if strange := set(asked) - names:
        raise ConfigError(unknown(kind, min(strange), names))


def unknown(kind: str, value: str, known: Iterable[str]) -> str:
    """Word an "unknown X" message that lists what is known and guesses at what was meant.

    >>> unknown("family", "wisper", ["whisper", "piper"])
    "unknown family 'wisper'; did you mean 'whisper'? known: piper, whisper"
    """
    names = sorted(known)
    near = difflib.get_close_matches(value, names, n=1)
    guess = f" did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {value!r};{guess} known: {', '.join(names)}"
