"""What a voice cannot say, made sayable: the text that a language model writes is not speech.

Works on any piece of text alone (a clause of a streamed answer as well as a whole one), so that
what it leaves of markdown whose other half stands in another piece is still clean. Numbers,
percent signs, dates and times are left to espeak-ng, which reads them well.
"""

from __future__ import annotations

import re
import unicodedata

_PLAIN = str.maketrans({
    "\u2018": "'", "\u2019": "'", "\u201a": "'", "\u201b": "'", "\u2032": "'", "\u0060": "",
    "\u201c": '"', "\u201d": '"', "\u201e": '"', "\u201f": '"', "\u00ab": '"', "\u00bb": '"',
    "\u2033": '"', "\u2010": "-", "\u2011": "-", "\u2012": "-", "\u2015": "\u2014",
    "\u2212": "-", "\u00a0": " ", "\u202f": " ", "\u2009": " ", "\u200a": " ", "\u2026": "...",
    "\u2022": ",", "\u00b7": ",", "\u2028": "\n", "\u2029": "\n\n", "\r": "\n", "\t": " ",
})  # fmt: skip
_ENGLISH_SYMBOLS = str.maketrans({
    "\u00d7": " times ", "\u00f7": " divided by ", "\u2248": " about ", "\u2264": " at most ",
    "\u2265": " at least ", "\u2260": " is not ", "\u00b1": " plus or minus ",
    "\u00bd": " one half", "\u00bc": " one quarter", "\u00be": " three quarters", "\u2192": " to ",
})  # fmt: skip

_FENCE = re.compile(r"```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)", re.DOTALL)
_IMAGE_OR_LINK = re.compile(r"!?\[([^\]\n]*)\]\((?:[^()\s]|\([^()\s]*\))*(?:\s+\"[^\"]*\")?\)")
_LINK_TAIL = re.compile(r"\]\([^)\s]*\)?")
_TAG = re.compile(r"</?[A-Za-z][^<>\n]{0,200}>")
_URL = re.compile(r"<?\b(?:https?|ftp)://(?:www\.)?([^\s/<>()\"'?#:]+)[^\s<>\"']*>?", re.IGNORECASE)
_WWW = re.compile(r"\bwww\.([a-z0-9-]+(?:\.[a-z0-9-]+)+)[^\s<>()\"']*", re.IGNORECASE)
_EMAIL = re.compile(r"\b([\w.+-]+)@([\w-]+(?:\.[\w-]+)+)\b")
_TABLE_RULE = re.compile(r"^[ |:\-]*-{2,}[ |:\-]*$", re.MULTILINE)
_LINE_START = re.compile(
    r"^[ ]{0,12}(?:#{1,6}[ ]+|>[ ]?|[-*+\u2013][ ]+|\[[ xX]\][ ]+)+", re.MULTILINE
)
_EMPHASIS = re.compile(r"(?<!\w)_{1,3}(?=\S)|(?<=\S)_{1,3}(?!\w)|\*+|~~|(?<=\s)#+(?=\s|$)")
_EMOTICON = re.compile(r"(?<!\S)(?:[:;=8][-'~^]?[()DPpoO/\\|*]|<3|\^_?\^)(?!\S)")
_KEYCAP = re.compile("\ufe0f?\u20e3")
_REPEATED_MARK = re.compile(r"([!?,;:])[!?,;:]+")
_SPACE_BEFORE_MARK = re.compile(r"\s+([,.;:!?])(?=\s|$)")
_LEADING_MARKS = re.compile(r"^[\s,.;:!?)\]}\u2014-]+(?=\s|$)", re.MULTILINE)

_CURRENCIES = {
    "$": ("dollar", "dollars", "cents"),
    "€": ("euro", "euros", "cents"),
    "£": ("pound", "pounds", "pence"),
    "¥": ("yen", "yen", "sen"),
    "₹": ("rupee", "rupees", "paise"),
}
_MONEY = re.compile(
    r"([$€£¥₹])\s?(\d[\d,]*)(?:\.(\d+))?(?:\s?(thousand|million|billion|trillion|[kKMB]\b))?"
)
_MAGNITUDES = {"k": "thousand", "K": "thousand", "M": "million", "B": "billion"}
# espeak-ng ends a sentence at the stop of these.
_ABBREVIATIONS = {
    "Dr.": "Doctor", "Mr.": "Mister", "Mrs.": "Missis", "Ms.": "Miz", "Prof.": "Professor",
    "Jr.": "Junior", "Sr.": "Senior", "vs.": "versus", "e.g.": "for example", "i.e.": "that is",
    "etc.": "et cetera", "approx.": "approximately",
}  # fmt: skip
_ABBREVIATION = re.compile(r"(?<![\w.])(" + "|".join(map(re.escape, _ABBREVIATIONS)) + r")(?!\w)")
_ET_CETERA_ENDS = re.compile(r"(?<![\w.])etc\.(?=\s*(?:$|\n|[A-Z]))")
_TIMES = re.compile(r"(?<=\d)\s?\*\s?(?=\d)")
_RANGE = re.compile(r"(?<=\d)\s?\u2013\s?(?=\d)")
_DEGREES = re.compile(r"\s?°\s?([CF])\b")
_ELLIPSIS = re.compile(r"\s*\.{2,}(?=(\s+[A-Z])?)")


def speakable(text: str, language: str = "en") -> str:
    """Return what of ``text`` a voice should say, on one line; "" when there is nothing.

    Args:
        text: As a person or a language model wrote it: markdown, links, emoji and all.
        language: ISO 639 code; symbols, currencies and abbreviations become words in English
            only, in other languages they are left to espeak-ng.

    >>> speakable("**Sure!** 😀 It's at [the shop](https://example.com/x) for $3.50.")
    "Sure! It's at the shop for 3 dollars 50."
    """
    said = unicodedata.normalize("NFC", text.encode("utf-8", "ignore").decode("utf-8"))
    said = _FENCE.sub("\n", said).translate(_PLAIN)
    said = _IMAGE_OR_LINK.sub(r"\1", said)
    said = _LINK_TAIL.sub(" ", said)
    said = _URL.sub(lambda found: _host(found[1], found[0]), said)
    said = _WWW.sub(lambda found: _host(found[1], found[0]), said)
    said = _TAG.sub(" ", said)
    said = _TABLE_RULE.sub("", said)
    said = _LINE_START.sub("", said).replace("|", ", ")
    english = re.split("[-_]", language)[0] == "en"
    said = _TIMES.sub(" times " if english else " ", said)
    said = _EMPHASIS.sub("", said)
    if english:
        said = _english(said)
    said = _EMOTICON.sub("", _KEYCAP.sub("", said))
    said = "".join(_sayable(character) for character in said)
    said = _ELLIPSIS.sub(lambda found: "." if found[1] else ",", said)
    said = _join_lines(said)
    if not any(character.isalnum() for character in said):
        return ""
    return said


def _english(text: str) -> str:
    said = _EMAIL.sub(lambda found: f"{found[1]} at {found[2]}".replace(".", " dot "), text)
    said = _DEGREES.sub(
        lambda found: " degrees Celsius" if found[1] == "C" else " degrees Fahrenheit", said
    )
    said = said.replace("°", " degrees")
    said = _MONEY.sub(_money, said)
    said = _RANGE.sub(" to ", said)
    said = _ET_CETERA_ENDS.sub("et cetera.", said)
    said = _ABBREVIATION.sub(lambda found: _ABBREVIATIONS[found[1]], said)
    return said.translate(_ENGLISH_SYMBOLS)


def _money(found: re.Match[str]) -> str:
    one, many, small = _CURRENCIES[found[1]]
    whole, part, magnitude = found[2].rstrip(","), found[3], found[4]
    rest = found[2][len(whole) :]
    if magnitude:
        amount = f"{whole}.{part}" if part else whole
        return f"{amount} {_MAGNITUDES.get(magnitude, magnitude)} {many}{rest}"
    if not part or not part.strip("0"):
        return f"{whole} {one if whole == '1' else many}{rest}"
    if len(part) != 2:
        return f"{whole}.{part} {many}"
    if not whole.strip("0"):
        return f"{int(part)} {small}"
    return f"{whole} {one if whole == '1' else many} {int(part)}"


def _host(host: str, whole: str) -> str:
    """Say the host of a URL; a mark that ended the sentence, not the URL, stays."""
    name = host.rstrip(".,;:!?")
    mark = whole.rstrip(">)")[-1:] if whole.rstrip(">)")[-1:] in ".,;:!?" else ""
    return name.replace(".", " dot ") + mark


def _sayable(character: str) -> str:
    """Return the character, or a space for what no voice says: emoji, controls, joiners."""
    if character == "\n":
        return character
    category = unicodedata.category(character)
    if (
        category in {"So", "Sk", "Cc", "Cf", "Cs", "Co", "Cn", "Me"}
        or "\ufe00" <= character <= "\ufe0f"
    ):
        return "" if category in {"Cf", "Mn"} else " "
    return " " if character in "<>[]{}\\^~_" else character


def _join_lines(text: str) -> str:
    """Put lines together, with a pause between them.

    espeak-ng does not end a sentence at a full stop that a lower-case letter follows, so that a
    list of those gets commas.
    """
    lines = []
    for line in text.split("\n"):
        tidy = " ".join(line.split())
        tidy = _SPACE_BEFORE_MARK.sub(r"\1", tidy)
        tidy = _REPEATED_MARK.sub(r"\1", tidy)
        tidy = _LEADING_MARKS.sub("", tidy).strip()
        if any(character.isalnum() for character in tidy):
            lines.append(tidy)
    said = ""
    for line in lines:
        if said and said[-1] not in ".!?,;:\u2014":
            said += "," if line[0].islower() else "."
        said += f" {line}" if said else line
    return said
