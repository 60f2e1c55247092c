"""Real stays on the ward's vocabulary."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
import torch

from tests.ehr_world.ward_small import some_stays, tiny, words
from world_models import catalog, keys
from world_models.data.ehr.context.schema import StatedDiagnosis, StaticContext
from world_models.data.ehr.episode import Diagnosis, InquiryEvent, InterventionEvent, build_episode
from world_models.ehr_world.episode_tensors import from_episodes, real_vocabulary, ward_organism
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, UNKNOWN
from world_models.quantities.ward import DISEASES, STATIC, inquiry_index, intervention_index

START = datetime(2150, 3, 1, 10)


def at(hours: float) -> datetime:
    return START + timedelta(hours=hours)


def lab(item: str, value: float, drawn: float, resulted: float | None, unit: str) -> InquiryEvent:
    return InquiryEvent(item, value, None, at(drawn), None if resulted is None else at(resulted), unit, "LAB//1")


def dose(
    item: str, start: float, end: float | None, amount: float | None, unit: str, rate=None, rate_unit=""
) -> InterventionEvent:
    kind = "administration" if end is None else "infusion"
    return InterventionEvent(
        item, kind, at(start), None if end is None else at(end), amount, unit, rate, rate_unit, "", "X//1"
    )


def stay(**changes):
    inquiries = [
        lab("potassium_mmol_l", 4.1, 1.0, 2.0, "mmol/L"),
        lab("potassium_mmol_l", 5.6, 3.0, 9.0, "mmol/L"),  # the step's last draw counts; it comes two steps later
        lab("creatinine_mg_dl", 1.3, 5.0, None, "mg/dL"),
        lab("urine_output_ml", 100.0, 6.0, None, "mL"),
        lab("urine_output_ml", 60.0, 7.0, None, "mL"),
        InquiryEvent("culture//blood culture//routine", None, "staph aureus coag +", at(1), at(31), "", "MICRO//1"),
    ]
    interventions = [
        dose("saline", 2.0, 6.0, 1000.0, "mL"),  # half of it in each of two steps
        dose("norepinephrine", 4.0, 6.0, None, "", 0.2, "ug/kg/min"),  # half the step: mean rate 0.1
        dose("furosemide", 9.0, None, 40.0, "mg"),
        InterventionEvent("metoprolol", "prescription", at(9), None, 25.0, "mg", None, "", "", "X//1"),
    ]
    given = {
        "subject_id": 1,
        "stay_id": 2,
        "admitted": START,
        "discharged": at(41),
        "died_in_hospital": False,
        "age_years": 61.0,
        "sex_female": True,
        "inquiries": inquiries,
        "interventions": interventions,
    }
    return build_episode(started=START, **{**given, **changes})


def test_values_stand_at_their_draw_and_doses_in_their_steps() -> None:
    stays = from_episodes(words(), [stay()])
    k, c, u = (inquiry_index(n) for n in ("potassium_mmol_l", "creatinine_mg_dl", "urine_output_ml_h"))
    assert float(stays.value[0, 1, k]) == pytest.approx(5.6) and int(stays.delay[0, 1, k]) == 2
    assert float(stays.value[0, 2, c]) == pytest.approx(1.3) and int(stays.delay[0, 2, c]) == UNKNOWN
    assert float(stays.value[0, 2, u]) == pytest.approx(40.0)  # 160 mL in a step of four hours
    assert float(stays.value[0, 1, inquiry_index("blood_culture")]) == 1.0
    given = stays.given[0]
    assert given[:4, intervention_index("saline_ml")].tolist() == pytest.approx([0, 500, 500, 0], rel=1e-4)
    assert given[:4, intervention_index("norepinephrine_ug_kg_min")].tolist() == pytest.approx([0, 0, 0.1, 0], rel=1e-4)
    assert float(given[3, intervention_index("furosemide_mg")]) == 40.0
    assert float(given[:, intervention_index("metoprolol_mg")].sum()) == 0.0  # a prescription is no treatment
    assert int(stays.valid.sum()) == 12 and bool(stays.home[0, 11]) and bool(stays.alive.all())


def test_nothing_after_the_branching_point_is_known() -> None:
    stays = from_episodes(words(), [stay()], until_h=8.0)
    k = inquiry_index("potassium_mmol_l")
    assert int(stays.delay[0, 1, k]) == CENSORED and bool(stays.value[0, 1, k].isnan())
    assert stays.valid.shape[1] == 3 and not bool(stays.home.any())
    later = [lab("potassium_mmol_l", 9.9, 30.0, 31.0, "mmol/L"), *stay().inquiries()]
    other = from_episodes(words(), [stay(inquiries=later)], until_h=8.0)
    assert all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(stays, other, strict=True))


def test_a_belief_about_a_real_stay_shows_what_had_come() -> None:
    model = tiny()
    state = model.infer_stay(stay(), keys.from_seed(3, 5), hours=8.0)
    chart = model.observe(state)
    k = inquiry_index("potassium_mmol_l")
    assert chart["inquiry_seen"][:, k].tolist() == [0.0] * 5 and chart["inquiry_pending"][:, k].tolist() == [1.0] * 5
    assert chart["creatinine_mg_dl"].tolist() == pytest.approx([1.3] * 5)
    assert chart["hours"].tolist() == [8.0] * 5 and chart["age_years"].tolist() == [61.0] * 5
    with pytest.raises(ValueError, match="regrid"):
        model.infer_stay(stay().regrid(6.0), keys.from_seed(3, 1))


def test_mixed_units_are_refused() -> None:
    wrong = [lab("creatinine_mg_dl", 115.0, 5.0, None, "umol/L")]
    with pytest.raises(ValueError, match="umol/L.*mg/dL"):
        from_episodes(words(), [stay(inquiries=wrong)])


def test_bins_of_real_values_and_the_wards_where_there_are_none() -> None:
    ward = some_stays()
    made = real_vocabulary(words(), [ward._replace(value=ward.value * 1.5)], fewest=50)
    k = inquiry_index("heart_rate_bpm")
    assert made.items[k].edges != words().items[k].edges and made.items[k].mean > words().items[k].mean
    assert made.items[inquiry_index("blood_culture")] == words().items[inquiry_index("blood_culture")]
    assert [i.name for i in made.items] == [i.name for i in words().items]


def test_what_a_record_does_not_say_reads_as_usual_not_as_the_lowest():
    world = catalog.load("ehr-ward-small")
    state = world.initial(keys.from_seed(0, 3))
    chart = world.observe(state._replace(static=torch.full_like(state.static, float("nan"))))
    assert 60 < chart["weight_kg"][0] < 100 and 50 < chart["age_years"][0] < 80
    assert not chart["diabetes"].any() and not chart["complaint"].any()
    assert torch.equal(world.observe(state)["weight_kg"], state.static[:, 2])


def test_who_dies_in_another_unit_left_this_one_alive() -> None:
    for died, alive in ((at(41), False), (at(42), False), (at(90), True), (None, False)):
        stays = from_episodes(words(), [stay(died=died, died_in_hospital=True)])
        last = int(stays.valid[0].sum()) - 1
        assert bool(stays.alive[0, last]) is alive and bool(stays.home[0, last]) is alive


def chronic_of(stays) -> dict[str, float]:
    names = [q.name for q in STATIC]
    return {n: float(stays.static[0, names.index(n)]) for n in ("chronic_kidney_disease", "diabetes")}


def diseases_of(stays) -> set[str]:
    return {d for d, on in zip(DISEASES, stays.diagnosis[0].tolist(), strict=True) if on == 1.0}


def test_codes_tell_chronic_conditions_always_and_diseases_of_a_whole_record() -> None:
    coded = stay(diagnoses=(Diagnosis(1, "10", "A419"), Diagnosis(2, "10", "N183")))
    whole, until = from_episodes(words(), [coded]), from_episodes(words(), [coded], until_h=8.0)
    assert chronic_of(whole) == chronic_of(until) == {"chronic_kidney_disease": 1.0, "diabetes": 0.0}
    assert diseases_of(whole) == {"sepsis"} and not whole.diagnosis.isnan().any()
    assert bool(until.diagnosis.isnan().all())  # known at discharge only
    untold = from_episodes(words(), [stay()])
    assert all(x != x for x in chronic_of(untold).values()) and bool(untold.diagnosis.isnan().all())
    label = from_episodes(words(), [stay(diagnoses=(Diagnosis(None, "9", "99591"),))])  # a study's, no coding
    assert all(x != x for x in chronic_of(label).values()) and diseases_of(label) == {"sepsis"}


def test_a_context_goes_before_the_codes_and_the_record_before_its_demographics() -> None:
    coded = stay(diagnoses=(Diagnosis(1, "10", "A419"), Diagnosis(2, "10", "N183")), age_years=None)
    told = StaticContext(82.0, "male", (), StatedDiagnosis("DKA", "", None, ("diabetic_ketoacidosis", "diabetes")))
    stays = from_episodes(words(), [coded], contexts={(1, 2): told, (1, 3): StaticContext()})
    assert chronic_of(stays) == {"chronic_kidney_disease": 0.0, "diabetes": 1.0}
    assert diseases_of(stays) == {"diabetic_ketoacidosis"}
    names = [q.name for q in STATIC]
    assert stays.static[0, names.index("age_years")] == 82.0 and stays.static[0, names.index("sex_female")] == 1.0
    silent = from_episodes(words(), [coded], contexts={(1, 2): StaticContext(82.0)})  # no diagnosis read: the codes
    assert chronic_of(silent)["chronic_kidney_disease"] == 1.0 and diseases_of(silent) == {"sepsis"}


def moment(item: str, start: float, rate: float | None, unit: str = "", kind: str = "infusion") -> InterventionEvent:
    return InterventionEvent(item, kind, at(start), None, None, "", rate, unit, "", "X//1")


def test_a_rate_charted_hour_by_hour_is_that_rate() -> None:
    def given(*interventions: InterventionEvent) -> torch.Tensor:
        return from_episodes(words(), [stay(interventions=list(interventions))]).given[0, :4]

    drug, vent = intervention_index("norepinephrine_ug_kg_min"), intervention_index("ventilation_l_min")
    unit = "ug/kg/min"
    hourly = given(*(moment("norepinephrine", h, 0.1, unit) for h in range(8)))
    assert hourly[:, drug].tolist() == pytest.approx([0, 0.1, 0.1, 0.075], abs=1e-6), "the last runs on for four hours"
    told = given(dose("norepinephrine", 0.0, 11.0, None, "", 0.1, unit))
    torch.testing.assert_close(hourly, told)
    stopped = given(moment("norepinephrine", 0, 0.1, unit), moment("norepinephrine", 2, 0.0, unit))
    assert stopped[:, drug].tolist() == pytest.approx([0, 0.05, 0, 0])
    on = given(*(moment("invasive_ventilation", h, None, kind="procedure") for h in range(4)))
    assert float(on[1, vent]) == pytest.approx(8.0)


def test_heparin_under_the_skin_is_no_infusion() -> None:
    skin = InterventionEvent("heparin", "administration", at(1), None, 5000.0, "[U]", None, "", "SC", "X//1")
    assert not from_episodes(words(), [stay(interventions=[skin])]).given.any()
    vein = skin._replace(route="IV")
    assert from_episodes(words(), [stay(interventions=[vein])]).given.any()


def test_an_organism_is_told_by_its_name() -> None:
    told = {
        "staphylococcus, coagulase negative": 1.0,
        "GRAM NEGATIVE ROD(S)": 3.0,
        "gram-negative rods": 3.0,
        "escherichia coli": 3.0,
        "enterococcus faecalis": 1.0,
        "no growth": 0.0,
        "NEGATIVE": 0.0,
        "mixed flora": 0.0,
        "yeast, presumptively not c. albicans": None,
        "": None,
    }
    assert {label: ward_organism(label) for label in told} == told


def test_urine_of_a_step_stays_within_the_charts_bounds() -> None:
    voids = [lab("urine_output_ml", 4000.0, h, None, "mL") for h in (0.5, 1.0, 2.0, 3.0)]
    urine = inquiry_index("urine_output_ml_h")
    assert float(from_episodes(words(), [stay(inquiries=voids)]).value[0, 1, urine]) == words().items[urine].high
