"""Tiny prepared models to train on, and data to train them with."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.kernels import available_cores, set_threads
from tunechat.tests.conftest import quiet
from tunechat.tests.serve.base.internlm_models import make_internlm2
from tunechat.tests.tiny_models import make_tiny

QUESTIONS = ("Who are you?", "What is it?", "Where?", "Why is that so?", "When do we go?", "How?", "And then?", "So?")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Products this small are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    set_threads(1)
    yield
    torch.set_num_threads(before)
    set_threads(available_cores())


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a training sets for its whole process, for this test alone."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")


@pytest.fixture(scope="session")
def tiny_entry(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., BaseEntry]:
    """The prepared tiny model of a family in a quantisation, made once."""
    root = tmp_path_factory.mktemp("tiny")

    @functools.cache
    def made(family: str, quant: str = "int4", **config: object) -> BaseEntry:
        told = "".join(f"-{key}-{value}" for key, value in config.items())
        make = make_internlm2 if family == "internlm2" else functools.partial(make_tiny, family=family)
        source = make(root / f"{family}-{quant}{told}", **config)
        return BaseEntry.open(prepare(str(source), quant=quant, home=root / "home", report=quiet))

    return made


@pytest.fixture(scope="session")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight short conversations."""
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number, question in enumerate(QUESTIONS):
            messages = [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"I am number {number}."},
            ]
            file.write(json.dumps({"messages": messages}) + "\n")
    return path
