"""Tiny random InternLM2 folders as their repositories have them, and InternLM2's own forward in plain torch."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention, silu

MARKERS = ("<|plugin|>", "<|interpreter|>", "<|action_end|>", "<|action_start|>", "<|im_end|>", "<|im_start|>")
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEXTS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "What is the weather in Paris? Add 17 and 25, then tell me 3.14 jokes.",
    '{"name": "get_weather", "parameters": {"city": "Paris", "unit": "celsius"}}',
    "def f(x):\n    return x ** 2  # a comment\n",
    "你好,世界。今天天气怎么样?naïve café",
)
# Renamed by the added tokens, as in the published models.
UNUSED = [f"[UNUSED_TOKEN_{number}]" for number in range(len(MARKERS))]


def make_internlm2(
    folder: Path, *, seed: int = 0, shards: int = 1, dummy_prefix: bool = False, **overrides: Any
) -> Path:
    """A random InternLM2 chat model in `folder`, with code that must not run and no `tokenizer.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = write_sentencepiece(folder / "tokenizer.model")
    config: dict[str, Any] = {
        "architectures": ["InternLM2ForCausalLM"],
        "attn_implementation": "eager",
        "auto_map": {"AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM"},
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "hidden_act": "silu",
        "hidden_size": 64,
        "intermediate_size": 96,
        "max_position_embeddings": 512,
        "model_type": "internlm2",
        "num_attention_heads": 8,
        "num_hidden_layers": 2,
        "num_key_value_heads": 2,
        "pad_token_id": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-5,
        "rope_scaling": {"factor": 2.0, "type": "dynamic"},
        "rope_theta": 1000000,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
        "vocab_size": pieces,
        **overrides,
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(pieces)))
    (folder / "modeling_internlm2.py").write_text("raise SystemExit('code of a model was run')\n")
    (folder / "tokenization_internlm2.py").write_text("raise SystemExit('code of a model was run')\n")
    tensors = random_tensors(config, seed)
    names = sorted(tensors)
    for shard in range(shards):
        part = {name: tensors[name] for name in names[shard::shards]}
        name = "model.safetensors" if shards == 1 else f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / name)
    if shards > 1:
        places = {n: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, n in enumerate(names)}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def write_sentencepiece(path: Path, *, dummy_prefix: bool = False, tidy: bool = False, pieces: int = 420) -> int:
    """A small BPE of sentencepiece, trained here; returns how many pieces it has, the unused ones last."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=model,
        model_type="bpe",
        vocab_size=pieces,
        character_coverage=1.0,
        byte_fallback=True,
        split_digits=True,
        add_dummy_prefix=dummy_prefix,
        remove_extra_whitespaces=tidy,
        normalization_rule_name="nmt_nfkc" if tidy else "identity",
        minloglevel=2,
    )
    from sentencepiece import sentencepiece_model_pb2

    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    for number, name in enumerate(UNUSED):
        proto.pieces.add(piece=name, score=-float(pieces + number), type=1)
    path.write_bytes(proto.SerializeToString())
    return len(proto.pieces)


def tokenizer_config(pieces: int) -> dict[str, Any]:
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    names = {0: "<unk>", 1: "<s>", 2: "</s>"} | {pieces - 6 + at: name for at, name in enumerate(MARKERS)}
    return {
        "added_tokens_decoder": {str(id_): {"content": name, **flags} for id_, name in names.items()},
        "additional_special_tokens": list(MARKERS),
        "auto_map": {"AutoTokenizer": ["tokenization_internlm2.InternLM2Tokenizer", None]},
        "bos_token": "<s>",
        "chat_template": TEMPLATE,
        "eos_token": "</s>",
        "pad_token": "</s>",
        "tokenizer_class": "InternLM2Tokenizer",
        "unk_token": "<unk>",
    }


def random_tensors(config: dict[str, Any], seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int, spread: float = 1.0, middle: float = 0.0) -> Tensor:
        return torch.randn(*shape, generator=generator) * spread + middle

    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    width = hidden // config["num_attention_heads"]
    rows = (config["num_attention_heads"] + 2 * config["num_key_value_heads"]) * width
    tensors = {
        "model.tok_embeddings.weight": draw(vocabulary, hidden),
        "model.norm.weight": draw(hidden, spread=0.1, middle=1),
        "output.weight": draw(vocabulary, hidden, spread=hidden**-0.5),
    }
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        shapes = {
            "attention.wqkv": (rows, hidden),
            "attention.wo": (hidden, hidden),
            "feed_forward.w1": (inner, hidden),
            "feed_forward.w3": (inner, hidden),
            "feed_forward.w2": (hidden, inner),
        }
        for name, shape in shapes.items():
            tensors[f"{prefix}.{name}.weight"] = draw(*shape, spread=shape[1] ** -0.5)
            if config["bias"] and name.startswith("attention"):
                tensors[f"{prefix}.{name}.bias"] = draw(shape[0], spread=0.5)
        tensors[f"{prefix}.attention_norm.weight"] = draw(hidden, spread=0.1, middle=1)
        tensors[f"{prefix}.ffn_norm.weight"] = draw(hidden, spread=0.1, middle=1)
    return tensors


def internlm2_logits(folder: Path, tokens: list[int]) -> Tensor:
    """float32 [tokens, vocabulary]: what the model in `folder` says after each token, by InternLM2's own structure."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    width, group = config["hidden_size"] // heads, heads // kv_heads
    scaling = config["rope_scaling"] or {}
    places = torch.arange(len(tokens)).float() / (scaling["factor"] if scaling.get("type") == "linear" else 1)
    angles = torch.outer(places, config["rope_theta"] ** (-torch.arange(0, width, 2) / width)).repeat(1, 2)

    def norm(x: Tensor, name: str) -> Tensor:
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config["rms_norm_eps"]) * tensors[name]

    def turned(x: Tensor) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * angles.cos() + torch.cat((-second, first), -1) * angles.sin()

    x = tensors["model.tok_embeddings.weight"][tokens]
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        y = norm(x, f"{at}.attention_norm.weight")
        y = linear(y, tensors[f"{at}.attention.wqkv.weight"], tensors.get(f"{at}.attention.wqkv.bias"))
        # Heads lie in groups: the queries that share a key, that key, that value.
        grouped = y.view(len(tokens), kv_heads, group + 2, width)
        queries = grouped[:, :, :group].reshape(len(tokens), heads, width).transpose(0, 1)
        keys = grouped[:, :, -2].transpose(0, 1).repeat_interleave(group, 0)
        values = grouped[:, :, -1].transpose(0, 1).repeat_interleave(group, 0)
        mixed = scaled_dot_product_attention(turned(queries), turned(keys), values, is_causal=True)
        mixed = mixed.transpose(0, 1).reshape(len(tokens), -1)
        x = x + linear(mixed, tensors[f"{at}.attention.wo.weight"], tensors.get(f"{at}.attention.wo.bias"))
        y = norm(x, f"{at}.ffn_norm.weight")
        gated = silu(y @ tensors[f"{at}.feed_forward.w1.weight"].T) * (y @ tensors[f"{at}.feed_forward.w3.weight"].T)
        x = x + gated @ tensors[f"{at}.feed_forward.w2.weight"].T
    return norm(x, "model.norm.weight") @ tensors["output.weight"].T
