"""Who was given which of a few drugs in MIMIC-IV, from its large tables read once, in batches, and kept as small ones.

`emar` with `emar_detail` (what nurses gave), `inputevents` (what ran in intensive care) and `prescriptions` (orders,
whose start is when the order begins, not a dose). Tables that the copy lacks are left out: the demo of MIMIC-IV has
orders alone. What was found of a table stays in a work folder with a note of its source, so that a run that was stopped
does not read it again.

Johnson 2023, doi 10.1038/s41597-022-01899-x. The traps of these tables are those of `ehr.sources.mimic_iv`, whose rules
for doses, products, flushes and rewritten infusions are used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from world_models.data.ehr.flow import Flow
from world_models.data.ehr.tables import EhrDataError, TableSpec, empty_frame, find_table, frame_of, scan
from world_models.files import replacing, write_text

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = ["DRUGS", "Reading", "WantedDrug", "drug_of", "drugs_given", "labs"]

Mask: TypeAlias = "Callable[[pa.RecordBatch], pa.Array]"


@dataclass(frozen=True, slots=True)
class WantedDrug:
    """How a drug is named in orders and administrations, and its items of inputevents."""

    pattern: str  # in a lower-case name; of RE2's and Python's common syntax
    itemids: tuple[int, ...] = ()
    unless: str = ""  # in a lower-case name: not this drug as a treatment


# The five of the paper's clinical cohort, the four of the FDA's trial, and others that move QT or PR.
DRUGS: dict[str, WantedDrug] = {
    "propofol": WantedDrug(r"\b(propofol|diprivan)", (222168,)),
    "insulin_regular": WantedDrug(r"insulin\b.*\bregular|regular insulin|\b(humulin|novolin) r\b", (223258,)),
    "heparin": WantedDrug(r"\bheparin\b", (225152, 225975), r"flush|dwell|lock|dialys|crrt"),
    "furosemide": WantedDrug(r"\b(furosemide|lasix)", (221794, 228340)),
    "norepinephrine": WantedDrug(r"\b(norepinephrine|levophed)", (221906,)),
    "verapamil": WantedDrug(r"\bverapamil"),
    "dofetilide": WantedDrug(r"\b(dofetilide|tikosyn)"),
    "quinidine": WantedDrug(r"\bquinidine"),
    "ranolazine": WantedDrug(r"\b(ranolazine|ranexa)"),
    "amiodarone": WantedDrug(r"\bamiodarone", (221347, 228339)),
    "diltiazem": WantedDrug(r"\bdiltiazem", (221468,)),
    "sotalol": WantedDrug(r"\bsotalol"),
    "mexiletine": WantedDrug(r"\bmexiletine"),
    "moxifloxacin": WantedDrug(r"\bmoxifloxacin", unless=r"ophth|eye|drop"),
}
LABS = {"potassium_mmol_l": (50971, 50822), "magnesium_mmol_l": (50960,), "creatinine_mg_dl": (50912,)}
MG_DL_TO_MMOL_L = 0.4114  # magnesium, 24.305 g/mol
_UNITS = {
    "potassium_mmol_l": {"meq/l": 1.0, "mmol/l": 1.0},
    "magnesium_mmol_l": {"mg/dl": MG_DL_TO_MMOL_L, "meq/l": 0.5, "mmol/l": 1.0},
    "creatinine_mg_dl": {"mg/dl": 1.0, "umol/l": 1 / 88.42},
}
_PLAUSIBLE = {"potassium_mmol_l": (1.0, 12.0), "magnesium_mmol_l": (0.1, 6.2), "creatinine_mg_dl": (0.05, 40.0)}


@dataclass(frozen=True)
class Reading:
    """How the tables are read."""

    folder: Path  # of MIMIC-IV: hosp/ and icu/, or the tables themselves
    work: Path  # where what was found is kept
    date_order: str | None = None  # see `ehr.cells`
    progress: Callable[[str, int], None] = lambda name, rows: None  # rows read since the last call

    def table(self, spec: TableSpec, keep: Mask, mark: str) -> pd.DataFrame:
        """The rows of a table that `keep` chooses; read again only where the source or `mark` changed.

        Raises:
            EhrDataError: the table cannot be read.
        """
        import pyarrow.parquet as pq

        source = find_table(self.folder, spec.name)
        if source is None:
            return empty_frame(spec)
        stat = source.stat()
        note = json.dumps({"source": str(source), "bytes": stat.st_size, "time": stat.st_mtime_ns, "mark": mark})
        kept, done = self.work / f"{spec.name}.parquet", self.work / f"{spec.name}.json"
        if kept.is_file() and done.is_file() and done.read_text(encoding="utf-8") == note:
            return frame_of(pq.read_table(kept))
        done.unlink(missing_ok=True)
        rows = 0
        with replacing(kept) as part:
            writer = None
            try:
                for batch in scan(source, spec, date_order=self.date_order):
                    writer = writer or pq.ParquetWriter(part, batch.schema)
                    chosen = batch.filter(keep(batch))
                    rows += chosen.num_rows
                    writer.write_batch(chosen)
                    self.progress(spec.name, batch.num_rows)
            finally:
                if writer is not None:
                    writer.close()
            if writer is None:
                raise EhrDataError(f"{source} has no rows; give the table as published, or take it away")
        write_text(done, note)
        return frame_of(pq.read_table(kept))


def drug_of(name: str) -> str | None:
    """The drug of `DRUGS` that a name of an order or administration says; None for others, and for line flushes."""
    lower = name.lower()
    for drug, wanted in DRUGS.items():
        if re.search(wanted.pattern, lower) and not (wanted.unless and re.search(wanted.unless, lower)):
            return drug
    return None


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    return batch.column(batch.schema.get_field_index(name))


def _of(subjects: Sequence[int], names: Collection[str], column: str) -> Mask:
    """Rows of these subjects whose name is one of these drugs'."""
    import pyarrow as pa
    import pyarrow.compute as pc

    people = pa.array(sorted(subjects), pa.int64())
    pattern = "|".join(DRUGS[name].pattern for name in sorted(names))

    def keep(batch: pa.RecordBatch) -> pa.Array:
        named = pc.match_substring_regex(_column(batch, column), pattern, ignore_case=True)
        return pc.fill_null(pc.and_(pc.is_in(_column(batch, "subject_id"), value_set=people), named), False)

    return keep


def _among(values: Collection[object], kind: pa.DataType, column: str) -> Mask:
    """Rows whose cell is one of these."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(sorted(values), kind)  # type: ignore[type-var]
    return lambda batch: pc.is_in(_column(batch, column), value_set=wanted)


def drugs_given(reading: Reading, subjects: Sequence[int], names: Collection[str], mark: str) -> pd.DataFrame:
    """Administrations, infusions and orders of these drugs to these subjects, sorted by subject and start.

    Columns: subject_id, stay_id (hadm_id; `NO_ID` where none is told), drug, kind (administration, infusion,
    prescription), start, end (NaT: not told), dose, unit, dose_mg (NaN where the unit is no mass), rate, rate_unit,
    route. Where a stay has administrations or infusions of a drug its orders are left out: they say that it was meant
    to be given.

    Args:
        mark: what else the choice of rows depends on (the subjects): part of the note beside what is kept.

    Raises:
        EhrDataError: a table cannot be read, or the folder has none of them.
    """
    import pandas as pd
    import pyarrow as pa

    from world_models.data.ehr.sources.mimic_frames import drug_orders, infusions, main_prescriptions
    from world_models.data.ehr.sources.mimic_iv import TABLES, administered

    tables = ("emar", "inputevents", "prescriptions")
    if not any(find_table(reading.folder, name) for name in tables):
        raise EhrDataError(
            f"{reading.folder} has none of {', '.join(tables)}; give MIMIC-IV's folder with hosp/ and icu/"
        )
    flow = Flow()
    mark = f"{mark} {' '.join(sorted(names))}"
    emar = reading.table(TABLES["emar"], _of(subjects, names, "medication"), mark)
    ids = set(emar["emar_id"].dropna())
    detail = reading.table(TABLES["emar_detail"], _among(ids, pa.string(), "emar_id"), f"{mark} {len(ids)}")
    orders = reading.table(TABLES["prescriptions"], _of(subjects, names, "drug"), mark)
    items = {item: name for name in names for item in DRUGS[name].itemids}
    inputs = reading.table(TABLES["inputevents"], _among(set(items), pa.int64(), "itemid"), mark)
    inputs = inputs[inputs["subject_id"].isin(subjects)]
    main = main_prescriptions(orders, flow)
    frames = [administered(emar, detail, orders, flow), infusions(inputs, flow, "inputevents")]
    frames.append(drug_orders(main.assign(name=main["drug"]), flow, "prescriptions"))
    found = pd.concat([frame for frame in frames if len(frame)] or frames[:1], ignore_index=True)
    said = found["source"].astype(str).str.split("//", n=1).str[1]
    by_name = {name: drug_of(name) for name in said[found["kind"] != "infusion"].unique()}
    by_name |= {str(item): name for item, name in items.items()}
    found["drug"] = said.map(by_name)
    found = found[found["drug"].isin(names) & found["start"].notna()]
    key = ["subject_id", "stay_id", "drug"]
    really = found["kind"].ne("prescription").groupby([found[name] for name in key]).transform("any")
    found = found[~(really & found["kind"].eq("prescription"))].copy()
    scale = (
        found["unit"]
        .astype(object)
        .fillna("")
        .str.lower()
        .map({"mg": 1.0, "mcg": 1e-3, "ug": 1e-3, "g": 1e3, "gm": 1e3})
    )
    found["dose_mg"] = found["dose"] * scale
    # one unit of time whatever pandas made of the frames together: merges ask for it
    found = found.astype({"start": "datetime64[us]", "end": "datetime64[us]"})
    columns = [*key, "kind", "start", "end", "dose", "unit", "dose_mg", "rate", "rate_unit", "route"]
    return found[columns].sort_values(["subject_id", "start"], kind="stable", ignore_index=True)


def labs(reading: Reading, subjects: Sequence[int], mark: str) -> dict[str, pd.DataFrame]:
    """Potassium, magnesium (mmol/L) and creatinine (mg/dL) of these subjects: frames of subject_id, time (drawn) and
    value, by name of `LABS`, sorted by time. Values in other units, or that no patient has, are left out."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from world_models.data.ehr.sources.mimic_iv import TABLES

    spec = TABLES["labevents"]
    people = pa.array(sorted(subjects), pa.int64())
    items = pa.array(sorted(i for ids in LABS.values() for i in ids), pa.int64())

    def keep(batch: pa.RecordBatch) -> pa.Array:
        wanted = pc.is_in(_column(batch, "itemid"), value_set=items)
        return pc.and_(wanted, pc.is_in(_column(batch, "subject_id"), value_set=people))

    table = reading.table(spec, keep, mark)
    found = {}
    for name, ids in LABS.items():
        rows = table[table["itemid"].isin(ids) & table["charttime"].notna()]
        value = rows["valuenum"] * rows["valueuom"].astype(object).fillna("").str.lower().map(_UNITS[name])
        low, high = _PLAUSIBLE[name]
        rows = rows.assign(value=value.astype(np.float64), time=rows["charttime"])[value.between(low, high)]
        found[name] = rows[["subject_id", "time", "value"]].sort_values("time", kind="stable", ignore_index=True)
    return found
