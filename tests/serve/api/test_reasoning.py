"""A model that thinks aloud: its thoughts are apart from its answer, in replies, streams and what it is shown again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CHATML, chat, events_of, write_entry

URL = "/v1/chat/completions"
THOUGHT = "<think>\nHm, 2 < 3.\n</think>\n\n"
TOOLS = [{"type": "function", "function": {"name": "now"}}]
CALL = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
# As Qwen's: thoughts are shown again, and a switch ends them before they begin.
TEMPLATE = CHATML.replace(
    "message['content']",
    "('<think>' + message.reasoning_content + '</think>' if message.reasoning_content else '') + message['content']",
).replace("assistant\n'", "assistant\n' + ('<think>\n\n</think>\n\n' if enable_thinking is false else '')")


def write_thinker(folder: Path) -> Path:
    """The text files of a model that reasons."""
    write_entry(folder)
    config = {"eos_token": "<|im_end|>", "chat_template": TEMPLATE}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thinker(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="module")
def text(entry: Path) -> ModelText:
    return ModelText.load(entry)


async def message_of(serve: Serve, answer: str, **fields: Any) -> dict[str, Any]:
    served = await serve({"answer": answer, "context": 2048})
    response = await served.client.post(URL, json=chat(**fields))
    message: dict[str, Any] = response.json()["choices"][0]["message"]
    return message


async def test_thoughts_are_apart_from_the_answer(serve: Serve) -> None:
    message = await message_of(serve, f"{THOUGHT}Yes.")
    assert (message["reasoning_content"], message["content"]) == ("Hm, 2 < 3.", "Yes.")


async def test_and_from_calls(serve: Serve) -> None:
    message = await message_of(serve, THOUGHT + CALL, tools=TOOLS)
    assert (message["reasoning_content"], message["content"]) == ("Hm, 2 < 3.", None)
    assert message["tool_calls"][0]["function"] == {"name": "now", "arguments": "{}"}


async def test_no_thoughts_no_field(serve: Serve) -> None:
    assert await message_of(serve, "Yes.") == {"role": "assistant", "content": "Yes.", "refusal": None}


async def test_a_prompt_that_ends_them_has_none(serve: Serve) -> None:
    message = await message_of(serve, f"{THOUGHT}Yes.", chat_template_kwargs={"enable_thinking": False})
    assert message["content"] == f"{THOUGHT}Yes."


async def test_a_text_that_goes_on_has_none(serve: Serve) -> None:
    start = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "So"}]
    message = await message_of(serve, THOUGHT, messages=start, continue_final_message=True, echo=True)
    assert message["content"] == f"So{THOUGHT}"


async def test_streams_say_thoughts_first(serve: Serve) -> None:
    served = await serve({"answer": f"{THOUGHT}Yes."})
    response = await served.client.post(URL, json=chat(stream=True, logprobs=True))
    choices = [chunk["choices"][0] for chunk in events_of(response.content)[:-1]]
    deltas = [choice["delta"] for choice in choices]
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == "Hm, 2 < 3."
    assert "".join(delta.get("content", "") for delta in deltas) == "Yes."
    fields = [field for delta in deltas for field in delta if field != "role"]
    assert fields.index("content", 1) > max(at for at, field in enumerate(fields) if field == "reasoning_content")
    tokens = [one["token"] for choice in choices for one in (choice["logprobs"] or {"content": []})["content"]]
    assert "".join(tokens) == f"{THOUGHT}Yes."


async def test_a_shape_holds_what_follows_the_thoughts(serve: Serve) -> None:
    message = await message_of(serve, THOUGHT + "yes", structured_outputs={"choice": ["yes", "no"]})
    assert (message["reasoning_content"], message["content"]) == ("Hm, 2 < 3.", "yes")


async def test_thoughts_of_earlier_turns_reach_the_template(serve: Serve) -> None:
    served = await serve()
    said = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "Hm."},
        {"role": "user", "content": "Sure?"},
    ]
    assert (await served.client.post(URL, json=chat(messages=said))).status_code == 200
    prompt = served.engine.text.decode(served.engine.submitted[0][0], skip_special=False)
    assert "<think>Hm.</think>Yes." in prompt
