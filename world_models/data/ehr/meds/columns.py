"""One column of a MEDS file in the type we work with, or the reason why it is none."""

from __future__ import annotations

import hashlib
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from world_models.data.ehr.cells import NO_ID, YEARS, EhrDataError

__all__ = ["TYPES", "typed"]

TYPES: dict[str, pa.DataType] = {
    "subject_id": pa.int64(),
    "time": pa.timestamp("us"),
    "code": pa.string(),
    "numeric_value": pa.float64(),
    "text_value": pa.string(),
    "hadm_id": pa.int64(),
    "unit": pa.string(),
    "route": pa.string(),
    "order_id": pa.int64(),
    "race": pa.string(),
}
_WANTED = {
    "subject_id": "a whole number below 2**63; number the subjects",
    "time": "a timestamp; write it as timestamp[us], such as 2150-03-02 08:00:00",
    "numeric_value": "a number; write what is none ('<5') as text_value",
}
_LARGEST_EXACT = {16: 2.0**11, 32: 2.0**24, 64: 2.0**53}  # of a float of so many bits
_ZONED = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)$"


def typed(column: pa.Array, name: str, path: Path) -> pa.Array:
    """The column as `TYPES` has it. Optional ids that are not told are NO_ID, those in words their hash.

    Raises:
        EhrDataError: a value that is none of that type, or a time outside `YEARS`.
    """
    kind = TYPES[name]
    try:
        column.validate(full=True)  # text that is none, of a damaged file
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if column.type == pa.string_view() or pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
            column = column.cast(pa.string())
        if pa.types.is_boolean(column.type) and kind != pa.string():
            raise _NotOneError("a boolean")
        if kind == pa.int64():
            column = _ids(column, name)
        elif kind == pa.timestamp("us"):
            column = _times(column)
        elif kind == pa.float64():
            column = _numbers(column)
        else:
            column = column.cast(kind)
    except (pa.ArrowException, _NotOneError) as error:
        wanted = _WANTED.get(name, f"{kind}; write it so, or leave the column out")
        bad = error if isinstance(error, _NotOneError) else f"{str(error).strip().splitlines()[0]} ({column.type})"
        raise EhrDataError(f"{path}, column {name}: {bad} is not {wanted}") from error
    return column


class _NotOneError(ValueError):
    """A value that is not what its column holds."""


def _ids(column: pa.Array, name: str) -> pa.Array:
    if pa.types.is_temporal(column.type):
        raise _NotOneError(f"a {column.type}")
    if pa.types.is_floating(column.type):
        bad = pc.or_(
            pc.not_equal(pc.floor(column), column), pc.greater(pc.abs(column), _LARGEST_EXACT[column.type.bit_width])
        )
        odd = column.filter(pc.fill_null(bad, False))
        if len(odd):
            raise _NotOneError(f"{odd[0].as_py()!r}")
    if _is_text(column):
        told = pc.replace_substring_regex(_trimmed(column.cast(pa.string())), r"\.0*$", "")
        whole = r"^[+-]?[0-9]{1,18}$"
        if name == "subject_id":
            _refuse(told, whole)
        words = told.filter(pc.fill_null(pc.invert(pc.match_substring_regex(told, whole)), False)).unique()
        numbers = {word: str(_number_of(word)) for word in words.to_pylist()}
        column = pa.array([numbers.get(word, word) for word in told.to_pylist()], pa.string()) if numbers else told
    whole = column.cast(pa.int64())
    return whole if name == "subject_id" else pc.fill_null(whole, NO_ID)


def _numbers(column: pa.Array) -> pa.Array:
    if _is_text(column):
        column = _trimmed(column)
        _refuse(column, r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$")
    return column.cast(pa.float64(), safe=False)


def _trimmed(column: pa.Array) -> pa.Array:
    """Text without the blanks around it; null where there is nothing else."""
    column = pc.utf8_trim_whitespace(column)
    return pc.if_else(pc.equal(column, ""), None, column)


def _is_text(column: pa.Array) -> bool:
    return pa.types.is_string(column.type) or pa.types.is_large_string(column.type)


def _refuse(column: pa.Array, pattern: str) -> None:
    """Raises _NotOneError for the first text that does not match."""
    odd = column.filter(pc.fill_null(pc.invert(pc.match_substring_regex(column, pattern)), False))
    if len(odd):
        raise _NotOneError(f"{odd[0].as_py()!r}")


def _number_of(word: str) -> int:
    """The same number from 2**62 up for the same word, so that it is none of those counted from 1."""
    return 2**62 + int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big") % 2**62


def _times(column: pa.Array) -> pa.Array:
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        told = column.drop_null()
        raise _NotOneError(
            f"{told[0].as_py() if len(told) else 'nothing'} ({column.type}: seconds, or what else, since 1970?)"
        )
    if _is_text(column):
        column = _trimmed(column)
        _refuse(column, r"^[0-9]{4}-[0-9]{2}-[0-9]{2}")
        clock = pc.utf8_slice_codeunits(column, 10, 1000)
        zoned = pc.any(pc.match_substring_regex(clock, _ZONED)).as_py()  # then all must be
        column = (
            column.cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
            if zoned
            else column.cast(pa.timestamp("us"))
        )
    elif pa.types.is_date(column.type):
        column = column.cast(pa.date32()).cast(pa.timestamp("us"))
    else:
        column = column.cast(pa.timestamp("us"), safe=False)  # below a microsecond MEDS has nothing
    low, high = (pa.scalar(datetime(year, 1, 1), pa.timestamp("us")) for year in (YEARS[0], YEARS[1] + 1))
    out = pc.fill_null(pc.or_(pc.less(column, low), pc.greater_equal(column, high)), False)
    odd = column.filter(out)
    if len(odd):
        raise _NotOneError(
            f"{odd[0].cast(pa.int64()).as_py()} us since 1970, outside the years {YEARS[0]} to {YEARS[1]},"
        )
    return column
