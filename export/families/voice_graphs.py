"""What the families of voices share: one graph written in one scheme.

Owns which writer a scheme is. Which files a voice has, and what it is calibrated on, is its
family's business.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError, ConfigError, unknown
from edgevoice.export.family import Job
from edgevoice.quant.recipe import HALF, KEEP, Recipe, TensorChoice
from edgevoice.quant.scheme import FEWER_BITS, Scheme

SCHEMES = ("fp32", "fp16", "int8", "int8-mixed", "int8-static")
OPTIONS: Mapping[str, str] = {
    "products": "dynamic int8: edgevoice (the default, faster) or onnxruntime (quantize_dynamic)",
    "calibration": "int8-static: min-max, entropy or percentile",
    "sentences": "int8-static: how many sentences it is calibrated on (default 12)",
}
_PRODUCTS = ("edgevoice", "onnxruntime")
_SENTENCES = 12

Feeds = Callable[[], Sequence[Mapping[str, Any]]]


def write(
    source: Path, target: Path, scheme: Scheme, recipe: Recipe, job: Job, *, feeds: Feeds
) -> tuple[TensorChoice, ...]:
    """Write the float graph ``source`` to ``target`` in ``scheme``.

    Args:
        feeds: Gives the graph's inputs for calibration; called where the scheme is static.

    Raises:
        ConfigError: An option is not known.
        ArtifactError: The graph's opset is too old.
    """
    import onnx

    from edgevoice.quant import dynamic_int8, float16, static_int8, tensors

    rest = HALF if scheme.options.get("mixed") or scheme.method == "static" else KEEP
    fewer = scheme.weight_bits == FEWER_BITS
    try:
        if scheme.method == "dynamic":
            products = job.options.get("products", _PRODUCTS[0])
            if products not in _PRODUCTS:
                raise ConfigError(unknown("products", products, _PRODUCTS))
            if products == "onnxruntime":
                return dynamic_int8.write_stock(source, target, fewer_bits=fewer)
            return dynamic_int8.write(source, target, recipe, rest=rest, largest=scheme.largest)
        if scheme.method == "static":
            method = job.options.get("calibration", str(scheme.options["calibration"]))
            return static_int8.write(
                source, target, feeds(), recipe, method=method, rest=rest, fewer_bits=fewer
            )
    except ValueError as error:
        raise ArtifactError(f"{source}: {error}") from error
    model = onnx.load(str(source))
    if scheme.method == "float16-storage":
        float16.store(model)
    elif scheme.method != "float":
        raise ConfigError(unknown("scheme of a voice", scheme.name, SCHEMES))
    target.write_bytes(model.SerializeToString(deterministic=True))
    return tensors.choices(model)


def calibration_sentences(job: Job) -> Sequence[str]:
    """Return the sentences that a static scheme is calibrated on.

    Raises:
        ConfigError: ``--option sentences`` is no number.
    """
    wanted = job.options.get("sentences", str(_SENTENCES))
    if not wanted.isdecimal() or not int(wanted):
        raise ConfigError(f"option sentences = {wanted!r}; a number from 1 is needed")
    return job.calibration.sentences()[: int(wanted)]


def load_float(path: Path) -> Any:
    """Return the model at ``path``, which has to be whole and in float.

    Raises:
        ArtifactError: It is truncated, no ONNX model, or quantised already.
    """
    from edgevoice.export.onnx_graph import load
    from edgevoice.quant.tensors import integer_operators

    model = load(path)
    if integer := integer_operators(model):
        raise ArtifactError(
            f"{path} is quantised already (it has {integer[0]}); an export begins with float "
            "weights, `edgevoice models pull` takes finished artifacts"
        )
    return model


def annotate(model: Any, wanted: Mapping[str, str]) -> None:
    """Put ``wanted`` into the metadata of ``model``; other entries stay."""
    kept = [(p.key, p.value) for p in model.metadata_props if p.key not in wanted]
    del model.metadata_props[:]
    for key, value in [*kept, *wanted.items()]:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
