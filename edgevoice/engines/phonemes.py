"""Text to phonemes with espeak-ng, the alphabet that Piper and Kokoro voices were trained on.

Owns the one copy of espeak-ng in this process: its state is global, so a lock guards every use.
What the phonemes mean to a voice (ids, padding) is the voice's business; what of a text can be
said at all is :mod:`edgevoice.engines.speakable`'s.
"""

from __future__ import annotations

import ctypes
import re
import threading
import unicodedata
from pathlib import Path
from typing import ClassVar

from edgevoice.errors import ConfigError, EngineError, MissingDependencyError

# espeak-ng/speak_lib.h
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_CHARS_UTF8 = 1
_PHONEMES_IPA = 0x02

_TERMINATORS = {
    ",": ",", ".": ".", "?": "?", "!": "!", ";": ";", ":": ":", "—": ";", "–": ";",
    "،": ",", "؟": "?", "؛": ";", "、": ",", "。": ".", "，": ",", "！": "!", "？": "?",
    "；": ";", "：": ":", "।": ".",
}  # fmt: skip
_SENTENCE_ENDS = frozenset(".?!")
# espeak-ng reads one character past the clause (`Hello, D` of `Hello, Dr.`), so the mark that
# ended it is the last one before white space or quotes and at most one more character.
_CLAUSE_END = re.compile(
    r"(?P<marks>[" + re.escape("".join(_TERMINATORS)) + r"]+)[\s\"'”’»)\]}]*[^\s]?\s*$"
)
_LANGUAGE_FLAG = re.compile(r"\([^)]*\)")
_ELLIPSIS = re.compile(r"\.\.+")
_PARAGRAPH = re.compile(r"\n\s*\n")


class _VoiceProperties(ctypes.Structure):
    """`espeak_VOICE` of speak_lib.h."""

    _fields_: ClassVar = [
        ("name", ctypes.c_char_p),
        ("languages", ctypes.c_char_p),
        ("identifier", ctypes.c_char_p),
        ("gender", ctypes.c_ubyte),
        ("age", ctypes.c_ubyte),
        ("variant", ctypes.c_ubyte),
        ("xx1", ctypes.c_ubyte),
        ("score", ctypes.c_int),
        ("spare", ctypes.c_void_p),
    ]


class _Espeak:
    """The loaded library. Not safe without :data:`_lock`."""

    def __init__(self) -> None:
        library, data = _find()
        self._library = library
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        library.espeak_TextToPhonemes.argtypes = [
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.c_int,
            ctypes.c_int,
        ]
        library.espeak_Initialize.argtypes = [
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.c_int,
        ]
        rate_hz = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, data, _DONT_EXIT)
        if rate_hz <= 0:
            raise EngineError(
                f"espeak-ng found no data in {data.decode() if data else 'its own folder'}; "
                "reinstall it: `pip install --force-reinstall espeakng-loader`"
            )
        self._voice = ""

    def set_voice(self, voice: str) -> None:
        if voice == self._voice:
            return
        # As the espeak-ng program does: a voice's or a file's name, else a language tag (en-gb).
        by_language = _VoiceProperties(languages=voice.encode())
        if (
            self._library.espeak_SetVoiceByName(voice.encode()) != 0
            and self._library.espeak_SetVoiceByProperties(ctypes.byref(by_language)) != 0
        ):
            self._voice = ""
            raise ConfigError(
                f"espeak-ng has no voice {voice!r}; `espeak-ng --voices` lists what it has"
            )
        self._voice = voice

    def clauses(self, text: str) -> list[tuple[str, str]]:
        """Return (phonemes, consumed text) for each clause."""
        data = text.encode("utf-8", errors="ignore")
        # espeak-ng looks ahead of the terminating NUL by a character of up to four bytes.
        buffer = ctypes.create_string_buffer(data, len(data) + 8)
        start = ctypes.addressof(buffer)
        pointer = ctypes.c_void_p(start)
        found = []
        at = start
        while pointer.value is not None:
            phonemes = self._library.espeak_TextToPhonemes(
                ctypes.byref(pointer), _CHARS_UTF8, _PHONEMES_IPA
            )
            end = pointer.value if pointer.value is not None else start + len(data)
            consumed = data[at - start : end - start].decode("utf-8", errors="ignore")
            found.append(((phonemes or b"").decode("utf-8", errors="ignore"), consumed))
            at = end
        return found


_lock = threading.Lock()
_loaded: list[_Espeak] = []


def phonemise(text: str, voice: str = "en-us") -> list[str]:
    """Return the IPA phonemes of ``text``, one string a sentence.

    Clause marks stay among the phonemes (``, . ? ! ; :``; a dash counts as ``;``), strings are
    in Unicode's NFD, so that every code point is a symbol of a Piper voice. This is what
    piper-tts's own phonemiser yields, but for a space where that one joins the two words at an
    ellipsis. Safe to call from any thread.

    Args:
        text: Any text; what espeak-ng cannot say gives nothing.
        voice: espeak-ng's name of the language or voice, ``en-us``, ``de``...

    Raises:
        MissingDependencyError: espeak-ng is not installed.
        ConfigError: espeak-ng has no such voice.
    """
    # A NUL would end the text, a lone surrogate cannot be encoded.
    clean = text.replace("\0", " ")
    with _lock:
        if not _loaded:
            _loaded.append(_Espeak())
        espeak = _loaded[0]
        espeak.set_voice(voice)
        clauses = espeak.clauses(clean)
    sentences: list[str] = []
    current = ""
    for phonemes, consumed in clauses:
        spoken = _LANGUAGE_FLAG.sub("", phonemes).strip("\n")
        mark = _terminator(consumed)
        if not spoken.strip():
            continue
        current += spoken + mark
        if mark in _SENTENCE_ENDS or _PARAGRAPH.search(consumed):
            sentences.append(unicodedata.normalize("NFD", current.strip()))
            current = ""
        else:
            current += " "
    if current.strip():
        sentences.append(unicodedata.normalize("NFD", current.strip()))
    return sentences


def check() -> str:
    """Load espeak-ng and return which library is in use. Raises as :func:`phonemise` does."""
    phonemise("a")
    return str(_loaded[0]._library._name)


def _terminator(consumed: str) -> str:
    found = _CLAUSE_END.search(consumed)
    if found is None or _ELLIPSIS.fullmatch(found["marks"]):
        return ""
    return _TERMINATORS[found["marks"][0]]


def _find() -> tuple[ctypes.CDLL, bytes | None]:
    """Return the library and its data folder (None: the library knows)."""
    try:
        import espeakng_loader
    except ImportError:
        pass
    else:
        data = Path(espeakng_loader.get_data_path())
        return ctypes.CDLL(espeakng_loader.get_library_path()), str(data).encode()
    for name in ("libespeak-ng.so.1", "libespeak-ng.so"):
        try:
            return ctypes.CDLL(name), None
        except OSError:
            continue
    raise MissingDependencyError(
        "espeak-ng is not installed and the voice needs it to pronounce words; "
        "`pip install 'edgevoice[espeak]'` or `apt install espeak-ng` (both GPL-3.0)"
    )
