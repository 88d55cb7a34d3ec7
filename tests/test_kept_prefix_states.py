"""What a cache holds after any order of reading, judging, writing, cancels and failures.

The engine is a list here: what follows a token is drawn from all the tokens up to it, so that an
answer or a judgement by the wrong logits is another one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevoice.engines import ending
from edgevoice.engines.kept_prefix import PREFILL_BATCH_TOKENS, KeptPrefixConversation, Writing
from edgevoice.errors import EngineError
from edgevoice.frames import Float32
from edgevoice.settings import LanguageModelSettings
from edgevoice.stages import Ending, Message, Role

END, ASSISTANT, MERGED = 256, 257, 258
ROLES = {"user": 259, "assistant": 260, "system": 261}
SIZE = 262
SETTINGS = LanguageModelSettings(max_answer_tokens=4, context_tokens=400)


class Letters:
    """A letter is a token, but for "e?", of which two make one."""

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        tokens = [t for m in messages for t in (ROLES[m.role], *self.tokenise(m.content), END)]
        return [*tokens, ASSISTANT]

    def tokenise(self, text: str) -> list[int]:
        return [MERGED if c == "\0" else ord(c) for c in text.replace("e?", "\0")]

    def ends_answer(self, token: int) -> bool:
        return token >= END


def following(tokens: Sequence[int]) -> Float32:
    drawn = np.random.default_rng([len(tokens), *tokens]).normal(0, 3, SIZE)
    return drawn.astype(np.float32)


class Listed(KeptPrefixConversation):
    """Its cache is a list, which ``cuts`` says can be cut back."""

    def __init__(self, cuts: bool = True) -> None:
        super().__init__(Letters(), SETTINGS, SETTINGS.context_tokens)
        self.cache: list[int] = []
        self.computed: dict[int, Float32] = {}
        self.batches = 0
        self.fails = False
        self.cuts = cuts

    def _evaluate(self, tokens: list[int], back: int) -> None:
        assert 0 < len(tokens) <= PREFILL_BATCH_TOKENS
        assert 0 <= back < len(tokens)
        if self.fails:
            self._keep(0)
            raise EngineError("no such tensor")
        self.batches += 1
        self.cache += tokens
        whole = self.cache
        self.computed = {b: following(whole[: len(whole) - b]) for b in {0, back}}

    def _cut_back(self, count: int) -> int:
        del self.cache[count if self.cuts else 0 :]
        return len(self.cache)

    def _logits(self, back: int) -> Float32:
        return self.computed[back]

    @contextmanager
    def _writing(self) -> Iterator[Writing]:
        yield Writing(lambda: int(self.computed[0].argmax()), lambda token: f"<{token}>")

    def _free(self) -> None:
        self.cache.clear()


class After:
    """A cancel that comes with the ``count``-th look at it; None never comes."""

    def __init__(self, count: int | None) -> None:
        self._left = count

    def __call__(self) -> bool:
        if self._left is None:
            return False
        self._left -= 1
        return self._left < 0


TEXTS = st.sampled_from(
    ("", "I", "I see", "I see.", "I see?", "I se", "I am", "word " * 7, f"{'word ' * 7}is,", "?")
)
CALLS = st.lists(
    st.tuples(
        st.sampled_from(("prefill", "ending", "begin", "generate")),
        st.lists(TEXTS, min_size=1, max_size=3),
        st.none() | st.integers(0, 4),  # looks until the cancel
        st.booleans(),  # the engine fails
    ),
    max_size=12,
)


def said(texts: Sequence[str]) -> list[Message]:
    roles: tuple[Role, ...] = ("user", "assistant", "user")
    return [Message(role, text) for role, text in zip(roles, texts, strict=False)]


def words_of(messages: Sequence[Message]) -> list[int]:
    return Letters().prompt(ending.unmarked(messages))[:-2]


def check_judgement(judged: Ending, messages: Sequence[Message], cache: list[int]) -> None:
    words, prompt = words_of(messages), Letters().prompt(messages)
    shares = np.exp(following(words).astype(np.float64))
    ends = shares[[END, ord("."), ord("?"), ord("!")]].sum() / shares.sum()
    assert judged.probability == pytest.approx(ends, rel=1e-4)
    assert judged.read_tokens == len(cache) >= len(words)
    assert cache in (words, prompt[: len(cache)])


@settings(deadline=None)
@given(CALLS, st.booleans())
def test_the_cache_is_what_is_kept_and_all_is_judged_and_written_by_its_own_words(
    calls: list[tuple[str, list[str], int | None, bool]], cuts: bool
) -> None:
    conversation = Listed(cuts)
    for name, texts, looks, fails in calls:
        messages, cancelled = said(texts), After(looks)
        conversation.fails = fails
        try:
            if name == "prefill":
                conversation.prefill(messages, cancelled)
                assert looks is not None or conversation.cache == Letters().prompt(messages)
            elif name == "generate":
                written = list(conversation.generate(messages, cancelled))
                alone = list(Listed().generate(messages))
                assert written == (alone if looks is None else alone[: len(written)])
            else:
                judge = conversation.ending if name == "ending" else conversation.begin
                judged = judge(messages, cancelled)
                assert judged is not None or looks is not None
                if judged is not None:
                    check_judgement(judged, messages, conversation.cache)
                    assert name == "begin" or conversation.cache == words_of(messages)
        except EngineError:
            assert fails
            assert conversation.cache == []
        assert conversation.cache == conversation._kept


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_beginning_an_answer_takes_as_many_batches_as_reading_it(first: str, asked: str) -> None:
    turn = [Message("user", asked)]
    words, prompt = words_of(turn), Letters().prompt(turn)
    apart, together = Listed(), Listed()
    for conversation in (apart, together):
        conversation.prefill([Message("user", first)])
        conversation.batches = 0
    cut, judged = apart.ending(turn), together.begin(turn)
    assert cut is not None
    assert judged is not None
    assert judged.probability == cut.probability
    assert judged.evaluated_tokens - cut.evaluated_tokens == judged.read_tokens - cut.read_tokens
    rest = together.prefill(turn)
    apart.prefill(turn)
    assert together.cache == apart.cache == prompt
    assert together.batches <= apart.batches
    if prompt[: len(words)] == words:
        read = judged.evaluated_tokens + rest
        assert together.batches == math.ceil(read / PREFILL_BATCH_TOKENS)


def test_a_mark_that_changes_the_last_word_is_read_after_it() -> None:
    conversation = Listed()
    turn = [Message("user", "I see?")]
    judged = conversation.begin(turn)
    assert judged is not None and judged.read_tokens == len(words_of(turn))
    assert conversation.prefill(turn) == 3  # "e?", the end and the answer's beginning
    assert conversation.cache == Letters().prompt(turn)
