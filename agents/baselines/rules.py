"""Builders of rules: chance, nothing, and what clinicians wrote down, in the kind of action that the id takes."""

from __future__ import annotations

import torch
from torch import Tensor

from agents.baselines.constant import Constant, no_treatment
from agents.baselines.ecg_rules import FULL_MG, HALF_MG, QUARTER_MG, DofetilideLabelRule
from agents.baselines.progression_rule import ProgressionRule
from agents.baselines.schedule import EVERY_VISIT, AsOrders, Schedule
from agents.baselines.uniform import Uniform, UniformAmounts
from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.making import Built, Making
from agents.protocol import Agent, menu_of
from clinenv.task import Doses, Levels, Menu
from world_models.cardiac_jepa.model import CardiacJEPAWorld

__all__ = ["clinician", "dofetilide_label", "guideline", "nothing", "random_actions"]

SEED = 8_900_000_000  # agents' own streams begin here


def random_actions(making: Making) -> Built:
    """What `action_space.sample()` would do: every menu row, level or switch equally likely, doses uniform."""
    actions, seed = making.simulator.task.actions, SEED + making.seed * 1_000_000
    if isinstance(actions, Menu):
        agent: Agent = Uniform(len(actions), seed)
    elif isinstance(actions, Levels):
        agent = Uniform(actions.counts, seed)
    else:
        agent = UniformAmounts(actions, making.simulator.world.orders, seed)
    return Built(agent, {"seed": making.seed})


def nothing(making: Making) -> Agent:
    """No order ever: no test, no treatment; the longest time to the next visit; no explanation."""
    actions = making.simulator.task.actions
    if isinstance(actions, Menu):
        return no_treatment()
    if isinstance(actions, Levels):
        last = [actions.counts[i] - 1 if name == actions.interval else 0 for i, name in enumerate(actions.names)]
        return Constant(last, "no treatment")
    none = torch.zeros(len(making.simulator.world.orders))
    return Schedule(making.simulator.task, none, torch.full_like(none, EVERY_VISIT), "no orders")


def dofetilide_label(making: Making) -> Agent:
    """The label's rule, by the menu's rows or in its own doses."""
    columns = [q.name for q in making.simulator.world.orders]
    menu = menu_of(making.simulator)
    if menu is not None:
        return DofetilideLabelRule(menu, columns)
    doses = torch.zeros(4, len(columns))
    doses[1:, columns.index("dofetilide_mg")] = torch.tensor([FULL_MG, HALF_MG, QUARTER_MG])
    return AsOrders(DofetilideLabelRule(doses, columns), doses)


def clinician(making: Making) -> Agent:
    """The ward's rule: at the amounts it decides where those can be had, else at standard ones."""
    hours = float(making.simulator.world.hours_per_step)
    exact = isinstance(making.simulator.task.actions, Doses)
    return Clinician(hours) if exact else StandardClinician(hours)


def guideline(making: Making, thresholds: str = "half", measure: str = "probe") -> Built:
    """The clinic's rule.

    Args:
        thresholds: a reading counts from a "half" upwards, or from where the trained reader's own thresholds lie.
        measure: what is read, see `ProgressionRule`.
    """
    limit: float | Tensor = 0.5
    world = making.simulator.world
    if thresholds == "reader":
        assert isinstance(world, CardiacJEPAWorld)  # made in the learned world
        # a code that nobody had has no threshold
        limit = world.reader.threshold.detach().cpu().clamp(0.01, 0.99)
    return Built(ProgressionRule(limit, measure=measure), {"thresholds": thresholds, "measure": measure})
