"""Sets of transitions scored by what else the world reads."""

import pytest
import torch

from agents.planning.explain_fit import fit
from agents.planning.explain_posterior import ExplainPosterior
from agents.planning.explain_reading import ReadTransitions, clues, fit_reading
from benchmarks.progression import explain as benchmark
from clinenv.envs.ecg_explain.task import ECGExplainTask
from clinenv.simulator import Simulator
from tests.toy_progression import ToyClinic
from world_models import keys
from world_models.cardiac_jepa.explain import ExplainWorld
from world_models.cardiac_jepa.labels import LabelModel
from world_models.quantities.progression import CODES

C = len(CODES)


class Hidden(ToyClinic):
    """Its second latents are noisy; one part of the world reads the transition all the same, on most days."""

    def __init__(self, reads: bool) -> None:
        super().__init__()
        self.known: dict[float, torch.Tensor] = {}
        if reads:
            self.jepa.inverse = self._inverse
            self.labels = LabelModel(CODES)

    def explain_pairs(self, key):
        before, after, condition, action, days = super().explain_pairs(key)
        noise = 8.0 * keys.normal(key, 0, "noise", (after.shape[1],))
        self.known |= {round(float(x), 3): a for x, a in zip((after + noise)[:, 0], action, strict=True)}
        return before, after + noise, condition, action, days

    def _inverse(self, before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
        told = torch.stack([self.known[round(float(x), 3)] for x in after[:, 0]])
        return told + 0.3 * torch.sin(1000 * after[:, :1] + torch.arange(C))


def test_what_is_read_is_weighed_and_helps() -> None:
    world = Hidden(reads=True)
    simulator = Simulator(ExplainWorld(world, "joint"), ECGExplainTask())
    known = benchmark.sample_pairs(simulator, 5000, 150)
    test = benchmark.sample_pairs(simulator, 1, 50, known.state.z_before)
    assert clues(world, test.chart).shape == (len(test.sought), C, 2)
    how = fit(simulator, known.chart, known.sought)
    read, tau = fit_reading(simulator, known.chart, known.sought, how)
    assert isinstance(read, ReadTransitions) and read.codes == C and tau > 0
    assert float(read.weight[:, 1].min()) > 1.0, "inverse dynamics, the first clue, is believed"

    def top1(score, weight: float) -> float:
        found = ExplainPosterior(simulator, score, how.metric, weight, width=6, depth=3).solve(test.chart)
        return float((found == test.sought).all(-1).float().mean())

    assert top1(read, tau) > 0.3 + top1(how.prior, how.tau)
    sets = torch.eye(C, dtype=torch.bool)
    each = sets.expand(len(test.sought), -1, -1)
    torch.testing.assert_close(read.of_sets(test.chart, each), read.of_sets(test.chart, sets))


def test_a_scar_belongs_to_the_infarction_that_leaves_it() -> None:
    world = Hidden(reads=False)
    simulator = Simulator(ExplainWorld(world, "joint"), ECGExplainTask())
    known = benchmark.sample_pairs(simulator, 5000, 60)
    how = fit(simulator, known.chart, known.sought)
    read, _ = fit_reading(simulator, known.chart, known.sought, how)
    assert clues(world, known.chart).shape[-1] == 0, "a world without these parts has no clues"
    sets = torch.zeros(1, C, dtype=torch.bool)
    sets[0, [CODES.index("I21"), CODES.index("I25")]] = True
    condition = torch.zeros(3, C)
    condition[:2, CODES.index("I21")] = 1.0
    condition[1, CODES.index("I25")] = 1.0  # the scar was there
    chart = {"condition_before": condition, "days": torch.full((3,), 100.0)}
    blank = {name: torch.zeros(3, 12) for name in ("z_before", "z_goal")}
    told = read._replace(scar=torch.tensor(5.0)).of_sets({**chart, **blank}, sets)
    without = read._replace(scar=torch.tensor(0.0)).of_sets({**chart, **blank}, sets)
    assert (told - without)[:, 0].tolist() == pytest.approx([5.0, 0.0, 0.0])


def test_bad_arguments_are_named() -> None:
    simulator = Simulator(ExplainWorld(Hidden(reads=False), "joint"), ECGExplainTask())
    known = benchmark.sample_pairs(simulator, 5000, 30)
    how = fit(simulator, known.chart, known.sought)
    with pytest.raises(ValueError, match="ridge of 0 or more, got .*-1"):
        fit_reading(simulator, known.chart, known.sought, how, ridge=-1.0)
    with pytest.raises(ValueError, match="needs a pair of one or two"):
        fit_reading(simulator, known.chart, torch.ones_like(known.sought), how)
