"""Compares the same recorded conversation on two machines: `NAME.json` and `NAME.wav` of each.

The user's words have to be equal, and both have to have answered aloud. The answers themselves may
differ where two CPUs round differently; then both are printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from edgevoice.audio.wav import read_wav

_LOUD = 0.05


def main() -> int:
    """Print what was heard and said; 1 where the words differ or an answer is silent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("talks", type=Path, nargs=2, metavar="NAME")
    talks = parser.parse_args().talks
    heard, said, loudest = [], [], []
    for talk in talks:
        turns = json.loads(talk.with_suffix(".json").read_text())["turns"]
        samples, rate_hz = read_wav(talk.with_suffix(".wav"))
        heard.append([turn["user"] for turn in turns])
        said.append([turn["agent"] for turn in turns])
        loudest.append(float(np.abs(samples).max(initial=0.0)))
        print(f"{talk.name}: heard {heard[-1]}, said {said[-1]}")
        print(f"{talk.name}: {samples.size / rate_hz:.1f} s of sound, loudest {loudest[-1]:.2f}")
    if heard[0] != heard[1] or not heard[0]:
        print("the transcripts differ, or there is none")
        return 1
    if min(loudest) < _LOUD:
        print(f"an answer cannot be heard: nothing is louder than {_LOUD}")
        return 1
    if said[0] != said[1]:
        print("the answers differ; two CPUs round differently")
    return 0


if __name__ == "__main__":
    sys.exit(main())
