"""SenseVoice small: one graph for whole utterances in five languages."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family

_METADATA = (
    *("vocab_size", "lfr_window_size", "lfr_window_shift", "normalize_samples"),
    *("with_itn", "without_itn", "lang_auto", "lang_zh", "lang_en", "lang_ja", "lang_ko"),
    *("lang_yue", "neg_mean", "inv_stddev"),
)

FAMILY = family(
    Pack(
        name="sense-voice",
        takes="a folder with one SenseVoice .onnx and tokens.txt",
        layout=Layout((Part("model", "", {ANY: _METADATA}),), scores="model", blank=False),
        options={"language": "zh, en, ja, ko, yue, or nothing to detect it"},
        engine=lambda _metadata, options: dict(options),
    )
)
