"""Messages to tokens and tokens to text, from a `tokenizer.json` and a chat template.

Owns what all conversations on a model share: the vocabulary, the template, and which tokens end an
answer. The template is a program that came with the weights, so it runs in Jinja's sandbox.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edgevoice.errors import ArtifactError, EngineError, MissingDependencyError
from edgevoice.stages import Message

INSTALL = "pip install 'edgevoice[onnx-llm]'"
_UNDECODED = "\ufffd"


class ChatTokens:
    """One model's vocabulary and chat template; unchanging, shared by threads."""

    def __init__(
        self, tokenizer: Path, template: str, end_tokens: Iterable[int], words: dict[str, str]
    ) -> None:
        """Read the tokenizer and compile the template.

        Args:
            tokenizer: `tokenizer.json` of the Hugging Face tokenizers library.
            template: Jinja, as `tokenizer_config.json` carries it.
            end_tokens: Ids that end an answer.
            words: ``bos_token`` and ``eos_token`` for the template.

        Raises:
            ArtifactError: One of them cannot be read.
            MissingDependencyError: The packages are not installed.
        """
        try:
            import jinja2.sandbox
            import tokenizers
        except ImportError as error:
            raise MissingDependencyError(
                f"a language model in ONNX needs the package {error.name!r}: {INSTALL}"
            ) from error
        self._tokenizers: Any = tokenizers
        self._template_error: type[Exception] = jinja2.TemplateError
        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(tokenizer))
        except Exception as error:  # the library raises bare Exception
            raise ArtifactError(f"{tokenizer} cannot be read: {str(error)[:160]}") from error
        # What a training run left on would cut or fill a prompt.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self._ends = {*end_tokens, *(i for i, token in added.items() if token.special)}
        self._specials = sorted((t.content for t in added.values() if t.special), key=len)
        self._words = words
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = self._refuse
        try:
            self._template = environment.from_string(template)
        except jinja2.TemplateError as error:
            raise ArtifactError(f"the chat template cannot be read: {error}") from error

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Return the tokens of ``messages`` up to where the answer begins.

        Raises:
            EngineError: The template refuses these messages.
        """
        plain = [{"role": m.role, "content": self._harmless(m.content)} for m in messages]
        try:
            text = self._template.render(
                messages=plain, add_generation_prompt=True, tools=None, **self._words
            )
        except (self._template_error, TypeError, ValueError) as error:
            raise EngineError(
                f"the model's chat template refuses roles {[m.role for m in messages]}: {error}"
            ) from error
        return self.tokenise(text)

    def tokenise(self, text: str) -> list[int]:
        """Return the tokens of ``text``; texts of special tokens become those tokens."""
        # A lone surrogate (a broken transcript) has no UTF-8.
        clean = text.encode("utf-8", "replace").decode("utf-8")
        return list(self._tokenizer.encode(clean, add_special_tokens=False).ids)

    def ends_answer(self, token: int) -> bool:
        """Whether ``token`` ends the answer, or opens a turn that is not the assistant's."""
        return token in self._ends

    def stream(self) -> TextStream:
        """Return what turns the tokens of one answer into text."""
        decoder = self._tokenizers.decoders.DecodeStream(skip_special_tokens=True)
        return TextStream(self._tokenizer, decoder)

    def _harmless(self, content: str) -> str:
        """Take special tokens out of what was said, so that words cannot forge a turn."""
        cleaned = content
        while True:
            before = cleaned
            for text in reversed(self._specials):
                cleaned = cleaned.replace(text, " ")
            if cleaned == before:
                return cleaned

    def _refuse(self, reason: str) -> None:
        raise self._template_error(reason)


class TextStream:
    """The text of one answer, token by token; characters are never cut."""

    def __init__(self, tokenizer: Any, decoder: Any) -> None:
        self._tokenizer = tokenizer
        self._decoder = decoder

    def take(self, token: int) -> str:
        """Return the text that ``token`` completes, "" while a character is not whole.

        Bytes that are no UTF-8 can be neither shown nor spoken: they are left out.
        """
        text = self._decoder.step(self._tokenizer, token)
        return (text or "").replace(_UNDECODED, "")
