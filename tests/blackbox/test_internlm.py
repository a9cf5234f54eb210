"""An InternLM2 folder as it is published, served: its own dialect, and calls that are always whole."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tunechat.tests.blackbox.server import Server, serving
from tunechat.tests.serve.base.internlm_models import MARKERS, make_internlm2

TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"enum": ["Paris", "巴黎"]}, "days": {"type": "integer", "maximum": 9}},
                "required": ["city", "days"],
            },
        },
    }
]


@pytest.fixture(scope="module")
def internlm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("internlm")
    model = make_internlm2(folder / "internlm2-tiny", shards=2, max_position_embeddings=2048)
    log = folder / "server.log"
    with serving(folder / "home", log, str(model)) as server:
        yield server
        assert server.end() == 0
    assert "Traceback" not in log.read_text()
    assert "code of a model was run" not in log.read_text()


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_call_is_whole(internlm: Server, temperature: float, stream: bool) -> None:
    with openai.OpenAI(base_url=f"{internlm.url}/v1", api_key="any", max_retries=0) as client:
        asked: dict[str, Any] = {
            "model": "internlm2-tiny",
            "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
            "tools": TOOLS,
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "temperature": temperature,
            "max_tokens": 400,
            "seed": 1,
        }
        if stream:
            with client.chat.completions.stream(**asked) as chunks:
                choice: Any = chunks.until_done().get_final_completion().choices[0]
        else:
            choice = client.chat.completions.create(**asked).choices[0]
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    (call,) = choice.message.tool_calls
    arguments = json.loads(call.function.arguments)
    assert call.function.name == "get_weather"
    assert arguments["city"] in ("Paris", "巴黎") and arguments["days"] <= 9


def test_no_marker_is_in_a_text(internlm: Server) -> None:
    body = {
        "model": "internlm2-tiny",
        "messages": [{"role": "user", "content": "".join(MARKERS)}],
        "tools": TOOLS,
        "max_tokens": 60,
        "n": 4,
        "seed": 5,
    }
    reply = internlm.http.post("/v1/chat/completions", json=body).json()
    for choice in reply["choices"]:
        assert not any(marker in (choice["message"]["content"] or "") for marker in MARKERS)


def test_it_speaks_its_own_dialect(internlm: Server) -> None:
    (model,) = internlm.http.get("/v1/models").json()["data"]
    assert model["tool_dialect"] == "internlm2"
