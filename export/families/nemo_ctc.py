"""Streaming FastConformer of NeMo with a CTC head: one graph."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family, whole_numbers

_CACHES = tuple(f"cache_last_{of}_dim{n}" for of in ("channel", "time") for n in (1, 2, 3))
_METADATA = ("window_size", "chunk_shift", "subsampling_factor", "vocab_size", *_CACHES)
_NUMBERS = {"subsampling": "subsampling_factor"}

FAMILY = family(
    Pack(
        name="nemo-ctc",
        takes="a folder with one streaming NeMo CTC .onnx and tokens.txt",
        layout=Layout((Part("model", "", {ANY: _METADATA}),), scores="model"),
        engine=lambda metadata, _options: whole_numbers(metadata.get("model", {}), {}, _NUMBERS),
    )
)
