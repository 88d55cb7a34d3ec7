"""Dynamic int8 for a whole ONNX model: a file in, a file out, and what became of every weight.

Two ways of writing the same idea. :func:`write` makes products of everything
(:mod:`edgevoice.quant.convolutions`) and asks a recipe tensor by tensor; :func:`write_stock` is
onnxruntime's own ``quantize_dynamic``, kept to be measured against and for the operators that it
alone knows (LSTM).
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path

import onnx

from edgevoice.quant import convolutions, float16, tensors
from edgevoice.quant.int8 import LARGEST
from edgevoice.quant.recipe import HALF, INT8, KEEP, Recipe, TensorChoice


def write(
    source: Path, target: Path, recipe: Recipe, *, rest: str = KEEP, largest: int = LARGEST
) -> tuple[TensorChoice, ...]:
    """Write the float model ``source`` to ``target`` with its products in int8.

    Args:
        source: A float ONNX model of one file.
        target: Written; equal inputs give equal bytes.
        recipe: Treatments by the weight's name, or by the name of the node that uses it:
            INT8, HALF or KEEP. Where it says nothing, int8.
        rest: What happens to weights that no int8 product can hold: HALF or KEEP.
        largest: Weights are rounded to ``-largest`` to ``largest``.
    """
    model = onnx.load(str(source))
    wanted = treatments(model, recipe)
    convolutions.quantise(model, lambda name: wanted[name] == INT8, largest=largest)
    kept = [name for name, treatment in wanted.items() if treatment == KEEP]
    if rest == HALF:
        float16.store(model, [escape(name) for name in kept])
    else:
        halves = {name for name, treatment in wanted.items() if treatment == HALF}
        others = [t.name for t in model.graph.initializer if t.name not in halves]
        float16.store(model, [escape(name) for name in others])
    target.write_bytes(model.SerializeToString(deterministic=True))
    return tensors.choices(model)


def treatments(model: onnx.ModelProto, recipe: Recipe) -> dict[str, str]:
    """Return what ``recipe`` says of every weight that could be int8."""
    found = {}
    for name, nodes in convolutions.weights_of(model.graph).items():
        by_node = recipe.treatment(nodes[0].name.lstrip("/"), INT8)
        found[name] = recipe.treatment(name, by_node)
    return found


def write_stock(
    source: Path, target: Path, keep_nodes: Sequence[str] = (), *, fewer_bits: bool = False
) -> tuple[TensorChoice, ...]:
    """Write ``source`` to ``target`` as onnxruntime's own ``quantize_dynamic`` does.

    The nodes that ``keep_nodes`` names stay in float. With ``fewer_bits``, signed weights take 7 of
    their 8 (onnxruntime's ``reduce_range``); unsigned ones do not overflow. Weights of a model that
    convolves are unsigned: onnxruntime's ConvInteger has no fast kernel for signed ones (real-time
    factor of a Piper voice 0.61 and 0.47 on one thread and two, against 0.22 and 0.12).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    convolves = any(node.op_type == "Conv" for node in onnx.load(str(source)).graph.node)
    with quiet():
        quantize_dynamic(
            str(source),
            str(target),
            weight_type=QuantType.QUInt8 if convolves else QuantType.QInt8,
            nodes_to_exclude=list(keep_nodes),
            reduce_range=fewer_bits and not convolves,
            # What onnxruntime takes a tensor for whose type it cannot infer (Kokoro has such).
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    return tensors.choices(onnx.load(str(target)))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep onnxruntime's quantiser from warning of each shape that it does not infer."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
