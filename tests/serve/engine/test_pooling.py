"""Embeddings in the whole loop: the mean over all tokens, however the prompt was cut, cached or put back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunechat.serve.contract.messages import AdapterUse
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.batch import Batch
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyRunner, alone, toy_logits

POOLED = SamplingParams(max_tokens=0, temperature=0.0, pooled=True)


def expected(prompt: list[int]) -> NDArray[np.float32]:
    states = [
        toy_logits(np.array(prompt[: end + 1], dtype=np.int32), np.zeros(end + 1, dtype=np.int32))[:5]
        for end in range(len(prompt))
    ]
    total = np.zeros(5, dtype=np.float64)
    for state in states:
        total += state
    return (total / len(prompt)).astype(np.float32)


def given_by(harness: Harness, name: str) -> NDArray[np.float32]:
    (output,) = harness.outputs[name]
    assert (output.tokens, output.finish, output.cached_tokens) == ([], "length", 0)
    assert output.embedding is not None
    return np.frombuffer(output.embedding, "<f4")


@settings(max_examples=40)
@given(
    prompts=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=70), min_size=1, max_size=6),
    chunk=st.sampled_from([1, 3, 16]),
    blocks=st.sampled_from([24, 64]),
)
def test_the_same_alone_and_in_company(prompts: list[list[int]], chunk: int, blocks: int) -> None:
    harness = Harness(ToyRunner(blocks=blocks, max_tokens=32), prefill_chunk=chunk)
    for at, prompt in enumerate(prompts):
        harness.submit(f"chat {at}", prompt[:8], greedy(12))
        harness.submit(f"pooled {at}", prompt, POOLED)
    harness.drain()
    for at, prompt in enumerate(prompts):
        assert given_by(harness, f"pooled {at}").tobytes() == expected(prompt).tobytes()
        assert harness.result(f"chat {at}") == alone(prompt[:8], greedy(12))


def test_what_is_cached_is_computed_again_and_what_was_pooled_is_found() -> None:
    prompt = [at % 7 for at in range(30)]
    harness = Harness()
    harness.submit("chat", prompt, greedy(4))
    harness.drain()
    harness.submit("pooled", prompt, POOLED)
    harness.drain()
    assert given_by(harness, "pooled").tobytes() == expected(prompt).tobytes()
    harness = Harness()
    harness.submit("pooled", prompt, POOLED)
    harness.drain()
    harness.submit("chat", prompt, greedy(4))
    harness.drain()
    assert harness.outputs["chat"][-1].cached_tokens == 28
    assert harness.result("chat") == alone(prompt, greedy(4))


def test_one_that_is_put_back_begins_again() -> None:
    harness = Harness(ToyRunner(blocks=16), prefill_chunk=8)
    prompt = [at % 5 for at in range(40)]
    harness.submit("chat", [1, 2, 3], greedy(30))
    harness.drain_until("chat", 5)
    harness.submit("pooled", prompt, POOLED)
    harness.step()
    harness.step()
    (sequence,) = (one for one in harness.scheduler.running if one.id == "pooled")
    assert sequence.pooled is not None
    harness.scheduler._preempt(sequence)
    assert sequence.pooled is None
    harness.drain()
    assert given_by(harness, "pooled").tobytes() == expected(prompt).tobytes()


def test_one_that_is_aborted_gives_nothing() -> None:
    harness = Harness(prefill_chunk=4)
    harness.submit("chat", [1], greedy(30))
    harness.drain_until("chat", 1)
    harness.submit("pooled", [1] * 60, POOLED)
    harness.step()
    harness.step()
    harness.abort("pooled")
    harness.drain()
    assert not harness.outputs["pooled"]


def test_states_that_are_no_numbers_fail_their_own_sequence() -> None:
    class Broken(ToyRunner):
        def forward_pooled(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
            logits, states = super().forward_pooled(batch)
            wrong = torch.from_numpy(batch.tokens[batch.hidden_rows] == 9)
            states[wrong] = float("inf")
            return logits, states

    harness = Harness(Broken())
    harness.submit("bad", [1, 9, 2], POOLED)
    harness.submit("good", [1, 2], POOLED)
    harness.drain()
    assert harness.error("bad").code == "numerical_error"
    assert given_by(harness, "good").tobytes() == expected([1, 2]).tobytes()


def test_adapters_change_it() -> None:
    harness = Harness()
    harness.add("a" * 8)
    harness.submit("base", [1, 2, 3], POOLED)
    harness.submit("adapted", [1, 2, 3], POOLED, adapters=(AdapterUse("a" * 8),))
    harness.drain()
    assert given_by(harness, "base").tobytes() == expected([1, 2, 3]).tobytes()
    assert given_by(harness, "adapted").tobytes() != expected([1, 2, 3]).tobytes()


@pytest.mark.parametrize("count", [1, 4, 5])
def test_blocks_are_given_back(count: int) -> None:
    harness = Harness()
    harness.submit("pooled", [1] * count, POOLED)
    harness.drain()
    assert not harness.scheduler.pool.used
    harness.scheduler.check_integrity()
