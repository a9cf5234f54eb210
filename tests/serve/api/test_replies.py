"""Log-probabilities as OpenAI writes them."""

from __future__ import annotations

import math

from tunechat.serve.api.encoding import encode_event
from tunechat.serve.api.events import ScoredToken
from tunechat.serve.api.replies import chat_logprobs, completion_logprobs, finite
from tunechat.serve.text import ModelText


def test_impossible_tokens_have_a_number() -> None:
    assert finite(-math.inf) == -9999.0
    assert finite(-1.5) == -1.5
    assert finite(None) is None


def test_chat_tokens_carry_bytes(text: ModelText) -> None:
    half = text.encode("é")[0]
    (entry,) = chat_logprobs([ScoredToken(half, -0.5, ((half, -0.5), (1, -math.inf)), 0)], text)["content"]
    assert entry["bytes"] == [0xC3]
    assert entry["token"] == "�"
    assert [rival["logprob"] for rival in entry["top_logprobs"]] == [-0.5, -9999.0]


def test_completion_lists_are_in_step(text: ModelText) -> None:
    token = text.encode("a")[0]
    scored = [ScoredToken(token, None, (), 0), ScoredToken(token, -1.0, ((token, -1.0),), 1)]
    assert completion_logprobs(scored, text) == {
        "tokens": ["a", "a"],
        "token_logprobs": [None, -1.0],
        "top_logprobs": [None, {"a": -1.0}],
        "text_offset": [0, 1],
    }


def test_an_event_is_one_line() -> None:
    assert encode_event({"a": "x\n\r\u2028"}).count(b"\n") == 2
