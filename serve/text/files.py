"""The text files of a prepared base model, read and checked."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from ..contract.errors import ModelError

MAX_TOKENIZER_BYTES = 256 << 20
_NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


@dataclass(frozen=True, slots=True, eq=False)
class TextFiles:
    """What the folder of a model says about its text.

    `named_tokens` are `bos_token` and the like. `templates` are the chat templates by name; the usual one is "default".
    `adds_bos` is what the configuration says of a beginning token before plain text, None where it says nothing.
    """

    tokenizer: Tokenizer
    tokenizer_json: str
    decoder: dict[str, Any] | None
    named_tokens: dict[str, str]
    templates: dict[str, str]
    adds_bos: bool | None
    eos_token_ids: tuple[int, ...]
    vocab_size: int


def read_text_files(entry: Path) -> TextFiles:
    """Read `tokenizer.json` and what lies beside it. Raises ModelError, naming the file that cannot be used."""
    text = _read(entry / "tokenizer.json")
    if text is None:
        raise ModelError("The model has no tokenizer.json.")
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises the bare class
        raise ModelError(f"The model's tokenizer.json cannot be used: {error}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    settings = _read_object(entry / "tokenizer_config.json")
    manifest = _read_object(entry / "manifest.json")
    config = _read_object(entry / "config.json")
    named = _named_tokens(settings)
    return TextFiles(
        tokenizer=tokenizer,
        tokenizer_json=text,
        # Its state is JSON; this spares parsing the whole vocabulary once more.
        decoder=json.loads(tokenizer.decoder.__getstate__()) if tokenizer.decoder is not None else None,
        named_tokens=named,
        templates=_templates(settings, _read(entry / "chat_template.jinja")),
        adds_bos=settings.get("add_bos_token"),
        eos_token_ids=_eos_token_ids(
            manifest.get("eos_token_ids"),
            _read_object(entry / "generation_config.json").get("eos_token_id"),
            config.get("eos_token_id"),
            tokenizer.token_to_id(named["eos_token"]) if "eos_token" in named else None,
        ),
        vocab_size=_vocab_size(manifest.get("vocab_size"), config.get("vocab_size"), tokenizer.get_vocab_size()),
    )


def _read(path: Path) -> str | None:
    try:
        if path.stat().st_size > MAX_TOKENIZER_BYTES:
            raise ModelError(f"The model's {path.name} is larger than {MAX_TOKENIZER_BYTES >> 20} MiB.")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"The model's {path.name} cannot be read: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    text = _read(path)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ModelError(f"The model's {path.name} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"The model's {path.name} is not a JSON object.")
    return value


def _named_tokens(settings: dict[str, Any]) -> dict[str, str]:
    named = {}
    for name in _NAMED_TOKENS:
        value = settings.get(name)
        content = value.get("content") if isinstance(value, dict) else value
        if isinstance(content, str):
            named[name] = content
    return named


def _templates(settings: dict[str, Any], file: str | None) -> dict[str, str]:
    if file is not None:
        return {"default": file}
    value = settings.get("chat_template")
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, list):
        try:
            return {str(item["name"]): str(item["template"]) for item in value}
        except (KeyError, TypeError) as error:
            raise ModelError("The model's tokenizer_config.json has a chat template without name or text.") from error
    return {}


def _eos_token_ids(*sources: Any) -> tuple[int, ...]:
    """All ids that any of the sources names, in order, each once. A source is an id, a list of them, or None."""
    ids: dict[int, None] = {}
    for source in sources:
        listed = source if isinstance(source, list) else [] if source is None else [source]
        if not all(isinstance(id_, int) for id_ in listed):
            raise ModelError("The model's files name an eos_token_id that is not a number.")
        ids.update(dict.fromkeys(listed))
    return tuple(ids)


def _vocab_size(*sources: Any) -> int:
    """The first size that is given."""
    size = next((source for source in sources if source is not None), None)
    if not isinstance(size, int) or size < 1:
        raise ModelError("The model's files name a vocab_size that is not a number.")
    return size
