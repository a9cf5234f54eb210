"""How one sequence is sampled. Bounds are checked at the edge; the engine trusts these values."""

from __future__ import annotations

import msgspec


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True):
    """Per-request sampling.

    `temperature` 0 is greedy. `top_k` 0 and `top_p` 1 and `min_p` 0 switch the filter off. Penalties follow the OpenAI
    definition (presence, frequency: over generated tokens) and CTRL's (repetition: over prompt and generated tokens,
    arXiv 1909.05858). `seed` fully determines the draws: draw number i of a sequence depends on (seed, i) alone, so the
    text does not depend on what else is in the batch. `logprobs` is how many alternatives to report beside the chosen
    token, None for no logprobs at all. `stop_token_ids` end the sequence and are not part of the text. `grammar` is a
    whole grammar of llguidance, as its `grammar_from_json_schema` and the like give it, and the generated text is a
    sentence of it; "" lets the model write what it likes. `pooled` asks for the prompt's embedding; it goes with
    `max_tokens` 0.
    """

    max_tokens: int
    min_tokens: int = 0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    grammar: str = ""
    pooled: bool = False

    @property
    def is_greedy(self) -> bool:
        return self.temperature == 0.0
