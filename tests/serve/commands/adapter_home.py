"""Tiny bases, adapters of them that peft made, and a home folder in which both are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunechat.serve.base.entry import read_manifest
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.base import BaseManifest
from tunechat.tests.adapters_by_peft import make_adapter
from tunechat.tests.tiny_models import make_tiny


def quiet(stage: str, fraction: float | None = None) -> None:
    """A progress report that goes nowhere."""


class Workshop:
    """Makes tiny models and adapters once and gives them again."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._adapters: dict[str, Path] = {}

    def base(self, family: str = "llama", tied: bool = False) -> Path:
        folder = self._root / f"{family}{'-tied' if tied else ''}"
        return folder if folder.exists() else make_tiny(folder, family, tie_word_embeddings=tied)

    def adapter(self, base: Path, *, seed: int = 1, targets: str = "q_proj v_proj", **config: Any) -> Path:
        key = json.dumps([base.name, seed, targets, config])
        if key not in self._adapters:
            settings = {"r": 4, "lora_alpha": 8, "target_modules": targets.split()} | config
            folder = self._root / f"adapter-{len(self._adapters)}"
            self._adapters[key] = make_adapter(base, folder, seed=seed, **settings)
        return self._adapters[key]


def prepared(base: Path, home: Path, quant: str = "int4") -> BaseManifest:
    """The manifest of `base`, prepared in `home`."""
    return read_manifest(prepare(str(base), quant=quant, home=home, report=quiet))


def say_trained_on(version: Path, base: BaseManifest) -> None:
    """Lets the stored version in `version` say that it was trained on `base`, as adapters that are made here do."""
    path = version / "manifest.json"
    stated = json.loads(path.read_text())
    path.write_text(json.dumps(stated | {"source_fingerprint": base.source_fingerprint}))
