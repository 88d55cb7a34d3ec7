"""Loads an artifact for the first time in a child process, since native code may abort.

Owns the child, its verdict, and the stamp that makes a second start free: one empty file per
artifact content and library versions in the user's cache folder. What a load is belongs to the
engine, which offers a function of one :class:`~pathlib.Path`. Calls are independent, so several
artifacts can be probed from several threads at once.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import os
import resource
import signal
import subprocess
import sys
import traceback
from pathlib import Path

import platformdirs

import edgevoice
from edgevoice import manifest
from edgevoice.errors import ArtifactError, EdgevoiceError

TIMEOUT_S = 600.0
"""A load that hangs is ended, one that is slow is not: Whisper took more than 120 s on a busy
machine that emulated another."""
_ENGINE_PACKAGES = ("sherpa-onnx", "onnxruntime", "llama-cpp-python", "tokenizers")
DELIBERATE = 3  # the child's exit status when the loader raised an EdgevoiceError


def ensure_loadable(artifact: Path, loader: str, timeout_s: float = TIMEOUT_S) -> None:
    """Make sure that ``artifact`` can be loaded without ending this process.

    Args:
        artifact: An artifact's folder, or a single model file.
        loader: ``module:function``; the function takes ``artifact`` and loads it.
        timeout_s: How long the load may take.

    Raises:
        ArtifactError: The load raised, crashed, was killed or did not come to an end.
    """
    if survived(artifact, loader):
        return
    probe(loader, str(artifact), timeout_s=timeout_s)
    remember(artifact, loader)


def survived(artifact: Path, loader: str) -> bool:
    """Return whether :func:`remember` was told so of this content, loader and libraries."""
    done = _stamp(artifact, loader)
    with contextlib.suppress(OSError):
        return done.exists()
    return False


def remember(artifact: Path, loader: str) -> None:
    """Remember that ``loader`` has loaded ``artifact`` and come to an end."""
    done = _stamp(artifact, loader)
    # A cache that cannot be written costs a probe at each start, nothing else.
    with contextlib.suppress(OSError):
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()


def probe(loader: str, argument: str, timeout_s: float = TIMEOUT_S) -> None:
    """Run ``loader`` (``module:function``) on ``Path(argument)`` in a fresh interpreter.

    Raises:
        ArtifactError: As :func:`ensure_loadable`.
    """
    status, said = attempt(loader, argument, timeout_s=timeout_s)
    if status == 0:
        return
    last = last_line(said)
    if status == DELIBERATE:
        raise ArtifactError(last)
    raise ArtifactError(
        f"{argument}: its first load {ending(status)}{': ' + last if last else ''}; "
        "pull the artifact again"
    )


def attempt(
    loader: str, argument: str, *more: str, timeout_s: float = TIMEOUT_S
) -> tuple[int, bytes]:
    """Run ``loader`` on ``Path(argument), *more`` in a fresh interpreter; return how it ended.

    A fork would copy the parent's threads' locks in whatever state they are.

    Returns:
        The exit status, negative for a signal, and what was written to stderr.

    Raises:
        ArtifactError: It did not come to an end, or no process could be made.
    """
    command = [sys.executable, "-P", "-m", "edgevoice.engines.probe", loader, argument, *more]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=timeout_s,
            check=False,
            # ggml would start a debugger on itself to print a backtrace.
            env={**os.environ, "GGML_NO_BACKTRACE": "1"},
        )
    except subprocess.TimeoutExpired as error:
        raise ArtifactError(
            f"{argument}: its first load did not end within {timeout_s:g} s; "
            "pull the artifact again, or choose a smaller one"
        ) from error
    except OSError as error:
        raise ArtifactError(
            f"{argument}: no process to try its first load in: {error.strerror or error}"
        ) from error
    return done.returncode, done.stderr


def ending(returncode: int) -> str:
    """Word how a process that did not end with 0 ended."""
    if returncode > 0:
        return f"failed (exit status {returncode})"
    try:
        name = signal.Signals(-returncode).name
    except ValueError:
        name = f"signal {-returncode}"
    if name == "SIGKILL":
        return "was ended by SIGKILL, probably for want of memory"
    return f"crashed with {name}"


def last_line(stderr: bytes) -> str:
    """Return the last line that says something, shortened from the front."""
    lines = [line.strip() for line in stderr.decode("utf-8", "replace").splitlines()]
    return next((line for line in reversed(lines) if line), "")[-400:]


def _stamp(artifact: Path, loader: str) -> Path:
    """Return the file whose presence says that this content loads with these libraries."""
    digest = hashlib.sha256()
    for part in (str(artifact.resolve()), loader, *_versions()):
        digest.update(part.encode() + b"\0")
    described = artifact / manifest.FILE_NAME
    with contextlib.suppress(OSError):
        digest.update(described.read_bytes())
    # The manifest's hashes are not computed again here; size and time tell a changed file.
    files = sorted(p for p in artifact.rglob("*") if p.is_file()) or [artifact]
    for file in files:
        with contextlib.suppress(OSError):
            facts = file.stat()
            digest.update(f"{file.name}\0{facts.st_size}\0{facts.st_mtime_ns}\0".encode())
    home = os.environ.get("EDGEVOICE_HOME")
    cache = Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("edgevoice"))
    return cache / "loadable" / digest.hexdigest()


@functools.cache
def _versions() -> tuple[str, ...]:
    found = [f"edgevoice {edgevoice.__version__}", f"python {sys.version}"]
    for name in _ENGINE_PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{name} absent")
    return tuple(found)


def main(loader: str, argument: str, *more: str) -> int:
    """Be the child: load, and say on the last line of stderr what went wrong."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    module, _, function = loader.partition(":")
    try:
        getattr(importlib.import_module(module), function)(Path(argument), *more)
    except EdgevoiceError as error:
        print(error, file=sys.stderr)
        return DELIBERATE
    except Exception:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
