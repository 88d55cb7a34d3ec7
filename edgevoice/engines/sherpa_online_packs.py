"""Builds sherpa-onnx's OnlineRecognizer from an artifact of any streaming family.

Owns what the manifest has to say for each family:

- all: ``subsampling`` (feature frames an output frame stands for, 4 unless said),
  ``tail_padding_ms`` (measured by the exporter; measured here at load time without it);
- ``online-transducer``: files ``*encoder*.onnx``, ``*decoder*.onnx``, ``*joiner*.onnx``;
  ``model_type``, and for hotwords ``modeling_unit`` (``cjkchar``, ``bpe``, ``cjkchar+bpe``) with
  a file ``*bpe.vocab``;
- ``paraformer``: files ``*encoder*.onnx``, ``*decoder*.onnx``;
- ``zipformer2-ctc``, ``nemo-ctc``, ``t-one``: one ``.onnx``;
- ``wenet-ctc``: one ``.onnx``, ``chunk_size`` and ``num_left_chunks``; with a file
  `lexicon.npz` words are decoded, the user's own among them, and letters without.

Every pack has one ``*tokens.txt``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import sherpa_onnx

from edgevoice.engines import decoding_graph, lexicon
from edgevoice.engines.artifact_files import engine_value, has_file, onnx_file, plain_file
from edgevoice.engines.providers import Ran
from edgevoice.engines.sherpa_online import (
    WORDS_SILENCE_S,
    OnlineRecogniserModel,
    measure_chunking,
)
from edgevoice.errors import ConfigError
from edgevoice.manifest import Manifest
from edgevoice.settings import RecogniserSettings

_CPU = Ran()
Builder = Callable[[Path, Manifest, RecogniserSettings, dict[str, Any]], Any]


def load_online(
    folder: Path, manifest: Manifest, settings: RecogniserSettings, provider: Ran = _CPU
) -> OnlineRecogniserModel:
    """Load the streaming recogniser in ``folder``, measure its tail padding and warm it up.

    Raises:
        ArtifactError: A file is missing, truncated or not ONNX, or the manifest lacks a value.
        ConfigError: Hotwords for a family that takes none, no such hotwords file, or words for a
            pack without a lexicon or with letters that it cannot write.
    """
    refuse_hotwords(manifest, settings)
    if settings.words and not takes_words(manifest):
        raise ConfigError(
            f"recogniser.words: {manifest.name!r} has no {lexicon.FILE} and takes none; choose a "
            "pack with one or set words to []"
        )
    common = {
        "tokens": plain_file(folder, manifest, "tokens.txt"),
        "num_threads": settings.threads,
        "provider": provider.name,
        "enable_endpoint_detection": True,
        **_endpoint_rules(engine_value(manifest, "subsampling", 4), settings.max_utterance_s),
    }
    recognizer = ONLINE_FAMILIES[manifest.family](folder, manifest, settings, common)
    chunking = measure_chunking(recognizer)
    padding_ms = engine_value(manifest, "tail_padding_ms", chunking.tail_padding_ms)
    return OnlineRecogniserModel(recognizer, padding_ms, provider)


def refuse_hotwords(manifest: Manifest, settings: RecogniserSettings) -> None:
    """Raise ConfigError where hotwords are set for a family that takes none."""
    if settings.hotwords and manifest.family != "online-transducer":
        raise ConfigError(
            f"recogniser.hotwords: {manifest.name!r} is a {manifest.family} pack and takes none; "
            "choose an online-transducer pack or set hotwords to ''"
        )


def takes_words(manifest: Manifest) -> bool:
    """Say whether the artifact can be told words of the user's."""
    return manifest.family == "wenet-ctc" and has_file(manifest, lexicon.FILE)


def _endpoint_rules(subsampling: int, max_utterance_s: float) -> dict[str, float]:
    # sherpa-onnx counts trailing blanks times 4 frames of 10 ms, whatever the model's
    # subsampling is: at 2 it would count silence twice. Rule 3 counts true frames.
    # Whether there were words it sees from that count being shorter than the utterance, which at
    # 2 fails for all but long utterances. So its rule 1, which does not ask, gets rule 2's time,
    # and OnlineRecogniser.endpoint asks for the words.
    silence_s = WORDS_SILENCE_S * 4.0 / subsampling
    return {
        "rule1_min_trailing_silence": silence_s,
        "rule2_min_trailing_silence": silence_s,
        "rule3_min_utterance_length": max_utterance_s,
    }


def _transducer(
    folder: Path, manifest: Manifest, settings: RecogniserSettings, common: dict[str, Any]
) -> Any:
    parts = {part: onnx_file(folder, manifest, part) for part in ("encoder", "decoder", "joiner")}
    if settings.hotwords:
        if not Path(settings.hotwords).is_file():
            raise ConfigError(
                f"recogniser.hotwords: no file {settings.hotwords!r}; set '' for none"
            )
        unit = engine_value(manifest, "modeling_unit", "cjkchar")
        common |= {
            "decoding_method": "modified_beam_search",
            "hotwords_file": settings.hotwords,
            "hotwords_score": settings.hotwords_score,
            "modeling_unit": unit,
            "bpe_vocab": plain_file(folder, manifest, "bpe.vocab") if "bpe" in unit else "",
        }
    model_type = engine_value(manifest, "model_type", "")
    return sherpa_onnx.OnlineRecognizer.from_transducer(**parts, **common, model_type=model_type)


def _paraformer(
    folder: Path, manifest: Manifest, _settings: RecogniserSettings, common: dict[str, Any]
) -> Any:
    parts = {part: onnx_file(folder, manifest, part) for part in ("encoder", "decoder")}
    return sherpa_onnx.OnlineRecognizer.from_paraformer(**parts, **common)


def _wenet(
    folder: Path, manifest: Manifest, settings: RecogniserSettings, common: dict[str, Any]
) -> Any:
    recognizer = sherpa_onnx.OnlineRecognizer.from_wenet_ctc(
        model=onnx_file(folder, manifest),
        chunk_size=engine_value(manifest, "chunk_size", 16),
        num_left_chunks=engine_value(manifest, "num_left_chunks", 4),
        **common,
    )
    if has_file(manifest, lexicon.FILE):
        path = Path(plain_file(folder, manifest, lexicon.FILE))
        decoding_graph.use(recognizer, path, Path(common["tokens"]), settings.words)
    return recognizer


def _single(constructor: str) -> Builder:
    def build(
        folder: Path, manifest: Manifest, _settings: RecogniserSettings, common: dict[str, Any]
    ) -> Any:
        make = getattr(sherpa_onnx.OnlineRecognizer, constructor)
        return make(model=onnx_file(folder, manifest), **common)

    return build


ONLINE_FAMILIES: dict[str, Builder] = {
    "online-transducer": _transducer,
    "paraformer": _paraformer,
    "wenet-ctc": _wenet,
    "zipformer2-ctc": _single("from_zipformer2_ctc"),
    "nemo-ctc": _single("from_nemo_ctc"),
    "t-one": _single("from_t_one_ctc"),
}
"""Streaming families and what builds each."""
