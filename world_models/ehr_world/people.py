"""The open sets of recorded stays, side by side, each divided once and for all.

A patient's place is a function of the source and the patient's number alone (in eICU: of the hospital's), so that
whoever divides finds the same parts, and a set that grows keeps them. MIMIC-III and MIMIC-IV may share patients: both
are test data whole, and a world that learned from either is judged on neither here.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from world_models import tree
from world_models.ehr_world.records import UNTOLD, StayRecords, read_records, take
from world_models.ehr_world.set_outcome.stay_tensors import Stays, trim
from world_models.ehr_world.vocabulary import SOURCE_PREFIX, StaticFeature, Vocabulary

__all__ = ["COHORTS", "PARTS", "Cohort", "cohorts_in", "divided", "read_cohort", "shards", "source_feature"]
__all__ += ["told_source", "undiagnosed", "with_sources"]

PARTS = ("learn", "valid", "test")


@dataclass(frozen=True)
class Cohort:
    """One open set: how it is read and divided."""

    name: str  # of its folder, and of its static feature
    files: Mapping[str, str]  # argument of `read_records` -> path below the folder of all sets
    learn: float = 0.7  # share of the patients
    valid: float = 0.1
    by_hospital: bool = False
    ends: bool = True  # the record tells how the stay ended
    often: float = (
        1.0  # how often its stays are met in training; below 1 for a set so small that it is learned by heart
    )
    attribution: str = ""


COHORTS = (
    Cohort(
        "challenge_2012",
        {"challenge2012": ""},
        ends=False,
        attribution="PhysioNet/CinC Challenge 2012, set A: Silva I, Moody G, Scott DJ, Celi LA, Mark RG (2012),\n"
        "Computing in Cardiology 39:245-248 (PMID 24678516), ODC-By 1.0",
    ),
    Cohort(
        "challenge_2019",
        {"challenge2019": "training_set_b.parquet"},
        ends=False,
        attribution="PhysioNet/CinC Challenge 2019, training set B: Reyna MA et al. (2020),\n"
        "doi 10.1097/CCM.0000000000004145, CC BY 4.0",
    ),
    Cohort(
        "eicu_demo",
        {"eicu": ""},
        learn=0.57,
        by_hospital=True,
        often=0.4,
        attribution="eICU Collaborative Research Database Demo 2.0: Pollard TJ et al. (2018),\n"
        "doi 10.1038/sdata.2018.178, ODbL 1.0; its hourly table: van de Water R et al. (2024), YAIB",
    ),
    Cohort("mimic_iii_demo", {"mimic3": ""}, learn=0.0, valid=0.0),
    Cohort("mimic_iv_demo", {"meds": "meds_events.parquet", "tables": ""}, learn=0.0, valid=0.0),
)


def cohorts_in(folder: Path) -> list[Cohort]:
    """Those whose folders are there. Raises FileNotFoundError: none is."""
    found = [c for c in COHORTS if (folder / c.name).is_dir()]
    if not found:
        raise FileNotFoundError(
            f"{folder} holds none of {', '.join(c.name for c in COHORTS)}; give the folder of the open sets"
        )
    return found


def read_cohort(
    cohort: Cohort, folder: Path, words: Vocabulary, work: Path | None = None, diagnoses: bool = False
) -> StayRecords:
    """All stays of one set, its source told in their static context where `words` has a feature for it. Discharge
    diagnoses tell the future: without `diagnoses` they are not told.

    Raises:
        ValueError (EhrDataError, UnitError): files that cannot be read.
    """
    paths: dict[str, Any] = {name: folder / cohort.name / below for name, below in cohort.files.items()}
    plain = dataclasses.replace(words, static=tuple(s for s in words.static if not s.name.startswith(SOURCE_PREFIX)))
    records, _ = read_records(plain, work, **paths)
    records = records if diagnoses else undiagnosed(records)
    return told_source(records, words, cohort.name)


def undiagnosed(records: StayRecords) -> StayRecords:
    """The records without their discharge diagnoses."""
    return records._replace(stays=records.stays._replace(diagnosis=torch.full_like(records.stays.diagnosis, torch.nan)))


def source_feature(name: str) -> str:
    """Name of the static feature that tells whether a stay is from this source."""
    return SOURCE_PREFIX + name


def with_sources(words: Vocabulary, names: Sequence[str]) -> Vocabulary:
    """The vocabulary with a yes-or-no feature for each source; NaN in a stay means untold."""
    own = tuple(s for s in words.static if not s.name.startswith(SOURCE_PREFIX))
    more = tuple(StaticFeature(source_feature(name), 0.5, 0.5, 0.0, 1.0) for name in names)
    return dataclasses.replace(words, static=own + more)


def told_source(records: StayRecords, words: Vocabulary, name: str | None) -> StayRecords:
    """The records on the vocabulary's static features: 1 for this source, 0 for others; NaN for all if it is unknown
    to the vocabulary, or not told (None)."""
    wanted = [s.name for s in words.static if s.name.startswith(SOURCE_PREFIX)]
    count = len(records.subject)
    known = name is not None and source_feature(name) in wanted
    columns = [
        torch.full((count, 1), float(w == source_feature(name or "")) if known else float("nan")) for w in wanted
    ]
    static = records.stays.static[:, : len(words.static) - len(wanted)]
    return records._replace(stays=records.stays._replace(static=torch.cat([static, *columns], 1)))


def divided(cohort: Cohort, records: StayRecords) -> dict[str, StayRecords]:
    """The three PARTS of a set, by patient or hospital. Who has stays in hospitals of two parts stays in the first of
    them alone: nobody to judge by was learned from."""
    whose = records.hospital if cohort.by_hospital else records.subject
    if cohort.by_hospital:  # a stay that names none is kept with its patient
        whose = torch.where(whose == UNTOLD, -1 - records.subject, whose)
    share = _place(cohort.name, whose)
    part = (share >= cohort.learn).long() + (share >= cohort.learn + cohort.valid).long()
    people, person = torch.unique(records.subject, return_inverse=True)
    first = torch.full_like(people, len(PARTS)).scatter_reduce(0, person, part, "amin")[person]
    return {name: take(records, ((part == i) & (first == i)).nonzero().squeeze(1)) for i, name in enumerate(PARTS)}


def _place(source: str, whose: Tensor) -> Tensor:
    """A number in [0, 1) for each of `whose` int64 [B], the same for the same source and number."""
    people, row = torch.unique(whose, return_inverse=True)
    sums = [hashlib.sha256(f"{source}/{person}".encode()).digest()[:6] for person in people.tolist()]
    found = torch.tensor([int.from_bytes(s, "big") / 2**48 for s in sums], dtype=torch.float64)
    return found[row]


def shards(stays: Stays, size: int) -> list[Stays]:
    """The stays in parts of about equally long ones, each no longer than its longest: they take a fraction of the
    memory."""
    order = stays.valid.sum(1).argsort(stable=True)
    return [trim(tree.take(stays, rows)) for rows in order.split(size)]
