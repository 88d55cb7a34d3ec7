"""Virtual environments for tools that cannot live beside edgevoice's own packages.

One per list of requirements, in the user's cache folder, made once and used again. pip does the
work with the user's own settings; nothing here names an index. Owns the folders and pip's
verdict, not what is run in them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import platformdirs

from edgevoice.errors import MissingDependencyError
from edgevoice.export.child_lines import listen
from edgevoice.progress import Meter, silent

_READY = "ready"


def environment(name: str, steps: Sequence[Sequence[str]], meter: Meter = silent) -> Path:
    """Return the ``bin`` folder of an environment with ``steps`` installed, made if need be.

    Args:
        name: What it is for, for people.
        steps: Lists of requirements; each list is one ``pip install``, in this order, so that a
            build chosen early (torch for the CPU) is there when others ask for any.
        meter: Shows progress: one unit per line that pip says.

    Raises:
        MissingDependencyError: pip could not install something; one line of why.
    """
    folder = _root() / f"{name}-{_key(steps)}"
    binaries = folder / "bin"
    if (folder / _READY).exists():
        return binaries
    folder.parent.mkdir(parents=True, exist_ok=True)
    with _held(folder.with_suffix(".lock")):
        if (folder / _READY).exists():  # another process has made it meanwhile
            return binaries
        shutil.rmtree(folder, ignore_errors=True)
        try:
            with meter(f"set up {name}", None) as advance:
                _run([sys.executable, "-m", "venv", str(folder)], name, advance)
                for step in steps:
                    pip = [str(binaries / "python"), "-m", "pip", "install", *step]
                    _run(pip, name, advance)
            (folder / _READY).touch()
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return binaries


def clean_environment() -> dict[str, str]:
    """Return this process's environment variables without those that would mix packages."""
    mixing = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
    kept = {key: value for key, value in os.environ.items() if key not in mixing}
    return {**kept, "PYTHONNOUSERSITE": "1"}


def _run(command: Sequence[str], name: str, advance: Callable[[int], object]) -> None:
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        advance(1)

    variables = {**clean_environment(), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    if listen(command, variables, hear, errors=subprocess.STDOUT):
        errors = [line for line in said if line.startswith("ERROR")] or [s for s in said if s]
        # pip's first error is the cause, the later ones are what follows from it.
        reason = errors[0].removeprefix("ERROR: ")[:300] if errors else "it says nothing"
        raise MissingDependencyError(
            f"{name} could not be installed into an environment of its own: {reason}; "
            "connect to the network or check pip's index settings, then run the same command again"
        )


@contextmanager
def _held(lock: Path) -> Iterator[None]:
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _key(steps: Sequence[Sequence[str]]) -> str:
    text = "\n".join(" ".join(step) for step in steps)
    return hashlib.sha256(f"{platform.python_version()}\n{text}".encode()).hexdigest()[:12]


def _root() -> Path:
    home = os.environ.get("EDGEVOICE_HOME")
    cache = Path(home) / "cache" if home else Path(platformdirs.user_cache_dir("edgevoice"))
    return cache / "environments"
