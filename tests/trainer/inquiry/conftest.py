"""A base of bytes, and files of conversations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tunechat.tests.serve.api.harness import write_entry

Write = Callable[..., str]


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_entry(tmp_path_factory.mktemp("entry")))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(*records, name="data.jsonl")`: the path of a file with them; texts are lines as they are."""

    def written(*records: Any, name: str = "data.jsonl") -> str:
        path = tmp_path / name
        lines = [record if isinstance(record, str) else json.dumps(record) for record in records]
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return str(path)

    return written


def chat(question: str, answer: str, **more: Any) -> dict[str, Any]:
    """A record of one question and one answer."""
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer, **more}]}
