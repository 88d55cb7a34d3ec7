"""What was done to the weights of an ONNX artifact beside its float reference, as figures."""

from __future__ import annotations

from pathlib import Path

from edgevoice import manifest
from edgevoice.errors import MissingDependencyError
from edgevoice.export.gates import Figures

_GRAPHS = (".onnx", ".ort")


def compare(reference: Path, candidate: Path) -> Figures:
    """Compare the weights of two artifacts, graph by graph.

    Returns:
        ``weight_excess``: :attr:`edgevoice.quant.onnx_drift.Drift.excess` of the worst output
        column, NaN where no weight of float's could be found by its name; ``weights_compared``:
        the share of float's weights that were found.

    Raises:
        MissingDependencyError: onnx is not installed.
    """
    try:
        from edgevoice.quant import onnx_drift
    except ImportError as error:
        raise MissingDependencyError(
            "comparing weights needs onnx; pip install 'edgevoice[convert]'"
        ) from error
    excess, compared = onnx_drift.worst(_graphs(reference), _graphs(candidate))
    return {"weight_excess": excess, "weights_compared": compared}


def _graphs(folder: Path) -> list[Path]:
    files = (folder / file.path for file in manifest.read(folder).files)
    return [path for path in files if path.suffix in _GRAPHS]
