"""The command, its verdicts, the oracle's and a learned world's answers."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from benchmarks.common.results import provenance, read_csv
from benchmarks.people import effects, figure
from benchmarks.people.estimators import Estimate, Overlap
from benchmarks.people.judged import Asked, rows_of, together, verdict
from benchmarks.people.oracle import oracle_effect, regularised
from benchmarks.people.points import Points
from benchmarks.people.questions import QUESTIONS, by_name
from benchmarks.people.sources import Record, kept, records_of
from benchmarks.people.worlds import until_decision, world_effects
from tests.data import small_icu
from tests.ehr_world.ward_small import tiny
from world_models.data.ehr.episode import InquiryEvent, InterventionEvent, PatientEpisode, build_episode

START = datetime(2150, 3, 1, 10)
PRESSOR = by_name("norepinephrine")


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def episode(later: float = 75.0, rate: float = 0.1) -> PatientEpisode:
    """MAP 60 every hour up to 9.5 h, `later` afterwards; norepinephrine from 9.7 h on."""
    maps = [
        InquiryEvent("map_mmhg", 60.0 if h < 10 else later, None, at(h + 0.5), at(h + 0.5), "mm[Hg]", "LAB//1")
        for h in range(20)
    ]
    given = InterventionEvent("norepinephrine", "infusion", at(9.7), at(20), None, "", rate, "ug/kg/min", "", "X//1")
    return build_episode(
        subject_id=1, stay_id=2, started=START, admitted=START, discharged=at(30), died_in_hospital=False,
        age_years=61.0, sex_female=True, hours_per_step=1.0, inquiries=maps, interventions=[given],
    )  # fmt: skip


def one_point(dose: float = 0.1) -> Points:
    """The decision of `episode` at 9.7 h."""
    column = np.array([0.0])
    point = Points(np.zeros((1, 1), np.float32), *[column] * 8, np.array([0]), np.array([9.7]), *[np.array([1])] * 2,
                   np.array([1.0, 1.0]))  # fmt: skip
    return point._replace(treated=np.array([True]), dose=np.array([dose]), outcome_after_h=np.array([0.8]))


# ---- worlds and oracle


def test_a_step_begins_at_the_decision_and_nothing_later_is_told():
    moved, place = until_decision(episode(), 9.7, 4.0)
    assert moved.hours_per_step == 4.0 and moved.started + timedelta(hours=4 * (place - 1)) == at(9.7)
    assert timedelta(0) <= START - moved.started < timedelta(hours=4)
    assert sum(1 for _ in moved.inquiries()) == 10 and not list(moved.interventions())
    same, place = until_decision(episode(), 8.0, 4.0)
    assert (same.started, place) == (START, 3)


def test_a_world_is_asked_with_and_without_the_order_alone():
    model = tiny()
    rows = np.array([0])
    found = world_effects(model, PRESSOR, one_point(), [episode()], rows)
    assert abs(found[0]) > 1e-6
    assert world_effects(model, PRESSOR, one_point(), [episode(later=90.0, rate=0.9)], rows) == pytest.approx(found)
    assert world_effects(model, PRESSOR, one_point(dose=0.0), [episode()], rows)[0] == pytest.approx(0.0, abs=1e-9)


def test_points_together_give_what_they_give_alone():
    model, one = tiny(), one_point()
    two = Points(*(np.concatenate([x, x]) if x.shape != (2,) else x for x in one))
    two = two._replace(hour=np.array([9.7, 6.2]), stay=np.array([0, 0]), treated=np.array([True, True]))
    both = world_effects(model, PRESSOR, two, [episode()], np.array([0, 1]))
    assert both[0] == pytest.approx(world_effects(model, PRESSOR, one, [episode()], np.array([0]))[0], rel=1e-4)


@pytest.mark.parametrize("q", QUESTIONS, ids=lambda q: q.column + "/" + q.target)
def test_the_oracle_has_every_known_sign(q):
    after = q.to_h if q.mean_of_window else max(1.0, q.from_h)
    effect, patients = oracle_effect(q, q.usual_dose, after)
    assert effect * q.sign > 0 and patients >= 30
    half, _ = oracle_effect(q, 0.5 * q.usual_dose, after)
    assert abs(half) < abs(effect)
    assert oracle_effect(q, 0.0, after)[0] == 0.0


def test_an_estimate_is_drawn_to_the_oracle_by_its_doubt():
    sure = regularised(Estimate(4.0, 3.8, 4.2, 0.1), 10.0)
    doubtful = regularised(Estimate(4.0, -16.0, 24.0, 10.0), 10.0)
    assert 4.0 < sure.value < 4.1 < 8.0 < doubtful.value < 10.0
    assert doubtful.error < 5.0 + 1e-9 and doubtful.low < doubtful.value < doubtful.high
    alone = Estimate(4.0, 3.0, 5.0, float("nan"))
    assert regularised(alone, 10.0) is alone


# ---- what is said of it


def asked(name: str = "one", treated: int = 80, effect: float = 12.0, level: float = 60.0) -> Asked:
    """A record of single-patient clusters: each treated one gains `effect` more or less."""
    count, spread = 4 * treated, np.tile([-3.0, 3.0], 2 * treated)
    a = np.arange(count) < treated
    y = level + effect * a + spread
    b = 1.0 - a
    columns = [a, a * y, a * level, a * (y - level), b, b * y, b * 0.1, b * 0.1 * (y - level), b * 0.1]
    sums = np.stack([*columns, b * 0.1 * (y - level)], 1).astype(float)
    return Asked(name, sums, None, Overlap(0.0, 100.0, 0.05, -0.8), treated, count - treated, treated, count,
                 np.full(treated, 0.1), 1.0, np.array([0.9, 1.0]), {})  # fmt: skip


def test_rows_and_verdicts():
    rows = rows_of(PRESSOR, asked())
    main = next(r for r in rows if r["estimator"] == "doubly_robust")
    assert main["effect_low"] < main["effect"] == pytest.approx(12.0)
    assert main["verdict"] == "sign as known; size may be as known"
    assert main["usual_dose_effect"] == pytest.approx(12.0) and main["doses_told"] == 1.0
    assert {"naive", "oracle", "oracle_regularised", "raw"} <= {r["estimator"] for r in rows}
    few = asked(treated=12, effect=-6.0)._replace(overlap=Overlap(0.5, 3.0, -0.6, -0.8))
    said = next(r["verdict"] for r in rows_of(PRESSOR, few) if r["verdict"])
    for part in ("sign against what is known", "few treated (12 times", "wrong sign by every", "no like untreated"):
        assert part in said
    found = {n: Estimate(5.0, 4.0, 6.0, 0.5) for n in ("naive", "outcome_regression", "doubly_robust")}
    found["doubly_robust_logistic"] = found["naive"]
    control = {"doubly_robust": Estimate(2.0, 1.0, 3.0, 0.5)}
    said = verdict(PRESSOR, asked(), found, control, scale=1.0)
    assert "confounding left" in said and "smaller than known" in said  # 4 to 6 where 10 to 20 is known
    assert "larger than known" in verdict(PRESSOR, asked(), found, None, scale=6.0)
    assert "size not told" in verdict(PRESSOR, asked(), found, None, scale=float("nan"))


def test_all_records_weigh_by_their_treated():
    whole = together([asked("one", 60, 10.0, 60.0), asked("two", 20, 2.0, 80.0)])
    main = next(r for r in rows_of(PRESSOR, whole) if r["estimator"] == "doubly_robust")
    assert main["record"] == "all" and main["treated"] == 80
    assert main["effect"] == pytest.approx(8.0)


def test_the_figure_and_the_lines_hold_every_record(tmp_path):
    rows = [*rows_of(PRESSOR, asked()), {"question": PRESSOR.name, "record": "eICU", "verdict": "cannot tell: few"}]
    figure.draw(rows, tmp_path / "f.png", {"command": "x"})
    assert provenance(tmp_path / "f.png") == {"command": "x"}
    text = "\n".join(figure.lines(rows))
    assert "80 treated" in text and "doubly robust" in text and "eICU: cannot tell: few" in text
    figure.draw(rows[-1:], tmp_path / "none.png", {})
    assert not (tmp_path / "none.png").exists()


# ---- the command


def test_a_record_too_small_says_so(tmp_path, capsys):
    folder = small_icu.write_eicu(small_icu.eicu_tables(), tmp_path / "eicu")
    out = tmp_path / "effects.csv"
    assert effects.main(["--eicu", str(folder), "--world", "--out", str(out), "--work", str(tmp_path / "w")]) == 0
    rows = read_csv(out)
    assert len(rows) == len(QUESTIONS) and all(r["verdict"].startswith("cannot tell") for r in rows)
    assert provenance(out)["command"].startswith("python -m benchmarks.people.effects --eicu eicu")
    assert "cannot tell" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given, said",
    [
        ([], "no record is given"),
        (["--tables", "{tmp}"], "is read beside --meds"),
        (["--eicu", "{tmp}/none"], "is not there"),
        (["--eicu", "{tmp}", "--questions", "aspirin"], "no question 'aspirin'"),
        (["--eicu", "{tmp}", "--untreated", "5"], "--untreated 5 must be 100"),
        (["--eicu", "{tmp}", "--threads", "0"], "--threads 0"),
        (["--eicu", "{tmp}", "--world", "oracle"], "no learned ward"),
        (["--eicu", "{tmp}", "--world", "nobody"], "nobody"),
    ],
)
def test_bad_arguments_end_before_anything_is_read(given, said, tmp_path, capsys):
    out = tmp_path / "out.csv"
    with pytest.raises(SystemExit) as end:
        effects.main([g.format(tmp=tmp_path) for g in given] + ["--out", str(out)])
    assert end.value.code == 2 and said in capsys.readouterr().err and not out.exists()


def test_a_folder_that_is_no_record_ends_with_its_error(tmp_path, capsys):
    assert effects.main(["--eicu", str(tmp_path), "--world", "--out", str(tmp_path / "o.csv")]) == 2
    assert "error:" in capsys.readouterr().err and not (tmp_path / "o.csv").exists()


def test_what_is_kept_is_read_back_until_something_changes(tmp_path):
    made = []

    def make(value: float):
        made.append(value)
        return {"x": np.array([value])}

    (tmp_path / "table").write_text("1")
    (record,) = records_of(tmp_path / "table", None, None, None, None)
    assert isinstance(record, Record) and record.name == "eICU"

    def get(record: Record, settings: list[int], value: float) -> float:
        return float(kept(tmp_path / "w", record, PRESSOR, "points", settings, lambda: make(value))["x"][0])

    assert get(record, [1], 1.0) == get(record, [1], 2.0) == 1.0
    assert get(record, [2], 3.0) == 3.0
    for path in (tmp_path / "w").iterdir():
        path.write_bytes(path.read_bytes()[:20])  # cut short by a kill
    assert get(record, [1], 4.0) == 4.0
    (tmp_path / "table").write_text("another")
    (changed,) = records_of(tmp_path / "table", None, None, None, None)
    assert get(changed, [1], 5.0) == 5.0
    assert made == [1.0, 3.0, 4.0, 5.0]
