"""The model card of an adapter: what it was made from and how, how well it does, and how it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

import yaml

from .recipe import Recipe

CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What is told. `recipe` is complete, `data` the SHA-256 of the rows, `rows` and `held` how many were learned from
    and measured on, `trained_tokens` those that the loss counted so far. `model_only`: no adapter but a whole model."""

    recipe: Recipe
    base: str
    data: str
    rows: int
    held: int
    step: int
    steps: int
    trained_tokens: int
    metrics: Mapping[str, float]


def recipe_yaml(recipe: Recipe) -> str:
    """The recipe as a file for `tunechat train`. Data is named without the folders of the machine that trained."""
    values = recipe.model_dump(mode="json", exclude_none=True)
    for key in ("data", "validation"):
        values[key] = [_bare(name) for name in values[key]]
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=120)


def model_card(facts: CardFacts) -> str:
    """Markdown, with the head that model hubs read."""
    recipe = facts.recipe
    head = yaml.safe_dump(
        {"base_model": facts.base, "library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora"]},
        sort_keys=False,
        allow_unicode=True,
    )
    rows = [
        ("base", f"`{facts.base}`"),
        ("method", recipe.method),
        ("step", f"{facts.step:,} of {facts.steps:,}"),
        ("rows learned from", f"{facts.rows:,}"),
        ("rows measured on", f"{facts.held:,}"),
        ("trained tokens", f"{facts.trained_tokens:,}"),
        ("SHA-256 of the data", f"`{facts.data}`"),
        *((name.replace("_", " "), f"{value:.6g}") for name, value in facts.metrics.items()),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"""---
{head}---

# {recipe.name}

An adapter for `{facts.base}`, made by tunechat.

| | |
|---|---|
{table}

## How to load it

```sh
tunechat adapters add {recipe.name} .     # in this folder; requests then ask for the model "{recipe.name}"
```

```python
from peft import PeftModel

model = PeftModel.from_pretrained(base, "PATH/OF/THIS/FOLDER")  # base: the transformers model named above
```

## Recipe

Complete, with what the data chose. `tunechat train recipe.yml` makes it again where the data is.

```yaml
{recipe_yaml(recipe)}```
"""


def _bare(name: str) -> str:
    return PurePath(name).name if PurePath(name).is_absolute() else name
