"""Streaming recognisers: a tiny wenet-ctc model made here, run by sherpa-onnx itself."""

import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from speech import feed
from tiny_wenet import CHUNK_MS, tones, write_pack

from edgevoice.engines.recogniser import load_recogniser
from edgevoice.engines.sherpa_online import OnlineRecogniserModel, measure_chunking
from edgevoice.engines.sherpa_online_packs import ONLINE_FAMILIES, load_online
from edgevoice.errors import ArtifactError, ConfigError
from edgevoice.frames import SAMPLE_RATE_HZ
from edgevoice.manifest import read
from edgevoice.settings import RecogniserSettings
from edgevoice.stages import Transcript

SETTINGS = RecogniserSettings(threads=1)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pack(tmp_path_factory.mktemp("packs") / "tones")


@pytest.fixture(scope="module")
def model(pack: Path) -> OnlineRecogniserModel:
    return load_online(pack, read(pack), SETTINGS)


def test_the_last_word_comes_out_wherever_the_audio_ends(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    for extra_ms in range(0, 2 * CHUNK_MS, 30):
        recogniser.accept(tones("ab"))
        recogniser.accept(tones("c", ms=60.0 + extra_ms))
        assert recogniser.conclude().text == "abc", extra_ms
        recogniser.reset()


def test_without_padding_it_would_not(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    assert feed(recogniser, tones("abc"))[-1].text == "ab"


def test_tail_padding_is_measured(model: OnlineRecogniserModel) -> None:
    chunking = measure_chunking(model._recognizer)
    assert chunking.step_ms == CHUNK_MS
    # 33 frames of 25 ms every 10 ms, seen in steps of 10 ms.
    assert CHUNK_MS + 10 <= chunking.first_ms <= CHUNK_MS + 40
    assert model.tail_padding_ms == chunking.first_ms + CHUNK_MS


def test_the_exporters_tail_padding_is_taken(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tones", tail_padding_ms=1234)
    assert load_online(folder, read(folder), SETTINGS).tail_padding_ms == 1234.0


def test_partials_grow_and_their_stable_part_stays(model: OnlineRecogniserModel) -> None:
    told = feed(model.open(), tones("abcabc"))
    assert len(told) > 2
    for before, after in pairwise(told):
        assert after.text.startswith(before.text)
        assert after.text.startswith(after.stable)
        assert after.audio_ms > before.audio_ms


def test_a_partial_without_news_is_none(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    assert recogniser.partial() is None
    feed(recogniser, tones("a" + 5 * " "))
    assert recogniser.partial() is None


def test_audio_after_a_conclusion_goes_on_as_if_there_had_been_none(
    model: OnlineRecogniserModel,
) -> None:
    recogniser = model.open()
    whole = tones("abcacb")
    # In the middle of a tone: padding left in the stream would make two of it.
    half = len(whole) // 2 + 1600
    recogniser.accept(whole[:half])
    assert recogniser.conclude().text == "abca"
    assert recogniser.conclude().text == "abca"
    assert recogniser.partial() is None
    feed(recogniser, whole[half:])
    found = recogniser.conclude()
    assert found == Transcript("abcacb", "abcacb", 1200.0)


def test_reset_forgets(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    recogniser.accept(tones("abc"))
    recogniser.conclude()
    recogniser.reset()
    assert recogniser.conclude() == Transcript("")
    recogniser.accept(tones("b"))
    assert recogniser.conclude().text == "b"


def silence_to_endpoint(model: OnlineRecogniserModel, said: str) -> float:
    recogniser = model.open()
    recogniser.accept(tones(said))
    for tenth in range(100):
        if recogniser.endpoint():
            return tenth / 10
        recogniser.accept(np.zeros(SAMPLE_RATE_HZ // 10, np.float32))
    raise AssertionError("no endpoint in 10 s")


def test_endpoint_rules_mean_seconds_whatever_the_subsampling(
    model: OnlineRecogniserModel,
) -> None:
    # Rule 2 after words, rule 1 without; a decision comes up to a chunk and its context late.
    assert 1.2 <= silence_to_endpoint(model, "abc") <= 1.2 + 2 * CHUNK_MS / 1000
    assert 1.2 <= silence_to_endpoint(model, "abcabcabcabc") <= 1.2 + 2 * CHUNK_MS / 1000
    assert 2.4 <= silence_to_endpoint(model, "") <= 2.4 + 2 * CHUNK_MS / 1000


def test_an_utterance_that_is_too_long_ends(pack: Path) -> None:
    settings = RecogniserSettings(threads=1, max_utterance_s=2)
    recogniser = load_online(pack, read(pack), settings).open()
    recogniser.accept(tones("abcabca"))
    assert not recogniser.endpoint()
    recogniser.accept(tones("abcabca"))
    assert recogniser.endpoint()


def test_padding_is_not_taken_for_the_users_silence(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    recogniser.accept(tones("ab "))
    recogniser.conclude()
    assert not recogniser.endpoint()


def test_conversations_decode_side_by_side(model: OnlineRecogniserModel) -> None:
    texts = ["abc", "cba", "bab", "ca"] * 4

    def hear(text: str) -> str:
        recogniser = model.open()
        feed(recogniser, tones(text))
        return recogniser.conclude().text

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(hear, texts)) == texts


def test_empty_audio_and_nan_do_no_harm(model: OnlineRecogniserModel) -> None:
    recogniser = model.open()
    recogniser.accept(np.zeros(0, np.float32))
    assert recogniser.conclude() == Transcript("")
    recogniser.accept(np.full(16_000, np.nan, np.float32))
    recogniser.accept(tones("ab"))
    assert recogniser.conclude().text == "ab"


def test_it_is_found_by_its_family(pack: Path) -> None:
    loaded = load_recogniser(pack, SETTINGS)
    recogniser = loaded.open()
    recogniser.accept(tones("cab"))
    assert recogniser.conclude().text == "cab"
    loaded.close()


def test_hotwords_for_a_family_that_takes_none(pack: Path, tmp_path: Path) -> None:
    settings = RecogniserSettings(hotwords=str(tmp_path / "words"))
    with pytest.raises(ConfigError, match="'tones' is a wenet-ctc pack and takes none"):
        load_online(pack, read(pack), settings)


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_an_unknown_family_names_those_that_are_known(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tones")
    edit(folder, family="wenet-cct")
    with pytest.raises(ArtifactError, match=r"'wenet-cct'; did you mean 'wenet-ctc'\? known: "):
        load_recogniser(folder, SETTINGS)


def test_a_wrong_value_in_the_manifest_is_named(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tones", chunk_size="sixteen")
    with pytest.raises(ArtifactError, match=r"engine\.chunk_size = 'sixteen', int is needed"):
        load_recogniser(folder, SETTINGS)


def test_a_chunk_size_that_is_not_the_models_is_one_line(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tones", chunk_size=32)
    with pytest.raises(ArtifactError) as raised:
        load_recogniser(folder, SETTINGS)
    assert "\n" not in str(raised.value)


def test_a_pack_that_makes_the_library_exit_is_one_line(tmp_path: Path) -> None:
    folder = write_pack(tmp_path / "tones")
    edit(folder, family="zipformer2-ctc")  # its metadata is not there: sherpa-onnx exits
    with pytest.raises(ArtifactError) as raised:
        load_recogniser(folder, SETTINGS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("family", "files"),
    [
        ("online-transducer", "encoder-1.onnx decoder-1.onnx joiner-1.onnx bpe.vocab"),
        ("paraformer", "encoder.int8.onnx decoder.int8.onnx"),
        ("zipformer2-ctc", "model.onnx"),
        ("nemo-ctc", "model.onnx"),
        ("t-one", "model.onnx"),
        ("wenet-ctc", "model.onnx"),
    ],
)
def test_every_family_calls_sherpa_with_arguments_that_it_has(
    family: str, files: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No weights of the other families can be had here; their calls are bound to the signatures."""
    import inspect

    import sherpa_onnx

    calls: list[inspect.BoundArguments] = []
    for name, member in inspect.getmembers(sherpa_onnx.OnlineRecognizer):
        if name.startswith("from_"):
            signature = inspect.signature(member)

            def record(*, _signature: inspect.Signature = signature, **given: Any) -> None:
                calls.append(_signature.bind(**given))

            monkeypatch.setattr(sherpa_onnx.OnlineRecognizer, name, record)
    folder = fake_pack(tmp_path, family, files.split())
    hotwords = tmp_path / "hotwords.txt"
    hotwords.write_text("EDGE VOICE\n")
    settings = RecogniserSettings(hotwords=str(hotwords))
    common = {"tokens": "tokens.txt", "num_threads": 1, "rule1_min_trailing_silence": 2.4}
    ONLINE_FAMILIES[family](folder, read(folder), settings, common)
    given = calls[0].arguments
    assert Path(given.get("model") or given["encoder"]).is_file()
    if family == "online-transducer":
        assert given["decoding_method"] == "modified_beam_search"
        assert given["hotwords_file"] == str(hotwords)
        assert given["bpe_vocab"].endswith("bpe.vocab")
        settings = RecogniserSettings(hotwords="/nowhere")
        with pytest.raises(ConfigError, match="no file '/nowhere'"):
            ONLINE_FAMILIES[family](folder, read(folder), settings, common)


def fake_pack(tmp_path: Path, family: str, names: list[str]) -> Path:
    folder = write_pack(tmp_path / "tones", modeling_unit="bpe")
    files = [{"path": "tokens.txt", "sha256": "", "size": 22}]
    for name in names:
        (folder / name).write_bytes(b"\x08\x08")
        files.append({"path": name, "sha256": "", "size": 2})
    edit(folder, family=family, files=files)
    return folder
