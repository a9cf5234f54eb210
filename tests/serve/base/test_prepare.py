"""Preparing: every family and codec, hostile folders, `kill -9` at any moment, two at once."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from tunechat.serve.base.entry import MANIFEST, WEIGHTS, BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.base.publish import TEMPORARY
from tunechat.serve.base.quantize import int4_rows, int8_rows, nf4_weight, pack_int4, pack_int8
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import FAMILIES, IM_END, make_tiny

from .conftest import quiet

COMPACT = ("llama", "mistral", "qwen2", "qwen3")
FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
QUANTS = ("int4", "nf4", "none")


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, Path] = {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = make_tiny(tmp_path_factory.mktemp("tiny") / family, family)
        return made[family]

    return folder


def opened(folder: Path, quant: str, home: Path) -> BaseEntry:
    return BaseEntry.open(prepare(str(folder), quant=quant, home=home, report=quiet))


def unfused(name: str) -> list[str]:
    last = name.rpartition(".")[2]
    return [name.removesuffix(last) + part for part in FUSED.get(last, (last,))]


def quantised(dense: Tensor, form: str) -> Tensor:
    match form:
        case "int4":
            return pack_int4(int4_rows(dense)).dequantize()
        case "int8":
            return pack_int8(int8_rows(dense)).dequantize()
        case "nf4":
            return nf4_weight(dense).dequantize()
        case _:
            return dense


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("family", COMPACT)
def test_compact_families(tiny_folder: Any, tmp_path: Path, family: str, quant: str) -> None:
    source = load_file(tiny_folder(family) / "model.safetensors")
    entry = opened(tiny_folder(family), quant, tmp_path)
    assert entry.manifest.layout == "compact"
    assert entry.manifest.parameters == sum(tensor.numel() for tensor in source.values())
    seen: set[str] = set()
    for name in entry.names():
        parts = unfused(name.removesuffix(".bias")) if name.endswith(".bias") else unfused(name)
        if name.endswith(".bias"):
            parts = [f"{part}.bias" for part in parts]
            assert torch.equal(entry.vector(name), torch.cat([source[part] for part in parts])), name
        elif name.endswith(".weight"):
            parts = [name]
            assert torch.equal(entry.vector(name), source[name]), name
        else:
            parts = [f"{part}.weight" for part in parts]
            form = ("int8" if quant == "int4" else "dense") if "layers" not in name else quant
            dense = torch.cat([source[part] for part in parts])
            assert torch.equal(entry.weight(name).dequantize(), quantised(dense, form)), name
        seen.update(parts)
    assert seen == set(source)


@pytest.mark.parametrize("quant", QUANTS)
@pytest.mark.parametrize("family", sorted(set(FAMILIES) - set(COMPACT)))
def test_other_families(tiny_folder: Any, tmp_path: Path, family: str, quant: str) -> None:
    source = load_file(tiny_folder(family) / "model.safetensors")
    entry = opened(tiny_folder(family), quant, tmp_path)
    assert entry.manifest.layout == "generic"
    linears = 0
    for name in entry.names():
        if entry.has(f"{name}.weight") or not entry.has(name) or f"{name}.weight" in source:
            dense = source[f"{name}.weight"]
            linear = family != "gpt2" and dense.dim() == 2 and ".layers." in name
            linears += linear
            expected = quantised(dense, quant if linear else "none")
            assert torch.equal(entry.weight(name).dequantize(), expected), name
        else:
            assert torch.equal(entry.vector(name), source[name]), name
    assert len(entry.names()) == len(source)
    assert linears or family == "gpt2"


def test_codecs_share_the_source_fingerprint(tiny_folder: Any, tmp_path: Path) -> None:
    manifests = [opened(tiny_folder("llama"), quant, tmp_path).manifest for quant in QUANTS]
    assert len({m.source_fingerprint for m in manifests}) == 1
    assert len({m.weights_fingerprint for m in manifests}) == 3
    other = opened(make_tiny(tmp_path / "other", "llama", seed=1), "int4", tmp_path).manifest
    assert other.source_fingerprint != manifests[0].source_fingerprint


def test_16_bit_sources_keep_their_type(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "llama", dtype=torch.bfloat16)
    for quant in ("nf4", "none"):
        entry = opened(folder, quant, tmp_path)
        assert entry.tensor("model.embed_tokens.weight").dtype == torch.bfloat16
        assert entry.tensor("model.norm.weight").dtype == torch.float32


def test_columns_that_do_not_fall_into_blocks_stay_dense(tmp_path: Path) -> None:
    folder = make_tiny(tmp_path / "m", "llama", hidden_size=48, intermediate_size=96)
    entry = opened(folder, "int4", tmp_path)
    assert type(entry.weight("model.layers.0.self_attn.qkv_proj")).__name__ == "DenseWeight"
    assert type(entry.weight("model.layers.0.mlp.down_proj")).__name__ == "Int4Weight"
    assert type(opened(folder, "nf4", tmp_path).weight("model.layers.0.mlp.down_proj")).__name__ == "DenseWeight"


def test_rows_that_do_not_fall_into_groups(tmp_path: Path) -> None:
    folder = make_tiny(
        tmp_path / "m", "llama", vocab_size=301, num_attention_heads=2, num_key_value_heads=1, head_dim=6
    )
    source = load_file(folder / "model.safetensors")
    entry = opened(folder, "int4", tmp_path)
    expected = quantised(source["model.embed_tokens.weight"], "int8")
    assert torch.equal(entry.weight("model.embed_tokens").dequantize(), expected)


def test_a_compact_name_with_other_tensors_is_not_served_compact(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(16)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ModelError, match=r"q_norm\.weight, which LlamaForCausalLM does not know"):
        opened(folder, "int4", tmp_path)


def test_shards(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {}
    for part, chosen in enumerate((names[::2], names[1::2]), 1):
        file = f"model-{part:05}-of-00002.safetensors"
        save_file({name: tensors[name] for name in chosen}, folder / file)
        weight_map |= dict.fromkeys(chosen, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    sharded, whole = opened(folder, "int4", tmp_path), opened(tiny_folder("llama"), "int4", tmp_path)
    assert sharded.manifest.weights_fingerprint == whole.manifest.weights_fingerprint
    weight_map[names[0]] = "../whole/model.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ModelError, match="no file name"):
        opened(folder, "nf4", tmp_path)


def test_an_entry_that_exists_is_returned_at_once(tiny_folder: Any, tmp_path: Path, monkeypatch: Any) -> None:
    first = prepare(str(tiny_folder("llama")), quant="int4", home=tmp_path, report=quiet)

    def never(*_: Any) -> None:
        raise AssertionError("fetched again")

    monkeypatch.setattr("tunechat.serve.base.prepare.fetch", never)
    assert prepare(str(tiny_folder("llama")), quant="int4", home=tmp_path, report=never) == first


def test_tokenizer_template_and_ends(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "m")
    before = opened(folder, "int4", tmp_path)
    assert before.manifest.eos_token_ids == (IM_END,) and len(before.manifest.template_hash) == 64
    (folder / "chat_template.jinja").write_text("of its own")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [258, 256]}))
    after = opened(folder, "int4", tmp_path)
    config = json.loads((after.folder / "tokenizer_config.json").read_text())
    assert config["chat_template"] == "of its own"
    assert after.manifest.template_hash != before.manifest.template_hash
    assert after.manifest.eos_token_ids == (258, 256)
    assert after.manifest.source_fingerprint == before.manifest.source_fingerprint


CANARY = "import pathlib; pathlib.Path({path!r}).write_text('ran')\n"


class TestHostileFolders:
    @pytest.fixture
    def folder(self, tiny_folder: Any, tmp_path: Path) -> Path:
        return Path(shutil.copytree(tiny_folder("llama"), tmp_path / "m"))

    def test_code_of_a_model_never_runs(self, folder: Path, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
            (folder / name).write_text(CANARY.format(path=str(canary)))
        maps = {"AutoConfig": "configuration_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
        for name, auto_map in (
            ("config.json", maps),
            ("tokenizer_config.json", {"AutoTokenizer": ["tokenization_evil.T", None]}),
        ):
            values = json.loads((folder / name).read_text())
            (folder / name).write_text(json.dumps(values | {"auto_map": auto_map}))
        entry = opened(folder, "int4", tmp_path)
        for name in entry.manifest.files:
            assert "auto_map" not in (entry.folder / name).read_bytes().decode("latin-1"), name
        assert not [path for path in entry.folder.iterdir() if path.suffix == ".py"]
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ModelError, match=r"no tokenizer\.json"):
            opened(folder, "int4", tmp_path)
        assert not canary.exists()

    def test_pickles_are_never_read(self, folder: Path, tmp_path: Path) -> None:
        canary = tmp_path / "canary"
        payload = b"cbuiltins\nexec\n(V" + CANARY.format(path=str(canary)).strip().encode() + b"\ntR."
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
        with pytest.raises(ModelError, match="never read"):
            opened(folder, "int4", tmp_path)
        for name in ("pytorch_model.bin", "model.safetensors"):
            (folder / name).write_bytes(payload)
        with pytest.raises(ModelError, match="no safetensors file"):
            opened(folder, "int4", tmp_path)
        assert not canary.exists()

    @pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer_config.json"])
    def test_links_that_lead_out_are_refused(self, folder: Path, tmp_path: Path, name: str) -> None:
        (folder / name).rename(tmp_path / "secret")
        (folder / name).symlink_to(tmp_path / "secret")
        with pytest.raises(ModelError, match="leads out"):
            opened(folder, "int4", tmp_path)

    def test_links_of_a_hub_cache_are_followed(self, folder: Path, tmp_path: Path) -> None:
        snapshot, blobs = tmp_path / "repo" / "snapshots" / "abc", tmp_path / "repo" / "blobs"
        snapshot.mkdir(parents=True)
        blobs.mkdir()
        for path in folder.iterdir():
            path.rename(blobs / path.name)
            (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
        assert opened(snapshot, "int4", tmp_path).manifest.layout == "compact"

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"architectures": ["MixtralForCausalLM"], "num_local_experts": 8}, "mixture-of-experts"),
            ({"architectures": ["BertForMaskedLM"]}, "no causal language model"),
            ({"architectures": []}, "names no architecture"),
            ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
            ({"hidden_size": 128}, "has shape"),
            ({"architectures": ["EvilForCausalLM"], "model_type": "evil"}, "cannot build EvilForCausalLM"),
        ],
    )
    def test_what_cannot_be_served_is_refused(
        self, folder: Path, tmp_path: Path, change: dict[str, Any], message: str
    ) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | change))
        with pytest.raises(ModelError, match=message):
            opened(folder, "int4", tmp_path)
        assert [path for path in (tmp_path / "models").iterdir() if not path.name.startswith(".locks")] == []

    def test_nan_is_refused(self, folder: Path, tmp_path: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        tensors["model.layers.1.mlp.up_proj.weight"][3, 5] = float("nan")
        save_file(tensors, folder / "model.safetensors")
        with pytest.raises(ModelError, match=r"model\.layers\.1\.mlp\.gate_up_proj holds NaN"):
            opened(folder, "int4", tmp_path)

    def test_a_deep_config_is_refused(self, folder: Path, tmp_path: Path) -> None:
        (folder / "config.json").write_text("[" * 100_000)
        with pytest.raises(ModelError, match="no JSON"):
            opened(folder, "int4", tmp_path)


def test_a_disk_that_cannot_be_written_is_told(tiny_folder: Any, tmp_path: Path) -> None:
    (tmp_path / "models").write_bytes(b"in the way")
    with pytest.raises(ModelError, match="llama cannot be prepared: "):
        prepare(str(tiny_folder("llama")), quant="int4", home=tmp_path, report=quiet)


def test_a_dangling_link_is_told(tiny_folder: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_folder("llama"), tmp_path / "m")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(tmp_path / "gone")
    with pytest.raises(ModelError, match=r"has no config\.json"):
        opened(folder, "int4", tmp_path)


def test_unknown_codecs_are_refused(tiny_folder: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="int4, nf4, none"):
        prepare(str(tiny_folder("llama")), quant="int3", home=tmp_path, report=quiet)


FORKER = """
import json, os, sys
from pathlib import Path
from tunechat.serve.base.prepare import prepare
for line in sys.stdin:
    command = json.loads(line)
    if "wait" in command:
        print(os.waitstatus_to_exitcode(os.waitpid(command["wait"], 0)[1]), flush=True)
    elif pid := os.fork():
        print(pid, flush=True)
    else:
        prepare(command["model"], quant="int4", home=Path(command["home"]), report=lambda stage, fraction: None)
        os._exit(0)
"""


class Forker:
    """A process that has imported everything, and forks children that prepare."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", FORKER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def start(self, model: Path, home: Path) -> int:
        """The id of a child that now prepares `model`."""
        return self._ask(model=str(model), home=str(home))

    def wait(self, child: int) -> int:
        """The exit status of `child`."""
        return self._ask(wait=child)

    def _ask(self, **command: Any) -> int:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    made = Forker()
    yield made
    made.process.communicate(timeout=60)
    assert made.process.returncode == 0


def entries(home: Path) -> list[Path]:
    models = home / "models"
    return [path for path in models.iterdir() if not path.name.startswith(".")] if models.is_dir() else []


def test_kill_9_leaves_a_whole_entry_or_none(forker: Forker, default_gguf: Path, tmp_path: Path) -> None:
    moments = random.Random(7)
    for _ in range(8):
        child = forker.start(default_gguf, tmp_path)
        time.sleep(moments.uniform(0.0, 1.0))
        os.kill(child, signal.SIGKILL)
        assert forker.wait(child) in {0, -signal.SIGKILL}
        for folder in entries(tmp_path):
            BaseEntry.open(folder).verify()
    folder = prepare(str(default_gguf), quant="int4", home=tmp_path, report=quiet)
    BaseEntry.open(folder).verify()
    assert entries(tmp_path) == [folder]
    assert list((tmp_path / "models").glob(f"{TEMPORARY}*")) == []


def test_two_at_once_make_one_entry(forker: Forker, default_gguf: Path, tmp_path: Path) -> None:
    children = [forker.start(default_gguf, tmp_path) for _ in range(2)]
    assert [forker.wait(child) for child in children] == [0, 0]
    (folder,) = entries(tmp_path)
    BaseEntry.open(folder).verify()
    assert {path.name for path in folder.iterdir()} >= {MANIFEST, WEIGHTS}
    assert prepare(str(default_gguf), quant="int4", home=tmp_path, report=quiet) == folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_manifest_names_every_linear_module(tmp_path: Path, family: str, tied: bool) -> None:
    """An adapter's targets are checked against these names and sizes, without torch."""
    folder = make_tiny(tmp_path / "model", family, tie_word_embeddings=tied)
    manifest = opened(folder, "int4", tmp_path).manifest
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    assert "lm_head" in expected
    assert manifest.linears == expected
