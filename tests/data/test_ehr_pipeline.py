from __future__ import annotations

import json
from pathlib import Path

import meds
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests import mimic_example
from world_models.data.ehr import pipeline as ehr_pipeline
from world_models.data.ehr import shards as ehr_shards
from world_models.data.ehr import tables as ehr_tables
from world_models.data.ehr.filters import FilterRules, diagnosis_category, select, split_patients
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.schema import GeneratedTrajectorySchema
from world_models.data.ehr.meds.writer import read_episodes, trajectory_table, write_trajectories
from world_models.data.ehr.shards import Source
from world_models.data.ehr.tables import EhrDataError

KEEP_ALL = FilterRules(100.0, 0.0, False)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return mimic_example.write(tmp_path_factory.mktemp("hospital"), "parquet")


@pytest.fixture(scope="module")
def dataset(raw, tmp_path_factory) -> tuple[Path, Flow]:
    out = tmp_path_factory.mktemp("out") / "dataset"
    return out, ehr_pipeline.run(Source(tables=str(raw), shards=3), out, KEEP_ALL)


def test_the_dataset_is_meds(dataset):
    out, flow = dataset
    assert (out / "flow.json").is_file() and not (out / ".work").exists()
    tables = [pq.read_table(path) for path in sorted((out / "data").glob("*.parquet"))]
    assert sum(table.num_rows for table in tables) > 60
    for table in tables:
        assert meds.DataSchema.align(table).num_rows == table.num_rows
        subjects = table.column("subject_id").to_pandas()
        assert (subjects.diff().dropna() >= 0).all()
    split = pq.read_table(out / "metadata" / "subject_splits.parquet")
    assert meds.SubjectSplitSchema.align(split).to_pandas()["subject_id"].tolist() == [1, 2]
    codes = meds.CodeMetadataSchema.align(pq.read_table(out / "metadata" / "codes.parquet")).to_pandas()
    assert set().union(*(set(table.column("code").to_pylist()) for table in tables)) == set(codes["code"])
    meds.DatasetMetadataSchema.validate(json.loads((out / "metadata" / "dataset.json").read_text()))
    assert flow.stages[-1].episodes == 3


def test_the_flow_accounts_for_every_row(dataset, raw):
    flow = Flow.read(dataset[0] / "flow.json")
    flow.check()
    for name in mimic_example.ROWS:
        assert flow.rows[name].read == len(mimic_example.ROWS[name]), name
    assert flow.rows["labevents"].dropped["item not in the table of inquiries"] == 1
    text = flow.diagram()
    assert "[stays" in text and "13 read -> 10 kept" in text and "line flush" in text
    flow.table("emar").kept -= 1
    with pytest.raises(ValueError, match="emar: 5 rows read.*1 unaccounted"):
        flow.check()


def test_loading_straight_into_memory(dataset, raw):
    own, _ = load_episodes(meds=dataset[0])
    made, flow = load_episodes(tables=raw)
    assert own == made and flow.stages[-1].episodes == 3
    fine, flow = load_episodes(meds=dataset[0], hours_per_step=1.0)
    assert [e.regrid(4.0) for e in fine] == made and flow.stages[-1].inquiries == sum(
        len(list(e.inquiries())) for e in own
    )
    with pytest.raises(EhrDataError, match="no parquet file"):
        load_episodes(meds=dataset[0] / "nothing")


def test_flows_of_shards_add_up():
    total, whole = Flow(), Flow()
    for n in (2, 3):
        part = Flow()
        for flow in (part, whole):
            flow.table("t").read += n
            flow.table("t").kept += 1
            flow.drop("t", "why", n - 1)
            flow.stage("s", {"late": n}, patients=n, episodes=n)
        total.add(part)
    assert total.as_dict() == whole.as_dict() == Flow.from_dict(whole.as_dict()).as_dict()


def test_a_stopped_run_goes_on_and_gives_the_same(raw, tmp_path, monkeypatch, dataset):
    out = tmp_path / "out"

    def die(folder):
        real(folder)
        raise KeyboardInterrupt

    real = ehr_pipeline.process_shard
    monkeypatch.setattr(ehr_pipeline, "process_shard", die)
    source = Source(tables=str(raw), shards=3)
    with pytest.raises(KeyboardInterrupt):
        ehr_pipeline.run(source, out, KEEP_ALL)
    assert not (out / "data").exists() and not (out / "flow.json").exists()
    with pytest.raises(EhrDataError, match="other arguments"):
        ehr_pipeline.run(Source(tables=str(raw), shards=3, hours_per_step=2.0), out, KEEP_ALL)
    monkeypatch.undo()
    monkeypatch.setattr(ehr_tables, "connect", lambda *_: pytest.fail("a table was read twice"))
    ehr_pipeline.run(source, out, KEEP_ALL)
    assert files(out) == files(dataset[0])
    for name in files(out / "data"):
        assert pq.read_table(out / "data" / name).equals(pq.read_table(dataset[0] / "data" / name))


def test_a_dataset_is_not_overwritten(raw, dataset):
    with pytest.raises(EhrDataError, match="holds a dataset already"):
        ehr_pipeline.run(Source(tables=str(raw)), dataset[0], KEEP_ALL)


def _spoil(folder: Path, name: str, how) -> None:
    path = folder / f"{name}.parquet"
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-100])
    elif how == "gone":
        path.unlink()
    else:
        how(pd.read_parquet(path)).to_parquet(path, index=False)


def _mixed_units(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(valueuom=np.where(frame["itemid"] == "50971", "mg/mL", frame["valueuom"]))


def _backwards(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(admittime=frame["dischtime"], dischtime=frame["admittime"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how", "words"),
    [
        ("admissions", "gone", "lacks the table"),
        ("labevents", "cut", "labevents.parquet cannot be read as a table"),
        ("labevents", lambda frame: frame.drop(columns="valueuom"), r"lacks the column\(s\) valueuom"),
        ("labevents", _mixed_units, "mixed units: .*potassium_mmol_l: 5 of 6 values in 'mg/mL' x 5"),
        ("admissions", _backwards, "no episode is left.*\n(.*\n)*.*discharge before admission: time runs backwards"),
    ],
)
def test_bad_tables_leave_nothing_half_written(tmp_path, name, how, words, capsys):
    folder = mimic_example.write(tmp_path / "raw", "parquet")
    _spoil(folder, name, how)
    out = tmp_path / "out"
    with pytest.raises(ValueError, match=words):
        ehr_pipeline.run(Source(tables=str(folder), shards=1), out, KEEP_ALL)
    assert not [name for name in files(out) if not name.startswith(".work/")] and not list(out.rglob("*.part"))
    arguments = ["--tables", str(folder), "--out", str(tmp_path / "other"), "--quiet", "--no-filters", "--shards", "1"]
    assert ehr_pipeline.main(arguments) == 2 and "error: " in capsys.readouterr().err


def test_a_csv_cut_short(tmp_path):
    folder = mimic_example.write(tmp_path / "raw")
    path = folder / "hosp" / "labevents.csv.gz"
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(EhrDataError, match="labevents.csv.gz cannot be read as a table"):
        ehr_shards.prepare(Source(tables=str(folder)), tmp_path / "work", quiet=True)
    assert not list((tmp_path / "work").rglob("labevents*"))


def test_sources_exclude_each_other():
    for fields in ({}, {"tables": "a", "mimic3": "b"}, {"meds": "a", "challenge2012": "b"}):
        with pytest.raises(EhrDataError, match="give one source"):
            Source(**fields)
    with pytest.raises(EhrDataError, match="hours_per_step"):
        Source(meds="a", hours_per_step=0)


def test_the_command(raw, tmp_path, capsys):
    arguments = [
        "--tables",
        str(raw),
        "--out",
        str(tmp_path / "o"),
        "--hours-per-step",
        "6",
        "--no-filters",
        "--quiet",
        "--jobs",
        "2",
        "--shards",
        "2",
    ]
    assert ehr_pipeline.main(arguments) == 0
    printed = capsys.readouterr().out
    assert "3 episodes" in printed and "peak memory" in printed
    episodes = [e for path in (tmp_path / "o" / "data").glob("*.parquet") for e in read_episodes(path)]
    assert {e.stay_id for e in episodes} == {11, 21, 22} and {e.hours_per_step for e in episodes} == {6.0}


def test_rollouts_are_generated_trajectories(dataset, tmp_path):
    episodes = [e for path in (dataset[0] / "data").glob("*.parquet") for e in read_episodes(path)]
    since = {(e.subject_id, e.stay_id): e.steps[0].start for e in episodes}
    table = trajectory_table(episodes, since)
    assert GeneratedTrajectorySchema.align(table).equals(table)
    frame = table.to_pandas()
    assert len(frame) and (frame["time"] > frame["prediction_time"]).all()
    paths = write_trajectories([episodes, episodes], since, tmp_path / "samples")
    assert [path.name for path in paths] == ["0000.parquet", "0001.parquet"]
    assert pq.read_table(paths[1]).num_rows == table.num_rows
    with pytest.raises(ValueError, match="no prediction time"):
        trajectory_table(episodes, {})
    upstream = pytest.importorskip("MEDS_trajectory_evaluation.schema")
    upstream.GeneratedTrajectorySchema.validate(table)


def measures(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "subject_id": rng.integers(0, n // 2, n),
            "stay_id": np.arange(n),
            "started": pd.Timestamp("2150-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), unit="min"),
            "category": rng.choice(["circulatory", "infection", "injury"], n, p=[0.6, 0.3, 0.1]),
            "length_of_stay_hours": rng.exponential(100, n),
            "values": rng.poisson(200, n),
            "cultures": rng.poisson(3, n),
            "drugs": rng.poisson(2, n),
            "drugs_ordered": rng.poisson(5, n),
            "events": rng.poisson(250, n),
            "inquiries": 1,
            "interventions": 1,
        }
    )


def test_the_papers_filters():
    whole, flow = measures(2000), Flow()
    left = select(whole, FilterRules(), flow)
    for name in ("length_of_stay_hours", "values", "cultures", "drugs", "events"):
        assert left[name].max() <= np.percentile(whole[name], 90)
    assert left["events"].min() >= np.percentile(whole["events"], 10) and left["drugs"].min() >= 1
    dropped = sum(sum(stage.dropped.values()) for stage in flow.stages)
    assert dropped == len(whole) - len(left) and flow.stages[-1].episodes == len(left)
    assert select(whole, KEEP_ALL, Flow()).equals(whole)
    ordered = whole.assign(drugs=0)
    flow = Flow()
    assert (select(ordered, FilterRules(), flow)["drugs_ordered"] > 0).all() and "prescriptions" in flow.notes[0]
    with pytest.raises(ValueError, match="0 <= lower < upper"):
        FilterRules(10.0, 90.0)


def test_patients_are_split_not_stays():
    whole = measures(3000)
    sides = split_patients(whole, (0.7, 0.1, 0.2), seed=3)
    assert set(sides) == set(whole["subject_id"]) and sides == split_patients(
        whole.sample(frac=1, random_state=1), (0.7, 0.1, 0.2), seed=3
    )
    assert sides != split_patients(whole, (0.7, 0.1, 0.2), seed=4)
    first = whole.sort_values(["subject_id", "started"]).drop_duplicates("subject_id")
    for _, group in first.groupby("category"):
        shares = group["subject_id"].map(sides).value_counts(normalize=True)
        assert abs(shares["train"] - 0.7) < 0.03 and abs(shares["held_out"] - 0.2) < 0.03
    with pytest.raises(ValueError, match="add up to 1"):
        split_patients(whole, (0.7, 0.1, 0.1))


@pytest.mark.parametrize(
    ("version", "code", "category"),
    [
        ("9", "0389", "infection"),
        ("9", "4280", "circulatory"),
        ("9", "V3000", "contact"),
        ("9", "E8780", "external"),
        ("10", "I509", "circulatory"),
        ("10", "D509", "blood"),
        ("10", "D12", "neoplasm"),
        ("10", "T8111", "injury"),
        ("9", "x", "unknown"),
        ("10", "", "unknown"),
        ("9", "99859", "injury"),
    ],
)
def test_categories_of_diagnoses(version, code, category):
    assert diagnosis_category(version, code) == category


def test_what_cannot_be_read_leaves_nothing_and_the_right_path_is_taken_next(tmp_path: Path) -> None:
    wrong, out = tmp_path / "wrong", tmp_path / "out"
    wrong.mkdir()
    for source in (Source(meds=str(wrong)), Source(eicu=str(wrong)), Source(challenge2019=str(wrong))):
        with pytest.raises(EhrDataError, match="wrong"):
            ehr_pipeline.run(source, out)
        assert not out.exists()
    out.mkdir()
    (out / "note.txt").write_text("mine")
    with pytest.raises(EhrDataError):
        ehr_pipeline.run(Source(tables=str(wrong)), out)
    assert [path.name for path in out.iterdir()] == ["note.txt"]
