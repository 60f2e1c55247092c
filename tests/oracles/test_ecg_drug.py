"""The oracle: identities, doses, time, factors, reproducibility, and the ECG that measures as asked."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from world_models import keys, tree
from world_models.inputs import admit
from world_models.oracles.ecg_drug.cohorts import COHORTS
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS
from world_models.oracles.ecg_drug.world import MORPHOLOGY, ECGDrugOracle, ECGDrugState
from world_models.protocol import Oracle
from world_models.quantities import ecg_drug as ecg_quantities

ROOT = Path(__file__).resolve().parents[2]
RAN, DOF, VER, QUI = range(4)


@pytest.fixture(scope="module")
def world() -> ECGDrugOracle:
    return ECGDrugOracle()


def course(world: ECGDrugOracle, state: ECGDrugState, doses: dict[int, list[float]], steps: int) -> list[dict]:
    """Charts after 0..steps steps; `doses` maps a step to the order of every patient."""
    charts = [world.observe(state)]
    for i in range(steps):
        order = torch.tensor(doses.get(i, [0.0] * len(world.drugs)))
        state = world.transition(state, order.expand(state.key.shape[0], -1))
        charts.append(world.observe(state))
    return charts


def only(drug: int, mg: float) -> list[float]:
    order = [0.0] * 4
    order[drug] = mg
    return order


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """The same bits, NaN (a PR that is missing) where NaN is."""
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(), b.nan_to_num())


def within_bounds(world: ECGDrugOracle, chart: dict) -> None:
    for q in world.measures:
        if q.name in chart:
            value = chart[q.name]
            assert value.shape[1:] == q.shape and value.dtype == torch.float32, q.name
            if q.may_be_missing:  # PR is the one, and in fibrillation alone
                assert torch.equal(value.isnan(), chart["atrial_fibrillation"] > 0), q.name
                value = value.nan_to_num(nan=q.low)
            assert not value.isnan().any() and (value >= q.low).all() and (value <= q.high).all(), q.name


def test_it_is_an_oracle_of_the_shared_chart(world: ECGDrugOracle) -> None:
    assert isinstance(world, Oracle)
    assert world.measures == ecg_quantities.MEASURES and world.orders == ecg_quantities.ORDERS
    chart = world.observe(world.initial(keys.from_seed(0, 2)))
    assert [q.name for q in world.measures if not q.on_request] == list(chart)
    assert [q.name for q in world.orders] == ["ranolazine_mg", "dofetilide_mg", "verapamil_mg", "quinidine_mg"]


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**40),
    cohort=st.sampled_from(list(COHORTS)),
    orders=st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1, width=32)), min_size=1, max_size=8),
)
def test_identities_and_bounds_hold_whatever_is_given(seed: int, cohort: str, orders: list) -> None:
    world = ECGDrugOracle(cohort=cohort)
    state = world.initial(keys.from_seed(seed, 16))
    for drug, share in orders:
        order = torch.zeros(16, 4)
        order[:, drug] = share * world.orders[drug].high
        state = world.transition(state, order)
        chart = world.observe(state)
        within_bounds(world, chart)
        rr = 60.0 / chart["heart_rate_bpm"].double()
        total = chart["qrs_ms"].double() + chart["jt_peak_ms"] + chart["tpeak_tend_ms"]
        assert (chart["qt_ms"] - total).abs().max() < 1e-3
        assert (chart["qtcf_ms"] - chart["qt_ms"] / rr ** (1 / 3)).abs().max() < 1e-3
        assert (chart["jt_peak_c_ms"] - chart["jt_peak_ms"] / rr**0.58).abs().max() < 1e-3


def test_the_largest_doses_together_stay_within_the_chart_and_out_of_support() -> None:
    world = ECGDrugOracle(cohort="heart-failure")
    state = world.initial(keys.from_seed(4, 64))
    for _ in range(24):
        state = world.transition(state, torch.tensor([[q.high for q in world.orders]]).expand(64, -1))
        within_bounds(world, world.observe(state))
    assert not world.support(state).any()
    assert (state.rhythm.torsades > 0).float().mean() > 0.5


@pytest.mark.parametrize("cohort", COHORTS)
def test_the_admission_chart_shows_the_baseline(cohort: str) -> None:
    world = ECGDrugOracle(cohort=cohort)
    state = world.initial(keys.from_seed(7, 500))
    chart, truth = world.observe(state), world.truth(state)
    sinus = chart["atrial_fibrillation"] == 0
    assert sinus.any()
    for name in ("qtcf_ms", "pr_ms", "qrs_ms", "heart_rate_bpm", "tpeak_tend_ms", *T_ENDPOINTS):
        off = (chart[name] - truth[f"factor_baseline_{name}"]).abs()
        assert off[sinus].max() < 2e-3, name
        if name not in ("pr_ms", "heart_rate_bpm") and not sinus.all():
            assert off[~sinus].max() < 2e-3, name
    share = chart["lrd_30_ms"] / chart["tpeak_tend_ms"]
    assert share.min() > 0.329 and share.max() < 0.681  # what a drawn ECG can show
    assert torch.equal(chart["baseline_qtcf_ms"], truth["factor_baseline_qtcf_ms"])
    assert torch.equal(chart["arrhythmia_burden"], truth["factor_baseline_burden"])
    within_bounds(world, chart)


def test_factors_are_honoured(world: ECGDrugOracle) -> None:
    fix = {
        "age_years": torch.tensor([61.0, 40.0]),
        "sex_female": torch.tensor([1.0, 0.0]),
        "weight_kg": torch.tensor([70.0, 90.0]),
        "baseline_qtcf_ms": torch.tensor([431.0, 402.0]),
        "baseline_pr_ms": torch.tensor([150.0, 190.0]),
        "baseline_heart_rate_bpm": torch.tensor([58.0, 82.0]),
        "admission_clock_hour": torch.tensor([23.0, 9.0]),
        "baseline_burden": torch.tensor([0.0, 1.0]),
        "admission_fibrillation": torch.zeros(2),
        "morphology": torch.randn(2, *MORPHOLOGY.shape, generator=torch.Generator().manual_seed(1)),
    }
    state = world.initial(keys.from_seed(1, 2), fix)
    chart = world.observe(state)
    for name in ("age_years", "sex_female", "weight_kg", "baseline_qtcf_ms"):
        assert torch.equal(chart[name], fix[name]), name
    assert (chart["pr_ms"] - fix["baseline_pr_ms"]).abs().max() < 1e-3
    assert (chart["heart_rate_bpm"] - fix["baseline_heart_rate_bpm"]).abs().max() < 1e-3
    assert torch.equal(chart["clock_hour"], fix["admission_clock_hour"])
    assert torch.equal(chart["arrhythmia_burden"], fix["baseline_burden"])
    assert torch.equal(state.morphology, fix["morphology"])
    later = world.observe(world.transition(state, torch.zeros(2, 4)))
    assert torch.equal(later["clock_hour"], torch.tensor([1.0, 11.0]))


CLEARANCES = ("ranolazine_clearance", "creatinine_clearance_ml_min", "verapamil_clearance", "quinidine_clearance")


def test_the_hidden_clearance_slows_elimination(world: ECGDrugOracle) -> None:
    key = keys.from_seed(3, 200)
    low, high = ({n: torch.full((200,), x * (60.0 if "ml_min" in n else 1.0)) for n in CLEARANCES} for x in (0.4, 1.6))
    slow, fast = world.initial(key, low), world.initial(key, high)
    order = torch.tensor([1000.0, 0.5, 120.0, 400.0]).expand(200, -1)
    slow, fast = world.transition(slow, order), world.transition(fast, order)
    for _ in range(5):
        slow, fast = (world.transition(s, torch.zeros(200, 4)) for s in (slow, fast))
    assert (slow.concentration > fast.concentration).all()


def test_without_drug_nothing_drifts(world: ECGDrugOracle) -> None:
    n = 3000
    in_sinus = torch.zeros(n)
    state = world.initial(keys.from_seed(11, n), {"baseline_burden": in_sinus})
    charts = course(world, state, {}, 24)
    for name in (*ENDPOINTS, "qtcf_ms"):
        first, day, two_days = (charts[i][name].mean().item() for i in (0, 12, 24))
        drift, most = (0.03 * first, 0.25 * first) if name in T_ENDPOINTS else (1.0, 20.0)
        assert abs(day - first) < drift and abs(two_days - first) < drift, (name, first, day, two_days)
        assert max(abs(c[name].mean().item() - first) for c in charts) < most, name
    assert charts[24]["torsades"].mean() < 0.002
    assert abs(charts[24]["arrhythmia_burden"].mean() - charts[0]["arrhythmia_burden"].mean()) < 0.03
    assert (charts[24]["hours_since_dose"] == 96).all() and (charts[24]["total_dose_mg"] == 0).all()


def test_more_dofetilide_means_longer_qtcf_in_every_patient(world: ECGDrugOracle) -> None:
    state = world.initial(keys.from_seed(13, 400))
    at = [course(world, state, {0: only(DOF, mg)}, 2) for mg in (0.0, 0.125, 0.25, 0.5, 1.0)]
    for less, more in zip(at, at[1:], strict=False):
        assert (more[2]["qtcf_ms"] >= less[2]["qtcf_ms"]).all()
    rise = (at[3][2]["qtcf_ms"] - at[0][2]["qtcf_ms"]).mean()
    assert 30 < rise < 110  # +75 to +80 ms at the peak in the trial
    assert at[3][2]["total_dose_mg"][0].tolist() == [0.0, 0.5, 0.0, 0.0]
    assert at[3][2]["hours_since_dose"][0].tolist() == [96.0, 4.0, 96.0, 96.0]


def test_women_are_steeper_on_dofetilide(world: ECGDrugOracle) -> None:
    n = 3000
    rise = {}
    for sex in (0.0, 1.0):
        fix = {"sex_female": torch.full((n,), sex), "weight_kg": torch.full((n,), 75.0)}
        state = world.initial(keys.from_seed(17, n), fix)
        with_drug, without = (course(world, state, d, 2)[2] for d in ({0: only(DOF, 0.5)}, {}))
        rise[sex] = (with_drug["jt_peak_c_ms"] - without["jt_peak_c_ms"]).mean().item()
    assert rise[1.0] > rise[0.0] * 1.05


def test_verapamil_prolongs_pr_and_quinidine_tpeak_tend(world: ECGDrugOracle) -> None:
    state = world.initial(keys.from_seed(19, 500))
    none = course(world, state, {}, 1)[1]
    verapamil = course(world, state, {0: only(VER, 120.0)}, 1)[1]
    quinidine = course(world, state, {0: only(QUI, 400.0)}, 1)[1]
    assert (verapamil["pr_ms"] - none["pr_ms"]).nanmean() > 8
    assert abs((verapamil["qtcf_ms"] - none["qtcf_ms"]).mean()) < 10
    assert (quinidine["tpeak_tend_ms"] - none["tpeak_tend_ms"]).mean() > 20


def test_repeated_doses_superpose(world: ECGDrugOracle) -> None:
    def concentrations(doses: dict[int, list[float]]) -> torch.Tensor:
        state = world.initial(keys.from_seed(23, 50))
        out = []
        for i in range(14):
            order = torch.tensor(doses.get(i, [0.0] * 4)).expand(50, -1)
            state = world.transition(state, order)
            out.append(state.concentration)
        return torch.stack(out)

    a, b = {0: [1000.0, 0.5, 0.0, 400.0]}, {6: [500.0, 0.25, 80.0, 200.0]}
    torch.testing.assert_close(concentrations(a) + concentrations(b), concentrations(a | b), rtol=1e-4, atol=1e-4)


def test_drugs_suppress_the_arrhythmia_in_the_expected_order(world: ECGDrugOracle) -> None:
    state = world.initial(keys.from_seed(29, 400))
    plans = {
        "none": {},
        "verapamil": {i: only(VER, 80.0) for i in range(0, 24, 4)},
        "ranolazine": {i: only(RAN, 1000.0) for i in range(0, 24, 6)},
        "dofetilide": {i: only(DOF, 0.5) for i in range(0, 24, 6)},
    }
    end = {n: course(world, state, p, 24)[24]["arrhythmia_burden"].mean().item() for n, p in plans.items()}
    assert end["none"] > end["verapamil"] > end["ranolazine"] > end["dofetilide"]
    assert end["dofetilide"] < 0.5 * end["none"]


@pytest.mark.parametrize("batch", [1, 3, 64, 257])
def test_row_equals_the_patient_alone_bit_for_bit(world: ECGDrugOracle, batch: int) -> None:
    key = keys.from_seed(31, 257)
    many, few = world.initial(key), world.initial(key[:batch])
    for i in range(10):
        order = keys.uniform(key, i, "test/order", (4,)) * torch.tensor([1000.0, 0.5, 120.0, 400.0]) * (i % 3 == 0)
        many, few = world.transition(many, order), world.transition(few, order[:batch])
        for a, b in zip(tree.leaves(many), tree.leaves(few), strict=True):
            assert torch.equal(a[:batch], b)
        one, other = world.observe(many), world.observe(few)
        assert all(same(one[n][:batch], other[n]) for n in one)
    for extra in (world.spread, world.truth):
        one, other = extra(many), extra(few)
        assert all(torch.equal(one[n][:batch], other[n]) for n in one)
    assert torch.equal(world.support(many)[:batch], world.support(few))


def test_rows_do_not_depend_on_their_place(world: ECGDrugOracle) -> None:
    key = keys.from_seed(37, 65)
    order = torch.tensor(only(DOF, 0.5)).expand(65, -1)
    a, b = world.initial(key), world.initial(key.flip(0))
    for _ in range(3):
        a, b = world.transition(a, order), world.transition(b, order)
    one, other = world.observe(a), world.observe(b)
    assert all(same(one[n], other[n].flip(0)) for n in one)


_DIGEST = """
import hashlib, torch
from world_models import keys
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS
from world_models.oracles.ecg_drug.world import ECGDrugOracle
world = ECGDrugOracle()
state = world.initial(keys.from_seed(41, 33))
for i in range(6):
    state = world.transition(state, torch.tensor([500.0, 0.5, 80.0, 200.0]).expand(33, -1))
chart = world.observe(state, also=("ecg_mv",))
print(hashlib.sha256(b"".join(chart[n].contiguous().numpy().tobytes() for n in sorted(chart))).hexdigest())
"""


def test_another_process_gives_the_same_bits() -> None:
    env = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"}
    other = subprocess.run(
        [sys.executable, "-c", _DIGEST], cwd=ROOT, env=env, capture_output=True, text=True, check=True, timeout=120
    )
    world = ECGDrugOracle()
    state = world.initial(keys.from_seed(41, 33))
    for _ in range(6):
        state = world.transition(state, torch.tensor([500.0, 0.5, 80.0, 200.0]).expand(33, -1))
    chart = world.observe(state, also=("ecg_mv",))
    here = hashlib.sha256(b"".join(chart[n].contiguous().numpy().tobytes() for n in sorted(chart))).hexdigest()
    assert other.stdout.strip() == here


def test_transition_is_pure_and_rekey_changes_only_what_is_to_come(world: ECGDrugOracle) -> None:
    state = world.initial(keys.from_seed(43, 32))
    kept = tree.copy(state)
    order = torch.tensor(only(DOF, 0.5)).expand(32, -1)
    one, again = world.transition(state, order), world.transition(state, order)
    for a, b in zip(tree.leaves(one), tree.leaves(again), strict=True):
        assert torch.equal(a, b)
    for a, b in zip(tree.leaves(kept), tree.leaves(state), strict=True):
        assert torch.equal(a, b)
    other = world.rekey(state, keys.fold(state.key, 99))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(state)[1:], tree.leaves(other)[1:], strict=True))
    next_one, next_other = world.observe(one), world.observe(world.transition(other, order))
    assert (next_one["qtcf_ms"] != next_other["qtcf_ms"]).any()
    torch.testing.assert_close(one.concentration, world.transition(other, order).concentration)


def test_spread_is_the_variation_that_repeated_luck_shows(world: ECGDrugOracle) -> None:
    n = 4000
    key = keys.from_seed(47, 1).expand(n).contiguous()
    state = world.rekey(world.initial(key, {"baseline_burden": torch.zeros(n)}), keys.from_seed(48, n))
    after = world.transition(state, torch.zeros(n, 4))
    chart, spread = world.observe(after), world.spread(after)
    for name, sd in spread.items():
        assert chart[name].std().item() == pytest.approx(sd.mean().item(), rel=0.15, abs=0.05), name
    assert {"qtcf_ms", *ENDPOINTS} <= set(spread)


def test_support_ends_where_the_trial_does(world: ECGDrugOracle) -> None:
    state = world.initial(keys.from_seed(53, 100))
    assert world.support(state).all()
    once = world.transition(state, torch.tensor(only(DOF, 0.5)).expand(100, -1))
    assert world.support(once).float().mean() > 0.8
    much = state
    for _ in range(6):
        much = world.transition(much, torch.tensor(only(DOF, 1.0)).expand(100, -1))
    assert world.support(much).float().mean() < 0.2


def test_an_extrapolated_drug_is_accepted_and_flagged() -> None:
    world = ECGDrugOracle(drugs=(*ecg_quantities.DRUGS, "bepridil"))
    state = world.initial(keys.from_seed(59, 8))
    assert world.drugs[4] == "bepridil" and world.observe(state)["total_dose_mg"].shape == (8, 5)
    order = torch.zeros(8, 5)
    assert world.support(world.transition(state, order)).all()
    order[:, 4] = world.orders[4].high
    after = world.transition(state, order)
    assert not world.support(after).any()
    alone = world.transition(tree.take(state, slice(2, 3)), order[2:3])
    assert all(torch.equal(a[2:3], b) for a, b in zip(tree.leaves(after), tree.leaves(alone), strict=True))


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="hours_per_step"):
        ECGDrugOracle(hours_per_step=0.0)
    with pytest.raises(ValueError, match="martians"):
        ECGDrugOracle(cohort="martians")
    with pytest.raises((ValueError, KeyError), match="unobtainium"):
        ECGDrugOracle(drugs=("unobtainium",))
    world = ECGDrugOracle()
    with pytest.raises(ValueError, match="age_years"):
        world.initial(keys.from_seed(1, 1), {"age_years": torch.tensor([5.0])})
    with pytest.raises(ValueError, match="mood"):
        world.observe(world.initial(keys.from_seed(1, 1)), also=("mood",))
    with pytest.raises(ValueError, match="12, 5000"):
        world.read({"ecg_mv": torch.zeros(1, 12, 100)})


def test_the_drawn_ecg_obeys_einthoven_and_reads_back(world: ECGDrugOracle) -> None:
    pytest.importorskip("world_models.ecg.delineation.delineate")
    fix = {"baseline_heart_rate_bpm": torch.linspace(50, 110, 48), "baseline_burden": torch.zeros(48)}
    state = world.initial(keys.from_seed(61, 48), fix)
    chart = world.observe(state, also=("ecg_mv",))
    ecg = chart["ecg_mv"]
    assert ecg.shape == (48, 12, 5000) and (ecg[:, 2] - (ecg[:, 1] - ecg[:, 0])).abs().max() < 1e-5
    within_bounds(world, chart)
    factors = world.read(chart)
    for name, limit in (("qtcf_ms", 1.5), ("pr_ms", 1.0), ("qrs_ms", 1.0), ("tpeak_tend_ms", 1.0)):
        error = (factors[f"baseline_{name}"] - chart[name]).abs()
        assert error.nanmedian() < limit, (name, error)
    assert (factors["baseline_heart_rate_bpm"] - chart["heart_rate_bpm"]).abs().median() < 1.5
    copy = admit(world, keys.from_seed(62, 48), factors)
    again = world.observe(copy, also=("ecg_mv",))
    assert torch.equal(again["age_years"], chart["age_years"])
    assert (again["qtcf_ms"] - factors["baseline_qtcf_ms"]).abs().nan_to_num(0).max() < 2e-3
    height = (again["ecg_mv"][:, 1].amax(-1) - ecg[:, 1].amax(-1)).abs()
    assert height.median() < 0.15
    for name in T_ENDPOINTS:  # read off the ECG where it can be measured, and then what the copy's chart shows
        read = factors[f"baseline_{name}"]
        assert read.isfinite().float().mean() > 0.9
        assert (again[name] - read).abs().nan_to_num(0).max() < 2e-3, name
