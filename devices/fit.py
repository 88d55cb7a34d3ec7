"""Whether models fit a device, before one is loaded: memory, features, providers, recognition.

Judges manifests of the store, and entries of the catalogue that are not installed. Memory is an
estimate where the exporter has not measured it. Owns the estimate and the rules; what a device has
is the profile's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from edgevoice.catalogue import Catalogue, Entry
from edgevoice.devices.detect import Machine
from edgevoice.devices.profile import DeviceProfile
from edgevoice.manifest import Manifest
from edgevoice.settings import FIRST_PASSES
from edgevoice.store import Store

# Resident MiB on 2 x86-64 cores: 60 for the interpreter with its engines before a model; loading
# added 46 for Smart Turn (8 MiB of files), 142 for Whisper tiny.en int8 (48) and 278 in fp32 (147),
# 48 for Piper int8 (32), 165 for SmolLM2 in Q8_0 (138, with the cache of a short talk).
BASE_MB = 60
_ONNX_SHARE = 2.0
_ONNX_MB = 40
_FIRST_PASS_MB = 10
"""Beside a second pass, which has loaded the library: 13.6 MB of files added 35."""
_GGUF_SHARE = 1.0
_GGUF_MB = 30

_SYSTEM_SHARE = 0.25
"""Of the memory, for the system and everything else that runs."""

STREAMING_FAMILIES = frozenset(
    ("online-transducer", "paraformer", "zipformer2-ctc", "nemo-ctc", "t-one", "wenet-ctc")
)
"""Recognisers that decode all the time."""

_ROUNDED_ACTIVATIONS = ("int8", "int8-mixed", "int8-static")


@dataclass(frozen=True, slots=True)
class Need:
    """What one artifact asks for.

    Attributes:
        stage: The manifest's.
        memory_mb: MiB that it adds to a conversation's process.
        measured: Whether that was measured; estimated from the files otherwise.
        device: The profile that it was made for, "" for any.
        architecture: Of that profile, "" for any.
        cpu_features: That profile's.
        weight_bits: Bits that rounded weights use; 7 cannot overflow without an int8 dot product.
    """

    name: str
    stage: str
    family: str
    format: str
    scheme: str
    memory_mb: int
    measured: bool = False
    device: str = ""
    architecture: str = ""
    cpu_features: tuple[str, ...] = ()
    weight_bits: int = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """Why something does not fit: the profile's field, and the rest of the line."""

    field: str
    text: str

    def __str__(self) -> str:
        return f"{self.field}: {self.text}"


@dataclass(frozen=True, slots=True)
class Fit:
    """How an artifact or a bundle stands to a device.

    Attributes:
        memory_mb: MiB of the process that runs it; with one artifact, and no other stage.
        measured: Whether all of that was measured.
        problems: Empty when it fits.
        notes: What is good to know and no obstacle.
    """

    name: str
    memory_mb: int
    measured: bool
    problems: tuple[Problem, ...]
    notes: tuple[str, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether nothing stands against it."""
        return not self.problems


def need_of_manifest(artifact: Manifest) -> Need:
    """Return what an installed artifact asks for."""
    export = artifact.checks.get("export", {})
    built_for = export.get("built_for", {}) if isinstance(export, dict) else {}
    figures = artifact.checks.get("figures", {})
    peak = figures.get("peak_memory_mb") if isinstance(figures, dict) else None
    size = sum(file.size for file in artifact.files)
    return Need(
        artifact.name,
        artifact.stage,
        artifact.family,
        artifact.format,
        artifact.scheme,
        max(1, round(peak - BASE_MB)) if peak else _estimate_mb(size, artifact),
        bool(peak),
        artifact.device,
        built_for.get("architecture", ""),
        tuple(built_for.get("cpu_features", ())),
        built_for.get("weight_bits", 8),
    )


def need_of_entry(entry: Entry) -> Need:
    """Return what an artifact of the catalogue asks for once it is installed.

    Its files may be converted when they are pulled; the estimate takes those that are fetched, most
    often the larger.
    """
    size = entry.size_bytes
    mb = _estimate_mb(size, entry)
    return Need(entry.name, entry.stage, entry.family, entry.format, entry.scheme, mb)


def needs(catalogue: Catalogue, store: Store) -> dict[str, Need]:
    """Return what every known artifact asks for, installed or not, by its name."""
    found = {name: need_of_entry(entry) for name, entry in catalogue.entries.items()}
    found |= {name: need_of_manifest(store.manifest(name)) for name in store.names()}
    return dict(sorted(found.items()))


def of_machine(profile: DeviceProfile, machine: Machine) -> DeviceProfile:
    """Return ``profile`` with what ``machine`` really has: its memory, features and cores.

    The memory then decides, not the profile's budget: that is a target for its smallest variant.
    """
    return replace(
        profile,
        cpu_features=machine.cpu_features,
        memory_mb=machine.memory_mb or profile.memory_mb,
        memory_budget_mb=0 if machine.memory_mb else profile.memory_budget_mb,
    )


def room(profile: DeviceProfile) -> Problem | None:
    """Return the field that bounds memory, with its MiB as text; None where nothing does."""
    if profile.memory_budget_mb:
        return Problem("memory_budget_mb", str(profile.memory_budget_mb))
    if profile.memory_mb:
        return Problem("memory_mb", str(round(profile.memory_mb * (1 - _SYSTEM_SHARE))))
    return None


def fit_artifact(need: Need, profile: DeviceProfile) -> Fit:
    """Return how one artifact stands to ``profile``, alone in its process."""
    mb = BASE_MB + need.memory_mb
    problems = (*_memory(mb, profile), *_own_problems(need, profile))
    return Fit(need.name, mb, need.measured, problems, _notes(need, profile))


def fit_bundle(name: str, members: Sequence[Need], profile: DeviceProfile) -> Fit:
    """Return how a conversation with all of ``members`` stands to ``profile``."""
    mb = BASE_MB + sum(need.memory_mb for need in members)
    own = [
        replace(problem, text=f"{need.name}: {problem.text}")
        for need in members
        for problem in _own_problems(need, profile)
    ]
    notes = dict.fromkeys(note for need in members for note in _notes(need, profile))
    measured = all(need.measured for need in members)
    return Fit(name, mb, measured, (*_memory(mb, profile), *own), tuple(notes))


def _estimate_mb(size_bytes: int, artifact: Manifest | Entry) -> int:
    mb = size_bytes / (1 << 20)
    if artifact.format == "gguf":
        return round(_GGUF_SHARE * mb + _GGUF_MB)
    if artifact.name in FIRST_PASSES.values():
        return round(_ONNX_SHARE * mb + _FIRST_PASS_MB)
    return round(_ONNX_SHARE * mb + _ONNX_MB)


def _memory(mb: int, profile: DeviceProfile) -> tuple[Problem, ...]:
    bound = room(profile)
    if bound is None or mb <= int(bound.text):
        return ()
    if bound.field == "memory_mb":
        left = f"{bound.text} of {profile.memory_mb} MiB are left beside the system"
    else:
        left = f"{bound.text} MiB are allowed"
    return (Problem(bound.field, f"needs about {mb} MiB, {left}"),)


def _own_problems(need: Need, profile: DeviceProfile) -> tuple[Problem, ...]:
    problems = []
    if need.format == "qnn" and "QNNExecutionProvider" not in profile.providers:
        what = f"needs QNNExecutionProvider, has {', '.join(profile.providers)}"
        problems.append(Problem("providers", what))
    # ONNX and GGUF run anywhere; what was compiled for an NPU does not.
    elsewhere = need.architecture not in ("", profile.architecture)
    if need.format == "qnn" and elsewhere:
        what = f"made for {need.device} ({need.architecture}), this is {profile.architecture}"
        problems.append(Problem("architecture", what))
    # A bundle's own first pass takes a hundredth of real time on x86-64; twenty times that is room.
    always = need.family in STREAMING_FAMILIES and need.name not in FIRST_PASSES.values()
    if profile.recognition == "segmented" and always:
        what = f"segmented, and {need.family} recognisers decode all the time"
        problems.append(Problem("recognition", what))
    return tuple(problems)


def _notes(need: Need, profile: DeviceProfile) -> tuple[str, ...]:
    notes = []
    if need.device and need.device != profile.name:
        notes.append(f"made for {need.device}")
    if overflows(need, profile):
        notes.append(
            "cpu_features: int8 weights of 8 bits can overflow without VNNI; "
            f"`edgevoice export --device {profile.name}` writes 7"
        )
    return tuple(notes)


def overflows(need: Need, profile: DeviceProfile) -> bool:
    """Return whether int8 products can overflow: x86 sums pairs of them in 16 bits without VNNI."""
    return (
        profile.architecture == "x86_64"
        and not profile.has_dot_product
        and need.format == "onnx"
        and need.scheme in _ROUNDED_ACTIVATIONS
        and need.weight_bits > 7
    )
