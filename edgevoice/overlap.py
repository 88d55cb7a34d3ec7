"""Speech over the agent's answer: what is known of it, and what it is. Pure.

Owns the verdict on the evidence. :mod:`edgevoice.barge_in` says when evidence is asked for and
what follows from the verdict.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean

from edgevoice.echo_words import echo_similarity
from edgevoice.events import OverlapHeard
from edgevoice.phrases import Words, words
from edgevoice.turn_rules import Rules

_STRICT_ECHO = 0.5
"""Of the threshold: enough of the agent's words where the sound is no louder than its echo."""

LOUD_DB = 20.0
_LOUD_ECHO = 0.9
"""So far above the agent's echo it takes nearly all of the agent's words: a user who was misheard
has some of them by chance. "Wait a moment", 50 dB above, became "in the moment"."""

BRIEF_MS = 400.0
"""Speech of which less was heard is not trusted: cut at 320 ms, "yeah" became "You" and "I see"
"Bye!". What comes in pieces of 40 ms is heard at 408 ms so, and was at 448 with a bound of 416."""

_NOD_LASTS_MS = 768.0
"""Speech that lasts longer is no nod, whatever was heard before. In what is shorter there must be a
word that wants something: of 150 nods of ten of Kokoro's voices Whisper made "Yack", "God it.",
"Amen." and the like so often that without this bound every second one stopped the agent; with it,
13 do. How long speech lasts is known at once, and needs no decode: waiting for one of so much sound
stopped for 14 with a bound of 720 ms, and for the slowest tenth of 25 interruptions 120 ms later.

What tells sooner is the recogniser's encoder, where it is asked (below). Of features of loudness
and spectrum a dozen, of the first 550 ms of 311 sentences and of the 154 nods that are not over by
then, tell 27 % of the sentences where one of those nods in twenty is taken for one. To trust words
on which two decodes agree lets 8 more nods stop the agent."""

_WORDY_MS = 480.0
_WORDY = 3
"""Where so many words were heard, none of them a nod's, it is a sentence and may be shorter. Behind
a nod one less is enough: "okay, that is"."""

_NO_NOD, _NEARLY_AS_LOUD = 0.3, 0.5
"""Where the recogniser's encoder takes the speech for a nod with less than this
(:data:`edgevoice.engines.encoder_judge.NODS`), its words need not last, while it goes on. It is not
asked where the speech is quieter than the user's by half of what makes it somebody else's, in dB: a
television nods to nobody."""

_SURELY_NO_NOD = 0.2
"""Where it does so with less than this, as it does of none of 150 nods and of more than half of 140
wishes after 0.35 s, even what was cut short is trusted, and a nod's words are the beginning of
something else or misheard: "okay, that", or "okay" for "hold on"."""

_BEGINS = 0.44
"""Where all its hearings so far come to less than this (their mean log odds), a nod's words are
that as well, once :data:`BRIEF_MS` were heard, and in a pause too: "okay, that is enough" is said
otherwise than "okay". On a virtual clock 2 of the 150 nods stop the agent, and 128 of the 140
wishes do within 600 ms; without it 3 and 113. By the newest hearing alone 9 more nods stop it. The
newest must say so as well, though by less."""
_SUREST = 0.001
"""One hearing says no less than this and no more than one minus this: it does not decide alone."""

_A_NOD, _A_NOD_LASTS_MS = 0.5, 1000.0
"""Where they come to this or more, words are a misheard nod, however many, and a wish only where
they begin with it: of "mm-hm" Whisper made "And I'm sorry", of "uh-huh" "Outside, outside"."""

_LETTERS_MS = 600.0
_WORDY_LETTERS = 8
"""So many letters are a sentence as well, in fewer words, in speech of that length: "for comments"
(wait a moment), "this part" (skip this part). Whisper made so many of none of those 150 nods, from
480 ms on; with 7 letters, seven more stopped the agent ("Godance", "an image"). Under an echo as
loud as they are it makes more of nods ("hopefully", "brilliant", of 500 ms): with a bound of 480 ms
14 of 30 stopped the agent there, with this one 10."""

_HUM = re.compile(r"[hmn]{2,}[a-z]{0,2}|[hm]")
"""A word that nobody says: of murmurs Whisper wrote "M-M-H", "HMA", "HML", "MHA", "MMHS"."""

_HUMMED = ("and", "then")
"""It begins so too where it hears a hum: "mm-hm" became "and then they come", "mm, mm" "and then,
and then"; of the first half of one, "and", "and they", "and any"."""

_HUMMED_MS = 1000.0
"""A hum is no longer than this."""

_OWN_WORDS = 2
"""Words behind an echo, not the agent's and no backchannel, that are the user's after all."""

Evidence = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Speech over the agent's answer of which it is not decided what it is.

    Attributes:
        onset_ms: When it began.
        speech_ms: Its length so far, 0 while it is only suspected.
        end_ms: When it ended, None while it goes on.
        ducked: The answer was turned down for it.
        held: The answer was paused for it.
        deadline_ms: When a hold without words ends.
        heard: Whether the recogniser has answered at all.
        probe: Number of the question to the recogniser that is open, 0 for none.
        probed_ms: Speech length at which it was asked.
        probe_at_ms: Speech length at which it is asked next.
        heard_ms: Speech length up to which the judged words were heard; None for all of it.
        nods: How likely it was a nod, by its sound, each time that it was heard.
        unclear: The newest words, where only its length will say whether they are for the agent.
        passed: It was taken for noise while it went on, and the agent speaks over it.
        echoing: The sound is no louder than the agent's echo may be; words alone count.
        echo_margin_db: See :class:`edgevoice.events.SpeechContinued`; the largest so far.
        began_db: The same when it was first heard: how much of its beginning the echo may hide.
        speaker_similarity: Likewise; the newest.
        loudness_db: Likewise; the newest.
        quiet: It was a nod or unclear, by this evidence; the agent goes on unless more follows.
    """

    onset_ms: float
    speech_ms: float = 0.0
    end_ms: float | None = None
    ducked: bool = False
    held: bool = False
    deadline_ms: float = 0.0
    heard: bool = False
    probe: int = 0
    probed_ms: float = 0.0
    probe_at_ms: float = 0.0
    heard_ms: float | None = None
    nods: tuple[float, ...] = ()
    unclear: OverlapHeard | None = None
    passed: bool = False
    echoing: bool = False
    echo_margin_db: float | None = None
    began_db: float | None = None
    speaker_similarity: float | None = None
    loudness_db: float | None = None
    quiet: Evidence | None = None


class Verdict(StrEnum):
    """What speech over the agent is, or seems to be so far; only one of them is for the agent."""

    INTERRUPTION = "interruption"
    NO_WORDS = "no_words"
    BACKCHANNEL = "backchannel"
    ECHO = "echo"
    OTHER_VOICE = "other_voice"
    BACKGROUND = "background"
    UNCLEAR = "unclear"


def judge(overlap: Overlap, heard: OverlapHeard, rules: Rules) -> tuple[Verdict, Evidence]:
    """Say what the speech is, with the evidence for it.

    ``UNCLEAR`` is what may yet become a backchannel ("ye", "you") while the speech goes on, and
    what is too brief to be trusted.
    """
    evidence: Evidence = {"words": heard.text}
    if overlap.echo_margin_db is not None:
        evidence["echo_margin_db"] = round(overlap.echo_margin_db, 1)
    if overlap.speaker_similarity is not None:
        evidence["speaker_similarity"] = round(overlap.speaker_similarity, 3)
    if overlap.loudness_db is not None:
        evidence["loudness_db"] = round(overlap.loudness_db, 1)
    if heard.nod is not None:
        evidence["nod"] = round(heard.nod, 3)
    found = words(heard.text)
    if not found:
        return Verdict.NO_WORDS, evidence
    if is_background(overlap.loudness_db, rules):
        return Verdict.BACKGROUND, evidence
    said = words(heard.said)
    similarity = echo_similarity(found, said)
    evidence["echo_similarity"] = round(similarity, 3)
    similarity_needed = rules.echo_similarity
    if below_echo(overlap.echo_margin_db, rules):
        similarity_needed *= _STRICT_ECHO
    elif overlap.echo_margin_db is not None and overlap.echo_margin_db >= LOUD_DB:
        similarity_needed = max(similarity_needed, _LOUD_ECHO)
    if similarity >= similarity_needed and not _speaks_on(found, said, rules):
        return Verdict.ECHO, evidence
    if (
        overlap.speaker_similarity is not None
        and overlap.speaker_similarity < rules.min_speaker_similarity
    ):
        return Verdict.OTHER_VOICE, evidence
    if rules.phrases.asks_to_go_on(heard.text):
        return Verdict.BACKCHANNEL, evidence
    if rules.phrases.is_backchannel(found):
        if asks(heard, rules) and rules.phrases.is_answer(found):
            evidence["answers"] = "question"
            return Verdict.INTERRUPTION, evidence
        if _goes_on(overlap, heard, rules):
            return Verdict.INTERRUPTION, evidence
        return Verdict.BACKCHANNEL, evidence
    hum = _is_hummed(found, overlap, rules)
    hum = hum and not _is_no_nod(overlap, _nod(overlap, heard), _NO_NOD, rules)
    if hum and not asks(heard, rules):
        return Verdict.UNCLEAR if overlap.end_ms is None else Verdict.BACKCHANNEL, evidence
    if _is_brief(found, overlap, heard, rules) and not asks(heard, rules):
        return Verdict.UNCLEAR, evidence
    return Verdict.INTERRUPTION, evidence


def below_echo(margin_db: float | None, rules: Rules) -> bool:
    """Whether the sound is known, and not louder than the agent's echo may be."""
    return margin_db is not None and margin_db < rules.echo_margin_db


def hidden_by_echo(overlap: Overlap) -> bool:
    """Whether the agent's echo, which is known, may have hidden a part of the speech."""
    return overlap.echo_margin_db is not None and overlap.echo_margin_db < LOUD_DB


def is_background(loudness_db: float | None, rules: Rules) -> bool:
    """Whether the speech is known, and too quiet to be this user's."""
    return loudness_db is not None and loudness_db < -rules.background_db


def asks(heard: OverlapHeard, rules: Rules) -> bool:
    """Whether the agent asks something, and is finished or nearly."""
    finishing = heard.remaining_ms is not None and heard.remaining_ms <= rules.finishing_ms
    return finishing and heard.said.rstrip("\"'”’»)] ")[-1:] in ("?", "？")


def _is_brief(found: Words, overlap: Overlap, heard: OverlapHeard, rules: Rules) -> bool:
    heard_ms = _heard_ms(overlap)
    nod, so_far = _nod(overlap, heard), _nod_so_far(overlap, heard)
    misheard = so_far is not None and so_far >= _A_NOD
    if rules.phrases.stops_agent(found):
        if misheard and not rules.phrases.begins_with_stop(found):
            return overlap.speech_ms < _A_NOD_LASTS_MS
        half_heard = overlap.end_ms is None and rules.phrases.begins_backchannel(found)
        return half_heard and heard_ms < BRIEF_MS
    if not words(heard.said):  # Nobody nods to an agent in thought.
        return heard_ms < BRIEF_MS
    if _is_no_nod(overlap, nod, _SURELY_NO_NOD, rules):
        return False
    if overlap.end_ms is None and _is_no_nod(overlap, nod, _NO_NOD, rules):
        return heard_ms < BRIEF_MS
    return overlap.speech_ms < (_A_NOD_LASTS_MS if misheard else _lasts_ms(found, rules))


def _heard_ms(overlap: Overlap) -> float:
    return overlap.speech_ms if overlap.heard_ms is None else overlap.heard_ms


def _nod(overlap: Overlap, heard: OverlapHeard) -> float | None:
    """Return how likely the sound is a nod's; None where nothing says so, or echo is in it.

    Of "wait a moment" at 0 dB return loss the canceller leaves what sounds like one.
    """
    echo = overlap.began_db is not None and overlap.began_db < LOUD_DB
    return None if echo or hidden_by_echo(overlap) else heard.nod


def _nod_so_far(overlap: Overlap, heard: OverlapHeard) -> float | None:
    """Return the same by all hearings; that of ``heard`` is among them, where there are any."""
    nod = _nod(overlap, heard)
    if nod is None or not overlap.nods:
        return nod
    bounded = (min(max(nod, _SUREST), 1.0 - _SUREST) for nod in overlap.nods)
    odds = fmean(math.log(nod / (1.0 - nod)) for nod in bounded)
    return 1.0 / (1.0 + math.exp(-odds))


def _is_no_nod(overlap: Overlap, nod: float | None, below: float, rules: Rules) -> bool:
    """Whether it is a nod with less than ``below``, and sounds like the user."""
    far_db = -_NEARLY_AS_LOUD * rules.background_db
    near = overlap.loudness_db is None or overlap.loudness_db > far_db
    return nod is not None and nod < below and near


def _goes_on(overlap: Overlap, heard: OverlapHeard, rules: Rules) -> bool:
    """Whether a nod's words are the beginning of more, by their sound."""
    if not words(heard.said):
        return False
    surely = _is_no_nod(overlap, _nod(overlap, heard), _SURELY_NO_NOD, rules)
    if overlap.end_ms is None and surely:
        return True
    newest = _is_no_nod(overlap, _nod(overlap, heard), _A_NOD, rules)
    all_so_far = _is_no_nod(overlap, _nod_so_far(overlap, heard), _BEGINS, rules)
    return newest and all_so_far and _heard_ms(overlap) >= BRIEF_MS


def _lasts_ms(found: Words, rules: Rules) -> float:
    """Return how long speech of which ``found`` was heard must last to be no nod."""
    own = rules.phrases.behind_backchannels(found)
    needed = _WORDY if len(own) == len(found) else _WORDY - 1
    doubtful = own[:1] == _HUMMED[:1] or any(rules.phrases.is_backchannel((word,)) for word in own)
    if doubtful:
        return _NOD_LASTS_MS
    if len(own) >= needed:
        return _WORDY_MS
    return _LETTERS_MS if sum(map(len, own)) >= _WORDY_LETTERS else _NOD_LASTS_MS


def _is_hummed(found: Words, overlap: Overlap, rules: Rules) -> bool:
    """Whether ``found`` may be what a recogniser makes of a murmur."""
    if overlap.speech_ms > _HUMMED_MS or rules.phrases.stops_agent(found):
        return False
    half = overlap.end_ms is None and found[0] == _HUMMED[0] and len(found) <= len(_HUMMED)
    return half or found[:2] == _HUMMED or any(map(_HUM.fullmatch, found))


def _speaks_on(found: Words, said: Words, rules: Rules) -> bool:
    """Whether the last of the words ``found`` are the user's, behind the agent's echo.

    "is the capital stop it please": the recogniser hears both voices as one.
    """
    own = found[-_OWN_WORDS:]
    return (
        len(found) > _OWN_WORDS
        and echo_similarity(own, said) == 0.0
        and not rules.phrases.is_backchannel(own)
    )
