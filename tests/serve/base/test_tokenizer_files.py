"""Tokenizer files of model folders: taken over, or converted once where there is no tokenizer.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tunechat.serve.base.tokenizer_files import folder_files
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import CHAT_TEMPLATE, byte_tokenizer, write_tokenizer

TEXTS = ["Hello,  world\n\n", "naïve 你好 🎉", "a<|im_end|>b"]


def template_of(folder: Path) -> object:
    return json.loads(folder_files(folder)["tokenizer_config.json"]).get("chat_template")


def test_files_are_taken_over(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    files = folder_files(tmp_path)
    assert files["tokenizer.json"] == (tmp_path / "tokenizer.json").read_bytes()
    config = json.loads(files["tokenizer_config.json"])
    assert config["chat_template"] == CHAT_TEMPLATE and config["eos_token"] == "<|im_end|>"
    assert "generation_config.json" not in files


def test_the_template_of_a_file_of_its_own_wins(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert template_of(tmp_path) == CHAT_TEMPLATE
    (tmp_path / "chat_template.jinja").write_text("new {{ x }}\n")
    assert template_of(tmp_path) == "new {{ x }}\n"


def test_old_template_files_are_read(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, chat_template=None)
    assert template_of(tmp_path) is None
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "old"}))
    assert template_of(tmp_path) == "old"


@pytest.mark.parametrize(
    ("named", "expected"),
    [([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}], "d"), ([], None)],
)
def test_of_named_templates_the_default_is_taken(tmp_path: Path, named: object, expected: object) -> None:
    write_tokenizer(tmp_path)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": named}))
    assert template_of(tmp_path) == expected


@pytest.mark.parametrize("template", [7, {"a": "b"}])
def test_a_template_that_is_no_text_is_refused(tmp_path: Path, template: object) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(ModelError, match="no text"):
        folder_files(tmp_path)


def test_a_huge_template_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(ModelError, match="larger than"):
        folder_files(tmp_path)


def test_a_folder_without_tokenizer_json_is_converted(tmp_path: Path) -> None:
    original = byte_tokenizer()
    (tmp_path / "vocab.json").write_text(json.dumps(original.get_vocab()))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    config = {"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|im_end|>", "bos_token": "<|endoftext|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    files = folder_files(tmp_path)
    converted = Tokenizer.from_str(files["tokenizer.json"].decode())
    for text in TEXTS:
        assert converted.encode(text).ids == original.encode(text).ids
    assert json.loads(files["tokenizer_config.json"])["eos_token"] == "<|im_end|>"


def test_a_folder_without_any_tokenizer_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ModelError, match=r"has no tokenizer\.json"):
        folder_files(tmp_path)
