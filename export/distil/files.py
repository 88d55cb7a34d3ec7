"""The files of a training's folder that edgevoice and the interpreter with torch share."""

from __future__ import annotations

PLAN = "plan.json"
START = "start.npz"
WEIGHTS = "weights.npz"
PROGRESS = "progress.jsonl"
HEARD = "heard.json"
"""What torch reads in held-out clips at the end: [file, first sample, text] each."""
