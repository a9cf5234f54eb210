"""A prepared model's vocabulary in the form in which grammars are compiled against it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llguidance import LLTokenizer


def grammar_tokenizer(folder: Path, vocab_size: int, eos_token_ids: tuple[int, ...]) -> LLTokenizer:
    """The tokenizer of the prepared base in `folder` as llguidance wants it: a trie of the bytes of all tokens.

    `vocab_size` is the width of the model's logits; ids that no token has are never allowed. Takes about 4 us a token
    and some 40 MB for 50 thousand tokens, and holds the interpreter's lock meanwhile. Raises ValueError for a tokenizer
    that llguidance cannot read.
    """
    from llguidance import LLTokenizer

    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    return LLTokenizer(text, n_vocab=vocab_size, eos_token=list(eos_token_ids) or None)
