"""How a hospital's table writes ids, numbers and times, and the DuckDB expressions that read them.

Ids are whole numbers of any size up to int64; "25742920.0", as spreadsheets write them, is one, "12.7" is none, nor is
"2.57E+07", whose last digits are gone. Times with the year first or with the month's name say themselves what they are;
those with a zone become UTC, and a table in which only some have one is refused. Of "02/03/2150" only other cells can
tell
which part is the day: every such cell of the table is looked at, and where none has a part above 12 the order must be
asked for. Dates with dots have the day first, unless their column shows otherwise. "2,5" is two and a half and
"1,250,000" a million and a quarter, whatever the column. "1,250" is 1250, as English writes it; but where another cell
of the column has a decimal comma, "1,250" and "1.250" may be either, and are not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["DATE_ORDERS", "NO_ID", "EhrDataError", "Habits", "find_habits", "trimmed", "undecided", "value_of"]

DATE_ORDERS = ("day_first", "month_first")
NO_ID = -(2**63)  # an id that the source does not tell
YEARS = (1500, 2999)  # MIMIC shifts dates of birth 300 years back and stays into the 2200s

_CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p", "T%H:%M:%S", "T%H:%M")
_PARTS = "^([0-9]{1,2})[/.-]([0-9]{1,2})[/.-]([0-9]{4})"
_DECIMAL_COMMA = r"^[+-]?([0-9]*|[1-9][0-9]{0,2}(\.[0-9]{3})+),([0-9]{1,2}|[0-9]{4,})$|^[+-]?0?,[0-9]+$"
_THOUSANDS = r"^[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]*)?$"
_EITHER = "^[+-]?[1-9][0-9]{0,2}[.,][0-9]{3}$"
_YEAR_FIRST = r"^[0-9]{4}[-/][0-9]{1,2}[-/][0-9]{1,2}"
_ISO = rf"{_YEAR_FIRST}([T\s]+[0-9]+:[0-9:.]*)?$"
_ZONED = rf"{_YEAR_FIRST}[T\s]+[0-9]+:[0-9:.]*\s*([Zz]|UTC|GMT|[+-][0-9]{{2}}(:?[0-9]{{2}})?)$"
# How exports write that there is nothing; in a column of text they may be words
_NOTHING = ("NULL", "NONE", "NAN", "NAT", "NA", "N/A", "#N/A", "<NA>", r"\N")
_FLAGS = {"1.0": ("1", "1.0", "TRUE", "T", "YES", "Y"), "0.0": ("0", "0.0", "FALSE", "F", "NO", "N")}


class EhrDataError(ValueError):
    """Hospital data that cannot be read: the message names the file, what is wrong and the remedy."""


@dataclass(frozen=True)
class Habits:
    """What the cells of a whole table say about how it is written."""

    day_first: bool = False  # dates of numbers with the year last
    decimal_comma: frozenset[str] = frozenset()  # columns
    unread: Mapping[str, int] = field(default_factory=Counter)  # column -> cells that say something and cannot be read


def _words(words: Iterable[str]) -> str:
    return ", ".join(f"'{word}'" for word in words)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def trimmed(source: str, columns: Mapping[str, str]) -> str:
    """The columns (name -> kind) of a table as trimmed text, as FROM takes it; NULL where a cell is blank, or of
    another kind than text says so (`_NOTHING`). What the others of this module take for a table."""
    cells = []
    for name, kind in columns.items():
        text = f"NULLIF(TRIM({_quoted(name)}::VARCHAR), '')"
        there = text if kind == "text" else f"CASE WHEN UPPER({text}) NOT IN ({_words(_NOTHING)}) THEN {text} END"
        cells.append(f"{there} AS {_quoted(name)}")
    return f"(SELECT {', '.join(cells)} FROM {source})"


def _whole(text: str) -> str:
    number = f"TRY_CAST(REGEXP_REPLACE({text}, '[.].*$', '') AS BIGINT)"
    return f"CASE WHEN REGEXP_MATCHES({text}, '^[+-]?[0-9]+([.]0*)?$') AND {number} > {NO_ID + 1} - 1 THEN {number} END"


def _flag(text: str) -> str:
    cases = " ".join(f"WHEN UPPER({text}) IN ({_words(words)}) THEN {value}::DOUBLE" for value, words in _FLAGS.items())
    return f"CASE {cases} END"


def _number(text: str, decimal_comma: bool = False) -> str:
    number = f"TRY_CAST({_numeral(text, decimal_comma)} AS DOUBLE)"
    return f"CASE WHEN ISFINITE({number}) THEN {number} END"


def _numeral(text: str, decimal_comma: bool) -> str:
    """A number with a decimal point at most, of "1.234,5" and "1,234.5"; what may be two is marked, other text as it
    is."""
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
    first = (
        f"CASE WHEN REGEXP_MATCHES({text}, '{_ISO}') THEN TRY_CAST({text} AS TIMESTAMP) "
        f"WHEN REGEXP_MATCHES({text}, '{_ZONED}') THEN TRY_CAST({text} AS TIMESTAMPTZ)::TIMESTAMP END"
    )
    return _in_years(f"COALESCE({first}, {_strptime(text, '%Y-%m-%d', '%Y/%m/%d', '%d-%b-%Y', '%d %b %Y')})")


def _told_time(text: str, day_first: bool) -> str:
    """Of any text, once the order of the day and the month is known."""
    slashed = rf"REGEXP_REPLACE({text}, '{_PARTS}', '\1/\2/\3')"
    return f"COALESCE({_clear_time(text)}, {_in_years(_strptime(slashed, '%d/%m/%Y' if day_first else '%m/%d/%Y'))})"


def value_of(name: str, kind: str, habits: Habits | None) -> str:
    """The cell of a column as its kind: id, float, amount (a number as text, or a range), flag (1 or 0), time or text;
    NULL where it is not one. Without habits only what every table means the same by."""
    text = _quoted(name)
    if kind == "id":
        return _whole(text)
    if kind == "flag":
        return _flag(text)
    if kind == "float":
        return _number(text, habits is not None and name in habits.decimal_comma)
    if kind == "amount":
        return _numeral(text, habits is not None and name in habits.decimal_comma)
    if kind == "time":
        return _clear_time(text) if habits is None else _told_time(text, habits.day_first)
    return text


_CHECKED = ("id", "float", "flag", "time")  # kinds of which cells that say something and are none are counted


def undecided(columns: Mapping[str, str]) -> str:
    """Whether a row has a cell that says something, and what it says depends on the habits (or cannot be read)."""
    parts = ["FALSE"]
    for name, kind in columns.items():
        text = _quoted(name)
        if kind in _CHECKED:
            parts.append(f"({text} IS NOT NULL AND {value_of(name, kind, None)} IS NULL)")
        if kind in ("float", "amount"):
            parts.append(f"COALESCE(CONTAINS({text}, ','), FALSE)")
        if kind == "time":
            parts.append(f"COALESCE(REGEXP_MATCHES({text}, '{_ZONED}'), FALSE)")
    return " OR ".join(parts)


def find_habits(db: Any, source: str, columns: Mapping[str, str], where: str, date_order: str | None) -> Habits:
    """How a table is written, from one pass over all its cells.

    Args:
        db: a DuckDB; `source` is the table in it (see `trimmed`), `columns` its names -> kinds, `where` the file's name
            for errors.
        date_order: one of DATE_ORDERS, where the cells need not tell.

    Raises:
        EhrDataError: the order of day and month is not told, told both ways or against `date_order`; times with a zone
            beside times without; a column of times or ids of which no cell can be read.
    """
    times = [name for name, kind in columns.items() if kind == "time"]
    numbers = [name for name, kind in columns.items() if kind in ("float", "amount")]
    examples = _ask(
        db,
        source,
        {
            **{(name, what): expression for name in times for what, expression in _date_examples(name).items()},
            **{(name, "decimal"): f"MAX(REGEXP_MATCHES({_quoted(name)}, '{_DECIMAL_COMMA}'))" for name in numbers},
        },
    )
    told = {
        what: [examples[name, what] for name in times if examples[name, what]]
        for what in ("day", "month", "either", "dots", "zoned", "bare")
    }
    if told["zoned"] and told["bare"]:
        raise EhrDataError(
            f"{where}: {told['zoned'][0]!r} has a time zone and {told['bare'][0]!r} has none; write all times with "
            "their zone, or all without"
        )
    commas = frozenset(name for name in numbers if examples[name, "decimal"])
    habits = Habits(_day_first(told, where, date_order), commas)
    checked = [name for name, kind in columns.items() if kind in _CHECKED]
    counts = _ask(
        db,
        source,
        {
            (name, what): expression
            for name in checked
            for what, expression in _count_unread(_quoted(name), value_of(name, columns[name], habits)).items()
        },
    )
    remedies = {
        "time": f"write them as 2150-03-02 08:00:00 (years {YEARS[0]} to {YEARS[1]}; seconds since 1970 are not read)",
        "id": "write whole numbers below 2**63 with all their digits",
    }
    for name in checked:
        remedy = remedies.get(columns[name])
        if remedy and counts[name, "given"] and not counts[name, "read"]:
            raise EhrDataError(
                f"{where}: none of the {counts[name, 'given']} {columns[name]}s in {name} can be read, such as "
                f"{counts[name, 'example']!r}; {remedy}"
            )
    return replace(habits, unread=+Counter({name: counts[name, "given"] - counts[name, "read"] for name in checked}))


def _ask(db: Any, source: str, expressions: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Any]:
    """The value of each expression over the whole table, in one pass."""
    if not expressions:
        return {}
    row = db.execute(f"SELECT {', '.join(expressions.values())} FROM {source}").fetchone()
    return dict(zip(expressions, row, strict=True))


def _date_examples(name: str) -> dict[str, str]:
    """A date of numbers with the year last whose day is first, whose month is, of which either may be, or with dots; a
    time with a zone, or with none."""
    text = _quoted(name)
    first, second = (f"TRY_CAST(REGEXP_EXTRACT({text}, '{_PARTS}', {i}) AS INTEGER)" for i in (1, 2))
    dots = rf"REGEXP_MATCHES({text}, '^[0-9]{{1,2}}\.[0-9]{{1,2}}\.[0-9]{{4}}')"
    low = f"{first} <= 12 AND {second} <= 12"
    return {
        "day": f"MIN({text}) FILTER ({first} > 12 AND {second} <= 12)",
        "month": f"MIN({text}) FILTER ({second} > 12 AND {first} <= 12)",
        "either": f"MIN({text}) FILTER ({low} AND {first} <> {second} AND NOT {dots})",
        "dots": f"MIN({text}) FILTER ({dots})",
        "zoned": f"MIN({text}) FILTER (REGEXP_MATCHES({text}, '{_ZONED}'))",
        "bare": f"MIN({text}) FILTER (CONTAINS({text}, ':') AND NOT REGEXP_MATCHES({text}, '{_ZONED}'))",
    }


def _count_unread(text: str, value: str) -> dict[str, str]:
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
            f"{where}: {told['either'][0]!r} may have the day or the month first, and no date of the table tells "
            f"which; give date_order (--date-order) as {' or '.join(DATE_ORDERS)}, or write dates as 2150-03-02 "
            "08:00:00"
        )
    return bool(day) or (bool(told["dots"]) and not month)
