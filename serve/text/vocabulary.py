"""Text to token ids, with control tokens read as such or as plain text."""

from __future__ import annotations

import itertools
import json
import secrets
import threading
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Encoding, Tokenizer

from ..contract.errors import InvalidRequest
from .control_tokens import ControlTokens, Occurrence


@dataclass(frozen=True, slots=True, eq=False)
class _Twin:
    """The same tokenizer, in which control tokens go by secret names. So what a user writes is never one.

    `names` maps a control token to its secret name, `ids` the twin's ids of added tokens to the true ones. `cut` is a
    token that only parts the text around it. `unknown_id` stands for what the vocabulary cannot spell.
    """

    tokenizer: Tokenizer
    names: dict[str, str]
    ids: dict[int, int]
    cut: str
    cut_id: int
    unknown_id: int | None


class Vocabulary:
    """Encodes exactly as the tokenizer does, save that control tokens count only where they are meant.

    Where no control token is meant as text, the text goes through the tokenizer in one piece. Else it goes, in one
    piece too, through a twin of the tokenizer in which the control tokens have secret names, and those that are meant
    are written by these names. So white space and prefix spaces around them are as the tokenizer makes them.
    """

    def __init__(self, tokenizer: Tokenizer, tokenizer_json: str) -> None:
        self.tokenizer = tokenizer
        self.added: dict[int, AddedToken] = tokenizer.get_added_tokens_decoder()
        self.control = ControlTokens(self.added)
        self._control_by_id = {id_: token for token, id_ in self.control.ids.items()}
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
        return self._encode(text, []) if self._can_hide or self.control.has_any(text) else self.encode_all(text)

    def encode_marked(self, text: str, marked: list[int]) -> list[int]:
        """Ids of `text`, where only control tokens without a character at a `marked` position (ascending) count."""
        if not marked and not self._can_hide:
            return self.encode_all(text)
        return self._encode(text, list(self.control.find(text, marked)))

    def _encode(self, text: str, meant: list[Occurrence]) -> list[int]:
        """Ids of `text`, where only the control tokens that are `meant` count."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        places = {(start, end) for start, end, _ in meant}
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            if id_ in self._control_by_id and _bare(text, start, end) not in places:
                return self._encode_named(text, meant)
        ids: list[int] = encoding.ids
        return ids

    def _encode_named(self, text: str, meant: list[Occurrence]) -> list[int]:
        twin = self._twin()
        pieces, done = [], 0
        for start, end, token in meant:
            pieces += [text[done:start], twin.names[token]]
            done = end
        text = "".join([*pieces, text[done:]])
        while True:
            encoding = twin.tokenizer.encode(text, add_special_tokens=False)
            leaks = self._leaks(encoding, twin, text)
            if not leaks:
                return [twin.ids.get(id_, id_) for id_ in encoding.ids if id_ != twin.cut_id]
            # The vocabulary itself holds these tokens as ordinary text: part them, so that they are spelled out.
            middles = [0, *((start + end) // 2 for start, end in leaks), len(text)]
            text = twin.cut.join(text[start:end] for start, end in itertools.pairwise(middles))

    def _leaks(self, encoding: Encoding, twin: _Twin, text: str) -> list[tuple[int, int]]:
        """Where control tokens came out of ordinary text: start and end of each, in order."""
        leaks = []
        for id_, (start, end) in zip(encoding.ids, encoding.offsets, strict=True):
            token = self._control_by_id.get(id_)
            if token is None or id_ in twin.ids or id_ == twin.cut_id:
                continue
            if id_ == twin.unknown_id and text[start:end].strip() != token:
                continue
            if end - start < 2:
                raise InvalidRequest(f"The text holds {token!r}, which this model can read as a control token only.")
            leaks.append((start, end))
        return leaks

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
        renamed = {
            id_: _renamed(token, names[token.content]) if token.content in names else token
            for id_, token in self.added.items()
        }
        tokenizer.add_tokens([*renamed.values(), AddedToken(cut, normalized=False)])
        known = tokenizer.get_vocab()
        ids = {known[token.content]: id_ for id_, token in renamed.items()}
        return _Twin(tokenizer, names, ids, cut, known[cut], _unknown_id(tokenizer, config["model"]))


def _bare(text: str, start: int, end: int) -> tuple[int, int]:
    """Start and end of a token without the white space that it swallowed on either side."""
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())


def _renamed(token: AddedToken, name: str) -> AddedToken:
    """The token under another name, which is found wherever it is written."""
    return AddedToken(name, lstrip=token.lstrip, rstrip=token.rstrip, normalized=False, special=token.special)


def _unknown_id(tokenizer: Tokenizer, model: dict[str, Any]) -> int | None:
    name = model.get("unk_token")
    unknown: int | None = tokenizer.token_to_id(name) if name is not None else model.get("unk_id")
    return unknown
