"""Read the rows of Parquet files. Columns that Python cannot represent are omitted."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

# pyarrow is imported inside the functions, because the command line imports this module for every --help.

_BATCH_ROWS = 512


def read_parquet_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield each row as a dict keyed by column name. Structs become dicts.

    Columns of dates, times and durations are omitted, because Python types do not cover their range. A binary value
    that is valid UTF-8 becomes a string, because older programs store text as binary values. Any other binary value
    becomes None. In strings, invalid UTF-8 is replaced by U+FFFD.

    Args:
        file: The Parquet file.

    Raises:
        ValueError: The file is damaged, or Arrow cannot read it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(file)
        for batch in table.iter_batches(batch_size=_BATCH_ROWS, columns=_columns(table)):
            values = [_values(column) for column in batch.columns]
            for cells in zip(*values, strict=True):
                yield dict(zip(batch.schema.names, cells, strict=True))
    except pa.ArrowException as error:
        raise ValueError(str(error)) from error


def _columns(file: pq.ParquetFile) -> list[str]:
    readable = [is_readable for field in file.schema_arrow for is_readable in _leaves(field.type)]
    paths = [file.schema.column(index).path for index in range(len(file.schema))]
    return [path for path, is_readable in zip(paths, readable, strict=True) if is_readable]


def _leaves(kind: pa.DataType) -> Iterator[bool]:
    """Yield, for each Parquet column that stores a part of an Arrow type, whether Python can represent its values."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        yield from _leaves(kind.storage_type)
    elif pa.types.is_map(kind):  # the keys and the values of a map can only be read together
        leaves = [*_leaves(kind.key_type), *_leaves(kind.item_type)]
        yield from [all(leaves)] * len(leaves)
    elif pa.types.is_struct(kind):
        for index in range(kind.num_fields):
            yield from _leaves(kind.field(index).type)
    elif pa.types.is_nested(kind):
        yield from _leaves(kind.value_type)
    else:
        yield not pa.types.is_temporal(kind)


def _values(column: pa.Array) -> list[Any]:
    try:
        values = column.to_pylist()
    except UnicodeDecodeError:
        values = [_repaired(scalar) for scalar in column]
    return [_decode_bytes(value) for value in values] if _holds_bytes(column.type) else values


def _repaired(scalar: pa.Scalar) -> Any:
    import pyarrow as pa

    try:
        return scalar.as_py()
    except UnicodeDecodeError:
        if isinstance(scalar, pa.BinaryScalar):  # BinaryScalar is also the base class of string scalars
            return scalar.as_buffer().to_pybytes().decode("utf-8", "replace")
        if isinstance(scalar, pa.StructScalar):
            return {name: _repaired(value) for name, value in scalar.items()}
        return [_repaired(value) for value in scalar.values] if isinstance(scalar, pa.ListScalar) else None


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(_holds_bytes(kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_nested(kind) and not pa.types.is_map(kind):
        return _holds_bytes(kind.value_type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _decode_bytes(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _decode_bytes(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_decode_bytes(each) for each in value]
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
