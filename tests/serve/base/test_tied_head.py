"""Which tensor a head shares with the embedding, whatever the class calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunechat.serve.base.tied_head import tied_to
from tunechat.tests.tiny_models import make_tiny


@pytest.mark.parametrize(
    ("family", "tied", "expected"),
    [
        ("llama", True, "model.embed_tokens.weight"),
        ("llama", False, None),
        ("qwen2", True, "model.embed_tokens.weight"),
        ("gemma", True, "model.embed_tokens.weight"),
        ("gpt2", True, "transformer.wte.weight"),
        ("phi", False, None),
    ],
)
def test_head_of_a_class(tmp_path: Path, family: str, tied: bool, expected: str | None) -> None:
    config = json.loads((make_tiny(tmp_path, family, tie_word_embeddings=tied) / "config.json").read_text())
    assert tied_to(config, "lm_head") == expected
    assert tied_to(config, "model.layers.0.self_attn.q_proj") is None
