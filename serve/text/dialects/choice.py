"""Which dialect a model speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ...contract.errors import ConfigError, InvalidRequest
from .dialect import Dialect
from .family import Family
from .gemma import Gemma
from .generic import Generic
from .hermes import Hermes
from .internlm import InternLM
from .llama import Llama
from .mistral import Mistral, MistralNamed
from .native import takes_tools
from .phi import Phi
from .reasoning import Reasoning

# In the order in which they are tried; the last one takes all.
FAMILIES: tuple[Family, ...] = (Hermes(), Llama(), Mistral(), MistralNamed(), InternLM(), Phi(), Gemma(), Generic())
REASONING = (Reasoning(), Reasoning("[THINK]", "[/THINK]", lead="", gap=""))
NAMES: tuple[str, ...] = tuple(family.name for family in FAMILIES)


class Described(Protocol):
    """What is asked of a model; `ModelText` has it."""

    @property
    def template_source(self) -> str: ...

    @property
    def has_chat_template(self) -> bool: ...

    @property
    def grammar_tokens(self) -> Mapping[str, int]: ...

    def render(self, messages: Sequence[Mapping[str, Any]]) -> str: ...


def choose_dialect(text: Described, name: str | None = None) -> Dialect:
    """The dialect of the model, from its chat template and special tokens, or the one called `name`.

    Raises ConfigError for a name that is none of NAMES.
    """
    if name is not None and name not in NAMES:
        raise ConfigError(f"There is no dialect {name!r}. These are: {', '.join(NAMES)}.")
    template, special = text.template_source, text.grammar_tokens
    found = next(family for family in FAMILIES if family.matches(template, special))
    family = found if name is None else FAMILIES[NAMES.index(name)]
    return make_dialect(family, template, special, system_role=_takes_system(text), native=family is found)


def make_dialect(
    family: Family, template: str, special: Mapping[str, int], *, system_role: bool = True, native: bool = True
) -> Dialect:
    """The dialect of a family for a model with this template and these special tokens."""
    reasoning = next((markers for markers in REASONING if markers.closer in template), None)
    is_native = native and takes_tools(template) and family.name != Generic.name
    return Dialect(family, family.form(special), special, is_native, reasoning, system_role)


def _takes_system(text: Described) -> bool:
    """Whether a system message comes through the template."""
    if not text.has_chat_template:
        return True
    messages = [{"role": "system", "content": "sys7em"}, {"role": "user", "content": "u5er"}]
    try:
        rendered = text.render(messages)
    except InvalidRequest:
        return False
    return "sys7em" in rendered
