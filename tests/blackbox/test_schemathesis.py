"""schemathesis against the live server: for whatever it makes of the description, no answer is a server error."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, assume, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tunechat.serve.api.app import create_app
from tunechat.serve.api.settings import ApiSettings
from tunechat.serve.engine.client import EngineClient
from tunechat.serve.engine.options import EngineOptions
from tunechat.tests.blackbox.server import LEAKS, MODEL, Server
from tunechat.tests.fuzzing import CONFIG

pytestmark = [pytest.mark.usefixtures("healthy_at_end"), pytest.mark.timeout(240)]


VOCABULARY = 49_152
SHAPES = (
    *("tools", "tool_choice", "response_format", "structured_outputs"),
    *("guided_json", "guided_regex", "guided_choice", "guided_grammar"),
)
MAX_BODY_BYTES = ApiSettings.model_fields["max_body_bytes"].default


def _document() -> dict[str, Any]:
    """What the server will say of itself: tests are collected before it runs."""
    engine = EngineClient(EngineOptions(model=MODEL, home=""))
    return create_app(engine, ApiSettings(model=MODEL)).openapi()


schema = schemathesis.openapi.from_dict(_document(), config=CONFIG)


def test_the_server_describes_itself_so(server: Server) -> None:
    assert server.http.get("/openapi.json").json() == _document()


def within(prompt: Any) -> Any:
    """`prompt` with something in each of its parts, and no token that the model has not."""
    if isinstance(prompt, list):
        return [within(part) for part in prompt]
    return prompt % VOCABULARY if isinstance(prompt, int) else prompt or "x"


def aim(body: dict[str, Any]) -> None:
    """Makes a valid body reach the model, which has fewer tokens and other names than the description allows, and
    keeps what it asks for small. The rest stays as it is."""
    body["model"] = MODEL
    for name, most in {"n": 2, "min_tokens": 2, "logprobs": 20, "top_logprobs": 20}.items():
        if isinstance(body.get(name), int) and not isinstance(body[name], bool):
            body[name] = min(body[name], most)
    # Anything may be a tool or a shape for text as far as the description goes.
    body |= {name: None for name in SHAPES if name in body}
    if body.get("stream_options") is not None:
        body["stream"] = True
    if body.get("stop_token_ids"):
        body["stop_token_ids"] = [token % VOCABULARY for token in body["stop_token_ids"]]
    if body.get("logit_bias"):
        body["logit_bias"] = {str(int(token) % VOCABULARY): bias for token, bias in body["logit_bias"].items()}


def aim_chat(body: dict[str, Any]) -> None:
    aim(body)
    body |= {"max_tokens": 2, "max_completion_tokens": None, "echo": None, "continue_final_message": None}
    if body.get("top_logprobs") is not None:
        body["logprobs"] = True
    for message in body["messages"]:
        message["content"] = message.get("content") or "x"
        message |= {"tool_calls": None, "tunechat": None}
        for part in message["content"] if isinstance(message["content"], list) else ():
            part["text"] = part.get("text") or "x"


def aim_completion(body: dict[str, Any]) -> None:
    aim(body)
    body |= {"prompt": within(body["prompt"]) or "x", "max_tokens": 2, "best_of": None}


def aim_response(body: dict[str, Any]) -> None:
    aim(body)
    body |= {"max_output_tokens": 2, "previous_response_id": None, "text": None, "background": None}
    given = body.get("input")
    said = [item for item in given if "role" in item] if isinstance(given, list) else []
    for item in said:
        for part in item["content"] if isinstance(item["content"], list) else ():
            part |= {"type": "input_text", "text": part.get("text") or "x"}
    body["input"] = given if isinstance(given, str) else said or "x"


def aim_message(body: dict[str, Any]) -> None:
    aim(body)
    body |= {"max_tokens": 2, "output_config": None, "context_management": None}
    if isinstance(body.get("system"), list):
        body["system"] = texts(body["system"])
    for message in body["messages"]:
        message["content"] = texts(message.get("content") or "x")


def texts(content: Any) -> Any:
    """`content` with nothing in it but texts."""
    if isinstance(content, str):
        return content
    return [{"type": "text", "text": part.get("text") or "x"} for part in content]


def aim_embedding(body: dict[str, Any]) -> None:
    body |= {"model": MODEL, "input": within(body["input"]) or "x", "dimensions": None, "adapters": None}


AIMS = {
    "/v1/chat/completions": aim_chat,
    "/v1/completions": aim_completion,
    "/v1/responses": aim_response,
    "/v1/messages": aim_message,
    "/v1/embeddings": aim_embedding,
}


@schema.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_makes_a_server_error(case: schemathesis.Case, server: Server) -> None:
    if case.meta.generation.mode.is_positive and case.path in AIMS:
        AIMS[case.path](case.body)
    check(case, server)


@given(case=schema["/tokenize"]["POST"].as_strategy(generation_mode=schemathesis.GenerationMode.NEGATIVE))
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_body_that_is_wrong_and_too_large_is_refused_for_its_size(case: schemathesis.Case, server: Server) -> None:
    assume(isinstance(case.body, dict))
    case.body["padding"] = "x" * MAX_BODY_BYTES
    assert check(case, server) == 413


def check(case: schemathesis.Case, server: Server) -> int:
    """The status of the answer, which is as described whatever it is."""
    # What one field allows may contradict another; a JSON schema does not say so, and 400 is right then.
    response = case.call_and_validate(base_url=server.url, excluded_checks=[positive_data_acceptance], timeout=60)
    assert response.status_code < 500
    if response.status_code >= 400:
        leak = LEAKS.search(response.content)
        # A name that the request itself brought may look like anything.
        assert leak is None or leak.group().decode() in f"{case.path_parameters} {case.query} {case.body}"
    return int(response.status_code)


@pytest.mark.parametrize("path", AIMS)
def test_many_of_them_reached_the_model(server: Server, path: str) -> None:
    served = server.metrics()[f'tunechat_requests_total{{method="POST",route="{path}",status="200"}}']
    assert served > 40
