"""InternLM's tokenizer becomes a tokenizer.json, without a line of the folder's code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from tokenizers import Tokenizer

from tunechat.serve.base.internlm_tokenizer import with_turn_end
from tunechat.serve.base.tokenizer_files import folder_files
from tunechat.serve.contract.errors import ModelError

from .internlm_models import MARKERS, TEMPLATE, TEXTS, UNUSED, tokenizer_config, write_sentencepiece


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    pieces = write_sentencepiece(tmp_path / "tokenizer.model")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(pieces)))
    (tmp_path / "tokenization_internlm2.py").write_text("raise SystemExit('code of a model was run')\n")
    return tmp_path


def change(folder: Path, **values: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def made(folder: Path) -> tuple[Tokenizer, dict[str, Any]]:
    files = folder_files(folder)
    return Tokenizer.from_str(files["tokenizer.json"].decode()), json.loads(files["tokenizer_config.json"])


def test_ids_are_sentencepieces(folder: Path) -> None:
    tokenizer, config = made(folder)
    theirs = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    for text in TEXTS:
        assert tokenizer.encode(text).ids == [1, *theirs.encode(text)]
        assert tokenizer.decode(tokenizer.encode(text).ids) == text
    for at, (marker, unused) in enumerate(zip(MARKERS, UNUSED, strict=True)):
        assert tokenizer.encode(marker, add_special_tokens=False).ids == [theirs.get_piece_size() - len(MARKERS) + at]
        assert tokenizer.token_to_id(unused) is None
    assert (config["chat_template"], config["add_bos_token"], config["eos_token"]) == (TEMPLATE, True, "</s>")
    assert "auto_map" not in config and config["tokenizer_class"] == "PreTrainedTokenizerFast"


def test_beginning_and_end_as_the_config_says(folder: Path) -> None:
    change(folder, add_bos_token=False, add_eos_token=True, eos_token={"content": "</s>"})
    ids = made(folder)[0].encode("The").ids
    assert ids[0] != 1 and ids[-1] == 2
    change(folder, eos_token="<nothing>")
    with pytest.raises(ModelError, match="no token '<nothing>'"):
        made(folder)


def test_added_tokens_of_a_file_of_their_own(folder: Path) -> None:
    told = json.loads((folder / "tokenizer_config.json").read_text())["added_tokens_decoder"]
    change(folder, added_tokens_decoder=None)
    (folder / "added_tokens.json").write_text(json.dumps({about["content"]: int(id_) for id_, about in told.items()}))
    tokenizer, _ = made(folder)
    assert {str(tokenizer.token_to_id(marker)) for marker in MARKERS} < set(told)


@pytest.mark.parametrize(
    ("added", "message"),
    [
        ([], "is no object"),
        ({"7": {}}, "without a name"),
        ({"-1": {"content": "a"}}, "'-1' is no id"),
        ({"99999999999": {"content": "a"}}, "is no id"),
        ({"7": {"content": "</s>"}}, "the same name"),
    ],
)
def test_wrong_added_tokens_are_refused(folder: Path, added: Any, message: str) -> None:
    change(folder, added_tokens_decoder=added or [1])
    with pytest.raises(ModelError, match=message):
        made(folder)


@pytest.mark.parametrize(
    ("generation", "expected"),
    [(None, [2, "end"]), ({"eos_token_id": 2}, [2, "end"]), ({"eos_token_id": [1]}, [1, "end"])],
)
def test_the_end_of_a_turn_ends_an_answer(folder: Path, generation: Any, expected: list[Any]) -> None:
    files = folder_files(folder)
    if generation is not None:
        files["generation_config.json"] = json.dumps({"top_p": 0.8, **generation}).encode()
    ended = with_turn_end(files, {"eos_token_id": 2})
    end = Tokenizer.from_str(files["tokenizer.json"].decode()).token_to_id("<|im_end|>")
    told = json.loads(ended["generation_config.json"])
    assert told["eos_token_id"] == [end if id_ == "end" else id_ for id_ in expected]
    assert generation is None or told["top_p"] == 0.8
    assert with_turn_end(ended, {}) == ended


def test_a_model_that_does_not_chat_stays_as_it_is(folder: Path) -> None:
    change(folder, chat_template=None)
    files = folder_files(folder)
    assert with_turn_end(files, {"eos_token_id": 2}) == files
