"""What was really said and heard in one conversation.

Holds the user's turns and, of the agent's, only the words that left the speaker. :func:`fit` fits
a conversation into the model's context: the oldest turns go first and go whole, the system prompt
never goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgevoice.errors import EngineError
from edgevoice.stages import LanguageModel, Message

INTERRUPTING = "(interrupting) "
"""Begins the user's turn after an answer that was cut off, so that the model knows.

A mark at the end of the agent's own turn is copied by small models: after "The capital of —"
SmolLM2-135M answers "The capital of Italy is —", and the same with "...". It says Rome after this.
"""

_UNHEARD_TURNS = 2
"""The rest of an interrupted answer may be asked for in this many turns: "wait" - "go on"."""

_KEEP_SHARE = 0.6
"""Once turns must go, this share of the context is kept.

Every drop moves the rest of the prompt, which the KV cache then cannot reuse; dropping a good
part at once makes that rare.
"""


class History:
    """The messages of one conversation, oldest first."""

    def __init__(self, system_prompt: str) -> None:
        self._system = [Message("system", system_prompt)] if system_prompt else []
        self._turns: list[Message] = []
        self._cut_off: set[int] = set()  # which of the agent's turns, by position
        self._unheard = ""
        self._unheard_turns = 0

    @property
    def turns(self) -> Sequence[Message]:
        """The user's and the agent's turns so far."""
        return tuple(self._turns)

    @property
    def unheard(self) -> str:
        """What was left unsaid of the answer that was interrupted last, "" if that is long ago."""
        return self._unheard if self._unheard_turns < _UNHEARD_TURNS else ""

    def messages(self, user_text: str | None = None) -> list[Message]:
        """Return system prompt and turns, ``user_text`` as the newest user turn if given."""
        turns = list(self._turns)
        if user_text is not None:
            _append(turns, Message("user", user_text))
        for position in self._cut_off:
            if position + 1 < len(turns):
                said = turns[position + 1].content
                turns[position + 1] = Message("user", INTERRUPTING + said)
        return [*self._system, *turns]

    def user_said(self, text: str) -> None:
        """Enter a turn of the user's."""
        _append(self._turns, Message("user", text))
        self._unheard_turns += 1

    def retract_user(self, text: str) -> None:
        """Take the newest user turn back, which was ``text``: it goes on, nobody answered it."""
        if not self._turns or self._turns[-1].role != "user":
            return
        last = self._turns.pop()
        self._unheard_turns -= 1
        earlier = last.content.removesuffix(text).rstrip()
        if earlier:
            self._turns.append(Message("user", earlier))

    def agent_said(self, text: str, *, cut_off: bool, unheard: str = "") -> None:
        """Enter what was heard of an answer; nothing is entered when nothing was heard.

        Args:
            text: What was heard.
            cut_off: It was interrupted.
            unheard: The rest, as far as it was made.
        """
        if unheard:
            self._unheard = unheard
            self._unheard_turns = 0
        heard = text.strip()
        if not heard:
            return
        _append(self._turns, Message("assistant", heard))
        if cut_off:
            self._cut_off.add(len(self._turns) - 1)

    def forget_unheard(self) -> None:
        """Note that the rest of the interrupted answer has been heard."""
        self._unheard = ""

    def forget_oldest(self, turns: int) -> None:
        """Drop the ``turns`` oldest turns, which no longer fit into the model's context."""
        del self._turns[:turns]
        self._cut_off = {position - turns for position in self._cut_off if position >= turns}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A prompt that fits: its messages, and how many of the oldest turns had to go."""

    messages: list[Message]
    dropped_turns: int


def fit(messages: Sequence[Message], model: LanguageModel, answer_tokens: int) -> Fitted:
    """Fit ``messages`` (a system prompt first, if any; the newest user turn last) into the context.

    Raises:
        EngineError: System prompt and newest turn alone leave no room for an answer.
    """
    room = model.context_tokens - answer_tokens
    needed = model.count_tokens(messages)
    if needed <= room:
        return Fitted(list(messages), 0)
    system = [m for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    dropped = 0
    while len(turns) > 1 and needed > room * _KEEP_SHARE:
        # A user's turn goes together with its answer: half an exchange misleads the model.
        exchange = next((i for i, m in enumerate(turns) if i and m.role == "user"), len(turns) - 1)
        del turns[:exchange]
        dropped += exchange
        needed = model.count_tokens([*system, *turns])
    if needed > room:
        raise EngineError(
            f"the system prompt and what was said need {needed} tokens, {max(room, 0)} are free "
            f"beside an answer of {answer_tokens}; raise language_model.context_tokens"
        )
    return Fitted([*system, *turns], dropped)


def heard_prefix(text: str, share: float) -> str:
    """Return the words of ``text`` that fit into its first ``share`` (0 to 1), cut at a word.

    Sound and text are matched in proportion: within one clause a voice speaks evenly enough for
    the cut to fall within a word of the truth.
    """
    if share >= 1.0:
        return text
    limit = max(0.0, share) * len(text)
    heard: list[str] = []
    position = 0
    for word in text.split():
        position = text.index(word, position) + len(word)
        if position > limit:
            break
        heard.append(word)
    return " ".join(heard)


def _append(turns: list[Message], message: Message) -> None:
    # Chat templates want the roles to alternate; two turns of one role are one longer turn.
    if turns and turns[-1].role == message.role:
        message = Message(message.role, f"{turns.pop().content} {message.content}")
    turns.append(message)
