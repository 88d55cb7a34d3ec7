"""How commands print what they found: JSON for programs, tables for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    """Print ``value`` indented; not-a-number in it is a ValueError, since JSON has none."""
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False, allow_nan=False)
    print()


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows``, equally many cells each, in columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(line.rstrip())


def warn_of_provider(stage: str, engine: object) -> None:
    """Say on standard error what ``engine`` runs on, where something else was wanted before it."""
    from edgevoice.engines import providers

    ran = providers.of(engine)
    if ran is not None and ran.passed_over:
        print(f"edgevoice: {stage} runs on {ran}; {'; '.join(ran.passed_over)}", file=sys.stderr)
