"""Whatever a conversation holds, it is read in full or refused by the name of a field that it has."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tunechat.serve.api.body import parse_body
from tunechat.serve.api.encoding import encode_json
from tunechat.serve.api.messages.translation import as_chat
from tunechat.serve.api.planning import encode_prompt
from tunechat.serve.api.schemas.messages import BLOCKS, CountTokensRequest
from tunechat.serve.api.turns import request_tools
from tunechat.serve.contract.errors import InvalidRequest
from tunechat.serve.text import ModelText
from tunechat.serve.text.dialects import choose_dialect

WORDS = st.text("abc <|im_start|>\n", max_size=8)
VALUES = st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.dictionaries(WORDS, WORDS, max_size=2))
TEXTS = st.builds(lambda text: {"type": "text", "text": text}, WORDS)
RESULTS = st.builds(
    lambda id_, content, failed: {"type": "tool_result", "tool_use_id": id_, "content": content, "is_error": failed},
    WORDS,
    WORDS | st.lists(TEXTS, max_size=2),
    st.booleans(),
)
CALLS = st.builds(
    lambda id_, input_: {"type": "tool_use", "id": id_, "name": "f", "input": input_},
    WORDS,
    st.dictionaries(WORDS, VALUES, max_size=2),
)
THOUGHTS = st.builds(lambda text: {"type": "thinking", "thinking": text, "signature": "s"}, WORDS)
ODD = st.builds(
    lambda kind, fields: {"type": kind, **fields},
    st.sampled_from([*BLOCKS, "image", "document", "", "a b"]),
    st.dictionaries(st.sampled_from(["text", "id", "name", "input", "tool_use_id", "content", "thinking"]), VALUES),
)
GOOD = st.one_of(
    st.builds(lambda blocks: {"role": "user", "content": blocks}, WORDS | st.lists(TEXTS | RESULTS, max_size=3)),
    st.builds(
        lambda blocks: {"role": "assistant", "content": blocks}, WORDS | st.lists(TEXTS | CALLS | THOUGHTS, max_size=3)
    ),
    st.builds(lambda blocks: {"role": "system", "content": blocks}, WORDS | st.lists(TEXTS, max_size=3)),
)
WRONG = st.builds(
    lambda role, blocks: {"role": role, "content": blocks},
    st.sampled_from(["user", "assistant", "system"]),
    st.lists(TEXTS | RESULTS | CALLS | THOUGHTS | ODD, max_size=3),
)


def request_of(messages: list[Any], system: Any) -> CountTokensRequest:
    body = {"model": "m", "messages": messages, "system": system}
    return parse_body(encode_json(body), CountTokensRequest)


@given(
    messages=st.lists(GOOD | WRONG, min_size=1, max_size=4),
    system=st.none() | WORDS | st.lists(TEXTS | ODD, max_size=2),
)
def test_it_is_read_or_refused_by_name(text: ModelText, messages: list[Any], system: Any) -> None:
    try:
        chat = as_chat(request_of(messages, system))
        with chat.named():
            assert encode_prompt(chat.body, request_tools(chat.body), text, choose_dialect(text, None))
    except InvalidRequest as error:
        assert error.param is not None
        assert error.param.startswith(("messages", "system"))


@given(messages=st.lists(GOOD, min_size=1, max_size=4))
def test_nothing_that_was_said_is_lost(messages: list[Any]) -> None:
    messages = [*messages, {"role": "user", "content": "end"}]
    turns = [message.for_template() for message in as_chat(request_of(messages, None)).body.messages]
    said: dict[str, list[str]] = {"user": [], "assistant": [], "system": [], "tool": []}
    calls, thoughts = [], []
    for message in messages:
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            match block["type"]:
                case "text":
                    said[message["role"]].append(block["text"])
                case "tool_result":
                    inner = block["content"]
                    said["tool"].append(inner if isinstance(inner, str) else "\n".join(one["text"] for one in inner))
                case "tool_use":
                    calls.append((block["id"], block["input"]))
                case "thinking":
                    thoughts.append(block["thinking"])
    for role, texts in said.items():
        shown = "\n".join(turn["content"] or "" for turn in turns if turn["role"] == role)
        position = 0
        for piece in texts:
            position = shown.index(piece, position) + len(piece)
    made = [call for turn in turns for call in turn.get("tool_calls", ())]
    arguments = [{} if call["function"]["arguments"] == "{}" else call["function"]["arguments"] for call in made]
    assert list(zip([call["id"] for call in made], arguments, strict=True)) == calls
    shown = "\n".join(turn["reasoning_content"] for turn in turns if "reasoning_content" in turn)
    assert shown == "\n".join(thought for thought in thoughts if thought)
    for one, other in itertools.pairwise(turns):
        assert one["role"] != other["role"] or one["role"] in ("tool", "system")
