"""Plain text as rows, for incremental pre-training: every token is learned, and the ends of texts, too."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ...serve.contract.errors import ModelError
from ...serve.text.model_text import ModelText
from .row import Row
from .sample import PlainText


def plain_rows(samples: Iterable[PlainText], text: ModelText, max_length: int) -> Iterator[Row]:
    """Rows of `max_length` tokens, the last one shorter: texts one behind another, each with the model's end behind it.

    What looks like a control token in them is text. Raises ModelError for a model without a token that ends texts.
    """
    if not text.eos_token_ids:
        raise ModelError("The model names no token that ends a text, which pre-training puts between texts.")
    pending: list[int] = []
    for sample in samples:
        tokens = text.encode(sample.text, add_bos=True)
        if not tokens:
            continue
        pending += [*tokens, text.eos_token_ids[0]]
        whole = len(pending) - len(pending) % max_length
        for start in range(0, whole, max_length):
            yield _row(pending[start : start + max_length])
        pending = pending[whole:]
    # One token alone has nothing before it to be predicted from.
    if len(pending) > 1:
        yield _row(pending)


def _row(tokens: list[int]) -> Row:
    weights = np.ones(len(tokens), dtype=np.float32)
    weights[0] = 0
    return Row(np.array(tokens, dtype=np.int32), weights, (len(tokens),))
