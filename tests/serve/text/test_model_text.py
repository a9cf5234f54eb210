"""The text side next to transformers, on the same tokenizers and templates."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tunechat.serve.contract.errors import InvalidRequest, ModelError
from tunechat.serve.text import ModelText

from . import templates
from .conftest import KINDS, make_tokenizer, write_entry

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Weather of a <city> & more: 'ü' \"quoted\"",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": ["string", "null"]}},
                "required": ["city"],
            },
        },
    }
]
SYSTEM = {"role": "system", "content": "  Be brief.\n"}
USER = {"role": "user", "content": " Hello, wörld 🎉 \n"}
ANSWER = {"role": "assistant", "content": "Hi!  "}
THOUGHT = {"role": "assistant", "content": "<think>\nhmm\n</think>\n\nfine"}
REASONED = {"role": "assistant", "content": "fine", "reasoning": "hmm"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Zürich"}}}],
}
RESULT = {"role": "tool", "content": '{"degrees": 20}', "name": "get_weather"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]}

CHATS: dict[str, list[dict[str, Any]]] = {
    "one": [USER],
    "system": [SYSTEM, USER],
    "turns": [USER, ANSWER, {"role": "user", "content": "a < b and c > d, [x]"}],
    "thoughts": [USER, THOUGHT, USER, REASONED],
    "call": [SYSTEM, USER, CALL, RESULT],
    "empty": [{"role": "user", "content": ""}],
}


class Peer:
    """What transformers makes of a tokenizer and a template."""

    def __init__(self, kind: str, template: str) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from transformers import PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=make_tokenizer(kind), bos_token="<s>", eos_token="</s>"
        )
        self.tokenizer.chat_template = template

    def render(self, chat: list[dict[str, Any]], **options: Any) -> str:
        return str(self.tokenizer.apply_chat_template(chat, tokenize=False, **options))

    def encode(self, chat: list[dict[str, Any]], **options: Any) -> list[int]:
        return list(self.tokenizer.apply_chat_template(chat, tokenize=True, return_dict=False, **options))


@pytest.fixture(scope="module", params=sorted(templates.ALL))
def template(request: pytest.FixtureRequest) -> str:
    return templates.ALL[request.param]


@pytest.fixture(scope="module")
def pairs(template: str, make_text: Callable[..., ModelText]) -> dict[str, tuple[ModelText, Peer]]:
    return {kind: (make_text(kind, template), Peer(kind, template)) for kind in KINDS}


@pytest.mark.parametrize("chat", CHATS.values(), ids=CHATS)
@pytest.mark.parametrize("tools", [None, TOOLS], ids=["plain", "tools"])
@pytest.mark.parametrize("prompt", [True, False], ids=["prompt", "closed"])
def test_renders_and_encodes_as_transformers(
    pairs: dict[str, tuple[ModelText, Peer]], chat: list[dict[str, Any]], tools: Any, prompt: bool
) -> None:
    options = {"tools": tools, "add_generation_prompt": prompt}
    for kind, (text, peer) in pairs.items():
        try:
            expected = peer.render(chat, **options)
        except Exception:  # whatever a template does to refuse a chat
            with pytest.raises(InvalidRequest):
                text.render(chat, **options)
            continue
        assert text.render(chat, **options) == expected
        if kind != "unigram":  # whose vocabulary gives control tokens for plain text
            assert text.encode_chat(chat, **options) == peer.encode(chat, **options)


@pytest.mark.parametrize("chat", ["one", "system", "turns"])
@pytest.mark.parametrize("ending", ["The ", "The quick\n\n", "", "  The"])
def test_continues_the_final_message_as_transformers(
    pairs: dict[str, tuple[ModelText, Peer]], chat: str, ending: str
) -> None:
    text, peer = pairs["byte_level"]
    messages = [*CHATS[chat], {"role": "assistant", "content": ending}]
    options = {"add_generation_prompt": False, "continue_final_message": True}
    try:
        expected = peer.render(messages, **options)
    except Exception:
        with pytest.raises(InvalidRequest):
            text.render(messages, **options)
        return
    assert text.render(messages, **options) == expected
    assert text.encode_chat(messages, **options) == peer.encode(messages, **options)


def test_continues_the_last_text_part(make_text: Callable[..., ModelText]) -> None:
    text, peer = make_text(template=templates.GEMMA), Peer("byte_level", templates.GEMMA)
    options = {"add_generation_prompt": False, "continue_final_message": True}
    assert text.render([USER, PARTS], **options) == peer.render([USER, PARTS], **options)
    with pytest.raises(InvalidRequest, match="no text to continue"):
        text.render([USER, {"role": "assistant", "content": [{"type": "image"}]}], **options)
    with pytest.raises(InvalidRequest, match="no text to continue"):
        text.render([USER, {"role": "assistant", "content": None}], **options)


def test_a_final_message_that_the_template_drops_cannot_be_continued(make_text: Callable[..., ModelText]) -> None:
    text = make_text(template="{{ messages[0].content }}")
    with pytest.raises(InvalidRequest, match="does not keep the last message") as raised:
        text.render([USER, ANSWER], add_generation_prompt=False, continue_final_message=True)
    assert raised.value.param == "continue_final_message"
    with pytest.raises(InvalidRequest, match="cannot go together"):
        text.render([USER, ANSWER], continue_final_message=True)


# Text that looks like a control token is not ordinary: here it stays text, which transformers does not promise.
Ordinary = st.text(max_size=60).filter(lambda content: ">" not in content)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=Ordinary, kind=st.sampled_from(["byte_level", "sentencepiece", "sentencepiece_legacy"]))
def test_ordinary_text_gives_the_ids_that_transformers_gives(
    pairs: dict[str, tuple[ModelText, Peer]], content: str, kind: str
) -> None:
    text, peer = pairs[kind]
    chat = [{"role": "user", "content": content}, ANSWER, {"role": "user", "content": content}]
    assert text.encode_chat(chat) == peer.encode(chat, add_generation_prompt=True)


def test_text_parts_reach_templates_that_take_only_strings(make_text: Callable[..., ModelText]) -> None:
    parts = make_text().render([PARTS])
    assert parts == make_text().render([{"role": "user", "content": "one\ntwo"}])
    assert "one<|im_end|>" in make_text(template=templates.GEMMA).render([PARTS])


def test_template_kwargs_pass_only_from_the_list(make_text: Callable[..., ModelText]) -> None:
    text = make_text(template=templates.QWEN)
    assert text.render([USER], template_kwargs={"enable_thinking": False}).endswith("<think>\n\n</think>\n\n")
    refused = ["tokenize", "tools", "messages", "conversation", "chat_template", "documents", "add_generation_prompt"]
    for name in [*refused, "continue_final_message", "bos_token", "range", "padding", "return_tensors", "self"]:
        with pytest.raises(InvalidRequest, match=name) as raised:
            text.encode_chat([USER], template_kwargs={name: True})
        assert raised.value.param == f"chat_template_kwargs.{name}"
    with pytest.raises(InvalidRequest, match="enable_thinking"):
        text.encode_chat([USER], template_kwargs={"enable_thinking": ["x"]})


def test_what_the_template_raises_reaches_the_user(make_text: Callable[..., ModelText]) -> None:
    with pytest.raises(InvalidRequest, match="System role not supported") as raised:
        make_text(template=templates.GEMMA).encode_chat([SYSTEM, USER])
    assert raised.value.param == "messages"


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([], "messages"),
        ([{"role": "im_start", "content": ""}], "messages[0].role"),
        ([USER, {"content": "a"}], "messages[1].role"),
        ([{"role": ["user"], "content": "a"}], "messages[0].role"),
        ([{"role": "user", "content": 1.5}], "messages"),
        ([{"role": "user", "content": object()}], "messages"),
        ([{"role": "user"}], "messages"),
        ([{"role": "user", "content": json.loads("[" * 90 + "]" * 90)}], "messages"),
    ],
)
def test_messages_of_a_wrong_shape_are_refused(
    make_text: Callable[..., ModelText], messages: list[dict[str, Any]], param: str
) -> None:
    with pytest.raises(InvalidRequest) as raised:
        make_text().encode_chat(messages)
    assert raised.value.param == param


def test_the_caller_keeps_its_messages(make_text: Callable[..., ModelText]) -> None:
    chat = [
        {"role": "user", "content": "<|im_end|>"},
        {"role": "assistant", "content": [{"type": "text", "text": "a"}]},
    ]
    before = json.dumps(chat)
    make_text(template=templates.GEMMA).encode_chat(chat, add_generation_prompt=False, continue_final_message=True)
    assert json.dumps(chat) == before


def test_a_model_without_a_template_takes_no_chats(make_text: Callable[..., ModelText]) -> None:
    text = make_text(template=None)
    assert not text.has_chat_template
    assert text.template_hash == ""
    with pytest.raises(InvalidRequest, match="no chat template"):
        text.encode_chat([USER])


def test_a_beginning_token_is_put_before_plain_text_where_the_tokenizer_does(tmp_path: Path) -> None:
    sentencepiece = make_tokenizer("sentencepiece")
    bos = sentencepiece.token_to_id("<s>")
    text = ModelText.load(write_entry(tmp_path / "a", sentencepiece))
    assert text.bos_token_id == bos
    assert text.encode("fox", add_bos=True) == [bos, *text.encode("fox")]
    assert text.encode("<s>fox", parse_special=True, add_bos=True).count(bos) == 1
    silent = ModelText.load(write_entry(tmp_path / "b", sentencepiece, add_bos_token=False))
    assert silent.encode("fox", add_bos=True) == silent.encode("fox")
    byte_level = ModelText.load(write_entry(tmp_path / "c", make_tokenizer("byte_level")))
    assert byte_level.encode("fox", add_bos=True) == byte_level.encode("fox")
    asked = ModelText.load(write_entry(tmp_path / "d", make_tokenizer("byte_level"), add_bos_token=True))
    assert asked.encode("fox", add_bos=True) == [asked.bos_token_id, *asked.encode("fox")]


def test_stop_ids_come_from_every_file_that_names_them(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("byte_level")
    folder = write_entry(tmp_path, tokenizer)
    assert ModelText.load(folder).eos_token_ids == (tokenizer.token_to_id("</s>"),)
    (folder / "generation_config.json").write_text('{"eos_token_id": [4, 6]}')
    (folder / "config.json").write_text('{"eos_token_id": 4, "vocab_size": 700}')
    text = ModelText.load(folder)
    assert text.eos_token_ids == (4, 6, tokenizer.token_to_id("</s>"))
    assert text.vocab_size == 700
    (folder / "manifest.json").write_text('{"eos_token_ids": [9], "vocab_size": 800}')
    assert ModelText.load(folder).eos_token_ids[0] == 9
    assert ModelText.load(folder).vocab_size == 800


def test_a_template_of_its_own_for_tools_is_used(tmp_path: Path) -> None:
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    folder = write_entry(tmp_path, make_tokenizer("byte_level"), None, chat_template=named)
    text = ModelText.load(folder)
    assert text.render([USER]) == "plain"
    assert text.render([USER], tools=TOOLS) == "tools"
    (folder / "chat_template.jinja").write_text("file")
    assert ModelText.load(folder).render([USER]) == "file"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", None),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "["),
        ("tokenizer_config.json", "[]"),
        ("tokenizer_config.json", '{"chat_template": "{% if %}"}'),
        ("tokenizer_config.json", '{"chat_template": [{"name": "default"}]}'),
        ("config.json", b"\xff"),
        ("config.json", '{"eos_token_id": "x"}'),
        ("config.json", '{"vocab_size": "x"}'),
    ],
)
def test_files_that_cannot_be_used_are_named(tmp_path: Path, name: str, content: str | bytes | None) -> None:
    folder = write_entry(tmp_path, make_tokenizer("byte_level"))
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ModelError) as raised:
        ModelText.load(folder)
    assert str(tmp_path) not in raised.value.message
