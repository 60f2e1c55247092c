"""What sets one patient apart from another under the same dose: kidneys, liver, salts, other drugs, days of treatment;
and verapamil's harms."""

from __future__ import annotations

import pytest
import torch

from world_models import keys
from world_models.oracles.ecg_drug import electrolytes, harms, renal, tolerance
from world_models.oracles.ecg_drug.kinetics import Kinetics, effect_sites
from world_models.oracles.ecg_drug.rhythm import torsades_hazard, torsades_risk
from world_models.oracles.ecg_drug.world import ECGDrugOracle, ECGDrugState

RAN, DOF, VER, QUI = range(4)
FULL = torch.tensor([1000.0, 0.5, 120.0, 400.0])


def order(count: int, **mg: float) -> torch.Tensor:
    dose = torch.zeros(count, 4)
    for name, amount in mg.items():
        dose[:, ("ranolazine", "dofetilide", "verapamil", "quinidine").index(name)] = amount
    return dose


def after(world: ECGDrugOracle, state: ECGDrugState, doses: dict[int, torch.Tensor], steps: int) -> list[ECGDrugState]:
    """States after 1..steps steps; `doses` maps a step to the orders."""
    out = []
    for i in range(steps):
        state = world.transition(state, doses.get(i, order(len(state.key))))
        out.append(state)
    return out


def one(value: float, count: int = 1) -> torch.Tensor:
    return torch.full((count,), value)


# ---- kidneys and liver


def test_creatinine_clearance_is_cockcroft_and_gaults() -> None:
    man = renal.creatinine_clearance(one(40.0), one(0.0), one(72.0), one(1.0))
    assert man.item() == pytest.approx(100.0)
    assert renal.creatinine_clearance(one(40.0), one(1.0), one(72.0), one(1.0)).item() == pytest.approx(85.0)


def test_the_kidneys_clear_seven_tenths_of_dofetilide_and_no_more_than_normal() -> None:
    def multiplier(clearance: float, **who: float) -> float:
        sex, volunteers = who.get("sex", 0.0), bool(who.get("volunteers", 0.0))
        return renal.dofetilide_clearance(one(clearance), one(sex), one(70.0), volunteers).item()

    assert multiplier(45.0) == pytest.approx(0.65) and multiplier(90.0) == multiplier(180.0) == 1.0
    assert multiplier(90.0, sex=1.0) == pytest.approx(0.85)  # label: 12 to 18 % less
    assert multiplier(90.0, sex=1.0, volunteers=1.0) == 1.0  # the trial shows no difference


@pytest.mark.parametrize(
    ("factor", "drug"),
    [
        ("creatinine_clearance_ml_min", DOF),
        ("ranolazine_clearance", RAN),
        ("verapamil_clearance", VER),
        ("quinidine_clearance", QUI),
    ],
)
def test_each_clearance_moves_its_own_drug_alone(factor: str, drug: int) -> None:
    world, key = ECGDrugOracle(), keys.from_seed(1, 40)
    normal = 90.0 if drug == DOF else 1.0
    low, high = (world.initial(key, {factor: one(x * normal, 40)}) for x in (0.4, 1.0))
    dose = {0: FULL.expand(40, -1)}
    slow, fast = (after(world, s, dose, 4)[-1].concentration for s in (low, high))
    others = [i for i in range(4) if i != drug and (drug, i) != (VER, DOF)]  # verapamil's level speeds dofetilide
    assert (slow[:, drug] > 1.05 * fast[:, drug]).all() and torch.equal(slow[:, others], fast[:, others])


def test_volunteers_are_the_trials() -> None:
    """Kidneys, liver and salts change nothing in the cohort that the fit is of."""
    state = ECGDrugOracle("healthy").initial(keys.from_seed(2, 2000))
    world = ECGDrugOracle("healthy")
    who = {name.removeprefix("factor_"): value for name, value in world.truth(state).items()}
    kidneys = who["creatinine_clearance_ml_min"], who["sex_female"], who["weight_kg"]
    assert torch.equal(renal.dofetilide_clearance(*kidneys, volunteers=True), one(1.0, 2000))
    assert kidneys[0].std() > 5.0  # who nevertheless differ
    salts = who["potassium_mmol_l"], who["magnesium_mmol_l"]
    assert torch.equal(electrolytes.block_strength(*salts, world.drugs), torch.ones(2000, 4))
    assert torch.equal(electrolytes.resting_qtcf_ms(*salts), torch.zeros(2000))
    for drug in ("ranolazine", "verapamil", "quinidine"):
        assert torch.equal(who[f"{drug}_clearance"], one(1.0, 2000))


# ---- electrolytes


@pytest.mark.parametrize(("drug", "moves"), [("dofetilide", True), ("quinidine", True), ("ranolazine", False)])
def test_little_potassium_strengthens_a_block_of_ikr(drug: str, moves: bool) -> None:
    world, key = ECGDrugOracle(), keys.from_seed(3, 50)
    mg = float(FULL[world.drugs.index(drug)])
    effect = []
    for potassium in (3.2, 4.2, 5.2):
        state = world.initial(key, {"potassium_mmol_l": one(potassium, 50), "magnesium_mmol_l": one(0.85, 50)})
        late = after(world, state, {0: order(50, **{drug: mg})}, 2)[-1]
        assert torch.equal(world.observe(late)["potassium_mmol_l"], one(potassium, 50))
        effect.append(world.truth(late)["effect_tpeak_tend_ms"])
    if not moves:
        assert torch.equal(effect[0], effect[2])
        return
    assert (effect[0].abs() > effect[1].abs()).all() and (effect[1].abs() > effect[2].abs()).all()
    assert 1.1 < float(effect[0].mean() / effect[1].mean()) < 1.4


def test_torsades_by_sex_and_salts() -> None:
    def risk(sex: float = 0.0, potassium: float = 4.2, magnesium: float = 0.85) -> float:
        return torsades_risk(one(sex), one(potassium), one(magnesium), 1.0).item()

    assert risk() == 1.0 and 2.0 < risk(sex=1.0) < 3.0
    assert risk(potassium=3.0) > 2.0 > 1.0 > risk(potassium=5.0) and risk(magnesium=0.6) > 1.5
    hazard = [torsades_hazard(one(q), one(70.0), one(400.0)).item() for q in (540.0, 550.0)]
    assert 1.05 < hazard[1] / hazard[0] < 1.07  # per 10 ms


# ---- tolerance


def test_a_single_dose_never_meets_tolerance() -> None:
    """Up to the trial's dose, whoever takes it: the fitted curves stay as they are."""
    for cohort in ("healthy", "heart-failure"):
        world = ECGDrugOracle(cohort)
        state = world.initial(keys.from_seed(4, 200))
        trial = torch.tensor([1500.0, 0.5, 120.0, 400.0]).expand(200, -1)
        for late in after(world, state, {0: trial}, 36):
            slow = effect_sites(Kinetics(*late.individual[:4]), late.amounts)[..., -1]
            assert (slow <= late.individual.adapts_above).all()
            left = tolerance.effect_left(slow, late.individual.adapts_above, one(0.4, 4).double())
            assert torch.equal(left, torch.ones_like(left))


def test_days_of_dofetilide_take_a_quarter_of_its_effect() -> None:
    world = ECGDrugOracle("healthy")
    state = world.initial(keys.from_seed(5, 300))
    course = after(world, state, {i: order(300, dofetilide=0.5) for i in range(0, 60, 6)}, 60)

    def strength(step: int) -> float:
        effect = world.trial.effects(course[step].individual, course[step].amounts)["jt_peak_c_ms"]
        return float((effect / course[step].concentration[:, DOF]).mean())

    assert 0.7 < strength(55) / strength(1) < 0.9  # Allen 2000: 0.75 to 0.95 on day 5


# ---- verapamil and dofetilide


@pytest.mark.parametrize("hours", [0.5, 1.0, 2.0])
def test_the_interaction_is_exact_in_steps_of_any_length(hours: float) -> None:
    """Concentrations at whole even hours do not depend on the steps between, lag and fast share included."""
    world = ECGDrugOracle(hours_per_step=hours)
    state = world.initial(keys.from_seed(6, 60))
    every = {i: order(60, verapamil=80.0) for i in range(0, round(24 / hours), round(8 / hours))}
    every[round(8 / hours)] = order(60, verapamil=80.0, dofetilide=0.5)
    course = after(world, state, every, round(24 / hours))
    found = torch.stack([course[round(h / hours) - 1].concentration for h in (10, 12, 16, 24)])
    coarse = ECGDrugOracle(hours_per_step=2.0)
    same = coarse.initial(keys.from_seed(6, 60))
    doses = {i: order(60, verapamil=80.0) for i in (0, 8)} | {4: order(60, verapamil=80.0, dofetilide=0.5)}
    expected = torch.stack([after(coarse, same, doses, 12)[round(h / 2) - 1].concentration for h in (10, 12, 16, 24)])
    torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-5)


def test_verapamil_raises_dofetilides_peak_and_doses_still_add() -> None:
    world = ECGDrugOracle("healthy", hours_per_step=0.5)
    state = world.initial(keys.from_seed(7, 200))
    verapamil = {i: order(200, verapamil=80.0) for i in range(0, 128, 16)}

    def levels(with_verapamil: bool, *dofetilide: int) -> torch.Tensor:
        plan = dict(verapamil) if with_verapamil else {}
        for i in dofetilide:
            plan[i] = plan.get(i, order(200)) + order(200, dofetilide=0.5)
        return torch.stack([s.concentration[:, DOF] for s in after(world, state, plan, 128)])

    alone, both = levels(False, 96), levels(True, 96)
    assert 1.3 < float(both.amax(0).mean() / alone.amax(0).mean()) < 1.55  # label: +42 %
    torch.testing.assert_close(levels(True, 48) + both, levels(True, 48, 96), rtol=1e-5, atol=1e-6)


# ---- harms


def test_block_needs_verapamil_or_a_long_pr_and_a_p_wave() -> None:
    n = 20_000
    key = keys.from_seed(8, n)
    state = harms.initial_harms(key, one(130.0, n), one(9.0, n), 0.0)
    t = torch.ones(n, dtype=torch.int64)

    def share(pr: float, verapamil: float) -> float:
        new = harms.advance_harms(key, t, state, one(pr, n), one(verapamil, n), one(0.0, n), one(11.0, n), 2.0)
        return float(new.av_block.mean())

    assert not state.av_block.any() and share(170.0, 0.0) < 2e-4
    assert share(170.0, 0.0) <= share(170.0, 200.0) < share(260.0, 200.0) and share(260.0, 200.0) > 0.005
    assert share(float("nan"), 200.0) == 0.0


def test_the_harms_law_does_not_depend_on_the_step() -> None:
    n = 8000
    found = {}
    for hours in (1.0, 4.0):
        world = ECGDrugOracle(hours_per_step=hours)
        factors = {"baseline_pr_ms": one(260.0, n), "admission_clock_hour": one(9.0, n)}
        state = world.initial(keys.from_seed(9, n), factors)
        plan = {i: order(n, verapamil=240.0) for i in range(0, round(24 / hours), round(4 / hours))}
        late = after(world, state, plan, round(12 / hours))[-1]
        found[hours] = world.observe(late)
    short, long = found[1.0], found[4.0]
    assert float(short["av_block"].mean()) > 0.01
    assert float(short["av_block"].mean()) == pytest.approx(float(long["av_block"].mean()), abs=0.012)
    assert float(short["systolic_bp_mmhg"].mean()) == pytest.approx(float(long["systolic_bp_mmhg"].mean()), abs=0.5)
    assert float(short["systolic_bp_mmhg"].std()) == pytest.approx(float(long["systolic_bp_mmhg"].std()), abs=0.5)


def test_pressure_starts_where_asked_falls_on_verapamil_and_rekey_keeps_the_person() -> None:
    world, key = ECGDrugOracle(), keys.from_seed(10, 300)
    state = world.initial(key, {"baseline_systolic_bp_mmhg": one(140.0, 300)})
    assert torch.equal(world.observe(state)["systolic_bp_mmhg"], one(140.0, 300))
    some, none = (after(world, state, {0: order(300, verapamil=mg)}, 1)[-1] for mg in (120.0, 0.0))
    fall = world.observe(some)["systolic_bp_mmhg"] - world.observe(none)["systolic_bp_mmhg"]
    assert (fall < 0).all() and -15.0 < float(fall.mean()) < -4.0
    other = world.rekey(state, keys.fold(key, 1))
    assert all(torch.equal(a, b) for a, b in zip(other.harms, state.harms, strict=True))


def test_verapamil_slows_a_diseased_sinus_node_and_speeds_a_volunteers() -> None:
    change = {}
    for cohort in ("healthy", "bradycardia"):
        world = ECGDrugOracle(cohort)
        state = world.initial(keys.from_seed(11, 1500))
        some, none = (after(world, state, {0: order(1500, verapamil=120.0)} if mg else {}, 1)[-1] for mg in (1, 0))
        change[cohort] = world.observe(some)["heart_rate_bpm"] - world.observe(none)["heart_rate_bpm"]
        ill = state.harms.sinus_disease > 0
        if cohort == "healthy":
            assert not ill.any() and change[cohort].mean() > 2.0
        else:
            assert 0.1 < float(ill.float().mean()) < 0.2
            assert change[cohort][ill].mean() < change[cohort][~ill].mean() - 2.0
