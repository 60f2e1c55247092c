"""Risks that ask how futures were imagined, and the objectives made of them, on distributions whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch

from agents.planning.dual_ascent import Ascent, ascend
from agents.planning.objective import ChanceConstraint, ReturnAndCost
from agents.planning.risk import CVaR, Mean, MeanMinusSigma, StructuredRisk, WorstMember, scored
from clinenv.imagined import Imagined
from world_models import keys

PATIENTS, PLANS = 300, 2
BETWEEN, WITHIN = (3.0, 0.5), (1.0, 2.0)  # SDs of the two plans


def imagined(returns, costs=None, chances=1, members=None, expected=False) -> Imagined:
    costs = torch.zeros_like(returns) if costs is None else costs
    ended = torch.zeros_like(returns) if expected else torch.zeros_like(returns, dtype=torch.bool)
    return Imagined(returns, costs, ended, chances, members)


def nested(beliefs: int = 12, chances: int = 4) -> Imagined:
    """Returns 10 + between + within, normal, of the SDs above."""
    key = keys.from_seed(1, PATIENTS)
    between = keys.normal(key, 0, "between", (PLANS, beliefs, 1)) * torch.tensor(BETWEEN)[:, None, None]
    within = keys.normal(key, 0, "within", (PLANS, beliefs, chances)) * torch.tensor(WITHIN)[:, None, None]
    return imagined((10 + between + within).flatten(2), chances=chances)


@pytest.mark.parametrize(
    ("part", "wanted"),
    [("epistemic", BETWEEN), ("aleatoric", WITHIN), ("both", tuple(map(math.hypot, BETWEEN, WITHIN)))],
)
def test_the_parts_of_sigma_are_told_apart(part: str, wanted: tuple[float, float]) -> None:
    of = nested()
    plain = scored(Mean(), of.returns, of)
    for lam in (1.0, 2.5):
        risk = MeanMinusSigma(lam, part)
        assert isinstance(risk, StructuredRisk)
        sigma = ((plain - scored(risk, of.returns, of)) / lam).mean(0)
        # a standard deviation of few samples lies a little below the truth, the epistemic part of the small plan more
        torch.testing.assert_close(sigma, torch.tensor(wanted), rtol=0.1, atol=0.12)


def test_epistemic_and_aleatoric_aversion_choose_different_plans() -> None:
    """Plan 0 is uncertain because the patient is not known, plan 1 by chance."""
    of = nested()
    assert bool((ReturnAndCost(MeanMinusSigma(2.0, "epistemic"))(of).mean(0).argmax()) == 1)
    assert bool((ReturnAndCost(MeanMinusSigma(2.0, "aleatoric"))(of).mean(0).argmax()) == 0)


def test_what_cannot_be_told_is_refused_with_the_way_to_imagine_it() -> None:
    flat = imagined(torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0)))
    for risk, words in (
        (MeanMinusSigma(1.0, "epistemic"), r"at least 2 runs of 2 are needed; plan in a Simulator\(..., chances=4\)"),
        (CVaR(0.05), "needs at least 20 particles, got 8"),
        (WorstMember(), "asked of an ensemble"),
    ):
        with pytest.raises(ValueError, match=words):
            ReturnAndCost(risk)(flat)
        with pytest.raises(ValueError, match=words):
            ReturnAndCost(cost_weight=1.0, cost_risk=risk)(flat)
    with pytest.raises(ValueError, match="at least 2 runs"):
        ReturnAndCost(MeanMinusSigma(1.0, "aleatoric"))(flat._replace(chances=8))
    sure = imagined(flat.returns, expected=True)
    for risk in (CVaR(0.5), MeanMinusSigma(1.0), MeanMinusSigma(1.0, "aleatoric")):
        with pytest.raises(ValueError, match="plan with events='drawn'"):
            ReturnAndCost(risk)(sure)
    ReturnAndCost(MeanMinusSigma(1.0, "epistemic"))(sure._replace(chances=2))  # of an expectation it can be told
    with pytest.raises(ValueError, match="choose one of both, epistemic, aleatoric"):
        MeanMinusSigma(1.0, "total")
    with pytest.raises(ValueError, match="cannot be told from samples alone"):
        MeanMinusSigma(1.0, "epistemic")(flat.returns)


def test_cvar_of_enough_particles_is_that_of_the_law() -> None:
    """Of a normal, CVaR of the worst alpha is -phi(z_alpha) / alpha: -2.063 for a twentieth."""
    returns = keys.normal(keys.from_seed(4, 200), 0, "cvar", (1, 400))
    assert CVaR(0.05).least_samples == 20 and CVaR(0.3).least_samples == 4 and CVaR(1.0).least_samples == 1
    assert float(ReturnAndCost(CVaR(0.05))(imagined(returns)).mean()) == pytest.approx(-2.063, abs=0.03)
    assert ReturnAndCost(CVaR(0.05))(imagined(returns[..., :20])).shape == (200, 1)


def test_the_worst_member_is_the_least_of_the_members_means() -> None:
    members = torch.tensor([[0, 1, 0, 2, 1], [2, 2, 2, 0, 0]])
    returns = torch.tensor([[[1.0, 5.0, 3.0, 4.0, -3.0]], [[1.0, 2.0, 3.0, 9.0, 1.0]]])
    score = ReturnAndCost(WorstMember())(imagined(returns, members=members))
    assert score.tolist() == [[1.0], [2.0]]  # of means 2, 1, 4; and of 5 and 2, member 1 having no particle
    costs = ReturnAndCost(cost_weight=1.0, cost_risk=WorstMember())(imagined(returns, -returns, members=members))
    torch.testing.assert_close(costs, returns.mean(-1) + score)


def test_a_chance_constraint_charges_what_is_exceeded_beyond_its_share() -> None:
    costs = torch.tensor([[[0.0, 0.0, 0.0, 3.0], [0.0, 2.0, 2.0, 3.0]]])
    returns = torch.tensor([[[1.0, 1.0, 1.0, 1.0], [3.0, 3.0, 3.0, 3.0]]])
    free = ChanceConstraint(limit=1.0, alpha=0.25)
    assert free(imagined(returns, costs)).tolist() == [[1.0, 3.0]]
    assert ChanceConstraint(1.0, 0.25, 8.0)(imagined(returns, costs)).tolist() == [[1.0, -1.0]]
    assert ChanceConstraint(2.5, 0.25, 8.0)(imagined(returns, costs)).tolist() == [[1.0, 3.0]]
    for wrong in ({"alpha": 1.0}, {"alpha": -0.1}, {"limit": -1.0}, {"multiplier": math.nan}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ChanceConstraint(**wrong)


def test_dual_ascent_finds_the_multiplier_at_which_the_constraint_is_just_kept() -> None:
    """Doses x in [0, 1] earn 4 x - x^2 and exceed the limit with chance x^2: allowed a quarter, x is 0.5 and the
    multiplier 3 (the slopes 4 - 2 x and m 2 x agree)."""
    grid = torch.linspace(0.0, 1.0, 201)

    def costs(constraint: ChanceConstraint, round_: int) -> torch.Tensor:
        x = grid[(4 * grid - grid**2 - constraint.multiplier * (grid**2 - constraint.alpha)).argmax()]
        return (keys.uniform(keys.from_seed(round_, 400), 0, "exceeds") < x**2).to(torch.float32)

    said = []
    found = ascend(ChanceConstraint(alpha=0.25), costs, Ascent(60, 6.0), lambda *told: said.append(told))
    assert found.constraint.multiplier == pytest.approx(3.0, abs=0.4)
    assert sum(found.shares[30:]) / 30 == pytest.approx(0.25, abs=0.03)
    assert len(said) == 60 and said[0][1] == 0.0 and found.multipliers[0] == 0.0
    kept = ascend(ChanceConstraint(alpha=0.25, multiplier=1.0), lambda c, i: torch.zeros(10), Ascent(30, 6.0))
    assert kept.constraint.multiplier == 0.0, "nobody exceeds it: it costs nothing"
    with pytest.raises(ValueError, match="rounds"):
        Ascent(0)


def test_a_planner_of_each_objective_decides_in_a_world_with_runs_of_particles() -> None:
    from agents.planning.cem import CEMConfig
    from agents.planning.controller import WorldPlanner
    from clinenv.simulator import Simulator
    from tests.agents.bandit_world import DialTask, DialWorld

    simulator = Simulator(DialWorld(drift=0.5), DialTask(), chances=2)
    config = CEMConfig(horizon=2, candidates=8, particles=20, iterations=1, elites=2, finalists=0)
    _, chart = simulator.reset(keys.from_seed(2, 3))
    decided = {}
    for objective in (
        ReturnAndCost(MeanMinusSigma(1.0, "epistemic")),
        ReturnAndCost(MeanMinusSigma(1.0, "aleatoric")),
        ReturnAndCost(CVaR(0.05)),
        ChanceConstraint(0.0, 0.0, 1000.0),
    ):
        decided[objective] = WorldPlanner(simulator, config, objective=objective).act(chart)
        assert decided[objective].shape == (3,)
    assert 2 not in decided[ChanceConstraint(0.0, 0.0, 1000.0)].tolist(), "entry 2 costs, always"
