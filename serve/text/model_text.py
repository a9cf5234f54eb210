"""All that turns messages into tokens and tokens into text, for one base model."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken

from ..contract.errors import InvalidRequest
from .chat import Continuation, Marker, clean_messages, flatten_parts, strings
from .control_tokens import choose_marks, take_out
from .decoder import TokenDecoder
from .detokenizer import Detokenizer
from .files import TextFiles, read_text_files
from .rendered import Rendered, encode_behind
from .template import ChatTemplate
from .vocabulary import Vocabulary

Message = Mapping[str, Any]


class ModelText:
    """Tokenizer, chat template and detokenizer of one model. Safe to use from several threads.

    `vocab_size` counts the rows of the model's output. `eos_token_ids` end an answer. `special_token_ids` make no text
    unless asked for; `special_tokens` has them by name. `grammar_tokens`, by name too, are the tokens that no text in a
    grammar stands for, only their ids. `template_source` is the chat template for requests with tools, `template_hash`
    the SHA-256 of the chat template; both are "" where there is none.
    """

    def __init__(self, files: TextFiles) -> None:
        self._vocabulary = Vocabulary(files.tokenizer, files.tokenizer_json)
        self._decoder = TokenDecoder(files.decoder)
        self._inner_bytes: dict[int, bytes] = {}
        self._templates = {name: ChatTemplate(text, files.named_tokens) for name, text in files.templates.items()}
        self._builds_tokens = any(template.builds(self._vocabulary.control) for template in self._templates.values())
        self.vocab_size = files.vocab_size
        self.eos_token_ids = files.eos_token_ids
        self.special_token_ids = frozenset(id_ for id_, token in self._vocabulary.added.items() if token.special)
        self.special_tokens = {self._vocabulary.added[id_].content: id_ for id_ in sorted(self.special_token_ids)}
        self.grammar_tokens = {
            token.content: id_ for id_, token in sorted(self._vocabulary.added.items()) if _is_apart(token)
        }
        self.template_source = files.templates.get("tool_use") or files.templates.get("default", "")
        self.template_hash = _template_hash(files.templates)
        self.bos_token_id: int | None = files.tokenizer.token_to_id(files.named_tokens.get("bos_token", ""))
        self._prefix = _prefix(files, self.bos_token_id)

    @staticmethod
    def load(entry: Path) -> ModelText:
        """The text side of the model in folder `entry`. Raises ModelError for files that cannot be used."""
        return ModelText(read_text_files(entry))

    @property
    def has_chat_template(self) -> bool:
        return bool(self._templates)

    def encode(self, text: str, *, parse_special: bool = False, add_bos: bool = False) -> list[int]:
        """Token ids of `text`. Control tokens in it are plain text unless `parse_special`.

        `add_bos` puts in front what this tokenizer puts in front of plain text: for many models, nothing.
        """
        ids = self._vocabulary.encode_all(text) if parse_special else self._vocabulary.encode_plain(text)
        return [*self._prefix, *ids] if add_bos and tuple(ids[: len(self._prefix)]) != self._prefix else ids

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> str:
        """The prompt as text, for people to read: what users wrote looks here like what the template wrote.

        Raises InvalidRequest where the template does not take the messages, tools or `template_kwargs`.
        """
        return self._render(messages, tools, add_generation_prompt, continue_final_message, template_kwargs or {}).text

    def encode_chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[int]:
        """The prompt as token ids. Control tokens count where the template wrote them; elsewhere they are text.

        Raises InvalidRequest as `render` does.
        """
        return self.encode_rendered(
            self._render(messages, tools, add_generation_prompt, continue_final_message, template_kwargs or {})
        )

    def rendered(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> Rendered:
        """The prompt as text that still knows which control tokens in it count. Raises InvalidRequest as `render`."""
        return self._render(messages, tools, add_generation_prompt, False, template_kwargs or {})

    def encode_rendered(self, rendered: Rendered) -> list[int]:
        """Token ids of a whole prompt, as `encode_chat` gives them."""
        return self._vocabulary.encode_marked(rendered.text, list(rendered.marked))

    def encode_answer(self, rendered: Rendered) -> list[int] | None:
        """Token ids of what follows a prompt, such as an answer; none of them is shared with the prompt's end.

        None where this tokenizer cannot spell it as anything but the beginning of a text.
        """
        return encode_behind(self._vocabulary, rendered, self._spells)

    def answer(self, text: str) -> Rendered:
        """What a model writes: control tokens count in the `Own` parts of a `Markup`, and those that make text."""
        (mark,) = choose_marks([text], 1)
        marker = Marker(self._vocabulary.control, mark, middles=False)
        return Rendered(*take_out(marker.value(text, spare=self._vocabulary.control.visible), mark))

    def _spells(self, tokens: Sequence[int], text: str) -> bool:
        return self.decode(tokens, skip_special=False, continues=True) == text

    def decode(self, tokens: Iterable[int], *, skip_special: bool = True, continues: bool = False) -> str:
        """The text of `tokens`; ids that the tokenizer does not know make none. See `detokenizer`."""
        detokenizer = self.detokenizer(skip_special=skip_special, continues=continues)
        return detokenizer.push(tokens) + detokenizer.finish()

    def detokenizer(
        self, *, skip_special: bool = True, continues: bool = False, visible: Collection[int] = ()
    ) -> Detokenizer:
        """Decodes as tokens come. `continues` says that the text goes on from a prompt, so that a space which the
        tokenizer drops at the beginning of a text is kept. Special tokens in `visible` make text in any case."""
        hidden = self.special_token_ids.difference(visible) if skip_special else frozenset()
        strip = "" if continues else self._decoder.strip
        return Detokenizer(self._bytes, hidden=hidden, strip=strip, first=not continues)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token inside a text; part of a character where the token is. b"" for an unknown id."""
        return self._bytes(token, False)

    def token_text(self, token: int) -> str:
        """The text of one token inside a text, U+FFFD for parts of characters."""
        return self.token_bytes(token).decode("utf-8", "replace")

    def _bytes(self, token: int, first: bool) -> bytes:
        data = None if first else self._inner_bytes.get(token)
        if data is None:
            name = self._vocabulary.tokenizer.id_to_token(token) if 0 <= token < 1 << 32 else None
            data = b"" if name is None else self._decoder.to_bytes(name, first=first)
            if not first:
                self._inner_bytes[token] = data
        return data

    def _render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, Any]] | None,
        add_generation_prompt: bool,
        continue_final_message: bool,
        template_kwargs: Mapping[str, Any],
    ) -> Rendered:
        if continue_final_message and add_generation_prompt:
            raise InvalidRequest(
                "continue_final_message and add_generation_prompt cannot go together.", param="continue_final_message"
            )
        template = self._template(bool(tools))
        chat = clean_messages(messages)
        if not template.accepts_parts:
            chat = [flatten_parts(message) for message in chat]
        mark, tag = choose_marks([*strings(chat), *strings(tools or ())], 2)
        marker = Marker(self._vocabulary.control, mark, middles=self._builds_tokens)
        chat = [marker.message(message) for message in chat]
        continuation = Continuation(chat, tag) if continue_final_message else None
        rendered = template.render(
            continuation.messages if continuation else chat,
            tools=marker.value(tools) if tools else None,
            add_generation_prompt=add_generation_prompt,
            template_kwargs=template_kwargs,
        )
        return Rendered(*take_out(continuation.cut(rendered) if continuation else rendered, mark))

    def _template(self, with_tools: bool) -> ChatTemplate:
        template = self._templates.get("tool_use") if with_tools else None
        template = template or self._templates.get("default")
        if template is None:
            raise InvalidRequest(
                "This model has no chat template; use /v1/completions instead.",
                param="messages",
                code="no_chat_template",
            )
        return template


def _is_apart(token: AddedToken) -> bool:
    """Whether llguidance reads the token as special: those that are, and every added one that is written <so>."""
    return bool(token.special) or (token.content.startswith("<") and token.content.endswith(">"))


def _template_hash(templates: Mapping[str, str]) -> str:
    text = templates.get("default", "") if len(templates) < 2 else "\0".join(f"{k}\0{v}" for k, v in templates.items())
    return hashlib.sha256(text.encode()).hexdigest() if text else ""


def _prefix(files: TextFiles, bos_token_id: int | None) -> tuple[int, ...]:
    """The ids that the tokenizer puts in front of plain text."""
    if files.adds_bos is not None:
        return (bos_token_id,) if files.adds_bos and bos_token_id is not None else ()
    bare = files.tokenizer.encode("a", add_special_tokens=False).ids
    full = files.tokenizer.encode("a", add_special_tokens=True).ids
    return tuple(full[: full.index(bare[0])]) if bare and bare[0] in full else ()
