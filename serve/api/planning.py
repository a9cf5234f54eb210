"""Requests become sequences for the engine; what does not fit the model or the server is refused here, before it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec

from ..contract.errors import InvalidRequest
from ..contract.sampling import SamplingParams
from ..text.context import check_context
from ..text.dialects import Dialect
from .formats import read_format
from .generation import SequencePlan
from .ports import Text
from .sampling import check_limits, check_tokens, sampling_params
from .schemas.chat import ChatRequest
from .schemas.completions import CompletionRequest
from .schemas.sampling import SamplingFields
from .settings import ApiSettings
from .turns import Tools, TurnPlan, for_template, plan_turn, request_tools

_SEED_SPAN = 1 << 63
# A marker at the end of the prompt has no more tokens than this, white space included.
_PROMPT_END = 32
_PLAIN = TurnPlan()


@dataclass(frozen=True, slots=True)
class ChatPlan:
    """The choices of a chat request, and how their text is read."""

    sequences: list[SequencePlan]
    turn: TurnPlan


def plan_chat(body: ChatRequest, text: Text, dialect: Dialect, settings: ApiSettings, context_length: int) -> ChatPlan:
    """The choices of a chat request. Slow for long conversations: call it in a thread."""
    check_limits(body, settings, prompts=1, alternatives=body.alternatives, alternatives_name="top_logprobs")
    tools = request_tools(body)
    prompt = encode_prompt(body, tools, text, dialect)
    max_tokens = check_context(len(prompt), body.token_limit, context_length, param="messages")
    turn = plan_turn(body, dialect, tools, text.decode(prompt[-_PROMPT_END:], skip_special=False))
    params = sampling_params(body, text, max_tokens, alternatives=body.alternatives, grammar=turn.grammar)
    echo = body.messages[-1].text if body.echo else ""
    continues = bool(body.continue_final_message)
    return ChatPlan(_choices(body, 0, prompt, params, turn, echo=echo, continues=continues), turn)


def encode_prompt(body: ChatRequest, tools: Tools, text: Text, dialect: Dialect) -> list[int]:
    """The tokens that `body` has the model read. Slow for long conversations: call it in a thread."""
    messages, told = for_template(body.messages, dialect, tools.all, tools.choice)
    wants_reply = not body.continue_final_message
    return text.encode_chat(
        messages,
        tools=told,
        add_generation_prompt=wants_reply if body.add_generation_prompt is None else body.add_generation_prompt,
        continue_final_message=bool(body.continue_final_message),
        template_kwargs=body.chat_template_kwargs,
    )


def plan_completions(
    body: CompletionRequest, text: Text, settings: ApiSettings, context_length: int
) -> list[SequencePlan]:
    """The choices of a text completion, prompt by prompt. Slow for long prompts: call it in a thread."""
    prompts, wanted = body.prompts, read_format(body)
    turn = TurnPlan(wanted.structure.to_grammar(), wanted.field) if wanted else _PLAIN
    check_limits(body, settings, prompts=len(prompts), alternatives=body.logprobs, alternatives_name="logprobs")
    plans: list[SequencePlan] = []
    for position, given in enumerate(prompts):
        where = "prompt" if len(prompts) == 1 else f"prompt[{position}]"
        prompt = given if isinstance(given, list) else _encode(given, body, text)
        if not prompt:
            raise InvalidRequest("The prompt is empty.", param=where)
        check_tokens(prompt, text.vocab_size, where)
        max_tokens = check_context(len(prompt), body.token_limit, context_length, param=where)
        params = sampling_params(
            body,
            text,
            max_tokens,
            alternatives=body.logprobs,
            prompt_alternatives=body.logprobs if body.echo else None,
            grammar=turn.grammar,
        )
        echo = ""
        if body.echo:
            echo = given if isinstance(given, str) else text.decode(given, skip_special=False)
        plans += _choices(body, position, prompt, params, turn, echo=echo, continues=True)
    return plans


def _encode(prompt: str, body: CompletionRequest, text: Text) -> list[int]:
    return text.encode(prompt, parse_special=bool(body.parse_special), add_bos=True)


def _choices(
    body: SamplingFields,
    prompt_index: int,
    prompt: list[int],
    params: SamplingParams,
    turn: TurnPlan,
    *,
    echo: str = "",
    continues: bool,
) -> list[SequencePlan]:
    seed = secrets.randbits(63) if body.seed is None else body.seed
    return [
        SequencePlan(
            index=prompt_index * body.choices + choice,
            prompt=prompt,
            params=msgspec.structs.replace(params, seed=(seed + choice) % _SEED_SPAN),
            stops=body.stop_strings,
            include_stop=bool(body.include_stop_str_in_output),
            echo=echo,
            first_of_prompt=choice == 0,
            skip_special=body.skip_special_tokens is not False,
            continues=continues,
            visible=turn.visible,
            grammar_field=turn.field,
        )
        for choice in range(body.choices)
    ]
