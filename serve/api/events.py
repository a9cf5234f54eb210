"""What a generation tells the API's dialects: text that may be shown, and how each choice ended."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token's log-probability and its rivals', best first. `offset` is where its text starts in the choice's text.

    `logprob` is None for a prompt's first token, which nothing precedes.
    """

    token: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]
    offset: int


@dataclass(frozen=True, slots=True)
class Delta:
    """More text of choice `index`. `scored` covers at least the characters of `text` when logprobs were asked for."""

    index: int
    text: str
    scored: tuple[ScoredToken, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """Choice `index` is complete: "stop" (a stop token or string) or "length". `stop` is the string that ended it."""

    index: int
    reason: str
    stop: str | None = None


Event = Delta | Finished


@dataclass(slots=True)
class Usage:
    """Token counts of one request. Prompts count once whatever `n` is; a stop token counts as generated."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0

    def add(self, other: Usage) -> None:
        """Counts `other` too."""
        self.prompt_tokens += other.prompt_tokens
        self.completion_tokens += other.completion_tokens
        self.cached_tokens += other.cached_tokens

    def as_json(self) -> dict[str, object]:
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": {"cached_tokens": self.cached_tokens},
        }
