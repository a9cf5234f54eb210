"""Prepared entries: the default model's values and logits, damage that is noticed, memory that is shared."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf import GGUFReader, dequantize
from torch import Tensor

from tunechat.serve.base.entry import MANIFEST, WEIGHTS, BaseEntry
from tunechat.serve.base.prepare import prepare
from tunechat.serve.contract.errors import ModelError
from tunechat.tests.tiny_models import make_tiny

from .conftest import quiet


@pytest.fixture(scope="module")
def stored(default_gguf: Path) -> dict[str, Tensor]:
    """Every tensor of the default model's file, by the `gguf` package alone."""
    reader = GGUFReader(default_gguf)
    return {t.name: torch.from_numpy(dequantize(t.data, t.tensor_type).copy()) for t in reader.tensors}


def rotate_half_order(weight: Tensor, heads: int) -> Tensor:
    return weight.view(heads, -1, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def test_the_default_model_is_taken_over_without_loss(default_entry: Path, stored: dict[str, Tensor]) -> None:
    entry = BaseEntry.open(default_entry)
    assert (entry.manifest.layout, entry.manifest.quant) == ("compact", "int4")
    assert torch.equal(entry.weight("model.embed_tokens").dequantize(), stored["token_embd.weight"])
    assert torch.equal(entry.vector("model.norm.weight"), stored["output_norm.weight"])
    for layer in range(30):
        ours, theirs = f"model.layers.{layer}.", f"blk.{layer}."
        q = rotate_half_order(stored[f"{theirs}attn_q.weight"], 9)
        k = rotate_half_order(stored[f"{theirs}attn_k.weight"], 3)
        gate_up = [stored[f"{theirs}ffn_{part}.weight"] for part in ("gate", "up")]
        expected = {
            "self_attn.qkv_proj": torch.cat([q, k, stored[f"{theirs}attn_v.weight"]]),
            "self_attn.o_proj": stored[f"{theirs}attn_output.weight"],
            "mlp.gate_up_proj": torch.cat(gate_up),
            "mlp.down_proj": stored[f"{theirs}ffn_down.weight"],
        }
        for name, value in expected.items():
            assert type(entry.weight(ours + name)).__name__ == "Int4Weight"
            assert torch.equal(entry.weight(ours + name).dequantize(), value), ours + name
        assert torch.equal(entry.vector(f"{ours}input_layernorm.weight"), stored[f"{theirs}attn_norm.weight"])
        assert torch.equal(entry.vector(f"{ours}post_attention_layernorm.weight"), stored[f"{theirs}ffn_norm.weight"])
    assert len(entry.names()) == 1 + 30 * 6 + 1


def test_the_default_manifest(default_entry: Path) -> None:
    manifest = BaseEntry.open(default_entry).manifest
    assert manifest.architecture == "LlamaForCausalLM"
    assert (manifest.context_length, manifest.vocab_size, manifest.eos_token_ids) == (8192, 49152, (2,))
    assert manifest.parameters == 134_515_008
    assert manifest.weight_bytes == (default_entry / WEIGHTS).stat().st_size < 100e6


def transformers_model(entry: BaseEntry) -> Any:
    """transformers' own Llama on the entry's config and dequantised weights."""
    from transformers import AutoConfig, AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(entry.folder), dtype=torch.float32)
    state: dict[str, Tensor] = {}
    for name in entry.names():
        if not entry.has(f"{name}.quants"):
            state[name] = entry.vector(name)
            continue
        stem, _, last = name.rpartition(".")
        decoder = model.config
        sizes = [decoder.num_attention_heads * 64, decoder.num_key_value_heads * 64, decoder.num_key_value_heads * 64]
        dense = entry.weight(name).dequantize()
        if last == "qkv_proj":
            state |= {f"{stem}.{p}_proj.weight": part for p, part in zip("qkv", dense.split(sizes), strict=True)}
        elif last == "gate_up_proj":
            state |= {f"{stem}.{p}_proj.weight": part for p, part in zip(("gate", "up"), dense.chunk(2), strict=True)}
        else:
            state[f"{name}.weight"] = dense
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    return model.eval()


PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"


def test_the_default_model_answers(default_entry: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(default_entry / "tokenizer.json"))
    ids = tokenizer.encode(PROMPT).ids
    with torch.inference_mode():
        model = transformers_model(BaseEntry.open(default_entry))
        answer = model.generate(torch.tensor([ids]), max_new_tokens=12, do_sample=False, pad_token_id=2)
    assert "Paris" in tokenizer.decode(answer[0, len(ids) :].tolist())


@pytest.mark.acceptance
@pytest.mark.timeout(600)
def test_logits_are_those_of_transformers_own_loading(default_entry: Path, default_gguf: Path) -> None:
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 4000, 31).unsqueeze(0)
    with torch.inference_mode():
        ours = transformers_model(BaseEntry.open(default_entry))(ids).logits
        theirs = AutoModelForCausalLM.from_pretrained(
            default_gguf.parent, gguf_file=default_gguf.name, dtype=torch.float32
        ).eval()(ids).logits  # fmt: skip
    assert torch.equal(ours, theirs)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    folder = make_tiny(tmp_path / "m", "llama")
    return prepare(str(folder), quant="int4", home=tmp_path / "home", report=quiet)


@pytest.mark.parametrize("name", [WEIGHTS, "config.json", "tokenizer.json", MANIFEST])
def test_a_missing_file_is_noticed(tiny: Path, name: str) -> None:
    (tiny / name).unlink()
    with pytest.raises(ModelError, match="prepare"):
        BaseEntry.open(tiny)


def test_a_cut_file_is_noticed(tiny: Path) -> None:
    content = (tiny / WEIGHTS).read_bytes()
    (tiny / WEIGHTS).write_bytes(content[:-64])
    with pytest.raises(ModelError, match="bytes"):
        BaseEntry.open(tiny)


def test_a_changed_byte_is_noticed_by_verify(tiny: Path) -> None:
    BaseEntry.open(tiny).verify()
    content = bytearray((tiny / WEIGHTS).read_bytes())
    content[-1000] ^= 1
    (tiny / WEIGHTS).write_bytes(content)
    with pytest.raises(ModelError, match="was changed"):
        BaseEntry.open(tiny).verify()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2"),
        ({"files": {}}, "lists no"),
        ({"weight_bytes": 1}, "instead of 1"),
        ({"quant": 4}, "cannot be read"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(tiny: Path, change: dict[str, Any], message: str) -> None:
    manifest = json.loads((tiny / MANIFEST).read_text())
    (tiny / MANIFEST).write_text(json.dumps(manifest | change))
    with pytest.raises(ModelError, match=message):
        BaseEntry.open(tiny)


def test_a_manifest_cannot_name_files_elsewhere(tiny: Path) -> None:
    manifest = json.loads((tiny / MANIFEST).read_text())
    manifest["files"]["../outside"] = "0"
    (tiny.parent / "outside").write_text("x")
    (tiny / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match=r"lacks \.\./outside"):
        BaseEntry.open(tiny)


def test_names_that_are_not_there(tiny: Path) -> None:
    entry = BaseEntry.open(tiny)
    for read in (entry.weight, entry.vector, entry.tensor):
        with pytest.raises(ModelError, match="model m has no"):
            read("nothing")
    assert not entry.has("nothing") and entry.has("model.norm.weight") and entry.has("model.embed_tokens")


def test_an_entry_moves(tiny: Path, tmp_path: Path) -> None:
    moved = Path(shutil.move(tiny, tmp_path / "elsewhere"))
    BaseEntry.open(moved).verify()


READER = """
import sys
from pathlib import Path
from tunechat.serve.base.entry import BaseEntry
entry = BaseEntry.open(Path(sys.argv[1]))
assert not {"transformers", "bitsandbytes", "gguf", "peft"} & set(sys.modules), "heavy imports"
total = sum(int(entry.tensor(f"{n}.quants").sum()) for n in entry.names() if entry.has(f"{n}.quants"))
print(total, flush=True)
sys.stdin.readline()
"""


def pss_of(pid: int, path: Path) -> int:
    """Bytes of the process's mapping of `path`, shared pages counted by share."""
    total = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
            inside = line.endswith(str(path))
        elif inside and line.startswith("Pss:"):
            total += int(line.split()[1]) * 1024
    return total


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_two_processes_hold_the_weights_once(default_entry: Path, tmp_path: Path) -> None:
    # Others may map the default model meanwhile, and would have a share of it.
    entry = shutil.copytree(default_entry, tmp_path / default_entry.name)
    weights = entry / WEIGHTS
    command = [sys.executable, "-c", READER, str(entry)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        totals = [process.stdout.readline() for process in processes if process.stdout]
        held = [pss_of(process.pid, weights) for process in processes]
    finally:
        for process in processes:
            process.communicate(b"\n")
    assert totals[0] == totals[1] != b""
    assert min(held) > 0.3 * weights.stat().st_size
    assert sum(held) <= 1.05 * weights.stat().st_size
