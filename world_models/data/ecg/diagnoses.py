"""The diagnoses of LUDB and of the PhysioNet/CinC Challenge 2021 as labels, and what their headers say of the person.

LUDB: ODC-By, Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211. Challenge 2021: CC BY 4.0. The label names are those of
`snomed`; PTB-XL's statements stand in `scp`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from world_models.data.ecg import snomed
from world_models.data.ecg.ludb import read_table
from world_models.data.ecg.wfdb.comments import patient_of
from world_models.data.ecg.wfdb.header import comments_of
from world_models.data.ecg.wfdb.reader import RecordError, folder_records

__all__ = ["LUDB_LABELS", "challenge_labels", "ludb_labels", "person_of"]

log = logging.getLogger(__name__)

# LUDB: column, what its line says, the labels that is. The first that fits counts; other lines are counted as unmapped.
_INFARCT = "ischaemia_or_infarct"
_LUDB: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("Rhythms", r"sinus rhythm", ("sinus_rhythm",)),
    ("Rhythms", r"sinus bradycardia", ("sinus_bradycardia",)),
    ("Rhythms", r"sinus tachycardia", ("sinus_tachycardia",)),
    ("Rhythms", r"(sinus arrhythmia|irregular sinus rhythm)", ("sinus_arrhythmia",)),
    ("Rhythms", r"atrial fibrillation", ("atrial_fibrillation",)),
    ("Rhythms", r"atrial flutter", ("atrial_flutter",)),
    ("Rhythms", r"wandering atrial pacemaker", ("wandering_pacemaker",)),
    ("Cardiac pacing", r"", ("paced",)),
    ("Extrasystolies", r"atrial extrasystole", ("pac",)),
    ("Extrasystolies", r"ventricular extrasystole", ("pvc",)),
    ("Conduction abnormalities", r"i degree av", ("av_block_1",)),
    ("Conduction abnormalities", r"ii degree av", ("av_block_2",)),
    ("Conduction abnormalities", r"iii degree av", ("av_block_3",)),
    ("Conduction abnormalities", r"incomplete left bundle", ("incomplete_lbbb",)),
    ("Conduction abnormalities", r"(complete )?left bundle", ("lbbb",)),
    ("Conduction abnormalities", r"incomplete right bundle", ("incomplete_rbbb",)),
    ("Conduction abnormalities", r"(complete )?right bundle", ("rbbb",)),
    ("Conduction abnormalities", r"left anterior hemiblock", ("lafb",)),
    ("Conduction abnormalities", r"left posterior hemiblock", ("lpfb",)),
    ("Conduction abnormalities", r"non-specific intrav", ("ivcd",)),  # the table writes "intravintricular"
    ("Hypertrophies", r"left ventricular hypertrophy", ("lvh",)),
    ("Hypertrophies", r"right ventricular hypertrophy", ("rvh",)),
    ("Hypertrophies", r"left atrial (hypertrophy|overload)", ("lae",)),
    ("Hypertrophies", r"right atrial (hypertrophy|overload)", ("rae",)),
    ("Ischemia", r"stemi", (_INFARCT, "acute_infarct", "st_elevation")),
    ("Ischemia", r"scar formation", (_INFARCT, "old_infarct")),
    ("Ischemia", r"(undefined )?ischemia", (_INFARCT,)),
    ("Electric axis of the heart", r".*left axis deviation", ("left_axis",)),
    ("Electric axis of the heart", r".*right axis deviation", ("right_axis",)),
    ("Non-specific repolarization abnormalities", r"", ("repolarisation",)),
    ("Other states", r"early repolarization", ("early_repolarisation",)),
)
LUDB_LABELS = tuple(dict.fromkeys(label for _, _, labels in _LUDB for label in labels))


def _ludb_labels(row: dict[str, str]) -> tuple[set[str], list[str]]:
    """(labels, lines without one) of a row of ludb.csv."""
    said: set[str] = set()
    rest: list[str] = []
    for column in dict.fromkeys(column for column, _, _ in _LUDB):
        for line in filter(None, (text.strip() for text in (row.get(column) or "").splitlines())):
            found = next((x for c, rule, x in _LUDB if c == column and re.match(rule, line.lower())), None)
            said.update(found or ())
            if found is None:
                rest.append(line)
    return said, rest


def ludb_labels(folder: Path, names: Sequence[str]) -> tuple[list[set[str]], Counter[str]]:
    """(the labels of each of these records of ludb.csv, lines that say none -> records)."""
    table = read_table(folder)
    found = [_ludb_labels(table[name]) for name in names]
    return [said for said, _ in found], Counter(line for _, rest in found for line in set(rest))


def _dx(base: Path) -> str | None:
    found = (re.match(r"Dx\s*:(.*)", comment, flags=re.IGNORECASE) for comment in comments_of(base))
    return next((match.group(1) for match in found if match), None)


def challenge_labels(folder: str | Path) -> tuple[dict[Path, set[str]], Counter[str], dict[str, str]]:
    """(record -> its labels, codes that say none -> records, records without diagnoses -> why) of a Challenge folder.

    Raises:
        RecordError: no record there, or none with diagnoses.
    """
    bases = folder_records(folder)
    codes, without = {}, {}
    for base in bases:
        line = _dx(base)
        try:
            if line is None:
                raise snomed.SnomedError("its header has no '#Dx:' line")
            codes[base] = snomed.parse_dx(line)
        except snomed.SnomedError as error:
            without[base.name] = str(error)
    if without:
        name, reason = next(iter(without.items()))
        told = f"{len(without)} of {len(bases)} records in {folder} have no diagnoses; the first, {name}: {reason}"
        if not codes:
            raise RecordError(
                f"{told}. They are not of the Challenge; give its folder, or a table of labels (--records, --labels)"
            )
        log.warning("%s. They are left out", told)
    found = {base: snomed.labels_of(said) for base, said in codes.items()}
    unmapped = Counter(code for _, rest in found.values() for code in rest)
    return {base: said for base, (said, _) in found.items()}, unmapped, without


def person_of(base: Path) -> tuple[float | None, bool | None]:
    """(age in years, sex_female) of a record's header, None where unknown."""
    return patient_of(comments_of(base), [])
