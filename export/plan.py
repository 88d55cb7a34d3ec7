"""What an export would do and need, found out from headers before any weight is read.

Owns the request, the choice of the family, the estimates and the refusals that come before work:
pickles, truncated files, packages, disk and memory. The work itself is
:mod:`edgevoice.export.pipeline`'s.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgevoice import host
from edgevoice.devices.profile import DeviceProfile
from edgevoice.errors import (
    ArtifactError,
    ConfigError,
    EdgevoiceError,
    ExportError,
    MissingDependencyError,
    refuse_unknown,
    unknown,
)
from edgevoice.export import family, gates, pickles, safetensors_header
from edgevoice.export.family import Family, SourceFacts
from edgevoice.export.gates import Bound
from edgevoice.export.source import Resolved
from edgevoice.quant import scheme as schemes
from edgevoice.quant.scheme import FEWER_BITS, Scheme
from edgevoice.store import Store, check_name

_MB = 1_000_000
# Rough, on two x86-64 cores: SmolLM2-135M's F16 GGUF of 270 MB took 5 s, its Q4_K_M 1.5 s.
_CONVERT_BYTES_PER_S = 50e6
_QUANTISE_BYTES_PER_S = 50e6
_MEASURE_S = {
    "recogniser": 90.0,
    "language-model": 60.0,
    "speech": 120.0,
    "vad": 15.0,
    "end-of-turn": 30.0,
}
# A manifest's stages, as a device profile calls them.
_DEVICE_STAGES = {"recogniser": "asr", "language-model": "llm", "speech": "tts"}
# Scales, and tensors that a scheme leaves in float.
_OVERHEAD = 1.1


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; fields are the command's options.

    Attributes:
        device: What the artifact is made for; None: for any device.
        out: Artifacts go into folders below it; None: into the store.
        name: The artifact's; with several schemes ``-SCHEME`` follows. "": SOURCE-SCHEME.
        bounds: Figure to value, over :data:`edgevoice.export.gates.BOUNDS`.
        fallback: The scheme's fallbacks are tried when a gate fails.
        resume: What an interrupted export finished is used.
    """

    source: str
    family: str = ""
    schemes: tuple[str, ...] = ()
    device: DeviceProfile | None = None
    out: Path | None = None
    name: str = ""
    licence: str = ""
    calibrate: Path | None = None
    check_with: Path | None = None
    bounds: Mapping[str, float] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    threads: int = 2
    seed: int = 0
    allow_pickle: bool = False
    fallback: bool = True
    keep_failed: Path | None = None
    resume: bool = True


# Folders of a source that nobody recognises which are looked into, to say what to name.
_MOST_FOLDERS = 200


@dataclass(frozen=True, slots=True)
class Step:
    """One scheme that was asked for.

    Attributes:
        scheme: It.
        fallbacks: Tried in this order when it misses a bound.
        bytes: Estimate of the candidate's size.
    """

    scheme: Scheme
    fallbacks: tuple[Scheme, ...]
    bytes: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done.

    Attributes:
        float_bytes: Estimate of the float reference's size.
        disk_bytes: What the store's disk must have free while the export runs.
        out_bytes: What another disk must have free that the artifacts go to.
        seconds: Very rough; fallbacks are not counted.
        pickled: Files that no family will see.
        device: What it is made for; None: for any device.
    """

    source: Resolved
    family: Family
    facts: SourceFacts
    steps: tuple[Step, ...]
    bounds: tuple[Bound, ...]
    float_bytes: int
    disk_bytes: int
    out_bytes: int
    seconds: float
    pickled: tuple[Path, ...]
    device: DeviceProfile | None = None

    @property
    def weight_bits(self) -> int:
        """Bits that int8 weights use where activations are rounded too."""
        return FEWER_BITS if _narrow(self.device) else 8


def choose(resolved: Resolved, name: str) -> Family:
    """Return the family ``name``, or for "" the first that recognises the source.

    Raises:
        ConfigError: There is no such family.
        ArtifactError: No family recognises the source.
    """
    if name:
        return family.load(name)
    found = family.recognise(resolved.path)
    if not found and (inside := _recognised_inside(resolved)):
        raise ArtifactError(
            f"{resolved.spec}: no family recognises it, but what lies inside; name that: "
            + " or ".join(inside)
        )
    if not found:
        raise ArtifactError(
            f"{resolved.spec}{_architecture(resolved.path)}: no family recognises it; known: "
            f"{', '.join(family.MODULES)}; `edgevoice export list` says what each takes, --family "
            "chooses"
        )
    return found[0]


def _recognised_inside(resolved: Resolved) -> list[str]:
    """Return the folders of the source that a family recognises, as the user would write them."""
    if not resolved.path.is_dir():
        return []
    mark = "!" if resolved.spec.startswith("pypi:") else "/"
    folders = sorted(path for path in resolved.path.rglob("*") if path.is_dir())
    return [
        f"{resolved.spec.rstrip('/')}{mark}{folder.relative_to(resolved.path)}"
        for folder in folders[:_MOST_FOLDERS]
        if family.recognise(folder)
    ]


def make(request: Request, resolved: Resolved) -> Plan:
    """Find out what the export of ``resolved`` would do.

    Raises:
        ConfigError: A family, scheme, option, bound or folder cannot be used as written.
        ArtifactError: The source is not what the family reads, is truncated, or is a pickle.
    """
    validate(request)
    pickled = () if request.allow_pickle else pickles.find(resolved.path)
    pickles.refuse(resolved.path, pickled)
    chosen = choose(resolved, request.family)
    steps = tuple(_step(request, chosen, name) for name in _scheme_names(request, chosen))
    refuse_unknown(f"option of {chosen.name}", request.options, chosen.options)
    bounds = gates.all_bounds(chosen.stage, request.bounds, chosen.bounds, chosen.format)
    safetensors_header.check(resolved.path)
    try:
        facts = chosen.inspect(resolved.path)
    except EdgevoiceError:
        raise
    except Exception as error:
        raise ArtifactError(
            f"{resolved.spec}: {chosen.name} cannot read it: {type(error).__name__}: {error}"
        ) from error
    float_bytes = _float_bytes(facts, chosen)
    sized = tuple(_sized(step, float_bytes) for step in steps)
    largest = max((s.bytes for s in sized), default=0)
    # Two of float: the reference, and what a conversion keeps beside it while it writes.
    disk = 2 * float_bytes + sum(s.bytes for s in sized) + largest
    work_s = float_bytes / _CONVERT_BYTES_PER_S
    each_s = float_bytes / _QUANTISE_BYTES_PER_S + _MEASURE_S.get(chosen.stage, 60.0)
    return Plan(
        resolved,
        chosen,
        facts,
        sized,
        bounds,
        float_bytes,
        disk,
        sum(s.bytes for s in sized),
        work_s + each_s * len(sized),
        pickled,
        request.device,
    )


def for_device(request: Request, plan: Plan) -> Request:
    """Return ``request`` with as many threads as the device gives the stage, if it says so.

    Never more than this machine has: times of threads that wait for a core say nothing.
    """
    stage = _DEVICE_STAGES.get(plan.family.stage, "")
    threads = request.device.threads.get(stage) if request.device is not None else None
    return request if threads is None else replace(request, threads=min(threads, host.cores()))


def validate(request: Request) -> None:
    """Check what needs no source.

    Raises:
        ConfigError: A scheme, family, folder or number cannot be used as written.
        ArtifactError: The name cannot be an artifact's.
    """
    if request.family:
        family.load(request.family)
    for name in request.schemes:
        schemes.find(name)
    if request.device is not None:
        for stage, names in request.device.schemes.items():
            for name in names:
                _check_scheme(request.device.name, stage, name)
    if request.name:
        check_name(request.name)
    if request.threads < 1:
        raise ConfigError(f"--threads {request.threads}: at least 1 is needed")
    for option, folder in (
        ("--calibrate", request.calibrate),
        ("--check-with", request.check_with),
    ):
        if folder is not None and not folder.is_dir():
            raise ConfigError(f"{option} {folder}: no such folder")
    for option, folder in (("--out", request.out), ("--keep-failed", request.keep_failed)):
        if folder is not None and folder.exists() and not folder.is_dir():
            raise ConfigError(f"{option} {folder}: it is a file; name a folder")


def refuse_what_cannot_be(plan: Plan, store: Store, out: Path | None = None) -> None:
    """Refuse, before any work, an export that this machine has no room or package for.

    Args:
        plan: What would be done.
        store: Where it is done.
        out: Where artifacts go instead of into the store.

    Raises:
        MissingDependencyError: A package is not installed.
        ExportError: Disk or memory is too small.
    """
    missing = [
        needed
        for module, needed in plan.family.needs.items()
        if importlib.util.find_spec(module.partition(".")[0]) is None
    ]
    if missing:
        wanted = " ".join(f"'{needed}'" for needed in dict.fromkeys(missing))
        raise MissingDependencyError(
            f"exporting {plan.family.name} needs more packages; run pip install {wanted}"
        )
    free = free_bytes(store.root)
    if free < plan.disk_bytes:
        raise ExportError(
            f"{store.root} has {free // _MB} MB free, this export needs about "
            f"{plan.disk_bytes // _MB} MB; make room or point EDGEVOICE_HOME elsewhere"
        )
    if out is not None and _disk_of(out) != _disk_of(store.root):
        free = free_bytes(out)
        if free < plan.out_bytes:
            raise ExportError(
                f"{out} has {free // _MB} MB free, the artifacts need about "
                f"{plan.out_bytes // _MB} MB; make room or choose another --out"
            )
    available_mb = host.memory_mb()[1]
    need_mb = plan.facts.peak_memory_bytes >> 20
    if 0 < available_mb < need_mb:
        raise ExportError(
            f"this export needs about {need_mb} MiB of memory, {available_mb} MiB are available; "
            "end other programs, or export on a machine with more"
        )


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk on which ``folder`` lies or will lie."""
    return shutil.disk_usage(_existing(folder)).free


def _disk_of(folder: Path) -> int:
    return _existing(folder).stat().st_dev


def _existing(folder: Path) -> Path:
    """Return ``folder``, or the nearest above it that is there."""
    here = folder.absolute()
    return next(path for path in (here, *here.parents) if path.exists())


def _architecture(path: Path) -> str:
    """Return what a checkpoint's config.json says that it is, in brackets, "" if nothing."""
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        names = config.get("architectures") or [config["model_type"]]
        return f" ({', '.join(map(str, names))})"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def _scheme_names(request: Request, chosen: Family) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(request.schemes or (_default_scheme(request, chosen),)))
    for name in names:
        if name not in chosen.schemes:
            raise ConfigError(unknown(f"scheme of {chosen.name}", name, chosen.schemes))
    return names


def _default_scheme(request: Request, chosen: Family) -> str:
    """Return the first scheme that the device prefers and the family writes, or the family's."""
    stage = _DEVICE_STAGES.get(chosen.stage, "")
    preferred = request.device.schemes.get(stage, ()) if request.device is not None else ()
    return next((name for name in preferred if name in chosen.schemes), chosen.default_scheme)


def _check_scheme(device: str, stage: str, name: str) -> None:
    if name not in schemes.SCHEMES:
        raise ConfigError(
            f"device profile {device!r}: schemes.{stage}: "
            f"{unknown('scheme', name, schemes.SCHEMES)}"
        )


def _step(request: Request, chosen: Family, name: str) -> Step:
    scheme = schemes.find(name)
    others = scheme.falls_back_to if request.fallback else ()
    fallbacks = [schemes.find(o) for o in others if o in chosen.schemes]
    if _narrow(request.device):
        scheme, fallbacks = scheme.narrowed(), [other.narrowed() for other in fallbacks]
    return Step(scheme, tuple(fallbacks), 0)


def _narrow(device: DeviceProfile | None) -> bool:
    """Whether int8 products can overflow on ``device``: x86 sums pairs in 16 bits without VNNI."""
    return device is not None and device.architecture == "x86_64" and not device.has_dot_product


def _float_bytes(facts: SourceFacts, chosen: Family) -> int:
    if not facts.parameters:
        return facts.source_bytes
    return facts.parameters * (2 if chosen.format == "gguf" else 4)


def _sized(step: Step, float_bytes: int) -> Step:
    float_bits = 16 if step.scheme.format == "gguf" else 32
    share = 1.0 if step.scheme.is_float else min(1.0, step.scheme.bits / float_bits * _OVERHEAD)
    return Step(step.scheme, step.fallbacks, int(float_bytes * share))
