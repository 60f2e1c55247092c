"""Damaged input of every kind is read, or gives one error of our own; what was read can be written, read and judged."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import mimic_example
from tests.campaign.frames import changed
from world_models.data.ehr.episode import EpisodeError
from world_models.data.ehr.filters import FilterRules, measure, select
from world_models.data.ehr.flow import Flow
from world_models.data.ehr.load import load_episodes
from world_models.data.ehr.meds.writer import EPISODE_CODE, read_episodes, to_table, write_episodes
from world_models.data.ehr.tables import EhrDataError
from world_models.data.ehr.units import UnitError

OURS = (EhrDataError, EpisodeError, UnitError)


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


@pytest.mark.slow
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


@pytest.mark.slow
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
                    '{"a":' * 100_000,
                ]
            )
        else:
            frame = changed(frame, rng, 2)
        frame.to_parquet(path, index=False)
        outcomes.append(read_or_refused(meds=path))
    assert {"read", "EhrDataError", "EpisodeError"} <= set(outcomes)


def test_facts_nested_too_deep_are_damage(own, tmp_path):
    """RecursionError is no ValueError."""
    frame = pq.read_table(own).to_pandas()
    frame.loc[frame["code"] == EPISODE_CODE, "text_value"] = "[" * 100_000
    frame.to_parquet(tmp_path / "e.parquet", index=False)
    with pytest.raises(EhrDataError, match="was not written by write_episodes, or changed since"):
        load_episodes(meds=tmp_path / "e.parquet")
