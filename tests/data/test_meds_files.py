"""MEDS files as people have them: what the standard allows is read, what it does not is named; stays found by time."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clinenv.envs.ehr_ward.recorded_stays import RecordedStays
from tests.data import small_hospital as hospital
from tests.ehr_world.ward_small import words
from tests.toy_ward import InferringToyWard
from world_models.data.ehr import inquiry_items
from world_models.data.ehr.filters import measure
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds import reader as meds_reader
from world_models.data.ehr.tables import EhrDataError
from world_models.ehr_world.episode_tensors import from_episodes
from world_models.ehr_world.records import read_records

LENGTHS = [24.0 * hospital.DAYS] * 4


def lengths(episodes) -> list[float]:
    return [e.length_of_stay_hours for e in episodes]


def with_hadm(frame: pd.DataFrame, write) -> pd.DataFrame:
    return frame.assign(hadm_id=[write(n) for n in frame["subject_id"]])


@pytest.mark.parametrize(
    ("change", "ids"),
    [
        (lambda f: f, [1001, 2001, 3001, 4001]),
        (lambda f: with_hadm(f, lambda n: f"{20000000 + n}.0"), [20000001, 20000002, 20000003, 20000004]),
        (lambda f: with_hadm(f, lambda n: float(20000000 + n)), [20000001, 20000002, 20000003, 20000004]),
        (lambda f: with_hadm(f, lambda n: 2**53 + n), [2**53 + 1, 2**53 + 2, 2**53 + 3, 2**53 + 4]),
        (lambda f: with_hadm(f, lambda n: f"enc-{n}"), None),  # numbered by a hash
        (
            lambda f: f.astype({"time": "datetime64[ns]"}).assign(time=lambda g: g["time"] + pd.Timedelta(123, "ns")),
            None,
        ),
        (lambda f: f.assign(time=f["time"].astype(str).where(f["time"].notna())), None),
        (lambda f: f.assign(subject_id=f["subject_id"].astype(str)), [1001, 2001, 3001, 4001]),
        (lambda f: f.assign(numeric_value=f["numeric_value"].astype(str).where(f["numeric_value"].notna())), None),
        (lambda f: f.assign(code=f["code"].astype("category")), None),
    ],
)
def test_what_means_the_same_is_read_the_same(tmp_path, change, ids):
    episodes, flow = hospital.read_meds(change(hospital.meds()), tmp_path)
    assert lengths(episodes) == LENGTHS and flow.stages[-1].inquiries == 24
    assert ids is None or [e.stay_id for e in episodes] == ids
    assert len({e.stay_id for e in episodes}) == 4
    assert {q.value for e in episodes for q in e.inquiries()} == {4.1}


def test_numeric_value_may_be_absent(tmp_path):
    episodes, flow = hospital.read_meds(hospital.meds().drop(columns=["numeric_value", "text_value"]), tmp_path)
    assert lengths(episodes) == LENGTHS and flow.stages[-1].inquiries == 0


def first_epoch(frame: pd.DataFrame) -> pd.DataFrame:
    seconds = (frame["time"] - pd.Timestamp(0).as_unit("us")) // pd.Timedelta(seconds=1)
    return frame.assign(time=seconds.astype("Int64"))


@pytest.mark.parametrize(
    ("change", "words_"),
    [
        (first_epoch, r"column time: 3786912000 \(int64: seconds, .*since 1970\?\) is not a timestamp"),
        (lambda f: first_epoch(f).astype({"time": "float64"}), r"column time: 3786912000.0 \(double"),
        (
            lambda f: f.assign(time=f["time"].dt.strftime("%d/%m/%Y %H:%M")),
            "column time: '01/01/2090 00:00' is not a timesta",
        ),
        (
            lambda f: f.assign(time=f["time"] + np.timedelta64(4000 * 365, "D").astype("timedelta64[us]")),
            "outside the years 1500 to 2999",
        ),
        (
            lambda f: f.assign(subject_id="P" + f["subject_id"].astype(str)),
            "column subject_id: 'P1' is not a whole number",
        ),
        (lambda f: f.assign(subject_id=f["subject_id"] + 0.5), "column subject_id: 1.5 is not a whole number"),
        (
            lambda f: f.assign(numeric_value=f["numeric_value"].map(lambda x: None if x != x else "<5")),
            "column numeric_value: '<5' is not a number; write what is none .* as text_value",
        ),
        (lambda f: f.assign(code=[[c] for c in f["code"]]), "column code: .*list.* is not string"),
        (lambda f: f.drop(columns="code"), r"lacks the column\(s\) code"),
    ],
)
def test_the_true_reason_is_given(tmp_path, change, words_):
    frame = change(hospital.meds())
    with pytest.raises(EhrDataError, match=words_) as caught:
        hospital.read_meds(frame, tmp_path)
    assert "damaged" not in str(caught.value)


def test_metadata_is_not_read_as_events(tmp_path):
    hospital.read_meds(hospital.meds(), tmp_path)
    (tmp_path / "metadata").mkdir()
    pd.DataFrame({"code": ["a"]}).to_parquet(tmp_path / "metadata" / "codes.parquet")
    assert [p.name for p in meds_reader.data_files(tmp_path)] == ["m.parquet"]
    assert lengths(load_episodes(meds=tmp_path)[0]) == LENGTHS


def test_a_discharge_without_a_hadm_id_is_joined_by_time(tmp_path):
    frame = with_hadm(hospital.meds(), lambda n: 20000000 + n).astype({"hadm_id": "Int64"})
    frame.loc[~frame["code"].str.startswith("HOSPITAL_ADMISSION"), "hadm_id"] = None
    episodes, flow = hospital.read_meds(frame, tmp_path)
    assert lengths(episodes) == LENGTHS and [e.stay_id for e in episodes] == [20000001, 20000002, 20000003, 20000004]
    assert flow.stages[-1].inquiries == 24


def stays_at(*events: tuple, hadm: bool = False) -> list[tuple[float, float]]:
    """(hour of admission, of discharge) of the stays of one patient with ("in" | "out", hour[, hadm_id])."""
    from world_models.data.ehr.cells import NO_ID
    from world_models.data.ehr.flow import Flow
    from world_models.data.ehr.meds.hospital_stays import read_stays

    def frame(kind: str, code: str) -> pd.DataFrame:
        mine = [(e[1], e[2] if len(e) > 2 else NO_ID) for e in events if e[0] == kind]
        return pd.DataFrame(
            {
                "subject_id": 1,
                "time": [datetime(2150, 1, 1) + timedelta(hours=h) for h, _ in mine],
                "code": code,
                "hadm_id": np.array([i for _, i in mine], np.int64),
                "race": None,
            }
        ).astype({"time": "datetime64[us]"})

    parts = {
        "admission": frame("in", "HOSPITAL_ADMISSION//A//B"),
        "discharge": frame("out", "HOSPITAL_DISCHARGE//HOME"),
    }
    stays = read_stays(parts, parts["admission"].iloc[:0], Flow())
    hours = (stays[["admitted", "discharged"]] - pd.Timestamp(2150, 1, 1)) / pd.Timedelta(hours=1)
    return [(a, b if b == b else -1.0) for a, b in hours.itertuples(index=False)]


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([("in", 0), ("in", 30), ("out", 50), ("out", 72)], [(0, 72), (30, 50)]),  # one within the other
        ([("in", 0), ("out", 5), ("in", 5), ("out", 9)], [(0, 5), (5, 9)]),
        ([("in", 0), ("in", 30), ("out", 50)], [(0, -1), (30, 50)]),
        ([("out", 1), ("in", 2), ("out", 3)], [(2, 3)]),
        (
            [("in", 0, 7), ("in", 30, 8), ("out", 50, 7), ("out", 72, 8)],
            [(0, 50), (30, 72)],
        ),  # they overlap by their ids
        ([("in", 0, 7), ("in", 30), ("out", 50), ("out", 72, 7)], [(0, 72), (30, 50)]),
        ([("in", 0, 7), ("out", 9, 8)], [(0, -1)]),  # another stay's end
    ],
)
def test_overlapping_stays_are_told_apart(events, expected):
    assert stays_at(*events) == expected


def test_a_source_without_stays_says_why(tmp_path):
    frame = hospital.meds()
    frame = frame[~frame["code"].str.startswith("HOSPITAL_DISCHARGE")]
    episodes, flow = hospital.read_meds(frame, tmp_path)
    assert not episodes and flow.table("stays").dropped == {"no discharge time, nor one of death": 4}
    for read in (lambda: RecordedStays(tmp_path, InferringToyWard()), lambda: read_records(words(), meds=tmp_path)):
        with pytest.raises(ValueError, match="holds no stay.*\n(.*\n)*.*4: no discharge time, nor one of death"):
            read()
    with pytest.raises(ValueError, match="there are no stays"):
        RecordedStays([], InferringToyWard())
    for odd in (5, b"x", [1]):
        with pytest.raises(ValueError, match="must be a MEDS folder or file, .* or a list of PatientEpisode"):
            RecordedStays(odd, InferringToyWard())
    with pytest.raises(ValueError, match="must name sources: .*challenge2019.*eicu"):
        RecordedStays({"icu": tmp_path}, InferringToyWard())


@pytest.mark.parametrize("hour", ["x", None, float("nan"), -4.0, True])
def test_an_hour_that_is_none(tmp_path, hour):
    hospital.read_meds(hospital.meds(), tmp_path)
    with pytest.raises(ValueError, match="hour=.* must be a number from 0 up"):
        RecordedStays(tmp_path, InferringToyWard(), hour=hour)


def dead(frame: pd.DataFrame, hours: float, location: str = "DIED") -> pd.DataFrame:
    """Patient 1 dies so many hours into the stay."""
    died = pd.DataFrame(
        {"subject_id": [1], "time": [hospital.begun(1) + timedelta(hours=hours)], "code": ["MEDS_DEATH"]}
    )
    frame = frame.replace({"code": {"HOSPITAL_DISCHARGE//HOME": f"HOSPITAL_DISCHARGE//{location}"}})
    frame = pd.concat([frame, died.astype({"time": "datetime64[us]"})])
    return frame.sort_values(["subject_id", "time"], kind="stable", na_position="first", ignore_index=True)


@pytest.mark.parametrize("location", ["DIED", "UNK", "HOME"])
def test_a_stay_ends_at_the_death(tmp_path, location):
    episodes, flow = hospital.read_meds(dead(hospital.meds(), 30.0, location), tmp_path)
    e = episodes[0]
    assert e.length_of_stay_hours == e.hours_alive == 30.0 and e.died == e.discharged and e.died_in_hospital
    assert len(list(e.inquiries())) == 4 and lengths(episodes[1:]) == LENGTHS[1:]
    assert flow.table("stays").repaired == {"discharge after the death: ends at the death": 1}
    assert flow.table("inquiries").dropped == {"after the patient's death": 2}
    stays = RecordedStays(tmp_path, InferringToyWard(), hour=24.0)
    stays.choose({"stay_id": 1001, "hour": 24.0})
    with pytest.raises(ValueError, match="no stay 1001 of at least 32 h"):
        stays.choose({"stay_id": 1001, "hour": 28.0})


def test_an_episode_that_goes_on_after_the_death_is_read_until_then(tmp_path):
    """Made by hand, or written before stays ended at the death."""
    import dataclasses

    whole = hospital.read_meds(hospital.meds(), tmp_path)[0][0]
    e = dataclasses.replace(whole, died=whole.started + timedelta(hours=30), died_in_hospital=True)
    with pytest.raises(ValueError, match="none of 1 stays lasts 32 h.*the longest lasts 30 h"):
        RecordedStays([e], InferringToyWard(), hour=28.0)
    stays = from_episodes(words(), [e])
    assert stays.valid.shape[1] == 9 and int(stays.valid.sum()) == 9, "the triage and 8 steps of 4 h"
    assert stays.alive[0].tolist() == [True] * 8 + [False]


def test_no_stay_begins_after_the_death(tmp_path):
    frame = hospital.meds()
    again = frame[frame["subject_id"] == 1].iloc[2:].assign(time=lambda f: f["time"] + pd.Timedelta(days=30))
    frame = pd.concat([dead(frame, 72.0), again]).sort_values(
        ["subject_id", "time"], kind="stable", na_position="first"
    )
    episodes, flow = hospital.read_meds(frame, tmp_path)
    assert len(episodes) == 4 and flow.table("stays").dropped == {"begins after the patient's death": 1}


def test_a_date_of_death_is_any_hour_of_its_day(tmp_path):
    frame = dead(hospital.meds(), 72.0 - 8.0)  # 00:00 of the day of the discharge
    e = hospital.read_meds(frame, tmp_path)[0][0]
    assert e.died == e.discharged and e.length_of_stay_hours == 72.0 and e.died_in_hospital


def test_censored_results_are_neither_learned_nor_scored(tmp_path):
    frame = hospital.meds()
    frame["text_value"] = frame["text_value"].astype(object)
    frame.loc[3, "text_value"] = ">60"
    frame.loc[3, "numeric_value"] = 60.0
    e = hospital.read_meds(frame, tmp_path)[0][0]
    assert [q.label for q in e.inquiries()] == [">60", None, None, None, None, None]
    stays = from_episodes(words(), [e])
    assert int((~stays.value.isnan()).sum()) == 5 and float(stays.value.nan_to_num(0).max()) == pytest.approx(4.1)
    assert measure([e])[["values", "cultures"]].iloc[0].tolist() == [6, 0]
    assert read_records(words(), meds=tmp_path)[1]["censored_results"] == 1


def test_many_patients_take_time_in_proportion(tmp_path):
    def seconds(n: int) -> float:
        table = pa.table(
            {
                "subject_id": np.arange(n),
                "time": pa.array(np.full(n, np.datetime64("2150-01-01", "us"))),
                "code": ["LAB//50971//mEq/L"] * n,
                "numeric_value": np.ones(n, np.float32),
            }
        )
        pq.write_table(table, tmp_path / "m.parquet")
        began = time.process_time()
        assert sum(batch.num_rows for batch in meds_reader.iterate(tmp_path / "m.parquet")) == n
        return time.process_time() - began

    assert seconds(65_536) < 2.0


@pytest.mark.parametrize("text", ["²", "٣", "9" * 30, "", "-1", "1.0"])
def test_what_is_a_whole_number(text):
    assert inquiry_items.whole_number(text) is None and inquiry_items.whole_number("50971") == 50971
    assert inquiry_items.parse_lab_code(f"LAB//{text}//mEq/L") is None


def test_digits_that_are_none_break_nothing(tmp_path):
    frame = hospital.meds()
    for i, code in enumerate(("LAB//²//mEq/L", "PROCEDURE//START//²", "INFUSION_START//²", "INFUSION_START"), 3):
        frame.loc[i, "code"] = code
    episodes, flow = hospital.read_meds(frame, tmp_path)
    assert [i.item for i in episodes[0].interventions()] == ["input ²"] and len(list(episodes[0].inquiries())) == 2
    assert flow.table("meds").dropped["infusion without a name"] == 1


def test_a_folder_named_like_a_column(tmp_path):
    folder = tmp_path / "subject_id=7" / "a[b]*"
    assert [e.subject_id for e in hospital.read_meds(hospital.meds(), folder)[0]] == [1, 2, 3, 4]
    assert Path(folder).is_dir()
