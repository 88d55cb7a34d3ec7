from concurrent.futures import ThreadPoolExecutor

import pytest

from edgevoice.engines import phonemes
from edgevoice.engines.phonemes import phonemise
from edgevoice.errors import ConfigError, MissingDependencyError


def test_clause_marks_stay_among_the_phonemes() -> None:
    assert phonemise("Hello, world! Is it 3.14; or not? Yes: it is.") == [
        "həlˈoʊ, wˈɜːld!",
        "ɪz ɪt θɹˈiː pɔɪnt wˈʌn fˈoːɹ; ɔːɹ nˈɑːt?".replace("fˈoːɹ", _four()),
        "jˈɛs: ɪɾ ˈɪz.",
    ]


def _four() -> str:
    """espeak-ng 1.51 and 1.52 differ in this vowel."""
    return phonemise("four")[0]


def test_same_as_piper_where_versions_agree() -> None:
    """Taken from piper-tts 1.8.0's EspeakPhonemizer."""
    assert phonemise("Hello, Dr. Smith!") == ["həlˈoʊ, dˈɑːktɚ.", "smˈɪθ!"]
    assert phonemise('"Hi." "Ho."') == ["hˈaɪ.", "hˈoʊ."]
    assert phonemise("first line. Then\n\nparagraph") == ["fˈɜːst lˈaɪn.", "ðˈɛn", "pˈæɹəɡɹˌæf"]


@pytest.mark.parametrize("text", ["", "   ", "\n", "...", "\0"])
def test_nothing_to_say_gives_nothing(text: str) -> None:
    assert phonemise(text) == []


def test_words_on_both_sides_of_an_ellipsis_stay_apart() -> None:
    assert phonemise("Well... No one.") == ["wˈɛl nˈoʊwˈʌn."]


def test_language_switch_flags_are_left_out() -> None:
    assert "(" not in "".join(phonemise("naïve café, Weltanschauung 日本", "en-us"))


def test_threads_do_not_mix_their_voices_or_texts() -> None:
    work = [("one, two. Three!", "en-us"), ("eins, zwei. Drei!", "de"), ("a b c", "en-gb")] * 20
    alone = [phonemise(*item) for item in work]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda item: phonemise(*item), work))
    assert together == alone


def test_unknown_voice_is_named() -> None:
    with pytest.raises(ConfigError, match="no voice 'klingonese'"):
        phonemise("a", "klingonese")
    assert phonemise("a.", "en-us")


def test_missing_espeak_names_both_ways_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise OSError(name)

    monkeypatch.setitem(__import__("sys").modules, "espeakng_loader", None)
    monkeypatch.setattr(phonemes.ctypes, "CDLL", refuse)
    with pytest.raises(MissingDependencyError, match=r"edgevoice\[espeak\].*apt install espeak-ng"):
        phonemes._find()


def test_very_long_text() -> None:
    sentences = phonemise("The quick brown fox, it jumps. " * 2000)
    assert len(sentences) == 2000
    assert len(set(sentences)) == 1
