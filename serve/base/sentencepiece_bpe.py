"""A sentencepiece model of kind BPE (`tokenizer.model`) as a tokenizer of the tokenizers library.

Ids equal sentencepiece's own (https://github.com/google/sentencepiece). Its file keeps scores instead of merges: a
merge is any two pieces that make a third, and the one with the best score comes first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from ..contract.errors import ModelError

SPACE = "▁"
MAX_MODEL = 64 << 20  # bytes

_BPE = 2
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4


def sentencepiece_tokenizer(path: Path, added: Mapping[int, AddedToken]) -> Tokenizer:
    """The tokenizer in `path`, with `added` tokens at their ids, whatever the model has there.

    Raises ModelError for a file that is no such model, and for one of another kind than BPE.
    """
    model = _read(path)
    tokens = [piece.piece for piece in model.pieces]
    kinds = [_CONTROL if index in added else piece.type for index, piece in enumerate(model.pieces)]
    scores = [piece.score for piece in model.pieces]
    mergeable = {token for token, kind in zip(tokens, kinds, strict=True) if kind == _NORMAL}
    merges = [
        (left, right)
        for left, right in implied_merges(tokens, scores)
        if left in mergeable and right in mergeable and left + right in mergeable
    ]
    names = _names(path, tokens, added)
    tokenizer = Tokenizer(
        BPE(
            vocab={token: index for index, token in names.items()},
            merges=merges,
            unk_token=names.get(model.trainer_spec.unk_id),
            fuse_unk=True,
            byte_fallback=model.trainer_spec.byte_fallback,
        )
    )
    tokenizer.normalizer = _normalizer(model.normalizer_spec)
    steps: list[Any] = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if model.normalizer_spec.add_dummy_prefix:
        steps.append(decoders.Strip(content=" ", left=1))
    tokenizer.decoder = decoders.Sequence(steps)
    own = {
        index: AddedToken(token, normalized=False, special=kind == _CONTROL)
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind in (_CONTROL, _USER_DEFINED)
    }
    for _, token in sorted((own | dict(added)).items()):
        (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
    return tokenizer


def implied_merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """Every way to join two tokens into a third, best score of the result first (sentencepiece keeps no merges)."""
    ids = {token: index for index, token in enumerate(tokens)}
    ranked: list[tuple[float, int, int, str, str]] = []
    for token, index in ids.items():
        pairs = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in pairs if pair[0] in ids and pair[1] in ids]
        pairs.sort(key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        ranked.extend((scores[index], len(left), len(right), left, right) for left, right in pairs)
    ranked.sort(key=lambda entry: entry[:3], reverse=True)
    return [(left, right) for _, _, _, left, right in ranked]


def _read(path: Path) -> Any:
    """The parsed file: a ModelProto of sentencepiece."""
    from google.protobuf.message import DecodeError
    from sentencepiece import sentencepiece_model_pb2

    if path.stat().st_size > MAX_MODEL:
        raise ModelError(f"{path.name} is larger than {MAX_MODEL} bytes")
    model = sentencepiece_model_pb2.ModelProto()
    try:
        model.ParseFromString(path.read_bytes())
    except DecodeError as error:
        raise ModelError(f"{path.name} is no sentencepiece model") from error
    if not model.pieces:
        raise ModelError(f"{path.name} is no sentencepiece model: it has no pieces")
    if model.trainer_spec.model_type != _BPE:
        raise ModelError(f"{path.name} is a sentencepiece model of another kind than BPE")
    if model.trainer_spec.treat_whitespace_as_suffix:
        raise ModelError(f"{path.name} puts blanks behind words, which is not known here")
    return model


def _names(path: Path, tokens: Sequence[str], added: Mapping[int, AddedToken]) -> dict[int, str]:
    names = dict(enumerate(tokens)) | {index: token.content for index, token in added.items()}
    if len(set(names.values())) != len(names):
        raise ModelError(f"two tokens of {path.name} and the added tokens have the same name")
    return names


def _normalizer(spec: Any) -> normalizers.Normalizer:
    """The same as sentencepiece's, but for marks behind letters that it maps: `Precompiled` maps both as one."""
    steps: list[normalizers.Normalizer] = []
    if spec.precompiled_charsmap:
        steps.append(normalizers.Precompiled(spec.precompiled_charsmap))
    if spec.remove_extra_whitespaces:
        # Blanks alone: other white space is text to sentencepiece.
        steps += [normalizers.Replace(Regex("^ +| +$"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if spec.add_dummy_prefix:
        steps.append(normalizers.Prepend(SPACE))
    return normalizers.Sequence([*steps, normalizers.Replace(" ", SPACE)])
