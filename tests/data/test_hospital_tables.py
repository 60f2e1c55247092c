"""Tables as hospitals write them: dates, decimals, doses, ids, names of folders, and tables of which no row is left."""

from __future__ import annotations

import time
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import small_hospital as hospital
from world_models.data.ehr.canonical_events import canonical_interventions, number
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.flow import Flow, Ledger
from world_models.data.ehr.tables import EhrDataError, TableSpec, deal, read_shard_table, scan


def cells(folder, kind: str, *texts, **options) -> tuple[list, Ledger]:
    """What `scan` makes of a column of these texts."""
    path, ledger = folder / "t.csv", Ledger()
    pd.DataFrame({"subject_id": 1, "c": texts}).to_csv(path, index=False)
    spec = TableSpec("t", {"subject_id": "id", "c": kind})
    batches = list(scan(path, spec, ledger=ledger, **options))
    return [x for batch in batches for x in batch.column("c").to_pylist()], ledger


def stays_of(episodes) -> list[tuple]:
    return [(e.stay_id, e.admitted, e.length_of_stay_hours) for e in episodes]


AS_THEY_WERE = [(20000000 + n, hospital.begun(n), 24.0 * hospital.DAYS) for n in range(1, 5)]


@pytest.mark.parametrize(
    "written",
    ["%Y-%m-%dT%H:%M:%S", "%Y/%m/%d %H:%M", "%d.%m.%Y %H:%M", "%d-%b-%Y %H:%M:%S", "%Y-%m-%d %I:%M:%S %p"],
)
def test_times_that_say_themselves_what_they_are(tmp_path, written):
    made, flow = hospital.read(hospital.tables(written), tmp_path)
    assert stays_of(made) == AS_THEY_WERE and flow.stages[-1].inquiries == 24
    doses = [i for e in made for i in e.interventions() if i.kind == "administration"]
    assert [(i.start, i.dose) for i in doses[:3]] == [
        (hospital.begun(1) + timedelta(hours=6 + 8 * k), 40.0) for k in range(3)
    ]


@pytest.mark.parametrize("written", ["%d/%m/%Y %H:%M", "%m/%d/%Y %I:%M:%S %p"])
def test_dates_that_may_be_two_are_asked_for(tmp_path, written):
    folder = hospital.write(hospital.tables(written), tmp_path / "t")
    with pytest.raises(
        EhrDataError, match=r"admissions.csv: '.*2150.*' may have the day or the month first.*--date-order"
    ):
        hospital.read(hospital.tables(written), folder)
    asked = "month_first" if written.startswith("%m") else "day_first"
    made, _ = hospital.read(hospital.tables(written), folder, date_order=asked)
    assert stays_of(made) == AS_THEY_WERE
    with pytest.raises(EhrDataError, match="date_order='sideways' is none of day_first, month_first"):
        hospital.read(hospital.tables(written), folder, date_order="sideways")


def test_the_whole_table_tells_the_order_of_its_dates(tmp_path):
    day, _ = cells(tmp_path, "time", "02/03/2150 8:00", "13/03/2150")
    month, _ = cells(tmp_path, "time", "02/03/2150 8:00", "03/13/2150")
    assert [(t.month, t.day) for t in day + month] == [(3, 2), (3, 13), (2, 3), (3, 13)]
    late = ["2150-01-01 08:00:00"] * 70_000 + ["02/03/2150 8:00", "13/03/2150"]  # a batch is 65,536 rows
    read, _ = cells(tmp_path, "time", *late)
    assert len(read) == len(late) and (read[-2].month, read[-1].day) == (3, 13)
    with pytest.raises(EhrDataError, match="'13/03/2150' has its day first and '03/13/2150' its month"):
        cells(tmp_path, "time", "13/03/2150", "03/13/2150")
    with pytest.raises(EhrDataError, match="'13/03/2150' is no date with date_order=month_first"):
        cells(tmp_path, "time", "13/03/2150", date_order="month_first")


def test_times_that_cannot_be_read_are_counted_and_a_column_of_them_refused(tmp_path):
    read, ledger = cells(tmp_path, "time", "2150-03-02", "soon", "infinity", "0150-01-01", "2150-02-30", None)
    assert read[1:] == [None] * 5 and ledger.repaired == {"c cannot be read: left out": 4}
    for epoch in ("5685484800", "5685484800000000"):
        with pytest.raises(EhrDataError, match=f"none of the 1 times in c can be read, such as '{epoch}'.*since 1970"):
            cells(tmp_path, "time", epoch)


def test_times_with_a_zone_are_read_alike_on_every_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "America/New_York")
    moment = pa.array([hospital.begun(1)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"subject_id": [1], "c": moment}), tmp_path / "t.parquet")
    (batch,) = scan(tmp_path / "t.parquet", TableSpec("t", {"subject_id": "id", "c": "time"}))
    assert batch.column("c").to_pylist() == [hospital.begun(1)]


def test_stays_of_an_unlikely_length_are_counted(tmp_path):
    made = hospital.tables()
    for i, days in enumerate((90, 5_000)):
        made["admissions"].loc[i, "dischtime"] = f"{hospital.begun(1 + i) + timedelta(days=days):{hospital.WRITTEN}}"
    episodes, flow = hospital.read(made, tmp_path)
    assert [e.length_of_stay_hours for e in episodes] == [24 * 90, 72, 72]
    assert flow.table("stays").repaired == {"longer than 60 days: kept, check the dates": 1}
    assert flow.table("stays").dropped == {"longer than 1000 days: check the dates": 1}


def test_decimal_commas(tmp_path):
    assert number(pd.Series(["2,5", "1,000", "1,250,000.5", "0,125", ",5", "1,5-2"])).tolist()[:5] == [
        2.5,
        1000.0,
        1250000.5,
        0.125,
        0.5,
    ]
    assert cells(tmp_path, "float", "1,000", "4.1")[0] == [1000.0, 4.1]
    # beside a decimal comma "1,250" and "1.250" may be either
    read, ledger = cells(tmp_path, "float", "1,250", "1.250", "2,5", "1.234,5", "1,234.5", "7.5", "0,125")
    assert read == [None, None, 2.5, 1234.5, 1234.5, 7.5, 0.125] and ledger.repaired == {
        "c cannot be read: left out": 2
    }
    amounts = cells(tmp_path, "amount", "1,250", "2,5", "25,000.0", "1-2")[0]
    assert number(pd.Series(amounts)).isna().tolist() == [True, False, False, True] and amounts[1:3] == [
        "2.5",
        "25000.0",
    ]
    read, ledger = cells(tmp_path, "float", "1e400", "nan", "inf", "many", "3")
    assert read == [None] * 4 + [3.0] and ledger.repaired == {"c cannot be read: left out": 3}


def doses_of(folder, given: str, ordered: str = "40") -> tuple[list, Flow]:
    made = hospital.tables()
    made["emar_detail"]["dose_given"] = given
    made["prescriptions"]["dose_val_rx"] = ordered
    episodes, flow = hospital.read(made, folder)
    done = [i for e in episodes for i in e.interventions()]
    return sorted({(i.kind, i.dose, i.unit) for i in done}, key=str), flow


def test_every_dose_that_is_left_out_is_counted(tmp_path):
    prescribed = ("prescription", 40.0, "mg")
    assert doses_of(tmp_path / "a", "2,5")[0] == [("administration", 2.5, "mg"), prescribed]
    done, flow = doses_of(tmp_path / "b", "4000000")
    assert done == [("administration", None, ""), prescribed]
    assert flow.table("emar").repaired == {"dose above the limit blanked": 12}
    done, flow = doses_of(tmp_path / "c", "1-2", "325-650")
    assert done == [("administration", None, ""), ("prescription", None, "")]
    reason = "that is no single number (a range, words): left out"
    assert flow.table("emar_detail").repaired == {f"dose given {reason}": 12}
    assert flow.table("prescriptions").repaired == {f"dose ordered {reason}": 4}


def test_a_dose_with_one_product_unread_is_not_the_sum_of_the_others(tmp_path):
    made = hospital.tables()
    second = made["emar_detail"].assign(parent_field_ordinal="1.2", dose_given="1-2")
    made["emar_detail"] = pd.concat([made["emar_detail"], second])
    episodes, _ = hospital.read(made, tmp_path)
    assert {i.dose for e in episodes for i in e.interventions() if i.kind == "administration"} == {None}


@pytest.mark.parametrize(
    ("item", "unit", "kept", "dropped"),
    [
        ("furosemide", "mg", 4000, 4001),
        ("furosemide", "g", 4, 4.1),
        ("digoxin", "mg", 5, 6),
        ("saline", "L", 20, 21),
        ("some drug", "mg", 1e6, 1.1e6),
        ("some drug", "tab", 1e4, 2e4),
        ("some drug", "[U]", 1e8, np.inf),
    ],
)
def test_doses_have_limits(item, unit, kept, dropped):
    raw = pd.DataFrame(
        {
            "subject_id": 1,
            "stay_id": 11,
            "kind": "administration",
            "item": item,
            "start": pd.Timestamp("2150-01-01"),
            "end": pd.NaT,
            "dose": [kept, dropped],
            "unit": unit,
            "rate": np.nan,
            "rate_unit": "",
            "route": "",
            "source": "x",
        }
    )
    flow = Flow()
    got = canonical_interventions(raw, flow, "t")["dose"]
    assert got.notna().tolist() == [True, False] and flow.table("t").repaired == {"dose above the limit blanked": 1}


@pytest.mark.parametrize("piece", ["1", ",", '"'])
def test_a_line_without_end_is_refused_at_once(tmp_path, piece):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + piece * 12_000_000 + "\n")
    began = time.process_time()
    with pytest.raises(EhrDataError, match="cannot be read as a table"):
        list(scan(path, TableSpec("x", {"a": "text", "b": "text"})))
    assert time.process_time() - began < 4.0


def test_ids_stay_whole(tmp_path):
    large = [2**53 + 1, 2**53 + 3, 2**62 + 1, 2**62 + 3]
    made = hospital.tables()
    for name, table in made.items():
        made[name] = table.assign(subject_id=[large[n - 1] for n in table["subject_id"]])
        if "hadm_id" in table:
            made[name] = made[name].assign(hadm_id=[large[n - 20000001] + 4 for n in table["hadm_id"]])
    made["labevents"]["hadm_id"] = made["labevents"]["hadm_id"].astype(object)
    made["labevents"].loc[0, "hadm_id"] = None  # a float64 beside it would take the last digit of all
    episodes, flow = hospital.read(made, tmp_path)
    assert [(e.subject_id, e.stay_id) for e in episodes] == [(n, n + 4) for n in large]
    assert flow.stages[-1].inquiries == 24
    read, _ = cells(tmp_path, "id", "25742920.0", " 7 ", "12.7", "abc", "9007199254740993.0", "9223372036854775808")
    assert read == [25742920, 7, None, None, 2**53 + 1, None]


@pytest.mark.parametrize("change", [{}, {"anchor_age": 61}])
def test_a_patient_has_one_row(tmp_path, change):
    made = hospital.tables()
    made["patients"] = pd.concat([made["patients"], made["patients"].iloc[:1].assign(**change)])
    with pytest.raises(EhrDataError, match="table patients: subject_id 1 has 2 rows.*remove the others"):
        hospital.read(made, tmp_path)


@pytest.mark.parametrize(
    ("table", "column", "value", "lost"),
    [
        ("labevents", "valuenum", None, ("labevents", "no numeric result (text, blank or censored)", 24)),
        ("labevents", "charttime", None, ("labevents", "no readable collection time", 24)),
        ("labevents", "itemid", 1, ("labevents", "item not in the table of inquiries", 24)),
        ("emar", "medication", None, ("emar", "no name", 12)),
        ("emar", "event_txt", "Not Given", ("emar", "not executed (not given, stopped, flushed, assessed ...)", 12)),
    ],
)
def test_an_empty_table_is_an_empty_table(tmp_path, table, column, value, lost):
    made = hospital.tables()
    made[table][column] = value
    made["labevents"]["value"] = "NEG"
    episodes, flow = hospital.read(made, tmp_path)
    assert stays_of(episodes) == AS_THEY_WERE and flow.table(lost[0]).dropped[lost[1]] == lost[2]


def test_tables_without_rows(tmp_path):
    made = {
        name: table.iloc[: 4 if name in ("admissions", "patients") else 0] for name, table in hospital.tables().items()
    }
    assert stays_of(hospital.read(made, tmp_path)[0]) == AS_THEY_WERE


def test_a_batch_of_which_no_row_is_wanted(tmp_path):
    batch = pa.RecordBatch.from_pydict({"subject_id": pa.array([1, 2, None], pa.int64()), "x": [1, 2, 3]})
    (tmp_path / "shards").mkdir()
    for name, keep in (("none", lambda b: (np.zeros(len(b), bool), "no")), ("some", None)):
        ledger = deal(
            iter([batch.slice(0, 0), batch]), name, tmp_path / "shards", lambda s: np.zeros(len(s), int), keep
        )
        assert ledger.kept == (0 if keep else 2) and sum(ledger.dropped.values()) == 3 - ledger.kept
    with pytest.raises(EhrDataError, match="none of its 1 rows has a subject_id"):
        deal(iter([batch.slice(2)]), "nobody", tmp_path / "shards", lambda s: np.zeros(len(s), int))
    assert not list((tmp_path / "shards").rglob("nobody*"))


def test_an_id_that_is_not_told(tmp_path):
    pd.DataFrame({"hadm_id": pd.array([2**53 + 1, None], "Int64")}).to_parquet(tmp_path / "t.parquet")
    assert read_shard_table(tmp_path, TableSpec("t", {"hadm_id": "id"}))["hadm_id"].tolist() == [2**53 + 1, NO_ID]


@pytest.mark.parametrize("name", ["a[12]", "a*", "a?", "it's", "subject_id=7"])
@pytest.mark.parametrize("style", ["csv", "parquet"])
def test_a_folder_is_the_one_that_is_named(tmp_path, name, style):
    def write(folder, subject):
        folder.mkdir()
        frame = pd.DataFrame({"subject_id": [subject]})
        frame.to_csv(folder / "t.csv", index=False) if style == "csv" else frame.to_parquet(folder / "t.parquet")
        return folder / f"t.{style}"

    write(tmp_path / "a1", 666)
    path = write(tmp_path / name, 5)
    assert [b.column(0).to_pylist() for b in scan(path, TableSpec("t", {"subject_id": "id"}))] == [[5]]


def test_a_censored_result_is_no_value(tmp_path):
    """'>60' stays '>60', though the table gives 60 as its number; in the unit of the item."""
    made = hospital.tables()
    told = [">60", "<= 3", "≥ 5.5 mEq/L", "LESS THAN 2,5", ">/=7", "Greater than or equal to 8"]
    made["labevents"].loc[range(6), "value"] = told
    made["labevents"].loc[range(6), "valuenum"] = ["60", "3", "5.5", "2.5", "7", "8"]
    episodes, _ = hospital.read(made, tmp_path)
    results = [(q.value, q.label, q.unit) for q in episodes[0].inquiries()]
    assert results == [(None, label, "") for label in (">60", "<=3", ">=5.5", "<2.5", ">=7", ">=8")]


@pytest.mark.parametrize(("table", "column", "hours"), [("admissions", "deathtime", 30), ("patients", "dod", 40)])
def test_a_stay_ends_at_the_death(tmp_path, table, column, hours):
    made = hospital.tables()
    died = hospital.begun(1) + timedelta(hours=hours)  # 40 h after 08:00 is midnight: a date of death has no hour
    made[table][column] = None
    made[table].loc[0, column] = f"{died:{hospital.WRITTEN}}"
    again = made["admissions"].iloc[:1].assign(hadm_id=7, deathtime=None)
    for name in ("admittime", "dischtime"):
        again[name] = f"{hospital.begun(1) + timedelta(days=40 + (name == 'dischtime')):{hospital.WRITTEN}}"
    made["admissions"] = pd.concat([made["admissions"], again])
    episodes, flow = hospital.read(made, tmp_path)
    assert [e.stay_id for e in episodes] == [row[0] for row in AS_THEY_WERE], "and none begins after it"
    e = episodes[0]
    assert e.died == e.discharged == died and e.died_in_hospital and all(q.collected <= died for q in e.inquiries())
    assert flow.table("inquiries").dropped == {"after the patient's death": 6 - len(list(e.inquiries()))}
