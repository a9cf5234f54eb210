from __future__ import annotations

import asyncio
import base64
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tunechat.serve.contract.errors import ErrorRecord, Overloaded
from tunechat.tests.serve.api.adapter_files import write_adapter
from tunechat.tests.serve.api.conftest import Serve
from tunechat.tests.serve.api.harness import CONTEXT, HIDDEN, MODEL, call, make_scope, scripted_mean

PATH = "/v1/embeddings"


def asked(given: Any = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "input": given, **fields}


def unit(prompt: list[int]) -> list[float]:
    mean = np.frombuffer(scripted_mean(prompt), "<f4").astype(np.float64)
    vector: list[float] = (mean / np.linalg.norm(mean)).astype(np.float32).tolist()
    return vector


@pytest.mark.parametrize(
    ("given", "prompts"),
    [
        ("Hi", [[39, 72]]),
        (["Hi", "a", "Hi"], [[39, 72], [64], [39, 72]]),
        ([39, 72], [[39, 72]]),
        ([[39, 72], [64]], [[39, 72], [64]]),
        (["<|im_end|>"], None),
    ],
)
async def test_every_form_of_input(serve: Serve, given: Any, prompts: list[list[int]] | None) -> None:
    served = await serve()
    reply = (await served.client.post(PATH, json=asked(given))).json()
    submitted = [prompt for prompt, _ in served.engine.submitted]
    if prompts is None:
        # What looks like a control token is text.
        assert len(submitted[0]) == len("<|im_end|>")
        return
    assert submitted == prompts
    assert all(params.pooled and params.max_tokens == 0 for _, params in served.engine.submitted)
    assert (reply["object"], reply["model"]) == ("list", MODEL)
    assert reply["system_fingerprint"].startswith("fp_")
    assert [one["index"] for one in reply["data"]] == list(range(len(prompts)))
    assert [one["embedding"] for one in reply["data"]] == [pytest.approx(unit(prompt)) for prompt in prompts]
    count = sum(map(len, prompts))
    assert reply["usage"] == {"prompt_tokens": count, "total_tokens": count}


async def test_base64_is_float32_little_endian_of_length_one(serve: Serve) -> None:
    served = await serve()
    reply = (await served.client.post(PATH, json=asked(encoding_format="base64", dimensions=HIDDEN))).json()
    vector = np.frombuffer(base64.b64decode(reply["data"][0]["embedding"]), "<f4")
    assert vector.tolist() == unit([39, 72])
    assert math.isclose(float(np.linalg.norm(vector.astype(np.float64))), 1.0, abs_tol=1e-6)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": ""}, "input", "invalid_request"),
        ({"input": []}, "input", None),
        ({"input": ["a", ""]}, "input[1]", "invalid_request"),
        ({"input": [[1], []]}, None, None),
        ({"input": [[1, 2], [300]]}, "input[1][0]", "invalid_request"),
        ({"input": [-1]}, None, None),
        ({"input": [1, "a"]}, None, None),
        ({"input": 7}, None, None),
        ({"input": None}, None, None),
        ({"input": "x" * (CONTEXT + 1)}, "input", "context_length_exceeded"),
        ({"input": ["a", "x" * (CONTEXT + 1)]}, "input[1]", "context_length_exceeded"),
        ({"input": ["a"] * 2049}, None, None),
        ({"dimensions": HIDDEN - 1}, "dimensions", "invalid_request"),
        ({"dimensions": 0}, "dimensions", None),
        ({"encoding_format": "hex"}, "encoding_format", None),
        ({"truncate_prompt_tokens": 5}, "truncate_prompt_tokens", "unsupported"),
    ],
)
async def test_what_is_wrong_is_named(
    serve: Serve, fields: dict[str, Any], param: str | None, code: str | None
) -> None:
    served = await serve()
    reply = await served.client.post(PATH, json=asked() | fields)
    error = reply.json()["error"]
    assert reply.status_code == 400, error
    if param is not None:
        assert error["param"] == param
    assert str(error["param"]).startswith(next(iter(fields)))
    if code is not None:
        assert error["code"] == code
    assert not served.engine.submitted
    assert (await served.client.post(PATH, json=asked(model="nobody"))).status_code == 404


async def test_the_longest_input_and_the_longest_list_are_taken(serve: Serve) -> None:
    served = await serve()
    assert (await served.client.post(PATH, json=asked("x" * CONTEXT))).status_code == 200
    reply = (await served.client.post(PATH, json=asked(["a", "bc"] * 1024))).json()
    assert [one["embedding"] for one in reply["data"][2046:]] == [pytest.approx(unit(p)) for p in ([64], [65, 66])]
    assert not served.engine.open


async def test_few_inputs_run_at_a_time_and_end_when_the_client_leaves(serve: Serve) -> None:
    gate = asyncio.Event()
    served = await serve(engine={"gates": {0: gate}})
    leave = asyncio.Event()
    body = json.dumps(asked(["a"] * 100)).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    running = asyncio.create_task(call(served.app, make_scope("POST", PATH, headers), body, leave=leave))
    await served.engine.until_waiting(16)
    assert len(served.engine.open) == 16
    leave.set()
    await running
    assert len(served.engine.aborted) == 16
    assert not served.engine.open


async def test_one_that_fails_ends_all(serve: Serve) -> None:
    fault = ErrorRecord(code="out_of_memory", message="no room", http_status=503)
    served = await serve(engine={"faults": {0: fault}})
    reply = await served.client.post(PATH, json=asked(["a"] * 40))
    assert (reply.status_code, reply.json()["error"]["code"]) == (503, "out_of_memory")
    assert not served.engine.open


async def test_a_full_queue_is_429(serve: Serve) -> None:
    served = await serve(engine={"refusal": Overloaded("full", retry_after=3)})
    reply = await served.client.post(PATH, json=asked())
    assert (reply.status_code, reply.headers["retry-after"]) == (429, "3")


async def test_it_ends_when_its_time_is_over_or_the_server_stops(serve: Serve) -> None:
    served = await serve(engine={"gates": {0: asyncio.Event()}}, request_timeout=0.1)
    reply = await served.client.post(PATH, json=asked(["a"] * 20))
    assert (reply.status_code, reply.json()["error"]["code"]) == (504, "generation_timeout")
    assert not served.engine.open
    served = await serve(engine={"gates": {0: asyncio.Event()}})
    running = asyncio.create_task(served.client.post(PATH, json=asked()))
    await served.engine.until_waiting(1)
    served.gateway.drain.begin()
    served.gateway.drain.force()
    assert (await running).status_code == 503
    assert not served.engine.open


async def test_an_adapter_is_chosen_by_model(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path / "store")
    body = {"lora_name": "support", "lora_path": str(write_adapter(tmp_path / "support"))}
    assert (await served.client.post("/v1/load_lora_adapter", json=body)).status_code == 200
    reply = await served.client.post(PATH, json=asked(["a", "b"], model="support"))
    assert (reply.json()["model"], reply.headers["x-tunechat-adapter"]) == ("support@1", "support@1")
    weighted = await served.client.post(PATH, json=asked(adapters=[{"name": "support", "weight": 0.5}]))
    assert weighted.json()["model"] == "support@1*0.5"
    assert [[use.weight for use in uses] for uses in served.engine.uses] == [[1.0], [1.0], [0.5]]
    assert len({use.digest for uses in served.engine.uses for use in uses}) == 1


async def test_tokens_are_counted_and_tenants_kept_apart(serve: Serve) -> None:
    served = await serve(api_keys=("k1", "k2"))
    for key in ("k1", "k2"):
        headers = {"authorization": f"Bearer {key}"}
        assert (await served.client.post(PATH, json=asked(), headers=headers)).status_code == 200
    assert (await served.client.post(PATH, json=asked())).status_code == 401
    first, second = served.engine.salts
    assert first and second and first != second
    text = served.gateway.metrics.render().decode()
    assert 'tunechat_tokens_total{kind="prompt"} 4.0' in text
