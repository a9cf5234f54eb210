"""Recipes from YAML or TOML text and from KEY=VALUE, with errors that name the key and what was meant."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from ..serve.contract.errors import ConfigError
from .recipe import Recipe, is_auto

MAX_BYTES = 1 << 20
MAX_SHOWN = 8


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a `.yml`, `.yaml` or `.toml` file. Raises ConfigError for one that cannot be read or is wrong."""
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_BYTES >> 20} MiB, which no recipe is.")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The recipe {path} cannot be read: {error}") from error
    return parse_recipe(text, overrides, origin=str(path), toml=path.suffix.lower() == ".toml")


def parse_recipe(text: str, overrides: Sequence[str] = (), *, origin: str = "recipe", toml: bool = False) -> Recipe:
    """The recipe that `text` and, over it, KEY=VALUE pairs describe. Raises ConfigError as `read_recipe` does."""
    try:
        values = tomllib.loads(text) if toml else yaml.load(text, Loader=_Loader)  # noqa: S506
    except (tomllib.TOMLDecodeError, yaml.YAMLError, RecursionError) as error:
        kind, said = "TOML" if toml else "YAML", " ".join(str(error).split())
        raise ConfigError(f"{origin} is not {kind}: {said}") from error
    values = {} if values is None else values
    if not isinstance(values, dict):
        raise ConfigError(f"{origin} must hold keys and values, such as `epochs: 3`.")
    return make_recipe({**values, **read_overrides(overrides)}, origin=origin)


def make_recipe(values: Mapping[str, Any], *, origin: str = "recipe") -> Recipe:
    """The recipe of these values; `auto` leaves a key to the data.

    Raises ConfigError for all that is wrong at once; its `param` is the first key of it.
    """
    unknown = [key for key in values if key not in Recipe.model_fields]
    if unknown:
        told = (f"{origin}: there is no key {str(key)[:80]!r}{_meant(key)}" for key in unknown[:MAX_SHOWN])
        raise ConfigError("; ".join(told), param=str(unknown[0])[:80])
    given = {key: value for key, value in values.items() if not (value is None or (value == "auto" and is_auto(key)))}
    # Python takes yes and no for numbers.
    wrong = [key for key, value in given.items() if isinstance(value, bool) and not _is_switch(key)]
    if wrong:
        raise ConfigError(f"{origin}: {wrong[0]}: should be no truth value", param=wrong[0])
    try:
        return Recipe.model_validate(given)
    except ValidationError as error:
        keys = [str(problem["loc"][0]) for problem in error.errors() if problem["loc"]]
        raise ConfigError(_told(error, origin), param=keys[0] if keys else None) from error


def read_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """Values from KEY=VALUE, each written as in YAML. Raises ConfigError for anything else."""
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        key = key.strip().replace("-", "_")
        if not equals or not key:
            raise ConfigError(f"{pair!r} is not KEY=VALUE, such as lr=1e-4.")
        if key in values:
            raise ConfigError(f"{key} is given twice.")
        try:
            values[key] = yaml.load(text, Loader=_Loader)  # noqa: S506
        except (yaml.YAMLError, RecursionError) as error:
            raise ConfigError(f"The value of {key} cannot be read: {' '.join(str(error).split())}") from error
    return values


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that stands twice and an alias are errors."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) have no place in a recipe")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice!r} stands there twice")
        return super().construct_mapping(node, deep)


def _is_switch(key: str) -> bool:
    annotation = Recipe.model_fields[key].annotation
    return annotation is bool or bool in get_args(annotation)


def _meant(key: object) -> str:
    word = str(key).lower().replace("-", "_")
    close = [_OTHERS[word]] if word in _OTHERS else difflib.get_close_matches(word, Recipe.model_fields, n=1)
    return f"; did you mean {close[0]}?" if close else "; `tunechat recipes keys` lists all"


# What other trainers call it.
_OTHERS = {
    "learning_rate": "lr",
    "num_train_epochs": "epochs",
    "n_epochs": "epochs",
    "max_steps": "steps",
    "lora_r": "rank",
    "r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lora_target": "targets",
    "target_modules": "targets",
    "gradient_accumulation_steps": "accumulation",
    "accumulative_counts": "accumulation",
    "lr_scheduler_type": "schedule",
    "warmup_ratio": "warmup",
    "max_seq_length": "max_length",
    "cutoff_len": "max_length",
    "pack_to_max_length": "packing",
    "sample_packing": "packing",
    "val_size": "validation_split",
    "eval_dataset": "validation",
    "dataset": "data",
    "train_files": "data",
    "base_model": "model",
    "pretrained_model_name_or_path": "model",
    "model_name_or_path": "model",
    "evaluation_inputs": "prompts",
    "evaluation_freq": "eval_steps",
    "save_total_limit": "keep_checkpoints",
    "early_stopping_patience": "patience",
    "max_norm": "max_grad_norm",
    "learning_rate_multiplier": "lr_scale",
    "deepspeed": "distributed",
    "bits": "codec",
    "quantization_bit": "codec",
    "suffix": "name",
}


def _told(error: ValidationError, origin: str) -> str:
    """One line for all problems. Values are not shown: they may be long."""
    lines = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False)[:MAX_SHOWN]:
        where = ".".join(str(part) for part in problem["loc"])
        message = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input ")
        lines.append(f"{where}: {message}" if where else message)
    return f"{origin}: " + "; ".join(lines)
