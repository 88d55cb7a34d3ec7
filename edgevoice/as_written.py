"""What a streaming recogniser heard, as a sentence begins on paper. Pure.

Such recognisers write lower case without marks. A language model thinks more of the end of a
sentence that begins like one.
"""

from __future__ import annotations

import re

_I = re.compile(r"\bi\b")


def as_written(text: str, language: str) -> str:
    """Return ``text`` with the capitals that are sure; ``language`` as in ``turns.language``.

    >>> as_written("so i'm late", "en")
    "So I'm late"
    """
    if language == "en":
        text = _I.sub("I", text)
    return text[:1].upper() + text[1:]
