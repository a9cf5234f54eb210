"""Fine-tuning through OpenAI's own client: from a file to a model that answers, and what may be wrong on the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest

from tunechat.tests.serve.api.harness import MODEL, chat
from tunechat.tests.serve.api.tuning.conftest import Open

How = Callable[..., None]


async def answer(client: openai.AsyncOpenAI, model: str) -> str:
    reply = await client.chat.completions.create(**chat(model=model))
    return str(reply.model)


async def test_a_file_becomes_a_model_that_answers(opened: Open) -> None:
    works = await opened()
    client = works.client()
    file = await works.upload(client)
    made = await client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=file,
        suffix="support",
        seed=7,
        metadata={"team": "a"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": "auto"}}},
    )
    assert (made.object, made.status, made.model, made.training_file) == (
        "fine_tuning.job", "validating_files", MODEL, file,
    )  # fmt: skip
    assert made.hyperparameters.to_dict() == {
        "n_epochs": 2, "batch_size": "auto", "learning_rate_multiplier": "auto",
    }  # fmt: skip
    assert (made.fine_tuned_model, made.trained_tokens, made.error, made.result_files) == (None, None, None, [])
    assert (made.seed, made.metadata) == (7, {"team": "a"})
    job = await works.done(client, made.id)
    short = job.id.removeprefix("ftjob-")[:8]
    assert (job.status, job.error, job.fine_tuned_model) == ("succeeded", None, f"ft:{MODEL}:support:{short}")
    assert (job.trained_tokens, job.seed) == (30, 7)
    assert job.finished_at is not None
    assert job.finished_at >= job.created_at
    assert job.hyperparameters.to_dict() == {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.0}
    assert job.method is not None
    assert job.method.supervised is not None
    for model in (job.fine_tuned_model, "support"):
        assert await answer(client, str(model)) == "support@1"
    (result,) = job.result_files
    assert (await client.files.retrieve(result)).purpose == "fine-tune-results"
    assert (await client.files.content(result)).text.startswith("step,train_loss\n1,1.0\n")
    recipe = job.to_dict()["recipe"]
    assert isinstance(recipe, dict)
    assert "data" not in recipe, "where files lie is nobody's business"


async def test_events_are_told_newest_first_in_pages(opened: Open) -> None:
    works = await opened()
    client = works.client()
    job = await works.done(client, (await works.submit(client)).id)
    events = [event async for event in client.fine_tuning.jobs.list_events(job.id, limit=4)]
    assert events[0].message == "The job has successfully completed"
    assert [event.message for event in events[-3:]] == [
        "Files validated, moving job to queued state",
        "Validating training file",
        f"Created fine-tuning job: {job.id}",
    ]
    assert len({event.id for event in events}) == len(events)
    steps = [event for event in events if isinstance(event.data, dict) and "train_loss" in event.data]
    assert [event.data["step"] for event in steps] == [3, 2, 1]  # type: ignore[index]
    assert {event.type for event in steps} == {"metrics"}
    assert (events[-1].type, events[-1].data, events[-1].level) == ("message", None, "info")
    assert str(works.home) not in str(events)


async def test_events_are_streamed_up_to_the_end(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client)
    url = f"http://localhost:8000/v1/fine_tuning/jobs/{job.id}/events?stream=true"
    await works.at_step(client, job.id, 2)
    whole = asyncio.create_task(works.http.get(url))
    await asyncio.sleep(0.05)
    assert not whole.done()
    works.let_go()
    lines = [line for line in (await whole).text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    events = [json.loads(line[6:]) for line in lines[:-1]]
    assert events[0]["message"] == f"Created fine-tuning job: {job.id}"
    assert events[-1]["message"] == "The job has successfully completed"
    rest = (await works.http.get(f"{url}&after={events[-2]['id']}")).text
    assert json.loads(rest.split("\n\n")[0][6:]) == events[-1]


async def test_checkpoints_answer_while_the_job_runs(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client, suffix="fish")
    await works.at_step(client, job.id, 2)
    newest, oldest = await works.checkpoints(client, job.id, 2)
    short = job.id.removeprefix("ftjob-")[:8]
    assert newest.fine_tuned_model_checkpoint == f"ft:{MODEL}:fish:{short}:ckpt-step-2"
    assert (newest.step_number, newest.fine_tuning_job_id, newest.metrics.train_loss) == (2, job.id, 0.5)
    for checkpoint, version in ((newest, 2), (oldest, 1)):
        assert await answer(client, checkpoint.fine_tuned_model_checkpoint) == f"fish.ckpt-{short}@{version}"
    page = await client.fine_tuning.jobs.checkpoints.list(job.id, limit=1)
    assert page.has_more
    assert [one.step_number async for one in page] == [2, 1]
    assert not [model.id async for model in client.models.list() if "ckpt" in model.id]
    works.let_go()
    done = await works.done(client, job.id)
    assert f"{done.fine_tuned_model}" in [model.id async for model in client.models.list()]


async def test_a_checkpoint_that_cannot_be_stored_stops_nothing(opened: Open, how: How) -> None:
    how(loses=2)
    works = await opened()
    client = works.client()
    job = await works.done(client, (await works.submit(client)).id)
    assert job.status == "succeeded"
    warned = [event async for event in client.fine_tuning.jobs.list_events(job.id) if event.level == "warn"]
    (event,) = warned
    assert event.message.startswith("The checkpoint of step 2 cannot be asked for: ")
    assert str(works.home) not in event.message


async def test_a_trainer_that_removes_checkpoints_early_loses_none(
    opened: Open, how: How, monkeypatch: pytest.MonkeyPatch
) -> None:
    how(forgets=True)
    works = await opened()
    client, adapters = works.client(), works.app.state.gateway.adapters
    store = adapters.add_checkpoint

    async def slowly(*given: Any, **named: Any) -> Any:
        await asyncio.sleep(0.5)
        return await store(*given, **named)

    monkeypatch.setattr(adapters, "add_checkpoint", slowly)
    job = await works.done(client, (await works.submit(client)).id)
    assert [one.step_number async for one in client.fine_tuning.jobs.checkpoints.list(job.id)] == [3, 2, 1]
    assert not [*works.home.glob("jobs/*/held/*")]


async def test_jobs_are_listed_newest_first_and_by_metadata(opened: Open) -> None:
    works = await opened()
    client = works.client()
    file = await works.upload(client)
    ids = []
    for metadata in ({"team": "a", 'odd"]': "1"}, {"team": "b"}, None):
        ids.append((await works.submit(client, training_file=file, metadata=metadata)).id)
    jobs = client.fine_tuning.jobs
    assert [job.id async for job in jobs.list(limit=2)] == ids[::-1]
    assert [job.id async for job in jobs.list(after=ids[1])] == [ids[0]]
    assert [job.id async for job in jobs.list(metadata={"team": "a", 'odd"]': "1"})] == [ids[0]]
    assert [job.id async for job in jobs.list(metadata={"team": "c"})] == []
    none = await works.http.get("http://localhost:8000/v1/fine_tuning/jobs?metadata=null")
    assert [job["id"] for job in none.json()["data"]] == [ids[2]]
    for wrong in ("metadata[]=a", "metadata=a", "metadata[a]=1&metadata[a]=2"):
        refused = await works.http.get(f"http://localhost:8000/v1/fine_tuning/jobs?{wrong}")
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "metadata")


async def test_a_job_is_paused_and_resumed(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client)
    await works.at_step(client, job.id, 2)
    await client.fine_tuning.jobs.pause(job.id)
    await works.until(client, job.id, lambda one: str(one.status) == "paused")
    works.let_go()
    await client.fine_tuning.jobs.resume(job.id)
    done = await works.done(client, job.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 30)


async def test_a_cancelled_job_publishes_nothing(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client, suffix="never")
    await works.at_step(client, job.id, 2)
    for _ in range(2):
        assert (await client.fine_tuning.jobs.cancel(job.id)).status == "cancelled"
    works.let_go()
    await asyncio.sleep(0.2)
    with pytest.raises(openai.NotFoundError):
        await answer(client, "never")
    with pytest.raises(openai.ConflictError):
        await client.fine_tuning.jobs.resume(job.id)


async def test_bad_files_fail_the_job_with_the_line(opened: Open) -> None:
    works = await opened()
    client = works.client()
    file = await works.upload(client, b"bad", "mine.jsonl")
    job = await works.done(client, (await works.submit(client, training_file=file)).id)
    assert job.status == "failed"
    assert job.error is not None
    assert (job.error.code, job.error.param) == ("invalid_training_file", "training_file")
    assert job.error.message == "mine.jsonl:1: is no JSON; mend it"


async def test_a_trainer_that_dies_says_why_without_places(opened: Open, how: How) -> None:
    how(fails=True)
    works = await opened()
    client = works.client()
    job = await works.done(client, (await works.submit(client)).id)
    assert job.status == "failed"
    assert job.error is not None
    assert job.error.message.endswith("Its last lines: ValueError: a.jsonl is no good")


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"hyperparameters": {"n_epochs": 10**9}}, "hyperparameters.n_epochs", "from 0.001 to 10000"),
    ({"hyperparameters": {"n_epochs": True}}, "hyperparameters.n_epochs", "must be"),
    ({"hyperparameters": {"batch_size": 0}}, "hyperparameters.batch_size", "whole number from 1"),
    ({"hyperparameters": {"batch_size": 2.5}}, "hyperparameters.batch_size", "whole number"),
    (
        {"hyperparameters": {"learning_rate_multiplier": "nan"}},
        "hyperparameters.learning_rate_multiplier",
        'must be "auto"',
    ),
    ({"suffix": "../x"}, "suffix", "1 to 64 ASCII letters"),
    ({"suffix": "x" * 65}, "suffix", "1 to 64"),
    ({"suffix": MODEL}, "suffix", "base model"),
    ({"seed": -1}, "seed", "greater than or equal to 0"),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "16"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "512"),
    ({"integrations": [{"type": "wandb", "wandb": {"project": "a"}}]}, "integrations", "not supported"),
    ({"method": {"type": "dpo"}}, "method.type", "not supported"),
    ({"method": {"type": "reinforcement"}}, "method.type", "not supported"),
    (
        {"method": {"type": "supervised", "supervised": {"hyperparameters": {}}}, "hyperparameters": {}},
        "hyperparameters",
        "not both",
    ),
    ({"recipe": {"rank": 10**6}}, "recipe.rank", "too large"),
    ({"recipe": {"data": "x"}}, "recipe.data", "training_file"),
    ({"recipe": {"model": "x"}}, "recipe.model", "'model'"),
    ({"recipe": {"epochs": 2}, "hyperparameters": {"n_epochs": 2}}, "recipe.epochs", "not both"),
    ({"recipe": {"name": "a"}, "suffix": "b"}, "recipe.name", "same thing"),
]


@pytest.mark.parametrize(("fields", "param", "said"), WRONG, ids=[f"{param}" for _, param, _ in WRONG])
async def test_what_is_wrong_is_named(opened: Open, fields: dict[str, Any], param: str, said: str) -> None:
    works = await opened()
    client = works.client()
    with pytest.raises(openai.BadRequestError) as caught:
        await works.submit(client, training_file="file-1", **fields)
    assert caught.value.param == param
    assert said in caught.value.message
    assert (await client.fine_tuning.jobs.list()).data == []


async def test_unknown_models_and_files_are_not_found(opened: Open) -> None:
    works = await opened()
    client = works.client()
    for fields, code, param in (
        ({"model": "other"}, "model_not_found", "model"),
        ({"training_file": "file-1"}, "not_found", "training_file"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            await works.submit(client, **fields)
        assert (caught.value.code, caught.value.param) == (code, param)


async def test_learning_does_not_go_on_from_an_adapter(opened: Open) -> None:
    works = await opened()
    client = works.client()
    first = await works.done(client, (await works.submit(client, suffix="a")).id)
    for model in (str(first.fine_tuned_model), "a"):
        with pytest.raises(openai.BadRequestError, match="adapter already"):
            await works.submit(client, model=model)


async def test_a_job_without_a_suffix_gets_a_name_of_its_own(opened: Open) -> None:
    works = await opened()
    client = works.client()
    job = await works.done(client, (await works.submit(client)).id)
    short = job.id.removeprefix("ftjob-")[:8]
    assert job.fine_tuned_model == f"ft:{MODEL}::{short}"
    assert await answer(client, str(job.fine_tuned_model)) == f"tuned-{short}@1"


async def test_each_key_has_its_own_jobs_and_models(opened: Open) -> None:
    works = await opened(api_keys=("one", "two"))
    mine, theirs = works.client("one"), works.client("two")
    job = await works.done(mine, (await works.submit(mine, suffix="mine")).id)
    jobs = theirs.fine_tuning.jobs
    for ask in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError):
            await ask(job.id)
    assert (await jobs.list()).data == []
    for model in (str(job.fine_tuned_model), "mine", "mine@1"):
        with pytest.raises(openai.NotFoundError):
            await answer(theirs, model)
    for file in (job.training_file, *job.result_files):
        with pytest.raises(openai.NotFoundError):
            await theirs.files.retrieve(file)
    with pytest.raises(openai.ConflictError, match="taken"):
        await works.submit(theirs, suffix="mine")
    assert await answer(mine, "mine") == "mine@1"


async def test_what_an_admin_makes_is_everybodys(opened: Open) -> None:
    works = await opened(api_keys=("one",), admin_keys=("root",))
    client = works.client("root")
    job = await works.done(client, (await works.submit(client, suffix="shared")).id)
    assert await answer(works.client("one"), str(job.fine_tuned_model)) == "shared@1"


async def test_jobs_go_on_with_the_next_server(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client, suffix="fish")
    await works.at_step(client, job.id, 2)
    works.app.state.gateway.drain.begin()
    await works.app.state.workshop.stopped()
    works.let_go()
    again = await opened()
    client = again.client()
    done = await again.done(client, job.id)
    assert (done.status, done.trained_tokens) == ("succeeded", 30)
    assert await answer(client, str(done.fine_tuned_model)) == "fish@1"


async def test_a_file_in_use_is_not_deleted(opened: Open, how: How) -> None:
    how(hold=1)
    works = await opened()
    client = works.client()
    job = await works.submit(client)
    with pytest.raises(openai.ConflictError, match=job.id):
        await client.files.delete(job.training_file)
    works.let_go()
    await works.done(client, job.id)
    assert (await client.files.delete(job.training_file)).deleted


async def test_metrics_tell_of_trainers(opened: Open, how: How) -> None:
    how(hold=2)
    works = await opened()
    client = works.client()
    job = await works.submit(client)
    await works.at_step(client, job.id, 2)
    text = ""
    for _ in range(100):
        text = works.app.state.gateway.metrics.render().decode()
        if 'tunechat_jobs{status="running"} 1.0' in text:
            break
        await asyncio.sleep(0.05)
    short = job.id.removeprefix("ftjob-")[:8]
    assert f'tunechat_trainer_step{{job="{short}",pid="' in text
    assert f'tunechat_trainer_own_bytes{{job="{short}",pid="' in text
    works.let_go()
    await works.done(client, job.id)


async def test_without_a_store_there_are_no_jobs(opened: Open) -> None:
    works = await opened(adapter_store=None)
    with pytest.raises(openai.BadRequestError) as caught:
        await works.client().fine_tuning.jobs.list()
    assert caught.value.code == "unsupported"


async def test_nobody_trains_on_a_public_server_without_keys(opened: Open) -> None:
    works = await opened(host="0.0.0.0", insecure=True)
    with pytest.raises(openai.PermissionDeniedError):
        await works.submit(works.client())
