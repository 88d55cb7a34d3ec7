"""What the exporter knows of one kind of model, as one value a family module offers.

A family is a module in :mod:`edgevoice.export.families` with a constant ``FAMILY``. It says what
it takes, reads a source's facts without loading the weights, writes the float artifact, and
quantises it. Everything else is common: sources, gates, fallbacks, publishing, the report.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgevoice.errors import ConfigError, unknown
from edgevoice.export.calibration import Calibration
from edgevoice.progress import Meter, silent
from edgevoice.quant.recipe import Recipe, TensorChoice
from edgevoice.quant.scheme import Scheme


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """What a source says of itself before any weight is loaded.

    Attributes:
        title: The model's own name or architecture, for people.
        parameters: Number of weights, 0 when the headers do not tell.
        source_bytes: Size of the files that would be read.
        peak_memory_bytes: What the conversion will need at most.
        detail: More lines for ``edgevoice export plan``.
    """

    title: str
    parameters: int
    source_bytes: int
    peak_memory_bytes: int
    detail: Mapping[str, Any] = field(default_factory=dict)


AS_IS = "as-is"
"""The manifest's ``scheme`` of weights that pass through unread."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a conversion or a quantisation says of the files that it wrote.

    Attributes:
        engine: What the engine must know and the files do not say (the manifest's ``engine``).
        tensors: Every weight, in the order of the files.
        notes: One line each about what was chosen and why, for the report.
        scheme: What the weights really are where that is not what was asked for: of a source that
            is quantised already and passes through; :data:`AS_IS` where nothing here can read it.
        weight_bits: Bits that int8 weights use where that is not what was asked for, else 0.
    """

    engine: Mapping[str, Any] = field(default_factory=dict)
    tensors: tuple[TensorChoice, ...] = ()
    notes: tuple[str, ...] = ()
    scheme: str = ""
    weight_bits: int = 0


@dataclass(frozen=True, slots=True)
class Job:
    """What is common to the steps of one export.

    Attributes:
        work: An empty folder for temporary files; the exporter removes it, whatever happens.
        calibration: The user's or the default speech and text.
        threads: For whatever computes.
        seed: For whatever draws.
        options: The family's own options (``--option key=value``).
        allow_pickle: Pickled weights may be loaded.
        meter: Shows progress.
        say: Takes one line for the user.
    """

    work: Path
    calibration: Calibration
    threads: int = 2
    seed: int = 0
    options: Mapping[str, str] = field(default_factory=dict)
    allow_pickle: bool = False
    meter: Meter = silent
    say: Callable[[str], object] = str


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of model.

    Attributes:
        name: As the command line says it.
        artifact_family: The manifest's ``family``, by which the runtime chooses the engine.
        stage: One of :data:`edgevoice.manifest.STAGES`.
        format: The manifest's ``format``.
        takes: What a source looks like, one line for people.
        schemes: Names in :data:`edgevoice.quant.scheme.SCHEMES`.
        default_scheme: One of them.
        recognises: Whether a folder or file looks like this family's source. Reads names and
            headers only, and never raises.
        inspect: Reads headers; raises ArtifactError with one line for what cannot be converted.
        convert: ``(source, out, job)``: write the float artifact's files into ``out``.
        quantise: ``(reference, scheme, recipe, out, job)``: from the float artifact's folder
            (files as ``convert`` wrote them) to the files of a candidate in ``out``.
        recipes: Overrides by scheme, measured for this family; a scheme without one has none.
        checker: ``module:function`` of the stage's measurement, see :mod:`edgevoice.export.gates`.
        options: Names that ``--option`` may set, with a line of help each.
        bounds: Figures that this family holds to another value than its stage. A scheme's own
            value stands above it, and the user's above both.
        licence: SPDX expression when the family knows it, "" when the user has to say.
        needs: Modules that ``convert`` and ``quantise`` import, each with the pip requirement
            that brings it; looked for before any work starts.
    """

    name: str
    artifact_family: str
    stage: str
    format: str
    takes: str
    schemes: tuple[str, ...]
    default_scheme: str
    recognises: Callable[[Path], bool]
    inspect: Callable[[Path], SourceFacts]
    convert: Callable[[Path, Path, Job], Written]
    quantise: Callable[[Path, Scheme, Recipe, Path, Job], Written]
    checker: str
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    options: Mapping[str, str] = field(default_factory=dict)
    bounds: Mapping[str, float] = field(default_factory=dict)
    licence: str = ""
    needs: Mapping[str, str] = field(default_factory=dict)

    def recipe(self, scheme: str) -> Recipe:
        """Return this family's overrides for ``scheme``."""
        return self.recipes.get(scheme, Recipe())


# In the order in which a source without --family is offered to them.
MODULES: Mapping[str, str] = {
    "piper": "piper",
    "kokoro": "kokoro",
    "matcha": "matcha",
    "kitten": "kitten",
    "online-transducer": "online_transducer",
    "zipformer2-ctc": "zipformer2_ctc",
    "wenet-ctc": "wenet_ctc",
    "nemo-ctc": "nemo_ctc",
    "offline-nemo-ctc": "offline_nemo_ctc",
    "sense-voice": "sense_voice",
    "paraformer": "paraformer",
    "offline-paraformer": "offline_paraformer",
    "moonshine": "moonshine",
    "moonshine-v2": "moonshine_v2",
    "silero-vad": "silero_vad",
    "smart-turn": "smart_turn",
    "speaker-embedding": "speaker_embedding",
    "wake-word": "wake_word",
    "whisper": "whisper",
    "hf-ctc": "hf_ctc",
    "hf-vits": "hf_vits",
    "gguf": "gguf",
    "onnx-llm": "onnx_llm",
}


def load(name: str) -> Family:
    """Return the family ``name``; its module is imported now.

    Raises:
        ConfigError: There is no such family.
    """
    if name not in MODULES:
        raise ConfigError(unknown("family", name, MODULES))
    family = importlib.import_module(f"edgevoice.export.families.{MODULES[name]}").FAMILY
    assert isinstance(family, Family)
    return family


def recognise(source: Path) -> tuple[Family, ...]:
    """Return every family that takes ``source``, in the order of :data:`MODULES`."""
    return tuple(found for found in map(load, MODULES) if found.recognises(source))
