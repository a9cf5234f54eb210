"""Models of every family, cut down to what a dialect sees of them, and what they may write."""

from __future__ import annotations

import functools
import itertools
import json
import random
import re
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from tunechat.serve.text.dialects import (
    Call,
    CallArguments,
    CallEnd,
    CallStart,
    Dialect,
    ReasoningDelta,
    TextDelta,
    Tool,
    TurnEvent,
    TurnParser,
)
from tunechat.serve.text.dialects.choice import FAMILIES, make_dialect

TEMPLATES = {
    "hermes": "{% if tools %}{{ tools | tojson }} <tool_call></tool_call>{% endif %}<think></think>",
    "llama3": '{% if tools %}{{ tools }}{% endif %}ipython {"name": , "parameters": }',
    "mistral": "{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS][/INST]",
    "mistral11": "{% if tools %}[AVAILABLE_TOOLS]{% endif %}[TOOL_CALLS][ARGS][/INST]",
    "internlm2": "<|im_start|>",
    "phi4-mini": "{{ message['tools'] }}<|tool|><|/tool|>",
    "gemma": "<start_of_turn>",
    "generic": "<|im_start|>",
}
NAMES = tuple(TEMPLATES)
_MARKERS = {
    "llama3": ("<|python_tag|>", "<|eom_id|>"),
    "mistral": ("[TOOL_CALLS]", "[INST]"),
    "mistral11": ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
    "internlm2": ("<|action_start|>", "<|action_end|>", "<|plugin|>", "<|interpreter|>"),
    "phi4-mini": ("<|tool_call|>", "<|/tool_call|>", "<|tool|>"),
}
_ALL = sorted({token for tokens in _MARKERS.values() for token in tokens})
SPECIAL = {"<|end|>": 256, **{token: 257 + index for index, token in enumerate(_ALL)}}
EOS = SPECIAL["<|end|>"]


def special_of(name: str) -> dict[str, int]:
    return {token: SPECIAL[token] for token in ("<|end|>", *_MARKERS.get(name, ()))}


def dialect_of(name: str, *, thinks: bool = False, special: bool = True) -> Dialect:
    """The dialect of a family; without `special`, of a model whose tokenizer has none of its markers."""
    template = TEMPLATES[name] + ("</think>" if thinks else "")
    family = next(family for family in FAMILIES if family.name == name)
    return make_dialect(family, template, special_of(name) if special else {})


@functools.cache
def byte_tokenizer() -> LLTokenizer:
    """One token a byte, and the special tokens of all families."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    return LLTokenizer(tokenizer.to_str(), eos_token=EOS)


@functools.cache
def _byte_ids() -> dict[int, int]:
    tokenizer = byte_tokenizer()
    # 255, which no text holds, marks special tokens inside llguidance.
    return {tokenizer.decode_bytes([id_])[0]: id_ for id_ in range(256) if tokenizer.decode_bytes([id_])}


def spelled(text: str) -> list[int]:
    """Token ids of the byte tokenizer for plain text, whatever it looks like."""
    return [_byte_ids()[byte] for byte in text.encode()]


def ids_of(tokenizer: LLTokenizer, text: str, special: dict[str, int]) -> list[int]:
    """Token ids of a turn: special tokens where their names stand."""
    if tokenizer is not byte_tokenizer():
        return list(tokenizer.tokenize_str(text))
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]:
        ids += [special[piece]] if piece in special else spelled(piece)
    return ids


def accepts(grammar: str, text: str, special: dict[str, int], tokenizer: LLTokenizer | None = None) -> bool:
    """Whether `text` is whole and right by the grammar."""
    tokenizer = tokenizer or byte_tokenizer()
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    ids = ids_of(tokenizer, text, special)
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def walk(grammar: str, seed: int, limit: int = 600) -> str | None:
    """A random text of the grammar, token by token as an engine would choose them; None where it is longer than that.

    Tokens that close something are preferred, as few random strings would ever end.
    """
    tokenizer = byte_tokenizer()
    matcher = LLMatcher(tokenizer, grammar, log_level=0)
    assert not matcher.is_error(), matcher.get_error()
    chance = random.Random(seed)
    ids: list[int] = []
    for _ in range(limit):
        mask = matcher.compute_bitmask()
        allowed = [id_ for id_ in range(tokenizer.vocab_size) if mask[id_ >> 3] >> (id_ & 7) & 1]
        assert allowed, f"nothing may follow {_decoded(tokenizer, ids)!r}"
        closing = [id_ for id_ in allowed if id_ >= 256 or tokenizer.decode_bytes([id_]) in (b'"', b"}", b"]", b"<")]
        id_ = chance.choice(closing if closing and chance.random() < 0.3 else allowed)
        if id_ == EOS:
            return _decoded(tokenizer, ids)
        ids.append(id_)
        assert matcher.consume_token(id_), matcher.get_error()
        if matcher.is_stopped():
            return _decoded(tokenizer, ids)
    return None


def _decoded(tokenizer: LLTokenizer, ids: list[int]) -> str:
    names = {id_: token for token, id_ in SPECIAL.items()}
    pieces = [names[id_].encode() if id_ in names else tokenizer.decode_bytes([id_]) for id_ in ids]
    return b"".join(pieces).decode("utf-8", "replace")


def read(parser: TurnParser, pieces: Iterator[str] | list[str]) -> list[TurnEvent]:
    """All events of a turn that comes in pieces."""
    events = [event for piece in pieces for event in parser.push(piece)]
    return events + parser.finish()


def summary(events: list[TurnEvent]) -> tuple[str, str, list[tuple[str, Any, bool]]]:
    """Reasoning, text, and the calls (name, arguments, whether complete); checks that events come in order."""
    reasoning = text = ""
    calls: list[tuple[str, Any, bool]] = []
    name, fragments = None, ""
    for event in events:
        match event:
            case ReasoningDelta(piece):
                assert name is None and not text and not calls
                reasoning += piece
            case TextDelta(piece):
                assert name is None and piece
                text += piece
            case CallStart(index, started):
                assert name is None and index == len(calls)
                name, fragments = started, ""
            case CallArguments(index, fragment):
                assert name is not None and index == len(calls) and fragment
                fragments += fragment
            case CallEnd(index, complete):
                assert name is not None and index == len(calls)
                calls.append((name, json.loads(fragments) if complete else fragments, complete))
                name = None
    assert name is None
    return reasoning, text, calls


def cut(text: str, places: list[int]) -> list[str]:
    """`text` in pieces, cut at the places (taken modulo its length)."""
    edges = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[start:end] for start, end in itertools.pairwise(edges)]


# Fragments that a parser could take for something else.
_HOSTILE = [
    *("<tool_call>", "</tool_call>", "<tool_", "[TOOL_CALLS]", "<|python_tag|>", "```", "functools[", "<|action_end|>"),
    *("</think>", "<think>", '{"name": "a", "arguments": {}}', '"', "\\", "{", "}", "]", "\n", "\u2028", "é😀"),
]
words = st.lists(st.sampled_from([*_HOSTILE, "hello", " ", "ab"]) | st.text(max_size=5), max_size=6).map("".join)
json_text = words.filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
# The grammar wants this one escaped, which JSON does not.
_typed_text = json_text.filter(lambda text: "\x7f" not in text)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | json_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(json_text, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(json_text, json_values, max_size=3)
names = st.from_regex(r"[a-zA-Z0-9_-]{1,12}", fullmatch=True)
calls = st.builds(Call.of, names, arguments)

TOOLS = (
    Tool(
        "add",
        "Adds.",
        {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "number"}}, "required": ["a", "b"]},
        strict=True,
    ),
    Tool(
        "find",
        "Finds.",
        {
            "type": "object",
            "properties": {
                "text": {"type": "string"},
                "kind": {"enum": ["book", "map"]},
                "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 3},
            },
            "required": ["text"],
        },
    ),
    Tool("now", "The time.", {"type": "object", "properties": {}}),
)
SCHEMAS = {tool.name: dict(tool.parameters) for tool in TOOLS}
# Within the sizes that the generic dialect gives to what a schema leaves open.
_find = st.fixed_dictionaries(
    {"text": _typed_text.filter(lambda text: len(text) <= 256)},
    optional={
        "kind": st.sampled_from(["book", "map"]),
        "tags": st.lists(_typed_text.filter(lambda text: len(text) <= 64), max_size=3),
    },
)
tool_calls = st.one_of(
    st.builds(lambda a, b: Call.of("add", {"a": a, "b": b}), st.integers(-(10**9), 10**9), st.integers(-99, 99)),
    st.builds(
        lambda value: Call.of("find", {name: value[name] for name in ("text", "kind", "tags") if name in value}), _find
    ),
    st.just(Call("now")),
)


def is_free(dialect: Dialect, text: str) -> bool:
    """Whether `text` can stand before calls as it is: nothing in it means anything, and no white space is around it."""
    return (
        text == text.strip()
        and not any(opener in text for opener in dialect.form.openers)
        and not any(token in text for token in dialect.special)
        and not text.startswith(("{", "<think>"))
    )
