"""Log-probabilities for the user: of the model's own distribution, before temperature, penalties, bias and filters.

That holds under a grammar too: what it forbids keeps its probability, so that the numbers still tell how sure the model
was, and none of them is minus infinity, which JSON cannot say.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..contract.messages import TokenLogprob


def token_logprob(row: NDArray[np.float32], token: int, count: int) -> TokenLogprob:
    """The log-softmax of the logits `row`, float32 [vocab], at `token`, and the `count` best, best first.

    Of equal ones the lower id is better. Raises FloatingPointError for a row without a finite largest logit.
    """
    best = row.max()
    if not np.isfinite(best):
        raise FloatingPointError("logits are not finite")
    normaliser = float(best) + float(np.log(np.exp(row - best).sum(dtype=np.float64)))
    top: list[tuple[int, float]] = []
    if count > 0:
        count = min(count, len(row))
        ids = np.flatnonzero(row >= np.partition(row, len(row) - count)[-count])
        ids = ids[np.lexsort((ids, -row[ids]))][:count]
        top = [(int(at), float(row[at]) - normaliser) for at in ids]
    return TokenLogprob(token=token, logprob=float(row[token]) - normaliser, top=top)
