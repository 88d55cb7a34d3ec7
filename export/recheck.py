"""Runs the gates again on an artifact that exists: an own one, or one that someone else made.

A foreign folder needs no manifest: its family is named or recognised, and what the engine must
know comes from the float reference, which is converted from its source if it is no artifact yet.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edgevoice import manifest
from edgevoice.catalogue import Catalogue
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.export import candidates, family, gates, plan, recorded, source, workspace
from edgevoice.export.candidates import Candidate, Footprint
from edgevoice.export.family import Family, Written
from edgevoice.export.pipeline import Exporter
from edgevoice.export.plan import Request
from edgevoice.manifest import FILE_NAME, Manifest
from edgevoice.quant import scheme as schemes
from edgevoice.quant.scheme import Scheme
from edgevoice.store import Store

FOREIGN = "foreign"


@dataclass(frozen=True, slots=True)
class Check:
    """What ``edgevoice export check`` was asked.

    Attributes:
        artifact: A name in the store, or a folder with or without a manifest.
        reference: What it is measured against: a float artifact or its source; "": the source
            that the artifact's manifest names, if it lies on this machine.
        family: The exporter's; "": the manifest's, or the first that recognises the folder.
        material: The user's recordings or text, None for the default.
        bounds: Figure to value, over the stage's own.
    """

    artifact: str
    reference: str = ""
    family: str = ""
    material: Path | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    threads: int = 2


@dataclass(frozen=True, slots=True)
class Checked:
    """The artifact that was checked, and what against."""

    family: Family
    reference: Footprint
    candidate: Candidate


def check(asked: Check, exporter: Exporter, known: Catalogue) -> Checked:
    """Measure the artifact against its float reference and judge it.

    Raises:
        ConfigError: A family, bound or reference is missing or not known.
        ArtifactError: The artifact is damaged, or the reference cannot be made.
    """
    folder = _folder(asked.artifact, exporter.store)
    described = manifest.read(folder) if (folder / FILE_NAME).is_file() else None
    chosen = _family(asked, folder, described)
    gates.all_bounds(chosen.stage, asked.bounds, artifact_format=chosen.format)
    spec = asked.reference or _recorded_source(described)
    if not spec:
        raise ConfigError(
            f"{asked.artifact}: nothing to measure it against; name its float source with "
            "--reference FOLDER_OR_SOURCE"
        )
    if described is not None and (problems := Store(folder.parent).verify(str(folder))):
        raise ArtifactError(f"{asked.artifact} is damaged: {problems[0]}")
    beside = _artifact_of(spec, exporter.store, chosen)
    if beside is not None:
        reference = candidates.footprint(beside, "the reference", asked.threads, exporter.meter)
        return _measured(asked, exporter, chosen, folder, reference)
    resolved = source.resolve(spec, exporter.store, known, exporter.meter)
    request = Request(spec, chosen.name, (chosen.default_scheme,), threads=asked.threads)
    made = plan.make(request, resolved)
    plan.refuse_what_cannot_be(made, exporter.store)
    with workspace.opened(exporter.store, recorded.key(request, made), exporter.say) as here:
        reference, _ = exporter.reference(request, made, here)
        done = _measured(asked, exporter, chosen, folder, reference)
        here.discard()
    resolved.forget()
    return done


def _measured(
    asked: Check, exporter: Exporter, chosen: Family, folder: Path, reference: Footprint
) -> Checked:
    bounds = gates.all_bounds(chosen.stage, asked.bounds, chosen.bounds, chosen.format)
    # One check at a time: they would be in each other's run times.
    with workspace.opened(exporter.store, "check", exporter.say) as here, here.scratch() as work:
        if not (folder / FILE_NAME).is_file():
            # The engines need a manifest, and the user's folder is not ours to write to.
            view = work / folder.resolve().name
            _link(folder, view)
            engine = dict(manifest.read(reference.folder).engine)
            written = Written(engine=engine)
            foreign = candidates.artifact(chosen, FOREIGN, FOREIGN, view, written)
            manifest.write(foreign, view)
            folder = view
        described = manifest.read(folder)
        scheme = _scheme(described)
        candidate = Candidate(
            scheme, scheme, folder, Written(engine=described.engine), described.files
        )
        measured = candidates.measure(
            candidate,
            reference,
            family=chosen,
            bounds=bounds,
            material=asked.material,
            threads=asked.threads,
            meter=exporter.meter,
        )
    return Checked(chosen, reference, measured)


def _folder(artifact: str, store: Store) -> Path:
    if artifact in store.names():
        return store.path(artifact)
    path = Path(artifact).expanduser()
    if path.is_dir():
        return path
    raise ArtifactError(
        f"artifact {artifact!r}: no folder and not installed in {store.root}; "
        "`edgevoice models list` shows what is"
    )


def _family(asked: Check, folder: Path, described: Manifest | None) -> Family:
    if asked.family:
        return family.load(asked.family)
    if described is not None:
        recorded = described.checks.get("export", {}).get("family", "")
        if recorded in family.MODULES:
            return family.load(recorded)
        for name in family.MODULES:
            found = family.load(name)
            if (found.artifact_family, found.stage) == (described.family, described.stage):
                return found
    found_all = family.recognise(folder)
    if not found_all:
        known = ", ".join(sorted(family.MODULES))
        raise ConfigError(f"{asked.artifact}: name its family with --family; known: {known}")
    return found_all[0]


def _recorded_source(described: Manifest | None) -> str:
    """Return the local source that the manifest names; nothing is fetched unasked."""
    if described is None:
        return ""
    path = Path(described.source.removeprefix("file:"))
    return str(path) if described.source.startswith("file:") and path.exists() else ""


def _scheme(described: Manifest) -> Scheme:
    known = schemes.SCHEMES.get(described.scheme)
    return known or Scheme(described.scheme, described.format, "", 0, "made elsewhere")


def _artifact_of(spec: str, store: Store, chosen: Family) -> Path | None:
    """Return the artifact that ``spec`` names, if it is one of this family."""
    folder = store.path(spec) if spec in store.names() else Path(spec).expanduser()
    if not (folder / FILE_NAME).is_file():
        return None
    described = manifest.read(folder)
    same = (described.family, described.stage) == (chosen.artifact_family, chosen.stage)
    return folder if same else None


def _link(folder: Path, view: Path) -> None:
    shutil.copytree(folder, view, copy_function=_link_one)


def _link_one(path: str, target: str) -> None:
    try:
        os.link(path, target)
    except OSError:  # another file system
        shutil.copyfile(path, target)
