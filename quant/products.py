"""Gives every product of a graph with constant weights the treatment that a recipe asks for.

Owns the order of the rewriting: which weights :mod:`edgevoice.quant.int8` takes, which
:mod:`edgevoice.quant.int4` takes with how many bits, and that whatever stays in float is stored as
float16. A treatment is the name of an ONNX scheme, or :data:`edgevoice.quant.recipe.KEEP`.
"""

from __future__ import annotations

from collections.abc import Iterable

import onnx
from onnx import TensorProto

from edgevoice.errors import ConfigError, unknown
from edgevoice.quant import float16, int4, int8
from edgevoice.quant.recipe import KEEP, Recipe
from edgevoice.quant.scheme import SCHEMES, Scheme

FLOATS = ("float", "float16-storage")
"""Methods that round no product."""


def treatments(model: onnx.ModelProto, scheme: Scheme, recipe: Recipe) -> dict[str, str]:
    """Return the treatment of every float32 matrix of ``model``, by its name.

    Raises:
        ConfigError: The recipe names a treatment that no ONNX scheme has.
    """
    otherwise = KEEP if scheme.method in FLOATS else scheme.name
    found: dict[str, str] = {}
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2:
            treatment = recipe.treatment(tensor.name, otherwise)
            if treatment != KEEP and _find(treatment).method in FLOATS:
                treatment = KEEP
            found[tensor.name] = treatment
    return found


def rewrite(model: onnx.ModelProto, scheme: Scheme, recipe: Recipe) -> None:
    """Rewrite ``model`` in place: products as ``recipe`` and ``scheme`` say, the rest float16.

    ``fp32`` leaves everything as it is.

    Raises:
        ConfigError: As :func:`treatments`.
    """
    chosen = treatments(model, scheme, recipe)
    for name in dict.fromkeys(chosen.values()):
        if name == KEEP:
            continue
        others = [weight for weight, treatment in chosen.items() if treatment != name]
        _round(model, _find(name), others)
    if scheme.method != "float":
        # The scales of int8 columns are read as they are: one serves a whole column.
        float16.store(model, keep=("*_scale",))


def _round(model: onnx.ModelProto, scheme: Scheme, keep: Iterable[str]) -> None:
    if scheme.method == "dynamic":
        int8.quantise(model, tuple(keep))
        return
    int4.quantise(
        model,
        bits=int(scheme.bits),
        block_size=scheme.options["block_size"],
        symmetric=scheme.options["symmetric"],
        keep=tuple(keep),
    )


def _find(treatment: str) -> Scheme:
    known = {
        s.name: s
        for s in SCHEMES.values()
        if s.method in (*FLOATS, "dynamic", "weight-only") and s.format == "onnx"
    }
    if treatment not in known:
        raise ConfigError(unknown("treatment", treatment, (KEEP, *known)))
    return known[treatment]
