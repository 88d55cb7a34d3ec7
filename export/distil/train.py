"""Trains a recogniser by its plan; runs in an interpreter that has torch, never in edgevoice.

    python launch.py EDGEVOICE_FOLDER edgevoice.export.distil.train WORK --speech DIR [...]

WORK is what :mod:`edgevoice.export.distil.preparing` made. Exits with 0 when the plan is done, with
130 when a signal ended it; the same command goes on. Owns the arguments.
"""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

import torch

from edgevoice.errors import EXIT_INTERRUPTED, EXIT_OK, EdgevoiceError
from edgevoice.export.distil import corpus, plan
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.augment import Augmentation
from edgevoice.export.distil.batches import Batches
from edgevoice.export.distil.files import PLAN
from edgevoice.export.distil.training import Settings, Trainer


def main() -> int:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--speech", type=Path, action="append", required=True, metavar="DIR")
    parser.add_argument("--evaluate", action="append", default=[], metavar="NAME=DIR")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--preparers", type=int, default=1)
    parser.add_argument("--checkpoint-s", type=float, default=300.0)
    parser.add_argument(
        "--reread-s", type=float, default=math.inf, help="look for more speech that often"
    )
    parser.add_argument("--report-steps", type=int, default=20)
    parser.add_argument("--evaluate-steps", type=int, default=400)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    asked_to_stop: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _: asked_to_stop.append(received))
    try:
        made = plan.from_json(json.loads((chosen.work / PLAN).read_text(encoding="utf-8")))
        settings = Settings(
            device=chosen.device,
            preparers=chosen.preparers,
            checkpoint_s=chosen.checkpoint_s,
            report_steps=chosen.report_steps,
            evaluate_steps=chosen.evaluate_steps,
        )
        while not asked_to_stop:
            spoken = corpus.read(chosen.speech, chosen.evaluate)
            print(spoken.summary(), flush=True)
            batches = Batches(
                spoken.training,
                Alphabet(made.shape.tokens),
                batch_frames=made.batch_frames,
                seed=made.seed,
                how=Augmentation(),
            )
            if batches.left_out:
                reasons = (f"{count} {why}" for why, count in batches.left_out.most_common())
                print(f"not trained on: {', '.join(reasons)}", flush=True)
            trainer = Trainer(chosen.work, made, batches, spoken.held_out, settings)
            reread = time.monotonic() + chosen.reread_s
            if trainer.run(reread, asked_to_stop):
                trainer.write_heard()
                return EXIT_OK
        return EXIT_INTERRUPTED
    except EdgevoiceError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
