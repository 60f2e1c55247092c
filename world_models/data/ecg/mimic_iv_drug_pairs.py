"""ECGs before and after a drug in MIMIC-IV: MIMIC-IV-ECG beside what the hospital's tables say was given.

    python -m world_models.data.ecg.mimic_iv_drug_pairs --ecg DIR --hosp DIR --out pairs.csv

For each patient, admission and drug (`mimic_iv_given.DRUGS`): the last ECG within --before hours of the first
administration and the first ECG within --after hours behind it, with the machine's intervals, the doses in between, the
other listed drugs given in between (--alone drops pairs that have any), and what was known before the dose: age, sex,
potassium, magnesium, creatinine, weight, creatinine clearance (Cockcroft-Gault 1976, doi 10.1159/000180580).

The tables are read once, in batches; what was found stays in PAIRS.csv.work until the pairs are written, so a run that
was stopped goes on with the table at which it was stopped. These pairs are observations of sick people: whoever was
given the drug needed it, so a difference is no effect.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from world_models.command_line import number
from world_models.data.ecg.mimic_iv_ecg_table import INTERVALS, read_ecg_table
from world_models.data.ecg.mimic_iv_given import DRUGS, Reading, drugs_given, labs
from world_models.data.ecg.wfdb.reader import RecordError, Recording, read_ecg
from world_models.data.ehr.cells import DATE_ORDERS
from world_models.data.ehr.tables import EhrDataError, TableSpec, shard_of_subject
from world_models.files import replacing

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Choice", "DrugPairs", "EcgPair", "drug_pairs", "iterate"]

FOLDS = 10  # by patient
LB_TO_KG = 0.45359237
WEIGHT_KG = (25.0, 350.0)
LABS_WITHIN_H, WEIGHT_WITHIN_H = 7 * 24.0, 365 * 24.0
_PATIENTS = {"subject_id": "id", "gender": "text", "anchor_age": "float", "anchor_year": "float"}
_OMR = {"subject_id": "id", "chartdate": "time", "result_name": "text", "result_value": "text"}


@dataclass(frozen=True)
class Choice:
    """Which pairs are made."""

    drugs: tuple[str, ...] = tuple(DRUGS)
    before_h: float = 24.0  # from the ECG before to the first administration, at most
    after_h: float = 24.0  # from there to the ECG after, at most
    least_after_h: float = 0.0  # and at least
    alone: bool = False  # no other listed drug between the two ECGs
    waveforms: bool = False  # both records are on disk

    def __post_init__(self) -> None:
        unknown = [name for name in self.drugs if name not in DRUGS]
        if unknown or not self.drugs:
            raise EhrDataError(f"drugs {', '.join(unknown) or 'none'}: there are {', '.join(DRUGS)}")
        if not (self.before_h > 0 and self.after_h > self.least_after_h >= 0):
            raise EhrDataError(
                f"before {self.before_h:g} h must be above 0, and after {self.after_h:g} h above the least of "
                f"{self.least_after_h:g} h"
            )


class DrugPairs(NamedTuple):
    """The pairs, and how many first administrations became none."""

    frame: pd.DataFrame  # see `drug_pairs`
    counts: Counter[str]


class EcgPair(NamedTuple):
    """One pair with its waveforms."""

    row: pd.Series
    before: Recording
    after: Recording


def drug_pairs(ecg: str | Path, reading: Reading, choice: Choice) -> DrugPairs:
    """One row a patient, admission and drug.

    Columns: subject_id, hadm_id, fold (0 to 9, of the patient), drug, given_by (administration, infusion,
    prescription), first_given, dose, unit, dose_mg, rate, rate_unit, route; doses and total_mg from the first until the
    ECG after; others (drugs given between the two ECGs), others_new (those of them not given before the first of the
    two); age_years, sex_female, potassium_mmol_l, magnesium_mmol_l, creatinine_mg_dl, weight_kg,
    creatinine_clearance_ml_min (NaN: unknown); and for before_ and after_: study_id, time, hours (from the first
    administration), path and the machine's intervals; change_<interval>.

    Raises:
        EhrDataError: tables that cannot be read, are of another layout, or have no such drug.
    """

    ecgs = read_ecg_table(ecg, reading.date_order)
    subjects = np.unique(ecgs["subject_id"].to_numpy(np.int64))
    mark = hashlib.sha256(subjects.tobytes()).hexdigest()[:16]
    given = drugs_given(reading, subjects.tolist(), choice.drugs, mark)
    if given.empty:
        raise EhrDataError(
            f"nobody with an ECG was given any of {', '.join(choice.drugs)} in {reading.folder}; are the two folders "
            "of the same patients?"
        )
    first = given.drop_duplicates(["subject_id", "stay_id", "drug"])  # sorted by start
    counts = Counter({"first administrations": len(first)})
    pairs = _with_ecgs(first, ecgs, choice, counts)
    if choice.waveforms:
        root = Path(ecg)
        there = [
            all((root / f"{p}.hea").is_file() for p in two)
            for two in zip(pairs["before_path"], pairs["after_path"], strict=True)
        ]
        counts["records not on disk"] = len(pairs) - sum(there)
        pairs = pairs[np.array(there, bool)]
    pairs = pairs.join(_in_between(pairs, given))
    if choice.alone:
        counts["another listed drug in between"] = int(pairs["others"].ne("").sum())
        pairs = pairs[pairs["others"].eq("")]
    pairs = _with_person(pairs, reading, subjects.tolist(), mark)
    for name in INTERVALS:
        pairs[f"change_{name}"] = pairs[f"after_{name}"] - pairs[f"before_{name}"]
    pairs = pairs.rename(columns={"stay_id": "hadm_id", "kind": "given_by", "start": "first_given"})
    pairs.insert(2, "fold", shard_of_subject(pairs["subject_id"].to_numpy(np.int64), FOLDS))
    counts["pairs"] = len(pairs)
    return DrugPairs(pairs.drop(columns="end").reset_index(drop=True), counts)


def _with_ecgs(first: pd.DataFrame, ecgs: pd.DataFrame, choice: Choice, counts: Counter[str]) -> pd.DataFrame:
    """The first administrations that have an ECG on either side, with both."""
    import pandas as pd

    named = {name: name for name in ecgs.columns if name != "subject_id"}
    ordered = ecgs.sort_values("time", kind="stable")
    least = pd.Timedelta(hours=choice.least_after_h)
    found = first.sort_values("start", kind="stable").assign(
        from_time=lambda f: (f["start"] + least).astype("datetime64[us]")
    )
    sides = (
        ("before_", "start", "backward", choice.before_h, True),
        ("after_", "from_time", "forward", choice.after_h - choice.least_after_h, choice.least_after_h > 0),
    )
    for side, key, direction, hours, same in sides:
        found = pd.merge_asof(
            found,
            ordered.rename(columns={name: side + name for name in named}),
            left_on=key,
            right_on=f"{side}time",
            by="subject_id",
            direction=direction,
            tolerance=pd.Timedelta(hours=hours),
            allow_exact_matches=same,
        )
        lacking = found[f"{side}study_id"].isna()
        counts[f"no ECG {side.rstrip('_')}"] = int(lacking.sum())
        found = found[~lacking].copy()
        found[f"{side}study_id"] = found[f"{side}study_id"].astype(np.int64)
        found[f"{side}hours"] = (found[f"{side}time"] - found["start"]).dt.total_seconds() / 3600.0
    return found.drop(columns="from_time").sort_values(
        ["subject_id", "start", "drug"], kind="stable", ignore_index=True
    )


def _in_between(pairs: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """doses, total_mg, others and others_new of each pair; an infusion counts from its start to its end."""
    import pandas as pd

    by_subject = dict(tuple(given.groupby("subject_id", sort=False)))
    rows = []
    for pair in pairs.itertuples():
        mine = by_subject[pair.subject_id]
        until = mine["end"].where(mine["kind"].eq("infusion") & mine["end"].notna(), mine["start"])
        inside = (mine["start"] <= pair.after_time) & (until > pair.before_time)
        own = mine[mine["drug"].eq(pair.drug) & (mine["start"] >= pair.start) & (mine["start"] <= pair.after_time)]
        others = set(mine.loc[inside, "drug"]) - {pair.drug}
        before = set(mine.loc[mine["start"] <= pair.before_time, "drug"])
        rows.append(
            (len(own), own["dose_mg"].sum(min_count=1), "+".join(sorted(others)), "+".join(sorted(others - before)))
        )
    return pd.DataFrame(rows, columns=["doses", "total_mg", "others", "others_new"], index=pairs.index)


def _with_person(pairs: pd.DataFrame, reading: Reading, subjects: Sequence[int], mark: str) -> pd.DataFrame:
    """What was known of the patient before the first administration."""
    import pandas as pd
    import pyarrow as pa
    import pyarrow.compute as pc

    def ours(batch: pa.RecordBatch) -> pa.Array:
        column = batch.column(batch.schema.get_field_index("subject_id"))
        return pc.is_in(column, value_set=pa.array(sorted(subjects), pa.int64()))

    people = reading.table(TableSpec("patients", _PATIENTS), ours, mark).drop_duplicates("subject_id")
    pairs = pairs.merge(people, on="subject_id", how="left", validate="many_to_one")
    sex = pairs.pop("gender").astype(object).fillna("").str.upper().str[:1]
    pairs["age_years"] = pairs.pop("anchor_age") + pairs["start"].dt.year - pairs.pop("anchor_year")
    pairs["sex_female"] = np.where(sex == "F", 1.0, np.where(sex == "M", 0.0, np.nan))
    for name, table in labs(reading, subjects, mark).items():
        pairs = _latest(pairs, table, name, LABS_WITHIN_H)
    omr = reading.table(TableSpec("omr", _OMR), ours, mark)
    heavy = omr["result_name"].astype(object).fillna("").str.lower()
    scale = heavy.map({"weight (lbs)": LB_TO_KG, "weight (kg)": 1.0})
    weight = pd.to_numeric(omr["result_value"], errors="coerce").astype(np.float64) * scale.astype(np.float64)
    # chartdate is a day: what was weighed that day counts from its beginning
    table = omr.assign(time=omr["chartdate"], value=weight)[weight.between(*WEIGHT_KG) & omr["chartdate"].notna()]
    pairs = _latest(
        pairs, table[["subject_id", "time", "value"]].sort_values("time", kind="stable"), "weight_kg", WEIGHT_WITHIN_H
    )
    women = np.where(pairs["sex_female"] == 1.0, 0.85, 1.0)
    clearance = (140.0 - pairs["age_years"]) * pairs["weight_kg"] / (72.0 * pairs["creatinine_mg_dl"]) * women
    known = pairs["sex_female"].notna() & (clearance > 0)
    pairs["creatinine_clearance_ml_min"] = clearance.where(known)
    return pairs


def _latest(pairs: pd.DataFrame, table: pd.DataFrame, name: str, within_h: float) -> pd.DataFrame:
    """The last value of a patient before the first administration, within so many hours."""
    import pandas as pd

    return (
        pd.merge_asof(
            pairs.sort_values("start", kind="stable"),
            table.rename(columns={"value": name}).astype({"time": pairs["start"].dtype}),
            left_on="start",
            right_on="time",
            by="subject_id",
            tolerance=pd.Timedelta(hours=within_h),
        )
        .drop(columns="time")
        .sort_values(["subject_id", "start", "drug"], kind="stable", ignore_index=True)
    )


def iterate(pairs: pd.DataFrame, ecg: str | Path, sampling_rate_hz: float = 500.0) -> Iterator[EcgPair]:
    """The pairs (any selection of rows of `drug_pairs`, or of the CSV) with their waveforms, [12, 10 s] mV each.

    Raises:
        RecordError: a path that leads out of the folder, or a record that cannot be read.
    """
    root = Path(ecg).resolve()
    for _, row in pairs.iterrows():
        two = []
        for side in ("before", "after"):
            path = root / str(row[f"{side}_path"])
            if not path.resolve().is_relative_to(root):
                raise RecordError(f"the path {row[f'{side}_path']!r} leads out of {root}; correct record_list.csv")
            two.append(read_ecg(path, sampling_rate_hz))
        yield EcgPair(row, *two)


def _summary(found: DrugPairs) -> Iterator[str]:
    for what, count in found.counts.items():
        yield f"{count:9,d}  {what}"
    yield "drug: pairs, patients, median hours before and after, median change of QTcF (pairs with both)"
    for drug, rows in found.frame.groupby("drug"):
        change = rows["change_qtcf_ms"].dropna()
        told = f"{change.median():+.0f} ms ({len(change)})" if len(change) else "not measured"
        yield (
            f"  {drug}: {len(rows)}, {rows['subject_id'].nunique()}, {rows['before_hours'].median():.1f}, "
            f"{rows['after_hours'].median():.1f}, {told}"
        )


def _check_out(out: Path) -> None:
    if out.suffix != ".csv":
        raise EhrDataError(f"{out}: the pairs are a CSV; give a name that ends in .csv")
    if out.exists():
        raise EhrDataError(f"{out} exists already; give another --out or remove it")
    if not out.parent.is_dir():
        raise EhrDataError(f"no folder {out.parent}; make it first")


def _run(options: argparse.Namespace) -> None:
    from tqdm import tqdm

    out = Path(options.out)
    _check_out(out)
    for folder in (options.ecg, options.hosp):
        if not Path(folder).is_dir():
            raise EhrDataError(f"no folder {folder}; give that of MIMIC-IV-ECG as --ecg and of MIMIC-IV as --hosp")
    choice = Choice(
        tuple(options.drugs.split(",")) if options.drugs else tuple(DRUGS),
        options.before,
        options.after,
        options.least_after,
        options.alone,
        options.waveforms,
    )
    work = out.with_name(out.name + ".work")
    fresh = not work.exists()
    work.mkdir(exist_ok=True)
    try:
        with tqdm(unit=" rows", disable=options.quiet, mininterval=1) as bar:

            def progress(name: str, rows: int) -> None:
                bar.set_description(name, refresh=False)
                bar.update(rows)

            found = drug_pairs(options.ecg, Reading(Path(options.hosp), work, options.date_order, progress), choice)
    except Exception:
        if fresh and not any(work.glob("*.json")):  # nothing to go on from
            shutil.rmtree(work)
        raise
    with replacing(out) as part:
        found.frame.to_csv(part, index=False)
    shutil.rmtree(work)
    print("\n".join(_summary(found)))
    print(f"pairs: {out}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m world_models.data.ecg.mimic_iv_drug_pairs",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--ecg", required=True, help="folder of MIMIC-IV-ECG")
    parser.add_argument("--hosp", required=True, help="folder of MIMIC-IV: hosp/ and icu/, or the tables themselves")
    parser.add_argument("--out", required=True, help="the CSV of pairs to write")
    parser.add_argument("--drugs", help=f"some of {','.join(DRUGS)} (all)")
    parser.add_argument("--before", type=number(0, 8760, above=True), default=24.0, help="hours (24)")
    parser.add_argument("--after", type=number(0, 8760, above=True), default=24.0, help="hours (24)")
    parser.add_argument("--least-after", type=number(0, 8760), default=0.0, help="hours (0)")
    parser.add_argument("--alone", action="store_true", help="no other listed drug between the two ECGs")
    parser.add_argument("--waveforms", action="store_true", help="only pairs whose two records are on disk")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="of dates like 02/03/2150")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    options = parser.parse_args(arguments)
    try:
        _run(options)
    except ImportError as error:
        print(f"error: hospital tables need clinenv[ehr] ({error}); install it", file=sys.stderr)
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
