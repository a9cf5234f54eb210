"""For templates that say themselves what the model writes, transformers finds the same tokens."""
# ruff: noqa: E501

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest

from tunechat.serve.text import ModelText
from tunechat.serve.text.dialects import choose_dialect
from tunechat.trainer.data.mask import AnswerMask
from tunechat.trainer.data.sample import Conversation, Place

from .conftest import make_tokenizer
from .templates import MODELS

# The published templates with the marks of transformers around what the model writes.
MARKED = {
    "chatml": "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}"
    "{% endfor %}",
    "gemma": "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{{ '<start_of_turn>model\n' }}{% generation %}"
    "{{ m['content'] | trim + '<end_of_turn>' }}{% endgeneration %}{% else %}{{ '<start_of_turn>user\n' + m['content'] | trim "
    "+ '<end_of_turn>' }}{% endif %}{{ '\n' }}{% endfor %}",
}
CHAT = [
    {"role": "user", "content": "The quick brown fox?"},
    {"role": "assistant", "content": "Jumps é😀 over {the} lazy dog.\n\nYes."},
    {"role": "user", "content": "  And then? "},
    {"role": "assistant", "content": "I am fine."},
]


@pytest.mark.parametrize("name", MARKED)
def test_learns_what_transformers_marks(model_text: Callable[[str], ModelText], name: str) -> None:
    text = model_text(name)
    chat = CHAT if name == "gemma" else [{"role": "system", "content": "Be brief."}, *CHAT]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from transformers import PreTrainedTokenizerFast

        peer = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer(name), bos_token=MODELS[name].bos)
    expected = peer.apply_chat_template(
        chat,
        chat_template=MARKED[name],
        tokenize=True,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    (row,) = AnswerMask(text, choose_dialect(text)).rows(Conversation(chat, Place("d.jsonl", 1)))
    # Behind the last answer there is nothing to learn, and the row ends.
    count = len(row.tokens)
    assert row.tokens.tolist() == expected["input_ids"][:count]
    assert row.weights.tolist() == expected["assistant_masks"][:count]
    assert not any(expected["assistant_masks"][count:])
