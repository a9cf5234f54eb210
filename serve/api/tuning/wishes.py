"""From a request to the recipe of a job: OpenAI's numbers and the recipe's own keys, each said once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...contract.errors import InvalidRequest
from .request import CreateJobRequest, Hyperparameters

# What the request says in fields of its own.
_ELSEWHERE = {
    "data": "training_file",
    "validation": "validation_file",
    "model": "model",
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a job is asked to do. `recipe` has keys of a recipe, `name` the adapter's, None to let the server choose.

    `request` is what the job shows again of what was asked. `fields` are the request's own by the recipe's keys.
    """

    recipe: dict[str, Any]
    name: str | None
    request: dict[str, Any]
    fields: dict[str, str]

    def field(self, key: str) -> str:
        """The field of the request that said the recipe's `key`."""
        return self.fields.get(key, f"recipe.{key}")


def wishes_of(body: CreateJobRequest) -> Wishes:
    """Raises InvalidRequest for what is said twice, and for keys of the recipe that have a field of their own."""
    given = dict(body.recipe or {})
    for key, field in _ELSEWHERE.items():
        if key in given:
            raise InvalidRequest(f"'recipe' may not say {key}: '{field}' does.", param=f"recipe.{key}")
    chosen = _hyperparameters(body)
    recipe, fields = given.copy(), {}
    for key, value, said in _numbers(chosen, body.seed):
        if key in given:
            raise InvalidRequest(f"Say '{said}' or 'recipe.{key}', not both.", param=f"recipe.{key}")
        recipe[key] = value
        fields[key] = said
    name = given.get("name")
    if name is not None and not isinstance(name, str):
        raise InvalidRequest("'recipe.name' must be a text.", param="recipe.name", code="invalid_value")
    if body.suffix is not None and name not in (None, body.suffix):
        raise InvalidRequest("'suffix' and 'recipe.name' are the same thing; send one.", param="recipe.name")
    if body.suffix is not None:
        recipe["name"], fields["name"] = body.suffix, "suffix"
    request: dict[str, Any] = {
        "hyperparameters": {key: "auto" if value is None else value for key, value in chosen.model_dump().items()},
    }
    if body.metadata:
        request["metadata"] = body.metadata
    return Wishes(recipe, body.suffix or name, request, fields)


def _hyperparameters(body: CreateJobRequest) -> Hyperparameters:
    inner = body.method.supervised.hyperparameters if body.method and body.method.supervised else None
    if inner is not None and body.hyperparameters is not None:
        raise InvalidRequest(
            "Send 'method.supervised.hyperparameters' or the older 'hyperparameters', not both.",
            param="hyperparameters",
        )
    return inner or body.hyperparameters or Hyperparameters()


def _numbers(chosen: Hyperparameters, seed: int | None) -> list[tuple[str, Any, str]]:
    """Keys of the recipe with their values, and how the request calls them."""
    found: list[tuple[str, Any, str]] = []
    if chosen.n_epochs is not None:
        found.append(("epochs", chosen.n_epochs, "hyperparameters.n_epochs"))
    if chosen.batch_size is not None:
        # A step is one batch then; how many of its rows are computed at once is the trainer's business.
        found += [
            ("batch_rows", chosen.batch_size, "hyperparameters.batch_size"),
            ("accumulation", 1, "hyperparameters.batch_size"),
        ]
    if chosen.learning_rate_multiplier is not None:
        found.append(("lr_scale", chosen.learning_rate_multiplier, "hyperparameters.learning_rate_multiplier"))
    if seed is not None:
        found.append(("seed", seed, "seed"))
    return found
