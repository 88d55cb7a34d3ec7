"""Guards against words that a recogniser makes up from noise and silence.

Whisper and its kin always write something. What they write on no speech is well known: a few
stock phrases of video subtitles, sounds in brackets, and loops (Baranski et al., "Investigation
of Whisper ASR Hallucinations Induced by Non-Speech Audio", ICASSP 2025). Pure: text and a few
figures of the sound in, text out. Whether there is speech at all is the VAD's business; this is
the second line, for what the VAD let through.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass

import numpy as np

from edgevoice.frames import SAMPLE_RATE_HZ, Float32, ms_to_samples

# Whole periods of mains hum at 50 and at 60 Hz: shorter windows see it swing by 2 dB.
_WINDOW_SAMPLES = ms_to_samples(50)
_FLOOR_DB = -100.0

SILENT_DB = -65.0
"""A loudest window below this is no speech (an open, idle microphone is at -60 to -75)."""
QUIET_DB = -50.0
"""Below this, stock phrases are not believed."""
STEADY_DB = 2.0
"""White noise, hum and fans vary by less than 1 dB between windows. A read sentence varied by 30,
by 6 under white noise as loud as itself, and by 2.7 under noise of twice its amplitude."""
NEARLY_STEADY_DB = 6.0
"""Below this, stock phrases are not believed."""
STEADY_WINDOWS = 8
"""Fewer windows than this (0.4 s) say nothing about steadiness."""
LONGEST_TEXT_PER_S = 32.0
"""Characters a second; fast read English has 20, and an auctioneer 28."""
COMPRESSION = 2.4
"""Whisper's own bound (Radford et al. 2022, section 4.5): text that gzips better is a loop."""

STOCK_PHRASES = frozenset(
    {
        "you",
        "thank you",
        "thank you very much",
        "thank you for watching",
        "thanks for watching",
        "thanks",
        "bye",
        "bye bye",
        "so",
        "oh",
        "uh",
        "um",
        "okay",
        "the",
        "i",
        "please subscribe",
        "subscribe",
        "subtitles by the amara org community",
        "i'll see you next time",
        "see you next time",
        "we'll be right back",
        "music",
        "silence",
        "blank audio",
        "i'm sorry",
    }
)
"""What Whisper writes on nothing, lower case, without punctuation."""

_BRACKETED = re.compile(r"\[[^\]]*\]|\([^)]*\)|\*[^*]*\*|♪[^♪]*♪|[♪♫]")
_UNCLOSED = re.compile(r"[\[(*♪][^\])*♪]*$")


@dataclass(frozen=True, slots=True)
class Sound:
    """What the guard has to know of an utterance's audio.

    Attributes:
        audio_s: Its length.
        loudest_db: RMS of its loudest 50 ms, dB below full scale.
        range_db: From the 10th to the 95th percentile of the windows' RMS.
        windows: How many windows there were.
    """

    audio_s: float
    loudest_db: float
    range_db: float
    windows: int

    @classmethod
    def of(cls, samples: Float32) -> Sound:
        """Measure float32 samples, shape ``[n]``, 16 kHz."""
        audio_s = len(samples) / SAMPLE_RATE_HZ
        windows = len(samples) // _WINDOW_SAMPLES
        if not windows:
            return cls(audio_s, _FLOOR_DB, 0.0, 0)
        framed = samples[: windows * _WINDOW_SAMPLES].reshape(windows, _WINDOW_SAMPLES)
        power = np.mean(np.square(framed, dtype=np.float64), axis=1)
        level_db = 10.0 * np.log10(np.maximum(power, 10.0 ** (_FLOOR_DB / 10.0)))
        low, high = np.percentile(level_db, (10, 95))
        return cls(audio_s, float(level_db.max()), float(high - low), windows)


def believable(text: str, sound: Sound) -> str:
    """Return what of ``text`` can have been said in ``sound``; "" when nothing can.

    >>> believable("[BLANK_AUDIO]", Sound(3.0, -20.0, 30.0, 60))
    ''
    >>> believable("Thank you.", Sound(3.0, -20.0, 30.0, 60))
    'Thank you.'
    >>> believable("Thank you.", Sound(3.0, -20.0, 1.0, 60))
    ''
    """
    text = _UNCLOSED.sub("", _BRACKETED.sub(" ", text))
    # Whisper opens quotations that nobody closes.
    text = without_loops(" ".join(text.replace('"', "").split()))
    plain = re.sub(r"[^\w' ]", "", text.replace("-", " ")).casefold().strip()
    if not re.search(r"\w", plain) or _no_speech(sound):
        return ""
    doubtful = sound.loudest_db < QUIET_DB or _steady(sound, NEARLY_STEADY_DB)
    if doubtful and plain in STOCK_PHRASES:
        return ""
    if len(text) > 20 + LONGEST_TEXT_PER_S * sound.audio_s:
        return ""
    encoded = text.encode()
    if len(encoded) > 64 and len(encoded) / len(zlib.compress(encoded)) > COMPRESSION:
        return ""
    return text


def without_loops(text: str) -> str:
    """Keep one copy of words that are repeated over and over.

    One word eight times over is a loop, two words five times, longer phrases three
    times: "no no no no" and "one one one two" stay.

    >>> without_loops("I went home. I went home. I went home. I went home.")
    'I went home.'
    """
    words = text.split()
    keys = [re.sub(r"\W", "", w).casefold() for w in words]
    at = 0
    while at < len(words):
        for size in range(1, 13):
            phrase = keys[at : at + size]
            copies = 1
            while keys[at + copies * size : at + (copies + 1) * size] == phrase:
                copies += 1
            least = 8 if size == 1 else 5 if size <= 2 else 3
            if len(phrase) == size and copies >= least:
                del words[at + size : at + copies * size]
                del keys[at + size : at + copies * size]
        at += 1
    return " ".join(words)


def _no_speech(sound: Sound) -> bool:
    return sound.loudest_db < SILENT_DB or _steady(sound, STEADY_DB)


def _steady(sound: Sound, range_db: float) -> bool:
    return sound.windows >= STEADY_WINDOWS and sound.range_db < range_db
