"""One request's tokens, and how far they are computed."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..contract.messages import Submit, TokenLogprob
from ..contract.sampling import SamplingParams
from .chooser import Chooser
from .constraint import Constraint
from .prefix import BlockKey, Namespace

NO_ROW = -1


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one sequence: the prompt's, then those generated.

    `computed` tokens have their keys and values in the pool. While the sequence runs, `row` is its row of the block
    tables, and its first `registered` blocks can be found in the prefix cache, the last of them as `parent`.
    `adapters` are the digests of those it uses, ascending. `waits_for_adapters` says that others had what it needs when
    it was last looked at, and that only sequences with adapters can take that from it. `grammar` belongs to the
    generated tokens: it stays where it is when what was computed is lost. `pooled` is the sum of the hidden states of
    the computed tokens, where that is wanted.
    """

    id: str
    arrival: int
    prompt_length: int
    params: SamplingParams
    namespace: Namespace
    adapters: tuple[str, ...]
    chooser: Chooser
    tokens: NDArray[np.int32]
    length: int
    computed: int = 0
    row: int = NO_ROW
    registered: int = 0
    parent: int | Namespace = field(default_factory=lambda: Namespace((), ""))
    cached_tokens: int | None = None
    overtaken: int = 0
    waits_for_adapters: bool = False
    prompt_logprobs: list[TokenLogprob | None] | None = None
    has_reported: bool = False
    grammar: Constraint | None = None
    pooled: NDArray[np.float64] | None = None

    @staticmethod
    def of(submit: Submit, arrival: int) -> Sequence:
        """A sequence of which nothing is computed yet. `arrival` orders sequences by age."""
        prompt = np.array(submit.prompt, dtype=np.int32)
        namespace = Namespace(tuple(sorted(submit.adapters)), submit.salt)
        return Sequence(
            id=submit.sequence,
            arrival=arrival,
            prompt_length=len(prompt),
            params=submit.params,
            namespace=namespace,
            adapters=tuple(use.digest for use in namespace.adapters),
            chooser=Chooser(submit.params, submit.prompt),
            tokens=prompt,
            length=len(prompt),
            parent=namespace,
            prompt_logprobs=None if submit.params.prompt_logprobs is None else [None],
        )

    @property
    def generated(self) -> int:
        return self.length - self.prompt_length

    @property
    def remaining(self) -> int:
        """Tokens that stand here and are not computed; 1 while the sequence decodes."""
        return self.length - self.computed

    @property
    def wants_prompt_logprobs(self) -> bool:
        """Whether log-probabilities of its prompt were asked for and are not all there."""
        return self.prompt_logprobs is not None and len(self.prompt_logprobs) < self.prompt_length

    @property
    def may_begin(self) -> bool:
        """Whether its grammar is there, if it has one."""
        return not self.params.grammar or (self.grammar is not None and self.grammar.is_compiled)

    @property
    def is_held(self) -> bool:
        """Whether a step would be in vain, because the mask of its next token is still being computed."""
        return self.grammar is not None and self.grammar.is_held

    def ends_with(self, token: int) -> bool:
        """Whether this token ends the text and is no part of it."""
        return token in self.params.stop_token_ids or (self.grammar is not None and self.grammar.ends_with(token))

    @property
    def is_complete(self) -> bool:
        """Whether it has as many tokens as it may have."""
        return self.generated >= self.params.max_tokens

    def append(self, token: int) -> None:
        """Add a generated token."""
        if self.length == len(self.tokens):
            self.tokens = np.concatenate([self.tokens, np.zeros(max(64, self.length), dtype=np.int32)])
        self.tokens[self.length] = token
        self.length += 1
        self.chooser.observe(token)
        if self.grammar is not None:
            self.grammar.advance(token)

    def pool(self, states: NDArray[np.float32]) -> None:
        """Add the hidden states of tokens, float32 [n, hidden_size].

        One after the other, from the first token to the last: so the sum does not depend on how the prompt was cut.
        """
        if self.pooled is None:
            self.pooled = np.zeros(states.shape[1], dtype=np.float64)
        for state in states:
            self.pooled += state

    @property
    def embedding(self) -> bytes | None:
        """The mean over the prompt of what was pooled, float32 little-endian."""
        return None if self.pooled is None else (self.pooled / self.prompt_length).astype("<f4").tobytes()

    def block_key(self, index: int, parent: int | Namespace, block_size: int) -> BlockKey:
        """The key of its block number `index`, which must be full, after the block that `parent` names."""
        return BlockKey(parent, self.tokens[index * block_size : (index + 1) * block_size].tobytes())

    def enter(self, epoch: int) -> None:
        """Share blocks only with what is computed in this epoch; for a sequence of which nothing is computed."""
        self.pooled = None
        self.namespace = self.parent = self.namespace._replace(epoch=epoch)

    def reset(self) -> None:
        """Forget what was computed, as after its blocks are released. Tokens and draws stay."""
        self.computed = self.registered = 0
        self.parent = self.namespace
        self.row = NO_ROW
