"""Tables with cells, columns and rows that nobody should have written."""

from __future__ import annotations

import random

import numpy as np
import pandas as pd

__all__ = ["CELLS", "changed"]

CELLS = (
    "",
    "²",
    "٣",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "9" * 400,
    "9223372036854775808",
    "9007199254740993",
    "2,5",
    "1,000",
    "1.234,5",
    "infinity",
    "0000-00-00",
    "9999-12-31 23:59:59",
    "0001-01-01",
    "294247-01-01",
    "2150-02-30",
    "31/12/2150 10:00",
    "12/31/2150 10:00",
    "2150-03-01 10:00:00+02:00",
    "None",
    "___",
    "a//b",
    "//",
    "LAB//²//mEq/L",
    "\x00",
    "é",
    "<5",
    ">1e5",
    "1-2",
    "'",
    '"',
    "true",
    "12.7",
    "1e3",
    " 11 ",
)
CODES = (
    "HOSPITAL_ADMISSION",
    "HOSPITAL_DISCHARGE",
    "HOSPITAL_DISCHARGE//DIED",
    "MEDS_DEATH",
    "MEDS_BIRTH",
    "GENDER",
    "RACE",
    "ED_REGISTRATION",
    "INFUSION_START",
    "INFUSION_START//²",
    "PROCEDURE//START//²",
    "MEDICATION",
    "MEDICATION//START",
    "LAB",
    "LAB//" + "9" * 30,
    "DIAGNOSIS//ICD//²//",
    "DIAGNOSIS//ICD//10//",
)
TIMES = (
    pd.NaT,
    pd.Timestamp("2150-03-01"),
    pd.Timestamp("1970-01-01"),
    pd.Timestamp("2199-01-01"),
    np.datetime64(2**62, "us"),
)
NUMBERS = (0, -1, 7, 2**53 + 1, 1e38, np.nan, np.inf, -np.inf)


def change(frame: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """One change: a cell mostly, else a column or rows."""
    column, kind = rng.choice(list(frame.columns)), rng.random()
    if kind < 0.7 and len(frame):
        row, place = rng.randrange(len(frame)), list(frame.columns).index(column)
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            value = rng.choice(TIMES)
        elif pd.api.types.is_numeric_dtype(frame[column]):
            value = rng.choice(NUMBERS)
            frame = frame.astype({column: "float64"}) if frame[column].dtype.kind != "f" else frame
        else:
            value = rng.choice(CELLS + CODES)
            frame = frame.astype({column: object})
        frame = frame.copy()
        frame.iat[row, place] = value
        return frame
    if kind < 0.75:
        return frame.drop(columns=column)
    if kind < 0.8:
        return frame.assign(**{column: None})
    if kind < 0.85:
        return frame.assign(**{column: frame[column].astype(str)})
    if kind < 0.9:
        return frame.iloc[:0]
    return frame.sample(frac=rng.choice([0.6, 1.5]), replace=True, random_state=rng.randrange(99)).sort_index()


def changed(frame: pd.DataFrame, rng: random.Random, most: int) -> pd.DataFrame:
    """One to `most` changes, each of a cell mostly, else of a column or of rows."""
    for _ in range(rng.randint(1, most)):
        if len(frame.columns) > 1:
            frame = change(frame, rng)
    return frame.reset_index(drop=True)
