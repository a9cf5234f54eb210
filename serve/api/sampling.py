"""The engine's sampling parameters from a request's fields; ids beyond the vocabulary never reach the engine."""

from __future__ import annotations

from collections.abc import Sequence

from ..contract.errors import InvalidRequest
from ..contract.sampling import SamplingParams
from .ports import Text
from .schemas.sampling import SamplingFields
from .settings import ApiSettings

# OpenAI allows a top_p of 0, which leaves the best token alone; the engine wants a number above 0.
_LEAST_TOP_P = 1e-9


def sampling_params(
    body: SamplingFields,
    text: Text,
    max_tokens: int,
    *,
    alternatives: int | None,
    prompt_alternatives: int | None = None,
    grammar: str = "",
) -> SamplingParams:
    """How every choice of `body` is sampled, but for its seed. Raises InvalidRequest for what the model has not."""
    min_tokens = body.min_tokens or 0
    if min_tokens > max_tokens:
        raise InvalidRequest(
            f"'min_tokens' ({min_tokens}) is more than may be generated ({max_tokens}).", param="min_tokens"
        )
    stop_ids = tuple(body.stop_token_ids or ())
    check_tokens(stop_ids, text.vocab_size, "stop_token_ids")
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=min_tokens,
        temperature=_or(body.temperature, 1.0),
        top_p=max(_or(body.top_p, 1.0), _LEAST_TOP_P),
        top_k=max(body.top_k or 0, 0),
        min_p=_or(body.min_p, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        logit_bias=logit_bias(body, text.vocab_size),
        logprobs=alternatives,
        prompt_logprobs=prompt_alternatives,
        stop_token_ids=stop_ids if body.ignore_eos else tuple(dict.fromkeys((*text.eos_token_ids, *stop_ids))),
        grammar=grammar,
    )


def logit_bias(body: SamplingFields, vocab_size: int) -> dict[int, float]:
    """The biases by token id. Raises InvalidRequest for keys that are no ids of this vocabulary."""
    biases: dict[int, float] = {}
    for key, bias in (body.logit_bias or {}).items():
        if not (key.isascii() and key.isdigit()) or int(key) >= vocab_size:
            raise InvalidRequest(
                f"Keys of 'logit_bias' are token ids from 0 to {vocab_size - 1}.", param=f"logit_bias.{key[:16]}"
            )
        biases[int(key)] = bias
    return biases


def check_tokens(tokens: Sequence[int], vocab_size: int, param: str) -> None:
    """Raises InvalidRequest when one of `tokens` is outside the vocabulary."""
    if tokens and max(tokens) >= vocab_size:
        position = next(index for index, token in enumerate(tokens) if token >= vocab_size)
        raise InvalidRequest(f"Token ids of this model go from 0 to {vocab_size - 1}.", param=f"{param}[{position}]")


def check_limits(
    body: SamplingFields, settings: ApiSettings, *, prompts: int, alternatives: int | None, alternatives_name: str
) -> None:
    """Raises InvalidRequest for more than this server's settings allow."""
    if body.choices > settings.max_n:
        raise InvalidRequest(f"'n' is at most {settings.max_n} here.", param="n")
    if body.choices * prompts > settings.max_sequences:
        raise InvalidRequest(
            f"A request makes at most {settings.max_sequences} choices here; this one wants {body.choices * prompts}.",
            param="n" if prompts == 1 else "prompt",
        )
    if len(body.stop_strings) > settings.max_stop_strings:
        raise InvalidRequest(f"'stop' takes at most {settings.max_stop_strings} strings here.", param="stop")
    if alternatives is not None and alternatives > settings.max_logprobs:
        raise InvalidRequest(f"'{alternatives_name}' is at most {settings.max_logprobs} here.", param=alternatives_name)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
