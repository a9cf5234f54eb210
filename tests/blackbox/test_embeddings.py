"""Embeddings of the default model: by the official client and by LangChain, against transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import tiktoken
import torch
from langchain_openai import OpenAIEmbeddings
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.served_tensors import ServedTensors
from tunechat.tests.blackbox.server import MODEL, Server

pytestmark = pytest.mark.usefixtures("healthy_at_end")

TEXTS = ["The sea is wide.", "Das Meer ist weit.", "def area(r): return 3.14 * r ** 2", "sea " * 120, "日本"]
Vectors = NDArray[np.float64]


def vectors(reply: Any) -> Vectors:
    return np.array([one.embedding for one in reply.data])


@pytest.fixture(scope="module")
def reference(default_entry: Path) -> Vectors:
    from transformers import AutoConfig, AutoModel

    weights = ServedTensors(BaseEntry.open(default_entry))
    model = AutoModel.from_config(AutoConfig.from_pretrained(default_entry), dtype=torch.float32).eval()
    model.load_state_dict({name.removeprefix("model."): weights.tensor(name).float() for name in weights.names})
    tokenizer = Tokenizer.from_file(str(default_entry / "tokenizer.json"))
    means = []
    for text in TEXTS:
        with torch.inference_mode():
            states = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0]
        mean = states.double().mean(dim=0).numpy()
        means.append(mean / np.linalg.norm(mean))
    return np.array(means)


def test_they_are_those_of_transformers(client: openai.OpenAI, reference: Vectors) -> None:
    reply = client.embeddings.create(model=MODEL, input=TEXTS)
    assert reply.model == MODEL
    given = vectors(reply)
    assert given.shape == (len(TEXTS), 576)
    assert np.allclose(np.linalg.norm(given, axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(given, reference, atol=2e-3)
    as_numbers = client.embeddings.create(model=MODEL, input=TEXTS, encoding_format="float")
    np.testing.assert_array_equal(vectors(as_numbers).astype(np.float32), given.astype(np.float32))


def test_company_and_caches_change_no_bit(client: openai.OpenAI) -> None:
    alone = [vectors(client.embeddings.create(model=MODEL, input=text)) for text in TEXTS]
    talk: Any = [{"role": "user", "content": TEXTS[3]}]
    chats = [
        threading.Thread(
            target=client.chat.completions.create, kwargs={"model": MODEL, "messages": talk, "max_tokens": 24}
        )
        for _ in range(3)
    ]
    for chat in chats:
        chat.start()
    together = vectors(client.embeddings.create(model=MODEL, input=TEXTS * 2))
    for chat in chats:
        chat.join()
    assert together.tobytes() == np.concatenate(alone * 2).tobytes()


def test_what_is_too_long_is_refused_and_named(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.embeddings.create(model=MODEL, input=["fine", "sea " * 9000])
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "input[1]")


class ModelEncoding:
    """What LangChain asks of tiktoken, with the model's own tokens."""

    def __init__(self, entry: Path) -> None:
        self._tokenizer = Tokenizer.from_file(str(entry / "tokenizer.json"))

    def encode(self, text: str, *, disallowed_special: str | Sequence[str] = ()) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        return ids

    encode_ordinary = encode


@pytest.mark.parametrize("as_tokens", [False, True], ids=["text", "token ids"])
async def test_langchain_works_with_texts_and_with_token_ids(
    server: Server, client: openai.OpenAI, default_entry: Path, monkeypatch: pytest.MonkeyPatch, as_tokens: bool
) -> None:
    monkeypatch.setattr(tiktoken, "encoding_for_model", lambda name: ModelEncoding(default_entry))
    made: dict[str, Any] = {"base_url": f"{server.url}/v1", "api_key": "any", "max_retries": 0}
    expected = vectors(client.embeddings.create(model=MODEL, input=TEXTS))
    async with httpx.AsyncClient(trust_env=False) as asynchronous:
        with httpx.Client(trust_env=False) as synchronous:
            made |= {"http_client": synchronous, "http_async_client": asynchronous}
            model = OpenAIEmbeddings(model=MODEL, check_embedding_ctx_length=as_tokens, **made)
            np.testing.assert_allclose(model.embed_documents(TEXTS), expected, atol=1e-6)
            np.testing.assert_allclose(await model.aembed_query(TEXTS[0]), expected[0], atol=1e-6)
