"""Quantisation schemes as data: what is written, in how many bits, and what stands in for it.

Owns the table. Rounding itself lies in the other modules of this package, and which tensors a
scheme touches in one model is the family's recipe (:mod:`edgevoice.quant.recipe`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from edgevoice.errors import ConfigError, unknown

FEWER_BITS = 7
"""Of int8 weights whose products are summed in pairs in 16 bits: more would overflow."""

METHODS = ("float", "float16-storage", "dynamic", "static", "weight-only", "gguf")


@dataclass(frozen=True, slots=True)
class Scheme:
    """One way to write weights.

    Attributes:
        name: As the command line says it and the manifest records it.
        format: ``onnx`` or ``gguf``.
        method: One of :data:`METHODS`.
        bits: Nominal bits per weight of the tensors that it touches.
        summary: One line for ``edgevoice export list``.
        options: What the method needs: block size, symmetry, calibration, llama.cpp's file type.
        falls_back_to: Tried in this order when a gate fails; the last is always float.
        bounds: Values of this scheme's own, by figure, over those of its stage; the user's come
            over both.
    """

    name: str
    format: str
    method: str
    bits: float
    summary: str
    options: Mapping[str, Any] = field(default_factory=dict)
    falls_back_to: tuple[str, ...] = ()
    bounds: Mapping[str, float] = field(default_factory=dict)

    @property
    def is_float(self) -> bool:
        """Whether this is what ``Family.convert`` writes: the float artifact itself."""
        return self.method == "float" or self.options.get("type") == "F16"

    @property
    def largest(self) -> int:
        """What the largest weight becomes where activations are rounded too."""
        return (1 << (self.weight_bits - 1)) - 1

    @property
    def weight_bits(self) -> int:
        """Bits that such weights use of their byte."""
        return int(self.options.get("weight_bits", 8))

    def narrowed(self) -> Scheme:
        """Return this scheme for a processor that sums pairs of int8 products in 16 bits.

        That is x86 without VNNI. Only schemes that round activations too multiply bytes.
        """
        if self.method not in ("dynamic", "static"):
            return self
        return replace(self, options={**self.options, "weight_bits": FEWER_BITS})


# On SmolLM2-135M with an importance matrix, on held-out text: divergence in nats per token, first
# choices kept and perplexity over F16's were 0.0045, 0.96, 1.00 for q8_0; 0.040, 0.89, 1.04 for
# q4_k_m; 0.023, 0.92, 1.03 for q4-searched; 0.19, 0.77, 1.10 for q4_0; 0.11, 0.84, 1.09 for iq4_nl.
# Larger models lose less.
_NEAR = {"kl_divergence": 0.02, "same_top_token": 0.93, "perplexity_ratio": 1.02}
_CLOSE = {"kl_divergence": 0.1, "same_top_token": 0.83}
_COARSE = {"kl_divergence": 0.25, "same_top_token": 0.72, "perplexity_ratio": 1.15}

# Language models are what is written in 4 bits most, and rounding their activations costs them
# more than rounding weights: SmolLM2-135M diverges from float by 0.50 nats per token in int8, by
# 0.0045 in int8-weights.
_BEHIND_INT4 = ("int8-weights", "int8", "fp16", "fp32")

_ALL = (
    Scheme("fp32", "onnx", "float", 32, "float weights as they are"),
    Scheme(
        "fp16",
        "onnx",
        "float16-storage",
        16,
        "float16 on the disk, float32 when it runs: half the size, the same speed",
        falls_back_to=("fp32",),
    ),
    Scheme(
        "int8",
        "onnx",
        "dynamic",
        8,
        "8-bit weights, activations rounded as they come",
        falls_back_to=("int8-mixed", "int8-weights", "fp16", "fp32"),
    ),
    Scheme(
        "int8-mixed",
        "onnx",
        "dynamic",
        8,
        "int8 where it costs neither quality nor speed, float16 storage elsewhere",
        options={"mixed": True},
        falls_back_to=("int8-weights", "fp16", "fp32"),
    ),
    Scheme(
        "int8-static",
        "onnx",
        "static",
        8,
        "8-bit weights per channel and activations calibrated beforehand (QDQ)",
        options={"calibration": "min-max", "per_channel": True},
        falls_back_to=("int8", "int8-mixed", "fp16", "fp32"),
    ),
    Scheme(
        "int8-weights",
        "onnx",
        "weight-only",
        8,
        "8-bit blocks of weights, float activations (MatMulNBits)",
        options={"block_size": 32, "symmetric": True},
        falls_back_to=("fp16", "fp32"),
    ),
    Scheme(
        "int4",
        "onnx",
        "weight-only",
        4,
        "4-bit blocks of weights, float activations (MatMulNBits)",
        options={"block_size": 32, "symmetric": True},
        falls_back_to=("int4-asymmetric", *_BEHIND_INT4),
    ),
    Scheme(
        "int4-asymmetric",
        "onnx",
        "weight-only",
        4,
        "4-bit blocks with a zero point each",
        options={"block_size": 32, "symmetric": False},
        falls_back_to=_BEHIND_INT4,
    ),
    Scheme("f16", "gguf", "gguf", 16, "half precision", options={"type": "F16"}),
    *(
        Scheme(name, "gguf", "gguf", bits, summary, {"type": name.upper()}, fallbacks, bounds)
        for name, bits, summary, fallbacks, bounds in (
            ("q8_0", 8.5, "8-bit blocks of 32", ("f16",), _NEAR),
            ("q6_k", 6.6, "6-bit super-blocks of 256", ("q8_0", "f16"), _NEAR),
            (
                *("q5_k_m", 5.7, "5-bit super-blocks, some tensors higher"),
                *(("q6_k", "q8_0", "f16"), _CLOSE),
            ),
            (
                *("q4_k_m", 4.9, "4-bit super-blocks, some tensors higher"),
                *(("q5_k_m", "q8_0", "f16"), _CLOSE),
            ),
            (
                *("q4_0", 4.5, "4-bit blocks of 32: the fastest on Arm"),
                *(("q4_k_m", "q8_0", "f16"), _COARSE),
            ),
            (
                *("iq4_nl", 4.5, "4-bit blocks of 32 on a curved grid"),
                *(("q4_k_m", "q8_0", "f16"), {"perplexity_ratio": 1.15}),
            ),
        )
    ),
    Scheme(
        "q4-searched",
        "gguf",
        "gguf",
        4.9,
        "a type per tensor, found by measuring what each loses, at q4_k_m's bytes or fewer",
        options={"type": "Q4_K_M", "search": True},
        falls_back_to=("q4_k_m", "q5_k_m", "q8_0", "f16"),
        bounds=_CLOSE,
    ),
)

SCHEMES: Mapping[str, Scheme] = {scheme.name: scheme for scheme in _ALL}


def find(name: str) -> Scheme:
    """Return the scheme ``name``.

    >>> find("int8").bits
    8

    Raises:
        ConfigError: There is no such scheme.
    """
    if name not in SCHEMES:
        raise ConfigError(unknown("scheme", name, SCHEMES))
    return SCHEMES[name]
