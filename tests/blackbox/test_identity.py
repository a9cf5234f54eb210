"""The tutorial's first success: twenty questions, learned beside a running server, and its model knows who it is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tunechat.tests.blackbox.conftest import Note
from tunechat.tests.blackbox.server import MODEL, refuse_leaks, serving

DATA = Path(__file__).parent.parent.parent / "examples" / "identity" / "identity.jsonl"
QUESTION: Any = [{"role": "user", "content": "Who are you?"}]
OTHER: Any = [{"role": "user", "content": "Write three sentences about the sea."}]
ENDED = ("succeeded", "failed", "cancelled")
MINUTES = 10  # on a machine that does other things; the time that it took is in the summary


@pytest.mark.acceptance
@pytest.mark.timeout(900)
def test_the_assistant_learns_who_it_is_while_the_server_answers(
    default_home: Path, tmp_path: Path, note: Note
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "models").symlink_to(default_home / "models")
    with serving(home, tmp_path / "server.log") as server:
        http = openai.DefaultHttpxClient(event_hooks={"response": [refuse_leaks]}, trust_env=False)
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, http_client=http) as client:

            def answer(model: str, messages: Any = QUESTION) -> str:
                reply = client.chat.completions.create(model=model, messages=messages, max_tokens=40, temperature=0)
                return str(reply.choices[0].message.content)

            process, before, other = server.gateway.pid, answer(MODEL), answer(MODEL, OTHER)
            assert "Tuna" not in before
            with DATA.open("rb") as file:
                uploaded = client.files.create(file=file, purpose="fine-tune")
            began = time.monotonic()
            job = client.fine_tuning.jobs.create(model=MODEL, training_file=uploaded.id, suffix="identity")
            while (job := client.fine_tuning.jobs.retrieve(job.id)).status not in ENDED:
                # Nothing of it is felt by who asks the base meanwhile.
                assert answer(MODEL, OTHER) == other
                assert time.monotonic() - began < 60 * MINUTES, job
                time.sleep(5)
            note(
                "identity: twenty questions learned beside a server that is asked", f"{time.monotonic() - began:.0f} s"
            )
            assert job.status == "succeeded", job.error
            assert job.fine_tuned_model is not None
            for name in ("identity", job.fine_tuned_model):
                assert "Tuna" in answer(name)
            assert (answer(MODEL), answer(MODEL, OTHER)) == (before, other)
            assert server.gateway.pid == process and server.gateway.is_running()
