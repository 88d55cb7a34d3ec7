"""Sounds over the agent's voice: users who interrupt it, and noises that must not.

How soon it is quieter is measured from what a client plays, not from what the daemon says: from
the onset until the voice stays, for 200 ms, below half of its loudness before. (Where the agent
draws breath at that moment, that shows as 0.) That nothing of a resumed answer is missing is
measured too: what comes behind a hold must begin with sound that came before it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from call import Call, Chunk, Note
from disturbances import Disturbance
from numpy.typing import NDArray
from recordings import INTERRUPTIONS, LONG_ANSWERS, VOICES, librivox, read_speech, speak

from edgevoice.frames import SAMPLE_RATE_HZ, Float32, Int16, ms_to_samples
from edgevoice.latency import percentile

PEAK = 0.25
_FRAME = ms_to_samples(10)
_SPOKEN_MS = 1500.0
_LISTENED_MS = 1500.0
"""To an answer that goes on: its last word comes again first, and the pause behind it."""
_ANSWER_TIMEOUT_S = 8.0
_STORIES = LONG_ANSWERS

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Interruption:
    """What is asked, and what is said over the answer."""

    name: str
    question: Float32
    over: Float32


def interruptions(folder: Path) -> list[Interruption]:
    """Return thirty: flite's four voices and LibriVox readers, on ten questions."""
    said = [
        (f"{voice}: {text}", speak(text, voice, folder / f"said-{number:02d}.wav"))
        for number, (text, voice) in enumerate(itertools.product(INTERRUPTIONS, VOICES))
    ]
    said += [(clip.name, clip.path) for clip in librivox()]
    questions = [
        _voice(speak(text, "rms", folder / f"asked-{number:02d}.wav"))
        for number, text in enumerate(LONG_ANSWERS)
    ]
    return [
        Interruption(name, questions[number % len(questions)], _voice(path)[: 4 * SAMPLE_RATE_HZ])
        for number, (name, path) in enumerate(said[i % len(said)] for i in range(30))
    ]


def ordinary_talk(folder: Path) -> list[Float32]:
    """Return questions with long answers."""
    return [
        _voice(speak(text, "rms", folder / f"story-{number}.wav"))
        for number, text in enumerate(_STORIES)
    ]


def interrupt(url: str, subject: str, cases: Sequence[Interruption], tell: Tell) -> dict[str, Any]:
    """Interrupt an answer in a conversation of its own, for each case."""
    quieter: list[float] = []
    held: list[float] = []
    committed: list[float] = []
    not_stopped: list[str] = []
    for case in cases:
        with Call(url) as call:
            call.wait(400.0)
            if not _start_answer(call, case.question):
                not_stopped.append(f"{case.name} (no answer)")
                continue
            begin_ms, end_ms = call.say(case.over)
            call.wait_until(lambda: bool(_stops(call, begin_ms)), 4.0)  # noqa: B023
            call.wait(max(call.now_ms + 200.0, begin_ms + 700.0))
            stops = _stops(call, begin_ms)
            loud_ms = _quieter_after_ms(call.played(), begin_ms)
            if stops and loud_ms is not None:
                quieter.append(loud_ms)
                committed.append(stops[0].at_ms - begin_ms)
            else:
                not_stopped.append(case.name)
            if holds := call.all("decision", since_ms=begin_ms, decision="held"):
                held.append(holds[0].at_ms - begin_ms)
            evidence = [
                (n.body["decision"], n.body["evidence"]) for n in _decisions(call, begin_ms)
            ]
            tell(
                f"{subject} {case.name}: quieter {_shown(loud_ms)}, "
                f"stopped {_shown(stops[0].at_ms - begin_ms if stops else None)} {evidence}"
            )
            del end_ms
    return {
        "interruptions": len(cases),
        "stopped": len(committed),
        "quieter after, p50 ms": _percentile(quieter, 50),
        "quieter after, p90 ms": _percentile(quieter, 90),
        "held after (its own word), p90 ms": _percentile(held, 90),
        "committed after, p50 ms": _percentile(committed, 50),
        "committed after, p90 ms": _percentile(committed, 90),
        "committed within 600 ms": sum(ms <= 600.0 for ms in committed),
        "not stopped": not_stopped,
    }


def disturb(
    url: str, cases: Sequence[Disturbance], questions: Sequence[Float32], tell: Tell
) -> dict[str, Any]:
    """Let each sound be heard over an answer; several share one answer while it lasts."""
    todo = list(cases)
    lost: list[str] = []
    resumed, ignored, cut, unsure = 0, 0, [], 0
    quieter: list[float] = []
    asked = 0
    while todo and asked < 3 * len(cases):
        with Call(url) as call:
            call.wait(400.0)
            while todo and asked < 3 * len(cases):
                asked += 1
                if not _start_answer(call, questions[asked % len(questions)]):
                    break
                while todo and _speaking(call):
                    case = todo.pop(0)
                    begin_ms, end_ms = call.say(case.samples)
                    call.wait(end_ms + 300.0)
                    call.wait_until(lambda: _decided(call, begin_ms), 3.0)  # noqa: B023
                    call.wait(call.now_ms + _LISTENED_MS)
                    decisions = _decisions(call, begin_ms)
                    names = [note.body["decision"] for note in decisions]
                    tell(f"{case.name}: {_shown_all(decisions)}")
                    if "interrupted" in names:
                        lost.append(case.name)
                        call.wait_for("state", timeout_s=6.0, since_ms=begin_ms, state="speaking")
                        break
                    if "answer_finished" in names:
                        todo.append(case)  # Once more, over an answer that lasts.
                        break
                    back = [n for n in decisions if n.body["decision"] == "resumed"]
                    whole = [_whole(call, note) for note in back]
                    resumed += bool(back)
                    ignored += not back
                    unsure += None in whole
                    cut += [case.name] if False in whole else []
                    if back:
                        held = call.all("decision", since_ms=begin_ms, decision="held")
                        quieter.append(back[-1].at_ms - held[0].at_ms)
                _end_answer(call)
    return {
        "disturbances": len(cases),
        "answers lost": len(lost),
        "held and resumed": resumed,
        "not held at all": ignored,
        "resumed with sound missing": len(cut),
        "resumed, and not to be told": unsure,
        "time held p50, ms": _percentile(quieter, 50),
        "lost": lost,
        "cut": cut,
    }


def _voice(path: Path) -> Float32:
    samples = read_speech(path)
    loud = np.flatnonzero(np.abs(samples) > 0.02 * np.abs(samples).max())
    samples = samples[_onset(samples) : loud[-1] + 1]
    scaled: Float32 = (samples * (PEAK / np.abs(samples).max())).astype(np.float32)
    return scaled


def _onset(samples: Float32) -> int:
    """Return where speech begins: 100 ms from there on lie within 30 dB of its usual loudness.

    A reader's breath and the room's noise are no speech: four of the clips begin with 160 to 230 ms
    of them, which no detector of speech should call speech.
    """
    level_db = 20.0 * np.log10(_levels(samples) + 1e-9)
    near = level_db > np.percentile(level_db, 95) - 30.0
    lasting = np.convolve(near, np.ones(10), "valid") >= 10
    return int(np.argmax(lasting)) * _FRAME


def _levels(samples: Float32 | Int16) -> NDArray[np.float64]:
    """Return the RMS of each 10 ms."""
    frames = samples[: samples.size // _FRAME * _FRAME].reshape(-1, _FRAME).astype(np.float64)
    levels: NDArray[np.float64] = np.sqrt(np.square(frames).mean(axis=1))
    return levels


def _start_answer(call: Call, question: Float32) -> bool:
    """Ask, and wait until the agent has spoken for a while; say whether it still does."""
    _, end_ms = call.say(question)
    call.wait(end_ms)
    if not call.wait_until(lambda: call.first_sound_ms(end_ms) is not None, _ANSWER_TIMEOUT_S):
        return False
    first_ms = call.first_sound_ms(end_ms)
    assert first_ms is not None
    call.wait(first_ms + _SPOKEN_MS)
    return call.sounding


def _end_answer(call: Call) -> None:
    """Wait until nobody speaks; say something that stops an answer that does not end."""
    call.wait_until(lambda: not call.sounding and _state(call) == "listening", 8.0)


def _speaking(call: Call) -> bool:
    return call.sounding and _state(call) == "speaking"


def _state(call: Call) -> str:
    states = call.all("state")
    return str(states[-1].body["state"]) if states else ""


def _decisions(call: Call, since_ms: float) -> list[Note]:
    return call.all("decision", since_ms=since_ms)


def _decided(call: Call, since_ms: float) -> bool:
    return _state(call) in ("speaking", "listening") or bool(_stops(call, since_ms))


def _stops(call: Call, since_ms: float) -> list[Note]:
    """An interruption as the daemon tells it, or the `clear` of a server that decides nothing."""
    told = call.all("decision", since_ms=since_ms, decision="interrupted")
    return told or ([] if call.all("decision") else call.all("clear", since_ms=since_ms))


def _quieter_after_ms(track: Int16, onset_ms: float) -> float | None:
    """Milliseconds from the onset until the voice stays below half of its loudness."""
    onset = round(onset_ms / 10.0)
    level = _levels(track)
    before = level[max(0, onset - 100) : onset]
    if not before.size:
        return None
    level = np.concatenate((level, np.zeros(40)))
    low = level[onset:] < 0.5 * np.percentile(before, 90)
    runs = np.convolve(low, np.ones(20), "valid") >= 20
    return float(np.argmax(runs) * 10.0) if runs.any() else None


def _whole(call: Call, resumed: Note) -> bool | None:
    """Say whether the sound behind a hold goes on within what came before; None: not to be told.

    The hold is one of the gaps around the word of it: a busy machine makes others.
    """
    chunks = list(call.chunks)
    gaps = [
        i
        for i in range(1, len(chunks))
        if resumed.at_ms - 400.0 <= chunks[i].came_ms <= resumed.at_ms + 600.0
        and chunks[i].came_ms - chunks[i - 1].came_ms > 80.0
    ]
    said_again = [_says_again(chunks[:place], chunks[place:]) for place in gaps]
    return True if True in said_again else next(iter(said_again), None)


def _says_again(earlier: Sequence[Chunk], later: Sequence[Chunk]) -> bool | None:
    """Say whether the last that was heard comes again in what follows; None: it was too quiet.

    The last 5 ms are a ramp to silence, and the turning down before the hold is one. What lies
    between them is compared in pieces, whatever its loudness: the voice's own noise tells too.
    """
    before = np.concatenate([c.samples for c in earlier])[-SAMPLE_RATE_HZ:].astype(np.float64)
    behind = np.concatenate([c.samples for c in later])[: 3 * SAMPLE_RATE_HZ].astype(np.float64)
    size = ms_to_samples(20)
    if min(before.size, behind.size) < 4 * size:
        return None
    energies = np.convolve(behind**2, np.ones(size), "valid")
    found: bool | None = None
    for end in range(ms_to_samples(5), ms_to_samples(60), ms_to_samples(5)):
        part = before[before.size - end - size : before.size - end]
        if np.abs(part).max() >= 15:
            products = np.correlate(behind, part, "valid")
            likeness = products / np.sqrt(np.maximum(energies, size) * (part**2).sum())
            if likeness.max() > 0.95:
                return True
            found = False
    return found


def _percentile(values: Sequence[float], share: float) -> int | None:
    return round(percentile(values, share)) if values else None


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def _shown_all(decisions: Sequence[Note]) -> str:
    return "; ".join(f"{n.body['decision']} {n.body['evidence']}" for n in decisions)
