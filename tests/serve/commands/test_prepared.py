"""Which prepared base a command works with, without fetching anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunechat.serve.commands.prepared import base_of, prepared_base
from tunechat.serve.contract.adapters import ADAPTER_FORMAT, AdapterManifest, Variant
from tunechat.serve.contract.errors import ModelError
from tunechat.serve.settings import Settings

from .adapter_home import Workshop, prepared


def version(**origin: object) -> AdapterManifest:
    return AdapterManifest(
        format=ADAPTER_FORMAT,
        name="support",
        number=1,
        digest="d",
        variant=Variant.LORA,
        rank=4,
        alpha=8,
        targets=("q_proj",),
        modules=1,
        parameters=1,
        bytes=1,
        size=1,
        created=1,
        files={},
        **origin,  # type: ignore[arg-type]
    )


def test_the_form_that_is_served_comes_first(workshop: Workshop, tmp_path: Path) -> None:
    base = str(workshop.base())
    prepared(workshop.base(), tmp_path, "nf4")
    assert "-nf4-" in prepared_base(Settings(home=tmp_path, model=base, device="cpu")).name
    prepared(workshop.base(), tmp_path, "int4")
    assert "-int4-" in prepared_base(Settings(home=tmp_path, model=base, device="cpu")).name
    assert "-nf4-" in prepared_base(Settings(home=tmp_path, model=base, quant="nf4")).name
    with pytest.raises(ModelError, match="tunechat pull"):
        prepared_base(Settings(home=tmp_path, model=base, quant="none"))


def test_adapters_find_the_base_they_were_trained_on(workshop: Workshop, tmp_path: Path) -> None:
    one, two = workshop.base(), workshop.base("qwen2", False)
    settings = Settings(home=tmp_path, model=str(one), device="cpu")
    prepared(one, tmp_path)
    int4, nf4 = (prepared(two, tmp_path, quant) for quant in ("int4", "nf4"))
    for base in (int4, nf4):
        mine = version(source_fingerprint=base.source_fingerprint, weights_fingerprint=base.weights_fingerprint)
        assert f"-{base.quant}-" in base_of(mine, settings, is_chosen=False).name
        assert base_of(mine, settings, is_chosen=False).name.startswith("qwen2")
    assert base_of(version(), settings, is_chosen=False) == prepared_base(settings)
    assert base_of(version(source_fingerprint=int4.source_fingerprint), settings, is_chosen=True).name.startswith(
        "llama"
    )
    with pytest.raises(ModelError, match=r"trained on \(org/x\) is not prepared here"):
        base_of(version(source_fingerprint="other", base="org/x"), settings, is_chosen=False)
