"""Matcha-TTS voices as sherpa-onnx packs them: an acoustic model, and a vocoder beside it."""

from edgevoice.export.families.voice_packs import PackLayout, family

# sherpa-onnx/csrc/offline-tts-matcha-model.cc; the vocoder is a download of its own there.
LAYOUT = PackLayout(
    name="matcha",
    graphs=("model*.onnx", "vocos*.onnx"),
    companions=(),
    metadata=("sample_rate", "n_speakers", "pad_id"),
)
FAMILY = family(
    LAYOUT,
    "a Matcha pack of sherpa-onnx: model*.onnx, tokens.txt, and its vocoder (vocos*.onnx) beside",
)
