"""Makes of an artifact one that an NPU runs: the artifact's own files, and a context binary.

Fixes the sizes, quantises, compiles for one chip, measures, publishes last: a graph that is not
wholly on the NPU, or that misses a bound, is not published. Every scheme of the family is tried in
its order until one holds. Two measurements: all held-out inputs with the integers on the CPU (which
costs seconds), and the first few in the emulator (tens of seconds each), where a speed means
nothing. The files for the CPU stay what they were, so the artifact works where there is no NPU.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnx

from edgevoice import manifest
from edgevoice.devices.socs import Soc
from edgevoice.engines.providers import EXTENSION
from edgevoice.errors import ConfigError, ExportError, unknown
from edgevoice.export import gates, htp, npu_graph, publish, recorded
from edgevoice.export.calibration import Calibration
from edgevoice.export.gates import Verdict
from edgevoice.export.htp import Compiled
from edgevoice.export.npu_graph import Arrays, NpuGraph
from edgevoice.manifest import Manifest
from edgevoice.progress import Meter, silent
from edgevoice.quant import htp_qdq
from edgevoice.store import Store, describe

_CPU = "as the CPU computes its integers"
_EMULATED = "in the HTP emulator"


@dataclass(frozen=True, slots=True)
class NpuRequest:
    """What the user asked for.

    Attributes:
        artifact: Installed artifact, or the folder of one.
        soc: The chip.
        scheme: One of the family's; "" for its own order.
        name: The new artifact's; "" for ARTIFACT-SOC.
        emulated: Held-out inputs that run in the emulator.
        calibrate: The user's speech and text.
        python: An interpreter that has onnxruntime-qnn; "" for one made for it.
    """

    artifact: str
    soc: Soc
    scheme: str = ""
    name: str = ""
    emulated: int = 1
    calibrate: Path | None = None
    python: str = ""


@dataclass(frozen=True, slots=True)
class NpuOutcome:
    """What was published.

    Attributes:
        folder: The artifact; before it is published, the binary.
        verdicts: Where it was measured, and each bound there.
        missed: Schemes that were tried before, each with why it was not taken.
    """

    folder: Path
    scheme: str
    compiled: Compiled
    figures: Mapping[str, Mapping[str, float]]
    verdicts: tuple[tuple[str, Verdict], ...]
    missed: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NpuExporter:
    """What an export works with: the store, a meter, and where a line for the user goes."""

    store: Store
    meter: Meter = silent
    say: Callable[[str], object] = str

    def run(self, request: NpuRequest) -> NpuOutcome:
        """Make, measure and publish.

        Raises:
            ArtifactError: The artifact is not here or is damaged.
            ConfigError: The scheme is not the family's.
            ExportError: No scheme is wholly on the NPU and within its bounds.
            MissingDependencyError: onnxruntime-qnn cannot be had.
        """
        folder = self.store.path(request.artifact)
        described = manifest.read(folder)
        make = npu_graph.load(described.family)
        python = htp.interpreter(request.python, self.meter)
        with self.meter(f"prepare {described.name}", None):
            graph = make(folder, described, Calibration(request.calibrate))
        schemes = _schemes(graph, request)
        missed: dict[str, str] = {}
        with tempfile.TemporaryDirectory(prefix="edgevoice-npu-") as scratch:
            for scheme in schemes:
                work = Path(scratch) / scheme
                work.mkdir()
                try:
                    made = self._candidate(request, graph, scheme, python, work)
                except ExportError as error:
                    missed[scheme] = str(error)
                    self.say(f"{scheme} fails: {error}")
                    continue
                made = replace(made, missed=missed)
                return replace(made, folder=self._publish(request, described, graph, made))
        raise ExportError(
            f"{described.name}: nothing is published for {request.soc.name}; "
            f"{'; '.join(f'{scheme}: {why}' for scheme, why in missed.items())}"
        )

    def _candidate(
        self, request: NpuRequest, graph: NpuGraph, scheme: str, python: Path, work: Path
    ) -> NpuOutcome:
        with self.meter(f"quantise to {scheme}", None):
            model = written(graph, scheme)
        target = work / f"{graph.stem}{EXTENSION}"
        with self.meter(f"compile for {request.soc.name}", None):
            compiled = htp.compile_graph(model, target, request.soc, python)
        figures: dict[str, Mapping[str, float]] = {}
        verdicts: list[tuple[str, Verdict]] = []

        def judge(where: str, wanted: Sequence[Arrays], got: Sequence[Arrays]) -> None:
            figures[where] = graph.compare(wanted, got)
            found = gates.judge(figures[where], graph.bounds)
            verdicts.extend((where, verdict) for verdict in found)
            if bad := [str(v) for v in found if not v.passed]:
                raise ExportError(f"{where}: {'; '.join(bad)}")

        with self.meter(f"measure {scheme}", None):
            wanted = outputs(graph.model, graph.held_out)
            judge(_CPU, wanted, outputs(model, graph.held_out))
        few = min(request.emulated, len(graph.held_out))
        if few:
            with self.meter(f"emulate {few}", few) as advance:
                got = htp.emulate(
                    target, graph.held_out[:few], request.soc, python, work=work, advance=advance
                )
            judge(_EMULATED, wanted[:few], got)
        return NpuOutcome(target, scheme, compiled, figures, tuple(verdicts), {})

    def _publish(
        self,
        request: NpuRequest,
        described: Manifest,
        graph: NpuGraph,
        made: NpuOutcome,
    ) -> Path:
        soc = request.soc
        facts: dict[str, Any] = {
            "soc": soc.name,
            "soc_model": soc.soc_model,
            "htp_arch": soc.htp_arch,
            "qnn_version": made.compiled.qnn_version,
            "scheme": made.scheme,
            **graph.facts,
        }
        checks = {
            **described.checks,
            "npu": {
                "figures": {
                    where: {name: recorded.number(v) for name, v in figures.items()}
                    for where, figures in made.figures.items()
                },
                "verdicts": [f"{where}: {verdict}" for where, verdict in made.verdicts],
                "emulated": min(request.emulated, len(graph.held_out)),
                "held_out": len(graph.held_out),
                "missed": dict(made.missed),
                "versions": dict(recorded.versions()),
            },
        }
        with self.store.incoming() as scratch:
            out = scratch / "out"
            out.mkdir()
            publish.link_files(self.store.path(request.artifact), out)
            shutil.copyfile(made.folder, out / made.folder.name)
            for name, model in graph.files.items():
                path = out / name
                path.parent.mkdir(exist_ok=True)
                path.unlink(missing_ok=True)  # a link to the artifact's own
                onnx.save(model, str(path))
            return self.store.publish(
                out,
                replace(
                    described,
                    name=request.name or f"{described.name}-{soc.name}",
                    format="qnn",
                    files=describe(out),
                    engine={**described.engine, **graph.engine, "npu": facts},
                    checks=checks,
                ),
            )


def written(graph: NpuGraph, scheme: str) -> onnx.ModelProto:
    """Return the graph as ``scheme`` says, ready to be compiled."""
    bits = {"a16w8": 16, "a8w8": 8}
    if scheme not in bits:
        return graph.model
    return htp_qdq.write(graph.model, graph.calibration, bits[scheme])


def outputs(model: onnx.ModelProto, feeds: Sequence[Arrays]) -> list[dict[str, Any]]:
    """Run ``feeds`` on the CPU and return the outputs of each by name."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(None, dict(feed)), strict=True)) for feed in feeds]


def _schemes(graph: NpuGraph, request: NpuRequest) -> tuple[str, ...]:
    if request.scheme:
        if request.scheme not in graph.schemes:
            raise ConfigError(unknown("scheme for the NPU", request.scheme, graph.schemes))
        return (request.scheme,)
    # A graph with floats in it is refused by name below; one that is nothing else is not tried.
    return tuple(s for s in graph.schemes if s != "fp16" or request.soc.floats) or graph.schemes
