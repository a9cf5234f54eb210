"""Tokenizers out of GGUF files give the ids of transformers' own conversion."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from tunechat.serve.base.gguf_tokenizer import _SPLITS, tokenizer_files
from tunechat.serve.contract.errors import ModelError

TEXTS = [
    "",
    " ",
    "Hello, world! It's 12:30.",
    "  leading,   runs   and trailing  ",
    "1 22 333 4444 55555 3.14159 1,000,000 ١٢٣ ½ Ⅷ",
    "   12\n\n34\t\t56 \r\n\r\n 7",
    "def f(x):\n\treturn x ** 2  # don't\n\n\n",
    "naïve café Straße ﬁne İstanbul",
    "你好,世界。こんにちは 안녕하세요 สวัสดี",
    "🎉👩‍👩‍👧‍👦🇩🇪 e\u0301 \u200b\u00a0\ufeff",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|>",
    "<|im_start|> <|im_end|><|im_end|> <jupyter_code>x<empty_output> <unknown>",
    "THEY'LL we've I'M 'sword' can''t",
    "\x00\x01\x7f\x80\xff",
    "a" * 300 + "\n" * 50 + " " * 50,
]


@pytest.fixture(scope="module")
def reference(default_gguf: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(default_gguf.parent, gguf_file=default_gguf.name)


@pytest.fixture(scope="module")
def ours(default_entry: Path) -> Tokenizer:
    return Tokenizer.from_file(str(default_entry / "tokenizer.json"))


@pytest.mark.parametrize("text", TEXTS)
def test_ids_of_the_default_model(ours: Tokenizer, reference: Any, text: str) -> None:
    assert ours.encode(text).ids == reference(text)["input_ids"]
    ids = ours.encode(text, add_special_tokens=False).ids
    assert ids == reference(text, add_special_tokens=False)["input_ids"]
    assert ours.decode(ids, skip_special_tokens=False) == reference.decode(ids) == text


@given(text=st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_ids_of_any_text(ours: Tokenizer, reference: Any, text: str) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert ours.encode(text).ids == reference(text)["input_ids"]


def test_vocabulary_of_the_default_model(ours: Tokenizer, reference: Any) -> None:
    assert ours.get_vocab(with_added_tokens=True) == reference.get_vocab()


def test_config_of_the_default_model(default_entry: Path, reference: Any) -> None:
    config = json.loads((default_entry / "tokenizer_config.json").read_text())
    assert config["chat_template"] == reference.chat_template
    assert config["add_bos_token"] is False
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert config[key] == getattr(reference, key)


SENTENCES = [*TEXTS, "the quick brown fox jumps over the lazy dog " * 4, "x12 y345 6789 (a+b)*[c]; //n\n" * 4]


def byte_level_metadata(pre: str) -> dict[str, Any]:
    """A small byte-level BPE, trained here, as GGUF metadata."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet))
    model = json.loads(tokenizer.to_str())["model"]
    tokens = [
        *sorted(model["vocab"], key=model["vocab"].__getitem__),
        "<|endoftext|>",
        "<|end|>",
        "<tool>",
        "<｜结束｜>",
    ]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 4) + [3, 3, 4, 3],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.eos_token_id": len(tokens) - 3,
    }


def sentencepiece_metadata(**overrides: Any) -> dict[str, Any]:
    """A small vocabulary with scores and byte tokens, as llama.cpp keeps sentencepiece's."""
    words = ["the", "▁the", "▁quick", "▁brown", "▁fox", "qu", "ick", "br", "own", "▁", "▁▁", "▁▁▁", "▁t", "he", "▁1"]
    letters = sorted({letter for text in ("thequickbrownfoxover.,12") for letter in text} | {"▁é"[1]})
    pieces = list(dict.fromkeys([*words, *letters, "ic", "▁q", "▁qu", "▁b", "▁br", "▁f", "ow", "▁fo", "th"]))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i % 11) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **overrides,
    }


def their_ids(metadata: dict[str, Any], text: str) -> list[int]:
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    names = GGUF_TOKENIZER_MAPPING["tokenizer"]
    values = {new: metadata[f"tokenizer.{old}"] for old, new in names.items() if f"tokenizer.{old}" in metadata}
    tokenizer, _ = convert_gguf_tokenizer("llama", values)
    return list(tokenizer.encode(text, add_special_tokens=False).ids)


def built(metadata: dict[str, Any]) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_files(metadata, "m.gguf")["tokenizer.json"].decode())


@pytest.mark.parametrize("pre", sorted(_SPLITS))
def test_every_pre_tokenizer(pre: str) -> None:
    metadata = byte_level_metadata(pre)
    tokenizer = built(metadata)
    for text in [*SENTENCES, "a<|end|>b<tool>c <｜结束｜>"]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == their_ids(metadata, text), text


def test_sentencepiece() -> None:
    metadata = sentencepiece_metadata()
    tokenizer = built(metadata)
    for text in [*SENTENCES, "the quick  brown   fox é 12</s>the"]:
        assert tokenizer.encode(text, add_special_tokens=False).ids == their_ids(metadata, text), text
        assert tokenizer.encode(text).ids[0] == 1
    assert tokenizer.decode(tokenizer.encode("the quick").ids) == "the quick"


def test_beginning_and_end_are_added_where_the_file_says_so() -> None:
    flags = {"tokenizer.ggml.add_bos_token": False, "tokenizer.ggml.add_eos_token": True}
    ids = built(sentencepiece_metadata(**flags)).encode("the").ids
    assert ids[0] != 1 and ids[-1] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tokenizer.ggml.pre": "deepseek-coder"}, "'deepseek-coder'"),
        ({"tokenizer.ggml.model": "rwkv"}, "'rwkv'"),
        ({"tokenizer.ggml.tokens": []}, "carries no tokenizer"),
        ({"tokenizer.ggml.merges": ["no such"]}, "cannot be built"),
    ],
)
def test_what_is_not_known_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        tokenizer_files(byte_level_metadata("gpt-2") | change, "m.gguf")
