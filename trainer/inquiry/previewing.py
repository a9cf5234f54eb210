"""Samples as the model reads them, with what is learned, within bounds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ...serve.contract.errors import ConfigError, InvalidData, InvalidSample
from ...serve.contract.inquiry import AskPreview, Piece, Previewed, PreviewRow, PreviewSample
from ..data.mask import AnswerMask
from ..data.plain_rows import plain_rows
from ..data.preview import pieces
from ..data.row import Row
from ..data.sample import Conversation, Sample
from ..data.samples import samples_or_errors
from .reading import Material, opened

MOST_SAMPLES = 100
# Characters: of a row, and of all together.
_LONGEST_ROW = 32_768
_LONGEST = 1 << 20
_MOST_ROWS = 20
_MOST_PIECES = 500
_LONGEST_TOLD = 2_000
# Plain text is shown up to here.
_PLAIN_TOKENS = 2_048


def preview_data(question: AskPreview) -> Previewed:
    """Raises ConfigError for a wrong recipe, and without an entry; InvalidData for files that cannot be read at all."""
    with opened(question) as material:
        if material.mask is None:
            raise ConfigError("A preview needs a prepared model.", param="entry")
        if not material.data:
            raise ConfigError("There is no data: name files under `data`.", param="data")
        form, _ = material.reading.opened(material.data[0].path)
        limit = max(1, min(question.limit, MOST_SAMPLES))
        items = islice(_items(material), max(0, question.skip), None)
        room = _LONGEST
        shown: list[PreviewSample] = []
        for item in islice(items, limit):
            sample, used = _shown(item, material.mask, material.max_length, room)
            shown.append(sample)
            room -= used
            if room <= 0:
                break
        return Previewed(samples=tuple(shown), format=form.name, more=next(items, None) is not None)


def _items(material: Material) -> Iterator[Sample | InvalidData]:
    for source in material.data:
        yield from samples_or_errors(source.path, material.reading)


def _shown(item: Sample | InvalidData, mask: AnswerMask, max_length: int, room: int) -> tuple[PreviewSample, int]:
    """The sample for people, and how many characters it takes."""
    file, line = (item.file, item.line) if isinstance(item, InvalidData) else (item.place.file, item.place.line)
    try:
        if isinstance(item, InvalidData):
            raise item
        rows, used = [], 0
        for row in islice(_rows(item, mask), _MOST_ROWS):
            made = _row(row, mask, max_length, max(0, min(room - used, _LONGEST_ROW)))
            rows.append(made)
            used += sum(len(piece.text) for piece in made.pieces)
    except (InvalidData, InvalidSample) as error:
        told = error.message[:_LONGEST_TOLD]
        return PreviewSample(file=file, line=line, error=told), len(told)
    return PreviewSample(file=file, line=line, rows=tuple(rows)), used


def _rows(sample: Sample, mask: AnswerMask) -> Iterator[Row]:
    if isinstance(sample, Conversation):
        yield from mask.rows(sample)
    else:
        yield from islice(plain_rows([sample], mask.text, _PLAIN_TOKENS), 1)


def _row(row: Row, mask: AnswerMask, max_length: int, room: int) -> PreviewRow:
    found: list[Piece] = []
    cut = False
    for piece in (piece for sample in pieces(row, mask.text) for piece in sample):
        if room <= 0 or len(found) == _MOST_PIECES:
            cut = True
            break
        text = piece.text[:room]
        cut = cut or len(text) < len(piece.text)
        room -= len(text)
        found.append(Piece(text=text, trained=piece.weight > 0, weight=piece.weight, tokens=piece.tokens))
    return PreviewRow(
        tokens=len(row.tokens),
        trained_tokens=row.trained,
        pieces=tuple(found),
        fits=len(row.tokens) <= max_length,
        cut=cut,
    )
