"""GGUF weights in memory, with the vocabulary and the chat template that came with them.

Owns what all conversations share and never changes: the native model, text to tokens, tokens to
bytes, messages to prompt. What one conversation has read lives in :mod:`edgevoice.engines.gguf`.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from edgevoice.engines import gguf_file
from edgevoice.engines.llama_library import last_error, llama_cpp, prepare
from edgevoice.errors import ArtifactError, EngineError
from edgevoice.stages import Message


class GgufWeights:
    """One loaded GGUF file.

    Native memory is freed by :meth:`release`, once every :meth:`retain` has had its own: a
    conversation may outlive the owner's ``close()`` by the token that it is computing.
    """

    def __init__(self, path: Path, chat_template: str | None = None) -> None:
        """Map the file into memory.

        Args:
            path: The GGUF file.
            chat_template: Jinja template to use in place of the file's own.

        Raises:
            ArtifactError: The file is not sound, or has no chat template.
        """
        gguf_file.read_header(path)
        from llama_cpp.llama_chat_format import Jinja2ChatFormatter

        prepare()
        parameters = llama_cpp.llama_model_default_params()
        parameters.load_mode = llama_cpp.LLAMA_LOAD_MODE_MMAP
        self.native: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        if not self.native:
            raise ArtifactError(f"{path}: llama.cpp cannot load it: {last_error()}")
        self._lock = threading.Lock()
        self._holders = 1
        self._vocabulary = llama_cpp.llama_model_get_vocab(self.native)
        self.vocabulary_size = int(llama_cpp.llama_vocab_n_tokens(self._vocabulary))
        self.trained_context_tokens = int(llama_cpp.llama_model_n_ctx_train(self.native))
        template = chat_template or self._template_of_file()
        if not template:
            self.release()
            raise ArtifactError(
                f"{path} has no chat template, so it is not a model that answers; "
                "take its -instruct or -chat variant"
            )
        self._bos_text = self._text(llama_cpp.llama_vocab_bos(self._vocabulary))
        eos_text = self._text(llama_cpp.llama_vocab_eos(self._vocabulary))
        try:
            self._format = Jinja2ChatFormatter(
                template=template, eos_token=eos_text, bos_token=self._bos_text
            )
        except jinja2.TemplateError as error:
            self.release()
            raise ArtifactError(f"{path}: its chat template cannot be read: {error}") from error

    def retain(self) -> None:
        """Keep the weights alive for one more holder.

        Raises:
            EngineError: They are freed already.
        """
        with self._lock:
            if self._holders == 0:
                raise EngineError("the language model is closed; load it again")
            self._holders += 1

    def release(self) -> None:
        """Give up one hold; the last one frees the weights."""
        with self._lock:
            self._holders -= 1
            if self._holders == 0:
                llama_cpp.llama_model_free(self.native)
                self.native = None

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of ``messages`` in the chat template, up to where the answer begins.

        Raises:
            EngineError: The template refuses these messages.
        """
        plain: Any = [{"role": m.role, "content": self._harmless(m.content)} for m in messages]
        try:
            text = self._format(messages=plain).prompt
        except (jinja2.TemplateError, ValueError) as error:
            raise EngineError(
                f"the model's chat template refuses roles {[m.role for m in messages]}: {error}"
            ) from error
        # Most templates write the BOS token themselves, where the tokenizer would add a second.
        starts = bool(self._bos_text) and text.startswith(self._bos_text)
        return self.tokenise(text, add_special=not starts)

    def tokenise(self, text: str, *, add_special: bool = False) -> list[int]:
        """Return the tokens of ``text``; texts of special tokens become those tokens."""
        data = text.encode("utf-8", "replace")
        room = len(data) + 8
        while True:
            tokens = (llama_cpp.llama_token * room)()
            count = llama_cpp.llama_tokenize(
                self._vocabulary, data, len(data), tokens, room, add_special, True
            )
            if count >= 0:
                return list(tokens[:count])
            room = -count

    def piece(self, token: int) -> bytes:
        """Return the bytes of one token, which may be part of a character."""
        room = 64
        while True:
            buffer = ctypes.create_string_buffer(room)
            count = llama_cpp.llama_token_to_piece(self._vocabulary, token, buffer, room, 0, False)
            if count >= 0:
                return buffer.raw[:count]
            room = -count

    def ends_answer(self, token: int) -> bool:
        """Whether ``token`` ends the answer, or opens a turn that is not the assistant's."""
        return bool(
            llama_cpp.llama_vocab_is_eog(self._vocabulary, token)
            or llama_cpp.llama_vocab_is_control(self._vocabulary, token)
        )

    def _harmless(self, content: str) -> str:
        """Take special tokens out of what was said, so that words cannot forge a turn."""
        while True:
            found = {t for t in self.tokenise(content) if self.ends_answer(t)}
            cleaned = content
            for token in found:
                cleaned = cleaned.replace(self._text(token), " ")
            if cleaned == content:
                return content
            content = cleaned

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        text = llama_cpp.llama_vocab_get_text(self._vocabulary, token)
        return (text or b"").decode("utf-8", "replace")

    def _template_of_file(self) -> str:
        text = llama_cpp.llama_model_chat_template(self.native, None)
        return (text or b"").decode("utf-8", "replace")
