"""`tunechat adapters export`: a PEFT folder or zip that peft loads, whole or not at all."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tunechat.serve.commands.adapter_export import write_peft
from tunechat.serve.contract.errors import ConfigError, Conflict
from tunechat.tests.adapters_by_peft import Reference, read_model

from .adapter_home import Workshop, prepared
from .conftest import Done

TOKENS = [256, 1, 2, 3, 99]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("variant", [{}, {"use_dora": True}, {"rank_pattern": {"v_proj": 2}}])
def test_peft_loads_what_was_exported(
    tunechat: Callable[..., Done], workshop: Workshop, home: Path, tmp_path: Path, variant: dict[str, object]
) -> None:
    from peft import PeftModel

    base = workshop.base()
    prepared(base, home)
    source = workshop.adapter(base, **variant)
    assert tunechat("adapters", "load", str(source), "--name", "support", "--model", str(base)).code == 0
    done = tunechat("adapters", "export", "support", str(tmp_path / "out"), "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert (told["id"], told["path"]) == ("support@1", str(tmp_path / "out"))
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logits = PeftModel.from_pretrained(read_model(base), tmp_path / "out")(torch.tensor([TOKENS])).logits[0]
    assert torch.equal(logits, Reference(base).logits(TOKENS, [(source, 1.0)]))


def test_exports_come_back_with_their_origin(
    tunechat: Callable[..., Done], workshop: Workshop, home: Path, tmp_path: Path
) -> None:
    base = workshop.base()
    manifest = prepared(base, home)
    flags = ("--model", str(base), "--json")
    first = json.loads(tunechat("adapters", "load", str(workshop.adapter(base)), "--name", "support", *flags).out)
    path = home / "adapters" / "support" / "1" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source_fingerprint": manifest.source_fingerprint}))
    for target in ("out", "out.zip"):
        assert tunechat("adapters", "export", "support@1", str(tmp_path / target)).code == 0
        again = json.loads(tunechat("adapters", "load", str(tmp_path / target), "--name", "copy", *flags).out)
        assert (again["digest"], again["source_fingerprint"]) == (first["digest"], manifest.source_fingerprint)


def test_equal_content_makes_equal_zips(workshop: Workshop, tmp_path: Path) -> None:
    folder = workshop.adapter(workshop.base())
    sizes = [write_peft(folder, tmp_path / name, force=False) for name in ("a.zip", "b.ZIP")]
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.ZIP").read_bytes()
    assert sizes == [(tmp_path / "a.zip").stat().st_size] * 2
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize("target", ["out", "out.zip"])
def test_overwrites_its_own_only_when_told(workshop: Workshop, tmp_path: Path, target: str) -> None:
    one, two = (workshop.adapter(workshop.base(), seed=seed) for seed in (1, 2))
    write_peft(one, tmp_path / target, force=False)
    with pytest.raises(Conflict, match="--force"):
        write_peft(two, tmp_path / target, force=False)
    write_peft(two, tmp_path / target, force=True)
    write_peft(two, tmp_path / "expected.zip", force=False)
    if target == "out":
        kept = (tmp_path / target / "adapter_model.safetensors").read_bytes()
        assert kept == (two / "adapter_model.safetensors").read_bytes()
    else:
        assert (tmp_path / target).read_bytes() == (tmp_path / "expected.zip").read_bytes()
    assert not list(tmp_path.glob(".tmp-*"))


def test_place_must_be_there(workshop: Workshop, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no folder"):
        write_peft(workshop.adapter(workshop.base()), tmp_path / "no" / "out", force=False)
