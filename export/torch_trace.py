"""Traces a checkpoint; runs in an interpreter that has torch, never in edgevoice.

    python torch_trace.py PROGRAM CHECKPOINT OUT [--allow-pickle]

PROGRAM is a file of ours with a function ``trace`` of a :class:`Checkpoint`, which writes a graph,
`facts.json` (what the graph does not say), and `check.npz` (what torch made of some input) into the
folder OUT. Neither this file nor a PROGRAM imports anything of edgevoice. Owns what all of them do
alike: nothing is fetched, no code of a checkpoint is run, and no pickle is read unasked.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Checkpoint:
    """What is traced.

    Attributes:
        folder: As transformers writes one.
        out: An empty folder for what the program writes.
        allow_pickle: Pickled weights may be read.
    """

    folder: Path
    out: Path
    allow_pickle: bool

    def read(self, kind: Any, **how: Any) -> Any:
        """Return what transformers' class ``kind`` reads of the folder."""
        return kind.from_pretrained(
            self.folder, local_files_only=True, trust_remote_code=False, **how
        )

    def model(self, kind: Any, **how: Any) -> Any:
        """Return the model of transformers' class ``kind`` in float32, ready to trace."""
        import torch
        from torch.nn.utils import parametrize

        pickled = None if self.allow_pickle else True
        model = self.read(kind, dtype=torch.float32, use_safetensors=pickled, **how).eval()
        # A norm and a direction become one weight, which then has the module's name.
        for module in model.modules():
            if parametrize.is_parametrized(module):
                for name in list(module.parametrizations):
                    parametrize.remove_parametrizations(module, name)
        return model

    def write_facts(self, facts: dict[str, Any]) -> None:
        """Write `facts.json`."""
        (self.out / "facts.json").write_text(json.dumps(facts, indent=1, sort_keys=True))


def main() -> int:
    """Trace one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program", type=Path)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--allow-pickle", action="store_true")
    chosen = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    chosen.out.mkdir(parents=True, exist_ok=True)
    found = importlib.util.spec_from_file_location("program", chosen.program)
    assert found and found.loader, f"{chosen.program} is no Python file"
    program = sys.modules["program"] = importlib.util.module_from_spec(found)
    found.loader.exec_module(program)
    program.trace(Checkpoint(chosen.checkpoint, chosen.out, chosen.allow_pickle))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
