"""Utterances with a pause of 300 to 1200 ms inside a sentence, which nobody should answer.

Twenty are spoken by flite and cut behind a word (flite says where each sound ends), ten are
sentences of "Sense and Sensibility" read for LibriVox, cut where they are quietest and 300 ms of
sound or more are left.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from recordings import QUESTIONS, VOICES, librivox, read_speech, speak

from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples

LONGER = (
    "I would like to know what the weather will be like tomorrow.",
    "Can you tell me how a refrigerator keeps my food cold?",
    "My brother is coming to visit us on Saturday because it is my birthday.",
    "What should I cook if I only have eggs and tomatoes?",
    "Please remind me to call the doctor at nine in the morning.",
    "How far is it from Berlin to the city of Paris?",
    "Could you explain why the sky is blue in the morning?",
    "Who wrote the book about the white whale and the captain?",
    "I have a meeting with the new manager and I am a bit nervous.",
    "Give me three ideas for a present for my mother.",
)
SHORTEST_MS, LONGEST_MS = 300.0, 1200.0


@dataclass(frozen=True, slots=True)
class Paused:
    """One utterance with a pause in it."""

    name: str
    samples: Float32
    pause_ms: float
    human: bool


def paused(folder: Path, count: int = 30) -> list[Paused]:
    """Return the set; pauses are spread evenly, and flite's come first."""
    made: list[tuple[str, Float32, int, bool]] = []
    texts = [*LONGER, *(q for q in QUESTIONS if len(q.split()) >= 6)]
    for number, text in enumerate(texts[:20]):
        voice = VOICES[number % len(VOICES)]
        path = speak(text, voice, folder / f"paused-{number:02d}.wav")
        words = text.split()
        # Behind the second word at the earliest, and before the last but one.
        word = 2 + number % (len(words) - 3)
        cut_s = _ends(text, voice)[word - 1]
        samples = _read(path)
        name = f"{voice}: {' '.join(words[:word])} | {' '.join(words[word:])}"
        made.append((name, samples, round(cut_s * SAMPLE_RATE_HZ), False))
    for clip in librivox():
        samples = _read(clip.path)
        spoken = _spoken(samples)
        for part in (0, 1):
            half = samples.size // 2
            cut = part * half + _quietest(samples[part * half : min((part + 1) * half, spoken)])
            made.append((f"{clip.name}, at {cut / SAMPLE_RATE_HZ:.1f} s", samples, cut, True))
    made = made[:count]
    step_ms = (LONGEST_MS - SHORTEST_MS) / max(1, len(made) - 1)
    # 7 is prime to 30: long and short pauses fall on all voices.
    order = [(7 * i) % len(made) for i in range(len(made))]
    return [
        Paused(name, _insert(samples, cut, pause_ms), pause_ms, human)
        for (name, samples, cut, human), place in zip(made, order, strict=True)
        for pause_ms in [SHORTEST_MS + place * step_ms]
    ]


def _read(path: Path) -> Float32:
    samples = read_speech(path)
    scaled: Float32 = (samples * (0.25 / np.abs(samples).max())).astype(np.float32)
    return scaled


def _insert(samples: Float32, cut: int, pause_ms: float) -> Float32:
    fade = ms_to_samples(5)
    before, behind = samples[:cut].copy(), samples[cut:].copy()
    before[-fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    behind[:fade] *= np.linspace(0.0, 1.0, fade, dtype=np.float32)
    silence = np.zeros(ms_to_samples(pause_ms), np.float32)
    last = np.flatnonzero(np.abs(samples) > 0.01)[-1]
    return np.concatenate((before, silence, behind))[: last + 1 + silence.size]


def _quietest(samples: Float32) -> int:
    """Return the middle of the quietest 40 ms between 30 and 85 % of ``samples``."""
    window = ms_to_samples(40)
    begin = int(0.3 * samples.size)
    power = np.convolve(np.square(samples[begin : int(0.85 * samples.size)]), np.ones(window))
    return begin + int(np.argmin(power[window:-window])) + window // 2


def _spoken(samples: Float32) -> int:
    """Return where ``samples`` have less than 300 ms of sound left: what is cut there is over."""
    frame = ms_to_samples(10)
    frames = samples[: samples.size // frame * frame].reshape(-1, frame)
    loud = np.flatnonzero(np.sqrt(np.square(frames).mean(axis=1)) > 0.02)
    return int(loud[-30]) * frame


def _ends(text: str, voice: str) -> list[float]:
    """Return when each word of ``text`` ends, in seconds, as flite speaks it."""
    sounds = [
        (name, float(end))
        for name, end in (item.split(":") for item in _flite(text, voice, "-psdur"))
        if name != "pau"
    ]
    counts = [sum(s != "pau" for s in _flite(word, voice, "-ps")) for word in text.split()]
    if sum(counts) != len(sounds):
        # A word that sounds otherwise in its sentence: in proportion, which is near enough.
        counts = [round(c * len(sounds) / sum(counts)) for c in counts]
    places = np.minimum(np.cumsum(counts), len(sounds)) - 1
    return [sounds[place][1] for place in places]


def _flite(text: str, voice: str, what: str) -> list[str]:
    command = ["flite", "-voice", voice, what, "-t", text, "none"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
