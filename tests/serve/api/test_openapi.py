"""The description of the API is complete and true."""

from __future__ import annotations

from typing import Any

from tunechat.serve.api.schemas.chat import ChatRequest
from tunechat.tests.serve.api.conftest import Serve

# What these post to is told all by the path.
BARE = ("/v1/adapters/{adapter}/", "/v1/responses/{", "/v1/fine_tuning/jobs/{")


async def document_of(serve: Serve) -> Any:
    served = await serve()
    response = await served.client.get("/openapi.json")
    assert response.status_code == 200
    return response.json()


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


async def test_every_reference_leads_somewhere(serve: Serve) -> None:
    document = await document_of(serve)
    names = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert references(document) <= names


async def test_bodies_and_errors_are_described(serve: Serve) -> None:
    document = await document_of(serve)
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"]
            has_body = method == "post" and not path.startswith(BARE)
            assert ("requestBody" in operation) == has_body, path
            for status, response in operation["responses"].items():
                if int(status) >= 400 and path not in {"/livez", "/readyz"}:
                    schema = response["content"]["application/json"]["schema"]
                    name = "AnthropicError" if path.startswith("/v1/messages") else "Error"
                    assert schema == {"$ref": f"#/components/schemas/{name}"}
    assert not {"HTTPValidationError", "ValidationError"} & set(document["components"]["schemas"])


async def test_every_field_of_a_chat_is_described(serve: Serve) -> None:
    document = await document_of(serve)
    properties = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert set(properties) == set(ChatRequest.model_fields)
    assert properties["functions"]["enum"] == [[], None]
    assert properties["logit_bias"]["anyOf"][0]["propertyNames"]["pattern"]
