"""Text to token ids, with control tokens read as such or as plain text."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from tokenizers import AddedToken, Encoding, Tokenizer

from ..contract.errors import InvalidRequest
from .control_tokens import ControlTokens, Occurrence


@dataclass(frozen=True, slots=True, eq=False)
class _Twin:
    """The same tokenizer, in which control tokens go by secret names. So what a user writes is never one.

    `names` maps a control token to its secret name, `ids` the twin's ids of added tokens to the true ones. `cut` is a
    name that only parts the text around it.
    """

    tokenizer: Tokenizer
    names: dict[str, str]
    ids: dict[int, int]
    cut: str


class Vocabulary:
    """Encodes exactly as the tokenizer does, save that control tokens count only where they are meant.

    Where no control token is meant as text, the text goes through the tokenizer in one piece. Else it goes, in one
    piece too, through a twin of the tokenizer in which the control tokens have secret names, and those that are meant
    are written by these names. So white space, prefix spaces and merges around them are what they are for the tokenizer.
    """

    def __init__(self, tokenizer: Tokenizer, tokenizer_json: str) -> None:
        self.tokenizer = tokenizer
        self.added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self.control = ControlTokens(self.added)
        # A normalizer can turn other text into such a token, which a search in the text does not see.
        self._can_hide = tokenizer.normalizer is not None and any(token.normalized for token in self.added.values())
        self._json = tokenizer_json
        self._twin_or_none: _Twin | None = None
        self._lock = threading.Lock()

    def encode_all(self, text: str) -> list[int]:
        """Ids of `text`, every control token in it read as such."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text`, none of them a control token."""
        if not self._can_hide and next(self.control.find(text), None) is None:
            return self.encode_all(text)
        return self._encode_named(text, ())

    def encode_marked(self, text: str, marked: list[int]) -> list[int]:
        """Ids of `text`, where only control tokens without a character at a `marked` position (ascending) count."""
        if not marked and not self._can_hide:
            return self.encode_all(text)
        meant = list(self.control.find(text, marked))
        if not self._can_hide and meant == list(self.control.find(text)):
            return self.encode_all(text)
        return self._encode_named(text, meant)

    def _encode_named(self, text: str, meant: Iterable[Occurrence]) -> list[int]:
        twin = self._twin()
        pieces, done = [], 0
        for start, end, token in meant:
            pieces += [text[done:start], twin.names[token]]
            done = end
        text = "".join([*pieces, text[done:]])
        control = frozenset(self.control.ids.values())
        while True:
            encoding = twin.tokenizer.encode(text, add_special_tokens=False)
            leak = _first_leak(encoding, twin, control)
            if leak is None:
                return [twin.ids.get(id_, id_) for id_ in encoding.ids if twin.ids.get(id_) != -1]
            # The vocabulary itself holds this token as ordinary text: part it, so that it is spelled out.
            start, end = leak
            if end - start < 2:
                raise InvalidRequest(
                    "The text holds a control token of one character that cannot be written otherwise."
                )
            middle = (start + end) // 2
            text = text[:middle] + twin.cut + text[middle:]

    def _twin(self) -> _Twin:
        with self._lock:
            if self._twin_or_none is None:
                self._twin_or_none = self._make_twin()
            return self._twin_or_none

    def _make_twin(self) -> _Twin:
        config = json.loads(self._json)
        config.update(added_tokens=[], post_processor=None, truncation=None, padding=None)
        tokenizer = Tokenizer.from_str(json.dumps(config))
        secret = secrets.token_hex(8)
        names = {token: f"\ufdd0{secret}.{id_}\ufdd1" for token, id_ in self.control.ids.items()}
        cut = f"\ufdd0{secret}.\ufdd1"
        tokenizer.add_tokens(
            [_renamed(token, names.get(token.content, token.content)) for token in self.added.values()]
        )
        tokenizer.add_tokens([AddedToken(cut, normalized=False)])
        ids = {tokenizer.token_to_id(names.get(token.content, token.content)): id_ for id_, token in self.added.items()}
        ids[tokenizer.token_to_id(cut)] = -1
        return _Twin(tokenizer, names, ids, cut)


def _renamed(token: AddedToken, name: str) -> AddedToken:
    return AddedToken(
        name,
        single_word=token.single_word,
        lstrip=token.lstrip,
        rstrip=token.rstrip,
        normalized=token.normalized,
        special=token.special,
    )


def _first_leak(encoding: Encoding, twin: _Twin, control: frozenset[int]) -> tuple[int, int] | None:
    """Characters of the first control token that came out of ordinary text."""
    for id_, offsets in zip(encoding.ids, encoding.offsets, strict=True):
        if id_ in control and id_ not in twin.ids:
            return offsets
    return None
