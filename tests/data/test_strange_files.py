"""Ids, zones and limits in the writings that people have, and files where people keep them."""

from __future__ import annotations

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import small_hospital as hospital
from tests.data.test_hospital_tables import AS_THEY_WERE, cells, stays_of
from tests.ehr_world.ward_small import words
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.reader import data_files
from world_models.data.ehr.meds.writer import read_episodes, write_episodes
from world_models.data.ehr.tables import EhrDataError, TableSpec, scan
from world_models.ehr_world import train
from world_models.ehr_world.records import read_records


def test_an_id_is_its_digits(tmp_path):
    odd = ("2.57E+07", "5.0000001", "0x1F", "1_000", "1e-3", "-9223372036854775808", "25,742,920")
    read, ledger = cells(tmp_path, "id", "007", "-5", "25742920.0", "NULL", "\\N", *odd)
    assert read == [7, -5, 25742920] + [None] * (2 + len(odd))
    assert ledger.repaired == {"c cannot be read: left out": len(odd)}
    with pytest.raises(EhrDataError, match="none of the 1 ids in c can be read, such as '2.57E.07'.*all their digits"):
        cells(tmp_path, "id", "2.57E+07")


@pytest.mark.parametrize(("kind", "most"), [(pa.float32(), 2**24), (pa.float64(), 2**53)])
def test_a_float_column_that_cannot_tell_ids_apart_is_refused(tmp_path, kind, most):
    def write(largest: int) -> list:
        pq.write_table(pa.table({"subject_id": pa.array([1.0, float(largest)], kind)}), tmp_path / "t.parquet")
        (batch,) = scan(tmp_path / "t.parquet", TableSpec("t", {"subject_id": "id"}))
        shutil.copy(tmp_path / "t.parquet", tmp_path / "T.PARQUET")
        assert list(scan(tmp_path / "T.PARQUET", TableSpec("t", {"subject_id": "id"}))) == [batch]
        return batch.column(0).to_pylist()

    assert write(most) == [1, most]
    with pytest.raises(EhrDataError, match="column subject_id: .* does not tell ids apart; write the column as int64"):
        write(2 * most)
    frame = hospital.meds()
    frame["subject_id"] = frame["subject_id"] * float(most)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.set_column(0, "subject_id", table.column(0).cast(kind)), tmp_path / "m.parquet")
    with pytest.raises(EhrDataError, match="column subject_id: .* is not a whole number"):
        load_episodes(meds=tmp_path / "m.parquet")


def test_a_zone_is_minded_or_the_table_refused(tmp_path):
    zoned = ("2150-03-02 08:00:00+02:00", "2150-03-02T08:00-0500", "2150-03-02 08:00:00Z", "2150-03-02")
    read, _ = cells(tmp_path, "time", *zoned)
    assert [t.hour for t in read] == [6, 13, 8, 0]
    with pytest.raises(EhrDataError, match="has a time zone and '2150-03-02 09:00:00' has none"):
        cells(tmp_path, "time", *zoned, "2150-03-02 09:00:00")
    read, ledger = cells(tmp_path, "time", "2150-03-02 08:00:00 EST", "2150-03-02 24:00", "NaT")
    assert [t and t.day for t in read] == [None, 3, None] and sum(ledger.repaired.values()) == 1


@pytest.mark.parametrize(("zone", "hour"), [("Z", 8), ("+02:00", 6)])
def test_zones_and_blanks_of_times_in_meds(tmp_path, zone, hour):
    frame = hospital.meds()
    frame["time"] = ["" if pd.isna(t) else f"{t.isoformat()}{zone}" for t in frame["time"]]
    assert {e.admitted.hour for e in hospital.read_meds(frame, tmp_path)[0]} == {hour}
    frame.loc[3, "time"] = frame.loc[3, "time"].removesuffix(zone)
    with pytest.raises(EhrDataError, match="column time: .*expected a zone offset"):
        hospital.read_meds(frame, tmp_path)


def test_flags(tmp_path):
    assert cells(tmp_path, "flag", "1", "0.0", "true", "F", "Y", "no", "NULL")[0] == [1, 0, 1, 0, 1, 0, None]
    read, ledger = cells(tmp_path, "flag", "2", "-1", "1")
    assert read == [None, None, 1] and ledger.repaired == {"c cannot be read: left out": 2}


LIMITS = {
    "=<5": "<=5",
    "⩽5": "<=5",
    "≧ 5": ">=5",
    "＜5": "<5",
    "&lt;5": "<5",
    "<5 (L)": "<5",
    "<5*": "<5",
    "<1e3": "<1000",
    "<-1": "<-1",
    "LT 5": "<5",
    ">/=5": ">=5",
    "<5 µmol/L": "<5",
}
UNREAD = ("<LOD", "<5-10", "> 1'000", "<<5", "5<", ">5 <7", "<5.0.0", "not less than 5", "up to 5", "below detection")


@pytest.mark.parametrize("text", [*LIMITS, *UNREAD])
def test_a_limit_is_never_a_value(tmp_path, text):
    """Whatever its writing, and although a number stands beside it; nor on the way through a file and into tensors."""
    frame = hospital.meds()
    frame["text_value"] = frame["text_value"].astype(object)
    frame.loc[3, ["text_value", "numeric_value"]] = [text, 5.0]
    episodes, flow = hospital.read_meds(frame, tmp_path)
    label = LIMITS.get(text)
    found = [(q.value, q.label) for q in episodes[0].inquiries()]
    assert found == [(None, label)] * (label is not None) + [(4.1, None)] * 5
    lost = flow.table("meds values").dropped
    assert lost == ({} if label else {"no numeric result (text, blank or censored)": 1})
    if label:
        assert read_episodes(write_episodes(episodes, tmp_path / "e.parquet")) == episodes
        assert read_records(words(), meds=tmp_path / "e.parquet")[1]["censored_results"] == 1


def test_a_product_exported_twice_was_given_once(tmp_path):
    made = hospital.tables()
    made["emar_detail"] = pd.concat([made["emar_detail"]] * 2)
    episodes, flow = hospital.read(made, tmp_path)
    assert {i.dose for e in episodes for i in e.interventions()} == {40.0}
    assert flow.table("emar_detail").repaired == {"the same product of one administration again: taken once": 12}


def test_every_shard_is_read_and_what_is_none_is_not(tmp_path):
    table = pa.Table.from_pandas(hospital.meds(), preserve_index=False)
    mine = lambda n: table.filter(pa.array(table.column("subject_id").to_numpy() == n))  # noqa: E731
    data = tmp_path / "set" / "data"
    for folder in (data / "a" / "b", data / "x.parquet", data / "_temporary", tmp_path / "elsewhere"):
        folder.mkdir(parents=True)
    pq.write_table(mine(1), data / "a" / "b" / "0.parquet")
    pq.write_table(mine(2), data / "1.PARQUET")
    pq.write_table(mine(3), data / "x.parquet" / "part [0]*.parquet")
    pq.write_table(mine(4), tmp_path / "elsewhere" / "0.parquet")
    (data / "link").symlink_to(tmp_path / "elsewhere")
    (data / "loop").symlink_to(data)
    for junk in ("_temporary/0.parquet", "._0.parquet", ".0.parquet.crc", "_SUCCESS"):
        (data / junk).write_bytes(b"junk")
    assert len(data_files(tmp_path / "set")) == 4
    assert [e.subject_id for e in load_episodes(meds=tmp_path / "set")[0]] == [1, 2, 3, 4]


def test_meds_columns_that_are_not_what_they_seem(tmp_path):
    table = pa.Table.from_pandas(hospital.meds(), preserve_index=False)
    path = tmp_path / "m.parquet"
    for name, kind in (("time", pa.string_view()), ("code", pa.binary()), ("code", pa.large_string())):
        at = table.schema.get_field_index(name)
        pq.write_table(table.set_column(at, name, table.column(at).cast(pa.string()).cast(kind)), path)
        assert len(load_episodes(meds=path)[0]) == 4
    pq.write_table(pa.Table.from_arrays([*table.columns, table.column(0)], [*table.column_names, "subject_id"]), path)
    with pytest.raises(EhrDataError, match="m.parquet has several columns subject_id"):
        load_episodes(meds=path)
    pq.write_table(table.set_column(0, "subject_id", pa.array([True] * len(table))), path)
    with pytest.raises(EhrDataError, match="column subject_id: a boolean is not a whole number"):
        load_episodes(meds=path)


@pytest.mark.slow
def test_the_order_of_dates_goes_through_to_the_records(tmp_path, capsys):
    path = tmp_path / "m.parquet"
    hospital.meds().to_parquet(path)
    folder = hospital.write(hospital.tables("%d/%m/%Y %H:%M"), tmp_path / "t")
    with pytest.raises(EhrDataError, match="--date-order"):
        read_records(words(), meds=path, tables=folder)
    read = [read_records(words(), tmp_path, path, folder, date_order="day_first") for _ in range(2)]
    assert read[0][1] == read[1][1] and len(read[0][0].subject) == 4
    sources = ["--source", "meds", "--meds", str(path), "--tables", str(folder), "--out", str(tmp_path / "out")]
    with pytest.raises(SystemExit):
        train.main([*sources, "--date-order", "month_first", "--folds", "9", "--fold", "8"])
    said = capsys.readouterr().err
    assert "--date-order" not in said and "4 patients cannot be split into 9 folds" in said
    assert stays_of(load_episodes(tables=folder, date_order="day_first")[0]) == AS_THEY_WERE


@pytest.mark.parametrize("row", ["1,2\n", "1,20000001,50971,,,4,4,mEq/L,x,y,z\n"])
def test_a_row_of_another_length_is_named(tmp_path, row):
    folder = hospital.write(hospital.tables(), tmp_path)
    with (folder / "labevents.csv").open("a") as file:
        file.write(row)
    with pytest.raises(EhrDataError, match="labevents.csv .*(more or fewer cells than the header|CSV Error)"):
        load_episodes(tables=folder)
