"""Small tokenizers of the kinds that models use, written to disk as a prepared model has them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from tunechat.serve.text import ModelText

# A machine that is busy with other things must not fail a property.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|end|>", "[INST]", "[/INST]"]
VISIBLE = ["<tool_call>", "</tool_call>", "<think>", "</think>"]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. system user assistant tool\n",
    "You are a helpful assistant. Hello! How are you? I am fine, thank you.\n",
    '{"name": "add", "arguments": {"a": 1, "b": 2}}\n    def f(x):\n        return x\n',
    "im_start im_end <|im |> <| tool_call < > INST [ ] / s",
] * 20

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' "
    "+ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def _byte_level() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=alphabet, special_tokens=SPECIAL, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _pieces() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a SentencePiece-like BPE: special tokens, 256 bytes, letters, merges."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(CORPUS, trainers.BpeTrainer(vocab_size=300, show_progress=False))
    names = [*SPECIAL[:3], *(f"<0x{byte:02X}>" for byte in range(256)), *sorted(trained.get_vocab()), *SPECIAL[3:]]
    state = json.loads(trained.to_str())["model"]
    return {name: id_ for id_, name in enumerate(dict.fromkeys(names))}, [tuple(merge) for merge in state["merges"]]


def _sentencepiece() -> Tokenizer:
    vocab, merges = _pieces()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", vocab["<s>"])])
    return tokenizer


def _sentencepiece_legacy() -> Tokenizer:
    """As the first Llama tokenizers: a normalizer writes the spaces, and the control tokens go through it too."""
    tokenizer = _sentencepiece()
    tokenizer.pre_tokenizer = None
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return tokenizer


def _unigram() -> Tokenizer:
    """A vocabulary whose control tokens are pieces like any other, so that plain text can turn into them."""
    scores = [(name, -1.0) for name in [*SPECIAL, *VISIBLE]]
    letters = sorted({letter for line in CORPUS for letter in line if letter != " "} | {"▁"})
    tokenizer = Tokenizer(models.Unigram([*scores, *((letter, -9.0) for letter in letters)], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    return tokenizer


KINDS: dict[str, Callable[[], Tokenizer]] = {
    "byte_level": _byte_level,
    "sentencepiece": _sentencepiece,
    "sentencepiece_legacy": _sentencepiece_legacy,
    "unigram": _unigram,
}


@functools.cache
def _as_json(kind: str, rstrip: bool) -> str:
    """Trained once, as training breaks ties at random."""
    tokenizer = KINDS[kind]()
    normalized = kind == "sentencepiece_legacy"
    tokenizer.add_special_tokens([AddedToken(name, normalized=normalized, rstrip=rstrip) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(name, normalized=False, special=False) for name in VISIBLE])
    return str(tokenizer.to_str())


def make_tokenizer(kind: str, *, rstrip: bool = False) -> Tokenizer:
    """A tokenizer with the control tokens added; those of `rstrip` swallow the white space behind them."""
    return Tokenizer.from_str(_as_json(kind, rstrip))


def write_entry(folder: Path, tokenizer: Tokenizer, template: str | None = CHATML, **settings: object) -> Path:
    """A folder with the text files of a model."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"bos_token": "<s>", "eos_token": "</s>", **settings}
    if template is not None:
        config["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def make_text(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelText]:
    """A loaded text side: `make_text(kind, template)`."""

    def make(kind: str = "byte_level", template: str | None = CHATML, *, rstrip: bool = False) -> ModelText:
        folder = tmp_path_factory.mktemp("entry")
        return ModelText.load(write_entry(folder, make_tokenizer(kind, rstrip=rstrip), template))

    return make
