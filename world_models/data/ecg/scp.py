"""SCP-ECG statements, as PTB-XL writes them, to the labels of `snomed`.

A row's `scp_codes` is a Python dict of code and likelihood, such as {'NORM': 100.0, 'SR': 0.0}. The statements and what
they mean stand in PTB-XL's scp_statements.csv (71 of them; Wagner 2020, doi 10.1038/s41597-020-0495-6). A likelihood of
0 says that the statement was made and that nobody said how sure it is: it counts as present, as rhythm and form
statements nearly always have it. Statements that say none of our labels (NORM, ABQRS, HVOLT, DIG, EL, SEHYP, ANEUR,
SVARR, PRC(S), and BIGU and TRIGU, whose origin is not told) are counted, not guessed at.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable
from pathlib import Path

__all__ = ["SCP", "SUPERCLASSES", "ScpError", "labels_of", "parse_codes", "superclasses"]

SUPERCLASSES = ("NORM", "MI", "STTC", "CD", "HYP")  # normal; infarction; ST and T; conduction; hypertrophy

LONGEST_TEXT = 2000  # characters of a cell; the longest of PTB-XL has some 150 (k)
_ISCHAEMIC = ("ischaemia_or_infarct",)
_ENTRY = re.compile(r"\s*(['\"])([A-Z0-9_/()+-]{1,12})\1\s*:\s*(\d{1,3}(?:\.\d{1,6})?)\s*")

# The infarctions (MI), subendocardial injuries (INJ) and ischaemic changes (ISC) by their place.
_PLACES = (
    "IMI ASMI AMI ALMI ILMI LMI IPLMI IPMI PMI INJAS INJAL INJIN INJLA INJIL ISC_ ISCAL ISCAS ISCAN ISCIN ISCIL ISCLA"
)
SCP: dict[str, tuple[str, ...]] = {
    "SR": ("sinus_rhythm",),
    "SBRAD": ("sinus_bradycardia",),
    "STACH": ("sinus_tachycardia",),
    "SARRH": ("sinus_arrhythmia",),
    "AFIB": ("atrial_fibrillation",),
    "AFLT": ("atrial_flutter",),
    "SVTAC": ("supraventricular_tachycardia",),
    "PSVT": ("supraventricular_tachycardia",),
    "PACE": ("paced",),
    "PAC": ("pac",),
    "PVC": ("pvc",),
    "1AVB": ("av_block_1",),
    "2AVB": ("av_block_2",),
    "3AVB": ("av_block_3",),
    "LPR": ("prolonged_pr",),
    "CLBBB": ("lbbb",),
    "ILBBB": ("incomplete_lbbb",),
    "CRBBB": ("rbbb",),
    "IRBBB": ("incomplete_rbbb",),
    "LAFB": ("lafb",),
    "LPFB": ("lpfb",),
    "IVCD": ("ivcd",),
    "WPW": ("preexcitation",),
    "LVH": ("lvh",),
    "VCLVH": ("lvh",),  # by voltage, which is what the label means
    "RVH": ("rvh",),
    "LAO/LAE": ("lae",),
    "RAO/RAE": ("rae",),
    "STE_": ("st_elevation",),
    "STD_": ("st_depression",),
    "NST_": ("repolarisation",),
    "NDT": ("t_wave_abnormal",),
    "NT_": ("t_wave_abnormal",),
    "TAB_": ("t_wave_abnormal",),
    "LOWT": ("t_wave_abnormal",),
    "INVT": ("t_wave_inversion",),
    "QWAVE": ("q_wave_abnormal",),
    "LVOLT": ("low_voltage",),
    "LNGQT": ("prolonged_qt",),
    **dict.fromkeys(_PLACES.split(), _ISCHAEMIC),
}


class ScpError(ValueError):
    """A cell that holds no SCP codes; the message names it and the form it should have."""


def parse_codes(text: str) -> dict[str, float]:
    """Code -> likelihood in percent of a cell of `scp_codes`; 0 means present, how surely is not told.

    Raises:
        ScpError: not a dict of codes and numbers from 0 to 100, or one code twice.
    """
    body = text.strip()
    found: dict[str, float] = {}
    good = len(body) <= LONGEST_TEXT and body.startswith("{") and body.endswith("}")
    for part in body[1:-1].split(",") if good and body[1:-1].strip() else ():
        match = _ENTRY.fullmatch(part)
        good = good and match is not None and match[2] not in found and float(match[3]) <= 100.0
        if not good or match is None:
            break
        found[match[2]] = float(match[3])
    if not good:
        raise ScpError(f"scp_codes {text[:80]!r} is not of the form {{'NORM': 100.0, 'SR': 0.0}}; correct the cell")
    return found


def labels_of(codes: Iterable[str]) -> tuple[set[str], tuple[str, ...]]:
    """(labels these statements say, statements that stand for none of ours)."""
    codes = tuple(codes)
    return {label for code in codes for label in SCP.get(code, ())}, tuple(code for code in codes if code not in SCP)


def superclasses(table: str | Path) -> dict[str, str]:
    """Diagnostic statement -> its superclass, as PTB-XL's scp_statements.csv groups them.

    Raises:
        ScpError: no such table, a column is missing, or a diagnostic statement has a superclass that there is not.
    """
    table = Path(table)
    if not table.is_file():
        raise ScpError(f"no {table.name} in {table.parent}; PTB-XL 1.0.3 has it beside its table of records")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScpError(f"{table} is no CSV in UTF-8 ({error}); fetch PTB-XL again") from error
    found = {}
    for row in rows:
        if not {"", "diagnostic", "diagnostic_class"} <= row.keys():
            raise ScpError(f"{table} lacks a column ('', diagnostic, diagnostic_class); fetch PTB-XL 1.0.3 again")
        if (row["diagnostic"] or "").strip() in ("1", "1.0"):
            group = (row["diagnostic_class"] or "").strip()
            if group not in SUPERCLASSES:
                raise ScpError(f"{table}: statement {row['']!r} has class {group!r}, none of {', '.join(SUPERCLASSES)}")
            found[row[""].strip()] = group
    if set(found.values()) != set(SUPERCLASSES):
        raise ScpError(f"{table} has no statement of some of {', '.join(SUPERCLASSES)}; fetch PTB-XL 1.0.3 again")
    return found
