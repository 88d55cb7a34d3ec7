"""Moonshine in four graphs, as its float checkpoints are exported: cost grows with the audio."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family
from edgevoice.quant.recipe import KEEP, Override

FAMILY = family(
    Pack(
        name="moonshine",
        takes="a folder with preprocess, encode, uncached_decode, cached_decode .onnx, tokens.txt",
        layout=Layout(
            (
                Part("preprocess", "preprocess"),
                Part("encode", "encode"),
                Part("uncached_decode", "uncached_decode"),
                Part("cached_decode", "cached_decode"),
            ),
            scores="cached_decode",
            blank=False,
        ),
        keeps=(Override("preprocess.onnx:*", KEEP, "convolutions over the waveform; no product"),),
    )
)
