"""Answers and scores while a job trains: what is asked, when it is not, and that nothing is told twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tunechat.serve.api.tuning.answers import Answers
from tunechat.serve.api.tuning.quiet import Pace
from tunechat.serve.contract.errors import EngineFailed, ErrorRecord, Unavailable
from tunechat.serve.contract.messages import EngineStats
from tunechat.serve.jobs.job import Job
from tunechat.tests.serve.api.adapter_files import ask
from tunechat.tests.serve.api.harness import MODEL
from tunechat.tests.serve.api.tuning.lesson import END, JOB, PACE, Wall, begun, saved


async def test_the_same_prompts_are_asked_before_during_and_after(train: Any, wall: Wall) -> None:
    served, answers = await train()
    await answers.started(JOB, begun())
    await wall.until(2)
    await answers.saved(JOB, saved(10), "learned@1")
    await wall.until(4)
    await answers.ended(JOB, END, "learned")
    assert wall.messages == [
        f"Step {step}: answer to '{prompt}'" for step in (0, 10, 20) for prompt in ("Who?", "Why?")
    ]
    assert wall.notes[2][1] == {
        "step": 10,
        "at": "checkpoint",
        "model": "learned@1",
        "prompt": "Who?",
        "answer": "Hello, w",
        "finish_reason": "length",
    }
    assert [data["model"] for _, data in wall.notes] == [MODEL] * 2 + ["learned@1"] * 2 + ["learned@2"] * 2
    assert [data["at"] for _, data in wall.notes][::2] == ["start", "checkpoint", "end"]
    assert {params.temperature for _, params in served.engine.submitted} == {0.0}
    assert not served.engine.open
    assert not served.gateway.drain.is_generating


async def test_an_answer_is_what_a_request_of_the_tenant_gets(train: Any, wall: Wall) -> None:
    served, answers = await train()
    await answers.started(JOB, begun(prompts="Who?"))
    await wall.until(1)
    own = (await ask(served, MODEL, messages=[{"role": "user", "content": "Who?"}], temperature=0, max_tokens=8)).json()
    assert wall.notes[0][1]["answer"] == own["choices"][0]["message"]["content"]
    assert served.engine.submitted[0][0] == served.engine.submitted[1][0]
    # Another tenant's cache says nothing about what a job was asked.
    assert served.engine.salts[0] != served.engine.salts[1]
    metrics = (await served.client.get("/metrics")).text
    assert 'tunechat_tokens_total{kind="completion"} 16.0' in metrics


async def test_a_long_answer_takes_what_the_context_has(train: Any, wall: Wall) -> None:
    served, answers = await train({"context": 64, "blocks": 4})
    await answers.started(JOB, begun(prompts=("Who?", "w" * 80), answer_tokens=4096))
    await wall.until(2)
    assert wall.notes[0][1]["answer"] == "Hello, world"
    assert wall.messages[1].startswith("Step 0: no answer to 'wwww")
    assert wall.notes[1][1] == {}
    assert len(served.engine.submitted) == 1


async def test_thinking_is_as_the_recipe_says(train: Any, wall: Wall) -> None:
    served, answers = await train()
    seen: list[Any] = []
    encode = served.engine.text.encode_chat

    class Text:
        def __getattr__(self, name: str) -> Any:
            return getattr(served.engine.text, name)

        def encode_chat(self, messages: Any, **options: Any) -> Any:
            seen.append(options["template_kwargs"])
            return encode(messages, **options)

    served.gateway._text = Text()
    await answers.started(JOB, begun(prompts=("Who?",), thinking=False))
    await wall.until(1)
    assert seen == [{"enable_thinking": False}]


async def test_a_newer_checkpoint_replaces_one_that_waits(train: Any, wall: Wall) -> None:
    gate = asyncio.Event()
    served, answers = await train({"gates": {0: gate}})
    await answers.started(JOB, begun(prompts=("Who?",)))
    await served.engine.until_waiting(1)
    for step in (10, 20, 25):
        await answers.saved(JOB, saved(step), "learned@1")
    assert len(served.engine.open) == 1
    gate.set()
    await wall.until(2)
    await answers.ended(JOB, END, "learned@2")
    assert [data["step"] for _, data in wall.notes] == [0, 25, 20]


async def test_what_was_told_is_not_told_again(train: Any, wall: Wall) -> None:
    async def told(job: Job) -> list[dict[str, Any]]:
        return [{"step": 3, "train_loss": 1.0}, *(data for _, data in wall.notes)]

    served, answers = await train(told=told)
    await answers.started(JOB, begun())
    await wall.until(2)
    await answers.saved(JOB, saved(10), "learned@1")
    await wall.until(4)
    later = Answers(served.gateway, wall.note, told=told, pace=PACE)
    await later.started(JOB, begun(resumed_at=10))
    await later.saved(JOB, saved(10), "learned@1")
    await later.ended(JOB, END, "learned@2")
    assert [data["step"] for _, data in wall.notes] == [0, 0, 10, 10, 20, 20]


async def test_a_training_that_goes_on_does_not_ask_the_base_again(train: Any, wall: Wall) -> None:
    _, answers = await train()
    await answers.started(JOB, begun(resumed_at=10))
    await answers.ended(JOB, END, "learned@2")
    assert [data["at"] for _, data in wall.notes] == ["end", "end"]


async def test_an_end_that_was_heard_before_the_server_died_has_its_answers(train: Any, wall: Wall) -> None:
    _, answers = await train()
    await answers.ended(JOB, END, "learned@2")
    assert wall.messages == ["Step 20: answer to 'Who?'", "Step 20: answer to 'Why?'"]


async def test_a_model_that_nobody_can_ask_is_not_asked(train: Any, wall: Wall) -> None:
    served, answers = await train()
    await answers.saved(JOB, saved(10), "")
    await answers.ended(JOB, END, "")
    assert not served.engine.submitted


async def test_a_failure_is_told_and_the_next_prompt_is_asked(train: Any, wall: Wall) -> None:
    fault = ErrorRecord(code="engine_failed", message="The engine stopped.", http_status=503)
    served, answers = await train({"faults": {0: fault}})
    await answers.started(JOB, begun())
    await wall.until(2)
    assert wall.messages == [f"Step 0: no answer to '{prompt}': The engine stopped." for prompt in ("Who?", "Why?")]
    assert len(served.engine.submitted) == 4
    served.engine.faults = {}
    await answers.ended(JOB, END, "learned@2")
    assert wall.messages[2:] == ["Step 20: answer to 'Who?'", "Step 20: answer to 'Why?'"]


async def test_the_engine_is_asked_once_more(train: Any, wall: Wall) -> None:
    served, answers = await train({"refusal": EngineFailed("It died.")})
    asked = asyncio.Event()
    generate = served.engine.generate

    def once(*given: Any, **options: Any) -> Any:
        served.engine.refusal, refusal = None, served.engine.refusal
        asked.set()
        if refusal is not None:
            raise refusal
        return generate(*given, **options)

    served.engine.generate = once
    await answers.started(JOB, begun(prompts=("Who?",)))
    await wall.until(1)
    assert asked.is_set()
    assert wall.messages == ["Step 0: answer to 'Who?'"]


async def test_weights_that_are_gone_end_a_round_at_once(train: Any, wall: Wall) -> None:
    _, answers = await train()
    await answers.saved(JOB, saved(10), "gone@7")
    await wall.until(1)
    assert wall.messages == ["Step 10: no more answers at this step: The model 'gone@7' does not exist here."]


async def test_a_busy_server_is_left_alone(train: Any, wall: Wall) -> None:
    gate = asyncio.Event()
    served, answers = await train({"gates": {0: gate}})
    served.engine.stats = EngineStats(waiting=1)
    request = asyncio.create_task(ask(served, MODEL))
    await served.engine.until_waiting(1)
    await answers.started(JOB, begun())
    await wall.until(1)
    assert wall.messages[0].startswith("Step 0: no more answers at this step: the server was busy with requests for")
    assert len(served.engine.submitted) == 1
    # With room, a question runs beside the request.
    served.engine.stats = EngineStats(waiting=0, blocks_total=8, blocks_used=4)
    await answers.saved(JOB, saved(10), "learned@1")
    await served.engine.until_waiting(2)
    assert not request.done()
    gate.set()
    await wall.until(3)
    await request


async def test_a_server_without_its_engine_is_left_alone(train: Any, wall: Wall) -> None:
    served, answers = await train()
    served.engine.state = "starting"
    await answers.started(JOB, begun())
    await wall.until(1)
    assert "the server was without its model for" in wall.messages[0]
    served.gateway.drain.begin()
    await answers.ended(JOB, END, "learned@2")
    assert wall.messages[1:] == ["Step 20: no more answers at this step: the server is shutting down"]


async def test_time_is_bounded(train: Any, wall: Wall) -> None:
    served, answers = await train({"gates": {0: asyncio.Event()}}, pace=Pace(longest=0.05, patience=0.05))
    await answers.started(JOB, begun())
    await wall.until(1)
    assert wall.messages == ["Step 0: no more answers at this step: they took longer than 0.05 s"]
    await answers.ended(JOB, END, "learned@2")
    assert wall.messages[1].startswith("Step 20: no more answers")
    assert not served.engine.open


async def test_a_job_that_was_cancelled_is_asked_no_more(train: Any, wall: Wall) -> None:
    gate = asyncio.Event()
    served, answers = await train({"gates": {0: gate}})
    await answers.started(JOB, begun())
    await served.engine.until_waiting(1)
    await answers.saved(JOB, saved(10), "learned@1")
    ending = asyncio.create_task(answers.ended(JOB, END, "learned@2"))
    await asyncio.sleep(0)
    answers.forget(JOB.id)
    await ending
    gate.set()
    await answers.close()
    assert len(served.engine.submitted) == 1


async def test_what_cannot_be_written_down_ends_nothing(
    train: Any, wall: Wall, caplog: pytest.LogCaptureFixture
) -> None:
    _, answers = await train()

    async def full(job: Job, message: str, data: dict[str, Any]) -> None:
        raise Unavailable("The disk is full.")

    answers._note = full
    await answers.ended(JOB, END, "learned@2")
    assert [record.levelname for record in caplog.records if "not written down" in record.message] == ["WARNING"] * 2
