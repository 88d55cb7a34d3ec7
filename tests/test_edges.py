"""The edges of speech from window decisions."""

from hypothesis import given
from hypothesis import strategies as st

from edgevoice.engines.edges import Continued, Edge, Paused, SpeechEdges, Started

WINDOW_MS = 32.0


def edges_of(pattern: str, **settings: float) -> list[Edge]:
    chosen = {"min_speech_ms": 64.0, "min_silence_ms": 96.0, **settings}
    detector = SpeechEdges(WINDOW_MS, **chosen)
    return list(detector.feed(c == "#" for c in pattern))


def kinds(edges: list[Edge]) -> list[str]:
    return [type(e).__name__ for e in edges]


def test_an_onset_and_an_end_are_dated_back_to_where_they_were() -> None:
    edges = edges_of("....####...")
    assert edges == [
        Started(4 * WINDOW_MS),
        Continued(3 * WINDOW_MS),
        Continued(4 * WINDOW_MS),
        Paused(8 * WINDOW_MS),
    ]


def test_speech_that_is_too_short_is_no_edge() -> None:
    assert edges_of("..#......#....") == []


def test_a_short_gap_does_not_end_speech_and_counts_in_its_length() -> None:
    edges = edges_of("###..###...")
    assert kinds(edges) == ["Started", *["Continued"] * 4, "Paused"]
    assert edges[-2] == Continued(8 * WINDOW_MS)


def test_short_bursts_add_up_to_speech_over_short_gaps() -> None:
    assert edges_of("#.#....") == [Started(0.0), Paused(3 * WINDOW_MS)]


def test_speech_goes_on_a_little_below_the_threshold_at_which_it_begins() -> None:
    detector = SpeechEdges(WINDOW_MS, min_speech_ms=64.0, min_silence_ms=64.0, threshold=0.5)
    assert kinds(list(detector.feed([0.4, 0.4, 0.4]))) == []
    assert kinds(list(detector.feed([0.5, 0.5, 0.4, 0.36, 0.4]))) == ["Started", *["Continued"] * 3]
    assert kinds(list(detector.feed([0.34, 0.34]))) == ["Paused"]


def test_what_may_be_speech_is_faint_until_silence_is_long_enough() -> None:
    detector = SpeechEdges(WINDOW_MS, min_speech_ms=64.0, min_silence_ms=64.0, threshold=0.5)
    heard = []
    for probability in [0.2, 0.3, 0.1, 0.1, 0.1, 0.6, 0.6]:
        list(detector.feed([probability]))
        heard.append((detector.faint, detector.suspected_ms is not None))
    none, faint = (False, False), (True, False)
    assert heard == [none, faint, faint, none, none, (True, True), faint]


def test_a_pause_leaves_nothing_faint_behind() -> None:
    detector = SpeechEdges(WINDOW_MS, min_speech_ms=64.0, min_silence_ms=64.0)
    assert kinds(list(detector.feed([0.9, 0.9, 0.3, 0.3]))) == ["Started", "Paused"]
    assert not detector.faint


def test_silence_shorter_than_a_window_still_needs_a_window() -> None:
    assert edges_of("##.", min_silence_ms=0.0)[-1] == Paused(2 * WINDOW_MS)


def test_reset_forgets_the_speech_and_keeps_the_time() -> None:
    detector = SpeechEdges(WINDOW_MS, min_speech_ms=64, min_silence_ms=96)
    list(detector.feed([True, True]))
    assert detector.speaking
    detector.reset()
    assert not detector.speaking
    assert list(detector.feed([False] * 5 + [True] * 2)) == [Started(7 * WINDOW_MS)]


@given(st.lists(st.booleans(), max_size=200), st.integers(0, 200))
def test_edges_alternate_and_do_not_depend_on_how_decisions_come(
    decisions: list[bool], at: int
) -> None:
    whole = SpeechEdges(WINDOW_MS, min_speech_ms=64, min_silence_ms=96)
    halves = SpeechEdges(WINDOW_MS, min_speech_ms=64, min_silence_ms=96)
    edges = list(whole.feed(decisions))
    assert edges == [*halves.feed(decisions[:at]), *halves.feed(decisions[at:])]
    turns = [e for e in edges if not isinstance(e, Continued)]
    assert all(isinstance(e, Started) for e in turns[::2])
    assert all(isinstance(e, Paused) for e in turns[1::2])
    moments = [e.onset_ms if isinstance(e, Started) else e.end_ms for e in turns]
    assert moments == sorted(moments)


def test_quiet_is_known_before_the_pause_is() -> None:
    edges = SpeechEdges(32.0, min_speech_ms=64.0, min_silence_ms=96.0)
    assert edges.quiet
    list(edges.feed([True, True, True]))
    assert not edges.quiet
    assert list(edges.feed([False])) == []
    assert edges.quiet
    list(edges.feed([True]))
    assert not edges.quiet


def test_a_suspicion_is_a_first_window_until_it_is_speech_or_nothing() -> None:
    detector = SpeechEdges(WINDOW_MS, min_speech_ms=64.0, min_silence_ms=64.0)
    found = []
    for decision in "..#..##...":
        list(detector.feed([decision == "#"]))
        found.append(detector.suspected_ms)
    assert found == [None, None, 64.0, 64.0, None, 160.0, None, None, None, None]
