"""Kitten voices (KittenML's kitten-nano and -mini) as sherpa-onnx packs them."""

from edgevoice.export.families.voice_packs import PackLayout, family

# sherpa-onnx/csrc/offline-tts-kitten-model.cc
LAYOUT = PackLayout(
    name="kitten",
    graphs=("model*.onnx",),
    companions=("voices.bin",),
    metadata=("sample_rate", "n_speakers", "style_dim"),
)
FAMILY = family(
    LAYOUT, "a Kitten pack of sherpa-onnx: model*.onnx, voices.bin, tokens.txt", "Apache-2.0"
)
