"""The tokens that the server would have sampled for an answer, its stop token included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ...serve.contract.errors import InvalidRequest, ModelError
from ...serve.text.dialects import Tool
from ...serve.text.rendered import Rendered
from .answers import Answer, read_back
from .prompts import Prompt, Prompts

_TAIL = 64


def find_target(
    prompts: Prompts,
    prompt: Prompt,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Tool],
    answer: Answer,
) -> list[int]:
    """The tokens behind `prompt` with which the model would have given `answer`, the last of `messages`.

    The template shows them: what it writes behind the prompt when the answer is part of the chat, up to the token at
    which serving stops. Some templates change what stands before the answer at that moment, or leave reasoning out.
    Then what follows the same end of the prompt is taken, or the dialect's own way to write the answer. Of these ways,
    the first one that the server would read as `answer` counts. Raises InvalidRequest, saying what came out instead,
    where none does.
    """
    offered = None if answer.calls and not tools else tools
    thinking = prompts.dialect.thinking(prompt.end)
    problem = ""
    for tokens in _candidates(prompts, prompt, messages, tools, answer):
        read = read_back(prompts.text, prompts.dialect, tokens[:-1], offered, thinking)
        difference = answer.difference(read)
        if not difference:
            return tokens
        problem = problem or difference
    raise InvalidRequest(
        "The chat template and the dialect of this model cannot write this answer so that it is read back: "
        f"{problem or 'its tokens cannot be told from those of the prompt'}."
    )


def _candidates(
    prompts: Prompts,
    prompt: Prompt,
    messages: Sequence[Mapping[str, Any]],
    tools: Sequence[Tool],
    answer: Answer,
) -> Iterator[list[int]]:
    text = prompts.text
    try:
        whole = prompts.whole(messages, tools)
    except InvalidRequest:
        # A chat that ends in an answer is nothing the server is ever asked to render.
        whole = Rendered("")
    ids = text.encode_rendered(whole) if whole.text else []
    if whole.text and whole.starts_with(prompt.rendered):
        count = len(prompt.tokens)
        rest = whole.after(len(prompt.rendered.text))
        joined = ids[count:] if ids[:count] == prompt.tokens else text.encode_answer(rest)
        yield from _ended(prompts, rest, joined)
    elif (start := _same_end(prompts, prompt.rendered, whole)) is not None:
        rest = whole.after(start)
        yield from _ended(prompts, rest, text.encode_answer(rest))
    spelled = text.encode_answer(_written(prompts, prompt, answer))
    if spelled is not None:
        yield [*spelled, _stop(prompts, ids)]


def _written(prompts: Prompts, prompt: Prompt, answer: Answer) -> Rendered:
    """The answer as the dialect writes it, going on in the block of reasoning where the prompt opens one."""
    written = prompts.text.answer(prompts.dialect.render(answer.text, answer.calls, reasoning=answer.reasoning))
    marks = prompts.dialect.reasoning
    if marks is None or prompts.dialect.thinking(prompt.end) != "open":
        return written
    if not answer.reasoning:
        head = f"{marks.lead}{marks.closer}{marks.gap}"
        return Rendered(head + written.text, [at + len(head) for at in written.marked])
    opened = marks.opener + marks.lead
    return written.after(len(opened if prompt.end.endswith(opened) else marks.opener))


def _ended(prompts: Prompts, rest: Rendered, tokens: list[int] | None) -> Iterator[list[int]]:
    """`tokens` of the text `rest` up to the first that ends a turn; with one put there where the template has none.

    Raises InvalidRequest where the template ends turns with a token at which serving does not stop.
    """
    if tokens is None:
        return
    text, ends = prompts.text, frozenset(prompts.text.eos_token_ids)
    end = next((at for at, token in enumerate(tokens) if token in ends), None)
    if end is not None:
        yield tokens[: end + 1]
        return
    strange = text.special_token_ids - prompts.dialect.visible_special_tokens
    last = next((token for token in reversed(tokens) if token in strange), None)
    if last is not None:
        name = next(name for name, id_ in text.special_tokens.items() if id_ == last)
        raise InvalidRequest(
            f"The chat template ends turns with {name}, which is not among the tokens that end this model's answers "
            "(eos_token_id of its generation_config.json). Put it there, or answers would never end."
        )
    spelled = text.encode_answer(rest.trimmed())
    if spelled is not None:
        yield [*spelled, _stop(prompts, [])]


def _same_end(prompts: Prompts, prompt: Rendered, whole: Rendered) -> int | None:
    """Where in `whole` the answer begins: behind the last place that looks like the end of `prompt`.

    It looks like it from the prompt's last special token on, which the template alone can write.
    """
    special = prompts.text.special_tokens
    at = max((prompt.text.rfind(name) for name in special), default=-1)
    # The end of a long message without any special token behind it is no sign of an answer.
    if at < 0 or len(prompt.text) - at > _TAIL:
        return None
    end = prompt.after(at)
    start = whole.text.rfind(end.text)
    if start < 0 or not whole.after(start).starts_with(end):
        return None
    return start + len(end.text)


def _stop(prompts: Prompts, ids: Sequence[int]) -> int:
    """The token that ends a turn: the last one in a rendered chat, else the model's first."""
    ends = prompts.text.eos_token_ids
    if not ends:
        raise ModelError("The model names no token that ends an answer, so none can be taught to it.")
    return next((token for token in reversed(ids) if token in ends), ends[0])
