"""What is not done is refused by the name of its key."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tunechat.serve.base.entry import BaseEntry
from tunechat.serve.contract.errors import ConfigError
from tunechat.trainer.recipe_file import make_recipe
from tunechat.trainer.supported import check_supported


@pytest.mark.parametrize(
    ("told", "key"),
    [
        ({"method": "full", "targets": "q_proj"}, "targets"),
        ({"distributed": "zero2", "processes": 2, "method": "lora"}, "distributed"),
        ({"data": ()}, "data"),
    ],
)
def test_refused(tiny_entry: Callable[..., BaseEntry], told: dict[str, Any], key: str) -> None:
    manifest = tiny_entry("llama").manifest
    check_supported(make_recipe({"data": "x.jsonl"}), manifest)
    with pytest.raises(ConfigError, match=rf"\b{key}\b") as error:
        check_supported(make_recipe({"data": "x.jsonl"} | told), manifest)
    assert error.value.param == key


def test_an_unquantised_base_takes_lora(tiny_entry: Callable[..., BaseEntry]) -> None:
    manifest = tiny_entry("llama", "none").manifest
    check_supported(make_recipe({"data": "x.jsonl", "method": "lora"}), manifest)
    check_supported(make_recipe({"data": "x.jsonl", "codec": "nf4"}), manifest)
    with pytest.raises(ConfigError, match="method=lora"):
        check_supported(make_recipe({"data": "x.jsonl"}), manifest)
