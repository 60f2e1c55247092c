"""The supervised classifier of transitions: it finds what latents show, and blind no more than what is common."""

from __future__ import annotations

import pytest
import torch

from agents.planning.explain_beam import SetFollower
from agents.planning.explain_classifier import SetClassifier, fit_classifier
from agents.planning.explain_pairs import sample_pairs
from agents.planning.explain_posterior import ExplainPosterior, singles_and_pairs
from clinenv.envs.ecg_explain.env import explain_world
from clinenv.simulator import Simulator
from tests.toy_progression import ToyClinic
from world_models import tree
from world_models.quantities.progression import CODES

C = len(CODES)
QUICK = {"hidden": (0,), "decays": (0.01,), "most_steps": 120}


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    task, world = explain_world(None, ToyClinic())
    return Simulator(world, task)


def test_it_learns_from_latents_what_no_diagnosis_tells(simulator: Simulator) -> None:
    known, test = sample_pairs(simulator, 100, 700), sample_pairs(simulator, 90_000, 200)
    hits = {}
    for blind in (False, True):
        found = fit_classifier(CODES, known.chart, known.sought, blind, **QUICK)
        solver = ExplainPosterior(simulator, found, None, 0.0)
        hits[blind] = float((solver.solve(test.chart) == test.sought).all(-1).float().mean())
        assert found.chosen is not None and found.chosen.nats > 0 and SetFollower(solver).explainer is solver
    # transitions of the toy are drawn evenly, so diagnoses tell next to nothing, and latents nearly all
    assert hits[True] < 0.12 and hits[False] > 3 * max(hits[True], 0.05)


def test_the_same_pairs_and_seed_give_the_same_classifier(simulator: Simulator) -> None:
    known = sample_pairs(simulator, 100, 120)
    one, two = (fit_classifier(CODES, known.chart, known.sought, **QUICK) for _ in range(2))
    assert one.chosen == two.chosen
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_sets_of_all_and_of_each_problem_are_scored_alike(simulator: Simulator) -> None:
    chart = sample_pairs(simulator, 7, 20).chart
    model = SetClassifier(CODES, chart["z_goal"].shape[-1], 8)
    model.standardise(chart)
    sets = singles_and_pairs(C)
    count = len(chart["days"])
    all_, each = model.of_sets(chart, sets), model.of_sets(chart, sets.expand(count, -1, -1))
    torch.testing.assert_close(all_, each, atol=1e-4, rtol=1e-4)
    alone = model.of_sets(tree.take(chart, slice(2, 3)), sets)
    torch.testing.assert_close(alone[0], all_[2], atol=1e-4, rtol=1e-4)
    assert SetClassifier(CODES, 0, 0).of_sets(chart, sets).shape == (count, len(sets))


def test_too_few_pairs_are_refused(simulator: Simulator) -> None:
    known = sample_pairs(simulator, 100, 30)
    few = slice(0, 5)
    with pytest.raises(ValueError, match=r"needs 10 pairs .* draw more"):
        fit_classifier(CODES, tree.take(known.chart, few), known.sought[few])
