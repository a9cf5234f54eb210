"""Tokenizers out of sentencepiece models give sentencepiece's own ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import regex
import sentencepiece
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from tunechat.serve.base.sentencepiece_bpe import sentencepiece_tokenizer
from tunechat.serve.contract.errors import ModelError

from .internlm_models import TEXTS, write_sentencepiece

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prefix": {"dummy_prefix": True},
    "tidy": {"dummy_prefix": True, "tidy": True},
}
HARD = [
    *TEXTS,
    "",
    " ",
    "  two   blanks  ",
    "tabs\t\tand\n\nlines\r\n",
    "emoji 🎉👩‍👩‍👧 and 한국어",
    "\x85",
    "\x85a\u2028",
    "1234567890 3.14e-5",
    "▁ is a letter, too",
    "ﬁne ½ Ⅷ é",
]


@dataclass(frozen=True, slots=True, repr=False)
class Pair:
    """The one under test and sentencepiece's own. Its repr is short: hypothesis prints it."""

    ours: Tokenizer
    theirs: Any


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    """Ours and sentencepiece's own, of each kind."""
    made = {}
    for kind, options in KINDS.items():
        path = tmp_path_factory.mktemp("spm") / "tokenizer.model"
        write_sentencepiece(path, **options)
        theirs = sentencepiece.SentencePieceProcessor(model_file=str(path))
        made[kind] = Pair(sentencepiece_tokenizer(path, {}), theirs)
    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("text", HARD)
def test_ids_and_text(pairs: dict[str, Pair], kind: str, text: str) -> None:
    ours, theirs = pairs[kind].ours, pairs[kind].theirs
    ids = ours.encode(text).ids
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.parametrize("kind", KINDS)
@given(text=st.text(st.sampled_from("abeth qu.,1 \n\t好é▁<>|s/"), max_size=40) | st.text(max_size=30))
@settings(max_examples=100)
def test_ids_of_any_text(pairs: dict[str, Pair], kind: str, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    # Control tokens are read as such: that is what added tokens are. NUL ends a text in sentencepiece's normalizer.
    assume(not any(token in text for token in ("<s>", "</s>", "\0")))
    # Where characters are mapped, tokenizers maps a letter and the marks behind it as one.
    assume(kind != "tidy" or len(regex.findall(r"\X", text)) == len(text))
    ours, theirs = pairs[kind].ours, pairs[kind].theirs
    assert ours.encode(text).ids == theirs.encode(text)


def test_added_tokens_have_their_ids(tmp_path: Path) -> None:
    count = write_sentencepiece(tmp_path / "tokenizer.model")
    added = {
        count - 1: AddedToken("<|im_start|>", normalized=False, special=True),
        count + 3: AddedToken("<|beyond|>", normalized=False, special=True),
    }
    tokenizer = sentencepiece_tokenizer(tmp_path / "tokenizer.model", added)
    plain = sentencepiece_tokenizer(tmp_path / "tokenizer.model", {})
    ids = tokenizer.encode("The fox<|im_start|>The fox<|beyond|>").ids
    assert ids == [*plain.encode("The fox").ids, count - 1, *plain.encode("The fox").ids, count + 3]
    assert tokenizer.token_to_id("[UNUSED_TOKEN_5]") is None
    assert tokenizer.decode(ids, skip_special_tokens=False) == "The fox<|im_start|>The fox<|beyond|>"


def test_a_name_that_two_tokens_have_is_refused(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model")
    with pytest.raises(ModelError, match="the same name"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model", {300: AddedToken("</s>", special=True)})


@pytest.mark.parametrize("content", [b"", b"no model at all", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ModelError, match="no sentencepiece model"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model", {})


def test_other_kinds_are_refused(tmp_path: Path) -> None:
    write_sentencepiece(tmp_path / "tokenizer.model")
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString((tmp_path / "tokenizer.model").read_bytes())
    proto.trainer_spec.model_type = 1
    (tmp_path / "tokenizer.model").write_bytes(proto.SerializeToString())
    with pytest.raises(ModelError, match="another kind than BPE"):
        sentencepiece_tokenizer(tmp_path / "tokenizer.model", {})
