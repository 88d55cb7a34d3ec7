"""Which reading of a half-heard turn's words tells best whether more comes, and what it costs.

    python benchmarks/turn_text.py

Every utterance below is scored whole (it is over) and cut behind every word from the second on
(it is not; a few cuts happen to be whole sentences, which no scorer can know). Compared are the
lexical score that the runtime uses (:mod:`edgevoice.completeness`) and the probability that the
default language model gives to the end of the user's message behind the words so far.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

from edgevoice.completeness import combine, model_completeness, text_completeness
from edgevoice.engines import gguf
from edgevoice.phrases import load
from edgevoice.questions import QUESTIONS
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Message
from edgevoice.store import Store

UTTERANCES = (
    *QUESTIONS,
    "Turn on the light in the kitchen and close the blinds.",
    "I would like to know what the weather will be like tomorrow.",
    "Can you set a timer for ten minutes?",
    "Tell me a story about a king who lost his crown.",
    "My brother is coming to visit us on Saturday because it is my birthday.",
    "What should I cook if I only have eggs and tomatoes?",
    "Please remind me to call the doctor at nine.",
    "How far is it from Berlin to Paris?",
    "I think that we should leave before it gets dark.",
    "Why is the sky blue?",
    "Could you explain how a refrigerator works?",
    "Play something by the Beatles.",
    "Who wrote the book about the white whale?",
    "I have a meeting with the new manager and I am a bit nervous.",
    "Is there a train to London after eight?",
    "Give me three ideas for a present for my mother.",
    "When I was a child we used to live near the sea.",
    "What is the difference between a frog and a toad?",
    "Do you know how to repair a flat tyre?",
    "Add milk, bread and butter to my shopping list.",
    "I am looking for a word that means the opposite of brave.",
    "Translate good morning into Spanish.",
    "The thing that I like most about the city is the river.",
    "How do I get to the station?",
    "She said that she would be late.",
    "Let us talk about something else.",
    "What time does the museum open on Sundays?",
    "I need a recipe for a cake without sugar.",
    "Does the bus stop here?",
    "Stop the music.",
)


def main() -> None:
    whole = [text.rstrip(".?!") for text in UTTERANCES]
    cuts = [
        " ".join(text.split()[:count]) for text in whole for count in range(2, len(text.split()))
    ]
    phrases = load("en")
    model = gguf.load(Store.default().path(LanguageModelSettings().model), LanguageModelSettings())
    conversation = model.open()
    system = Message("system", LanguageModelSettings().system_prompt)

    def ending(text: str) -> float:
        judged = conversation.ending([system, Message("user", text)])
        assert judged is not None
        return model_completeness(judged.probability, text, phrases)

    scorers: dict[str, Callable[[str], float]] = {
        "lexical": lambda text: text_completeness(text, phrases),
        "language model": ending,
    }
    scores: dict[str, tuple[list[float], list[float]]] = {}
    print(f"{len(whole)} whole turns, {len(cuts)} cut ones; no marks, as a recogniser's partials")
    print(f"{'':20} {'AUC':>6} {'cuts found':>11} {'ms':>7}   (cuts found at 5 % false alarms)")
    for name, score in scorers.items():
        began = time.perf_counter()
        scores[name] = [score(text) for text in whole], [score(text) for text in cuts]
        each_ms = 1000 * (time.perf_counter() - began) / (len(whole) + len(cuts))
        print(f"{name:20} {area(*scores[name]):6.3f} {found(*scores[name]):10.0%} {each_ms:7.2f}")
    both = tuple(
        [
            combine(share, lexical)
            for share, lexical in zip(
                scores["language model"][side], scores["lexical"][side], strict=True
            )
        ]
        for side in (0, 1)
    )
    print(f"{'both':20} {area(*both):6.3f} {found(*both):10.0%}")
    doubted = [score < 0.5 for score in scores["language model"][0]]
    print(f"language model: {sum(doubted)} of {len(whole)} whole turns taken for cut ones")
    flagged = [text for text in cuts if text_completeness(text, phrases) < 0.5]
    wrong = [text for text in whole if text_completeness(text, phrases) < 0.5]
    print(
        f"lexical: {len(flagged)} of {len(cuts)} cuts flagged, {len(wrong)} of {len(whole)} whole"
    )
    conversation.close()
    model.close()


def area(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the area under the ROC curve (the chance that a whole turn scores higher)."""
    pairs = [(p > n) + 0.5 * (p == n) for p in positive for n in negative]
    return sum(pairs) / len(pairs)


def found(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Return the share of ``negative`` below what 95 % of ``positive`` reach."""
    floor = sorted(positive)[math.floor(0.05 * len(positive))]
    return sum(score < floor for score in negative) / len(negative)


if __name__ == "__main__":
    main()
