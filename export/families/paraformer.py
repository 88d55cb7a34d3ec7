"""Streaming Paraformer: encoder and decoder."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family

_METADATA = (
    *("vocab_size", "lfr_window_size", "lfr_window_shift", "encoder_output_size"),
    *("decoder_num_blocks", "decoder_kernel_size", "neg_mean", "inv_stddev"),
)

FAMILY = family(
    Pack(
        name="paraformer",
        takes="a folder with encoder*.onnx, decoder*.onnx and tokens.txt",
        layout=Layout(
            (Part("encoder", "encoder", {ANY: _METADATA}), Part("decoder", "decoder")),
            scores="decoder",
            blank=False,
        ),
    )
)
