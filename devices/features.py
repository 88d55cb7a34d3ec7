"""The processor features that decide which kernels run, under the kernel's own names for them.

The names are those of ``/proc/cpuinfo`` ("Features" on Arm, "flags" on x86), so that a profile and
a machine are compared word by word. Owns the list; reading it is :mod:`edgevoice.devices.detect`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ARCHITECTURES = ("aarch64", "x86_64")


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: the architecture that has it, and what it is good for."""

    architecture: str
    meaning: str


FEATURES: Mapping[str, Feature] = {
    "asimd": Feature("aarch64", "128-bit vectors (Neon)"),
    "asimdhp": Feature("aarch64", "half-precision arithmetic in vectors"),
    "asimddp": Feature("aarch64", "int8 dot product (SDOT, UDOT): int8 and 4-bit kernels"),
    "i8mm": Feature("aarch64", "int8 matrix product (SMMLA): faster prefill and int8"),
    "bf16": Feature("aarch64", "bfloat16 products"),
    "sve": Feature("aarch64", "scalable vectors"),
    "sve2": Feature("aarch64", "scalable vectors, second edition"),
    "sme": Feature("aarch64", "scalable matrices"),
    "avx2": Feature("x86_64", "256-bit integer vectors"),
    "fma": Feature("x86_64", "fused multiply-add"),
    "f16c": Feature("x86_64", "half-precision conversions"),
    "avx512f": Feature("x86_64", "512-bit vectors"),
    "avx512bw": Feature("x86_64", "512-bit vectors of bytes and words"),
    "avx512_vnni": Feature("x86_64", "int8 dot product in AVX-512 vectors"),
    "avx_vnni": Feature("x86_64", "int8 dot product in 256-bit vectors"),
    "amx_int8": Feature("x86_64", "int8 matrix product in tiles"),
}

DOT_PRODUCT = ("asimddp", "i8mm", "avx512_vnni", "avx_vnni", "amx_int8")
"""Any of these sums four int8 products in 32 bits at once."""


def of(architecture: str) -> tuple[str, ...]:
    """Return the names of the features that ``architecture`` can have."""
    return tuple(n for n, feature in FEATURES.items() if feature.architecture == architecture)
