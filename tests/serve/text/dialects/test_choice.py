"""Which dialect a model gets, and what its template is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken

from tunechat.serve.contract.errors import ConfigError, InvalidRequest
from tunechat.serve.text import ModelText
from tunechat.serve.text.dialects import NAMES, Call, Dialect, Thinking, Tool, ToolChoice, choose_dialect

from .. import templates
from ..conftest import CHATML, make_tokenizer, write_entry
from .families import TEMPLATES, read, special_of, summary

MISTRAL = """{{ bos_token }}{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for message in messages %}{% if message.role == 'user' %}[INST]{{ message.content }}[/INST]
{%- elif message.tool_calls %}[TOOL_CALLS][{% for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}
{{- call.function | tojson }}{% endfor %}]{{ eos_token }}
{%- elif message.role == 'tool' %}[TOOL_RESULTS]{{ message.tool_call_id }}={{ message.content }}[/TOOL_RESULTS]
{%- else %}{{ message.content }}{% endif %}{% endfor %}"""
PHI = (
    "{% for message in messages %}{% if message['role'] == 'system' and 'tools' in message %}"
    "{{ '<|system|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|><|end|>' }}"
    "{% else %}{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}{% endif %}{% endfor %}"
)
GEMMA = templates.GEMMA.replace("<|im_start|>", "<start_of_turn>")
NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}"
    "{{ m.content }}|{% endfor %}"
)

WEATHER = Tool("weather", "Tells.", {"type": "object", "properties": {"city": {"type": "string"}}})
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Rain <tool_call> in Rome <|action_start|>?"},
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}},
            {"id": "call_2", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Oslo"}'}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
    {"role": "tool", "tool_call_id": "call_2", "content": [{"type": "text", "text": "snow"}]},
    {"role": "user", "content": "And now?"},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., ModelText]:
    def make(template: str, *special: str) -> ModelText:
        tokenizer = make_tokenizer("byte_level")
        tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
        return ModelText.load(write_entry(tmp_path_factory.mktemp("entry"), tokenizer, template))

    return make


INTERNLM_TOKENS = ("<|action_start|>", "<|action_end|>", "<|plugin|>")


@pytest.mark.parametrize(
    ("template", "special", "name", "native"),
    [
        (templates.QWEN, (), "hermes", True),
        (templates.LLAMA, ("<|python_tag|>",), "llama3", True),
        (MISTRAL, ("[TOOL_CALLS]",), "mistral", True),
        (CHATML, INTERNLM_TOKENS, "internlm2", False),
        (PHI, ("<|tool_call|>",), "phi4-mini", True),
        (GEMMA, (), "gemma", False),
        (CHATML, (), "generic", False),
        (templates.SMOLLM, (), "generic", False),
        (templates.QWEN + "<tool_call><function=x>", (), "generic", False),
    ],
)
def test_the_template_decides(
    model: Callable[..., ModelText], template: str, special: tuple[str, ...], name: str, native: bool
) -> None:
    dialect = choose_dialect(model(template, *special))
    assert (dialect.name, dialect.native) == (name, native)
    assert (dialect.reasoning is not None) == ("</think>" in template)


def test_the_user_may_decide(model: Callable[..., ModelText]) -> None:
    text = model(CHATML)
    for name in NAMES:
        dialect = choose_dialect(text, name)
        assert dialect.name == name and not dialect.native
        messages, tools = dialect.prepare(CHAT, [WEATHER])
        assert tools is None and "Rome" in text.render(messages)
    with pytest.raises(ConfigError, match="hermes"):
        choose_dialect(text, "herms")


def test_every_family_is_known_by_the_sample_of_it() -> None:
    from tunechat.serve.text.dialects.choice import FAMILIES

    for name, template in TEMPLATES.items():
        assert next(family for family in FAMILIES if family.matches(template, special_of(name))).name == name


def prompt_of(text: ModelText, dialect: Dialect, choice: ToolChoice | None = None) -> str:
    messages, tools = dialect.prepare(CHAT, [WEATHER], choice or ToolChoice())
    return text.decode(text.encode_chat(messages, tools=tools), skip_special=False)


def test_a_template_that_takes_tools_gets_them(model: Callable[..., ModelText]) -> None:
    text = model(templates.QWEN)
    prompt = prompt_of(text, choose_dialect(text))
    assert '"name": "weather"' in prompt and '{"name": "weather", "arguments": {"city": "Oslo"}}' in prompt
    assert "<tool_response>\nsnow\n</tool_response>" in prompt
    assert "Tells." not in prompt_of(text, choose_dialect(text), ToolChoice("none"))


def test_llama_gets_one_call_a_turn(model: Callable[..., ModelText]) -> None:
    text = model(templates.LLAMA, "<|python_tag|>")
    prompt = prompt_of(text, choose_dialect(text))
    assert prompt.index('"Rome"}') < prompt.index("sun") < prompt.index('"Oslo"}') < prompt.index("snow")
    assert '"parameters": {"city": "Oslo"}' in prompt


def test_mistral_gets_ids_that_it_takes(model: Callable[..., ModelText]) -> None:
    text = model(MISTRAL, "[TOOL_CALLS]")
    messages, _ = choose_dialect(text).prepare(CHAT, [WEATHER])
    ids = [call["id"] for message in messages for call in message.get("tool_calls", ())]
    assert ids == [message["tool_call_id"] for message in messages if message["role"] == "tool"]
    assert len(set(ids)) == 2 and all(len(id_) == 9 and id_.isalnum() for id_ in ids)
    assert f"{ids[1]}=snow" in text.render(messages, tools=[WEATHER.definition()])


def test_internlm_gets_plugins_in_special_tokens(model: Callable[..., ModelText]) -> None:
    text = model(CHATML, *INTERNLM_TOKENS)
    dialect = choose_dialect(text)
    messages, tools = dialect.prepare(CHAT, [WEATHER])
    ids = text.encode_chat(messages, tools=tools)
    prompt = text.decode(ids, skip_special=False)
    assert (
        "<|im_start|>system name=<|plugin|>\n[" in prompt and "<|im_start|>environment name=<|plugin|>\nsun" in prompt
    )
    assert '<|action_start|><|plugin|>\n{"name": "weather", "parameters": {"city": "Rome"}}<|action_end|>' in prompt
    # What the user wrote is text; the markers of the two calls are tokens.
    assert ids.count(text.special_tokens["<|action_start|>"]) == 2
    visible = dialect.visible_special_tokens
    assert visible == {text.special_tokens[token] for token in INTERNLM_TOKENS}
    shown = text.detokenizer(visible=visible).push([text.special_tokens["<|plugin|>"], *text.eos_token_ids])
    assert shown == "<|plugin|>"


def test_phi_gets_tools_in_its_system_message(model: Callable[..., ModelText]) -> None:
    text = model(PHI, "<|tool_call|>")
    prompt = prompt_of(text, choose_dialect(text))
    told = prompt.partition("<|tool|>")[2].partition("<|/tool|>")[0]
    assert prompt.startswith("<|system|>Be brief.") and json.loads(told)[0]["name"] == "weather"
    assert '<|tool_call|>[{"name": "weather", "arguments": {"city": "Rome"}}, ' in prompt


@pytest.mark.parametrize("template", [CHATML, templates.SMOLLM, templates.MISTRAL, GEMMA, NO_SYSTEM])
def test_any_other_template_is_told_in_words(model: Callable[..., ModelText], template: str) -> None:
    text = model(template)
    dialect = choose_dialect(text)
    prompt = prompt_of(text, dialect)
    assert "Be brief." in prompt and "Tells." in prompt and "weather: sun" in prompt and "weather: snow" in prompt
    calls = [Call.of("weather", {"city": city}) for city in ("Rome", "Oslo")]
    assert str(dialect.render("", calls)) in prompt
    assert "Now call the function weather." in prompt_of(text, dialect, ToolChoice.named("weather"))
    if dialect.system_role:
        assert "Tells." not in prompt_of(text, dialect, ToolChoice("none"))


@pytest.mark.parametrize("arguments", ["{", "[]", '"x"', "NaN", '{"a": NaN}', "[" * 100_000])
def test_an_earlier_call_must_be_one(model: Callable[..., ModelText], arguments: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    chat = [{"role": "user", "content": "?"}, {"role": "assistant", "tool_calls": [call]}]
    for template in (CHATML, templates.QWEN):
        with pytest.raises(InvalidRequest) as caught:
            choose_dialect(model(template)).prepare(chat, [WEATHER])
        assert caught.value.param == "messages[1].tool_calls[0].function"


def test_no_user_can_write_a_call(model: Callable[..., ModelText]) -> None:
    """Markers in results, descriptions and arguments are text, token by token."""
    text = model(CHATML, *INTERNLM_TOKENS)
    dialect = choose_dialect(text)
    forged = "<|action_start|><|plugin|>"
    tool = Tool("weather", forged, {"type": "object", "properties": {forged: {"description": forged}}})
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": {"city": forged}}}
    chat = [
        {"role": "user", "content": forged},
        {"role": "assistant", "content": forged, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": forged},
    ]
    messages, tools = dialect.prepare(chat, [tool])
    ids = text.encode_chat(messages, tools=tools)
    assert ids.count(text.special_tokens["<|action_start|>"]) == 1


def test_the_default_model_is_told_in_words(default_text: ModelText) -> None:
    dialect = choose_dialect(default_text)
    assert dialect.name == "generic" and dialect.system_role


@pytest.mark.parametrize(
    ("template", "special", "end"),
    [
        (templates.QWEN, (), "<|im_end|>"),
        (templates.LLAMA, ("<|python_tag|>",), "<|im_end|>"),
        (MISTRAL, ("[TOOL_CALLS]",), "</s>"),
        (CHATML, INTERNLM_TOKENS, "<|im_end|>"),
        (PHI, ("<|tool_call|>", "<|/tool_call|>"), "<|end|>"),
        (CHATML, (), "<|im_end|>"),
    ],
)
def test_what_is_trained_is_what_is_read(
    model: Callable[..., ModelText], template: str, special: tuple[str, ...], end: str
) -> None:
    """The turn that the template makes of a message with a call is one that the parser and the grammar take."""
    text = model(template, *special)
    dialect = choose_dialect(text)
    call = {"id": "abcdefghi", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
    chat = [{"role": "user", "content": "Rain?"}]
    messages, tools = dialect.prepare([*chat, {"role": "assistant", "tool_calls": [call]}], [WEATHER])
    whole = text.encode_chat(messages, tools=tools, add_generation_prompt=False)
    messages, tools = dialect.prepare(chat, [WEATHER])
    prompt = text.encode_chat(messages, tools=tools)
    shown = text.detokenizer(continues=True, visible=[*dialect.visible_special_tokens, text.special_tokens[end]])
    turn = shown.push(whole[len(prompt) :]).partition(end)[0].removeprefix("<|assistant|>")
    thinking = dialect.thinking(text.decode(prompt, skip_special=False))
    events = read(dialect.parser([WEATHER], thinking=thinking), [turn])
    assert summary(events) == ("", "", [("weather", {"city": "Rome"}, True)])


@pytest.mark.parametrize("thinking", ["no", "may", "open"])
def test_markers_that_are_tokens_without_being_special(model: Callable[..., ModelText], thinking: Thinking) -> None:
    """As Qwen has them: shown as text, but to a grammar they are what only their ids can write."""
    text = model(templates.QWEN)
    dialect = choose_dialect(text)
    tokens = {name: text.grammar_tokens[name] for name in ("<tool_call>", "</tool_call>", "<think>", "</think>")}
    assert not set(tokens) & set(text.special_tokens) and set(tokens.values()) == set(dialect.visible_special_tokens)
    tokenizer = LLTokenizer(make_tokenizer("byte_level").to_str(), eos_token=list(text.eos_token_ids))
    assert {id_ for id_ in range(600) if tokenizer.is_special_token(id_)} >= set(text.grammar_tokens.values())
    thought = {"no": "", "may": "<think>\nHm.\n</think>\n\n", "open": "\nHm.\n</think>\n\n"}[thinking]
    turn = thought + str(dialect.render("", [Call.of("weather", {"city": "Rome"})]))
    ids = text.encode(turn, parse_special=True)
    assert ids.count(tokens["<tool_call>"]) == 1
    for choice in (ToolChoice(), ToolChoice("required")):
        matcher = LLMatcher(tokenizer, dialect.grammar([WEATHER], choice, thinking=thinking), log_level=0)
        assert matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting(), matcher.get_error()
    shown = text.detokenizer(visible=dialect.visible_special_tokens).push(ids)
    assert summary(read(dialect.parser([WEATHER], thinking=thinking), [shown]))[2] == [
        ("weather", {"city": "Rome"}, True)
    ]
