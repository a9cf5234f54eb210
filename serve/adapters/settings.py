"""The part of `adapter_config.json` that matters when an adapter is served; everything else is refused or harmless."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..contract.adapters import Variant
from ..contract.errors import InvalidAdapter, UnsupportedFormat

MAX_ALPHA = 1e6
_MAX_PATTERNS = 2048
_MAX_LOOSE_PATTERNS = 64  # those with * or +, which are slower to match

# Keys that PEFT writes (0.21) or once wrote, which change nothing when the adapter is served.
_HARMLESS = frozenset(
    {
        "base_model_name_or_path",
        "corda_config",
        "eva_config",
        "exclude_modules",
        "fan_in_fan_out",
        "inference_mode",
        "layers_pattern",
        "layers_to_transform",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "target_modules",
        "task_type",
        "velora_config",
    }
)
# Keys that change what the model computes in a way that is not served: they must be absent or say "off".
_MUST_BE_OFF = frozenset(
    {
        "alora_invocation_tokens",
        "arrow_config",
        "enable_lora",
        "ensure_weight_tying",
        "kasa_config",
        "layer_replication",
        "lora_bias",
        "megatron_config",
        "merge_weights",
        "modules_to_save",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_qalora",
    }
)
_READ = frozenset(
    {
        "alpha_pattern",
        "auto_mapping",
        "bias",
        "init_lora_weights",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "use_dora",
        "use_rslora",
    }
)
# These start from a changed base: the file alone, on the base as it is, computes something else.
_CHANGES_BASE = ("pissa", "olora", "corda", "lora_ga", "loftq")
_HARMLESS_STARTS = frozenset({"gaussian", "eva", "orthogonal", "mica"})
# PEFT takes patterns as regular expressions. Only those whose matching cannot take long are read.
_PATTERN = re.compile(r"[A-Za-z0-9_.^$\\|()\[\]*+-]{1,256}")
_SLOW = re.compile(r"\)[*+]|[*+][*+]|([*+].*){3}")

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 100


@dataclass(frozen=True, slots=True)
class LoraSettings:
    """Rank, alpha and scaling of every module, as PEFT resolves them, and what the file says it targets.

    `targets` is None where the config selects modules by an expression, by layer or with exceptions.
    """

    rank: int
    alpha: float
    rslora: bool
    dora: bool
    rank_patterns: tuple[tuple[re.Pattern[str], int], ...]
    alpha_patterns: tuple[tuple[re.Pattern[str], float], ...]
    targets: tuple[str, ...] | None
    base: str

    @property
    def variant(self) -> Variant:
        if self.dora:
            return Variant.DORA
        return Variant.RSLORA if self.rslora else Variant.LORA

    def rank_of(self, module: str) -> int:
        """The rank of `module` ("model.layers.0.self_attn.q_proj"): the first pattern that matches, else `rank`."""
        return next((value for pattern, value in self.rank_patterns if pattern.match(module)), self.rank)

    def alpha_of(self, module: str) -> float:
        """The alpha of `module`, found like its rank."""
        return next((value for pattern, value in self.alpha_patterns if pattern.match(module)), self.alpha)

    def scaling_of(self, module: str) -> float:
        """What B A is multiplied with: alpha / r, or alpha / sqrt(r) for rsLoRA (arXiv 2312.03732)."""
        rank = self.rank_of(module)
        return self.alpha_of(module) / (math.sqrt(rank) if self.rslora else rank)


def read_settings(config: Mapping[str, Any], max_rank: int) -> LoraSettings:
    """The settings in `config`, the content of `adapter_config.json`.

    Raises UnsupportedFormat naming the key that is unknown or not served, InvalidAdapter for a value that is wrong.
    `base_model_name_or_path` is kept as a label; nothing is ever looked up by it.
    """
    if config.get("peft_type") != "LORA":
        raise UnsupportedFormat(f"peft_type {_shown(config.get('peft_type'))} is not served; only LORA is")
    for key, value in config.items():
        if key in _MUST_BE_OFF:
            if value:
                raise UnsupportedFormat(f"{key} is set, which is not served; train the adapter without it")
        elif key not in _HARMLESS and key not in _READ:
            raise UnsupportedFormat(f"adapter_config.json has the key {_shown(key)}, which is not known here")
    if config.get("bias", "none") != "none":
        raise UnsupportedFormat(f"bias is {_shown(config['bias'])}; adapters that train biases are not served")
    _check_auto_mapping(config.get("auto_mapping"))
    _check_start(config.get("init_lora_weights", True))
    base = config.get("base_model_name_or_path")
    return LoraSettings(
        rank=_rank(config.get("r", 8), "r", max_rank),
        alpha=_alpha(config.get("lora_alpha", 8), "lora_alpha"),
        rslora=_flag(config, "use_rslora"),
        dora=_flag(config, "use_dora"),
        rank_patterns=tuple((p, _rank(v, "rank_pattern", max_rank)) for p, v in _patterns(config, "rank_pattern")),
        alpha_patterns=tuple((p, _alpha(v, "alpha_pattern")) for p, v in _patterns(config, "alpha_pattern")),
        targets=_targets(config),
        base=base[:200] if isinstance(base, str) and base.isprintable() else "",
    )


def _check_auto_mapping(value: object) -> None:
    """PEFT imports the module that is named here; we never do, but a name outside transformers is no honest one."""
    if value is None:
        return
    known = isinstance(value, dict) and value.keys() <= {"base_model_class", "parent_library", "unsloth_fixed"}
    library = value.get("parent_library", "") if isinstance(value, dict) else ""
    if not known or not re.fullmatch(r"(transformers(\.\w+)*)?", str(library)):
        raise UnsupportedFormat(f"auto_mapping {_shown(value)} names code outside transformers")


def _check_start(value: object) -> None:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, str) and value.lower() in _HARMLESS_STARTS:
        return
    if isinstance(value, str) and value.lower().startswith(_CHANGES_BASE):
        raise UnsupportedFormat(
            f"init_lora_weights is {_shown(value)}: this adapter needs a base that was changed when training began. "
            "Save it with PEFT's path_initial_model_for_weight_conversion, which makes a plain LoRA of it"
        )
    raise UnsupportedFormat(f"init_lora_weights is {_shown(value)}, which is not known here")


def _patterns(config: Mapping[str, Any], key: str) -> list[tuple[re.Pattern[str], Any]]:
    patterns = config.get(key) or {}
    if not isinstance(patterns, dict) or len(patterns) > _MAX_PATTERNS:
        raise InvalidAdapter(f"{key} must be an object of at most {_MAX_PATTERNS} patterns")
    if sum("*" in text or "+" in text for text in patterns) > _MAX_LOOSE_PATTERNS:
        raise InvalidAdapter(f"{key} has more than {_MAX_LOOSE_PATTERNS} patterns with * or +")
    result = []
    for text, value in patterns.items():
        if not _PATTERN.fullmatch(text) or _SLOW.search(text):
            raise UnsupportedFormat(f"{key} has the pattern {_shown(text)}, which could take long to match")
        try:
            result.append((re.compile(rf"(.*\.)?({text})$"), value))
        except re.error as error:
            raise InvalidAdapter(f"{key} has the pattern {_shown(text)}, which is wrong: {error}") from error
    return result


def _targets(config: Mapping[str, Any]) -> tuple[str, ...] | None:
    targets = config.get("target_modules")
    if config.get("layers_to_transform") is not None or config.get("exclude_modules"):
        return None
    if isinstance(targets, list) and all(isinstance(target, str) for target in targets):
        return tuple(sorted(targets))
    return None


def _rank(value: object, key: str, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise InvalidAdapter(f"{key} is {_shown(value)}; ranks from 1 to {most} are served")
    return value


def _alpha(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < abs(value) <= MAX_ALPHA:
        raise InvalidAdapter(f"{key} is {_shown(value)}; it must be a number other than 0 of at most {MAX_ALPHA:g}")
    return float(value)


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise InvalidAdapter(f"{key} is {_shown(value)} where true or false is expected")
    return bool(value)


def _shown(value: object) -> str:
    """A stranger's value, short and on one line."""
    text = _SHORT.repr(value).encode("ascii", "backslashreplace").decode()
    return text if len(text) <= 100 else f"{text[:100]}..."
