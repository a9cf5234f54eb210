"""What a request must satisfy before anything is computed for it. Gateway and engine run the same check."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..contract.errors import ContextLengthExceeded, InvalidRequest
from ..contract.messages import AdapterUse
from ..contract.sampling import SamplingParams

MAX_GRAMMAR_CHARACTERS = 1 << 19


def check_request(prompt: Sequence[int], params: SamplingParams, *, limit: int, vocab_size: int) -> None:
    """Refuses what could never be served.

    `limit` is how many tokens one sequence may have: the smaller of the model's context and the whole KV pool. Raises
    ContextLengthExceeded naming both numbers, InvalidRequest for an empty prompt, token ids outside the vocabulary or a
    grammar that is too long.
    """
    if not prompt:
        raise InvalidRequest("the prompt has no tokens; send at least one", param="prompt")
    if params.max_tokens < 0:
        raise InvalidRequest(f"max_tokens is {params.max_tokens}; it must be at least 0", param="max_tokens")
    total = len(prompt) + params.max_tokens
    if total > limit:
        raise ContextLengthExceeded(
            f"the prompt has {len(prompt)} tokens and up to {params.max_tokens} were asked for, {total} in all; "
            f"this model takes at most {limit}",
            param="prompt" if len(prompt) >= limit else "max_tokens",
        )
    check_grammar(params.grammar)
    _check_ids((min(prompt), max(prompt)), vocab_size, "prompt")
    _check_ids(params.logit_bias, vocab_size, "logit_bias")
    _check_ids(params.stop_token_ids, vocab_size, "stop_token_ids")


def check_grammar(text: str) -> None:
    """Refuses a grammar that is longer than any need be: compiling takes about a millisecond for 5 kB. Raises
    InvalidRequest."""
    if len(text) > MAX_GRAMMAR_CHARACTERS:
        raise InvalidRequest(
            f"the grammar of this request has {len(text)} characters; at most {MAX_GRAMMAR_CHARACTERS} are taken",
            code="invalid_grammar",
        )


def check_adapters(uses: Sequence[AdapterUse], slots: int) -> None:
    """Refuses a composition that no batch can hold. `slots` adapters fit in one. Raises InvalidRequest."""
    if len({use.digest for use in uses}) != len(uses):
        raise InvalidRequest("an adapter is named twice; name it once, with the sum of the weights", param="adapters")
    if len(uses) > slots:
        raise InvalidRequest(f"{len(uses)} adapters are asked for at once; this server takes {slots}", param="adapters")
    if not all(math.isfinite(use.weight) for use in uses):
        raise InvalidRequest("the weight of an adapter must be a finite number", param="adapters")


def _check_ids(ids: Sequence[int] | dict[int, float], vocab_size: int, param: str) -> None:
    for token in ids:
        if not 0 <= token < vocab_size:
            raise InvalidRequest(f"token id {token} is not in the vocabulary of {vocab_size} tokens", param=param)
