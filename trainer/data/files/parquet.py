"""Rows of .parquet files, as objects under the names of their columns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from ....serve.contract.errors import ConfigError, InvalidData
from ..record import Record, Records
from ..sample import Place

_ROWS = 64


def read_parquet(path: Path) -> Records:
    """The records of a parquet file. Places count the rows.

    Columns have one type for all rows, so that fields which a row never had come as null; they are left out. A column
    that holds JSON as text keeps it exactly. Raises ConfigError where pyarrow is not installed.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ConfigError("Parquet files need pyarrow: pip install 'tunechat[parquet]'") from error
    file = str(path)
    try:
        with ParquetFile(path, pre_buffer=False) as table:
            number = 0
            for batch in table.iter_batches(batch_size=_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(_plain(row), Place(file, number))
    except (ArrowException, OSError, ValueError, OverflowError) as error:
        told = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"this is no readable parquet file: {told}", "write it anew", file=file, kind="file"
        ) from error


def _plain(value: Any) -> Any:
    """The value as JSON has it: fields that are missing are left out, and times and decimals are text."""
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items() if not _is_missing(item)}
    if isinstance(value, list | tuple):
        return [None if _is_missing(item) else _plain(item) for item in value]
    if isinstance(value, str | int | float):
        return value
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and not math.isfinite(value))
