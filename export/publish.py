"""Makes an artifact of a candidate that met its bounds: the manifest, then one rename.

Into the store, or below a folder of the user's. Owns what the manifest records of an export.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgevoice import manifest
from edgevoice.errors import ArtifactError
from edgevoice.export import candidates, recorded
from edgevoice.export.candidates import Candidate, Footprint
from edgevoice.export.plan import Plan, Request
from edgevoice.export.source import NO_LICENCE
from edgevoice.manifest import FILE_NAME, Manifest
from edgevoice.quant.recipe import by_type
from edgevoice.store import Store, check_name


def publish(candidate: Candidate, described: Manifest, out: Path | None, store: Store) -> Path:
    """Publish ``candidate`` as ``described``, below ``out`` or into the store.

    Returns:
        The published folder.

    Raises:
        ArtifactError: Something that is no artifact is in the way.
    """
    assert candidate.folder is not None
    if out is not None:
        return place(candidate.folder, described, out)
    with store.incoming() as folder:
        files = folder / "out"
        files.mkdir()
        link_files(candidate.folder, files)
        return store.publish(files, described)


def artifact_name(request: Request, plan: Plan, scheme: str, several: bool) -> str:
    """Return what the artifact of ``scheme`` is called."""
    if request.name:
        return f"{request.name}-{scheme}" if several else request.name
    return f"{plan.source.name}-{scheme}"


def record(
    request: Request,
    plan: Plan,
    candidate: Candidate,
    *,
    reference: Footprint,
    missed: Sequence[Candidate],
    several: bool,
) -> Manifest:
    """Return the manifest: the files, the choices, the figures, and what decided them.

    Args:
        missed: Candidates that failed before this one was taken.
        several: More schemes than one were asked for, so that each name ends with its scheme.
    """
    assert candidate.folder is not None
    recipe = plan.family.recipe(candidate.scheme.name)
    scheme = candidate.written.scheme or candidate.scheme.name
    return candidates.artifact(
        plan.family,
        artifact_name(request, plan, scheme, several),
        scheme,
        candidate.folder,
        candidate.written,
        licence=licence(request, plan),
        source=plan.source.origin,
        engine={**candidate.written.engine, **candidate.engine},
        device=plan.device.name if plan.device is not None else "",
        checks={
            "passed": candidate.passed,
            "figures": {name: recorded.number(v) for name, v in candidate.figures.items()},
            "verdicts": verdicts(candidate),
            "notes": list(candidate.written.notes),
            "bytes_by_type": dict(by_type(candidate.written.tensors)),
            "missed": {c.scheme.name: c.why_not for c in missed},
            "export": {
                "family": plan.family.name,
                "source": plan.source.spec,
                "revision": plan.source.revision,
                "asked_for": candidate.asked.name,
                "recipe": [[o.pattern, o.treatment, o.reason] for o in recipe.overrides],
                "options": dict(request.options),
                "calibration": "the user's" if request.calibrate else "edgevoice's",
                "measured_on": "the user's" if request.check_with else "edgevoice's",
                **_built_for(plan, candidate),
                "seed": request.seed,
                "threads": request.threads,
                "versions": dict(recorded.versions()),
                "reference_bytes": reference.bytes,
            },
        },
    )


def _built_for(plan: Plan, candidate: Candidate) -> dict[str, Any]:
    """Return what of the device decided the bytes, for whoever asks whether another has it."""
    if plan.device is None:
        return {}
    return {
        "built_for": {
            "device": plan.device.name,
            "architecture": plan.device.architecture,
            "cpu_features": list(plan.device.cpu_features),
            "weight_bits": candidate.written.weight_bits or candidate.scheme.weight_bits,
        }
    }


def verdicts(candidate: Candidate) -> list[dict[str, Any]]:
    """Return the verdicts as plain JSON values."""
    return [
        {
            "figure": v.bound.figure,
            "allowed": f"{v.bound.relation} {v.bound.value:g}",
            "measured": recorded.number(v.measured),
            "passed": v.passed,
        }
        for v in candidate.verdicts
    ]


def licence(request: Request, plan: Plan) -> str:
    """Return the licence of the weights: the user's word, the source's, the family's."""
    return request.licence or plan.source.licence or plan.family.licence or NO_LICENCE


def place(files: Path, described: Manifest, folder: Path) -> Path:
    """Put an artifact below ``folder`` under its name: temporary folder first, rename last.

    Raises:
        ArtifactError: Something that is no artifact has that name, or the name is none.
    """
    check_name(described.name)
    target = folder / described.name
    if target.exists() and not (target / FILE_NAME).is_file():
        raise ArtifactError(f"{target} is in the way and is no artifact; move it or use --name")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder) as scratch:
        out = Path(scratch) / "out"
        out.mkdir(mode=0o755)
        link_files(files, out)
        manifest.write(described, out)
        if target.exists():
            target.rename(Path(scratch) / "replaced")
        out.rename(target)
    return target


def link_files(files: Path, out: Path) -> None:
    """Give ``out`` the files of ``files`` but the manifest: hard links, copies where none can be.

    The cache's folder stays whole until the export has ended, and nothing is written twice.
    """
    for path in sorted(files.rglob("*")):
        target = out / path.relative_to(files)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        elif path != files / FILE_NAME:
            try:
                os.link(path, target)
            except OSError:  # another file system, or one without hard links
                shutil.copyfile(path, target)
