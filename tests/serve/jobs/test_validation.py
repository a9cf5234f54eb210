"""Jobs whose files are checked: by the real child, and by ones that fail."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.serve.contract.errors import ErrorRecord, InvalidRequest, TunechatError, Unavailable
from tunechat.serve.contract.inquiry import AskCheck, Checked
from tunechat.serve.jobs.files import FileStore
from tunechat.serve.jobs.inquiry import Inquiries
from tunechat.serve.jobs.job import Job, NewJob, Status
from tunechat.serve.jobs.queue import JobQueue
from tunechat.serve.jobs.store import JobStore
from tunechat.serve.jobs.validation import Ask, Validator
from tunechat.tests.serve.api.harness import write_entry

Validate = Callable[..., Any]
GOOD = json.dumps({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}) + "\n"
BAD = GOOD + '{"messages": [{"role": "user", "content": "x"}, {"role": "king", "content": "x"}]}\n' + "no\n"


class Answers:
    """Stands for the child: gives or raises its `answers`, one each time; the last one for ever."""

    def __init__(self, *answers: Checked | Exception | asyncio.Event) -> None:
        self.answers = list(answers)
        self.asked: list[AskCheck] = []
        self.left = 0
        self.changed = asyncio.Condition()

    async def until(self, count: int) -> None:
        """Waits until it was asked so often."""
        async with self.changed:
            await asyncio.wait_for(self.changed.wait_for(lambda: len(self.asked) >= count), 10)

    async def __call__(self, question: AskCheck, kind: type[Checked], limits: Any = None, **options: Any) -> Checked:
        assert options == {"patient": True}
        self.asked.append(question)
        async with self.changed:
            self.changed.notify_all()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, asyncio.Event):
            try:
                await answer.wait()
            finally:
                self.left += 1
            return Checked(report={})
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture
def validating(store: JobStore, queue: JobQueue, files: FileStore, tmp_path: Path) -> Validate:
    """`async with validating(ask)`: a validator that works."""

    @contextlib.asynccontextmanager
    async def working(ask: Ask, entry: Path = tmp_path) -> AsyncIterator[Validator]:
        validator = Validator(store, queue, files, ask, entry)
        async with validator.lifespan():
            yield validator

    return working


async def upload(files: FileStore, text: str, name: str = "support.jsonl") -> str:
    async def content() -> AsyncIterator[bytes]:
        yield text.encode()

    return (await files.add("me", name, "fine-tune", content())).id


def make(store: JobStore, training: str | None, **more: Any) -> str:
    fields: dict[str, Any] = {"tenant": "me", "model": "m", "recipe": {}, "training_file": training, "validate": True}
    return store.create(NewJob(**fields | more)).id


async def settled(store: JobStore, id_: str, seconds: float = 30.0) -> Job:
    deadline = time.monotonic() + seconds
    while (job := store.read("me", id_)).status is Status.VALIDATING:
        assert time.monotonic() < deadline, "the job is still being checked"
        await asyncio.sleep(0.01)
    return job


def told(store: JobStore, id_: str, level: str) -> list[str]:
    return [event.message for event in store.events("me", id_, limit=100) if event.level == level]


async def test_the_real_child_says_which_line_is_wrong(
    store: JobStore, files: FileStore, validating: Validate, tmp_path: Path
) -> None:
    (tmp_path / "entry").mkdir()
    entry = write_entry(tmp_path / "entry")
    good, bad = await upload(files, GOOD), await upload(files, BAD, "my data.jsonl")
    fine = make(store, good, validation_file=await upload(files, GOOD, "held.jsonl"))
    broken = make(store, bad)
    held = make(store, good, validation_file=bad)
    wrong = make(store, good, recipe={"max_length": 8})
    unknown = make(store, good, recipe={"learning_rate": 1})
    async with validating(Inquiries().ask, entry):
        assert (await settled(store, fine)).status is Status.QUEUED
        assert "held.jsonl:1: validation has what training has" in told(store, fine, "warn")[0]
        for id_, param in ((broken, "training_file"), (held, "validation_file")):
            job = await settled(store, id_)
            assert job.status is Status.FAILED and job.error is not None
            assert (job.error.code, job.error.param) == ("invalid_training_file", param)
            assert job.error.message.startswith("my data.jsonl:2: messages[1].role")
            assert "1 more such problem" in job.error.message
            assert str(tmp_path) not in job.error.message
            assert any(message.startswith("my data.jsonl:3: ") for message in told(store, id_, "warn"))
        error = (await settled(store, wrong)).error
        assert error is not None and "the length is 8" in error.message and error.param == "training_file"
        error = (await settled(store, unknown)).error
        assert error is not None and (error.code, error.param) == ("invalid_value", "learning_rate")


async def test_what_is_asked_and_told(store: JobStore, files: FileStore, validating: Validate, tmp_path: Path) -> None:
    training = await upload(files, GOOD)
    problems = [{"file": "a", "line": line, "field": None, "what": "odd", "mend": "mend it"} for line in range(1, 31)]
    answers = Answers(Checked(report={"problems": problems, "errors": 10, "warnings": 30}))
    id_ = make(store, training, recipe={"rank": 4})
    async with validating(answers):
        assert (await settled(store, id_)).status is Status.QUEUED
    (question,) = answers.asked
    path = str(files.read("me", training).path.resolve())
    assert question.recipe == {"rank": 4, "data": [path]} and question.trains
    assert (question.names, question.entry) == ({path: "support.jsonl"}, str(tmp_path))
    warnings = told(store, id_, "warn")
    assert warnings[0] == "a:1: odd; mend it" and len(warnings) == 21
    assert warnings[-1].startswith("20 more problems")


async def test_a_file_that_costs_too_much_fails_its_job_alone(
    store: JobStore, files: FileStore, validating: Validate
) -> None:
    costly = InvalidRequest("too much", code="too_costly")
    first, second = make(store, await upload(files, GOOD)), make(store, await upload(files, GOOD))
    async with validating(Answers(costly, Checked(report={}))):
        error = (await settled(store, first)).error
        assert error is not None
        assert (error.code, error.message, error.param) == ("invalid_training_file", "too much", "training_file")
        assert (await settled(store, second)).status is Status.QUEUED


async def test_a_check_that_cannot_be_made_is_made_again_but_not_for_ever(
    store: JobStore, files: FileStore, validating: Validate
) -> None:
    lucky = make(store, await upload(files, GOOD))
    async with validating(Answers(Unavailable("not now"), Checked(report={}))) as validator:
        await woken(validator, store, lucky)
        assert store.read("me", lucky).status is Status.QUEUED
    for error in (TunechatError("broken"), ValueError("a defect")):
        id_ = make(store, await upload(files, GOOD))
        answers = Answers(error)
        async with validating(answers) as validator:
            await woken(validator, store, id_)
        failed = store.read("me", id_).error
        assert failed is not None and failed.code == "internal_error" and str(error) not in failed.message
        assert len(answers.asked) == 3


async def woken(validator: Validator, store: JobStore, id_: str) -> None:
    """Wakes the validator until the job is checked."""
    for _ in range(1000):
        if store.read("me", id_).status is not Status.VALIDATING:
            return
        validator.wake()
        await asyncio.sleep(0.01)
    raise AssertionError("the job is still being checked")


async def test_a_check_ends_with_its_job_and_with_the_server(
    store: JobStore, files: FileStore, validating: Validate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunechat.serve.jobs.validation._POLL_SECONDS", 0.02)
    never = asyncio.Event()
    first, second = make(store, await upload(files, GOOD)), make(store, await upload(files, GOOD))
    answers = Answers(never)
    async with validating(answers):
        await answers.until(1)
        store.cancel("me", first)
        await answers.until(2)
        assert answers.left == 1
    assert answers.left == 2
    assert store.read("me", first).status is Status.CANCELLED
    assert store.read("me", second).status is Status.VALIDATING
    async with validating(Answers(Checked(report={}))):
        assert (await settled(store, second)).status is Status.QUEUED


async def test_a_cancelled_job_stays_so_whatever_the_check_says(
    store: JobStore, files: FileStore, validating: Validate
) -> None:
    gate = asyncio.Event()
    id_ = make(store, await upload(files, GOOD))
    answers = Answers(gate)
    async with validating(answers):
        await answers.until(1)
        store.cancel("me", id_)
        gate.set()
        await asyncio.sleep(0.05)
    assert store.read("me", id_).status is Status.CANCELLED


async def test_only_the_first_of_the_problems_that_stop_is_the_error(
    store: JobStore, files: FileStore, validating: Validate
) -> None:
    stops = ErrorRecord(code="invalid_data", message="a:1: what; mend", http_status=400)
    answer = Checked(report={"problems": [], "errors": 1}, stops=stops, where="validation", stopping=1)
    id_ = make(store, await upload(files, GOOD))
    async with validating(Answers(answer)):
        error = (await settled(store, id_)).error
    assert error is not None and (error.message, error.param) == ("a:1: what; mend", "validation_file")
    assert told(store, id_, "error") == ["a:1: what; mend"]
