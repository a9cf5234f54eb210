"""Compositions: what a request may ask for, what reaches the engine, and how the reply names it."""

from __future__ import annotations

import math
import os
import socket
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunechat.serve.api.schemas.adapters import MAX_ADAPTERS, MAX_WEIGHT, AdapterWeight
from tunechat.serve.api.schemas.completions import CompletionRequest
from tunechat.serve.api.served import ServedModel, acquire, composed
from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.errors import InvalidRequest, ModelNotFound
from tunechat.tests.serve.api.adapter_files import ask, upload
from tunechat.tests.serve.api.conftest import Serve

BASE = ServedModel("tiny", "fp_base")
NAMES = [f"adapter{index}" for index in range(MAX_ADAPTERS)]
weights = st.floats(-MAX_WEIGHT, MAX_WEIGHT, allow_nan=False)


@dataclass
class Shelf:
    """Lends version 1 of every name; adapters with the same first letter have the same weights."""

    lent: list[AdapterRef] = field(default_factory=list)

    def acquire(self, text: str) -> AdapterRef:
        if not text.startswith("adapter"):
            raise ModelNotFound("not here")
        self.lent.append(
            AdapterRef(name=text.partition("@")[0], number=1, digest=text.partition("@")[0].ljust(64, "0"))
        )
        return self.lent[-1]

    def release(self, ref: AdapterRef) -> None:
        self.lent.remove(ref)


def compose(shelf: Shelf, closing: ExitStack, wanted: list[AdapterWeight], model: str = "tiny", most: int = 0) -> Any:
    def lend(name: str, param: str) -> AdapterRef:
        return acquire(shelf, name, closing, param)

    return composed(BASE, model, wanted, lend, is_base=model == "tiny", most=most)


@given(st.dictionaries(st.sampled_from(NAMES), weights, min_size=2), st.randoms())
def test_a_composition_is_named_by_its_parts_and_known_by_its_sum(parts: dict[str, float], chance: Any) -> None:
    shelf, pairs = Shelf(), list(parts.items())
    with ExitStack() as closing:
        served = compose(shelf, closing, [AdapterWeight(name=name, weight=weight) for name, weight in pairs])
        assert served.name == "+".join(f"{name}@1*{weight:g}" for name, weight in pairs)
        assert served.headers == {"x-tunechat-adapter": served.name}
        assert [use.weight for use in served.uses] == [weight for _, weight in pairs]
        chance.shuffle(pairs)
        again = compose(shelf, closing, [AdapterWeight(name=name, weight=weight) for name, weight in pairs])
        assert again.fingerprint == served.fingerprint
        name, weight = pairs[0]
        pairs[0] = (name, weight + 1 if weight < 7 else weight - 1)
        other = compose(shelf, closing, [AdapterWeight(name=name, weight=weight) for name, weight in pairs])
        assert other.fingerprint != served.fingerprint
    assert shelf.lent == []


def test_one_adapter_in_full_is_that_adapter() -> None:
    with ExitStack() as closing:
        served = compose(Shelf(), closing, [AdapterWeight(name="adapter0")], model="adapter0")
        assert (served.name, served.fingerprint) == ("adapter0@1", f"fp_base_{'adapter0'.ljust(12, '0')}")
        weighted = compose(Shelf(), closing, [AdapterWeight(name="adapter0", weight=0.5)], model="adapter0@1")
        assert weighted.name == "adapter0@1*0.5"
        assert weighted.fingerprint != served.fingerprint


@pytest.mark.parametrize(
    ("names", "model", "most", "error", "param"),
    [
        (["adapter0", "adapter0@1"], "tiny", 0, InvalidRequest, "adapters"),
        (["adapter0", "adapter1"], "adapter2", 0, InvalidRequest, "model"),
        (["adapter0", "adapter1"], "tiny", 1, InvalidRequest, "adapters"),
        (["adapter0", "../x"], "tiny", 0, ModelNotFound, "adapters[1].name"),
        (["no"], "tiny", 0, ModelNotFound, "adapters[0].name"),
    ],
)
def test_compositions_that_make_no_sense(names: list[str], model: str, most: int, error: Any, param: str) -> None:
    shelf = Shelf()
    with pytest.raises(error) as raised, ExitStack() as closing:
        compose(shelf, closing, [AdapterWeight(name=name) for name in names], model, most)
    assert raised.value.param == param
    assert shelf.lent == []


@given(
    st.lists(
        st.fixed_dictionaries(
            {"name": st.text(max_size=3)},
            optional={"weight": st.floats() | st.integers() | st.booleans() | st.text(max_size=2) | st.none()},
        ),
        max_size=MAX_ADAPTERS + 2,
    )
)
def test_only_bounded_lists_of_finite_weights_are_read(adapters: list[dict[str, Any]]) -> None:
    names = [one["name"] for one in adapters]
    given_weights = [one.get("weight", 1.0) for one in adapters]
    is_good = (
        1 <= len(adapters) <= MAX_ADAPTERS
        and all(names)
        and len(set(names)) == len(names)
        and all(type(weight) in (int, float) for weight in given_weights)
        and all(math.isfinite(weight) and abs(weight) <= MAX_WEIGHT for weight in given_weights)
    )
    try:
        body = CompletionRequest.model_validate({"model": "tiny", "prompt": "x", "adapters": adapters})
    except (ValidationError, InvalidRequest):
        assert not is_good
        return
    assert is_good
    assert [one.weight for one in body.adapters or ()] == given_weights


async def test_a_composition_over_http(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    digests = [(await upload(served, name, seed)).json()["digest"] for seed, name in enumerate(("a", "b"))]
    wanted = [{"name": "a", "weight": 0.7}, {"name": "b@1", "weight": -0.5}]
    for model in ("tiny", "a", "a@1", "b@1"):
        answer = await ask(served, model, adapters=wanted)
        assert answer.json()["model"] == answer.headers["x-tunechat-adapter"] == "a@1*0.7+b@1*-0.5"
        assert [(use.digest, use.weight) for use in served.engine.uses[-1]] == list(
            zip(digests, (0.7, -0.5), strict=True)
        )
    assert (await ask(served, "a", adapters=None)).json()["model"] == "a@1"


@pytest.mark.parametrize(
    ("adapters", "status", "param"),
    [
        ([], 400, "adapters"),
        ([{"name": "a"}] * 9, 400, "adapters"),
        ([{"name": "a", "weight": 9}], 400, "adapters[0].weight"),
        ([{"name": "a", "weight": True}], 400, "adapters[0].weight"),
        ([{"name": "a", "scale": 1}], 400, "adapters[0].scale"),
        ([{"name": "a"}, {"name": "a"}], 400, "adapters"),
        ([{"name": "a"}, {"name": "a@1"}], 400, "adapters"),
        ([{"weight": 1}], 400, "adapters[0].name"),
        ([{"name": "../../etc"}], 404, "adapters[0].name"),
        ([{"name": "b"}], 404, "adapters[0].name"),
        ("a", 400, "adapters"),
    ],
)
async def test_what_is_wrong_is_named(serve: Serve, tmp_path: Path, adapters: Any, status: int, param: str) -> None:
    served = await serve(adapter_store=tmp_path)
    await upload(served, "a")
    answer = await ask(served, "a", adapters=adapters)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_unknown_models_are_looked_up_nowhere(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R53: once the server runs, a name that is not known opens no file and no connection."""
    served = await serve(adapter_store=tmp_path)
    await upload(served, "a")
    touched: list[object] = []

    def watch(module: Any, name: str) -> None:
        original = getattr(module, name)

        def watched(*args: Any, **options: Any) -> Any:
            if not str(args[0]).endswith(".py"):  # tracebacks look at sources
                touched.append((name, args))
            return original(*args, **options)

        monkeypatch.setattr(module, name, watched)

    for name in ("open", "stat", "lstat", "scandir", "listdir", "readlink"):
        watch(os, name)
    watch(socket, "getaddrinfo")
    answers = [await ask(served, name) for name in ("b", "a@2", "org/name", "https://x.test/a", "/etc")]
    tokens = await served.client.post("/tokenize", json={"model": "b", "prompt": "x"})
    monkeypatch.undo()
    assert touched == []
    for answer in (*answers, tokens):
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")


async def test_tokenize_takes_names_of_adapters(serve: Serve, tmp_path: Path) -> None:
    served = await serve(adapter_store=tmp_path)
    await upload(served, "a")
    for name in ("a", "a@1", "tiny"):
        response = await served.client.post("/tokenize", json={"model": name, "prompt": "x"})
        assert response.json()["count"] == 1
    assert (await served.client.get("/v1/adapters/a")).json()["requests"] == 0
