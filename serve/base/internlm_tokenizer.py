"""InternLM's tokenizer, which comes as a sentencepiece model and Python code, as a `tokenizer.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, processors

from ..contract.errors import ModelError
from .hf_checkpoint import file_in, has_file
from .json_text import json_bytes, read_object
from .sentencepiece_bpe import sentencepiece_tokenizer

SENTENCEPIECE = "tokenizer.model"

_TURN_END = "<|im_end|>"
_ADDED = "added_tokens.json"
_MAX_ID = 1 << 20
# What the classes of InternLM's own code take where the config says nothing.
_NAMED = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}


def is_internlm_tokenizer(config: Mapping[str, Any]) -> bool:
    """Whether `tokenizer_config.json` names a class of InternLM's."""
    return str(config.get("tokenizer_class", "")).startswith("InternLM")


def converted_tokenizer(folder: Path, config: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """`tokenizer.json`, and `config` as it goes with that. Raises ModelError where the folder's files are wrong."""
    tokenizer = sentencepiece_tokenizer(file_in(folder, SENTENCEPIECE), _added_tokens(folder, config))
    result = {**_NAMED, "add_bos_token": True, "add_eos_token": False, **config}
    result["tokenizer_class"] = "PreTrainedTokenizerFast"
    before = [_name(result["bos_token"])] if result["add_bos_token"] else []
    after = [_name(result["eos_token"])] if result["add_eos_token"] else []
    ids = {token: tokenizer.token_to_id(token) for token in (*before, *after)}
    if missing := [token for token, id_ in ids.items() if id_ is None]:
        raise ModelError(f"{SENTENCEPIECE} of {folder.name} has no token {missing[0]!r}")
    if ids:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*before, "$A", *after],
            pair=[*before, "$A", *after, *before, "$B:1", *after],
            special_tokens=list(ids.items()),
        )
    return tokenizer.to_str().encode(), result


def with_turn_end(files: Mapping[str, bytes], config: Mapping[str, Any]) -> dict[str, bytes]:
    """`files`, with a generation config where the token that ends a turn of the chat template also ends an answer.

    InternLM's own code adds it when it chats; many of its checkpoints do not name it. `config` is the model's.
    """
    generation = json.loads(files.get("generation_config.json", b"{}"))
    template = json.loads(files["tokenizer_config.json"]).get("chat_template") or ""
    added = {token["content"]: token["id"] for token in json.loads(files["tokenizer.json"])["added_tokens"]}
    told = generation.get("eos_token_id", config.get("eos_token_id"))
    ids = list(told) if isinstance(told, list) else [] if told is None else [told]
    if _TURN_END not in template or added.get(_TURN_END) in (None, *ids):
        return dict(files)
    return {**files, "generation_config.json": json_bytes({**generation, "eos_token_id": [*ids, added[_TURN_END]]})}


def _added_tokens(folder: Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """The tokens that are set apart from text, by id."""
    found: dict[int, AddedToken] = {}
    if has_file(folder, _ADDED):
        for name, id_ in read_object(file_in(folder, _ADDED)).items():
            found[_id(id_)] = AddedToken(name, normalized=False, special=True)
    told = config.get("added_tokens_decoder") or {}
    if not isinstance(told, dict):
        raise ModelError(f"added_tokens_decoder of {folder.name} is no object")
    for id_, about in told.items():
        if not isinstance(about, dict) or not isinstance(about.get("content"), str) or not about["content"]:
            raise ModelError(f"added_tokens_decoder of {folder.name} has a token without a name")
        flags = {key: bool(about.get(key)) for key in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        found[_id(id_)] = AddedToken(about["content"], **flags)
    return found


def _id(value: Any) -> int:
    text = str(value)
    if not (text.isascii() and text.isdigit()) or int(text) > _MAX_ID:
        raise ModelError(f"{text[:32]!r} is no id of an added token")
    return int(text)


def _name(token: Any) -> str:
    return str(token.get("content") if isinstance(token, dict) else token)
