"""The table of diagnoses of MIMIC-IV-ECG-Ext-ICD (records_w_diag_icd10.csv), checked, sorted and as labels.

Strodthoff 2024, doi 10.1093/ehjdh/ztae039. Labels are the categories of ICD-10 chapter IX in one column of diagnoses,
as the paper has them, or those of other chapters, or given codes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from world_models.data.icd10 import CHAPTER, UnknownCodeError, classes, in_chapter, path

__all__ = ["FOLD_COLUMNS", "LABEL_COLUMNS", "LabelTable", "MimicEcgError", "read_labels"]

LABEL_COLUMNS = ("all_diag_all", "all_diag_hosp", "ed_diag_ed", "ed_diag_hosp", "hosp_diag_hosp")
FOLD_COLUMNS = ("fold", "strat_fold")
FOLDS = range(20)
COLUMNS = ("study_id", "subject_id", "ecg_time", "gender", "age", "ecg_no_within_stay")
SECONDS_PER_DAY = 86_400.0
# all of the real file is like this; parsing it as Python takes ten times as long
_PLAIN_LIST = re.compile(r"\[(?:'[A-Za-z0-9.]*'(?:, (?=')|(?=\])))*\]")


class MimicEcgError(ValueError):
    """Files that are not in the layout; the message names the value, the limit and the remedy."""


class LabelTable(NamedTuple):
    """The labels' table, sorted by patient and time."""

    study: np.ndarray  # [N] int64
    patient: Tensor  # [N] int64
    days: Tensor  # [N] float32 since the patient's first ECG in the table
    age_years: Tensor  # [N] float32, NaN unknown
    sex_female: Tensor  # [N] float32, NaN unknown
    fold: Tensor  # [N] int8
    first: Tensor  # [N] bool
    diagnosed: Tensor  # [N] bool
    label: Tensor  # [N, C] bool
    codes: tuple[str, ...]
    out_of_order: int


def _parse_lists(column: pd.Series, name: str) -> tuple[pd.Series, list[list[str]]]:
    """(which distinct list each row has, the distinct lists): many rows of one stay share one."""
    code, texts = pd.factorize(column.fillna("[]").str.strip().replace("", "[]"))
    lists = []
    for text in texts:
        if _PLAIN_LIST.fullmatch(text):
            lists.append(re.findall(r"'([^']*)'", text))
            continue
        try:
            value = ast.literal_eval(text)
            sound = isinstance(value, list | tuple | set) and all(isinstance(x, str) for x in value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            sound = False
        if not sound:
            row = int(np.argmax(np.asarray(code) == len(lists)))
            shown = text if len(text) < 60 else text[:60] + "..."
            raise MimicEcgError(
                f"{name} is {shown!r} in row {row + 2}; it must be a list such as ['I4891', 'E785'] or []: fetch the "
                "table again"
            )
        lists.append(list(value))
    return pd.Series(code), lists


def _multi_hot(
    lists: list[list[str]], codes: tuple[str, ...] | None, chapters: Collection[str]
) -> tuple[Tensor, tuple[str, ...]]:
    """[U, C] bool of the distinct lists, and the codes. An ECG has a code if a diagnosis is it or lies below it."""
    said = {code for given in lists for code in given}
    try:
        codes = classes(lists, chapters) if codes is None else tuple(path(code)[-1] for code in codes)
        column = {code: i for i, code in enumerate(codes)}
        wanted = {path(code)[0] for code in codes} or chapters
        each = {code: [column[x] for x in path(code) if x in column] for code in said if in_chapter(code, wanted)}
    except UnknownCodeError as error:
        raise MimicEcgError(f"the table of labels, or the label set, holds an {error}") from error
    if not codes:
        named = "chapter IX (I00 to I99)" if tuple(chapters) == (CHAPTER,) else f"chapters {', '.join(chapters)}"
        raise MimicEcgError(f"no diagnosis of {named} in the table of labels; give another column, chapter or table")
    hot = [(i, place) for i, given in enumerate(lists) for code in given for place in each.get(code, ())]
    label = torch.zeros(len(lists), len(codes), dtype=torch.bool)
    if hot:
        label[tuple(torch.tensor(hot).T)] = True
    return label, codes


def read_labels(
    path: str | Path,
    label_column: str = "all_diag_all",
    fold_column: str = "fold",
    codes: tuple[str, ...] | None = None,
    chapters: Collection[str] = (CHAPTER,),
) -> LabelTable:
    """records_w_diag_icd10.csv, checked and sorted by patient and time.

    Args:
        label_column: which of the columns of diagnoses; `all_diag_all` is the one to train on.
        fold_column: "fold" (the benchmark's) or "strat_fold".
        codes: the label set: categories or finer codes of any chapter, such as "I48" and "I48.91"; by default every
            category of `chapters` in the column (76 of chapter IX in version 1.0.1 (k)).
        chapters: of ICD-10, in Roman numerals.

    Raises:
        MimicEcgError: no such file, columns missing, a diagnosis that is no list or an unknown code, a study twice, a
            time that is none, a fold outside 0 to 19, a patient in two folds.
        ValueError: no such chapter.
    """
    path = Path(path)
    frame = _read_frame(path, label_column, fold_column)
    which, lists = _parse_lists(frame[label_column], label_column)
    hot, codes = _multi_hot(lists, codes, chapters)
    twice = frame["study_id"][frame["study_id"].duplicated()]
    if len(twice):
        raise MimicEcgError(f"study_id {twice.iloc[0]} stands in {path} more than once; fetch the table again")
    seconds, fold = _seconds(frame), _folds(frame, fold_column)
    patient = frame["subject_id"].to_numpy(np.int64)
    order = np.lexsort((frame["study_id"].to_numpy(), seconds, patient))
    backwards = (np.diff(seconds) < 0) & (np.diff(patient) == 0)
    first_time = pd.Series(seconds).groupby(patient).transform("min").to_numpy()
    sex = frame["gender"].str.strip().str.upper().map({"F": 1.0, "M": 0.0}).astype("float32")

    def column(values: object, dtype: torch.dtype) -> Tensor:
        return torch.from_numpy(np.array(values)[order]).to(dtype)

    lengths = np.array([len(given) for given in lists])
    return LabelTable(
        study=frame["study_id"].to_numpy(np.int64)[order],
        patient=column(patient, torch.int64),
        days=column((seconds - first_time) / SECONDS_PER_DAY, torch.float32),
        age_years=column(pd.to_numeric(frame["age"], errors="coerce"), torch.float32),
        sex_female=column(sex, torch.float32),
        fold=column(fold, torch.int8),
        first=column(frame["ecg_no_within_stay"] == 0, torch.bool),
        diagnosed=column(lengths[which] > 0, torch.bool),
        label=hot[torch.from_numpy(which.to_numpy()[order].astype(np.int64))],
        codes=codes,
        out_of_order=len(np.unique(patient[1:][backwards])),
    )


def _read_frame(path: Path, label_column: str, fold_column: str) -> pd.DataFrame:
    """The columns needed of the file."""
    if not path.is_file():
        raise MimicEcgError(f"no table of labels at {path}; give records_w_diag_icd10.csv of MIMIC-IV-ECG-Ext-ICD")
    there = list(pd.read_csv(path, nrows=0).columns)
    wanted = [*COLUMNS, label_column, fold_column]
    lacking = [name for name in wanted if name not in there]
    if lacking:
        raise MimicEcgError(
            f"{path} lacks {', '.join(lacking)}; it has {', '.join(there)}: give records_w_diag_icd10.csv, with "
            f"--label-column one of {', '.join(LABEL_COLUMNS)} and --fold-column one of {', '.join(FOLD_COLUMNS)}"
        )
    frame = pd.read_csv(path, usecols=wanted, dtype={label_column: "string", "gender": "string", "ecg_time": "string"})
    if frame.empty:
        raise MimicEcgError(f"{path} has no rows; fetch it again")
    return frame


def _seconds(frame: pd.DataFrame) -> np.ndarray:
    """Seconds [N] float64 from a common origin until each ECG."""
    time = pd.to_datetime(frame["ecg_time"], errors="coerce")
    if time.isna().any():
        row = int(time.isna().idxmax())
        raise MimicEcgError(
            f"ecg_time is {frame['ecg_time'][row]!r} in row {row + 2}; write it like 2180-05-07 12:01:00"
        )
    return (time - pd.Timestamp("1900-01-01")).dt.total_seconds().to_numpy()


def _folds(frame: pd.DataFrame, fold_column: str) -> pd.Series:
    """The fold of each row, by which no patient is in two."""
    fold = pd.to_numeric(frame[fold_column], errors="coerce").fillna(-1)
    if not fold.isin(FOLDS).all():
        row = int((~fold.isin(FOLDS)).idxmax())
        raise MimicEcgError(
            f"{fold_column} is {frame[fold_column][row]!r} in row {row + 2}; folds are 0 to {FOLDS.stop - 1}"
        )
    divided = fold.groupby(frame["subject_id"]).nunique() > 1
    if divided.any():
        raise MimicEcgError(
            f"{int(divided.sum())} patients stand in more than one {fold_column}, {divided.idxmax()} for one: train "
            "and test would share them; fetch the table again"
        )
    return fold
