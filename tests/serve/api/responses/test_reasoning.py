"""A model that thinks aloud: its thoughts are items of their own, and go back to it with the next request."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.text import ModelText
from tunechat.tests.serve.api.responses.checked import prompt_of, stream, whole
from tunechat.tests.serve.api.responses.conftest import Respond
from tunechat.tests.serve.api.test_reasoning import write_thinker

THOUGHT = "<think>\nHm, 2 < 3.\n</think>\n\n"


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_thinker(tmp_path_factory.mktemp("thinker"))


@pytest.fixture(scope="module")
def text(entry: Path) -> ModelText:
    return ModelText.load(entry)


async def test_thoughts_are_an_item_before_the_answer(respond: Respond) -> None:
    events = await stream(await respond(f"{THOUGHT}Yes.", engine={"chunk": 1}))
    response = events[-1]["response"]
    thought, answer = response["output"]
    assert (thought["type"], thought["summary"], thought["encrypted_content"]) == ("reasoning", [], None)
    assert thought["content"] == [{"type": "reasoning_text", "text": "Hm, 2 < 3."}]
    assert answer["content"][0]["text"] == "Yes."
    tokens = response["usage"]["output_tokens_details"]["reasoning_tokens"]
    assert tokens == len("Hm, 2 < 3.")
    kinds = [event["type"].removeprefix("response.") for event in events]
    assert kinds[2:5] == ["output_item.added", "content_part.added", "reasoning_text.delta"]


async def test_thoughts_cut_short_are_incomplete(respond: Respond) -> None:
    reply = await whole(await respond(f"{THOUGHT}Yes."), max_output_tokens=12)
    (item,) = reply.output
    assert (reply.status, item.type, item.status) == ("incomplete", "reasoning", "incomplete")


async def test_they_go_back_to_the_model(respond: Respond) -> None:
    served = await respond(f"{THOUGHT}Yes.", "Why?", "Well.")
    first = await whole(served)
    await whole(served, "b", previous_response_id=first.id)
    assert "<think>Hm, 2 < 3.</think>Yes." in prompt_of(served)
    given = [{"role": "user", "content": "Hi"}, *(item.to_dict() for item in first.output)]
    await whole(served, [*given, {"role": "user", "content": "b"}])
    assert prompt_of(served) == prompt_of(served, -2)


async def test_a_template_can_be_told_not_to_think(respond: Respond) -> None:
    served = await respond("Yes.")
    await whole(served, chat_template_kwargs={"enable_thinking": False})
    assert prompt_of(served).endswith("<think>\n\n</think>\n\n")
