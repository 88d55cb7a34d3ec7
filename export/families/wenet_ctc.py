"""Streaming CTC models in WeNet's layout: one graph, chunk and left context fixed beside it."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family, whole_numbers

_METADATA = (
    *("head", "num_blocks", "output_size", "cnn_module_kernel", "right_context"),
    *("subsampling_factor", "vocab_size"),
)
# sherpa-onnx takes the first two as arguments; its export script leaves them in the metadata.
_NUMBERS = {
    "chunk_size": "chunk_size",
    "num_left_chunks": "left_chunks",
    "subsampling": "subsampling_factor",
}

FAMILY = family(
    Pack(
        name="wenet-ctc",
        takes="a folder with one streaming WeNet CTC .onnx and tokens.txt",
        layout=Layout((Part("model", "", {ANY: _METADATA}),), scores="model"),
        engine=lambda metadata, options: whole_numbers(metadata["model"], options, _NUMBERS),
        options={
            "chunk_size": "output frames of one chunk, where the metadata does not say",
            "num_left_chunks": "chunks of left context, where the metadata does not say",
        },
    )
)
