"""The wheels of a bundle: this edgevoice's own, and all that it needs on the device.

pip fetches what an index has for the target's platform and Python; what no index has as a wheel
(llama-cpp-python for ARM, see `tools/cross-llama`) is found in folders. edgevoice's own wheel is
packed from the modules that run here, so that the device gets this very version. What else is in
a bundle is :mod:`edgevoice.devices.bundle`'s business.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.metadata
import importlib.util
import io
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgevoice.errors import ConfigError, FetchError

ARCHITECTURES = ("aarch64", "x86_64")

_PACKAGES = ("edgevoice", "edgevoice.export", "edgevoice.quant", "edgevoice.devices")
_OLDEST_GLIBC, _NEWEST_GLIBC = 17, 36
"""Of glibc 2.N: manylinux2014's, and Debian 12's, the oldest system that a bundle is for."""
_PYTHON = re.compile(r"3\.(\d+)")
_OLDEST_PYTHON = 11
_MANYLINUX = re.compile(r"manylinux_2_(\d+)_")
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can hold: equal modules make an equal wheel."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a bundle's wheels have to run on.

    Attributes:
        architecture: One of :data:`ARCHITECTURES`.
        python: Its Python, ``3.11``.

    Raises:
        ConfigError: No bundle can be made for such a machine.
    """

    architecture: str
    python: str

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ConfigError(
                f"no bundle for {self.architecture!r}; there are wheels for: "
                f"{', '.join(ARCHITECTURES)}"
            )
        found = _PYTHON.fullmatch(self.python)
        if not found or int(found[1]) < _OLDEST_PYTHON:
            raise ConfigError(
                f"python {self.python!r}: must be a version from 3.{_OLDEST_PYTHON} up, "
                "for example 3.11 (Debian 12, Raspberry Pi OS bookworm) or 3.13 (trixie)"
            )

    def platforms(self) -> tuple[str, ...]:
        """Return the platform tags that the target loads, the newest glibc first."""
        numbers = range(_NEWEST_GLIBC, _OLDEST_GLIBC - 1, -1)
        return (
            *(f"manylinux_2_{n}_{self.architecture}" for n in numbers),
            f"manylinux2014_{self.architecture}",
            f"linux_{self.architecture}",
        )


def fetch_wheels(target: Target, extras: Sequence[str], folders: Sequence[Path], out: Path) -> str:
    """Put every wheel of edgevoice with ``extras``, and pip's, for ``target`` into ``out``.

    Args:
        target: What they run on.
        extras: Of edgevoice's own.
        folders: Where wheels lie that no index has.
        out: An existing folder.

    Returns:
        The requirement to install from ``out``.

    Raises:
        FetchError: A wheel cannot be had.
    """
    own = pack_own_wheel(out)
    wanted = f"[{','.join(sorted(extras))}]" if extras else ""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet"),
        *("--only-binary", ":all:", "--dest", str(out), "--python-version", target.python),
        *("--implementation", "cp"),
        *(option for tag in target.platforms() for option in ("--platform", tag)),
        *(option for folder in folders for option in ("--find-links", str(folder))),
        *(f"{own}{wanted}", "pip"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise FetchError(_reason(done.stderr, target))
    return f"edgevoice{wanted}=={importlib.metadata.version('edgevoice')}"


def _reason(stderr: str, target: Target) -> str:
    errors = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    missing = re.search(r"No matching distribution found for (\S+)", stderr)
    if "No space left on device" in stderr:
        return "the disk is full; make room, or set TMPDIR and --out to another one"
    if missing is None:
        last = errors[-1].removeprefix("ERROR: ") if errors else "pip said nothing"
        return f"pip could not fetch the wheels: {last}"
    where = f"{target.architecture} and Python {target.python}"
    if missing[1].startswith("llama-cpp-python"):
        return (
            f"no wheel of {missing[1]} for {where}; tools/cross-llama makes one (`make wheels` for "
            "machines like this one), then name its folder with --find-links"
        )
    return (
        f"no wheel of {missing[1]} for {where}; build one there and name its folder with "
        "--find-links"
    )


def pack_own_wheel(out: Path) -> Path:
    """Write the wheel of the edgevoice that runs here into ``out`` and return its path."""
    distribution = importlib.metadata.distribution("edgevoice")
    folder = f"edgevoice-{distribution.version}.dist-info"
    held = {name: path.read_bytes() for name, path in _own_files()}
    about = "Wheel-Version: 1.0\nGenerator: edgevoice\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    held[f"{folder}/WHEEL"] = about.encode()
    # A wheel's folder has METADATA, a source tree's PKG-INFO.
    metadata = distribution.read_text("METADATA") or distribution.read_text("PKG-INFO") or ""
    held[f"{folder}/METADATA"] = metadata.encode()
    held[f"{folder}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    record = io.StringIO()
    rows = csv.writer(record, lineterminator="\n")
    for name, data in held.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((f"{folder}/RECORD", "", ""))
    held[f"{folder}/RECORD"] = record.getvalue().encode()
    path = out / f"edgevoice-{distribution.version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in held.items():
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o644) << 16
            wheel.writestr(entry, data)
    return path


def _own_files() -> Iterator[tuple[str, Path]]:
    # Four folders in a source tree, one once installed; see setuptools' package-dir.
    inner = {name.rpartition(".")[2] for name in _PACKAGES[1:]}
    for package in _PACKAGES:
        spec = importlib.util.find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations is not None
        root = Path(next(iter(spec.submodule_search_locations)))
        for folder, folders, names in os.walk(root, followlinks=True):
            taken = inner if package == "edgevoice" and Path(folder) == root else set()
            folders[:] = sorted({*folders} - taken - {"__pycache__"})
            for name in sorted(names):
                path = Path(folder) / name
                held = f"{package.replace('.', '/')}/{path.relative_to(root).as_posix()}"
                yield held, path


def oldest_glibc(wheels: Sequence[str]) -> int:
    """Return N of the oldest glibc 2.N that loads every one of these wheels, by their names.

    >>> oldest_glibc(["a-1-py3-none-any.whl", "b-1-py3-none-manylinux2014_aarch64.whl"])
    17
    >>> oldest_glibc(["c-1-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"])
    27
    """
    found = [min(map(int, _MANYLINUX.findall(name)), default=0) for name in wheels]
    return max(_OLDEST_GLIBC, *found)
