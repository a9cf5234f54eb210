"""Small models of every family: their chat template, a tokenizer of their kind, and the ends of their answers."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tunechat.serve.text import ModelText

from .templates import MODELS

_CORPUS = [
    "The quick brown fox jumps over the lazy dog. system user assistant tool\n",
    'You are helpful. {"name": "add", "arguments": {"a": 1, "b": 2}}\n\n',
    "<think>\nHello! How are you?\n</think>\n\n [INST] x [/INST] I am fine, thank you.\n",
] * 20
_BASE = ["<unk>", "<s>", "</s>"]


# Unlike GPT-2's, it never parts line breaks because of what follows them.
_PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def _byte_level(*, gpt2: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if not gpt2:
        split = pre_tokenizers.Split(Regex(_PIECES), "isolated")
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        _CORPUS, trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, show_progress=False)
    )
    return tokenizer


def _sentencepiece(*, legacy: bool) -> Tokenizer:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(_CORPUS, trainers.BpeTrainer(vocab_size=260, show_progress=False))
    names = [*_BASE, *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(trained.get_vocab())]
    vocab = {name: id_ for id_, name in enumerate(dict.fromkeys(names))}
    merges = [tuple(merge) for merge in json.loads(trained.to_str())["model"]["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def make_tokenizer(name: str) -> Tokenizer:
    """A tokenizer of the family's kind, with the tokens of its template."""
    model = MODELS[name]
    if model.kind in ("gpt2", "byte_level"):
        tokenizer = _byte_level(gpt2=model.kind == "gpt2")
    else:
        tokenizer = _sentencepiece(legacy=model.kind == "legacy")
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in (*_BASE, *model.special)])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in model.visible])
    return tokenizer


def make_model(name: str, *, ends: tuple[str, ...] | None = None) -> ModelText:
    """The text side of a family's model; `ends` are other tokens that end answers than the family's."""
    model, tokenizer = MODELS[name], make_tokenizer(name)
    with tempfile.TemporaryDirectory() as folder:
        entry = Path(folder)
        tokenizer.save(str(entry / "tokenizer.json"))
        config = {"bos_token": model.bos, "eos_token": "</s>", "chat_template": model.template}
        if ends == ():
            del config["eos_token"]
        (entry / "tokenizer_config.json").write_text(json.dumps(config))
        ids = [tokenizer.token_to_id(token) for token in (model.ends if ends is None else ends)]
        # What a manifest names comes first, and then all the others: there is nothing but the manifest here.
        (entry / "manifest.json").write_text(json.dumps({"eos_token_ids": ids}))
        return ModelText.load(entry)


@pytest.fixture(scope="session")
def model_text() -> Callable[[str], ModelText]:
    """The text side of the family's model, made once."""
    return functools.cache(make_model)
