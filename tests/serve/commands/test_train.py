"""`tunechat train` and `tunechat jobs`, as they are typed, with a server that plays a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tunechat.serve.commands.server import Server
from tunechat.tests.trainer.data.writing import write_lines

from .conftest import Done, refusal
from .tuning_server import ID, MODEL, TuningServer, message, metrics

Tunechat = Callable[..., Done]


def chat(answer: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": answer}]}


@pytest.fixture
def tuning(home: Path, monkeypatch: pytest.MonkeyPatch) -> TuningServer:
    """The server that every command reaches."""
    tuning = TuningServer()
    transport = httpx.MockTransport(tuning)
    monkeypatch.setattr(
        Server, "admin_of", lambda settings: Server(settings.server_url, transport=transport), raising=True
    )
    return tuning


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "support.jsonl", [chat("a"), chat("b")])


def test_a_file_is_sent_and_watched_to_the_end(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    done = tunechat("train", str(data), "--name", "support", "lr=1e-4", "epochs=2", "seed=7")
    assert done.code == 0, done.err
    assert tuning.files == {"file-1": ("support.jsonl", data.read_bytes())}
    recipe = {"lr": 1e-4, "epochs": 2}
    assert tuning.bodies == [
        {"model": "tiny", "training_file": "file-1", "recipe": recipe, "suffix": "support", "seed": 7}
    ]
    lines = done.out.splitlines()
    assert lines[0] == f"{ID}: learning support.jsonl on tiny"
    assert lines[4:7] == [
        "Training 8 rows in 4 steps",
        "It will take about 2 s and 1024 MiB",
        "step 1/4  2 s left  loss 3.0000  200 tokens/s  lr 1.0e-04  1.0 GiB",
    ]
    assert "Step 1: answer to 'Who are you?': A [31mbot" in lines and "\x1b" not in done.out
    assert lines[-2] == f"support is ready ({MODEL})"
    assert lines[-1] == "chat with it:   tunechat run --model support 'Hello!'"


def test_json_is_the_job_its_events_and_the_job_again(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    done = tunechat("train", str(data), "--json")
    told = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 0 and "suffix" not in tuning.bodies[0] and tuning.bodies[0]["recipe"] == {}
    assert told[0]["status"] == "running" and told[-1]["status"] == "succeeded"
    assert told[1:-1] == tuning.records(len(tuning.events))


def test_detached_is_the_id_alone(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    done = tunechat("train", str(data), "--detach")
    assert (done.code, done.out) == (0, f"{ID}\n") and tuning.told == 0


def test_validation_goes_along(tunechat: Tunechat, tuning: TuningServer, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "v.csv"
    table.write_text("Q,A\nq,a\n")
    done = tunechat("train", str(table), "--validation", str(table), "question=Q", "answer=A", "--detach")
    assert done.code == 0, done.err
    body = tuning.bodies[0]
    assert [name for name, _ in tuning.files.values()] == ["v.csv", "v.csv"]
    assert (body["training_file"], body["validation_file"]) == ("file-1", "file-2")
    assert body["recipe"] == {"question": "Q", "answer": "A"}


def test_a_failure_names_the_lines_of_the_users_files(
    tunechat: Tunechat, tuning: TuningServer, data: Path, tmp_path: Path
) -> None:
    other = write_lines(tmp_path / "more.jsonl", [chat("c")])
    reason = "training.jsonl:5: 4096 tokens do not fit"
    tuning.status, tuning.error = "failed", {"code": "invalid_data", "message": reason, "param": None}
    tuning.events = [message("Validating training file"), message(reason, "error")]
    done = tunechat("train", f"{data}=2", str(other))
    assert done.code == 1
    assert done.err == f"error: {ID} failed: {other}:1: 4096 tokens do not fit\n"
    assert reason not in done.out
    assert len(tuning.files["file-1"][1].splitlines()) == 5


def test_a_job_that_is_refused_leaves_no_files(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    tuning.refuses = refusal(409, "name_taken", "this name is taken; choose another", "suffix")
    done = tunechat("train", str(data), "--validation", str(data), "--name", "support")
    assert (done.code, done.err) == (1, "error: this name is taken; choose another\n")
    assert tuning.files == {} and len(tuning.bodies) == 1


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["epoch=5"], 2, "did you mean epochs"),
        (["missing.jsonl"], 1, "there is no such file"),
        (["--resume", ID], 2, "leave out everything else"),
        (["--recipe", "identiy"], 1, "did you mean identity"),
    ],
)
def test_nothing_is_sent_that_is_wrong(
    tunechat: Tunechat, tuning: TuningServer, data: Path, words: list[str], code: int, told: str
) -> None:
    done = tunechat("train", str(data), *words)
    assert done.code == code and told in done.err and done.err.count("\n") == 1
    assert tuning.requests == []


@pytest.mark.parametrize(
    ("status", "told"),
    [
        ("cancelled", f"{ID} is cancelled\n"),
        ("paused", f"{ID} is paused; `tunechat jobs resume {ID}` lets it go on\n"),
    ],
)
def test_an_end_by_somebody_else(tunechat: Tunechat, tuning: TuningServer, data: Path, status: str, told: str) -> None:
    tuning.status, tuning.events = status, [message(f"The job was {status}")]
    done = tunechat("train", str(data))
    assert (done.code, done.err) == (1, told)


def test_a_job_goes_on_where_it_was(tunechat: Tunechat, tuning: TuningServer) -> None:
    tuning.told = 8
    done = tunechat("train", "--resume", ID)
    assert done.code == 0 and tuning.actions == ["resume"]
    lines = done.out.splitlines()
    assert lines[0] == f"{ID}: goes on after step 2"
    assert lines[1] == "Step 2: validation loss=2.5000" and lines[2].startswith(
        "step 3/4  0 s left  loss 1.5000  validation 2.5000"
    )


def test_a_full_training_has_no_name_to_ask_for(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    tuning.model = None
    tuning.events = [message("The model is in jobs/x/model, in the server's home folder")]
    done = tunechat("train", str(data), "method=full")
    assert done.code == 0 and done.out.splitlines()[-1] == f"{ID} has succeeded"


def test_tool_scores_are_figures(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    scores = {"call_or_not": 0.95, "name": 0.5, "arguments": None, "valid_json": 1.0, "invented": 0.0, "rows": 20}
    tuning.events = [metrics("Step 20, tool calls", step=20, **scores)]
    done = tunechat("train", str(data))
    assert "Step 20, tool calls: call_or_not 95%, name 50%, valid_json 100%, invented 0%" in done.out


def test_jobs_are_listed_and_shown(tunechat: Tunechat, tuning: TuningServer, data: Path) -> None:
    done = tunechat("jobs", "list")
    assert (done.code, done.out) == (0, "") and "no jobs yet" in done.err
    assert tunechat("jobs", "show").code == 1
    tunechat("train", str(data), "--name", "support")
    done = tunechat("jobs", "list")
    assert ID in done.out and "succeeded" in done.out and MODEL in done.out
    assert [job["id"] for job in json.loads(tunechat("jobs", "list", "--json").out)] == [ID]
    shown = tunechat("jobs", "show").out
    assert "4 of 4" in shown and f"{MODEL}:ckpt-step-2" in shown and "2.5000" in shown
    assert shown == tunechat("jobs", "show", ID).out
    told = json.loads(tunechat("jobs", "show", ID, "--json").out)
    assert told["id"] == ID and told["checkpoints"][0]["step_number"] == 2


def test_logs_are_the_latest_events_and_then_what_comes(tunechat: Tunechat, tuning: TuningServer) -> None:
    tuning.told = 3
    lines = tunechat("jobs", "logs", ID, "-n", "2").out.splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == [
        "Files validated, moving job to queued state",
        "Fine-tuning job started",
    ]
    done = tunechat("jobs", "logs", "-f", ID, "--json")
    assert [json.loads(line) for line in done.out.splitlines()] == tuning.records(len(tuning.events))


def test_jobs_are_steered(tunechat: Tunechat, tuning: TuningServer) -> None:
    tuning.told = 6
    assert tunechat("jobs", "resume", ID).out == f"{ID} is queued\n"
    assert tunechat("jobs", "pause", ID).out == f"{ID} is paused\n"
    assert json.loads(tunechat("jobs", "cancel", ID, "--json").out)["status"] == "cancelled"
    assert tuning.actions == ["resume", "pause", "cancel"]
    done = tunechat("jobs", "cancel", "../files/x")
    assert done.code == 1 and "no id of a job" in done.err
    done = tunechat("jobs", "pause", "ftjob-0")
    assert (done.code, done.err) == (1, "error: there is no such job\n")


def test_no_server_is_told(tunechat: Tunechat, data: Path) -> None:
    for words in (["jobs", "list"], ["train", str(data), "--detach"]):
        done = tunechat(*words, "--url", "http://127.0.0.1:1")
        assert done.code == 1 and "no server answers at http://127.0.0.1:1" in done.err
    done = tunechat("jobs", "list")
    assert done.code == 1 and "there are no jobs in" in done.err


def test_a_job_of_another_base_does_not_wait_for_ever(tunechat: Tunechat, tuning: TuningServer) -> None:
    tuning.told, tuning.base = 6, "other"
    done = tunechat("train", "--resume", ID)
    assert done.code == 2 and "the job learns on other, and tiny is served" in done.err and tuning.actions == []
