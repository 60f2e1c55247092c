"""Challenge 2019, eICU and MIMIC-III's charted values, of invented stays: what is read, what is left out, what is
refused."""

from __future__ import annotations

import re
from collections import Counter
from datetime import datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data import small_icu
from world_models.data.ehr import pipeline as ehr_pipeline
from world_models.data.ehr.canonical_events import INQUIRY_COLUMNS
from world_models.data.ehr.contradictions import without_contradictions
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.writer import read_episodes, to_table
from world_models.data.ehr.sources import eicu_orders, mimic_iii
from world_models.data.ehr.tables import EhrDataError
from world_models.data.ehr.units import UnitError, check_units

EPOCH = datetime(2000, 1, 1)
HOUR = timedelta(hours=1)


def values(episode, item: str) -> dict[float, float | str]:
    """Hours since the start -> value or label."""
    return {episode.hours(q.collected): q.value or q.label for q in episode.inquiries() if q.item == item}


def done(episode, item: str) -> list:
    return [i for i in episode.interventions() if i.item == item]


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    frame = small_icu.challenge()
    first = frame["patient"] == 100001
    frame.loc[first & (frame["ICULOS"] == 7), ["Calcium", "FiO2", "SBP"]] = [1.2, 40.0, 50.0]
    frame.loc[first & (frame["ICULOS"] == 13), "Calcium"] = 4.8
    path = small_icu.write_challenge(frame, tmp_path_factory.mktemp("c"))
    return frame, load_episodes(challenge2019=path, hours_per_step=1.0)


def test_challenge_2019_hours_are_steps(challenge):
    frame, (episodes, flow) = challenge
    a, b = episodes
    assert (a.subject_id, a.age_years, a.sex_female, a.admission_type) == (100001, 64.0, True, "medical")
    assert a.hospital == "challenge 2019 B" and a.truncated and a.died_in_hospital is None
    assert a.n_steps == small_icu.HOURS and [s.number for s in a.steps] == list(range(small_icu.HOURS))
    assert values(a, "heart_rate_bpm") == {float(h): 80.0 for h in range(small_icu.HOURS)}
    assert values(b, "troponin_i_ng_l") == {float(h): 20.0 for h in range(0, small_icu.HOURS, 6)}  # from ng/mL
    assert [d.code for d in b.diagnoses] == ["A419"] and not a.diagnoses
    assert not any("sepsis" in q.item for q in b.inquiries())  # the label would tell six hours ahead
    four = a.regrid(4.0)
    assert four.n_steps == 8 and sorted(four.inquiries()) == sorted(a.inquiries())
    assert flow.table("hours").read == len(frame)


def test_challenge_2019_counts_what_it_leaves_out(challenge):
    _, (episodes, flow) = challenge
    a = episodes[0]
    assert values(a, "calcium_mg_dl") == {0.0: 8.4, 18.0: 8.4, 24.0: 8.4}
    assert values(a, "ionized_calcium_mmol_l") == {6.0: 1.2}
    assert 6.0 not in values(a, "fio2_fraction") and flow.implausible == {"fio2_fraction": 1}
    assert 6.0 not in values(a, "sbp_mmhg") and 6.0 not in values(a, "dbp_mmhg") and 6.0 in values(a, "map_mmhg")
    assert flow.table("values").dropped == {
        "calcium between ionised (mmol/L) and total (mg/dL): unclear which": 1,
        "outside the plausible range": 1,
    }
    assert flow.table("inquiries").dropped == {"systolic below diastolic pressure: both left out": 2}
    assert "1 of 10: fio2_fraction" in flow.diagram()
    flow.check()


def test_challenge_2019_files_of_bars(tmp_path, challenge):
    frame, (episodes, _) = challenge
    for patient, rows in frame.groupby("patient"):
        rows.drop(columns="patient").to_csv(tmp_path / f"p{patient}.psv", sep="|", index=False, na_rep="NaN")
    assert load_episodes(challenge2019=tmp_path, hours_per_step=1.0)[0] == episodes
    heads = (tmp_path / "p100001.psv").read_text().splitlines()[0] + "\n"
    (tmp_path / "p100000.psv").write_text(heads)
    assert load_episodes(challenge2019=tmp_path, hours_per_step=1.0)[0] == episodes, "heads alone say nothing"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "p100000.psv").write_text(heads)
    assert load_episodes(challenge2019=tmp_path / "empty", hours_per_step=1.0)[0] == []
    (tmp_path / "empty" / "p100000.psv").unlink()
    (tmp_path / "p100001.psv").write_text("HR|O2Sat\n80|97\n")
    with pytest.raises(EhrDataError, match=r"p100001.psv lacks the column\(s\) Temp"):
        load_episodes(challenge2019=tmp_path)


CHALLENGE_FAULTS = {
    "column": (lambda f: f.drop(columns="Temp"), r"lacks the column\(s\) Temp"),
    "unit": (lambda f: f.assign(Temp=f["Temp"] * 1.8 + 32), r"another unit: .*temperature_c: 60 of 60 .*25..45 Cel"),
    "order": (lambda f: f[::-1], r"ICULOS: stay 10000\d comes to hour 29 after hour 30 .*time runs backwards"),
    "again": (lambda f: pd.concat([f, f]), "comes to hour 1 after hour 30"),
    "cut": (None, "cannot be read as a table .*cut short"),
}


@pytest.mark.parametrize("fault", CHALLENGE_FAULTS)
def test_challenge_2019_refuses(tmp_path, fault, capsys):
    change, words = CHALLENGE_FAULTS[fault]
    frame = small_icu.challenge()
    path = small_icu.write_challenge(frame if change is None else change(frame), tmp_path / "raw")
    if change is None:
        path.write_bytes(path.read_bytes()[:-200])
    _refused(["--challenge2019", str(path)], tmp_path / "out", words, capsys)


def _refused(arguments, out, words, capsys):
    """The command ends with 2 and its message, and leaves nothing but its own folder of work."""
    assert ehr_pipeline.main([*arguments, "--out", str(out), "--quiet", "--no-filters", "--shards", "1"]) == 2
    error = capsys.readouterr().err
    assert re.search(words, error), error
    left = [p for p in out.rglob("*") if p.is_file() and ".work" not in p.parts]
    assert not left and not list(out.rglob("*.part"))


@pytest.fixture(scope="module")
def eicu(tmp_path_factory):
    folder = small_icu.write_eicu(small_icu.eicu_tables(), tmp_path_factory.mktemp("e"))
    episodes, flow = load_episodes(eicu=folder, hours_per_step=1.0)
    return {e.stay_id: e for e in episodes}, flow


def test_eicu_stays(eicu):
    stays, _ = eicu
    a, b, c = stays[11], stays[12], stays[21]
    assert a.subject_id == b.subject_id != c.subject_id and (a.hospital, c.hospital) == ("eICU 59", "eICU 67")
    assert a.started == EPOCH + HOUR and b.started == a.discharged  # on one calendar, an hour after the admission
    assert (a.died, a.died_in_hospital, c.died, c.died_in_hospital) == (None, False, c.discharged, True)
    assert (c.age_years, c.sex_female, a.age_years, a.sex_female) == (90.0, False, 71.0, True)
    assert [(d.sequence, d.version, d.code) for d in a.diagnoses] == [
        (1, "10", "A419"), (1, "9", "0389"), (None, "10", "Z7901"), (None, "9", "V5861"),
    ]  # fmt: skip
    assert values(a, "fio2_fraction") == {float(h): 0.4 for h in range(0, small_icu.HOURS, 6)}
    assert values(a, "weight_kg") == {0.0: 80.0} and values(c, "weight_kg") == {}
    assert values(a, "troponin_ng_l")[0.0] == 50.0


def test_eicu_infusions_run_from_row_to_row(eicu):
    stays, flow = eicu
    first, second = done(stays[11], "norepinephrine")
    # 8 ug/min in 80 kg; begun before the admission, it begins there; then 16 ug/min at the 100 kg of the row
    assert (first.rate, first.rate_unit, stays[11].hours(first.start), stays[11].hours(first.end)) == (
        0.1, "ug/kg/min", 0.0, 1.0,
    )  # fmt: skip
    assert (second.rate, second.end - second.start) == (0.16, HOUR)
    [furosemide] = done(stays[11], "furosemide")
    assert (furosemide.rate, furosemide.dose, furosemide.unit) == (10.0, 20.0, "mg")  # two hours
    [propofol] = done(stays[11], "propofol")
    assert propofol.rate is None and propofol.end is None  # neither unit is one
    [saline] = done(stays[12], "saline")[:1]
    # what comes next has no rate ("ERROR"), and ends it all the same
    assert (saline.rate_unit, saline.rate, saline.dose, saline.end - saline.start) == ("mL/h", 100.0, 200.0, 2 * HOUR)
    [unweighed] = done(stays[21], "norepinephrine")
    assert (unweighed.rate, unweighed.rate_unit, unweighed.end - unweighed.start) == (8.0, "ug/min", HOUR)  # then OFF
    [heparin] = done(stays[21], "heparin")
    assert (heparin.rate, heparin.rate_unit) == (600.0, "[U]/h")
    told = flow.table("infusiondrug")
    assert told.read == 12 and told.dropped == {
        "no rate: whether it runs is not told": 1,
        "the same drug and moment again (in another unit, a second bag)": 1,
        "rate 0: it does not run": 3,
    }
    assert told.repaired["no weight on record: rate stays in its own unit"] == 2
    assert told.repaired["a unit in the drug's name that no table has: rate left out"] == 1


def test_eicu_orders_and_treatments(eicu):
    stays, flow = eicu
    ordered = {i.item: i for i in stays[11].interventions() if i.kind == "prescription"}
    assert set(ordered) == {"ondansetron", "vancomycin"}  # the one of furosemide was over before the admission
    assert (ordered["ondansetron"].dose, ordered["ondansetron"].unit) == (4.0, "mg")
    assert stays[11].hours(ordered["ondansetron"].start) == 0.0 and ordered["vancomycin"].end is None
    assert (ordered["vancomycin"].dose, ordered["vancomycin"].unit) == (1250.0, "mg")  # named by its number
    assert flow.table("medication").dropped == {"order cancelled": 1, "no name": 1}
    assert flow.table("medication").repaired["dosage that is no number with a unit: left out"] == 1
    kinds = Counter((i.item, i.kind) for i in stays[12].interventions() if i.kind != "prescription")
    assert kinds == {
        ("saline", "infusion"): 1, ("norepinephrine", "infusion"): 1, ("invasive_ventilation", "procedure"): 1,
        ("heparin subcutaneous", "administration"): 1,
    }  # fmt: skip
    assert flow.table("treatment").dropped == {
        "no order of ours (consultations, diets, classes without a name)": 1,
        "told with doses by the stay's infusions or blood products": 1,
    }
    assert [(i.dose, i.unit) for i in done(stays[21], "red_cells")] == [(310.0, "mL")]
    flow.check()


def test_eicu_goes_to_meds_and_back(eicu):
    stays = list(eicu[0].values())
    assert read_episodes(to_table(stays)) == sorted(stays, key=lambda e: (e.subject_id, e.started, e.stay_id))


def test_a_stay_of_more_than_seven_days_is_cut(tmp_path):
    made = small_icu.eicu_tables()
    made["patient"].loc[2, ["unitdischargeoffset", "hospitaldischargeoffset"]] = 60 * 400
    episodes, _ = load_episodes(eicu=small_icu.write_eicu(made, tmp_path), hours_per_step=4.0)
    last = episodes[-1]
    assert last.truncated and last.length_of_stay_hours == 169 and last.died_in_hospital
    assert last.died is not None and last.died > last.discharged


def _hours(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(time=(frame["time"] / pd.Timedelta(hours=1)).astype(np.int64))


EICU_FAULTS = {
    "column": ("hourly", lambda f: f.drop(columns="temp"), r"lacks the column\(s\) temp"),
    "no unit of time": ("hourly", _hours, "column time: a int64 does not say whether it counts hours"),
    "unit": ("hourly", lambda f: f.assign(temp=f["temp"] * 1.8 + 32), "another unit: .*temperature_c: 90 of 90"),
    "order": ("hourly", lambda f: f[::-1], "column time: stay .* comes to hour 28 after hour 29 .*time runs backwards"),
    "stay": ("patient", lambda f: f.assign(unitdischargeoffset=-f["unitdischargeoffset"]), "time runs backwards"),
    "person": ("patient", lambda f: f.assign(uniquepid="Ada"), "uniquepid 'Ada' is not like 002-1039"),
    "twice": ("patient", lambda f: pd.concat([f, f]), "patientunitstayid 11 has several rows"),
    "cut": ("hourly", None, "hourly.parquet cannot be read as a table .*cut short"),
    "cut beside it": ("treatment", None, "treatment.parquet cannot be read as a table .*cut short"),
}  # fmt: skip


@pytest.mark.parametrize("fault", EICU_FAULTS)
def test_eicu_refuses(tmp_path, fault, capsys):
    name, change, words = EICU_FAULTS[fault]
    made = small_icu.eicu_tables()
    if change is not None:
        made[name] = change(made[name])
    folder = small_icu.write_eicu(made, tmp_path / "raw")
    if change is None:
        path = folder / f"{name}.parquet"
        path.write_bytes(path.read_bytes()[:-100])
    _refused(["--eicu", str(folder)], tmp_path / "out", words, capsys)


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("Norepinephrine (mcg/min)", ("norepinephrine", "ug/min")),
        ("Nitroglycerin(25mg/250ml) 25 mg Dextrose 5% (glass bottle) (mcg/min)", ("nitroglycerin", "ug/min")),
        ("Propofol (Diprivan) 1000 mg  100 ml  Premix (mcg/kg/min)", ("propofol", "ug/kg/min")),
        ("Heparin ()", ("heparin", "")), ("Insulin", ("insulin", "")), ("Fentanyl (Unknown)", ("fentanyl", "")),
        ("LR (ml/hr)", ("ringers_lactate", "mL/h")), ("nss (ml/hr)", ("saline", "mL/h")),
        ("PRBC (ml/hr)", ("red_cells", "mL/h")), ("Dopamine (stones/day)", ("dopamine", None)),
        ("0.9NS w/20meq KCL (ml/hr)", ("0.9ns w/20meq kcl", "mL/h")),  # neither saline alone nor the salt alone
    ],
)  # fmt: skip
def test_units_stand_in_the_names_of_infusions(name, read):
    assert eicu_orders.infusion_of(name) == read


def test_treatments_of_one_drug_given_two_ways_stay_apart():
    path = "endocrine|glucose metabolism|insulin"
    assert eicu_orders.treatment_of(f"{path}|continuous infusion") == ("insulin", "infusion", "")
    assert eicu_orders.treatment_of(f"{path}|sliding scale administration")[0] == "insulin subcutaneous"
    pantoprazole = "gastrointestinal|medications|stress ulcer prophylaxis|pantoprazole"
    assert eicu_orders.treatment_of(f"{pantoprazole}|IV") == ("pantoprazole", "administration", "IV")
    assert eicu_orders.treatment_of("infectious diseases|medications|therapeutic antibacterials") is None


def test_charted_values_of_mimic_iii(tmp_path):
    stay = {"subject_id": 1, "hadm_id": 11}
    begin = datetime(2150, 3, 2, 8)
    rows = [
        (211, 1, "88", 88.0, "BPM", 0), (5815, 1, "50", 50.0, "BPM", 0), (8549, 1, "120", 120.0, "BPM", 0),
        (211, 2, "188", 188.0, "BPM", 1), (618, 1, "17", 17.0, "BPM", 0), (678, 1, "98.6", 98.6, "Deg. F", 0),
        (679, 1, "98.6", 98.6, "Deg. F", 0), (190, 1, ".5", 0.5, "torr", 0), (190, 3, "50", 50.0, "torr", 0),
        (211, 4, "Other/Remarks", None, "BPM", 0), (455, 1, "90", 90.0, "mmHg", 0), (8441, 1, "95", 95.0, "mmHg", 0),
        (51, 1, "110", 110.0, "mmHg", 0), (8368, 1, "60", 60.0, "mmHg", 0),
    ]  # fmt: skip
    chart = pd.DataFrame(rows, columns=["itemid", "hour", "value", "valuenum", "valueuom", "error"]).assign(**stay)
    chart["charttime"] = [begin + HOUR * h for h in chart.pop("hour")]
    admission = {"admittime": begin, "dischtime": begin + 24 * HOUR, "deathtime": None, "edregtime": None}
    admission |= dict.fromkeys(("admission_type", "admission_location", "discharge_location", "ethnicity"), "X")
    for name, frame in {
        "ADMISSIONS": pd.DataFrame([{**stay, **admission, "hospital_expire_flag": 0}]),
        "PATIENTS": pd.DataFrame([{"subject_id": 1, "gender": "F", "dob": datetime(2090, 1, 1), "dod": None}]),
        "CHARTEVENTS": chart,
    }.items():
        frame.rename(columns=str.upper).to_parquet(tmp_path / f"{name}.parquet", index=False)
    [episode], flow = load_episodes(mimic3=tmp_path, hours_per_step=1.0)
    assert values(episode, "heart_rate_bpm") == {1.0: 88.0} and values(episode, "respiratory_rate_min") == {1.0: 17.0}
    assert values(episode, "temperature_c") == {1.0: 37.0} and values(episode, "fio2_fraction") == {1.0: 0.5}
    assert values(episode, "sbp_mmhg") == {1.0: 110.0} and values(episode, "dbp_mmhg") == {1.0: 60.0}  # the line's
    assert flow.table("chartevents").dropped == {
        "what an alarm was set to, no measurement": 2,
        "marked as an error by who charted it": 1,
        "item not in the table of inquiries": 1,
        "outside the plausible range": 1,
        "no numeric result (text, blank or censored)": 1,
    }
    assert flow.table("inquiries").dropped == {"systolic below diastolic pressure: both left out": 2}
    path = tmp_path / "CHARTEVENTS.parquet"
    pq.write_table(pq.read_table(path).drop_columns("VALUENUM"), path)
    with pytest.raises(EhrDataError, match=r"CHARTEVENTS.parquet lacks the column\(s\) valuenum"):
        load_episodes(mimic3=tmp_path)


def test_alarm_limits_are_no_items_of_ours():
    from world_models.data.ehr.inquiry_items import by_itemid

    assert not mimic_iii.ALARM_LIMITS & by_itemid().keys()


def test_pressures_are_compared_within_one_cuff_and_moment():
    at = pd.Timestamp("2150-01-01").as_unit("us")
    rows = [("LAB//220179", 90.0, 0), ("LAB//220051", 95.0, 0), ("LAB//220180", 60.0, 0), ("LAB//220180", 99.0, 1)]
    empty_row = {**dict.fromkeys(INQUIRY_COLUMNS), "stay_id": 1}
    frame = pd.DataFrame([{**empty_row, "source": s, "value": v, "collected": at + h * HOUR} for s, v, h in rows])
    assert len(without_contradictions(frame, Flow())) == 4
    frame.loc[2, "value"] = 90.5
    flow = Flow()
    assert without_contradictions(frame, flow)["source"].tolist() == ["LAB//220051", "LAB//220180"]
    assert flow.table("inquiries").dropped.total() == 2


def test_another_unit_is_told_from_slips():
    flow = Flow()
    flow.values.update({"temperature_c": 1000, "heart_rate_bpm": 1000})
    flow.implausible.update({"temperature_c": 99, "heart_rate_bpm": 10})
    check_units(flow)
    again = Flow.from_dict(flow.as_dict()).add(flow)
    assert again.implausible == {"temperature_c": 198, "heart_rate_bpm": 20}
    flow.implausible["temperature_c"] = 100
    with pytest.raises(UnitError, match="temperature_c: 100 of 1000 values outside 25..45 Cel; convert"):
        check_units(flow)


def test_files_of_earlier_versions_name_no_hospital(eicu):
    table = to_table(eicu[0].values())
    told = table["text_value"].to_pylist()
    texts = [None if text is None else text.replace(', "hospital": "eICU 59"', "") for text in told]
    at = table.schema.get_field_index("text_value")
    old = read_episodes(table.set_column(at, table.schema.field(at), pa.array(texts, pa.large_string())))
    assert {e.hospital for e in old} == {"", "eICU 67"}
