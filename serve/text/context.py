"""How much of the context a request may use."""

from __future__ import annotations

from ..contract.errors import ContextLengthExceeded


def check_context(prompt_tokens: int, max_tokens: int | None, context_length: int, *, param: str = "messages") -> int:
    """The number of tokens that may be generated: `max_tokens`, or all that is left where it is None.

    All counts are tokens. Raises ContextLengthExceeded, naming the numbers, where prompt and completion together do not
    fit. Nothing is ever cut to make them fit.
    """
    room = context_length - prompt_tokens
    if room < 1:
        error = ContextLengthExceeded(
            f"The prompt has {prompt_tokens} tokens and leaves no room for an answer: this model's context length is "
            f"{context_length} tokens. Shorten the prompt.",
            param=param,
        )
        error.prompt_tokens, error.context_length = prompt_tokens, context_length
        raise error
    if max_tokens is None:
        return room
    if max_tokens > room:
        raise ContextLengthExceeded(
            f"This model's context length is {context_length} tokens, but the prompt has {prompt_tokens} and "
            f"{max_tokens} more were asked for: {prompt_tokens + max_tokens} in all. Shorten the prompt, or ask for "
            f"{room} tokens or fewer.",
            param=param,
        )
    return max_tokens
