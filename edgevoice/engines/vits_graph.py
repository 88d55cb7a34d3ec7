"""A VITS graph on onnxruntime: whole, or cut in two so that sound comes while it is made.

Owns how a feed of symbols becomes sound. A VITS voice is an encoder, which places the sentence's
sound in time as a latent of one column a frame, and a HiFi-GAN decoder, which is convolutions
alone: a sample depends on the latent a few frames around it and on nothing else. So the decoder
runs on one stretch of frames after another, each with `overlap_frames` more on both sides whose
sound is thrown away, and gives what one run over all would give. Where a graph is cut and how many
frames that takes is measured by :mod:`edgevoice.export.families.piper_cut`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from edgevoice.engines import providers
from edgevoice.engines.ort import open_on, run_cancellable, session_options, sound
from edgevoice.engines.providers import ON_CPU, Files, Ran, Wanted
from edgevoice.errors import ArtifactError
from edgevoice.frames import Float32
from edgevoice.manifest import is_inside
from edgevoice.stages import Cancelled, never

STEP_MS = 1000
GROWTH = 1.5
"""Each stretch is at most this much longer than the one before, which plays while it is made.

So there is no gap as long as the decoder makes sound twice as fast as it plays.
"""


class VitsGraph(Protocol):
    """What turns the inputs of a voice's graph into sound.

    Attributes:
        provider: What it runs on.
    """

    provider: Ran

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs that a feed has to have."""
        ...

    def run(self, feed: Mapping[str, Any], cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield the sound of ``feed`` in parts; end early when cancelled."""
        ...


@dataclass(frozen=True, slots=True)
class Cut:
    """The two halves of a voice's graph and how the second is run; see :func:`read_cut`.

    Attributes:
        front: Graph from the voice's inputs to the latent, [1, channels, frames], and to what else
            the decoder takes (a speaker's embedding), in the order of the decoder's inputs.
        decoder: Graph from the latent to samples.
        overlap_frames: Frames on each side that the sound of a frame depends on.
        samples_per_frame: Samples that the decoder makes of one frame.
    """

    front: Path
    decoder: Path
    overlap_frames: int
    samples_per_frame: int


def read_cut(folder: Path, engine: Mapping[str, Any]) -> Cut | None:
    """Return the cut that a manifest's ``engine`` table describes, None where it has none.

    Raises:
        ArtifactError: The table is not usable.
    """
    if "decoder" not in engine:
        return None
    try:
        front, decoder = str(engine["front"]), str(engine["decoder"])
        overlap, hop = int(engine["decoder_overlap_frames"]), int(engine["samples_per_frame"])
        if not (is_inside(front) and is_inside(decoder)) or overlap < 0 or hop < 1:
            raise ValueError("a path or a number is out of range")
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{folder}: the manifest's engine table does not describe the voice's halves: "
            f"{error!r}; pull it again with --force"
        ) from error
    return Cut(folder / front, folder / decoder, overlap, hop)


def windows(frames: int, size: int, overlap: int) -> Iterator[tuple[int, int, int]]:
    """Yield (low, start, stop) of a decoder that takes ``size`` frames from ``low`` on, no others.

    >>> list(windows(150, 64, 10))
    [(0, 0, 54), (44, 54, 98), (86, 98, 150)]

    At both ends of the sound the window ends too, since there is nothing beyond to overlap with.
    """
    start = 0
    while start < frames:
        low = max(0, min(start - overlap, frames - size))
        stop = frames if low + size >= frames else low + size - overlap
        yield low, start, stop
        start = stop


def stretches(frames: int, first: int, step: int) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of the stretches that ``frames`` are decoded in.

    >>> list(stretches(260, 30, 86))
    [(0, 30), (30, 75), (75, 142), (142, 260)]

    The last takes what would be less than half a step more: a stretch costs its overlap.
    """
    start, length = 0, float(first)
    while start < frames:
        stop = start + max(1, int(length))
        if frames - stop < step // 2:
            stop = frames
        yield start, stop
        start, length = stop, min(length * GROWTH, step)


class WholeGraph:
    """A voice's graph in one piece: no sound before all of it is made."""

    def __init__(self, model: Path, threads: int, wanted: Wanted = ON_CPU) -> None:
        self._session, self.provider = open_on(model, threads, wanted)

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs that a feed has to have."""
        return frozenset(i.name for i in self._session.get_inputs())

    def run(self, feed: Mapping[str, Any], cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield all the sound at once."""
        outputs = run_cancellable(self._session, feed, cancelled)
        if outputs is not None:
            yield sound(outputs[0])


class CutGraph:
    """A voice's graph in two halves; the second is run stretch by stretch.

    Args:
        cut: The halves.
        threads: Threads of one run.
        rate_hz: Of the sound.
        wanted: Execution providers.
        first_ms: Sound of the first stretch.
        decoder: What the artifact has of the second half for each provider.

    Raises:
        ArtifactError: They cannot be loaded, or are no halves of one voice.
        EngineError: A provider is required and cannot run them.
    """

    def __init__(
        self,
        cut: Cut,
        threads: int,
        rate_hz: int,
        wanted: Wanted = ON_CPU,
        *,
        first_ms: float = 350.0,
        decoder: Files | None = None,
    ) -> None:
        self._cut = cut
        options = partial(session_options, threads)
        # Most of the work is in the second half: where it runs, the voice runs.
        self._decoder, self.provider = providers.open_session(
            decoder or Files(cut.decoder), options, wanted
        )
        compiled = self.provider.name == "qnn"
        # Its first half has sizes of its own for each sentence, which no NPU takes.
        self._front, _ = open_on(cut.front, threads, ON_CPU if compiled else wanted)
        self._frames = int(self._decoder.get_inputs()[0].shape[2]) if compiled else 0
        self._names = [i.name for i in self._decoder.get_inputs()]
        made = [o.name for o in self._front.get_outputs()]
        if made != self._names:
            raise ArtifactError(
                f"{cut.decoder} takes {', '.join(self._names)} and {cut.front.name} makes "
                f"{', '.join(made)}: not halves of one voice; pull it again with --force"
            )
        per_second = rate_hz / cut.samples_per_frame
        self._first = max(1, round(per_second * first_ms / 1000))
        self._step = max(1, round(per_second * STEP_MS / 1000))

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the inputs that a feed has to have."""
        return frozenset(i.name for i in self._front.get_inputs())

    def run(self, feed: Mapping[str, Any], cancelled: Cancelled = never) -> Iterator[Float32]:
        """Yield the sound of one stretch after another; a cancel also ends a run under way."""
        made = run_cancellable(self._front, feed, cancelled)
        if made is None:
            return
        latent, others = made[0], made[1:]
        hop = self._cut.samples_per_frame
        for low, start, stop, high in self._parts(latent.shape[2]):
            part = np.ascontiguousarray(latent[:, :, low:high])
            if part.shape[2] < self._frames:
                missing = self._frames - part.shape[2]
                part = np.pad(part, ((0, 0), (0, 0), (0, missing)), mode="edge")
            decoded = run_cancellable(
                self._decoder, dict(zip(self._names, [part, *others], strict=True)), cancelled
            )
            if decoded is None:
                return
            yield sound(decoded[0])[(start - low) * hop : (stop - low) * hop]

    def _parts(self, frames: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield what the decoder gets, low to high, and what of its sound is kept."""
        overlap = self._cut.overlap_frames
        if self._frames:
            for low, start, stop in windows(frames, self._frames, overlap):
                yield low, start, stop, low + self._frames
            return
        for start, stop in stretches(frames, self._first, self._step):
            yield max(0, start - overlap), start, stop, stop + overlap
