"""The tokenizer files of a model folder, as they go into a prepared model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..contract.errors import ModelError
from .hf_checkpoint import file_in, has_file
from .internlm_tokenizer import SENTENCEPIECE, converted_tokenizer, is_internlm_tokenizer
from .json_text import MAX_JSON, json_bytes, read_object

_TOKENIZER = "tokenizer.json"
_CONFIG = "tokenizer_config.json"
_GENERATION = "generation_config.json"
_TEMPLATE = "chat_template.jinja"
_OLD_TEMPLATE = "chat_template.json"
_MAX_TEMPLATE = 1 << 20


def folder_files(folder: Path) -> dict[str, bytes]:
    """`tokenizer.json`, `tokenizer_config.json` with the chat template in it, and `generation_config.json` if any.

    A folder without a `tokenizer.json` is converted: InternLM's here, others by transformers, never by code of the
    folder. Raises ModelError when that is not possible.
    """
    files: dict[str, bytes] = {}
    if has_file(folder, _TOKENIZER):
        read_object(file_in(folder, _TOKENIZER))
        files[_TOKENIZER] = file_in(folder, _TOKENIZER).read_bytes()
        config = _config(folder)
    elif has_file(folder, SENTENCEPIECE) and is_internlm_tokenizer(_config(folder)):
        files[_TOKENIZER], config = converted_tokenizer(folder, _config(folder))
    else:
        files[_TOKENIZER], config = _converted(folder)
    config.pop("auto_map", None)
    if (template := _template(folder, config)) is not None:
        config["chat_template"] = template
    files[_CONFIG] = json_bytes(config)
    if has_file(folder, _GENERATION):
        files[_GENERATION] = json_bytes(read_object(file_in(folder, _GENERATION)))
    return files


def _config(folder: Path) -> dict[str, Any]:
    return read_object(file_in(folder, _CONFIG)) if has_file(folder, _CONFIG) else {}


def _template(folder: Path, config: dict[str, Any]) -> str | None:
    """The template of a file of its own where there is one, else the config's; of several named ones the default."""
    if has_file(folder, _TEMPLATE):
        path = file_in(folder, _TEMPLATE)
        if path.stat().st_size > _MAX_TEMPLATE:
            raise ModelError(f"{_TEMPLATE} of {folder.name} is larger than {_MAX_TEMPLATE} bytes")
        return path.read_text(encoding="utf-8")
    value: Any = config.pop("chat_template", None)
    if value is None and has_file(folder, _OLD_TEMPLATE):
        value = read_object(file_in(folder, _OLD_TEMPLATE)).get("chat_template")
    if isinstance(value, list):
        named = {t.get("name"): t.get("template") for t in value if isinstance(t, dict)}
        value = named.get("default")
    if value is not None and not isinstance(value, str):
        raise ModelError(f"the chat template of {folder.name} is no text")
    return value


def _converted(folder: Path) -> tuple[bytes, dict[str, Any]]:
    from transformers import AutoTokenizer

    for path in folder.iterdir():
        if path.is_file() and path.suffix in {".model", ".json", ".txt"}:
            file_in(folder, path.name)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(
            folder, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        text: str = tokenizer.backend_tokenizer.to_str()
    except Exception as error:  # every tokenizer class raises its own
        raise ModelError(
            f"{folder.name} has no {_TOKENIZER}, and transformers cannot make one: {str(error)[:300]}"
        ) from error
    if len(text) > MAX_JSON:
        raise ModelError(f"the tokenizer of {folder.name} is larger than {MAX_JSON} bytes")
    config = _config(folder)
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        if (token := getattr(tokenizer, key, None)) is not None:
            config.setdefault(key, token)
    return text.encode(), config
