"""Metrics by adapter: what is counted, where adapters are, and that labels go with their versions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from tunechat.serve.contract.messages import AdapterMoves, AdapterResidency, EngineStats
from tunechat.tests.serve.api.adapter_files import ask, upload
from tunechat.tests.serve.api.conftest import Serve, Served


async def metrics(served: Served) -> dict[str, float]:
    text = (await served.client.get("/metrics")).text
    return {name: float(value) for name, value in re.findall(r"^(tunechat_adapter\S+) (\S+)$", text, re.MULTILINE)}


async def test_requests_and_tokens_are_counted_by_version(serve: Serve, tmp_path: Path) -> None:
    served = await serve({"cached_tokens": 3}, adapter_store=tmp_path)
    await upload(served, "a", 1)
    await upload(served, "b", 2)
    usage = (await ask(served, "a")).json()["usage"]
    await ask(served, "tiny", adapters=[{"name": "a"}, {"name": "b"}])
    await ask(served, "tiny")
    found = await metrics(served)
    assert found['tunechat_adapter_requests_total{adapter="a@1"}'] == 2
    assert found['tunechat_adapter_requests_total{adapter="b@1"}'] == 1
    assert found['tunechat_adapter_tokens_total{adapter="b@1",kind="prompt"}'] == usage["prompt_tokens"]
    assert found['tunechat_adapter_tokens_total{adapter="b@1",kind="cached_prompt"}'] == 3
    assert found['tunechat_adapter_tokens_total{adapter="b@1",kind="completion"}'] == usage["completion_tokens"]
    assert found['tunechat_adapter_first_token_seconds_count{adapter="a@1"}'] == 2
    assert found['tunechat_adapter_first_token_seconds_sum{adapter="a@1"}'] > 0


async def test_labels_go_when_the_version_goes(serve: Serve, tmp_path: Path) -> None:
    gate = asyncio.Event()
    served = await serve({"gates": {2: gate}}, adapter_store=tmp_path)
    await upload(served, "a", 1)
    running = asyncio.create_task(ask(served, "a"))
    await served.engine.until_waiting(1)
    await served.client.post("/v1/adapters/a/unload")
    gate.set()
    assert (await running).status_code == 200
    assert not any("a@1" in name for name in await metrics(served))
    await served.client.post("/v1/adapters/a/load")
    await ask(served, "a")
    assert (await metrics(served))['tunechat_adapter_requests_total{adapter="a@1"}'] == 1
    await served.client.delete("/v1/adapters/a")
    assert not any("a@1" in name for name in await metrics(served))


async def test_residency_and_states_are_read_at_each_scrape(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    digests = [(await upload(served, name, seed)).json()["digest"] for seed, name in enumerate("abc")]
    served.engine.stats = EngineStats(
        adapters=[
            AdapterResidency(digest=digests[0], bytes=10, slot=0),
            AdapterResidency(digest=digests[1], bytes=20),
            AdapterResidency(digest="f" * 64, bytes=30),
        ],
        adapter_moves=[AdapterMoves(digests[0], 4, 1), AdapterMoves(digests[2], 1, 1)],
        adapter_loads=5,
        adapter_evictions=2,
    )
    found = await metrics(served)
    assert found['tunechat_adapters{state="loaded"}'] == 3
    assert found['tunechat_adapter_resident{adapter="a@1",tier="device"}'] == 1
    assert found['tunechat_adapter_resident{adapter="b@1",tier="host"}'] == 1
    assert found['tunechat_adapter_bytes{adapter="b@1"}'] == 20
    assert found['tunechat_adapter_loads_total{adapter="a@1"}'] == 4
    assert found['tunechat_adapter_evictions_total{adapter="a@1"}'] == 1
    assert found['tunechat_adapter_evictions_total{adapter="c@1"}'] == 1
    assert not any('resident{adapter="c@1"' in name or "ffff" in name for name in found)
    text = (await served.client.get("/metrics")).text
    assert "tunechat_engine_adapter_loads_total 5.0" in text
    assert "tunechat_engine_adapter_evictions_total 2.0" in text
