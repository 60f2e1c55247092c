"""MIMIC-IV-ECG's list of records and its machine measurements, one row an ECG.

`record_list.csv` (subject_id, study_id, file_name, ecg_time, path) and `machine_measurements.csv` (subject_id,
study_id, cart_id, ecg_time, report_0 to report_17, bandwidth, filtering, rr_interval, p_onset, p_end, qrs_onset,
qrs_end, t_end, p_axis, qrs_axis, t_axis; ms, 29999 where the machine measured nothing (k)). Gow 2023, doi
10.13026/4nqg-sb35. Times are on MIMIC-IV's shifted clock, a patient's all by the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.tables import EhrDataError, TableSpec, empty_frame, find_table, frame_of, scan
from world_models.ecg.intervals import QT_EXPONENT

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["INTERVALS", "read_ecg_table"]

INTERVALS = ("rr_ms", "pr_ms", "qrs_ms", "qt_ms", "qtcf_ms")
_RECORDS = TableSpec(
    "record_list", {"subject_id": "id", "study_id": "id", "ecg_time": "time", "path": "text"}, frozenset()
)
_MEASURED = TableSpec(
    "machine_measurements",
    {
        "study_id": "id",
        **{name: "float" for name in ("rr_interval", "p_onset", "p_end", "qrs_onset", "qrs_end", "t_end")},
    },
)
# Outside of them a measurement is a failure of the machine's (29999 among them); ms
_PLAUSIBLE = {"rr_ms": (240, 3000), "pr_ms": (60, 600), "qrs_ms": (40, 250), "qt_ms": (150, 1000)}


def _whole(folder: Path, spec: TableSpec, date_order: str | None) -> pd.DataFrame:
    import pyarrow as pa

    path = find_table(folder, spec.name)
    if path is None:
        raise EhrDataError(f"no {spec.name}.csv in {folder}; give MIMIC-IV-ECG's folder")
    batches = list(scan(path, spec, date_order=date_order))
    return frame_of(pa.Table.from_batches(batches)) if batches else empty_frame(spec)


def read_ecg_table(folder: str | Path, date_order: str | None = None) -> pd.DataFrame:
    """Every ECG with a patient, a number, a time and a path: subject_id, study_id, time, path (below `folder`, without
    extension) and the machine's `INTERVALS` (NaN where it has none), sorted by subject and time.

    Raises:
        EhrDataError: no such tables, a column missing, a study twice, or no row that can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise EhrDataError(f"no folder {folder}; give the one that holds MIMIC-IV-ECG's record_list.csv")
    records = _whole(folder, _RECORDS, date_order)
    told = records["subject_id"].ne(NO_ID) & records["study_id"].ne(NO_ID) & records["ecg_time"].notna()
    records = records[told & records["path"].notna()]
    if records.empty:
        raise EhrDataError(
            f"no row of {folder}/record_list.csv has a subject, a study, a time and a path; fetch it again"
        )
    twice = records["study_id"][records["study_id"].duplicated()]
    if len(twice):
        raise EhrDataError(f"study_id {twice.iloc[0]} stands in record_list.csv more than once; fetch it again")
    measured = _whole(folder, _MEASURED, date_order).drop_duplicates("study_id").set_index("study_id")
    measured = measured.mask((measured < 0) | (measured >= 29_999))
    made = measured.assign(
        rr_ms=measured["rr_interval"],
        pr_ms=measured["qrs_onset"] - measured["p_onset"],
        qrs_ms=measured["qrs_end"] - measured["qrs_onset"],
        qt_ms=measured["t_end"] - measured["qrs_onset"],
    )
    for name, (low, high) in _PLAUSIBLE.items():
        made[name] = made[name].where(made[name].between(low, high))
    made["qtcf_ms"] = made["qt_ms"] / (made["rr_ms"] / 1000.0) ** QT_EXPONENT
    joined = records.rename(columns={"ecg_time": "time"}).join(made[list(INTERVALS)], on="study_id")
    columns = ["subject_id", "study_id", "time", "path", *INTERVALS]
    return joined[columns].sort_values(["subject_id", "time", "study_id"], kind="stable", ignore_index=True)
