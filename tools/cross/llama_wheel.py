"""Puts a cross-compiled llama.cpp and the Python files of llama-cpp-python into one wheel.

Owns the wheel's format (https://packaging.python.org/specifications/binary-distribution-format/)
and its platform tag, which comes from the symbol versions that the libraries ask for. What is
compiled, and how, is `tools/cross-llama`'s business.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from email.parser import HeaderParser
from pathlib import Path

_PREFIX = "aarch64-linux-gnu-"
_ARCHITECTURE = "aarch64"
_GLIBC = re.compile(r"\bGLIBC_2\.(\d+)")
_GLIBCXX = re.compile(r"\bGLIBCXX_3\.4\.(\d+)")
# The oldest glibc (2.N) that a distribution with this GLIBCXX_3.4.M came with: CentOS 8 and 9,
# Ubuntu 22.04, Fedora 38, Ubuntu 24.04.
_GLIBC_OF_GLIBCXX = ((25, 28), (29, 34), (30, 35), (31, 37), (33, 39))
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time that a zip file can hold: equal inputs make equal wheels."""


def main() -> int:
    """Write the wheel and print its path."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path, help="the unpacked sdist of llama-cpp-python")
    parser.add_argument("out", type=Path, help="folder for the wheel")
    parser.add_argument("libraries", type=Path, nargs="+", help="what was compiled")
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        libraries = [_stripped(path, Path(work)) for path in parsed.libraries]
        # Not every small system has OpenMP's library; GCC's exception lets it travel along.
        libraries.append(_stripped(_openmp(), Path(work)))
        tag = f"py3-none-manylinux_2_{_glibc(libraries)}_{_ARCHITECTURE}"
        files = [
            *_python_files(parsed.source),
            *((f"llama_cpp/lib/{p.name}", p) for p in libraries),
        ]
        print(_write(parsed.source, parsed.out, tag, files))
    return 0


def _openmp() -> Path:
    found = subprocess.run(
        [f"{_PREFIX}gcc", "-print-file-name=libgomp.so.1"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip()).resolve()


def _stripped(path: Path, work: Path) -> Path:
    # Under the name that the other libraries ask for, libgomp.so.1 and not libgomp.so.1.0.0.
    name = _soname(path) or path.name
    target = work / name
    shutil.copyfile(path, target)
    subprocess.run([f"{_PREFIX}strip", "--strip-unneeded", target], check=True)
    return target


def _soname(path: Path) -> str:
    found = re.search(r"SONAME\s+(\S+)", _objdump("-p", path))
    return found[1] if found else ""


def _objdump(option: str, path: Path) -> str:
    done = subprocess.run(
        [f"{_PREFIX}objdump", option, path], capture_output=True, text=True, check=True
    )
    return done.stdout


def _glibc(libraries: list[Path]) -> int:
    """Return N of the oldest glibc 2.N that these libraries can be loaded with (PEP 600)."""
    symbols = "".join(_objdump("-T", path) for path in libraries)
    needed = max(int(n) for n in _GLIBC.findall(symbols))
    newest = max((int(n) for n in _GLIBCXX.findall(symbols)), default=0)
    for glibcxx, glibc in _GLIBC_OF_GLIBCXX:
        if newest <= glibcxx:
            return max(needed, glibc)
    sys.exit(f"GLIBCXX_3.4.{newest} is not known here; add it to _GLIBC_OF_GLIBCXX")


def _python_files(source: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted((source / "llama_cpp").rglob("*")):
        inner = path.relative_to(source).as_posix()
        if path.is_file() and path.suffix in (".py", ".typed") and "/lib/" not in inner:
            yield inner, path


def _write(source: Path, out: Path, tag: str, files: list[tuple[str, Path]]) -> Path:
    metadata = (source / "PKG-INFO").read_bytes()
    version = HeaderParser().parsestr(metadata.decode())["Version"]
    folder = f"llama_cpp_python-{version}.dist-info"
    about = (
        f"Wheel-Version: 1.0\nGenerator: edgevoice tools/cross-llama\nRoot-Is-Purelib: false\n"
        f"Tag: {tag}\n"
    )
    held = [(name, path.read_bytes()) for name, path in files]
    held += [
        (f"{folder}/METADATA", metadata),
        (f"{folder}/WHEEL", about.encode()),
        (f"{folder}/licenses/LICENSE.md", (source / "LICENSE.md").read_bytes()),
    ]
    held.append((f"{folder}/RECORD", _record(held, f"{folder}/RECORD")))
    out.mkdir(parents=True, exist_ok=True)
    wheel = out / f"llama_cpp_python-{version}-{tag}.whl"
    unfinished = wheel.with_suffix(".part")
    with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in held:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if ".so" in name else 0o644) << 16
            archive.writestr(entry, data)
    unfinished.rename(wheel)
    return wheel


def _record(held: list[tuple[str, bytes]], own: str) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    for name, data in held:
        digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
        rows.writerow((name, f"sha256={digest}", len(data)))
    rows.writerow((own, "", ""))
    return text.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
