"""Stands where torch stands: "trains" nothing, and reads the held-out speech as numpy does.

    python untrained.py -P launch.py EDGEVOICE_FOLDER MODULE WORK --speech=DIR ... --threads N

A file `trouble` in WORK asks for trouble.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
from distil_reference import scores

from edgevoice.export.distil import corpus, plan
from edgevoice.export.distil.alphabet import Alphabet
from edgevoice.export.distil.fbank import fbank


def main() -> int:
    work = Path(sys.argv[5])
    speech = [Path(a.partition("=")[2]) for a in sys.argv if a.startswith("--speech=")]
    trouble = (work / "trouble").read_text() if (work / "trouble").is_file() else ""
    made = plan.from_json(json.loads((work / "plan.json").read_text()))
    print(json.dumps({"step": 1, "of": made.steps, "stage": "frozen", "loss": 2.5}), flush=True)
    if trouble == "crash":
        print("Traceback\nRuntimeError: out of memory", file=sys.stderr)
        return 1
    if trouble == "interrupt":
        return 130
    shutil.copyfile(work / "start.npz", work / "weights.npz")
    tensors = dict(np.load(work / "start.npz"))
    heard = []
    for clips in corpus.read(speech, ()).held_out.values():
        for clip in clips:
            sound = clip.samples().astype(np.float32) / np.float32(32768)
            silence = np.zeros((4 * made.shape.chunk + 6) * 160, np.float32)
            best = scores(tensors, made.shape, fbank(np.concatenate([sound, silence]))).argmax(-1)
            text = Alphabet(made.shape.tokens).decode(int(number) for number in best)
            if trouble == "wrong":
                text = "something else altogether"
            heard.append((str(clip.file.resolve()), clip.line.start, text))
    (work / "heard.json").write_text(json.dumps(heard))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
