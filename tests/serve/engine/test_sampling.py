"""The choice of tokens: filters, penalties, draws, log-probabilities, and what they promise together."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tunechat.serve.contract.messages import Submit
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.chooser import Chooser
from tunechat.serve.engine.filters import draw, keep_min_p, keep_top_p, top_k_ids, weights_of
from tunechat.serve.engine.logprobs import token_logprob
from tunechat.serve.engine.plan import Plan, Work
from tunechat.serve.engine.sampler import Rows, sample
from tunechat.serve.engine.sequence import Sequence
from tunechat.serve.engine.uniform import uniform
from tunechat.tests.serve.engine.harness import greedy

VOCAB = 16
LOGITS = st.lists(st.floats(-20, 20, width=32) | st.sampled_from([0.0, 1.0]), min_size=VOCAB, max_size=VOCAB).map(
    lambda values: np.array(values, dtype=np.float32)
)


def kept(weights: NDArray[np.float32]) -> set[int]:
    return set(np.flatnonzero(weights).tolist())


@given(LOGITS, st.integers(1, VOCAB))
def test_top_k_keeps_the_k_largest_and_their_equals(logits: NDArray[np.float32], k: int) -> None:
    smallest = sorted(logits, reverse=True)[k - 1]
    assert top_k_ids(logits, k).tolist() == [at for at in range(VOCAB) if logits[at] >= smallest]


def test_top_p_of_nothing_keeps_the_largest() -> None:
    weights = weights_of(np.array([0.0, 3.0, 1.0], dtype=np.float32), 1.0)
    keep_top_p(weights, 0.0)
    assert kept(weights) == {1}
    equal = np.ones(49, dtype=np.float32)
    keep_top_p(equal, 1e-12)
    assert kept(equal) == set(range(49))


@given(LOGITS, st.floats(0.01, 0.999))
def test_top_p_keeps_the_smallest_set_that_is_heavy_enough(logits: NDArray[np.float32], p: float) -> None:
    weights = weights_of(logits, 1.0)
    before = weights.astype(np.float64)
    keep_top_p(weights, p)
    nucleus = kept(weights)
    mass = before[list(nucleus)].sum() / before.sum()
    lightest = min(before[list(nucleus)])
    without = sum(before[at] for at in nucleus if before[at] > lightest) / before.sum()
    assert mass >= p - 1e-9
    assert without < p + 1e-9
    assert all(before[at] < lightest for at in set(range(VOCAB)) - nucleus)


@given(LOGITS, st.floats(0.01, 1.0))
def test_min_p_is_relative_to_the_largest(logits: NDArray[np.float32], min_p: float) -> None:
    weights = weights_of(logits, 1.0)
    before = weights.copy()
    keep_min_p(weights, min_p)
    assert kept(weights) == {at for at in range(VOCAB) if before[at] >= np.float32(min_p)}


@given(LOGITS, st.floats(0.0, 1.0, exclude_max=True), st.floats(0, 2, width=32))
def test_a_draw_is_a_token_with_weight(logits: NDArray[np.float32], u: float, temperature: float) -> None:
    weights = weights_of(logits, temperature)
    assert weights[draw(weights, u)] > 0


@given(st.integers(1, 1500), st.integers(0, 2**32 - 1), st.floats(0.0, 1.0, exclude_max=True), st.floats(0.0, 0.999))
def test_a_draw_is_the_inverse_of_the_cumulated_weights(size: int, seed: int, u: float, sparsity: float) -> None:
    generator = np.random.default_rng(seed)
    weights = generator.random(size, dtype=np.float32)
    weights[generator.random(size) < sparsity] = 0.0
    weights[generator.integers(size)] = 1.0
    token = draw(weights, u)
    mass = np.cumsum(weights, dtype=np.float64) / weights.sum(dtype=np.float64)
    assert weights[token] > 0
    assert mass[token] >= u - 1e-9
    assert token == 0 or mass[token - 1] <= u + 1e-9


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_have_the_distribution_of_the_model(temperature: float) -> None:
    logits = np.linspace(-1.0, 2.0, VOCAB, dtype=np.float32)
    draws = 20_000
    chooser = Chooser(SamplingParams(max_tokens=draws, temperature=temperature, seed=11), [])
    counts = Counter(chooser.choose(logits, index) for index in range(draws))
    expected = np.exp(logits.astype(np.float64) / temperature)
    expected *= draws / expected.sum()
    chi_square = sum((counts[at] - expected[at]) ** 2 / expected[at] for at in range(VOCAB))
    # The 99.9 % quantile of chi-square with 15 degrees of freedom.
    assert chi_square < 37.7


def test_uniform_draws_are_uniform_over_indices_and_over_seeds() -> None:
    for draws in (
        [uniform(5, index) for index in range(20_000)],
        [uniform(seed, 3) for seed in range(20_000)],
        [uniform(-seed, seed) for seed in range(20_000)],
    ):
        counts = np.histogram(draws, bins=64, range=(0, 1))[0]
        # The 99.9 % quantile of chi-square with 63 degrees of freedom.
        assert float(((counts - 312.5) ** 2 / 312.5).sum()) < 103.4
        assert abs(float(np.corrcoef(draws[:-1], draws[1:])[0, 1])) < 0.03


def test_uniform_draws_never_change() -> None:
    assert [uniform(0, 0), uniform(0, 1), uniform(2**64 - 1, 0)] == [
        0.6524484863740322,
        0.7012121095215252,
        0.3662420901697574,
    ]
    assert 0.0 <= uniform(-3, 10**9) < 1.0


@given(
    LOGITS,
    st.lists(st.integers(0, VOCAB - 1), max_size=200),
    st.lists(st.integers(0, VOCAB - 1), max_size=100),
    st.floats(-2, 2),
    st.floats(-2, 2),
    st.floats(0.5, 2),
)
def test_penalties_follow_their_formulas(
    logits: NDArray[np.float32],
    prompt: list[int],
    completion: list[int],
    presence: float,
    frequency: float,
    repetition: float,
) -> None:
    params = greedy(1000, presence_penalty=presence, frequency_penalty=frequency, repetition_penalty=repetition)
    chooser = Chooser(params, prompt)
    for token in completion:
        chooser.observe(token)
    expected = logits.astype(np.float64)
    for token in set(prompt) | set(completion):
        expected[token] *= 1 / repetition if expected[token] > 0 else repetition
        expected[token] -= completion.count(token) * frequency + (token in completion) * presence
    before = logits.copy()
    token = chooser.choose(logits, len(completion))
    assert expected[token] == pytest.approx(expected.max(), abs=1e-3)
    assert np.array_equal(logits, before)


def test_many_distinct_tokens_are_counted() -> None:
    chooser = Chooser(greedy(1000, presence_penalty=1.0), [])
    for token in range(500):
        chooser.observe(token)
    assert chooser.choose(np.zeros(501, dtype=np.float32), 500) == 500


def test_bias_bans_and_forces_tokens() -> None:
    logits = np.arange(VOCAB, dtype=np.float32)
    assert Chooser(greedy(1, logit_bias={VOCAB - 1: -100.0}), []).choose(logits, 0) == VOCAB - 2
    assert Chooser(greedy(1, logit_bias={3: 100.0}), []).choose(logits, 0) == 3


def test_stop_tokens_are_banned_until_enough_is_generated() -> None:
    logits = np.arange(VOCAB, dtype=np.float32)
    chooser = Chooser(greedy(9, min_tokens=2, stop_token_ids=(VOCAB - 1,)), [])
    assert [chooser.choose(logits, index) for index in range(4)] == [VOCAB - 2, VOCAB - 2, VOCAB - 1, VOCAB - 1]
    assert [chooser.is_argmax(index) for index in range(4)] == [False, False, True, True]


def test_greedy_takes_the_lowest_of_equal_ones() -> None:
    logits = np.zeros(VOCAB, dtype=np.float32)
    logits[[4, 9]] = 1.0
    assert Chooser(greedy(1), []).choose(logits, 0) == 4
    assert Chooser(greedy(1, logit_bias={0: -1.0}), []).choose(logits, 0) == 4
    assert plan_tokens([(greedy(1), logits)]) == [4]


@given(LOGITS, st.integers(0, VOCAB - 1), st.integers(0, VOCAB + 3))
def test_log_probabilities_are_the_log_softmax(logits: NDArray[np.float32], token: int, count: int) -> None:
    entry = token_logprob(logits, token, count)
    expected = torch.log_softmax(torch.from_numpy(logits).double(), dim=0)
    assert entry.logprob == pytest.approx(float(expected[token]), abs=1e-4)
    order = sorted(range(VOCAB), key=lambda at: (-logits[at], at))[: min(count, VOCAB)]
    assert [at for at, _ in entry.top] == order
    assert all(value == pytest.approx(float(expected[at]), abs=1e-4) for at, value in entry.top)


def plan_of(requests: list[tuple[SamplingParams, NDArray[np.float32]]]) -> tuple[Plan, torch.Tensor]:
    works = []
    for at, (params, _) in enumerate(requests):
        sequence = Sequence.of(Submit(sequence=str(at), prompt=[1, 2], params=params), at)
        works.append(Work(sequence, 1, 1))
    return tuple(works), torch.from_numpy(np.stack([logits for _, logits in requests]))


def plan_tokens(requests: list[tuple[SamplingParams, NDArray[np.float32]]]) -> list[int | None]:
    return [result.token for result in sample(*plan_of(requests))]


REQUESTS = st.tuples(
    st.builds(
        SamplingParams,
        max_tokens=st.just(4),
        temperature=st.sampled_from([0.0, 0.3, 1.0]),
        top_p=st.sampled_from([1.0, 0.7]),
        top_k=st.sampled_from([0, 3]),
        min_p=st.sampled_from([0.0, 0.1]),
        seed=st.integers(0, 2**63),
        logprobs=st.sampled_from([None, 2]),
        logit_bias=st.sampled_from([{}, {1: 5.0}]),
        repetition_penalty=st.sampled_from([1.0, 1.3]),
    ),
    LOGITS,
)


@settings(deadline=None)
@given(st.lists(REQUESTS, min_size=1, max_size=6))
def test_a_row_gives_the_same_in_any_company(requests: list[tuple[SamplingParams, NDArray[np.float32]]]) -> None:
    together = sample(*plan_of(requests))
    for request, result in zip(requests, together, strict=True):
        assert sample(*plan_of([request])) == [result]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("params", [greedy(4), greedy(4, logit_bias={1: 1.0}), SamplingParams(max_tokens=4)])
def test_values_that_are_no_numbers_fail_their_own_request_only(bad: float, params: SamplingParams) -> None:
    good = np.arange(VOCAB, dtype=np.float32)
    broken = good.copy()
    broken[3] = bad
    results = sample(*plan_of([(greedy(4), good), (params, broken), (params, good)]))
    assert results[0].token == VOCAB - 1
    assert results[1].token is None
    assert results[1].error is not None
    assert results[1].error.code == "numerical_error"
    assert results[2].error is None


def test_logits_without_any_finite_value_are_an_error() -> None:
    (result,) = sample(*plan_of([(greedy(4), np.full(VOCAB, -np.inf, dtype=np.float32))]))
    assert result.error is not None


@given(LOGITS, st.integers(1, VOCAB), st.integers(0, 50))
def test_top_k_draws_among_the_k_largest(logits: NDArray[np.float32], k: int, seed: int) -> None:
    params = SamplingParams(max_tokens=1, top_k=k, seed=seed)
    assert Chooser(params, []).choose(logits, 0) in top_k_ids(logits, k)


def test_a_draw_depends_on_seed_and_index_alone() -> None:
    logits = np.zeros(VOCAB, dtype=np.float32)
    for seed, index in ((0, 0), (0, 7), (9, 7)):
        chooser = Chooser(SamplingParams(max_tokens=9, seed=seed), [1, 2, 3])
        assert chooser.choose(logits, index) == int(uniform(seed, index) * VOCAB)


@given(st.lists(LOGITS, min_size=1, max_size=4))
def test_the_largest_is_the_same_wherever_it_is_looked_for(rows: list[NDArray[np.float32]]) -> None:
    found = Rows(torch.from_numpy(np.stack(rows)))
    assert [token for token, _ in found.device_best] == [found.argmax(row) for row in range(len(rows))]
