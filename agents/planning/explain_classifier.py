"""Transitions of `ECGExplain-v0` by a supervised classifier, which knows no dynamics; without ECGs it is the floor.

A network reads both latents, their difference, the days between and the conditions before, and gives each condition a
log odds of its change; a set of transitions is scored by their sum,

    score(a) = sum over c in a of odds_c(z_before, z_goal, days, conditions) + m (|a| - 1) + s [a scar is left],

the form of `explain_reading` with a free function in place of the dynamics and clues. Blind to the latents, the same
network says what is common given the diagnoses: what any explanation from ECGs has to beat. Width, weight decay and
length of training are chosen on a fifth of the known pairs, then all of them are trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from agents.planning.explain_posterior import singles_and_pairs
from world_models import tree
from world_models.nn.mlp import mlp, sample_weights
from world_models.protocol import Chart
from world_models.quantities.progression import scars

__all__ = ["DECAYS", "HIDDEN", "SetClassifier", "fit_classifier"]

HIDDEN = (0, 64, 256)  # units of the hidden layer; 0: a linear model
DECAYS = (0.01, 0.1, 1.0)
MOST_STEPS, EVERY = 400, 10  # full batches, and after how many the held-out pairs are looked at
RATE = 5e-3
HELD_OUT = 5  # one pair of so many chooses
DAYS_SCALE = 5.0  # the logarithm of the days lies between 0 and 8


class Fit(NamedTuple):
    """What was chosen, and how well it foretells the pairs held out."""

    hidden: int
    decay: float
    steps: int
    nats: float  # mean negative log likelihood among all sets of one and two


class SetClassifier:
    """Scores sets of transitions from a problem's chart, as `TransitionPrior` does; C conditions.

    Args:
        codes: the world's.
        latent: Z, size of a latent; 0: blind to the ECGs.
        hidden: units of the hidden layer; 0: none.
        seed: of the first weights.
    """

    def __init__(self, codes: Sequence[str], latent: int, hidden: int, seed: int = 0) -> None:
        count = len(codes)
        self.latent, self._scars = latent, scars(codes)
        inputs = count + 1 + 3 * latent
        with torch.random.fork_rng(devices=[]):  # the library's own first weights are written over
            self.net = mlp((inputs, hidden, 2 * count) if hidden else (inputs, 2 * count))
        sample_weights(self.net, seed)
        self.more, self.scar = nn.Parameter(torch.tensor(-2.0)), nn.Parameter(torch.zeros(()))
        self.mean, self.scale = torch.zeros(3 * latent), torch.ones(3 * latent)
        self.codes = count
        self.chosen: Fit | None = None

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        return [*self.net.parameters(), self.more, self.scar]

    def standardise(self, chart: Chart) -> None:
        """Take mean and spread of the latents from these pairs."""
        if self.latent:
            seen = _latents(chart)
            self.mean, self.scale = seen.mean(0), seen.std(0).clamp_min(1e-3)

    def of_sets(self, chart: Chart, changed: Tensor) -> Tensor:
        """Score [B, M] of the sets changed bool [B, M, C], or [M, C] for all problems."""
        condition = chart["condition_before"]
        known = [condition, (chart["days"].log1p() / DAYS_SCALE).unsqueeze(-1)]
        if self.latent:
            known.append((_latents(chart) - self.mean) / self.scale)
        onset, resolution = self.net(torch.cat(known, -1)).chunk(2, -1)
        odds = torch.where(condition > 0.5, resolution, onset)
        sets = changed.to(odds.dtype)
        each = odds @ sets.T if changed.ndim == 2 else (odds.unsqueeze(1) * sets).sum(-1)
        value = each + self.more * (sets.sum(-1) - 1.0)
        for i, j in self._scars:
            new = ((condition[:, i] > 0.5) & (condition[:, j] < 0.5)).unsqueeze(1)
            value = value + self.scar * (changed[..., i] & changed[..., j] & new)
        return value


def fit_classifier(
    codes: Sequence[str],
    chart: Chart,
    sought: Tensor,
    blind: bool = False,
    seed: int = 0,
    hidden: Sequence[int] = HIDDEN,
    decays: Sequence[float] = DECAYS,
    most_steps: int = MOST_STEPS,
) -> SetClassifier:
    """Trained on known pairs at their start, chart and their true transitions sought [N, C].

    Pairs of three and more transitions say nothing here, as in `explain_reading.fit_reading`.

    Raises:
        ValueError: fewer than ten pairs of one or two transitions.
    """
    sets = singles_and_pairs(sought.shape[1], 2, sought.device)
    same = ((sought != 0).unsqueeze(1) == sets).all(-1)
    rows = same.any(1).nonzero()[:, 0]
    if len(rows) < 2 * HELD_OUT:
        raise ValueError(
            f"a classifier needs {2 * HELD_OUT} pairs of one or two transitions, got {len(rows)}; draw more"
        )
    chart, truth = tree.take(chart, rows), same[rows].to(torch.int8).argmax(1)
    held = torch.arange(len(rows), device=sets.device) % HELD_OUT == 0
    latent = 0 if blind else chart["z_goal"].shape[-1]
    inside, outside = tree.take(chart, ~held), tree.take(chart, held)
    best: Fit | None = None
    for units in hidden:
        for decay in decays:
            model = SetClassifier(codes, latent, units, seed)
            model.standardise(inside)
            course = _train(model, inside, truth[~held], sets, decay, most_steps, (outside, truth[held]))
            nats, steps = min(course)
            if best is None or nats < best.nats:
                best = Fit(units, decay, steps, nats)
    assert best is not None
    model = SetClassifier(codes, latent, best.hidden, seed)
    model.standardise(chart)
    _train(model, chart, truth, sets, best.decay, best.steps, None)
    model.chosen = best
    return model


def _train(
    model: SetClassifier,
    chart: Chart,
    truth: Tensor,
    sets: Tensor,
    decay: float,
    steps: int,
    judged: tuple[Chart, Tensor] | None,
) -> list[tuple[float, int]]:
    """Trains in place; mean negative log likelihood of the judged pairs and the steps taken until then."""
    step = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=decay)
    course: list[tuple[float, int]] = []
    with torch.enable_grad():
        for taken in range(1, steps + 1):
            step.zero_grad()
            nn.functional.cross_entropy(model.of_sets(chart, sets), truth).backward()
            step.step()
            if judged is not None and (taken % EVERY == 0 or taken == steps):
                with torch.no_grad():
                    nats = nn.functional.cross_entropy(model.of_sets(judged[0], sets), judged[1])
                course.append((float(nats), taken))
    return course


def _latents(chart: Chart) -> Tensor:
    before, goal = chart["z_before"], chart["z_goal"]
    return torch.cat((before, goal, goal - before), -1)
