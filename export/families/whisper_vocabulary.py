"""What sherpa-onnx is told of a Whisper beside its graphs: metadata and ``tokens.txt``."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from edgevoice.errors import ArtifactError
from edgevoice.export.families.whisper_weights import Sizes


def metadata(size: Sizes, vocabulary: Sequence[str]) -> dict[str, str | int]:
    """Return what sherpa-onnx reads from the encoder's metadata_props.

    Keys and values as in sherpa-onnx's ``scripts/whisper/export-onnx.py``.

    Raises:
        ArtifactError: The vocabulary lacks one of Whisper's special tokens.
    """
    ids = {token: i for i, token in enumerate(vocabulary)}

    def token(*names: str) -> int:
        for name in names:
            if name in ids:
                return ids[name]
        raise ArtifactError(f"the vocabulary has no {names[0]!r}: not Whisper's")

    start, translate = token("<|startoftranscript|>"), token("<|translate|>")
    transcribe = token("<|transcribe|>")
    # The languages stand between the start and the tasks.
    languages = [(i, vocabulary[i][2:-2]) for i in range(start + 1, min(translate, transcribe))]
    sequence = [start, token("<|en|>"), transcribe] if size.is_multilingual else [start]
    return {
        "model_type": "whisper",
        "version": 1,
        "maintainer": "edgevoice",
        "n_mels": size.n_mels,
        "n_audio_ctx": size.n_audio_ctx,
        "n_audio_state": size.n_audio_state,
        "n_audio_head": size.n_audio_head,
        "n_audio_layer": size.n_audio_layer,
        "n_vocab": size.n_vocab,
        "n_text_ctx": size.n_text_ctx,
        "n_text_state": size.n_text_state,
        "n_text_head": size.n_text_head,
        "n_text_layer": size.n_text_layer,
        "sot_sequence": ",".join(map(str, sequence)),
        "all_language_tokens": ",".join(str(i) for i, _ in languages),
        "all_language_codes": ",".join(code for _, code in languages),
        "sot": start,
        "eot": token("<|endoftext|>"),
        "blank_id": token("Ġ"),
        "is_multilingual": int(size.is_multilingual),
        "no_speech": token("<|nospeech|>", "<|nocaptions|>"),
        "transcribe": transcribe,
        "translate": translate,
        "no_timestamps": token("<|notimestamps|>"),
    }


def tokens_text(vocabulary: Sequence[str]) -> str:
    """Return ``tokens.txt``: per line the token's bytes in base64, a space, its id.

    Only text tokens are listed; sherpa-onnx leaves ids that are not listed out of the text.
    """
    decode = _byte_decoder()
    lines = []
    for i, token in enumerate(vocabulary[: vocabulary.index("<|endoftext|>")]):
        if token:
            encoded = base64.b64encode(bytes(decode[c] for c in token)).decode("ascii")
            lines.append(f"{encoded} {i}\n")
    return "".join(lines)


def _byte_decoder() -> dict[str, int]:
    """Invert GPT-2's ``bytes_to_unicode``, which writes every byte as a printable character."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    table = {chr(b): b for b in printable}
    others = [b for b in range(256) if b not in printable]
    return table | {chr(256 + i): b for i, b in enumerate(others)}
