"""The tokenizer inside a GGUF file as `tokenizer.json` and `tokenizer_config.json`.

The pre-tokenizer is told by `tokenizer.ggml.pre`. Ids equal those of transformers' own conversion of the same file,
which cuts text for "smollm" with GPT-2's rule alone (llama.cpp also sets digits apart).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE

from ..contract.errors import ModelError
from .sentencepiece_bpe import SPACE, implied_merges

_CONTROL, _USER_DEFINED = 3, 4
_SPECIAL = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}

_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# None: GPT-2's own rule, which the byte-level pre-tokenizer has built in.
_SPLITS: dict[str, str | None] = {
    "default": None,
    "gpt-2": None,
    "smollm": None,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "smaug-bpe": _LLAMA3,
    "qwen2": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}


def tokenizer_files(metadata: Mapping[str, Any], name: str) -> dict[str, bytes]:
    """The tokenizer files that `metadata` of a GGUF file describes, by file name.

    `name` is the file's, for messages. Raises ModelError for a kind of tokenizer or pre-tokenizer that is not known.
    """
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens:
        raise ModelError(f"{name} carries no tokenizer; use a file that does, or the model's safetensors files")
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer, spelled = _byte_level(metadata, tokens, name)
    elif kind == "llama":
        tokenizer, spelled = _sentencepiece(metadata, tokens), tokens
    else:
        raise ModelError(f"{name} has a tokenizer of kind {kind!r}; byte-level BPE (gpt2) and llama are read")
    config = _config(metadata, tokens, kind == "llama")
    _add_tokens(tokenizer, metadata, tokens, spelled)
    _add_template(tokenizer, config)
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config, ensure_ascii=False, indent=1).encode(),
    }


def _byte_level(metadata: Mapping[str, Any], tokens: Sequence[str], name: str) -> tuple[Tokenizer, list[str]]:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if pre not in _SPLITS:
        raise ModelError(f"{name} cuts text by the unknown rule {pre!r}; known are {', '.join(sorted(_SPLITS))}")
    alphabet = _byte_alphabet()
    letters = set(alphabet)
    # Tokens that were added by hand may be plain text; byte-level ones are spelled in the alphabet.
    spelled = [t if letters.issuperset(t) else "".join(alphabet[b] for b in t.encode()) for t in tokens]
    merges = [_pair(merge) for merge in metadata.get("tokenizer.ggml.merges", [])]
    vocabulary = {token: index for index, token in enumerate(spelled)}
    tokenizer = _tokenizer(vocabulary, merges, name)
    split = _SPLITS[pre]
    if split is None:
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(split), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, spelled


def _tokenizer(vocabulary: dict[str, int], merges: list[tuple[str, str]], name: str) -> Tokenizer:
    try:
        return Tokenizer(BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""))
    except Exception as error:  # the library raises plain Exception
        raise ModelError(f"{name}: its tokenizer cannot be built: {error}") from error


def _sentencepiece(metadata: Mapping[str, Any], tokens: list[str]) -> Tokenizer:
    stored = metadata.get("tokenizer.ggml.merges")
    merges = [_pair(m) for m in stored] if stored else implied_merges(tokens, metadata["tokenizer.ggml.scores"])
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = Tokenizer(BPE(vocab=vocabulary, merges=merges, fuse_unk=True, byte_fallback=True))
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    scheme = "first" if prefix else "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme=scheme, split=False)
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer


def _add_tokens(
    tokenizer: Tokenizer, metadata: Mapping[str, Any], tokens: Sequence[str], spelled: Sequence[str]
) -> None:
    """Tokens that are matched whole: control tokens and the named special ones, and plain ones that users defined.

    Names that the vocabulary had to spell differently are left out: adding them would grow it past the embedding.
    """
    types: list[int] = metadata.get("tokenizer.ggml.token_type") or []
    named = {metadata.get(f"tokenizer.ggml.{key}") for key in _SPECIAL.values()}
    special, plain = [], []
    for index, token in enumerate(tokens):
        kind = types[index] if index < len(types) else 1
        if token != spelled[index]:
            continue
        if kind == _CONTROL or index in named:
            special.append(AddedToken(token, normalized=False, special=True))
        elif kind == _USER_DEFINED:
            plain.append(AddedToken(token, normalized=False, special=False))
    tokenizer.add_special_tokens(special)
    tokenizer.add_tokens(plain)


def _config(metadata: Mapping[str, Any], tokens: Sequence[str], sentencepiece: bool) -> dict[str, Any]:
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(metadata.get("tokenizer.ggml.add_bos_token", sentencepiece)),
        "add_eos_token": bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    }
    for key, stored in _SPECIAL.items():
        index = metadata.get(f"tokenizer.ggml.{stored}")
        if isinstance(index, int) and 0 <= index < len(tokens):
            config[key] = tokens[index]
    if template := metadata.get("tokenizer.chat_template"):
        config["chat_template"] = str(template)
    return config


def _add_template(tokenizer: Tokenizer, config: Mapping[str, Any]) -> None:
    """What is put before and after every text that is encoded with special tokens."""
    before = [config["bos_token"]] if config["add_bos_token"] and config.get("bos_token") else []
    after = [config["eos_token"]] if config["add_eos_token"] and config.get("eos_token") else []
    ids = {token: tokenizer.token_to_id(token) for token in (*before, *after)}
    if not ids or None in ids.values():
        return
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[f"{token}:0" for token in before] + ["$A:0"] + [f"{token}:0" for token in after],
        pair=[f"{token}:0" for token in before] + ["$A:0", "$B:1"] + [f"{token}:1" for token in after],
        special_tokens=list(ids.items()),
    )


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _byte_alphabet() -> list[str]:
    """GPT-2's letter for each byte: printable Latin-1 stands for itself, the rest is moved up past U+0100."""

    def moved() -> Iterator[int]:
        yield from range(0x100, 0x200)

    spare = moved()
    return [chr(byte) if _printable(byte) else chr(next(spare)) for byte in range(256)]


def _printable(byte: int) -> bool:
    return 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF
