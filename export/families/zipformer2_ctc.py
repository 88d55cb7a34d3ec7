"""Streaming zipformer2 with a CTC head: one graph."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family

_METADATA = (
    *("encoder_dims", "query_head_dims", "value_head_dims", "num_heads", "num_encoder_layers"),
    *("cnn_module_kernels", "left_context_len", "T", "decode_chunk_len"),
)

FAMILY = family(
    Pack(
        name="zipformer2-ctc",
        takes="a folder with one streaming zipformer2 .onnx and tokens.txt",
        layout=Layout((Part("model", "", {ANY: _METADATA}),), scores="model"),
    )
)
