"""Kinetics against the raw compartment equations, superposition, and the drawn population."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

from world_models import keys, tree
from world_models.oracles.ecg_drug import kinetics as pk
from world_models.oracles.ecg_drug.cipa import cipa_table
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS, block, channel_effects
from world_models.oracles.ecg_drug.population import TrialModel
from world_models.oracles.ecg_drug.scales import SCALES, from_scale, slope_of, to_scale
from world_models.quantities.drugs import ANTIARRHYTHMICS, drug


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


def compartments(hours, dose, ka, lag, clearance, v1, q, v2, stages, ke0):
    """The raw equations, integrated: plasma and effect site in ng/mL."""
    q, v2 = q or 0.0, v2 or 1.0

    def slope(_, y):
        gut, second, central, outer, site = y
        into = ka * (second if stages == 2 else gut)
        return [
            -ka * gut,
            ka * gut - ka * second if stages == 2 else 0.0,
            into - clearance / v1 * central - q / v1 * central + q / v2 * outer,
            q / v1 * central - q / v2 * outer,
            ke0 * (1000.0 * central / v1 - site),
        ]

    solved = solve_ivp(
        slope, (0.0, float(hours[-1])), [dose, 0, 0, 0, 0], t_eval=np.asarray(hours) - lag, rtol=1e-10, atol=1e-13
    )
    return 1000.0 * solved.y[2] / v1, solved.y[4]


@pytest.mark.parametrize("stages", [1, 2])
@pytest.mark.parametrize("two", [False, True])
@pytest.mark.parametrize(
    ("ka", "ke0"), [(1.0, 0.5), (0.3, 2.0), (20.0 / 180.0, 0.7), (1.0, 1.0), (20.0 / 180.0, 20.0 / 180.0)]
)
def test_closed_form_solves_the_compartment_equations(stages, two, ka, ke0):
    q, v2 = (30.0, 100.0) if two else (None, None)
    hours = [0.5, 1.0, 2.0, 4.0, 8.0, 24.0]
    plasma, site = compartments(hours, 5.0, ka, 0.4, 20.0, 180.0, q, v2, stages, ke0)
    kin = pk.kinetics(
        one(ka),
        one(0.4),
        one(20.0),
        one(180.0),
        None if q is None else one(q),
        None if v2 is None else one(v2),
        stages,
        [one(ke0)],
    )
    found_plasma, found_site = pk.kernel(kin, torch.tensor(hours, dtype=torch.float64))
    # equal rates (ka = CL / V, ke0 = ka) are pushed apart by MIN_GAP: that is the tolerance
    np.testing.assert_allclose(5.0 * found_plasma[0].numpy(), plasma, rtol=4e-4, atol=1e-6)
    np.testing.assert_allclose(5.0 * found_site[0, 0].numpy(), site, rtol=4e-4, atol=1e-5)


def test_steps_equal_the_closed_form_and_doses_superpose():
    kin = pk.kinetics(one(1.2), one(0.7), one(20.0), one(150.0), one(8.0), one(60.0), 1, [one(2.0)])
    stacked = pk.Kinetics(*(leaf.unsqueeze(1) for leaf in kin))
    for step in (0.5, 1.0, 2.0):
        amounts = pk.empty(1, 1, pk.BASE_MODES + 1, "cpu")
        doses = {0.0: 3.0, 2.0: 1.0, 4.0: 5.0}
        for i in range(int(12 / step)):
            amounts = pk.advance(stacked, amounts, torch.tensor([[doses.get(i * step, 0.0)]]), step)
            now = (i + 1) * step
            expected_plasma = expected_site = 0.0
            for at, dose in doses.items():
                if now > at:
                    plasma, site = pk.kernel(kin, one(now - at))
                    expected_plasma, expected_site = (
                        expected_plasma + dose * plasma[0, 0],
                        expected_site + dose * site[0, 0, 0],
                    )
            torch.testing.assert_close(
                pk.concentration(stacked, amounts)[0, 0], torch.as_tensor(expected_plasma, dtype=torch.float64)
            )
            torch.testing.assert_close(
                pk.effect_sites(stacked, amounts)[0, 0, 0], torch.as_tensor(expected_site, dtype=torch.float64)
            )


def test_doses_of_every_half_hour_with_the_longest_lag_are_all_absorbed():
    kin = pk.Kinetics(
        *(
            x.unsqueeze(1)
            for x in pk.kinetics(one(1.0), one(pk.MAX_LAG_H), one(20.0), one(100.0), None, None, 1, [one(1.0)])
        )
    )
    amounts = pk.empty(1, 1, pk.BASE_MODES + 1, "cpu")
    for _ in range(8):
        amounts = pk.advance(kin, amounts, torch.ones(1, 1), pk.MIN_STEP_H)
        # with a lag of two steps, the last two doses wait at most
        assert float(amounts.pending_mg.sum()) <= 2.0
    later = pk.advance(kin, amounts, torch.zeros(1, 1), 2.0)
    assert float(later.pending_mg.sum()) == 0.0
    single, _ = pk.kernel(
        pk.Kinetics(*(x[:, 0] for x in kin)), torch.tensor([2.0 + 0.5 * (8 - i) for i in range(8)], dtype=torch.float64)
    )
    torch.testing.assert_close(pk.concentration(kin, later)[0, 0], single.sum())


def test_area_under_the_curve_is_dose_over_clearance():
    for stages, q in ((1, None), (2, None), (1, 9.0), (2, 9.0)):
        kin = pk.kinetics(
            one(1.1),
            one(0.3),
            one(20.0),
            one(150.0),
            None if q is None else one(q),
            None if q is None else one(80.0),
            stages,
            [one(2.0)],
        )
        area = quad(lambda h, kin=kin: float(pk.kernel(kin, one(h))[0]), 0.3, 400.0, limit=400)[0]
        site = quad(lambda h, kin=kin: float(pk.kernel(kin, one(h))[1]), 0.3, 400.0, limit=400)[0]
        assert area == pytest.approx(1000.0 / 20.0, rel=1e-3)
        assert site == pytest.approx(1000.0 / 20.0, rel=1e-3)


def test_a_step_too_short_is_refused():
    kin = pk.Kinetics(
        *(x.unsqueeze(1) for x in pk.kinetics(one(1.0), one(0.3), one(20.0), one(100.0), None, None, 1, [one(1.0)]))
    )
    with pytest.raises(ValueError, match="hours=0.1"):
        pk.advance(kin, pk.empty(1, 1, pk.BASE_MODES + 1, "cpu"), torch.ones(1, 1), 0.1)


def people(model: TrialModel, count: int, seed: int = 3):
    key = keys.from_seed(seed, count)
    female = keys.bernoulli(key, 0, "sex", torch.tensor(0.5)).float()
    weight = 50.0 + 60.0 * keys.uniform(key, 0, "weight")
    return key, model.individual(key, female, weight, 40.0 + 0 * weight, torch.ones(count)), female


def course(model: TrialModel, person, doses: torch.Tensor, hours: float, steps: int):
    amounts = model.no_drug(len(doses))
    for i in range(steps):
        amounts = model.advance(person, amounts, doses if i == 0 else torch.zeros_like(doses), hours)
    return amounts


def test_a_row_equals_the_same_person_alone_bit_for_bit():
    model = TrialModel.load(extra_drugs=("mexiletine",))
    key, person, female = people(model, 64)
    doses = keys.uniform(key, 1, "dose", (len(model.drugs),)) * torch.tensor([1500.0, 0.5, 120.0, 400.0, 1.0])

    def everything(key, person, female, doses):
        amounts = course(model, person, doses, 2.0, 3)
        clock = 24.0 * keys.uniform(key, 2, "clock")
        return (
            amounts,
            model.concentrations(person, amounts),
            model.effects_by_drug(person, amounts),
            model.effects(person, amounts),
            model.time_of_day(clock),
            model.baseline(key, female, female),
            model.day_shift(key),
            model.residual(key, 4, person, amounts),
        )

    whole = everything(key, person, female, doses)
    for rows in (slice(0, 1), slice(13, 14), slice(20, 27)):
        again = model.individual(
            key[rows],
            female[rows],
            (50.0 + 60.0 * keys.uniform(key[rows], 0, "weight")),
            40.0 + 0 * female[rows],
            torch.ones(len(key[rows])),
        )
        alone = everything(key[rows], again, female[rows], doses[rows])
        for a, b in zip(tree.leaves(tree.take(whole, rows)), tree.leaves(alone), strict=True):
            assert torch.equal(a, b)


def test_nothing_on_board_does_nothing():
    model = TrialModel.load()
    _, person, _ = people(model, 5)
    amounts = course(model, person, torch.zeros(5, 4), 2.0, 2)
    assert all(bool((value == 0).all()) for value in model.effects(person, amounts).values())
    assert bool((model.concentrations(person, amounts) == 0).all())


def test_effects_have_the_known_sizes_and_women_respond_more_in_j_tpeak():
    model = TrialModel.load()
    _, person, female = people(model, 4000)
    doses = torch.diag(torch.tensor([1500.0, 0.5, 120.0, 400.0]))
    found = {}
    for i, name in enumerate(model.drugs):
        amounts = course(model, person, doses[i].expand(4000, -1).contiguous(), 2.5, 1)
        found[name] = model.effects(person, amounts)
    repolarised = {name: (f["jt_peak_c_ms"] + f["tpeak_tend_ms"]).mean() for name, f in found.items()}
    assert 45 < repolarised["dofetilide"] < 85
    assert 50 < repolarised["quinidine"] < 90
    assert 3 < repolarised["ranolazine"] < 20
    assert -6 < repolarised["verapamil"] < 8
    assert 10 < found["verapamil"]["pr_ms"].mean() < 35
    assert found["quinidine"]["tpeak_tend_ms"].mean() > found["quinidine"]["jt_peak_c_ms"].mean()
    women = found["dofetilide"]["jt_peak_c_ms"][female > 0.5].mean()
    assert women > found["dofetilide"]["jt_peak_c_ms"][female < 0.5].mean()


def test_working_scales_invert_each_other_and_their_slopes_are_the_inverses_own():
    values = torch.tensor([[60.0, 150.0, 90.0, 220.0, 80.0, 500.0, 0.2, 0.4, 45.0, 30.0]], dtype=torch.float64)
    values = torch.cat([values, values * 1.5])
    levels = to_scale(values)
    torch.testing.assert_close(from_scale(levels), values)
    for i in range(levels.shape[-1]):
        step = torch.zeros_like(levels)
        step[:, i] = 1e-6
        numeric = (from_scale(levels + step) - from_scale(levels - step))[:, i] / 2e-6
        torch.testing.assert_close(numeric, slope_of(values)[:, i], rtol=1e-5, atol=1e-7)
    assert list(SCALES) == list(ENDPOINTS)


def test_a_slow_metaboliser_has_more_on_board():
    model = TrialModel.load()
    key = keys.from_seed(0, 50)
    same = torch.ones(50)
    slow, fast = (model.individual(key, same, 70 * same, 30 * same, same * m) for m in (0.5, 1.5))
    doses = torch.tensor([1500.0, 0.5, 120.0, 400.0]).expand(50, -1).contiguous()
    high, low = (model.concentrations(p, course(model, p, doses, 2.0, 6)) for p in (slow, fast))
    assert bool((high > low).all())


def test_the_day_is_periodic_and_the_levels_are_where_they_were_fitted():
    model = TrialModel.load()
    hours = torch.linspace(0, 23.5, 48)
    first, second = model.time_of_day(hours), model.time_of_day(hours + 24.0)
    for e in ENDPOINTS:
        torch.testing.assert_close(first[e], second[e], atol=2e-3 * SCALES[e].step / 10.0 + 1e-6, rtol=0)
    key = keys.from_seed(1, 20000)
    for sex, name in ((torch.ones(20000), "women"), (torch.zeros(20000), "men")):
        level = model.baseline(key, sex, sex)
        for i, e in enumerate(ENDPOINTS):
            sd = math.sqrt(model.parameters["baseline"]["between_subject_covariance"][i][i])
            assert float(level[e].mean()) == pytest.approx(
                model.parameters["baseline"][name][e], abs=5 * sd / math.sqrt(20000)
            )
            assert float(level[e].std()) == pytest.approx(sd, rel=0.05)
    spread = torch.stack([model.residual(key, 7)[e] for e in ENDPOINTS], -1)
    asked = np.asarray(model.parameters["baseline"]["residual_covariance"])
    size = np.sqrt(np.diag(asked))
    np.testing.assert_allclose(np.cov(spread.numpy().T) / np.outer(size, size), asked / np.outer(size, size), atol=0.04)


def test_added_drugs_are_extrapolated_and_change_nobody_elses_luck():
    plain, more = TrialModel.load(), TrialModel.load(extra_drugs=("mexiletine", "sotalol"))
    assert more.extrapolated == (False,) * 4 + (True, True) and more.drugs[4:] == ("mexiletine", "sotalol")
    (_, a, _), (_, b, _) = people(plain, 8), people(more, 8)
    assert torch.equal(a.rates, b.rates[:, :4]) and torch.equal(a.slope, b.slope[:, :4])
    doses = torch.zeros(8, 6)
    doses[:, 4] = 1.0
    peak = torch.stack([more.concentrations(b, course(more, b, doses, h, 1))[:, 4] for h in (1.0, 2.0, 3.0, 4.0)]).amax(
        0
    )
    free = cipa_table()["mexiletine"].free_cmax_nm
    assert bool((peak > 0.5 * free).all()) and bool((peak < 2 * free).all())
    with pytest.raises(ValueError, match="aspirin"):
        TrialModel.load(extra_drugs=("aspirin",))


def test_channel_block_is_half_at_the_ic50_and_late_sodium_block_shortens_j_tpeak():
    assert float(block(one(100.0), 100.0, 1.3)) == pytest.approx(0.5)
    assert float(block(one(100.0), 0.0, 0.0)) == 0.0
    table = cipa_table()
    assert len(table) == 28 and sum(d.torsade_class == 2 for d in table.values()) == 8
    mexiletine = channel_effects(table["mexiletine"], one(table["mexiletine"].free_cmax_nm))
    assert float(mexiletine["jt_peak_c_ms"]) < 0
    assert float(channel_effects(table["dofetilide"], one(4.0))["jt_peak_c_ms"]) > 10


def test_bad_input_names_itself(tmp_path):
    with pytest.raises(KeyError, match="aspirin"):
        drug("aspirin")
    text = tmp_path / "x.json"
    text.write_text("hello")
    with pytest.raises(ValueError, match="not JSON"):
        TrialModel.load(text)
    text.write_text(json.dumps({"drugs": {}}))
    with pytest.raises(ValueError, match="lacks baseline"):
        TrialModel.load(text)
    model = TrialModel.load()
    with pytest.raises(ValueError, match="3 columns"):
        model.advance(people(model, 2)[1], model.no_drug(2), torch.zeros(2, 3), 2.0)
    assert [d.name for d in ANTIARRHYTHMICS] == list(model.drugs)
