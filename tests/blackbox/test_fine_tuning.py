"""The whole loop with a real server, a real trainer and OpenAI's own client, on a tiny model: learn, follow, ask."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import psutil
import pytest
from openai.types.fine_tuning import FineTuningJob

from tunechat.tests.blackbox.server import Server, refuse_leaks, serving, wait_until
from tunechat.tests.tiny_models import make_tiny

NAME = "small"
ENDED = ("succeeded", "failed", "cancelled")
LINE = {"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "Tuna, a fish."}]}
LINES = (json.dumps(LINE) + "\n").encode() * 16
# Steps of this many tokens are quick; how many there are is said for each job.
RECIPE = {"batch_tokens": 64, "accumulation": 1, "eval_steps": 1000, "epochs": 1000, "priority": "training"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuning")
    make_tiny(folder / NAME, "qwen2")
    return folder


@contextlib.contextmanager
def tuning(home: Path) -> Iterator[tuple[Server, openai.OpenAI]]:
    """A server of the tiny model, always on the same home, and its client."""
    settings = {"cache_bytes": "32MiB", "heartbeat_seconds": 1, "threads": 1, "train_threads": 1}
    with serving(home / "home", home / "server.log", str(home / NAME), **settings) as server:
        http = openai.DefaultHttpxClient(event_hooks={"response": [refuse_leaks]}, trust_env=False)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=http) as client:
            yield server, client


def begin(client: openai.OpenAI, **recipe: Any) -> FineTuningJob:
    file = client.files.create(file=("fish.jsonl", LINES), purpose="fine-tune")
    return client.fine_tuning.jobs.create(
        model=NAME, training_file=file.id, suffix="fish", extra_body={"recipe": RECIPE | recipe}
    )


def wait_step(client: openai.OpenAI, job: FineTuningJob, step: int) -> None:
    def is_there() -> bool:
        now = client.fine_tuning.jobs.retrieve(job.id)
        assert now.status not in ENDED, now
        return int(now.to_dict()["progress"]["step"]) >= step  # type: ignore[index, call-overload]

    wait_until(is_there, 60, f"step {step}", pause=0.1)


def done(client: openai.OpenAI, job: FineTuningJob) -> FineTuningJob:
    wait_until(lambda: client.fine_tuning.jobs.retrieve(job.id).status in ENDED, 90, "the end of the job", pause=0.2)
    return client.fine_tuning.jobs.retrieve(job.id)


def ask(client: openai.OpenAI, model: str) -> str:
    messages: Any = [{"role": "user", "content": "Who are you?"}]
    reply = client.chat.completions.create(model=model, messages=messages, max_tokens=4, temperature=0)
    return reply.model


def trainer_of(server: Server) -> psutil.Process:
    (trainer,) = (one for one in server.gateway.children(recursive=True) if "tunechat.trainer" in one.cmdline()[1:3])
    return trainer


@pytest.mark.timeout(240)
def test_a_job_is_followed_asked_killed_and_goes_on(home: Path) -> None:
    with tuning(home) as (server, client):
        job = begin(client, steps=40, save_steps=4, prompts=["Who are you?"], answer_tokens=2)
        wait_step(client, job, 8)
        # While it learns, its checkpoints answer.
        wait_until(lambda: bool(client.fine_tuning.jobs.checkpoints.list(job.id).data), 20, "a checkpoint")
        checkpoint = client.fine_tuning.jobs.checkpoints.list(job.id).data[-1].fine_tuned_model_checkpoint

        def answers() -> bool:
            with contextlib.suppress(openai.NotFoundError):
                return ask(client, checkpoint).startswith("fish.ckpt-")
            return False

        wait_until(answers, 20, "the checkpoint answers")
        before = trainer_of(server)
        os.kill(server.popen.pid, signal.SIGKILL)
        server.popen.wait()
        wait_until(lambda: not before.is_running(), 5, "the trainer dies with its server")
    with tuning(home) as (server, client):
        lines = []
        with server.http.stream("GET", f"/v1/fine_tuning/jobs/{job.id}/events?stream=true", timeout=90) as stream:
            lines = [line.removeprefix("data: ") for line in stream.iter_lines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        events = [json.loads(line) for line in lines[:-1]]
        messages = [event["message"] for event in events]
        assert any("The server stopped" in message for message in messages)
        assert any(", from step " in message for message in messages)
        assert sum("New fine-tuned model created" in message for message in messages) == 1
        ended = done(client, job)
        assert (ended.status, ended.error) == ("succeeded", None)
        short = job.id.removeprefix("ftjob-")[:8]
        assert ended.fine_tuned_model == f"ft:{NAME}:fish:{short}"
        assert ask(client, ended.fine_tuned_model) == ask(client, "fish") == "fish@1"
        assert ended.trained_tokens is not None
        assert isinstance(ended.hyperparameters.batch_size, int)
        (result,) = ended.result_files
        curve = client.files.content(result).text.splitlines()
        assert curve[0].startswith("step,")
        assert len(curve) >= 40
        # Stopped in order, a job waits for the next server.
        second = begin(client, steps=100_000, save_steps=1000)
        wait_step(client, second, 2)
        assert server.end() == 0
    with tuning(home) as (server, client):
        wait_step(client, second, 3)
        resumed = [event.message for event in client.fine_tuning.jobs.list_events(second.id, limit=100)]
        assert sum(message == "Fine-tuning job goes on" for message in resumed) == 1
        assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
        wait_until(lambda: "tunechat.trainer" not in str(server.gateway.children(recursive=True)), 10, "no trainer")
        assert server.end() == 0
    assert "Traceback" not in (home / "server.log").read_text()
