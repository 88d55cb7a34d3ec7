"""A GGUF file published in four bits, written again in the bytes that llama.cpp is fast at.

llama.cpp multiplies some types (Q4_1 among them) a token at a time; Q8_0 it multiplies in tiles,
and reads a prompt in two thirds of the time. The weights stay what they were, to within half of a
127th of the largest of each 32. For the catalogue; an export begins with float weights
(:mod:`edgevoice.export.families.gguf`).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevoice import host
from edgevoice.errors import ArtifactError, refuse_unknown
from edgevoice.export.calibration import default_sentences
from edgevoice.export.prepare import Prepared
from edgevoice.quant import drift, gguf, gguf_search

MOST_DIVERGENCE = 0.02
"""Mean nats per token. SmolLM2-135M's Q4_1 and Q8_0 are 0.006 apart; from the same weights computed
in float, Q4_1 is 0.003 and Q8_0 0.004."""

_CHECK_TOKENS = 128


def prepare(fetched: Path, out: Path, options: Mapping[str, Any]) -> Prepared:
    """Write the one GGUF file in ``fetched`` into ``out`` in Q8_0, checked against it.

    Raises:
        ArtifactError: The source is damaged, or the copy is not what it was.
        ConfigError: An option; there are none.
        ExportError: llama.cpp cannot read the source, or what it wrote.
    """
    refuse_unknown("option of a GGUF file in bytes", options, ())
    source = _only_gguf(fetched)
    target = out / "model.gguf"
    gguf.write(source, target, "Q8_0", host.cores())
    drift.check(source, target)
    (apart,) = gguf_search.divergences(
        source,
        [target],
        default_sentences("calibration"),
        threads=host.cores(),
        tokens=_CHECK_TOKENS,
    )
    if not apart <= MOST_DIVERGENCE:
        raise ArtifactError(
            f"{source.name} in Q8_0 diverges by {apart:.4f} nats per token, at most "
            f"{MOST_DIVERGENCE} is allowed; pull it again, or take the file as it was published"
        )
    return Prepared("gguf", "q8_0", checks={"kl_divergence": round(apart, 4)})


def _only_gguf(folder: Path) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if len(found) != 1:
        raise ArtifactError(f"{folder} has {len(found)} .gguf files; one can be converted")
    return found[0]
