"""The readers on the real demos: a share of the patients of each, so that the tests stay fast."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.data.small_hospital import SAME_EITHER_WAY
from world_models.data.ehr import inquiry_items, intervention_items, units
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.meds.writer import read_episodes, to_table
from world_models.data.ehr.shards import Source, prepare, process_shard
from world_models.data.ehr.sources import eicu, mimic_iii, mimic_iv
from world_models.data.ehr.tables import find_table

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
MIMIC4, MIMIC3, CHALLENGE = DATA / "mimic_iv_demo", DATA / "mimic_iii_demo", DATA / "challenge_2012"
CHALLENGE_2019, EICU = DATA / "challenge_2019" / "training_set_b.parquet", DATA / "eicu_demo"
MEDS = MIMIC4 / "meds_events.parquet"
needs_mimic4 = pytest.mark.skipif(not MEDS.is_file(), reason=f"no MIMIC-IV demo at {MIMIC4} (set CLINENV_DATA)")
needs_mimic3 = pytest.mark.skipif(not MIMIC3.is_dir(), reason=f"no MIMIC-III demo at {MIMIC3} (set CLINENV_DATA)")
needs_challenge = pytest.mark.skipif(
    not CHALLENGE.is_dir(), reason=f"no Challenge 2012 at {CHALLENGE} (set CLINENV_DATA)"
)
needs_challenge_2019 = pytest.mark.skipif(
    not CHALLENGE_2019.is_file(), reason=f"no Challenge 2019 at {CHALLENGE_2019} (set CLINENV_DATA)"
)
needs_eicu = pytest.mark.skipif(not EICU.is_dir(), reason=f"no eICU demo at {EICU} (set CLINENV_DATA)")

# What a ward's median may be: wide enough for the sick, too narrow for a wrong unit.
MEDIANS = {
    "sodium_mmol_l": (134, 143), "potassium_mmol_l": (3.6, 4.6), "chloride_mmol_l": (96, 110),
    "bicarbonate_mmol_l": (20, 29), "urea_nitrogen_mg_dl": (10, 40), "creatinine_mg_dl": (0.6, 2.0),
    "glucose_mg_dl": (90, 170), "calcium_mg_dl": (7.5, 9.8), "magnesium_mg_dl": (1.6, 2.5),
    "phosphate_mg_dl": (2.4, 4.8), "albumin_g_dl": (2.2, 4.4), "lactate_mmol_l": (0.8, 3.5), "alt_u_l": (10, 90),
    "bilirubin_mg_dl": (0.3, 2.5), "white_cells_k_ul": (5, 15), "haemoglobin_g_dl": (8, 14),
    "haematocrit_percent": (25, 42), "platelets_k_ul": (110, 320), "inr": (0.9, 1.9), "ptt_s": (24, 50),
    "ph": (7.3, 7.46), "pco2_mmhg": (34, 48), "po2_mmhg": (60, 180), "heart_rate_bpm": (70, 105),
    "sbp_mmhg": (100, 140), "dbp_mmhg": (48, 75), "map_mmhg": (65, 95), "respiratory_rate_min": (14, 24),
    "spo2_percent": (94, 99), "temperature_c": (36.3, 37.6), "gcs": (9, 15), "urine_output_ml": (30, 200),
    "fio2_fraction": (0.35, 0.6),
}  # fmt: skip


def share(folder: Path, names, subjects: set[int], out: Path) -> Path:
    """The tables of some patients, as parquet."""
    out.mkdir()
    for name in names:
        path = find_table(folder, name)
        if path is not None:
            frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, dtype=str)
            column = next(c for c in frame.columns if c.lower() == "subject_id")
            frame[frame[column].astype(int).isin(subjects)].to_parquet(out / f"{name}.parquet", index=False)
    return out


def episodes_of(source: Source, work: Path):
    made, flow = [], Flow()
    for shard in prepare(source, work, quiet=True):
        made += read_episodes(process_shard(shard))
        flow.add(Flow.read(shard / "flow.json"))
    flow.check()
    return made, flow


def medians(episodes) -> dict[str, tuple[float, int]]:
    values: dict[str, list[float]] = {}
    for e in episodes:
        for q in e.inquiries():
            if q.value is not None:
                values.setdefault(q.item, []).append(q.value)
    return {item: (float(np.median(v)), len(v)) for item, v in values.items()}


def check_medians(episodes, at_least: int) -> None:
    found = medians(episodes)
    checked = {item: found[item] for item in MEDIANS if found.get(item, (0, 0))[1] >= 50}
    assert len(checked) >= at_least, f"only {sorted(checked)}"
    wrong = {i: m for i, (m, _) in checked.items() if not MEDIANS[i][0] <= m <= MEDIANS[i][1]}
    assert not wrong, wrong
    for item, (median, _) in found.items():
        quantity = inquiry_items.by_name(item)
        assert quantity.low <= median <= quantity.high


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """(from MEDS, from the tables) of every sixth patient."""
    root = tmp_path_factory.mktemp("demo")
    ids = sorted(set(pq.read_table(MEDS, columns=["subject_id"]).column(0).to_pylist()))[::6]
    part = pq.read_table(MEDS, filters=[("subject_id", "in", ids)])
    pq.write_table(part, root / "meds.parquet")
    tables = share(MIMIC4, mimic_iv.TABLES, set(ids), root / "tables")
    from_meds = episodes_of(Source(meds=str(root / "meds.parquet"), shards=1), root / "m")
    from_tables = episodes_of(Source(tables=str(tables), shards=1), root / "t")
    return from_meds, from_tables


@needs_mimic4
def test_meds_demo_makes_sense(demo):
    (episodes, flow), _ = demo
    assert len({e.subject_id for e in episodes}) == 14 and len(episodes) >= 25
    assert sum(len(step.inquiries) for e in episodes for step in e.steps) > 10_000
    check_medians(episodes, at_least=30)
    assert all(e.age_years and 18 <= e.age_years <= 100 for e in episodes)
    lost = flow.table("inquiries").dropped["same item, collection time and value again"]
    assert 0.02 < lost / flow.table("inquiries").read < 0.3  # charted copies of labs
    kinds = {i.kind for e in episodes for i in e.interventions()}
    assert kinds == {"administration", "infusion", "procedure", "prescription"}
    rates = [i.rate for e in episodes for i in e.interventions() if i.item == "norepinephrine" and i.rate is not None]
    assert 0.01 < np.median(rates) < 0.5  # ug/kg/min


@needs_mimic4
def test_meds_demo_round_trip_loses_nothing(demo):
    (episodes, _), (others, _) = demo
    for made in (episodes, others):
        assert read_episodes(to_table(made)) == sorted(made, key=lambda e: (e.subject_id, e.started, e.stay_id))


@needs_mimic4
def test_the_same_stay_through_meds_and_through_tables(demo):
    (episodes, _), (others, _) = demo
    through_meds = {(e.subject_id, e.admitted): e for e in episodes}
    through_tables = {(e.subject_id, e.admitted): e for e in others}
    assert through_meds.keys() == through_tables.keys()
    ends = wrong_ends = starts = wrong_starts = urine = 0
    for key, a in through_meds.items():
        b = through_tables[key]
        for name in SAME_EITHER_WAY:
            assert getattr(a, name) == getattr(b, name), (key, name)
        # the shared tables went through a spreadsheet, which took the zeros off ICD-9 codes
        assert {(d.version, d.code.lstrip("0")) for d in a.diagnoses} == {
            (d.version, d.code.lstrip("0")) for d in b.diagnoses
        }
        outputs = [{(q.collected, q.value) for q in e.inquiries() if q.item == "urine_output_ml"} for e in (a, b)]
        assert outputs[0] == outputs[1]
        urine += len(outputs[0])
        done = [{(i.item, i.start, i.source) for i in e.interventions() if i.kind == "procedure"} for e in (a, b)]
        assert done[0] == done[1]
        begun = [{(i.item, i.start) for i in e.interventions() if i.kind == "prescription"} for e in (a, b)]
        starts += len(begun[1])
        wrong_starts += len(begun[0] ^ begun[1])
        closed = [
            {(i.item, i.start, i.end) for i in e.interventions() if i.kind == "prescription" and i.end} for e in (a, b)
        ]
        ends += len(closed[0])
        wrong_ends += len(closed[0] - closed[1])
    assert urine > 300 and starts > 1000 and ends > 300
    assert wrong_starts <= 0.01 * starts  # drugs that the pharmacy does not name and the prescription does
    assert wrong_ends <= 0.03 * ends  # orders that end before they start, in the tables


@needs_mimic4
def test_tables_demo(demo):
    _, (episodes, flow) = demo
    assert flow.table("pharmacy").repaired["end before start: end blanked"] > 0
    cultures = [q for e in episodes for q in e.inquiries() if q.item.startswith("culture//")]
    waits = [(q.resulted - q.collected) / timedelta(hours=1) for q in cultures if q.resulted is not None]
    assert len(cultures) > 80 and 20 < np.median(waits) < 120
    assert {q.label for q in cultures} >= {"negative", "escherichia coli"}
    dosed = [i for e in episodes for i in e.interventions() if i.kind == "prescription"]
    assert sum(i.dose is not None and bool(i.unit) for i in dosed) > 0.8 * len(dosed)


@needs_mimic3
def test_mimic_iii_demo(tmp_path):
    ids = set(sorted(pd.read_csv(MIMIC3 / "PATIENTS.csv.gz")["SUBJECT_ID"])[::6])
    tables = share(MIMIC3, mimic_iii.TABLES, ids, tmp_path / "raw")
    episodes, flow = episodes_of(Source(mimic3=str(tables), shards=2), tmp_path / "work")
    assert len({e.subject_id for e in episodes}) == 17
    check_medians(episodes, at_least=20)
    assert max(e.age_years for e in episodes) <= 90
    done = [i for e in episodes for i in e.interventions()]
    assert {i.kind for i in done} == {"infusion", "prescription", "procedure"}
    rates = [i.rate for i in done if i.item == "norepinephrine" and i.rate is not None]  # both systems
    assert len(rates) > 50 and 0.01 < np.median(rates) < 0.5
    assert any(q.item.startswith("culture//blood") for e in episodes for q in e.inquiries())
    assert flow.table("inputevents_mv").dropped["rewritten (replaced by another row)"] > 0
    charted = [q for e in episodes for q in e.inquiries() if q.item == "heart_rate_bpm"]
    assert {q.source for q in charted} == {"LAB//211", "LAB//220045"} and len(charted) > 500  # both systems
    assert flow.table("chartevents").dropped["what an alarm was set to, no measurement"] > 1000
    told = flow.table("prescriptions").repaired["a date without a time, the admission's: begins with the admission"]
    first = [i for e in episodes for i in e.interventions() if i.kind == "prescription" and i.start == e.admitted]
    assert told > 100 and len(first) > 100


@needs_challenge
def test_challenge_2012(tmp_path):
    ids = list(range(132539, 132700))
    rows = pq.read_table(CHALLENGE / "measurements.parquet", filters=[("RecordID", "in", ids)])
    pq.write_table(rows, tmp_path / "measurements.parquet")
    pd.read_csv(CHALLENGE / "outcomes.csv.gz").to_csv(tmp_path / "outcomes.csv", index=False)
    episodes, flow = episodes_of(Source(challenge2012=str(tmp_path), shards=2), tmp_path / "work")
    assert len(episodes) > 60 and all(e.truncated and e.length_of_stay_hours == 48 for e in episodes)
    check_medians(episodes, at_least=20)
    assert 0.03 < np.mean([e.died_in_hospital for e in episodes]) < 0.3
    assert 50 < np.median([e.age_years for e in episodes]) < 75
    weights = [q.value for e in episodes for q in e.inquiries() if q.item == "weight_kg"]
    assert 60 < np.median(weights) < 100 and min(weights) >= 20
    assert flow.table("measurements").dropped["-1: missing"] > 0
    assert any(i.item == "invasive_ventilation" for e in episodes for i in e.interventions())


@needs_challenge_2019
def test_challenge_2019(tmp_path):
    pq.write_table(pq.read_table(CHALLENGE_2019, filters=[("patient", "<", 100201)]), tmp_path / "b.parquet")
    episodes, flow = episodes_of(
        Source(challenge2019=str(tmp_path / "b.parquet"), hours_per_step=1.0, shards=2), tmp_path / "work"
    )
    assert len(episodes) > 100 and all(e.truncated and e.hospital == "challenge 2019 B" for e in episodes)
    check_medians(episodes, at_least=20)
    assert 50 < np.median([e.age_years for e in episodes]) < 75
    found = medians(episodes)
    assert 1.0 < found["ionized_calcium_mmol_l"][0] < 1.3 and found["ionized_calcium_mmol_l"][1] > 30
    assert flow.table("values").dropped["calcium between ionised (mmol/L) and total (mg/dL): unclear which"] > 0
    again = [e.regrid(4.0) for e in episodes]
    assert sum(len(list(e.inquiries())) for e in again) == flow.stages[-1].inquiries


@needs_eicu
def test_eicu_demo(tmp_path):
    patient = pd.read_parquet(EICU / "patient.parquet")
    some = patient[patient["hospitalid"].isin(sorted(patient["hospitalid"].unique())[::8])]
    folder = tmp_path / "raw"
    folder.mkdir()
    for name in eicu.TABLES:
        rows = pq.read_table(EICU / f"{name}.parquet", filters=[("patientunitstayid", "in", list(some.iloc[:, 0]))])
        pq.write_table(rows, folder / f"{name}.parquet")
    episodes, flow = episodes_of(Source(eicu=str(folder), hours_per_step=1.0, shards=2), tmp_path / "work")
    assert len(episodes) == len(some) and len({e.subject_id for e in episodes}) == some["uniquepid"].nunique()
    assert {e.hospital for e in episodes} == {f"eICU {h}" for h in some["hospitalid"]}
    check_medians(episodes, at_least=20)
    dead = some["hospitaldischargestatus"].eq("Expired") | some["unitdischargestatus"].eq("Expired")
    assert sum(bool(e.died_in_hospital) for e in episodes) == dead.sum() > 0
    done = [i for e in episodes for i in e.interventions()]
    assert {i.kind for i in done} == {"administration", "infusion", "prescription", "procedure"}
    rates = [i.rate for i in done if i.item == "norepinephrine" and i.rate_unit == "ug/kg/min"]
    assert len(rates) > 20 and 0.01 < np.median(rates) < 0.5
    told = [i for i in done if i.kind == "prescription"]
    assert sum(i.item in intervention_items.by_name() for i in told) > 0.7 * len(told)
    assert flow.table("medication").repaired["no name: named by the number of its ingredients"] > 100


@needs_mimic4
def test_the_units_of_the_whole_demo_are_known():
    """One item of which more than a hundredth cannot be converted stops the whole run: every patient's codes count."""
    table = pq.read_table(MEDS, columns=["code", "value"]).to_pandas().dropna()
    lost, there = {}, {}
    for code, count in table["code"].value_counts().items():
        found = inquiry_items.parse_lab_code(code)
        if found is None or found.itemid not in inquiry_items.by_itemid():
            continue
        item = inquiry_items.by_itemid()[found.itemid]
        unit = units.spell(found.unit) or inquiry_items.UNIT_IF_MISSING.get(found.itemid, "")
        unit = inquiry_items.UNIT_INSTEAD.get(found.itemid, unit)
        there[item.name] = there.get(item.name, 0) + count
        if not unit or units.conversion(item.name, unit, item.unit) is None:
            lost[item.name] = lost.get(item.name, 0) + count
    assert not {name: n for name, n in lost.items() if n > 0.01 * there[name]}
