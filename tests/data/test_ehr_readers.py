"""The readers of MIMIC-IV tables and of MEDS on one hospital, written out here in the published layout."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import mimic_example
from tests.data.small_hospital import SAME_EITHER_WAY
from world_models.data.ehr.assemble import assemble, place
from world_models.data.ehr.cells import NO_ID
from world_models.data.ehr.episode import PatientEpisode
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.meds import reader as meds_reader
from world_models.data.ehr.meds.links import link_ends
from world_models.data.ehr.meds.writer import read_episodes
from world_models.data.ehr.shards import Source, prepare, process_shard
from world_models.data.ehr.tables import EhrDataError


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def from_tables(folder: Path, work: Path) -> tuple[dict[int, PatientEpisode], Flow]:
    episodes, flow = {}, Flow()
    for shard in prepare(Source(tables=str(folder), shards=2), work, quiet=True):
        episodes.update({e.stay_id: e for e in read_episodes(process_shard(shard))})
        flow.add(Flow.read(shard / "flow.json"))
    return episodes, flow


def from_meds(style: str, path: Path) -> tuple[dict[int, PatientEpisode], Flow]:
    mimic_example.as_meds(style).to_parquet(path, index=False)
    flow = Flow()
    return {e.stay_id: e for e in assemble(meds_reader.read_shard(path, flow), 4.0, flow)}, flow


@pytest.fixture(scope="module")
def tables(tmp_path_factory) -> tuple[dict[int, PatientEpisode], Flow]:
    root = tmp_path_factory.mktemp("tables")
    return from_tables(mimic_example.write(root / "raw"), root / "work")


@pytest.fixture(scope="module", params=["old", "new"])
def meds(request, tmp_path_factory) -> tuple[str, dict[int, PatientEpisode], Flow]:
    path = tmp_path_factory.mktemp("meds") / f"{request.param}.parquet"
    return (request.param, *from_meds(request.param, path))


def values(e: PatientEpisode, item: str) -> list:
    return [
        (q.collected.isoformat(" "), q.value if q.label is None else q.label) for q in e.inquiries() if q.item == item
    ]


def test_the_stay_as_a_whole(tables):
    e = tables[0][11]
    assert (e.started, e.admitted) == (at("2150-03-01 06:00:00"), at("2150-03-01 10:00:00"))
    assert (e.age_years, e.sex_female, e.race, e.admission_type) == (52.0, True, "WHITE", "EW EMER.")
    assert [(d.sequence, d.version, d.code) for d in e.diagnoses] == [(1, "9", "0389"), (2, "10", "I509")]
    assert e.died is None and e.died_in_hospital is False
    dead = tables[0][22]
    assert dead.died_in_hospital and dead.discharged == dead.died == at("2160-02-04 21:15:00")
    assert values(dead, "potassium_mmol_l") == [("2160-02-04 12:00:00", 6.1)]


def test_labs_keep_their_draw_and_their_result(tables):
    e, flow = tables[0][11], tables[1]
    assert values(e, "potassium_mmol_l") == [("2150-03-01 07:00:00", 3.1), ("2150-03-01 13:00:00", 3.9)]
    by_time = {q.collected: q for q in e.inquiries() if q.item == "potassium_mmol_l"}
    late = by_time[at("2150-03-01 13:00:00")]  # hadm_id null: found by its time; the charted copy is not there twice
    assert late.resulted == at("2150-03-01 14:00:00") and late.source == "LAB//50971"
    assert values(e, "troponin_ng_l") == [("2150-03-01 07:00:00", "<10")]
    assert values(e, "creatinine_mg_dl") == [("2150-03-02 07:00:00", 1.4)] and values(e, "sodium_mmol_l") == []
    assert values(e, "inr") == [("2150-03-02 07:00:00", 1.3)]
    white = next(q for q in e.inquiries() if q.item == "white_cells_k_ul")
    assert white.resulted == white.collected
    assert flow.table("labevents").dropped["outside the plausible range"] == 1
    assert flow.table("inquiries").dropped["outside every stay of the patient"] == 1


def test_charted_values(tables):
    e = tables[0][11]
    assert values(e, "temperature_c") == [("2150-03-01 11:00:00", 37.0), ("2150-03-01 15:00:00", 38.5)]
    assert values(e, "gcs") == [("2150-03-01 11:00:00", 15.0)] and values(e, "heart_rate_bpm")[0][1] == 95.0
    assert values(e, "urine_output_ml") == [("2150-03-01 12:00:00", 300.0)]


def test_cultures_are_labels_with_their_delay(tables):
    e, flow = tables[0][11], tables[1]
    assert values(e, "culture//blood culture//blood culture, routine") == [("2150-03-01 07:30:00", "escherichia coli")]
    culture = next(q for q in e.inquiries() if q.item.startswith("culture//blood"))
    assert culture.resulted == at("2150-03-03 11:00:00")  # the last of its rows
    assert values(e, "susceptibility//escherichia coli//ceftriaxone") == [("2150-03-01 07:30:00", "R")]
    assert values(e, "culture//urine//urine, routine") == [("2150-03-01 07:30:00", "negative")]
    assert not [q for q in e.inquiries() if "sputum" in q.item or "swab" in q.item]
    assert flow.table("microbiologyevents").dropped == {
        "no collection time (date only)": 1,
        "no organism and no readable comment (often blanked)": 1,
    }


def test_doses_given(tables):
    given = [i for i in tables[0][11].interventions() if i.kind == "administration"]
    assert [(i.item, i.dose, i.unit, i.route) for i in given] == [
        ("ceftriaxone", 1.0, "g", "IV"),  # once, and not the diluent's 50 mL
        ("insulin", 6.0, "[U]", "SC"),  # two products
        ("acetaminophen", None, "", "PO/NG"),  # two units
    ]
    ordered = [i for i in tables[0][11].interventions() if i.kind == "prescription"]
    assert [(i.item, i.dose, i.end is None) for i in ordered] == [
        ("ceftriaxone", 1.0, False),
        ("insulin", None, False),
        ("furosemide", 40.0, True),
    ]


def test_infusions_and_procedures(tables):
    done = [i for i in tables[0][11].interventions() if i.kind == "infusion"]
    pressor = [(i.rate, i.rate_unit) for i in done if i.item == "norepinephrine"]
    assert pressor == [(0.1, "ug/kg/min"), (0.2, "ug/kg/min"), (0.15, "ug/kg/min")]
    salt = [(i.dose, i.unit) for i in done if i.item == "potassium_chloride"]
    assert salt == [(20.0, "mmol")]  # the rewritten row did not run
    assert sorted(i.dose for i in done if i.item == "saline") == [200.0, 1000.0]
    procedures = [i for i in tables[0][11].interventions() if i.kind == "procedure"]
    assert [(i.item, i.start, i.end) for i in procedures] == [
        ("invasive_ventilation", at("2150-03-01 11:00:00"), at("2150-03-02 09:00:00"))
    ]


def only(e: PatientEpisode, with_results: bool, exact_ends: bool):
    """What MEDS holds of a stay: no microbiology, no doses given; in the old form no results, links or texts."""
    inquiries = {
        (q.item, q.value, q.collected, q.unit, q.source, q.resulted if with_results and "LAB" in q.source else None)
        for q in e.inquiries()
        if q.source != "MICROBIOLOGY" and (with_results or q.label is None)
    }
    interventions = {
        (i.item, i.kind, i.start, i.source, i.rate, i.rate_unit, *((i.end, i.dose, i.unit) if exact_ends else ()))
        for i in e.interventions()
        if i.kind in ("infusion", "procedure") or not exact_ends
    }
    return inquiries, interventions


def test_the_same_stay_through_meds_and_through_tables(tables, meds):
    style, episodes, _ = meds
    new = style == "new"
    mine = {(e.subject_id, e.admitted): e for e in tables[0].values()}
    theirs = {(e.subject_id, e.admitted): e for e in episodes.values()}
    assert mine.keys() == theirs.keys() and (not new or tables[0].keys() == episodes.keys())
    for key, e in mine.items():
        other = theirs[key]
        for name in (*SAME_EITHER_WAY, *(["race"] if new else [])):
            assert getattr(e, name) == getattr(other, name), name
        assert {d[1:] for d in e.diagnoses} == {d[1:] for d in other.diagnoses}
        charted = {
            q.item
            for q in e.inquiries()
            if q.item
            in ("heart_rate_bpm", "temperature_c", "gcs", "gcs_eye", "gcs_verbal", "gcs_motor", "urine_output_ml")
        }
        rates = {i.start for i in e.interventions() if i.rate == 0.15}  # told by a weight that MEDS does not link
        for ours, told in zip(only(e, new, new), only(other, new, new), strict=True):
            # MEDS has no result times of charted values, and (new form) no specimen for a result that came before it
            ours = {row[:5] if row[0] in charted else row for row in ours if row[2] not in rates}
            told = {row[:5] if row[0] in charted else row for row in told if row[2] not in rates}
            ours = {row for row in ours if row[0] != "white_cells_k_ul" or not new}
            told = {row for row in told if row[0] != "white_cells_k_ul" or not new}
            if not new:  # and the old form none of units: a rate in mg/kg/min cannot be told from one in ug/kg/min
                ours = {row for row in ours if row[4] != 0.2}
                told = {row for row in told if row[4] != 0.0002}
            assert ours == told


def test_what_the_old_form_leaves_open_stays_open(meds):
    style, episodes, flow = meds
    saline = [i for e in episodes.values() for i in e.interventions() if i.item == "saline" and i.kind == "infusion"]
    assert len(saline) == 2
    if style == "old":  # two at once, and nothing says whose end is whose
        assert all(i.end is None and i.dose is None for i in saline)
        assert flow.table("meds").repaired["infusion: end not linked to its start (several at once): left out"] == 2
    else:
        assert sorted(i.dose for i in saline) == [200.0, 1000.0]


def test_meds_with_the_tables_beside_it(tmp_path, tables):
    raw = mimic_example.write(tmp_path / "raw", leave_out=("labevents", "chartevents", "emar", "emar_detail"))
    (tmp_path / "meds" / "data").mkdir(parents=True)
    whole = mimic_example.as_meds("old")
    for subject, rows in whole.groupby("subject_id"):
        rows.to_parquet(tmp_path / "meds" / "data" / f"{subject}.parquet", index=False)
    source = Source(meds=str(tmp_path / "meds"), tables=str(raw))
    shards = prepare(source, tmp_path / "work", quiet=True)
    e = next(e for shard in shards for e in read_episodes(process_shard(shard)) if e.stay_id == 11)
    given = [(i.item, i.dose, i.unit, i.route) for i in e.interventions() if i.kind == "administration"]
    assert given == [("ceftriaxone", 1.0, "g", "IV"), ("insulin", None, "", ""), ("acetaminophen", None, "", "")]
    assert values(e, "culture//urine//urine, routine") and values(e, "potassium_mmol_l")[0][1] == 3.1
    ours = [i for i in tables[0][11].interventions() if i.kind != "administration"]
    assert [i for i in e.interventions() if i.kind != "administration"] == ours


def _meds_file(path: Path, frame: pd.DataFrame) -> Path:
    frame.to_parquet(path, index=False)
    return path


def test_bad_meds_files(tmp_path):
    whole = mimic_example.as_meds("old")
    cut = tmp_path / "cut.parquet"
    cut.write_bytes(_meds_file(tmp_path / "whole.parquet", whole).read_bytes()[:-2000])
    backwards = pd.concat([whole[whole["subject_id"] == 1].iloc[::-1], whole[whole["subject_id"] == 2]])
    torn = pd.concat([whole[whole["subject_id"] == 2], whole[whole["subject_id"] == 1], whole.iloc[-1:]])
    for path, words in (
        (cut, "cut short or damaged"),
        (_meds_file(tmp_path / "a.parquet", whole.drop(columns="code")), r"lacks the column\(s\) code"),
        (_meds_file(tmp_path / "b.parquet", whole.drop(columns="time")), r"lacks the column\(s\) time"),
        (_meds_file(tmp_path / "c.parquet", backwards), "time runs backwards; .*: sort the file"),
        (_meds_file(tmp_path / "d.parquet", torn), "subject 2 stand in several places"),
        (tmp_path / "none.parquet", "cannot be read"),
    ):
        with pytest.raises(EhrDataError, match=words):
            meds_reader.read_shard(path, Flow())


def test_order_is_checked_across_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(meds_reader, "BATCH_ROWS", 5)
    path = _meds_file(tmp_path / "a.parquet", mimic_example.as_meds("old"))
    assert sum(batch.num_rows for batch in meds_reader.iterate(path)) == pq.read_metadata(path).num_rows
    table = pq.read_table(path)
    first = table.column("subject_id").to_pylist().count(1)
    static = table.slice(0, 1)  # the sex, without a time
    ends = table.slice(1, first - 1), table.slice(first)
    pq.write_table(pa.concat_tables([ends[0], static, ends[1]]), path)
    list(meds_reader.iterate(path))
    # a time before the one that stands before the static row
    moved = [table.slice(1, first - 2), static, table.slice(first - 1, 1), table.slice(1, 1), ends[1]]
    pq.write_table(pa.concat_tables(moved), path)
    with pytest.raises(EhrDataError, match=f"row {first}: subject 1 at .*time runs backwards"):
        list(meds_reader.iterate(path))
    pq.write_table(pa.concat_tables([ends[1], table.slice(0, first), table.slice(table.num_rows - 1)]), path)
    with pytest.raises(EhrDataError, match="subject 2 stand in several places"):
        list(meds_reader.iterate(path))


def test_the_challenge_as_physionet_lays_it_out(tmp_path):
    (tmp_path / "set-a").mkdir()
    record = [
        "00:00,RecordID,7",
        "00:00,Age,54",
        "00:00,Gender,0",
        "00:00,Height,-1",
        "00:00,ICUType,4",
        "00:00,Weight,80",
        "00:07,HR,73",
        "13:30,Temp,36.9",
        "13:30,HR,0",
        "47:59,FiO2,0.5",
        "02:00,MechVent,1",
        "03:00,Mg,2.1",
    ]
    (tmp_path / "set-a" / "7.txt").write_text("\n".join(["Time,Parameter,Value", *record]))
    (tmp_path / "Outcomes-a.csv").write_text("unused")
    outcomes = tmp_path / "Outcomes-a.txt"
    outcomes.write_text("RecordID,SAPS-I,SOFA,Length_of_stay,Survival,In-hospital_death\n7,6,1,5,-1,1\n")
    source = Source(challenge2012=str(tmp_path), shards=1)
    (e,) = read_episodes(process_shard(prepare(source, tmp_path / "work", quiet=True)[0]))
    assert (e.subject_id, e.age_years, e.sex_female, e.admission_type) == (7, 54.0, True, "surgical")
    assert e.died_in_hospital and e.truncated and e.n_steps == 12
    assert [(q.item, q.value, e.hours(q.collected)) for q in e.inquiries()] == [
        ("weight_kg", 80.0, 0.0),
        ("heart_rate_bpm", 73.0, pytest.approx(7 / 60)),
        ("magnesium_mg_dl", 2.1, 3.0),
        ("temperature_c", 36.9, 13.5),
        ("fio2_fraction", 0.5, pytest.approx(47 + 59 / 60)),
    ]
    assert [(i.item, e.hours(i.start)) for i in e.interventions()] == [("invasive_ventilation", 2.0)]
    (tmp_path / "set-a" / "8.txt").write_text("Time,Parameter,Value\nnoon,HR,73\n")
    with pytest.raises(EhrDataError, match="8.txt is no record of the challenge.*noon"):
        prepare(source, tmp_path / "again", quiet=True)


def test_an_event_finds_the_stay_it_lies_in():
    day = lambda n: pd.Timestamp(f"2150-01-{n:02d}").as_unit("us")  # noqa: E731
    stays = pd.DataFrame(
        {
            "subject_id": [1, 1, 1, 2],
            "stay_id": [10.0, 11.0, 12.0, 20.0],
            "started": [day(1), day(3), day(20), day(1)],
            "discharged": [day(10), day(4), day(22), day(2)],
        }
    )
    times = pd.Series([day(2), day(3), day(5), day(12), day(21), day(5)])
    found = place(pd.Series([1, 1, 1, 1, 1, 2]).to_numpy(), times.to_numpy(), stays)
    assert [None if f == NO_ID else f for f in found.tolist()] == [10, 11, 10, None, 12, None]


@pytest.mark.parametrize(
    ("events", "linked"),
    [
        ([("s", 1), ("e", 2), ("s", 3), ("e", 4)], {1: 2, 3: 4}),
        ([("s", 1), ("s", 2), ("e", 3), ("e", 4)], {}),  # which is whose?
        ([("e", 1), ("s", 2), ("s", 3), ("e", 4), ("e", 5), ("s", 6), ("e", 7)], {6: 7}),
        # at one moment what ends, ends before the next begins: the second end of 2 o'clock is nobody's
        ([("s", 1), ("e", 2), ("s", 2), ("e", 2), ("s", 4)], {1: 2}),
        ([], {}),
    ],
)
def test_ends_are_linked_where_they_are_certain(events, linked):
    def frame(kind):
        times = [n for k, n in events if k == kind]
        return pd.DataFrame(
            {
                "subject_id": 1,
                "code": "INFUSION_START//225158",
                "order_id": pd.array([None] * len(times), "Int64"),
                "time": pd.to_datetime([f"2150-01-01 {n:02d}:00" for n in times]).astype("datetime64[us]"),
                "numeric_value": [float(n) for n in times],
                "unit": None,
            }
        )

    starts, ends = frame("s"), frame("e")
    got = link_ends(starts, ends, pd.Series(1.0, range(len(events))).to_numpy(), 1, Flow(), "infusion")
    certain = got[got["end"].notna()]
    assert dict(zip(certain["time"].dt.hour, certain["end"].dt.hour, strict=True)) == linked
    assert (certain["amount"] == certain["end"].dt.hour).all()
