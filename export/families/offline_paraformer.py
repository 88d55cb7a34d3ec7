"""Paraformer for whole utterances: one graph."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import ANY, Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family

_METADATA = ("vocab_size", "lfr_window_size", "lfr_window_shift", "neg_mean", "inv_stddev")

FAMILY = family(
    Pack(
        name="offline-paraformer",
        takes="a folder with one Paraformer .onnx and tokens.txt",
        layout=Layout((Part("model", "", {ANY: _METADATA}),), scores="model", blank=False),
    )
)
