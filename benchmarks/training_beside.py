"""Part b of `training.py`: streams beside a training of each priority, and the training beside the streams."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any

import openai
from load import Stream, percentile, run_streams
from servers import running, tunechat_server
from tokenizers import Tokenizer

from tunechat.serve.base.source import DEFAULT_MODEL

STREAMS = 4
TOKENS = 128
SECONDS = 40.0
PRIORITIES = ("background", "balanced", "training")
# Small batches: steps come often enough to be counted within the time.
RECIPE = {"rank": 16, "lr": 1e-4, "epochs": 10_000, "batch_tokens": 512, "accumulation": 1, "validation_split": 0}
SUBJECTS = ("the sea", "a clock", "a lost dog", "the first train")


@dataclass
class Followed:
    """The steps of a job as they were heard of: when, in seconds of one clock, and how many tokens."""

    steps: list[tuple[float, int]] = field(default_factory=list)

    def rate(self, begin: float, end: float) -> float:
        """Tokens a second between the first and the last step of that time; 0 with fewer than two."""
        inside = [step for step in self.steps if begin <= step[0] <= end]
        if len(inside) < 2:
            return 0.0
        return sum(tokens for _, tokens in inside[1:]) / (inside[-1][0] - inside[0][0])


@dataclass(frozen=True, slots=True)
class Beside:
    """Streams of one time: tokens a second of all, gaps in milliseconds."""

    rate: float
    gaps: list[float]


def beside(home: Path, entry: Path, data: Path, scratch: Path) -> list[str]:
    """The lines of the table."""
    tokenizer = Tokenizer.from_file(str(entry / "tokenizer.json"))
    serial = itertools.count()
    with running(tunechat_server(_new_home(home, scratch)), scratch / "beside.log") as url:
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        with data.open("rb") as file:
            uploaded = client.files.create(file=file, purpose="fine-tune").id
        _streams(url, tokenizer, serial, 4.0)
        quiet = _streams(url, tokenizer, serial, SECONDS)
        rows = [("no training", quiet, None, None)]
        for priority in PRIORITIES:
            with _training(client, uploaded, priority) as followed:
                began = time.monotonic()
                time.sleep(SECONDS)
                alone = followed.rate(began, time.monotonic())
                began = time.monotonic()
                found = _streams(url, tokenizer, serial, SECONDS)
                rows.append((priority, found, alone, followed.rate(began, time.monotonic())))
    return _table(rows)


def _table(rows: list[tuple[str, Beside, float | None, float | None]]) -> list[str]:
    lines = [
        f"| priority | {STREAMS} streams, tokens/s | of no training | gap p50 / p99, ms | p99 of no training "
        "| training alone, tokens/s | beside the streams | of alone |",
        "|---|---|---|---|---|---|---|---|",
    ]
    quiet = rows[0][1]
    for name, found, alone, busy in rows:
        p50, p99 = percentile(found.gaps, 50), percentile(found.gaps, 99)
        trained = "| | |" if alone is None or busy is None else f"| {alone:.1f} | {busy:.1f} | {busy / alone:.2f} "
        lines.append(
            f"| {name} | {found.rate:.1f} | {found.rate / quiet.rate:.2f} | {p50:.1f} / {p99:.1f} "
            f"| {p99 / percentile(quiet.gaps, 99):.2f} {trained}|"
        )
    return lines


def _streams(url: str, tokenizer: Tokenizer, serial: Iterator[int], seconds: float) -> Beside:
    """Four streams at a time, again and again, for so long."""
    found: list[Stream] = []
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        prompts = [f"{next(serial)}. Write a long story about {subject}, with many details." for subject in SUBJECTS]
        found += asyncio.run(run_streams(url, DEFAULT_MODEL, prompts, TOKENS, STREAMS))
    spent = time.perf_counter() - began
    tokens = sum(len(tokenizer.encode(stream.text).ids) for stream in found)
    return Beside(tokens / spent, [1000 * gap for stream in found for gap in stream.gaps])


@contextmanager
def _training(client: openai.OpenAI, file: str, priority: str) -> Iterator[Followed]:
    """A job that has made its first steps, followed, and cancelled in the end."""
    recipe: dict[str, Any] = {**RECIPE, "priority": priority}
    job = client.fine_tuning.jobs.create(model=DEFAULT_MODEL, training_file=file, extra_body={"recipe": recipe}).id
    followed = Followed()
    thread = Thread(target=_follow, args=(client, job, followed), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 180
        while len(followed.steps) < 2:
            if time.monotonic() > deadline or not thread.is_alive():
                raise RuntimeError(f"the job makes no steps: {client.fine_tuning.jobs.retrieve(job).error}")
            time.sleep(0.1)
        yield followed
    finally:
        client.fine_tuning.jobs.cancel(job)
        thread.join(30)


def _follow(client: openai.OpenAI, job: str, followed: Followed) -> None:
    seen = ""
    while client.fine_tuning.jobs.retrieve(job).status not in {"failed", "succeeded", "cancelled"}:
        fresh = []
        for event in client.fine_tuning.jobs.list_events(job, limit=20).data:
            if event.id == seen:
                break
            fresh.append(event)
        for event in reversed(fresh):
            told = event.data if isinstance(event.data, dict) else {}
            if "train_loss" in told:
                followed.steps.append((time.monotonic(), int(told["tokens"])))
            seen = event.id
        time.sleep(0.25)


def _new_home(home: Path, scratch: Path) -> Path:
    fresh = scratch / "beside-home"
    fresh.mkdir()
    (fresh / "models").symlink_to(home / "models")
    return fresh
