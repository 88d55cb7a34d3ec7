"""Whisper's decoder, greedy, on keys and values that come from anywhere: the CPU, an NPU.

sherpa-onnx runs encoder and decoder of an artifact itself, so it can be given neither an encoder's
outputs nor a draft. The graph and its inputs are those of sherpa-onnx's Whisper layout, the search
is its own too: the most likely token each time, from ``sot_sequence`` and ``no_timestamps`` on.

A draft is read in one step, which takes little longer than one token does (4 and 3 ms of tiny.en),
and what the decoder would have chosen behind each of its tokens says how much of it stands. This is
speculative decoding (arXiv:2211.17192) with an earlier text of the same utterance for the draft
model.

Over the agent's voice mostly short words are said, of which Whisper makes sentences ("Yack", "Hey,
John"). There it is told that such words came before, as its prompt (Radford et al. 2022, section
2.3: the text before the segment), and it writes more of the same.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevoice import manifest as manifests
from edgevoice.engines import byte_pairs
from edgevoice.engines.artifact_files import onnx_file, plain_file
from edgevoice.engines.ort import open_session
from edgevoice.engines.utterance_decoder import Written
from edgevoice.errors import ArtifactError
from edgevoice.stages import Expected

_MOST_TOKENS = 224
"""Half of Whisper's context, which is as much as it was trained to write."""

_TOKENS_PER_S = 6.0
_TOKENS_AT_LEAST = 12

_INTERJECTIONS = {
    "en": " Oh. Hmm. Mm-hmm. Uh-huh. Yeah, yeah. Right. Really? Wow. Exactly. Okay. Got it. I see."
    " Sure."
}
"""What is said over the agent's voice, by language.

Of 150 nods of ten of Kokoro's voices 15 stop the agent with it, on a virtual clock, and 25 without;
100 wishes stop it either way, and the benchmark's 25 interruptions after 460 ms, not 550 (p50). For
whole turns nothing was found that helps: with three questions for a prompt 180 requests of flite's
had 6.4 % of their words wrong, not 8.6, but 60 clips of hard readers 17.8, not 16.4.
"""

_UNITS = re.compile(r" ?[^\W\d_]+| ?[^\w\s]+|\s+")

_IN_SIGHT = 8
"""Tokens of a draft in which the way back into it is looked for, where something else was written
than it says: an "And" more at the beginning, "cold-hearted" for "coldhearted"."""


def most_tokens(seconds: float) -> int:
    """Return how many tokens ``seconds`` of speech have at most; what repeats itself has more."""
    return min(_MOST_TOKENS, _TOKENS_AT_LEAST + int(_TOKENS_PER_S * seconds))


class GreedyWhisper:
    """The decoder of a Whisper artifact; ``width`` is of its states.

    Args:
        folder: The artifact.
        threads: Of one step.
        facts: The encoder's metadata; read from the encoder where None.

    Raises:
        ArtifactError: A file is missing or not ONNX, or the metadata are not Whisper's.
    """

    def __init__(self, folder: Path, threads: int, facts: Mapping[str, str] | None = None) -> None:
        described = manifests.read(folder)
        self._name = described.name
        if facts is None:
            encoder = open_session(Path(onnx_file(folder, described, "encoder")), threads)
            facts = encoder.get_modelmeta().custom_metadata_map
        try:
            self._first = [*map(int, facts["sot_sequence"].split(",")), int(facts["no_timestamps"])]
            self._end = int(facts["eot"])
            sizes = [int(facts[key]) for key in ("n_text_layer", "n_text_ctx", "n_text_state")]
        except (KeyError, ValueError) as error:
            raise ArtifactError(
                f"artifact {described.name!r}: its encoder has no Whisper's metadata ({error!r}); "
                "pull or export it again"
            ) from error
        layers, context, state = sizes
        self._empty = np.zeros((layers, 1, context, state), np.float32)
        self.width = state
        self._session = open_session(Path(onnx_file(folder, described, "decoder")), threads)
        self._names = [i.name for i in self._session.get_inputs()]
        self._caches = [o.name for o in self._session.get_outputs()[1:]]
        # Older artifacts have logits of the last token alone, which say nothing of a draft.
        self._takes_drafts = self._session.get_outputs()[0].shape[1] != 1
        self._pieces = _pieces(Path(plain_file(folder, described, "tokens.txt")))
        said = _INTERJECTIONS.get(str(described.engine.get("language", "")))
        self._prompts: dict[Expected, list[int]] = {}
        if said is not None:
            # The last special tokens are always <|startofprev|>, <|nospeech|>, <|notimestamps|>.
            previous = int(facts["no_timestamps"]) - 2
            self._prompts["interjection"] = [previous, *_tokenised(said, self._pieces)]

    def write(
        self,
        cross_k: Any,
        cross_v: Any,
        most: int = _MOST_TOKENS,
        draft: Sequence[int] = (),
        expected: Expected = "turn",
    ) -> Written:
        """Return what the encoder's outputs say.

        Args:
            cross_k: float32, ``[layers, heads, length, head size]``.
            cross_v: The same shape.
            most: Tokens that are written at most.
            draft: Tokens that are likely written.
            expected: What is likely said.
        """
        known, offset = list(self._first), 0
        caches: list[Any] = [self._empty, self._empty]
        prompt = self._prompts.get(expected)
        if prompt is not None:
            # The logits are not asked for: they would take as long as the rest.
            fed = self._fed(prompt, caches, cross_k, cross_v, 0)
            caches, offset = self._session.run(self._caches, fed), len(prompt)
        found: list[int] = []
        ahead = list(draft[:most]) if self._takes_drafts else []
        guessed = ahead
        while len(found) < most:
            fed = self._fed([*known, *guessed], caches, cross_k, cross_v, offset)
            logits, *caches = self._session.run(None, fed)
            # What follows the last known token, and each guessed one behind it.
            chosen = logits[0, -1 - len(guessed) :].argmax(axis=-1).tolist()
            right = _agreeing(guessed, chosen)
            found += chosen[:right]
            # What the caches hold beyond the offset does not count.
            offset += len(known) + right
            best = chosen[right]
            if best == self._end:
                break
            found.append(best)
            known = [best]
            ahead = ahead[right:]
            guessed = _behind(best, ahead)
            ahead = guessed or ahead
        found = found[:most]
        said = b"".join(self._pieces.get(token, b"") for token in found)
        return Written(said.decode("utf-8", "replace").strip(), tuple(found))

    def log_probability(self, cross_k: Any, cross_v: Any, tokens: Sequence[int]) -> float:
        """Return the mean log probability of ``tokens`` and the end behind them, in nats a token.

        They are read once more, in one step; Radford et al. 2022, section 4.5, has the measure.

        Args:
            cross_k: float32, ``[layers, heads, length, head size]``.
            cross_v: The same shape.
            tokens: What :meth:`write` returned for these.

        Raises:
            ArtifactError: The artifact is an older one, which scores the last token alone.
        """
        if not self._takes_drafts:
            raise ArtifactError(
                f"artifact {self._name!r} cannot say how sure it is of its words; pull or export "
                "it again"
            )
        read = [*self._first, *tokens]
        fed = self._fed(read, [self._empty, self._empty], cross_k, cross_v, 0)
        logits = self._session.run(None, fed)[0]
        wanted = [*tokens, self._end]
        # What follows the last of the prompt, and each token.
        scores = logits[0, -len(wanted) :].astype(np.float64)
        highest = scores.max(axis=-1, keepdims=True)
        totals = highest[:, 0] + np.log(np.exp(scores - highest).sum(axis=-1))
        return float(np.mean(scores[np.arange(len(wanted)), wanted] - totals))

    def _fed(
        self, tokens: Sequence[int], caches: Sequence[Any], cross_k: Any, cross_v: Any, offset: int
    ) -> dict[str, Any]:
        """Return the inputs of one step: ``tokens`` are read behind ``offset`` others."""
        given = (np.array([tokens]), *caches, cross_k, cross_v, np.array([offset]))
        return dict(zip(self._names, given, strict=True))


def _agreeing(guessed: Sequence[int], chosen: Sequence[int]) -> int:
    """Return how many of the ``guessed`` tokens, from the first on, were ``chosen`` too."""
    pairs = enumerate(zip(guessed, chosen, strict=False))
    return next((i for i, (guess, choice) in pairs if guess != choice), len(guessed))


def _behind(token: int, ahead: list[int]) -> list[int]:
    """Return what of the draft ``ahead`` follows ``token``; nothing where it is not in sight."""
    near = ahead[:_IN_SIGHT]
    return ahead[near.index(token) + 1 :] if token in near else []


def _pieces(path: Path) -> dict[int, bytes]:
    found = {}
    for line in path.read_text(encoding="ascii").splitlines():
        piece, _, token = line.rpartition(" ")
        found[int(token)] = base64.b64decode(piece)
    return found


def _tokenised(text: str, pieces: Mapping[int, bytes]) -> list[int]:
    """Return the tokens of ``text``.

    GPT-2's vocabulary is numbered in the order in which its pieces were learned. Words are taken
    apart at spaces and marks, which is its rule for text without digits or contractions.
    """
    ranks = {piece: token for token, piece in pieces.items()}
    units = _UNITS.findall(text)
    return [
        token
        for unit in units
        for token in byte_pairs.join([bytes([byte]) for byte in unit.encode()], ranks)
    ]
