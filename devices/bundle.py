"""A bundle: one archive with all that edgevoice needs on a device that has no network.

Owns what lies in it and the facts that its `install.sh` asks for. Wheels come from
:mod:`edgevoice.devices.bundle_wheels`, the archive is :mod:`edgevoice.devices.bundle_archive`'s.

    edgevoice-VERSION-PROFILE/
      install.sh      checks the machine and every hash, installs, --uninstall
      bundle.env      the facts that install.sh reads
      bundle.json     what is in here, for people and programs
      SHA256SUMS      of every file but itself
      edgevoice.toml  the configuration
      wheels/  models/  services/  devices/ (a profile of the user's own)
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from edgevoice import __version__, config
from edgevoice.devices import bundle_archive, bundle_wheels
from edgevoice.devices.bundle_archive import Member
from edgevoice.devices.bundle_wheels import Target
from edgevoice.errors import ArtifactError
from edgevoice.manifest import Manifest
from edgevoice.progress import Meter
from edgevoice.settings import Settings
from edgevoice.store import Store, sha256

SCHEMA_VERSION = 1

_MB = 1_000_000
_MIB = 1 << 20
_WHEELS_BYTES = 80 * _MB
"""The wheels of the default bundle for aarch64 are 70 MB."""
_UNPACKED_WHEELS = 4
"""Wheels become three times larger when they are installed; compiled Python comes on top."""
MEMORY_MB = 800
"""The default bundle's daemon peaks below it."""
_PHONEME_VOICES = ("piper", "kokoro")
_SERVICES = ("edgevoice-system.service", "edgevoice-user.service")
_TERMUX = ("setup.sh", "edgevoice-termux", "boot")


@dataclass(frozen=True, slots=True)
class BundlePlan:
    """What to put together.

    Attributes:
        profile: The device profile's name.
        target: What the wheels run on.
        settings: The configuration; it names the models.
        chosen: Which of it the device's configuration file says, by section and key; the device's
            edgevoice has the rest, from the profile and its defaults.
        own_profile: The profile as TOML where edgevoice does not bring it.
        wheel_folders: Where wheels lie that no index has.
        memory_mb: MiB that the service may take before it is slowed down.
        espeak: Whether espeak-ng (GPL-3.0) comes along where the voice needs it.
    """

    profile: str
    target: Target
    settings: Settings
    chosen: Collection[tuple[str, str]] = ()
    own_profile: str = ""
    wheel_folders: tuple[Path, ...] = ()
    memory_mb: int = MEMORY_MB
    espeak: bool = True


@dataclass(frozen=True, slots=True)
class Bundle:
    """What was written.

    Attributes:
        path: The archive.
        size_bytes: Its size.
        folder: The one folder that it unpacks to.
        wheels: File names.
        models: Names of the artifacts.
        installed_mb: MiB that it takes on the device.
        contents: What `bundle.json` says.
    """

    path: Path
    size_bytes: int
    folder: str
    wheels: tuple[str, ...]
    models: tuple[str, ...]
    installed_mb: int
    contents: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Fetched:
    """Wheels in a folder, and what to ask pip for to install them."""

    folder: Path
    requirement: str


Fetch = Callable[[BundlePlan, Sequence[str], Path], Fetched]


def fetch(plan: BundlePlan, extras: Sequence[str], folder: Path) -> Fetched:
    """Bring the plan's wheels into ``folder`` with pip. Raises as ``fetch_wheels`` does."""
    wanted = bundle_wheels.fetch_wheels(plan.target, extras, plan.wheel_folders, folder)
    return Fetched(folder, wanted)


def make(
    plan: BundlePlan, store: Store, out: Path, meter: Meter, fetching: Fetch = fetch
) -> Bundle:
    """Write the bundle to ``out``; where that fails, nothing of it stays.

    Raises:
        ConfigError: ``out`` cannot be an archive's name.
        ArtifactError: A model is missing or damaged.
        FetchError: The disk is too small, or a wheel cannot be had.
        MissingDependencyError: The program that compresses is not installed.
    """
    bundle_archive.check_suffix(out)
    settings = plan.settings
    names = tuple(dict.fromkeys((*settings.artifacts().values(), *settings.cheaper().values())))
    manifests = {name: store.manifest(name) for name in names}
    models_bytes = sum(f.size for m in manifests.values() for f in m.files)
    parent = out.absolute().parent
    # The wheels lie there twice, loose and packed.
    bundle_archive.check_disk(parent, models_bytes + 2 * _WHEELS_BYTES)
    with (
        bundle_archive.one_line_when_full(parent),
        tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=parent) as work,
    ):
        folder = Path(work)
        wheels = folder / "wheels"
        wheels.mkdir()
        with meter("fetch wheels", None):
            fetched = fetching(plan, _extras(plan, manifests.values()), wheels)
        members = [
            *(Member(f"wheels/{p.name}", p) for p in sorted(fetched.folder.iterdir())),
            *_model_members(store, names, meter),
            *_written_members(plan, folder),
        ]
        contents = _describe(plan, members, fetched.requirement, manifests, meter)
        members += _written_last(contents, folder)
        top = f"edgevoice-{__version__}-{plan.profile}"
        total = sum(member.path.stat().st_size for member in members)
        bundle_archive.check_disk(parent, total)
        with meter(f"write {out.name}", total) as advance:
            bundle_archive.write_archive(out, top, members, advance)
    return Bundle(
        path=out,
        size_bytes=out.stat().st_size,
        folder=top,
        wheels=tuple(contents["wheels"]),
        models=names,
        installed_mb=contents["installed_mb"],
        contents=contents,
    )


def _extras(plan: BundlePlan, manifests: Iterable[Manifest]) -> tuple[str, ...]:
    extras = set()
    for artifact in manifests:
        if artifact.stage == "speech" and artifact.family in _PHONEME_VOICES and plan.espeak:
            extras.add("espeak")
        if artifact.stage == "language-model" and artifact.format == "onnx":
            extras.add("onnx-llm")
    return tuple(sorted(extras))


def _model_members(store: Store, names: Sequence[str], meter: Meter) -> list[Member]:
    members = []
    for name in names:
        folder = store.path(name)
        total = sum(f.size for f in store.manifest(name).files)
        with meter(f"check {name}", total) as advance:
            problems = store.verify(name, advance)
        if problems:
            raise ArtifactError(f"{name}: {problems[0]}; `edgevoice models pull {name}` mends it")
        members += [
            # A model that the configuration names by its folder keeps the folder's name.
            Member(f"models/{folder.name}/{p.relative_to(folder).as_posix()}", p)
            for p in sorted(folder.rglob("*"))
            if p.is_file()
        ]
    return members


def _written_members(plan: BundlePlan, work: Path) -> list[Member]:
    """Write the configuration, the services and install.sh into ``work``."""
    source = resources.files("edgevoice.devices")
    (work / "edgevoice.toml").write_text(_configuration(plan), encoding="utf-8")
    (work / "install.sh").write_bytes((source / "install.sh").read_bytes())
    members = [
        Member("edgevoice.toml", work / "edgevoice.toml"),
        Member("install.sh", work / "install.sh", executable=True),
    ]
    if plan.own_profile:
        (work / "profile.toml").write_text(plan.own_profile, encoding="utf-8")
        members.append(Member(f"devices/{plan.profile}.toml", work / "profile.toml"))
    for name in _SERVICES:
        text = (source / "services" / name).read_text(encoding="utf-8")
        text = text.replace("@MEMORY_HIGH_MB@", str(plan.memory_mb))
        text = text.replace("@MEMORY_MAX_MB@", str(plan.memory_mb * 3 // 2))
        (work / name).write_text(text, encoding="utf-8")
        members.append(Member(f"services/{name}", work / name))
    for name in _TERMUX if plan.target.architecture == "aarch64" else ():
        (work / name).write_bytes((source / "services" / "termux" / name).read_bytes())
        members.append(Member(f"services/termux/{name}", work / name, executable=True))
    return members


def _configuration(plan: BundlePlan) -> str:
    """Return the device's configuration file: what was chosen, models by their names."""
    lines = ["# Every other setting, and what it means: `edgevoice config show`."]
    for part in dataclasses.fields(plan.settings):
        section = getattr(plan.settings, part.name)
        said = {k: getattr(section, k) for s, k in sorted(plan.chosen) if s == part.name}
        if "/" in str(said.get("model", "")):
            said["model"] = Path(section.model).name  # the folder is this machine's
        if said:
            lines += [
                "",
                f"[{part.name}]",
                *(f"{k} = {config.literal(v)}" for k, v in said.items()),
            ]
    return "\n".join(lines) + "\n"


def _describe(
    plan: BundlePlan,
    members: Sequence[Member],
    requirement: str,
    manifests: Mapping[str, Manifest],
    meter: Meter,
) -> dict[str, Any]:
    """Return what `bundle.json` says of ``members``, hashed."""
    sizes = {member.name: member.path.stat().st_size for member in members}
    total = sum(sizes.values())
    wheels = [member.path.name for member in members if member.name.startswith("wheels/")]
    wheels_bytes = sum(size for name, size in sizes.items() if name.startswith("wheels/"))
    with meter("hash", total) as advance:
        sums = {member.name: sha256(member.path, advance) for member in members}
    return {
        "schema_version": SCHEMA_VERSION,
        "edgevoice": __version__,
        "profile": plan.profile,
        "architecture": plan.target.architecture,
        "python": plan.target.python,
        "oldest_glibc": f"2.{bundle_wheels.oldest_glibc(wheels)}",
        "installed_mb": (total + (_UNPACKED_WHEELS - 1) * wheels_bytes) // _MIB + 1,
        "requirement": requirement,
        "models": {
            name: {"stage": m.stage, "scheme": m.scheme, "licence": m.licence, "source": m.source}
            for name, m in manifests.items()
        },
        "wheels": wheels,
        "files": [
            {"path": name, "size": sizes[name], "sha256": sums[name]} for name in sorted(sums)
        ],
    }


def _written_last(contents: Mapping[str, Any], work: Path) -> list[Member]:
    """Write what says what the other files are."""
    facts = {
        "ARCHITECTURE": contents["architecture"],
        "GLIBC_MINOR": contents["oldest_glibc"].removeprefix("2."),
        "NEED_MB": contents["installed_mb"],
        "PROFILE": contents["profile"],
        "PYTHON": contents["python"],
        "REQUIREMENT": contents["requirement"],
    }
    texts = {
        "bundle.json": json.dumps(contents, indent=2, ensure_ascii=False) + "\n",
        # A shell reads it. The values are names and numbers; none has a quote in it.
        "bundle.env": "".join(f"{key}='{value}'\n" for key, value in facts.items()),
    }
    for name, text in texts.items():
        (work / name).write_text(text, encoding="utf-8")
    sums = {file["path"]: file["sha256"] for file in contents["files"]}
    sums |= {name: sha256(work / name) for name in texts}
    lines = (f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    (work / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")
    return [Member(name, work / name) for name in (*texts, "SHA256SUMS")]
