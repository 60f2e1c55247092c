"""What a record's own codes say in the ward's terms: ICD-9-CM and ICD-10 (CM and the WHO's), by a committed table.

`icd_terms.csv` has a row a prefix of codes, with the terms it means, the ICD's chapter and the words. Of several
prefixes of a code the longest counts. A heart failure of unspecified acuity is a chronic condition, and what the
patient came for as well where it is the primary diagnosis (`when`: primary).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from world_models.data.ehr.context.schema import TERMS
from world_models.data.ehr.episode import Diagnosis

__all__ = ["is_coded", "terms_of_code", "terms_of_codes"]

TABLE = Path(__file__).with_name("icd_terms.csv")
FEWEST_CODES = 2  # of a list without ranks that is a coding of the stay


@cache
def _table() -> dict[tuple[str, str, str], tuple[str, ...]]:
    """(version, when, prefix) -> terms."""
    with TABLE.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    made = {(row["version"], row["when"], row["prefix"]): tuple(row["terms"].split()) for row in rows}
    unknown = {term for terms in made.values() for term in terms} - set(TERMS)
    if unknown or len(made) < len(rows):
        raise ValueError(f"{TABLE.name} has a prefix twice, or unknown terms {sorted(unknown)}; correct the table")
    return made


def terms_of_code(version: str, code: str, primary: bool = False) -> tuple[str, ...]:
    """The terms (of `schema.TERMS`) of one code, dots or no dots; none for what the ward does not know."""
    plain = "".join(code.split()).replace(".", "").upper()
    table = _table()
    for length in range(len(plain), 2, -1):
        if primary and (version, "primary", plain[:length]) in table:
            return table[version, "primary", plain[:length]]
        if (version, "any", plain[:length]) in table:
            return table[version, "any", plain[:length]]
    return ()


def terms_of_codes(diagnoses: Sequence[Diagnosis]) -> set[str]:
    """The terms of a stay's codes together."""
    return {term for d in diagnoses for term in terms_of_code(d.version, d.code, d.sequence == 1)}


def is_coded(diagnoses: Sequence[Diagnosis]) -> bool:
    """Whether these are the coding of a stay, so that what is not among them was not there. A single code without a
    rank is none: it may be the label of a study (Challenge 2019 tells of sepsis and nothing else)."""
    return len(diagnoses) >= FEWEST_CODES or any(d.sequence is not None for d in diagnoses)
