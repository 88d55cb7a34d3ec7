"""Imports point one way, and the device never loads what belongs on a workstation."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {
    "edgevoice": ROOT / "edgevoice",
    "edgevoice.export": ROOT / "export",
    "edgevoice.quant": ROOT / "quant",
    "edgevoice.devices": ROOT / "devices",
}

# From the bottom up. A module may import from its own layer and from those below.
LAYERS: tuple[tuple[str, ...], ...] = (
    (
        *(
            "edgevoice",
            "errors",
            "frames",
            "events",
            "stages",
            "manifest",
            "settings",
            "config",
            "progress",
        ),
        *(
            "affinity",
            "host",
            "spare_core",
            "native_memory",
            "report_style",
            "strict_table",
            "whole_file",
        ),
    ),
    (
        *(
            "store",
            "catalogue",
            "sources",
            "fetch",
            "download",
            "delivery",
            "pull",
            "unpack",
            "hub",
            "packs",
        ),
        *("devices", "runfile", "service_manager", "read_ahead"),
    ),
    (
        *("audio", "engines", "turns", "history", "latency", "workers", "protocols"),
        *("exchanges", "outbox", "weights", "questions"),
        *("phrases", "as_written", "completeness", "echo_words"),
        *("turn_rules", "turn_state", "overlap", "barge_in", "speculation", "resuming"),
        *("spoken_answer", "leading_silence", "loudness", "waning", "load_policy"),
    ),
    # Rounding is judged by the engines that run it; the engines know nothing of it.
    ("quant",),
    ("export",),
    ("listening", "answer_making", "answering", "tape", "load_governor", "engine_calls"),
    ("conduct", "microphone", "load_follower"),
    ("session",),
    ("loading", "recording", "console", "tapes"),
    ("report_charts",),
    ("calls", "daemon", "talk", "report", "doctor", "replay"),
    ("profiler",),
    ("commands",),
    ("cli", "__main__"),
)
# What only the exporter and the commands may load.
WORKSTATION = ("edgevoice.export", "edgevoice.quant", "torch", "transformers", "optimum", "onnx")


def modules() -> Iterator[tuple[str, Path]]:
    for package, folder in FOLDERS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [package, *path.relative_to(folder).with_suffix("").parts]
            yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(module: str) -> int:
    part = [*module.split("."), ""][1] or "edgevoice"
    for number, names in enumerate(LAYERS):
        if part in names:
            return number
    raise AssertionError(f"{module} stands in no layer; add it to LAYERS in {__file__}")


MODULES = dict(modules())


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    for imported in imports(MODULES[module]):
        known = imported if imported in MODULES else imported.rpartition(".")[0]
        if known in MODULES:
            assert layer(known) <= layer(module), f"{module} imports {known} from above"


@pytest.mark.parametrize(
    "module",
    [
        name
        for name in MODULES
        if not name.startswith(("edgevoice.export", "edgevoice.quant", "edgevoice.commands"))
    ],
)
def test_the_runtime_imports_nothing_of_the_workstation(module: str) -> None:
    for imported in imports(MODULES[module]):
        assert not any(imported == name or imported.startswith(name + ".") for name in WORKSTATION)


def test_help_loads_no_engine() -> None:
    script = (
        "import sys; from edgevoice.cli import build_parser; build_parser(); "
        "print(sorted({'numpy', 'onnxruntime', 'sherpa_onnx', 'llama_cpp'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
