"""How a hospital's table writes ids, numbers and times, and the DuckDB expressions that read them.

Ids are whole numbers of any size up to int64; "25742920.0", as spreadsheets write them, is one, "12.7" is none. Times
with the year first or with the month's name say themselves what they are. Of "02/03/2150" only other cells can tell
which part is the day: every such cell of the table is looked at, and where none has a part above 12 the order must be
asked for. Dates with dots have the day first, unless their column shows otherwise. "2,5" is two and a half and
"1,250,000" a million and a quarter, whatever the column. "1,250" is 1250, as English writes it; but where another cell
of the column has a decimal comma, "1,250" and "1.250" may be either, and are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["DATE_ORDERS", "NO_ID", "EhrDataError", "Habits", "plain", "find_habits", "undecided", "value_of"]

DATE_ORDERS = ("day_first", "month_first")
NO_ID = -(2**63)  # an id that the source does not tell
YEARS = (1500, 2999)  # MIMIC shifts dates of birth 300 years back and stays into the 2200s

_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S", "T%H:%M")
_PARTS = "^([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})"
_DECIMAL_COMMA = r"^[+-]?([0-9]*|[1-9][0-9]{0,2}(\.[0-9]{3})+),([0-9]{1,2}|[0-9]{4,})$|^[+-]?0?,[0-9]+$"
_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?$"
_EITHER = "^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$"


class EhrDataError(ValueError):
    """Hospital data that cannot be read: the message names the file, what is wrong and the remedy."""


@dataclass(frozen=True)
class Habits:
    """What the cells of a whole table say about how it is written."""

    day_first: bool = False  # dates of numbers with the year last
    decimal_comma: frozenset[str] = frozenset()  # columns
    unread: Mapping[str, int] = field(default_factory=Counter)  # column -> cells that say something and cannot be read


def plain(name: str) -> str:
    """The column's text, trimmed; NULL where it is blank."""
    quoted = name.replace('"', '""')
    return f"""NULLIF(TRIM("{quoted}"::VARCHAR), '')"""


def _whole(text: str) -> str:
    number = f"TRY_CAST({text} AS DECIMAL(38, 6))"
    pointed = f"CASE WHEN {number} = FLOOR({number}) THEN TRY_CAST({number} AS BIGINT) END"
    return f"CASE WHEN CONTAINS({text}, '.') THEN {pointed} ELSE TRY_CAST({text} AS BIGINT) END"


def _number(text: str, decimal_comma: bool = False) -> str:
    number = f"TRY_CAST({_numeral(text, decimal_comma)} AS DOUBLE)"
    return f"CASE WHEN ISFINITE({number}) THEN {number} END"


def _numeral(text: str, decimal_comma: bool) -> str:
    """A number with a decimal point at most, of "1.234,5" and "1,234.5"; what may be two is marked, other text as it is."""
    english = f"WHEN REGEXP_MATCHES({text}, '{_THOUSANDS}') THEN REPLACE({text}, ',', '')"
    german = f"WHEN REGEXP_MATCHES({text}, '{_DECIMAL_COMMA}') THEN REPLACE(REPLACE({text}, '.', ''), ',', '.')"
    if decimal_comma:
        either = f"WHEN REGEXP_MATCHES({text}, '{_EITHER}') THEN {text} || ' or a thousandth'"
        return f"CASE {either} {german} {english} ELSE {text} END"
    return f"CASE WHEN CONTAINS({text}, ',') THEN (CASE {german} {english} ELSE {text} END) ELSE {text} END"


def _in_years(time: str) -> str:
    return f"CASE WHEN ISFINITE({time}) AND YEAR({time}) BETWEEN {YEARS[0]} AND {YEARS[1]} THEN {time} END"


def _strptime(text: str, *dates: str) -> str:
    formats = ", ".join(f"'{date}{clock}'" for date in dates for clock in _CLOCKS)
    # a word ("infinity") would be 1900-01-01
    return f"CASE WHEN SUBSTRING({text}, 1, 1) BETWEEN '0' AND '9' THEN TRY_STRPTIME({text}, [{formats}]) END"


def _clear_time(text: str) -> str:
    """Of a text with the year first, or the month by name."""
    # the cast would take the PM of "02:00 PM" for a time zone
    year_first = f"SUBSTRING({text}, 5, 1) IN ('-', '/') AND UPPER(RIGHT({text}, 1)) <> 'M'"
    first = f"CASE WHEN {year_first} THEN TRY_CAST({text} AS TIMESTAMP) END"
    return _in_years(f"COALESCE({first}, {_strptime(text, '%Y-%m-%d', '%Y/%m/%d', '%d-%b-%Y', '%d %b %Y')})")


def _told_time(text: str, day_first: bool) -> str:
    """Of any text, once the order of the day and the month is known."""
    slashed = rf"REGEXP_REPLACE({text}, '{_PARTS}', '\1/\2/\3')"
    return f"COALESCE({_clear_time(text)}, {_in_years(_strptime(slashed, '%d/%m/%Y' if day_first else '%m/%d/%Y'))})"


def value_of(name: str, kind: str, habits: Habits | None) -> str:
    """The cell of a column as its kind: id, float, amount (a number as text, or a range), time or text; NULL where it
    is not one. Without habits only what every table means the same by."""
    text = plain(name)
    if kind == "id":
        return _whole(text)
    if kind == "float":
        return _number(text, habits is not None and name in habits.decimal_comma)
    if kind == "amount":
        return _numeral(text, habits is not None and name in habits.decimal_comma)
    if kind == "time":
        return _clear_time(text) if habits is None else _told_time(text, habits.day_first)
    return text


def undecided(columns: Mapping[str, str]) -> str:
    """Whether a row has a cell that says something, and what it says depends on the habits (or cannot be read)."""
    parts = ["FALSE"]
    for name, kind in columns.items():
        text = plain(name)
        if kind == "time" or kind == "float":
            parts.append(f"({text} IS NOT NULL AND {value_of(name, kind, None)} IS NULL)")
        if kind in ("float", "amount"):
            parts.append(f"COALESCE(CONTAINS({text}, ','), FALSE)")
    return " OR ".join(parts)


def find_habits(db: Any, source: str, columns: Mapping[str, str], where: str, date_order: str | None) -> Habits:
    """How a table is written, from one pass over all its cells.

    Args:
        db: a DuckDB; `source` is the table in it, `columns` its names -> kinds, `where` the file's name for errors.
        date_order: one of DATE_ORDERS, where the cells need not tell.

    Raises:
        EhrDataError: the order of day and month is not told, told both ways or against `date_order`; a column of times of
            which no cell can be read.
    """
    times = [name for name, kind in columns.items() if kind == "time"]
    numbers = [name for name, kind in columns.items() if kind in ("float", "amount")]
    examples = _ask(db, source, {
        **{(name, what): expression for name in times for what, expression in _date_examples(name).items()},
        **{(name, "decimal"): f"MAX(REGEXP_MATCHES({plain(name)}, '{_DECIMAL_COMMA}'))" for name in numbers},
    })  # fmt: skip
    told = {
        what: [examples[name, what] for name in times if examples[name, what]]
        for what in ("day", "month", "either", "dots")
    }
    commas = frozenset(name for name in numbers if examples[name, "decimal"])
    habits = Habits(_day_first(told, where, date_order), commas)
    checked = [*times, *(name for name in numbers if columns[name] == "float")]
    counts = _ask(db, source, {
        (name, what): expression for name in checked
        for what, expression in _count_unread(name, value_of(name, columns[name], habits)).items()
    })  # fmt: skip
    for name in times:
        if counts[name, "given"] and not counts[name, "read"]:
            raise EhrDataError(
                f"{where}: none of the {counts[name, 'given']} times in {name} can be read, such as "
                f"{counts[name, 'example']!r}; write them as 2150-03-02 08:00:00 (years {YEARS[0]} to {YEARS[1]}; "
                "seconds since 1970 are not read)"
            )
    return replace(habits, unread=+Counter({name: counts[name, "given"] - counts[name, "read"] for name in checked}))


def _ask(db: Any, source: str, expressions: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Any]:
    """The value of each expression over the whole table, in one pass."""
    if not expressions:
        return {}
    row = db.execute(f"SELECT {', '.join(expressions.values())} FROM {source}").fetchone()
    return dict(zip(expressions, row, strict=True))


def _date_examples(name: str) -> dict[str, str]:
    """A date of numbers with the year last whose day is first, whose month is, of which either may be, or with dots."""
    text = plain(name)
    first, second = (f"TRY_CAST(REGEXP_EXTRACT({text}, '{_PARTS}', {i}) AS INTEGER)" for i in (1, 2))
    dots = rf"REGEXP_MATCHES({text}, '^[0-9]{{1,2}}\.[0-9]{{1,2}}\.[0-9]{{4}}')"
    low = f"{first} <= 12 AND {second} <= 12"
    return {
        "day": f"MIN({text}) FILTER ({first} > 12 AND {second} <= 12)",
        "month": f"MIN({text}) FILTER ({second} > 12 AND {first} <= 12)",
        "either": f"MIN({text}) FILTER ({low} AND {first} <> {second} AND NOT {dots})",
        "dots": f"MIN({text}) FILTER ({dots})",
    }


def _count_unread(name: str, value: str) -> dict[str, str]:
    text = plain(name)
    example = f"MIN({text}) FILTER ({value} IS NULL)"
    return {"given": f"COUNT({text})", "read": f"COUNT({value})", "example": example}


def _day_first(told: Mapping[str, list[str]], where: str, date_order: str | None) -> bool:
    day, month = (told[what][0] if told[what] else None for what in ("day", "month"))
    if day and month:
        raise EhrDataError(
            f"{where}: {day!r} has its day first and {month!r} its month; write all dates as 2150-03-02 08:00:00"
        )
    if date_order is not None:
        against = month if date_order == "day_first" else day
        if against:
            raise EhrDataError(f"{where}: {against!r} is no date with date_order={date_order}; leave it out")
        return date_order == "day_first"
    if not (day or month) and told["either"]:
        raise EhrDataError(
            f"{where}: {told['either'][0]!r} may have the day or the month first, and no date of the table tells which; "
            f"give date_order (--date-order) as {' or '.join(DATE_ORDERS)}, or write dates as 2150-03-02 08:00:00"
        )
    return bool(day) or (bool(told["dots"]) and not month)
