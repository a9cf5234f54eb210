from __future__ import annotations

import numpy as np
import pytest
import torch

from tunechat.serve.contract.messages import FromEngine, Heartbeat, Shutdown, StepOutputs, Submit
from tunechat.serve.engine.batch import Batch
from tunechat.serve.engine.block_pool import IntegrityError
from tunechat.tests.serve.engine.harness import Harness, greedy
from tunechat.tests.serve.engine.toy import ToyRunner, alone


class SmallMemory(ToyRunner):
    """Runs out of memory for batches of more tokens, or more sequences, than it is told to bear."""

    def __init__(self, tokens: int, sequences: int = 100) -> None:
        super().__init__(blocks=200, max_tokens=64)
        self.most_tokens, self.most_sequences = tokens, sequences
        self.failures = 0

    def forward(self, batch: Batch) -> torch.Tensor:
        if batch.size > self.most_tokens or len(batch.block_tables) > self.most_sequences:
            self.failures += 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(batch)


class Broken(ToyRunner):
    """Gives no numbers once a context holds `poison`."""

    def __init__(self, poison: int) -> None:
        super().__init__()
        self.poison = poison

    def forward(self, batch: Batch) -> torch.Tensor:
        logits = super().forward(batch)
        for at, row in enumerate(batch.logit_rows.tolist()):
            if self.poison in self.context(batch, row):
                logits[at, 5] = float("nan")
        return logits


def test_a_prompt_too_large_for_memory_is_cut_into_smaller_steps() -> None:
    harness = Harness(SmallMemory(tokens=10))
    harness.submit("a", [1] * 60, greedy(5))
    harness.drain()
    assert harness.result("a") == alone([1] * 60, greedy(5))
    assert isinstance(harness.runner, SmallMemory)
    assert 1 <= harness.runner.failures <= 4


def test_too_many_sequences_for_memory_are_put_back() -> None:
    harness = Harness(SmallMemory(tokens=64, sequences=3))
    for at in range(8):
        harness.submit(str(at), [at, 1], greedy(5))
    harness.drain()
    for at in range(8):
        assert harness.result(str(at)) == alone([at, 1], greedy(5))


def test_a_request_too_large_even_alone_fails_and_the_others_go_on() -> None:
    class Heavy(ToyRunner):
        def forward(self, batch: Batch) -> torch.Tensor:
            if 9 in batch.tokens:
                raise MemoryError
            return super().forward(batch)

    harness = Harness(Heavy())
    for at in range(5):
        harness.submit(f"heavy-{at}", [9, 9, 9], greedy(5))
        harness.submit(f"light-{at}", [1], greedy(1))
        harness.drain()
        error = harness.outputs[f"heavy-{at}"][-1].error
        assert error is not None
        assert (error.code, error.http_status) == ("out_of_memory", 503)
        assert harness.result(f"light-{at}") == alone([1], greedy(1))
    assert harness.scheduler.pool.used == 0


def test_memory_that_never_suffices_ends_the_engine() -> None:
    harness = Harness(SmallMemory(tokens=0))
    for at in range(4):
        harness.submit(str(at), [at], greedy(5))
    with pytest.raises(torch.OutOfMemoryError):
        harness.drain()


def test_steps_grow_again_after_a_shortage() -> None:
    runner = SmallMemory(tokens=10)
    harness = Harness(runner, max_running=8)
    harness.submit("a", [1] * 60, greedy(5))
    harness.drain()
    assert harness.scheduler.max_prefill < 64
    runner.most_tokens = 64
    harness.submit("b", [2], greedy(400))
    harness.drain()
    assert (harness.scheduler.max_prefill, harness.scheduler.max_running) == (64, 8)


def test_an_error_of_the_forward_is_not_swallowed() -> None:
    class Evil(ToyRunner):
        def forward(self, batch: Batch) -> torch.Tensor:
            raise RuntimeError("evil")

    harness = Harness(Evil())
    harness.submit("a", [1], greedy(5))
    with pytest.raises(RuntimeError, match="evil"):
        harness.step()


def test_values_that_are_no_numbers_end_one_request() -> None:
    harness = Harness(Broken(poison=33))
    harness.submit("bad", [33, 1], greedy(5))
    harness.submit("good", [1], greedy(1))
    harness.drain()
    error = harness.outputs["bad"][-1].error
    assert error is not None
    assert error.code == "numerical_error"
    assert harness.result("good") == alone([1], greedy(1))


def test_what_was_computed_before_values_went_wrong_is_not_used_again() -> None:
    runner = Broken(poison=33)
    harness = Harness(runner)
    prompt = [33] * 20
    harness.submit("bad", prompt, greedy(5))
    harness.step()
    runner.poison = -1
    harness.submit("same", prompt, greedy(5))
    harness.drain()
    assert harness.outputs["bad"][-1].error is not None
    assert harness.outputs["same"][-1].cached_tokens == 0
    harness.submit("later", prompt, greedy(5))
    harness.drain()
    assert harness.outputs["later"][-1].cached_tokens == 16


def test_the_loop_serves_beats_and_leaves_when_told() -> None:
    harness = Harness()
    harness.submit("a", [1, 2], greedy(3))

    def leave_when_done(batch: Batch) -> torch.Tensor:
        if harness.runner.steps == 2:
            harness.inbox.put(Shutdown())
        return ToyRunner.forward(harness.runner, batch)

    harness.runner.forward = leave_when_done  # type: ignore[method-assign]
    harness.engine.run()
    assert harness.result("a") == alone([1, 2], greedy(3))
    beats = [message for message in harness.sent if isinstance(message, Heartbeat)]
    assert beats
    assert beats[0].stats.blocks_total == harness.runner.blocks
    assert beats[0].stats.resident_bytes > 1 << 20


def test_the_gauges_show_work_from_before_its_first_token_until_it_has_ended() -> None:
    harness = Harness()
    harness.inbox.put(Submit(sequence="a", prompt=[1, 2], params=greedy(2)))

    def leave_when_free() -> None:
        if isinstance(harness.sent[-1], Heartbeat) and harness.finish("a"):
            harness.inbox.put(Shutdown())

    collect = harness.engine._send

    def send(message: FromEngine) -> None:
        collect(message)
        leave_when_free()

    harness.engine._send = send  # type: ignore[method-assign]
    harness.engine.run()
    kinds = [
        type(message).__name__ if isinstance(message, StepOutputs) else message.stats.running + message.stats.waiting
        for message in harness.sent
        if isinstance(message, StepOutputs | Heartbeat)
    ]
    assert kinds[-5:] == [0, 1, "StepOutputs", "StepOutputs", 0]


def test_accounts_are_checked_when_the_engine_becomes_idle() -> None:
    harness = Harness()
    harness.submit("a", [1, 2], greedy(3))
    harness.scheduler.pool.acquire()
    with pytest.raises(IntegrityError):
        harness.engine.run()


def test_stats_count_what_was_done() -> None:
    harness = Harness()
    harness.submit("a", list(range(10)), greedy(3))
    harness.drain()
    harness.submit("b", list(range(10)), greedy(3))
    harness.drain()
    stats = harness.engine.stats
    assert (stats.prompt_tokens, stats.cached_prompt_tokens, stats.generated_tokens) == (20, 8, 6)
    assert (stats.running, stats.waiting, stats.blocks_used) == (0, 0, 0)
    assert stats.steps == harness.runner.steps
    assert stats.busy_seconds > 0


def test_logprobs_come_token_by_token() -> None:
    harness = Harness()
    harness.submit("a", [1], greedy(3, logprobs=2))
    harness.submit("b", [1], greedy(3))
    harness.drain()
    entries = [entry for output in harness.outputs["a"] for entry in output.logprobs or []]
    assert [entry.token for entry in entries] == harness.text("a")
    assert all(entry.top[0] == (entry.token, entry.logprob) for entry in entries)
    assert all(output.logprobs is None for output in harness.outputs["b"])


def test_a_stop_token_is_told_and_is_no_text() -> None:
    tokens, _ = alone([1], greedy(10))
    stop = tokens[4]
    harness = Harness()
    harness.submit("a", [1], greedy(10, stop_token_ids=(stop,)))
    harness.drain()
    assert harness.text("a") == tokens[: tokens.index(stop)]
    assert (harness.finish("a"), harness.outputs["a"][-1].stop_token) == ("stop", stop)


def test_nothing_is_kept_of_sequences_that_ended() -> None:
    harness = Harness(ToyRunner(blocks=16))
    for at in range(200):
        harness.submit(str(at), [at % 40, 1, 2, 3, 4], greedy(2), salt=str(at))
        harness.drain()
    scheduler = harness.scheduler
    assert len(scheduler._by_id) == len(scheduler.waiting) == len(scheduler.running) == 0
    assert not scheduler.waiting._tenants
    assert not scheduler.waiting._refused
    assert scheduler.pool.cached <= 16
    assert np.all(scheduler.tables._table == -1)
