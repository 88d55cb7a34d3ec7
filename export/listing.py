"""What can be exported and how, as rows and as JSON: families with their options, schemes."""

from __future__ import annotations

from typing import Any

from edgevoice.devices import socs
from edgevoice.export import family, npu_graph
from edgevoice.quant.scheme import SCHEMES


def families() -> list[list[str]]:
    """Return the table of families, headings first; a family's options follow it."""
    table = [["FAMILY", "STAGE", "FORMAT", "SCHEMES (* DEFAULT)", "TAKES"]]
    for name in family.MODULES:
        found = family.load(name)
        names = ", ".join(f"{s}*" if s == found.default_scheme else s for s in found.schemes)
        table.append([found.name, found.stage, found.format, names, found.takes])
        table += [["", "", "", "", f"--option {k}=: {v}"] for k, v in found.options.items()]
    return table


def schemes() -> list[list[str]]:
    """Return the table of schemes, headings first."""
    rows = [[s.name, s.format, f"{s.bits:g}", s.summary] for s in SCHEMES.values()]
    return [["SCHEME", "FORMAT", "BITS", ""], *rows]


def chips() -> list[list[str]]:
    """Return the table of chips that ``export qnn`` compiles for, headings first."""
    families = ", ".join(npu_graph.MODULES)
    rows = [
        [
            soc.name,
            f"v{soc.htp_arch}",
            soc.title,
            f"{', '.join(s for s in npu_graph.SCHEMES if s != 'fp16' or soc.floats)} of {families}"
            + ("" if soc.floats else " (integers alone)"),
        ]
        for soc in socs.SOCS.values()
    ]
    return [["SOC", "HTP", "", "TAKES"], *rows]


def as_json() -> dict[str, Any]:
    """Return both as plain JSON values."""
    return {
        "families": [
            {
                "name": f.name,
                "stage": f.stage,
                "format": f.format,
                "takes": f.takes,
                "schemes": list(f.schemes),
                "default_scheme": f.default_scheme,
                "options": dict(f.options),
            }
            for f in map(family.load, family.MODULES)
        ],
        "schemes": [
            {
                "name": s.name,
                "format": s.format,
                "bits": s.bits,
                "summary": s.summary,
                "falls_back_to": list(s.falls_back_to),
            }
            for s in SCHEMES.values()
        ],
        "socs": [
            {
                "name": soc.name,
                "title": soc.title,
                "soc_model": soc.soc_model,
                "htp_arch": soc.htp_arch,
                "floats": soc.floats,
                "source": soc.source,
            }
            for soc in socs.SOCS.values()
        ],
        "npu_families": list(npu_graph.MODULES),
    }
