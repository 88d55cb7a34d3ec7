"""Silero VAD: passed through, checked; smaller without the half that hears 8 kHz.

The published graph asks for the sample rate and has one model for 16 and one for 8 kHz. The runtime
hears 16 kHz alone, so a candidate keeps that branch, bit for bit, and its weights become
initializers that can be stored in fewer bits.
"""

from __future__ import annotations

import onnx
from onnx import helper, numpy_helper

from edgevoice.export.families.single_graph import Single, family, input_shapes
from edgevoice.frames import SAMPLE_RATE_HZ

_INPUTS = ({"input", "state", "sr"}, {"input", "sr", "h", "c"})  # versions 5 and 6, version 4


def refuses(model: onnx.ModelProto) -> str:
    """Return why sherpa-onnx would not run ``model`` as Silero VAD, "" when it would."""
    inputs = set(input_shapes(model))
    return "" if inputs in _INPUTS else f"its inputs are {', '.join(sorted(inputs))}"


def keep_16_khz(model: onnx.ModelProto) -> bool:
    """Put the branch for 16 kHz in the place of the choice, in place; whether there was one."""
    graph = model.graph
    constants = {
        node.output[0]: numpy_helper.to_array(node.attribute[0].t)
        for node in graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    asked = {
        node.output[0]: name
        for node in graph.node
        if node.op_type == "Equal" and "sr" in node.input
        for name in node.input
        if name in constants
    }
    nodes: list[onnx.NodeProto] = []
    found = False
    for node in graph.node:
        if node.op_type != "If" or node.input[0] not in asked:
            nodes.append(node)
            continue
        found = True
        is_16_khz = int(constants[asked[node.input[0]]]) == SAMPLE_RATE_HZ
        taken = "then_branch" if is_16_khz else "else_branch"
        branch = next(a.g for a in node.attribute if a.name == taken)
        nodes += [inner for inner in branch.node if not _is_weight(inner)]
        for inner in branch.node:
            if _is_weight(inner):
                graph.initializer.append(_weight(inner))
        graph.initializer.extend(branch.initializer)
        for inside, outside in zip(branch.output, node.output, strict=True):
            nodes.append(helper.make_node("Identity", [inside.name], [outside]))
    used = {name for node in nodes for name in _reads(node)} | {o.name for o in graph.output}
    del graph.node[:]
    graph.node.extend(node for node in nodes if used & set(node.output))
    return found


def _is_weight(node: onnx.NodeProto) -> bool:
    return bool(node.op_type == "Constant" and node.attribute[0].HasField("t"))


def _weight(node: onnx.NodeProto) -> onnx.TensorProto:
    tensor = onnx.TensorProto()
    tensor.CopyFrom(node.attribute[0].t)
    tensor.name = node.output[0]
    return tensor


def _reads(node: onnx.NodeProto) -> set[str]:
    """Names that ``node`` and the graphs inside it read."""
    names = set(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            names |= {n for inner in attribute.g.node for n in _reads(inner)}
            names |= {output.name for output in attribute.g.output}
    return names


FAMILY = family(
    Single(
        name="silero-vad",
        stage="vad",
        takes="silero_vad.onnx of version 4, 5 or 6",
        default_scheme="fp16",
        checker="edgevoice.export.checks.vad:measure",
        refuses=refuses,
        narrow=keep_16_khz,
        licence="MIT",
    )
)
