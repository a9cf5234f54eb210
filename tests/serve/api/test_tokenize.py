"""Text to tokens and back over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, MODEL


async def test_there_and_back(serve: Serve) -> None:
    served = await serve()
    text = "Grüße 👩‍👩‍👧"
    reply = (await served.client.post("/tokenize", json={"prompt": text, "return_token_strs": True})).json()
    assert reply["count"] == len(reply["tokens"]) == len(reply["token_strs"]) == len(text.encode())
    assert reply["max_model_len"] == CONTEXT
    back = await served.client.post("/detokenize", json={"model": MODEL, "tokens": reply["tokens"]})
    assert back.json() == {"prompt": text}


async def test_a_conversation_is_counted_as_chat_would(serve: Serve) -> None:
    served = await serve()
    messages = [{"role": "user", "content": "Hi"}]
    reply = (await served.client.post("/tokenize", json={"model": MODEL, "messages": messages})).json()
    await served.client.post("/v1/chat/completions", json={"model": MODEL, "messages": messages})
    assert reply["tokens"] == served.engine.submitted[0][0]


async def test_special_tokens_are_text_unless_asked_for(serve: Serve) -> None:
    served = await serve()
    for parse, count in ((None, 10), (False, 10), (True, 1)):
        body = {"prompt": "<|im_end|>", "parse_special": parse}
        assert (await served.client.post("/tokenize", json=body)).json()["count"] == count


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/tokenize", {}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "messages": [{"role": "user", "content": "x"}]}, 400, "prompt"),
        ("/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/tokenize", {"prompt": "x", "text": "y"}, 400, "text"),
        ("/tokenize", {"prompt": "x", "model": "other"}, 404, "model"),
        ("/detokenize", {}, 400, "tokens"),
        ("/detokenize", {"tokens": [1, -1]}, 400, "tokens[1]"),
        ("/detokenize", {"tokens": [True]}, 400, "tokens[0]"),
        ("/detokenize", {"tokens": [100_000]}, 400, "tokens[0]"),
    ],
)
async def test_wrong_requests_are_explained(serve: Serve, path: str, body: Any, status: int, param: str) -> None:
    served = await serve()
    response = await served.client.post(path, json=body)
    assert (response.status_code, response.json()["error"]["param"]) == (status, param)


async def test_empty_lists_and_texts_have_an_answer(serve: Serve) -> None:
    served = await serve()
    assert (await served.client.post("/tokenize", json={"prompt": ""})).json()["tokens"] == []
    assert (await served.client.post("/detokenize", json={"tokens": []})).json() == {"prompt": ""}
