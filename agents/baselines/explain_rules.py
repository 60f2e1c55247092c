"""Builders of explainers: what a library of known pairs says, without a model of the dynamics and with it.

The library is drawn by the world the explainer is made in; nothing is chosen on pairs that are judged.
"""

from __future__ import annotations

from agents.baselines.explain_nearest import MostCommon, NearestPair
from agents.making import Built, Making
from agents.planning.explain_beam import ExplainBeam, SetFollower
from agents.planning.explain_fit import fit
from agents.planning.explain_pairs import Pairs, sample_pairs
from agents.planning.explain_posterior import ExplainPosterior
from agents.planning.explain_reading import fit_reading

__all__ = ["beam", "commonest", "nearest", "posterior", "prior_alone"]

LIBRARY_SEED = 700_000
LIBRARY, SMALL_LIBRARY = 5000, 600  # pairs drawn; those that changed are kept, each once
WIDTH, DEPTH = 8, 4  # sets a beam keeps, transitions at most


def _library(making: Making) -> Pairs:
    return sample_pairs(making.simulator, LIBRARY_SEED, SMALL_LIBRARY if making.quick else LIBRARY)


def _about(pairs: Pairs) -> dict[str, int]:
    return {"known pairs": len(pairs.sought), "library seed": LIBRARY_SEED}


def commonest(making: Making) -> Built:
    """The commonest transition of the library."""
    pairs = _library(making)
    return Built(SetFollower(MostCommon(pairs.sought)), _about(pairs))


def nearest(making: Making, metric: str = "cosine") -> Built:
    """The transitions of the library's nearest pair."""
    pairs = _library(making)
    near = NearestPair(pairs.state.z_goal - pairs.state.z_before, pairs.sought, metric)
    return Built(SetFollower(near), {**_about(pairs), "metric": metric})


def prior_alone(making: Making) -> Built:
    """The likeliest transition of somebody with these conditions, blind to both ECGs."""
    pairs = _library(making)
    prior = fit(making.simulator, pairs.chart, pairs.sought).prior_alone
    return Built(SetFollower(ExplainPosterior(making.simulator, prior, None, 0.0, WIDTH, DEPTH)), _about(pairs))


def beam(making: Making) -> Built:
    """Beam search by the distance that the task pays for."""
    settings = {"width": WIDTH, "depth": DEPTH}
    budget = f"{WIDTH} sets of each size up to {DEPTH}"
    return Built(SetFollower(ExplainBeam(making.simulator, WIDTH, DEPTH)), settings, budget)


def posterior(making: Making) -> Built:
    """The likeliest set of transitions, with what the world's other parts read in the ECGs."""
    pairs = _library(making)
    how = fit(making.simulator, pairs.chart, pairs.sought)
    read, tau = fit_reading(making.simulator, pairs.chart, pairs.sought, how)
    explainer = ExplainPosterior(making.simulator, read, how.metric, tau, WIDTH, DEPTH)
    return Built(SetFollower(explainer), {**_about(pairs), "width": WIDTH, "depth": DEPTH}, "all sets of one and two")
