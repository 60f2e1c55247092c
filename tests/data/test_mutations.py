"""Damaged input of every kind is read, or gives one error of our own; what was read can be written, read and judged."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests import mimic_example
from world_models.data.ehr.episode import EpisodeError
from world_models.data.ehr.filters import FilterRules, measure, select
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.writer import EPISODE_CODE, read_episodes, to_table, write_episodes
from world_models.data.ehr.tables import EhrDataError
from world_models.data.ehr.units import UnitError

OURS = (EhrDataError, EpisodeError, UnitError)
CELLS = (
    "",
    "²",
    "٣",
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e400",
    "9" * 400,
    "9223372036854775808",
    "9007199254740993",
    "2,5",
    "1,000",
    "1.234,5",
    "infinity",
    "0000-00-00",
    "9999-12-31 23:59:59",
    "0001-01-01",
    "294247-01-01",
    "2150-02-30",
    "31/12/2150 10:00",
    "12/31/2150 10:00",
    "2150-03-01 10:00:00+02:00",
    "None",
    "___",
    "a//b",
    "//",
    "LAB//²//mEq/L",
    "\x00",
    "é",
    "<5",
    ">1e5",
    "1-2",
    "'",
    '"',
    "true",
    "12.7",
    "1e3",
    " 11 ",
)
CODES = (
    "HOSPITAL_ADMISSION",
    "HOSPITAL_DISCHARGE",
    "HOSPITAL_DISCHARGE//DIED",
    "MEDS_DEATH",
    "MEDS_BIRTH",
    "GENDER",
    "RACE",
    "ED_REGISTRATION",
    "INFUSION_START",
    "INFUSION_START//²",
    "PROCEDURE//START//²",
    "MEDICATION",
    "MEDICATION//START",
    "LAB",
    "LAB//" + "9" * 30,
    "DIAGNOSIS//ICD//²//",
    "DIAGNOSIS//ICD//10//",
)
TIMES = (
    pd.NaT,
    pd.Timestamp("2150-03-01"),
    pd.Timestamp("1970-01-01"),
    pd.Timestamp("2199-01-01"),
    np.datetime64(2**62, "us"),
)
NUMBERS = (0, -1, 7, 2**53 + 1, 1e38, np.nan, np.inf, -np.inf)


def read_or_refused(**source) -> str:
    """ "read", or the name of the error; anything but an error of ours fails."""
    try:
        episodes, flow = load_episodes(**source)
    except OURS as error:
        assert len(str(error)) > 20
        return type(error).__name__
    flow.check()
    select(measure(episodes), FilterRules(), Flow())
    assert read_episodes(to_table(episodes)) == sorted(episodes, key=lambda e: (e.subject_id, e.started, e.stay_id))
    return "read"


def change(frame: pd.DataFrame, rng: random.Random) -> pd.DataFrame:
    """One change: a cell mostly, else a column or rows."""
    column, kind = rng.choice(list(frame.columns)), rng.random()
    if kind < 0.7 and len(frame):
        row, place = rng.randrange(len(frame)), list(frame.columns).index(column)
        if pd.api.types.is_datetime64_any_dtype(frame[column]):
            value = rng.choice(TIMES)
        elif pd.api.types.is_numeric_dtype(frame[column]):
            value = rng.choice(NUMBERS)
            frame = frame.astype({column: "float64"}) if frame[column].dtype.kind != "f" else frame
        else:
            value = rng.choice(CELLS + CODES)
            frame = frame.astype({column: object})
        frame = frame.copy()
        frame.iat[row, place] = value
        return frame
    if kind < 0.75:
        return frame.drop(columns=column)
    if kind < 0.8:
        return frame.assign(**{column: None})
    if kind < 0.85:
        return frame.assign(**{column: frame[column].astype(str)})
    if kind < 0.9:
        return frame.iloc[:0]
    return frame.sample(frac=rng.choice([0.6, 1.5]), replace=True, random_state=rng.randrange(99)).sort_index()


def changed(frame: pd.DataFrame, rng: random.Random, most: int) -> pd.DataFrame:
    for _ in range(rng.randint(1, most)):
        if len(frame.columns) > 1:
            frame = change(frame, rng)
    return frame.reset_index(drop=True)


def test_meds_files(tmp_path):
    path, outcomes = tmp_path / "m.parquet", []
    whole = {style: mimic_example.as_meds(style) for style in ("old", "new")}
    for seed in range(40):
        rng = random.Random(seed)
        changed(whole[rng.choice(["old", "new"])], rng, 3).to_parquet(path, index=False)
        if seed % 10 == 0:
            data = bytearray(path.read_bytes())
            for _ in range(3):
                data[rng.randrange(len(data))] = rng.randrange(256)
            path.write_bytes(bytes(data))
        outcomes.append(read_or_refused(meds=path))
    assert {"read", "EhrDataError"} <= set(outcomes) and outcomes.count("read") > 10


@pytest.mark.parametrize("seed", range(6))
def test_mimic_tables(tmp_path, seed):
    rng = random.Random(seed)
    mimic_example.write(tmp_path, "parquet")
    for name in rng.sample(sorted(mimic_example.ROWS), 3):
        frame = changed(mimic_example.table(name), rng, 2)
        (tmp_path / f"{name}.parquet").unlink()
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    read_or_refused(tables=tmp_path)


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    return write_episodes(load_episodes(tables=mimic_example.write(folder, "parquet"))[0], folder / "e.parquet")


def test_episode_files(own, tmp_path):
    path, outcomes = tmp_path / "e.parquet", []
    whole = pq.read_table(own)
    told = [i for i, code in enumerate(whole.column("code").to_pylist()) if code == EPISODE_CODE]
    for seed in range(80):
        rng = random.Random(seed)
        frame = whole.to_pandas()
        if seed % 2:
            text = frame.at[told[0], "text_value"]
            frame.at[told[0], "text_value"] = rng.choice(
                [
                    "",
                    "{}",
                    "[]",
                    text[:-3],
                    text.replace("4.0", "1e300"),
                    text.replace("4.0", '"x"'),
                    text.replace("null", "5"),
                    text.replace("2150", "²150"),
                    text.replace("true", '"no"'),
                    text.replace('"race"', '"rac"'),
                    text.replace("2150-03-05", "9999-12-31"),
                    text.replace("2150-03-01T10:00:00", "2150-03-01T10:00:00+02:00"),
                    text.replace('"WHITE"', "7"),
                ]
            )
        else:
            frame = changed(frame, rng, 2)
        frame.to_parquet(path, index=False)
        outcomes.append(read_or_refused(meds=path))
    assert {"read", "EhrDataError", "EpisodeError"} <= set(outcomes)
