"""Make a streaming recogniser of a Whisper and speech: `edgevoice export distil`.

Owns the arguments; the steps are :mod:`edgevoice.export.distil.distilling`'s, and what comes out is
exported as any streaming pack is.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edgevoice.errors import EXIT_OK
from edgevoice.progress import meter_for_stderr, say

if TYPE_CHECKING:
    from edgevoice.export.distil.distilling import Request

HELP = "make a streaming recogniser of a Whisper and speech"
_DESCRIPTION = (
    "Train a Whisper's encoder to stream, then export it. Interrupted, the same command goes on. "
    "It takes hours; torch is installed into an environment of its own."
)

Export = Callable[[argparse.Namespace], int]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is trained on what; what the export of the pack takes is declared elsewhere."""
    parser.description = _DESCRIPTION
    parser.add_argument(
        "--speech",
        type=Path,
        action="append",
        required=True,
        metavar="DIR",
        help="recordings (wav, flac, ogg, mp3) with transcripts.tsv or *.trans.txt, or "
        "shards of the generator; several are all used",
    )
    parser.add_argument(
        "--work", type=Path, required=True, metavar="DIR", help="the training's folder, kept"
    )
    parser.add_argument(
        "--judge",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="recordings with their words that are never trained on",
    )
    parser.add_argument(
        "--label-with",
        action="append",
        default=[],
        metavar="ARTIFACT",
        help="installed recogniser: writes down recordings without words, drops wrong transcripts; "
        "what it is unsure of is left out, and given twice, what the second hears otherwise",
    )
    parser.add_argument(
        "--label-differing",
        type=float,
        metavar="SHARE",
        help="of a recording's words, which two recognisers may hear otherwise (default: 0.25)",
    )
    parser.add_argument(
        "--label-log-probability",
        type=float,
        metavar="NATS",
        help="of a token, on average, that the first recogniser has to reach, if it tells "
        "(default: -0.4)",
    )
    parser.add_argument(
        "--graph-text",
        action="append",
        default=[],
        metavar="FILE[=WEIGHT]",
        help="text to learn words from, which it then decodes; 'requests' for edgevoice's own",
    )
    parser.add_argument(
        "--graph-words",
        type=Path,
        metavar="FILE",
        help="list of words to know beside those of the texts",
    )
    parser.add_argument("--chunk-ms", type=float, default=640.0, help="default: 640")
    parser.add_argument("--left-ms", type=float, default=3840.0, help="context; default: 3840")
    parser.add_argument(
        "--tokens",
        default="characters",
        metavar="KIND",
        help="what it writes: characters (default), or bpe:N for N pieces of words, as bpe:500",
    )
    parser.add_argument(
        "--letters", default="", help="what it is to write (default: what the transcripts have)"
    )
    parser.add_argument("--new-layers", type=int, default=1, choices=(1, 2))
    parser.add_argument(
        "--frozen-steps", type=int, default=1200, metavar="N", help="of the new layers alone"
    )
    parser.add_argument("--steps", type=int, default=12_000, metavar="N", help="of all layers")
    parser.add_argument("--batch-frames", type=int, default=7500, help="10 ms each; default: 7500")
    parser.add_argument(
        "--checkpoint-minutes", type=float, default=5.0, metavar="M", help="default: 5"
    )
    parser.add_argument("--torch-device", default="", help="default: cuda where there is one")
    parser.add_argument("--python", default="", metavar="PROGRAM", help="interpreter with torch")
    parser.add_argument(
        "--plan", action="store_true", help="say what would be trained on what, and no more"
    )


def run(parsed: argparse.Namespace, request: Request, export: Export) -> int:
    """Train, then ``export`` the pack."""
    from edgevoice.export.distil import distilling, planning

    if parsed.plan:
        print("\n".join(planning.lines(request)))
        return EXIT_OK
    pack = distilling.Distiller(meter_for_stderr(), say).run(request)
    parsed.source, parsed.family = str(pack), distilling.FAMILY
    parsed.name = parsed.name or f"{request.whisper.name}-streaming"
    return export(parsed)


def request_of(parsed: argparse.Namespace, whisper: Path, threads: int) -> Request:
    """Return what the arguments ask for.

    Raises:
        ArtifactError: The recogniser to label with is not installed.
        ConfigError: A text is not there, its weight is none, or there are no such tokens; or there
            are more recognisers to label with than two, or what is to be believed of them is
            impossible.
    """
    from edgevoice.export.distil import labels, lexicon_making, pieces
    from edgevoice.export.distil.distilling import Request
    from edgevoice.store import Store

    return Request(
        whisper=whisper,
        speech=tuple(parsed.speech),
        work=parsed.work,
        judge=tuple(parsed.judge),
        label_with=tuple(Store.default().path(name) for name in parsed.label_with),
        believed=labels.bounds(parsed.label_differing, parsed.label_log_probability),
        chunk_ms=parsed.chunk_ms,
        left_ms=parsed.left_ms,
        letters=parsed.letters,
        pieces=pieces.parse(parsed.tokens),
        new_layers=parsed.new_layers,
        frozen_steps=parsed.frozen_steps,
        steps=parsed.steps,
        batch_frames=parsed.batch_frames,
        checkpoint_s=60.0 * parsed.checkpoint_minutes,
        device=parsed.torch_device,
        python=parsed.python,
        threads=threads,
        seed=parsed.seed,
        allow_pickle=parsed.allow_pickle,
        graph_texts=tuple(lexicon_making.parse(text) for text in parsed.graph_text),
        graph_words=parsed.graph_words,
    )
