"""NeMo's CTC models for whole utterances: one graph."""

from __future__ import annotations

from edgevoice.export.families.pack_layout import Layout, Part
from edgevoice.export.families.sherpa_pack import Pack, family

_METADATA = ("vocab_size", "subsampling_factor")
_MODELS = ("EncDecCTCModelBPE", "EncDecCTCModel", "EncDecHybridRNNTCTCBPEModel")

FAMILY = family(
    Pack(
        name="offline-nemo-ctc",
        takes="a folder with one NeMo CTC .onnx and tokens.txt",
        layout=Layout(
            (Part("model", "", {model: _METADATA for model in _MODELS}),), scores="model"
        ),
    )
)
