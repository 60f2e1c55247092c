"""Recorded stays: the chart is the record's until the branching point, then a world goes on."""

from __future__ import annotations

import math
import os
from datetime import datetime, timedelta
from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

import clinenv  # noqa: F401 - registers the ids
from clinenv.envs.ehr_ward.record import history_of
from clinenv.envs.ehr_ward.recorded_stays import RecordedStays
from clinenv.testing import check_env, check_vector_env
from tests.toy_ward import InferringToyWard, ToyWard
from world_models.data.ehr.episode import InquiryEvent, InterventionEvent, PatientEpisode, build_episode
from world_models.data.ehr.meds.writer import write_episodes
from world_models.quantities.ward import INQUIRIES, inquiry_index, intervention_index, order_index

DATA = Path(os.environ.get("CLINENV_DATA", Path(__file__).resolve().parents[2] / "../shared/data"))
START = datetime(2150, 3, 1, 8, 0)
UNITS = {q.name: q.unit for q in INQUIRIES}


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def lab(item: str, value: float, drawn: float, came: float | None = None, unit: str | None = None) -> InquiryEvent:
    return InquiryEvent(item, value, None, at(drawn), None if came is None else at(came), unit or UNITS[item], "LAB//1")


def stay(stay_id: int = 1, days: float = 4.0, extra: tuple = (), age: float = 70.0) -> PatientEpisode:
    done = [
        InterventionEvent("furosemide", "administration", at(9), None, 40.0, "mg", None, "", "IV", "x"),
        InterventionEvent("norepinephrine", "infusion", at(14), at(22), None, "", 0.1, "ug/kg/min", "IV", "x"),
        InterventionEvent("furosemide", "administration", at(40), None, 80.0, "mg", None, "", "IV", "x"),
    ]
    asked = [
        lab("potassium_mmol_l", 4.0, 1.0, 2.0),
        lab("potassium_mmol_l", 5.1, 11.0, 13.0),
        lab("potassium_mmol_l", 6.6, 23.0, 25.0),
        lab("heart_rate_bpm", 88.0 + stay_id, 20.5),
        lab("heart_rate_bpm", 200.0, 30.0),
        InquiryEvent("culture//blood_culture//aerobic", None, "ESCHERICHIA COLI", at(3), at(30), "", "MICRO//1"),
        InquiryEvent("culture//urine//routine", None, "no growth", at(2), at(20), "", "MICRO//2"),
        InquiryEvent("urine_output_ml", 200.0, None, at(17), None, "mL", "OUT//1"),
        InquiryEvent("urine_output_ml", 120.0, None, at(19), None, "mL", "OUT//1"),
        *extra,
    ]
    end = at(24 * days)
    return build_episode(
        subject_id=stay_id,
        stay_id=stay_id,
        started=START,
        admitted=START,
        discharged=end,
        inquiries=asked,
        interventions=done,
        age_years=age,
        sex_female=True,
        died_in_hospital=False,
    )


def make(**kwargs) -> gymnasium.Env:
    kwargs = {"stays": [stay(1), stay(2, age=50.0)], "world": InferringToyWard(hazard=0.0, leaves=0.0), **kwargs}
    return gymnasium.make("EHRReplay-v0", **kwargs)


def test_the_record_reads_as_the_ward_would_have_charted_it() -> None:
    history = history_of([stay()], 24.0)
    chart = {name: x[0] for name, x in history.charts.items()}
    k, hr, urine = (inquiry_index(n) for n in ("potassium_mmol_l", "heart_rate_bpm", "urine_output_ml_h"))
    assert history.hours.tolist() == [[0, 4, 8, 12, 16, 20, 24]]
    values = chart["potassium_mmol_l"].tolist()
    assert math.isnan(values[0]) and values[1:] == pytest.approx([4.0, 4.0, 4.0, 5.1, 5.1, 5.1])
    assert chart["inquiry_age_hours"][:, k].tolist() == pytest.approx([336, 3, 7, 11, 5, 9, 13])
    assert chart["inquiry_pending"][:, k].tolist() == [0, 0, 0, 1, 0, 0, 1], "drawn, and not yet back"
    assert chart["heart_rate_bpm"][-1] == 89.0 and chart["inquiry_age_hours"][-1, hr] == 3.5
    assert chart["urine_output_ml_h"][-1] == 80.0 and chart["inquiry_age_hours"][-1, urine] == 4.0
    assert chart["blood_culture"].isnan().all() and chart["inquiry_pending"][-1, inquiry_index("blood_culture")] == 1
    assert chart["urine_culture"][-1] == 0.0 and chart["inquiry_seen"][-1, inquiry_index("urine_culture")] == 1
    furosemide, pressor = (intervention_index(n) for n in ("furosemide_mg", "norepinephrine_ug_kg_min"))
    assert chart["treatment_share"][:, furosemide].tolist() == pytest.approx([0, 0, 0, 40 / 240, 0, 0, 0])
    assert chart["treatment_age_hours"][:, furosemide].tolist() == [96, 96, 96, 0, 4, 8, 12]
    # a rate of 0.1 from hour 14 to 22: half of the step to 16, all of that to 20, half of that to 24
    assert (chart["treatment_share"][:, pressor] * 2).tolist() == pytest.approx([0, 0, 0, 0, 0.05, 0.1, 0.05])
    actions = history.actions[0]
    assert actions[2, order_index("furosemide_mg")] == 40.0, "given after the visit at hour 8"
    assert actions[2, order_index(INQUIRIES[k].order)] == 1.0 and not actions[-1].any()
    # urine of hours 16 to 20 is read off at 20, so it was asked for at 16
    assert actions[:, order_index(INQUIRIES[urine].order)].tolist() == [0, 0, 0, 0, 1, 0, 0]
    assert chart["age_years"].tolist() == [70.0] * 7 and chart["weight_kg"].isnan().all()


def test_nothing_of_the_future_is_in_the_record() -> None:
    later = [lab("potassium_mmol_l", 9.0, 24.5, 25.0), lab("glucose_mg_dl", 300.0, 40.0, 41.0)]
    later += [lab("lactate_mmol_l", 3.0, 23.0, 26.0)]
    for name, x in history_of([stay()], 24.0).charts.items():
        with_future = history_of([stay(extra=tuple(later))], 24.0).charts[name]
        if name == "inquiry_pending":
            x = x.clone()
            x[:, -1, inquiry_index("lactate_mmol_l")] = 1.0  # that it was sent is known
        assert torch.equal(x.nan_to_num(-9), with_future.nan_to_num(-9)), name


def test_the_chart_at_the_branching_point_is_the_record() -> None:
    env = make().unwrapped
    for seed in range(3):
        _, info = env.reset(seed=seed)
        stay_id, history = env.record()
        assert info["hours"] == 24.0 and stay_id in (1, 2)
        told = 0
        for name, value in env.chart.items():
            last = history.charts[name][:, -1]
            known = ~last.isnan()
            told += int(known.sum())
            assert torch.equal(value[known], last[known]), name
        assert told > 150 and float(env.chart["heart_rate_bpm"]) == 88.0 + stay_id
    observation, *_ = env.step(np.zeros(69, dtype=np.int8))
    assert env.describe(observation)["hours"] == pytest.approx(28.0)
    assert float(env.chart["heart_rate_bpm"]) == 88.0 + stay_id, "what comes next is the world's, not the record's 200"


def test_options_say_which_stay_and_from_when() -> None:
    env = make().unwrapped
    _, info = env.reset(seed=0, options={"stay_id": 2, "hour": 48})
    assert env.record()[0] == 2 and info["hours"] == 48.0 and float(env.chart["heart_rate_bpm"]) == 200.0
    assert float(env.chart["age_years"]) == 50.0 and float(env.chart["treatment_age_hours"][0, 10]) == 4.0
    kept = env.snapshot()
    for options, words in (
        ({"stay_id": 3}, "no stay 3.*1, 2"),
        ({"hour": 25}, "try 24"),
        ({"hour": 96}, "earlier hour"),
    ):
        with pytest.raises(ValueError, match=words):
            env.reset(options=options)
    assert env.snapshot() == kept
    assert {(env.reset()[1]["hours"], env.record()[0]) for _ in range(12)} == {(24.0, 1), (24.0, 2)}


def test_the_picture_shows_the_record_before_the_branching_point() -> None:
    env = make(render_mode="rgb_array", hour=48).unwrapped
    env.reset(seed=0, options={"stay_id": 1})
    with_record = env.render()
    env._trend.start()
    assert with_record.shape == env.render().shape and not np.array_equal(with_record, env.render())
    env.step(np.ones(69, dtype=np.int8))
    assert env.render().shape == with_record.shape


def test_a_vector_draws_each_patient_from_the_branching_point_on() -> None:
    """The record before it is in the single environment's picture alone."""
    many = gymnasium.make_vec(
        "EHRReplay-v0",
        num_envs=3,
        vectorization_mode="vector_entry_point",
        stays=[stay(1), stay(2, age=50.0)],
        world=InferringToyWard(hazard=0.0, leaves=0.0),
        render_mode="rgb_array",
    )
    many.reset(seed=[0, 1, 2], options={"stay_id": 2})
    single = make(render_mode="rgb_array").unwrapped
    single.reset(seed=1, options={"stay_id": 2})
    single._trend.start()
    frames = many.render()
    assert len(frames) == 3 and frames[0].dtype == np.uint8 and np.array_equal(frames[1], single.render())
    many.step(np.ones((3, 69), dtype=np.int8))
    assert [f.shape for f in many.render()] == [f.shape for f in frames]
    assert not np.array_equal(many.render()[0], frames[0])


def test_a_damaged_file_is_refused_before_anything_is_made(tmp_path) -> None:
    import pyarrow.parquet as pq

    path = write_episodes([stay(1), stay(2)], tmp_path / "stays.parquet")
    cut, lacking = tmp_path / "cut.parquet", tmp_path / "lacking.parquet"
    cut.write_bytes(path.read_bytes()[:-100])
    pq.write_table(pq.read_table(path).drop(["code"]), lacking)
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for source, words in (
        (cut, "cut.parquet cannot be read as parquet.*cut short or damaged; fetch or write it again"),
        (lacking, r"lacks the column\(s\) code of MEDS"),
        (tmp_path / "empty", "no parquet file at .*empty; give a MEDS file, or a folder"),
    ):
        with pytest.raises(ValueError, match=words):
            make(stays=source)
    assert sorted(tmp_path.rglob("*")) == before


def test_it_is_n_single_environments() -> None:
    world, stays = InferringToyWard(hazard=0.2), [stay(i) for i in range(1, 6)]
    check_env(lambda: make(stays=stays, world=world))
    check_vector_env(
        lambda **kwargs: gymnasium.make_vec(
            "EHRReplay-v0", vectorization_mode="vector_entry_point", stays=stays, world=world, **kwargs
        ),
        lambda: make(stays=stays, world=world),
        num_envs=2,
        steps=8,
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"stay_id": 1.5}, "stay_id=1.5"),
        ({"stay_id": "x"}, "stay_id='x'"),
        ({"hour": "noon"}, "hour='noon'"),
        ([1], "is a list"),
    ],
)
def test_a_stay_and_hour_that_are_none_are_refused(options, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(stays=[stay(1)], world=InferringToyWard()).reset(options=options)


def test_a_meds_file_is_a_source(tmp_path) -> None:
    path = write_episodes([stay(1), stay(2)], tmp_path / "stays.parquet")
    from_file, from_memory = make(stays=path), make(stays=[stay(1), stay(2)])
    assert np.array_equal(from_file.reset(seed=4)[0], from_memory.reset(seed=4)[0])


def test_real_stays_are_shown_as_recorded(tmp_path) -> None:
    source = DATA / "mimic_iv_demo" / "meds_events.parquet"
    if not source.is_file():
        pytest.skip(f"no {source}: set CLINENV_DATA to the folder with mimic_iv_demo")
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    subjects = pc.unique(table["subject_id"]).to_pylist()[:4]
    few = table.filter(pc.is_in(table["subject_id"], value_set=pa.array(subjects)))
    pq.write_table(few, tmp_path / "few.parquet")
    stays = RecordedStays(tmp_path / "few.parquet", InferringToyWard(), hour=24.0)
    history, checked = history_of(stays._all.stays, 24.0), 0
    for row, episode in enumerate(stays._all.stays):
        last: dict[str, InquiryEvent] = {}
        for event in sorted(episode.inquiries(), key=lambda q: q.collected):
            if (
                event.value is not None
                and episode.hours(event.resulted or event.collected) <= 24.0
                and event.item in UNITS
            ):
                last[event.item] = event
        for name, event in last.items():
            q = INQUIRIES[inquiry_index(name)]
            expected = min(max(event.value, q.low), q.high)
            assert float(history.charts[name][row, -1]) == pytest.approx(expected, rel=1e-6), (name, row)
            age = 24.0 - episode.hours(event.collected)
            assert float(history.charts["inquiry_age_hours"][row, -1, inquiry_index(name)]) == pytest.approx(
                age, abs=1e-3
            )
            checked += 1
        assert int(history.charts["inquiry_seen"][row, -1].sum()) >= len(last)
    assert len(stays) >= 3 and checked > 20


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"world": ToyWard()}, "cannot go on from a record"),
        ({"world": "oracle"}, "cannot go on from a record.*EHRWard-v0"),
        ({"hour": 26}, "try 24|try 28"),
        ({"hour": 96}, "earlier hour"),
        ({"stays": None}, "needs recorded stays"),
        ({"patients": "generated"}, "leave it out"),
        ({"stays": [stay(1, extra=(lab("glucose_mg_dl", 5.5, 2.0, 3.0, "mmol/L"),))]}, "'mmol/L'.*'mg/dL'"),
    ],
)
def test_what_cannot_be_replayed_is_refused(kwargs: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make(**kwargs)
