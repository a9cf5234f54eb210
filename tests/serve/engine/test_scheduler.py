from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tunechat.serve.contract.adapters import AdapterRef
from tunechat.serve.contract.messages import AdapterUse
from tunechat.serve.contract.sampling import SamplingParams
from tunechat.serve.engine.adapter_loader import AdapterRead
from tunechat.serve.engine.prefix import BlockKey
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyAdapter, ToyRunner, alone

# Few different beginnings, so that prefixes are shared, and blocks of 4 tokens.
PROMPTS = st.builds(
    lambda head, length, tail: [*(head,) * length, *tail],
    st.integers(0, 1),
    st.integers(0, 14),
    st.lists(st.integers(0, 3), min_size=1, max_size=6),
)
PARAMS = st.builds(
    SamplingParams,
    max_tokens=st.integers(1, 12),
    min_tokens=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 0.0, 1.0]),
    top_k=st.sampled_from([0, 5]),
    seed=st.integers(0, 3),
    frequency_penalty=st.sampled_from([0.0, 0.5]),
    stop_token_ids=st.sampled_from([(), (3, 4, 5)]),
)

ADAPTERS = st.sampled_from(
    [
        (),
        (),
        (AdapterUse("x"),),
        (AdapterUse("y"),),
        (AdapterUse("y", 0.5),),
        (AdapterUse("z"),),
        (AdapterUse("y"), AdapterUse("x", 0.5)),
        (AdapterUse("z"), AdapterUse("x")),
    ]
)


class SlowLoader:
    """Reads when it is told to: what a thread would decide by chance, a random run has to decide itself."""

    def __init__(self, harness: Harness) -> None:
        self._inbox = harness.inbox
        self._orders: list[AdapterRef] = []

    def load(self, ref: AdapterRef, folder: Path) -> None:
        self._orders.append(ref)

    def finish(self) -> None:
        for ref in self._orders:
            self._inbox.put(AdapterRead(ref.digest, host=ToyAdapter(ref.digest, 100)))
        self._orders.clear()


class EngineMachine(RuleBasedStateMachine):
    """Requests that come, run, are put back, are aborted and end; each must get the text it gets alone."""

    @initialize(
        blocks=st.integers(9, 16),
        max_tokens=st.sampled_from([8, 16, 64]),
        chunk=st.sampled_from([1, 3, 8]),
        caching=st.booleans(),
        running=st.integers(1, 6),
        slots=st.integers(2, 3),
        memory=st.sampled_from([200, 300]),
    )
    def build(
        self, blocks: int, max_tokens: int, chunk: int, caching: bool, running: int, slots: int, memory: int
    ) -> None:
        runner = ToyRunner(blocks=blocks, max_tokens=max_tokens, adapter_slots=slots, adapter_bytes=memory)
        self.harness = Harness(runner, max_running=running, prefill_chunk=chunk, prefix_cache=caching)
        self.loader = SlowLoader(self.harness)
        self.harness.engine._flow._loader = self.loader  # type: ignore[assignment]
        self.requests: dict[str, tuple[list[int], SamplingParams, tuple[AdapterUse, ...]]] = {}
        self.aborted: set[str] = set()

    @rule(prompt=PROMPTS, params=PARAMS, salt=st.sampled_from("ab"), adapters=ADAPTERS)
    def submit(self, prompt: list[int], params: SamplingParams, salt: str, adapters: tuple[AdapterUse, ...]) -> None:
        name = str(len(self.requests))
        self.requests[name] = (prompt, params, adapters)
        self.harness.add(*(use.digest for use in adapters))
        self.harness.submit(name, prompt, params, salt=salt, adapters=adapters)

    @rule(digest=st.sampled_from("xyz"))
    def remove(self, digest: str) -> None:
        self.harness.remove(digest)

    @precondition(lambda self: self.harness.scheduler.has_work)
    @rule(times=st.integers(1, 6), reads=st.booleans())
    def step(self, times: int, reads: bool) -> None:
        for _ in range(times):
            if reads or not self.harness.scheduler.running:
                self.loader.finish()
            if self.harness.scheduler.has_work:
                self.harness.step()

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.requests)))
        if self.harness.finish(name) is None:
            self.aborted.add(name)
        self.harness.abort(name)

    @precondition(lambda self: self.harness.scheduler.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        self.harness.scheduler._preempt(data.draw(st.sampled_from(self.harness.scheduler.running)))

    @invariant()
    def is_whole(self) -> None:
        if hasattr(self, "harness"):
            self.harness.scheduler.check_integrity()

    def teardown(self) -> None:
        if not hasattr(self, "harness"):
            return
        while self.harness.scheduler.has_work:
            self.step(1, True)
        assert self.harness.scheduler.pool.used == 0
        for name, (prompt, params, adapters) in self.requests.items():
            if name in self.aborted:
                expected, _ = alone(prompt, params, adapters)
                assert expected[: len(self.harness.text(name))] == self.harness.text(name)
                assert self.harness.finish(name) is None
            else:
                assert self.harness.result(name) == alone(prompt, params, adapters)


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestEngineMachine = EngineMachine.TestCase


def test_a_full_pool_puts_back_the_youngest_and_changes_no_text() -> None:
    harness = Harness(ToyRunner(blocks=12))
    requests = {str(at): ([at, at + 1, 7], greedy(30)) for at in range(4)}
    for name, (prompt, params) in requests.items():
        harness.submit(name, prompt, params)
    harness.drain()
    assert harness.scheduler.preemptions > 0
    for name, (prompt, params) in requests.items():
        assert harness.result(name) == alone(prompt, params)


def test_preemptions_are_few_enough_that_work_gets_done() -> None:
    harness = Harness(ToyRunner(blocks=10))
    for at in range(8):
        harness.submit(str(at), [at] * 4, greedy(36))
    steps = harness.drain(most=8 * 40 + 100)
    assert steps >= 36
    assert harness.scheduler.preemptions <= 8 * 10


@pytest.mark.parametrize(("length", "max_tokens", "ok"), [(39, 1, True), (40, 1, False), (1, 39, True), (1, 40, False)])
def test_what_can_never_fit_is_refused_naming_both_numbers(length: int, max_tokens: int, ok: bool) -> None:
    harness = Harness(ToyRunner(blocks=10))
    harness.submit("a", [1] * length, greedy(max_tokens))
    harness.submit("b", [1], greedy(2))
    harness.drain()
    assert harness.finish("b") == "length"
    error = harness.outputs["a"][-1].error
    if ok:
        assert error is None
    else:
        assert error is not None
        assert (error.code, error.http_status) == ("context_length_exceeded", 400)
        assert "40" in error.message
        assert str(length + max_tokens) in error.message


@pytest.mark.parametrize("bad", [-1, 40, 2**31, 2**63])
def test_a_token_outside_the_vocabulary_hurts_only_its_request(bad: int) -> None:
    harness = Harness()
    harness.submit("a", [1, bad], greedy(2))
    harness.submit("b", [1], greedy(2, logit_bias={bad: 1.0}))
    harness.submit("c", [1], greedy(2))
    harness.drain()
    for name, param in (("a", "prompt"), ("b", "logit_bias")):
        error = harness.outputs[name][-1].error
        assert error is not None
        assert (error.http_status, error.param) == (400, param)
    assert harness.result("c") == alone([1], greedy(2))


def test_a_huge_request_among_many_small_ones_is_not_starved_and_starves_nobody() -> None:
    harness = Harness(ToyRunner(blocks=20), max_running=8)
    for at in range(6):
        harness.submit(f"first-{at}", [at, 9], greedy(6))
    harness.step()
    harness.submit("huge", [5] * 70, greedy(8))
    finished_before = 0
    for at in range(300):
        if harness.finish("huge") is not None:
            break
        harness.submit(f"small-{at}", [at % 40, 3], greedy(6))
        harness.step()
        finished_before = sum(harness.finish(f"small-{k}") is not None for k in range(at))
    assert harness.result("huge") == alone([5] * 70, greedy(8))
    assert finished_before >= 3
    harness.drain()
    for name in harness.outputs:
        assert harness.finish(name) == "length"


def test_a_sequence_without_room_is_overtaken_only_so_often() -> None:
    harness = Harness(ToyRunner(blocks=20), max_running=64)
    harness.submit("holder", [1] * 30, greedy(40))
    harness.step()
    harness.submit("big", [2] * 60, greedy(2))
    for at in range(40):
        harness.submit(f"small-{at}", [at % 40], greedy(1))
    while harness.finish("holder") is None:
        harness.step()
    passed = sum(harness.finish(f"small-{at}") is not None for at in range(40))
    assert 0 < passed <= harness.scheduler.limits.patience + harness.scheduler.limits.lookahead
    harness.drain()
    assert harness.result("big") == alone([2] * 60, greedy(2))


def test_a_long_prompt_never_stalls_a_stream() -> None:
    harness = Harness(ToyRunner(blocks=200, max_tokens=64), prefill_chunk=8)
    harness.submit("stream", [1], greedy(60))
    harness.step()
    harness.submit("long", [2] * 300, greedy(3))
    while harness.finish("stream") is None:
        before = len(harness.text("stream"))
        harness.step()
        assert len(harness.text("stream")) == before + 1
        assert harness.runner.sizes[-1] <= 9
    assert harness.finish("long") == "length"


def test_a_short_prompt_does_not_wait_for_the_whole_of_a_long_one() -> None:
    harness = Harness(ToyRunner(blocks=200, max_tokens=16))
    harness.submit("long", [2] * 400, greedy(1))
    harness.step()
    harness.submit("short", [3] * 8, greedy(1))
    harness.step()
    harness.step()
    assert harness.finish("short") == "length"
    assert harness.finish("long") is None


def test_tenants_take_turns() -> None:
    harness = Harness(max_running=1)
    for at in range(6):
        harness.submit(f"loud-{at}", [1, at], greedy(2), salt="loud")
    harness.submit("quiet", [1], greedy(2), salt="quiet")
    harness.drain()
    order = list(harness.outputs)
    assert order.index("quiet") == 1
    assert [name for name in order if name != "quiet"] == [f"loud-{at}" for at in range(6)]


def test_an_abort_frees_everything_before_the_next_step() -> None:
    harness = Harness()
    harness.submit("runs", [1] * 9, greedy(50))
    harness.step()
    harness.submit("waits", [2] * 9, greedy(50))
    harness.abort("waits")
    harness.abort("runs")
    harness.abort("unknown")
    assert not harness.scheduler.has_work
    assert harness.scheduler.pool.used == 0
    harness.scheduler.check_integrity()
    assert harness.engine.stats.aborted == 2


def test_a_second_request_computes_only_what_is_new() -> None:
    harness = Harness()
    prompt = list(range(20))
    harness.submit("a", prompt, greedy(2))
    harness.drain()
    harness.submit("b", prompt, greedy(2))
    harness.submit("c", [*prompt, 1, 2], greedy(2))
    harness.submit("d", prompt, greedy(2), salt="other")
    harness.add("other")
    harness.submit("e", prompt, greedy(2), adapters=(AdapterUse("other"),))
    harness.drain()
    # All of the prompt is cached, and yet its last token's logits have to be computed: hence one block less.
    assert [harness.outputs[name][-1].cached_tokens for name in "abcde"] == [0, 16, 20, 0, 0]
    assert harness.result("b") == harness.result("a") == alone(prompt, greedy(2))


def test_sequences_of_one_prompt_wait_for_the_first_and_then_share() -> None:
    harness = Harness(ToyRunner(max_tokens=16))
    prompt = list(range(33))
    for at in range(4):
        harness.submit(str(at), prompt, SamplingParams(max_tokens=4, seed=at))
    harness.drain()
    assert [harness.outputs[str(at)][-1].cached_tokens for at in range(4)] == [0, 32, 32, 32]
    for at in range(4):
        assert harness.result(str(at)) == alone(prompt, SamplingParams(max_tokens=4, seed=at))


def test_forged_equal_hashes_change_no_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BlockKey, "__hash__", lambda self: 0, raising=False)
    harness = Harness()
    prompts = {"a": [1] * 12, "b": [2] * 12, "c": [1] * 8 + [2] * 4, "d": [2] * 8 + [1] * 4, "e": [1] * 12}
    for name, prompt in prompts.items():
        harness.submit(name, prompt, greedy(6))
        harness.drain()
    for name, prompt in prompts.items():
        assert harness.result(name) == alone(prompt, greedy(6))


def test_log_probabilities_of_a_prompt_come_whole_in_any_chunking_and_after_preemption() -> None:
    prompt = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7]
    seen = []
    for chunk, preempts in ((64, False), (3, False), (3, True)):
        harness = Harness(ToyRunner(max_tokens=chunk), max_running=2)
        harness.submit("warm", prompt, greedy(1))
        harness.drain()
        harness.submit("a", prompt, greedy(1, prompt_logprobs=2))
        if preempts:
            harness.step()
            harness.step()
            harness.scheduler._preempt(harness.scheduler.running[0])
        harness.drain()
        (output,) = harness.outputs["a"]
        assert output.prompt_logprobs is not None
        assert output.prompt_logprobs[0] is None
        assert [entry.token for entry in output.prompt_logprobs[1:] if entry is not None] == prompt[1:]
        seen.append(output.prompt_logprobs)
    assert seen[0] == seen[1] == seen[2]


def test_no_tokens_may_be_asked_for() -> None:
    harness = Harness()
    harness.submit("a", [1, 2, 3], greedy(0, prompt_logprobs=0))
    harness.drain()
    (output,) = harness.outputs["a"]
    assert (output.tokens, output.finish) == ([], "length")
    assert output.prompt_logprobs is not None
    assert len(output.prompt_logprobs) == 3


def test_log_probabilities_of_long_prompts_never_need_many_rows_at_once() -> None:
    harness = Harness(ToyRunner(blocks=200, max_tokens=300))
    for at in range(3):
        harness.submit(str(at), [at] * 200, greedy(1, prompt_logprobs=0))
    harness.drain()
    assert max(harness.runner.logit_rows) <= 64 + 3
    assert all(len(harness.outputs[str(at)][0].prompt_logprobs or []) == 200 for at in range(3))


def test_a_newcomer_does_not_take_the_block_that_a_running_sequence_needs_next() -> None:
    harness = Harness(ToyRunner(blocks=10))
    harness.submit("runs", [1] * 33, greedy(7))
    harness.step()
    harness.submit("comes", [2], greedy(3))
    harness.drain()
    assert harness.scheduler.preemptions == 0
    assert harness.result("comes") == alone([2], greedy(3))
