"""One kind of device as data: what it is, and what edgevoice does on it.

A profile is a TOML file. The built-in ones lie in ``profiles/``, a user's own in ``devices`` beside
the configuration file; one may inherit from another. Owns the format and where profiles are looked
for. Which profile a machine matches is :mod:`edgevoice.devices.detect`'s business, what fits into
it :mod:`edgevoice.devices.fit`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from edgevoice import affinity, config, strict_table
from edgevoice.devices import features
from edgevoice.errors import ConfigError, unknown
from edgevoice.settings import PASSES
from edgevoice.strict_table import Table

STAGES = ("asr", "llm", "tts")
"""The stages whose models come in several schemes."""

THREAD_STAGES = ("asr", "end_of_turn", "llm", "tts")
"""The stages with threads, cores, a model and providers of their own."""

CHUNK_STAGES = ("asr", "tts")
"""The stages that take or make sound in pieces."""

BUDGETS = {
    "vad_frame": "voice activity detection of one 32 ms window",
    "aec_frame": "echo cancellation of one 10 ms frame",
    "end_of_turn": "one judgement of the end-of-turn model",
    "asr_partial": "from a recogniser's new audio to its growing text",
    "asr_final": "from the end of the user's speech to the final transcript",
    "llm_first_token": "from the transcript to the answer's first token, the prefix kept",
    "tts_first_sound": "from the first clause's text to its first sound",
    "voice_to_voice": "from the end of the user's speech to the answer's first sound",
    "cold_start": "from the start of the process to listening",
}
"""What may have a budget, and what of it is measured."""

PROVIDERS = (
    "CPUExecutionProvider",
    "XnnpackExecutionProvider",
    "QNNExecutionProvider",
    "NnapiExecutionProvider",
    "CUDAExecutionProvider",
    "TensorrtExecutionProvider",
)
"""Execution providers by onnxruntime's names."""

PORTS = ("auto", "pyaudio", "pulse")
RECOGNITION = ("any", "segmented")

_OWN_KEYS = (
    "title",
    "inherits",
    "architecture",
    "cpu_features",
    "clusters",
    "memory_mb",
    "memory_budget_mb",
    "providers",
    "recognition",
    "passes",
    "recognised_by",
    "audio",
    "schemes",
    "threads",
    "cores",
    "chunks_ms",
    "models",
    "stage_providers",
    "budgets_ms",
    "load",
    "notes",
    "sources",
)
FACTS = ("architecture", "cpu_features", "clusters", "memory_mb", "audio.latency_ms")
"""Fields that say what a device is; a built-in profile names the source of each."""

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SUFFIX = ".toml"
_BUILT_IN = resources.files("edgevoice.devices") / "profiles"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Cores of one kind.

    Attributes:
        name: The core's, as its maker calls it.
        cores: How many there are.
        fast: Whether the stages should run on them.
    """

    name: str
    cores: int
    fast: bool


@dataclass(frozen=True, slots=True)
class AudioPort:
    """How sound gets in and out.

    Attributes:
        port: One of :data:`PORTS`.
        latency_ms: What the port adds, in and out together; 0 where nobody has measured it.
    """

    port: str = "auto"
    latency_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class DeviceProfile:
    """What is known of one kind of device, and what edgevoice chooses for it.

    Attributes:
        name: The file's, without its suffix.
        title: For people.
        inherits: The profile that everything not said here comes from, "" for none.
        architecture: One of :data:`edgevoice.devices.features.ARCHITECTURES`.
        cpu_features: Those of :data:`edgevoice.devices.features.FEATURES` that it surely has.
        clusters: Its cores; empty where the kind has no one number of them.
        memory_mb: MiB of the smallest variant that the profile is for; 0 where it is not known.
        memory_budget_mb: MiB that a conversation may take at its peak; 0 for no budget.
        providers: Of :data:`PROVIDERS`, the first to be preferred.
        recognition: One of :data:`RECOGNITION`; ``segmented``: too slow for a recogniser that
            decodes all the time.
        passes: Of :data:`edgevoice.settings.PASSES`, which listen where the user has not chosen and
            there are two; "" for what the settings say.
        recognised_by: Texts of which one is in the device tree's model or compatible, or in the
            name of Android's chip. Not inherited.
        audio: Its port.
        schemes: For each of :data:`STAGES` the schemes to prefer, best first.
        threads: Threads of one run of each of :data:`THREAD_STAGES` that is named.
        stage_cores: Cores that each of :data:`THREAD_STAGES` that is named runs on, by the kernel's
            numbers as :func:`edgevoice.affinity.parse` takes them. ``[cores]`` in the file.
        chunks_ms: Length of the pieces in which each of :data:`CHUNK_STAGES` that is named takes
            sound (``asr``) or makes the first of it (``tts``).
        models: Artifact that each of :data:`THREAD_STAGES` that is named runs, where the user has
            chosen none.
        stage_providers: Instead of ``providers``, for each of :data:`THREAD_STAGES` that is named.
        budgets_ms: Targets, for those of :data:`BUDGETS` that are named.
        load: Keys of the settings' ``[load]``, but no models, by which the runtime does
            less on this device.
        notes: What a user must know.
        sources: Where each of :data:`FACTS` comes from.
    """

    name: str
    title: str
    architecture: str
    inherits: str = ""
    cpu_features: tuple[str, ...] = ()
    clusters: tuple[Cluster, ...] = ()
    memory_mb: int = 0
    memory_budget_mb: int = 0
    providers: tuple[str, ...] = ("CPUExecutionProvider",)
    recognition: str = "any"
    passes: str = ""
    recognised_by: tuple[str, ...] = ()
    audio: AudioPort = field(default_factory=AudioPort)
    schemes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    threads: Mapping[str, int] = field(default_factory=dict)
    stage_cores: Mapping[str, str] = field(default_factory=dict)
    chunks_ms: Mapping[str, float] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)
    stage_providers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    budgets_ms: Mapping[str, float] = field(default_factory=dict)
    load: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def cores(self) -> int:
        """How many cores it has; 0 where the profile does not say."""
        return sum(cluster.cores for cluster in self.clusters)

    @property
    def has_dot_product(self) -> bool:
        """Whether it sums int8 products in 32 bits at once."""
        return any(name in self.cpu_features for name in features.DOT_PRODUCT)


def user_folder() -> Path:
    """Return the folder of the user's own profiles, which may not exist."""
    return config.default_path().parent / "devices"


def profile_names(folder: Path | None = None) -> tuple[str, ...]:
    """Return the names of the built-in profiles and of those in ``folder``, sorted.

    Args:
        folder: Of the user's profiles; None: :func:`user_folder`.
    """
    return tuple(sorted({*_names(_BUILT_IN), *_names(folder or user_folder())}))


def is_built_in(name: str) -> bool:
    """Return whether ``name`` is a profile that comes with edgevoice."""
    return name in _names(_BUILT_IN)


def load_profile(name: str, folder: Path | None = None) -> DeviceProfile:
    """Return the profile ``name``; a path to a profile's TOML file is also taken.

    Args:
        name: One of :func:`profile_names`, or a path with a "/" or ".toml" in it.
        folder: Of the user's profiles; None: :func:`user_folder`.

    Raises:
        ConfigError: There is none, it or one that it inherits from cannot be used as written, or
            profiles inherit in a circle.
    """
    return _load(name, folder or user_folder(), ())


def load_profiles(
    folder: Path | None = None,
) -> tuple[tuple[DeviceProfile, ...], tuple[ConfigError, ...]]:
    """Return every profile, the user's before the built-in ones, and why others cannot be used.

    Args:
        folder: Of the user's profiles; None: :func:`user_folder`.
    """
    found, failures = [], []
    for name in sorted(profile_names(folder), key=is_built_in):
        try:
            found.append(load_profile(name, folder))
        except ConfigError as error:
            failures.append(error)
    return tuple(found), tuple(failures)


def parse(data: Any, name: str, origin: str, parent: DeviceProfile | None = None) -> DeviceProfile:
    """Turn parsed TOML into a profile; what it does not say comes from ``parent``.

    Raises:
        ConfigError: A key or value is not allowed; ``origin`` names the file.
    """
    required = () if parent else ("title", "architecture")
    table = Table(data, origin, required, _OWN_KEYS)
    base = parent or DeviceProfile(name, "", "")
    architecture = table.choice("architecture", features.ARCHITECTURES, base.architecture)
    if parent and architecture != parent.architecture:
        raise ConfigError(
            f"{origin}: architecture = {architecture!r}: {parent.name} is {parent.architecture}; "
            "inherit from a profile of the same architecture"
        )
    audio = Table(table.get("audio", dict, {}), f"{origin}: audio", (), ("port", "latency_ms"))
    return DeviceProfile(
        name=name,
        title=table.get("title", str, base.title),
        architecture=architecture,
        inherits=table.get("inherits", str, ""),
        cpu_features=table.choices("cpu_features", features.of(architecture), base.cpu_features),
        clusters=_clusters(table) or base.clusters,
        memory_mb=table.whole("memory_mb", 128, 1 << 24, base.memory_mb),
        memory_budget_mb=table.whole("memory_budget_mb", 64, 1 << 24, base.memory_budget_mb),
        providers=table.choices("providers", PROVIDERS, base.providers),
        recognition=table.choice("recognition", RECOGNITION, base.recognition),
        passes=table.choice("passes", PASSES, base.passes) if "passes" in data else base.passes,
        recognised_by=table.choices("recognised_by"),
        audio=AudioPort(
            audio.choice("port", PORTS, base.audio.port),
            audio.number("latency_ms", 0, 5000, base.audio.latency_ms),
        ),
        schemes={**base.schemes, **_schemes(table)},
        threads={**base.threads, **_threads(table)},
        stage_cores={**base.stage_cores, **_stage_cores(table)},
        chunks_ms={**base.chunks_ms, **_chunks(table)},
        models={**base.models, **_models(table)},
        stage_providers={**base.stage_providers, **_stage_providers(table)},
        budgets_ms={**base.budgets_ms, **_budgets(table)},
        load={**base.load, **_load_settings(table)},
        notes=table.get("notes", str, base.notes).strip(),
        sources={**base.sources, **_sources(table)},
    )


def _load(name: str, folder: Path, heirs: tuple[str, ...]) -> DeviceProfile:
    if name in heirs:
        circle = " -> ".join((*heirs[heirs.index(name) :], name))
        raise ConfigError(f"profiles inherit in a circle: {circle}; take `inherits` out of one")
    file = _find(name, folder)
    data = strict_table.read(file)
    parent = None
    # A value of another type is parse's to refuse.
    if isinstance(inherits := data.get("inherits"), str) and inherits:
        parent = _load(inherits, folder, (*heirs, name))
    return parse(data, file.name.removesuffix(_SUFFIX), str(file), parent)


def _find(name: str, folder: Path) -> Traversable:
    if "/" in name or name.endswith(_SUFFIX):
        return Path(name)
    names = profile_names(folder)
    if name not in names:
        raise ConfigError(unknown("device profile", name, names))
    own = folder / f"{name}{_SUFFIX}"
    if not is_built_in(name):
        return own
    if own.is_file():
        raise ConfigError(
            f"{own}: edgevoice has a profile of that name; rename the file and write "
            f"inherits = {name!r} in it"
        )
    return _BUILT_IN / f"{name}{_SUFFIX}"


def _names(folder: Traversable) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    found = (f.name.removesuffix(_SUFFIX) for f in folder.iterdir() if f.name.endswith(_SUFFIX))
    return tuple(name for name in found if _NAME.fullmatch(name))


def _clusters(table: Table) -> tuple[Cluster, ...]:
    found = []
    for i, data in enumerate(table.get("clusters", list, [])):
        one = Table(data, f"{table.where}: clusters[{i}]", ("name", "cores", "fast"))
        cores = one.whole("cores", 1, 1024)
        found.append(Cluster(one.get("name", str), cores, one.get("fast", bool)))
    return tuple(found)


def _schemes(table: Table) -> dict[str, tuple[str, ...]]:
    part = Table(table.get("schemes", dict, {}), f"{table.where}: schemes", (), STAGES)
    return {stage: part.choices(stage) for stage in part.data}


def _threads(table: Table) -> dict[str, int]:
    part = Table(table.get("threads", dict, {}), f"{table.where}: threads", (), THREAD_STAGES)
    return {stage: part.whole(stage, 1, 64) for stage in part.data}


def _stage_cores(table: Table) -> dict[str, str]:
    part = Table(table.get("cores", dict, {}), f"{table.where}: cores", (), THREAD_STAGES)
    found = {stage: part.get(stage, str) for stage in part.data}
    for stage, cores in found.items():
        affinity.parse(cores, f"{part.where}.{stage}")
    return found


def _chunks(table: Table) -> dict[str, float]:
    values = table.get("chunks_ms", dict, {})
    part = Table(values, f"{table.where}: chunks_ms", (), CHUNK_STAGES)
    return {stage: part.number(stage, 50, 2000) for stage in part.data}


def _models(table: Table) -> dict[str, str]:
    part = Table(table.get("models", dict, {}), f"{table.where}: models", (), THREAD_STAGES)
    return {stage: part.get(stage, str) for stage in part.data}


def _stage_providers(table: Table) -> dict[str, tuple[str, ...]]:
    values = table.get("stage_providers", dict, {})
    part = Table(values, f"{table.where}: stage_providers", (), THREAD_STAGES)
    return {stage: part.choices(stage, PROVIDERS) for stage in part.data}


def _budgets(table: Table) -> dict[str, float]:
    values = table.get("budgets_ms", dict, {})
    part = Table(values, f"{table.where}: budgets_ms", (), tuple(BUDGETS))
    return {budget: part.number(budget, 0.001, 3_600_000) for budget in part.data}


def _load_settings(table: Table) -> dict[str, Any]:
    values = table.get("load", dict, {})
    for key in ("recogniser", "language_model"):
        if key in values:
            # What a bundle takes along, and `doctor` looks for, is what the configuration names.
            raise ConfigError(f"{table.where}: load.{key} belongs into the configuration")
    checked = config.parse({"load": values}, table.where).load
    return {key: getattr(checked, key) for key in values}


def _sources(table: Table) -> dict[str, str]:
    part = Table(table.get("sources", dict, {}), f"{table.where}: sources", (), FACTS)
    return {fact: part.get(fact, str) for fact in part.data}
