"""Streaming transducers of icefall (zipformer, conformer, LSTM, e-branchformer): three graphs."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import (
    DECODER_IN_FLOAT,
    JOINER_IN_FLOAT,
    Pack,
    family,
)

_CHUNKS = ("T", "decode_chunk_len")
_LAYERS = ("num_encoder_layers", "cnn_module_kernels", "left_context_len")
_ENCODERS = {
    "zipformer2": (
        *("encoder_dims", "query_head_dims", "value_head_dims", "num_heads"),
        *_LAYERS,
        *_CHUNKS,
    ),
    "zipformer": ("encoder_dims", "attention_dims", *_LAYERS, *_CHUNKS),
    "conformer": (
        *("num_encoder_layers", "left_context", "encoder_dim", "pad_length", "cnn_module_kernel"),
        *_CHUNKS,
    ),
    "ebranchformer": (
        *("num_hidden_layers", "hidden_size", "intermediate_size", "csgu_kernel_size"),
        *("merge_conv_kernel", "left_context_len", "num_heads", "head_dim"),
        *_CHUNKS,
    ),
    "lstm": ("num_encoder_layers", "rnn_hidden_size", "d_model", *_CHUNKS),
}

FAMILY = family(
    Pack(
        name="online-transducer",
        takes="a folder with encoder*.onnx, decoder*.onnx, joiner*.onnx and tokens.txt",
        layout=Layout(
            (
                Part("encoder", "encoder", _ENCODERS),
                Part("decoder", "decoder", {ANY: ("vocab_size", "context_size")}),
                Part("joiner", "joiner"),
            ),
            scores="joiner",
        ),
        options={"modeling_unit": "cjkchar, bpe or cjkchar+bpe, for hotwords"},
        engine=lambda _metadata, options: dict(options),
        keeps=(DECODER_IN_FLOAT, JOINER_IN_FLOAT),
    )
)
