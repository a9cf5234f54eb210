"""Rows of .parquet files, as objects under the names of their columns."""

from __future__ import annotations

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
                    yield Record(_without_nulls(row), Place(file, number))
    except (ArrowException, OSError) as error:
        told = " ".join(str(error).split())[:200]
        raise InvalidData(
            f"this is no readable parquet file: {told}", "write it anew", file=file, kind="file"
        ) from error


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value
