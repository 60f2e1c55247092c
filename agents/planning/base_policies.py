"""The rule that planning starts from in each task: what a clinician would do, for planners to propose, edit and
continue."""

from __future__ import annotations

from torch import Tensor

from agents.baselines.constant import FixedRegimen
from agents.baselines.ecg_rules import HALF_MG, HOURS_BETWEEN_DOSES, DofetilideLabelRule, menu_row
from agents.baselines.progression_rule import ProgressionRule
from agents.baselines.ward_rule import Clinician, StandardClinician
from agents.protocol import Agent, menu_of, to_orders
from clinenv.envs.ecg_drug.task import MENU
from clinenv.simulator import Simulator
from clinenv.task import Switches
from world_models.protocol import Chart

__all__ = ["POLICIES", "OnMenu", "base_policy"]

POLICIES = ("rule", "constant")


class OnMenu:
    """An agent that chooses from a menu, where the task takes amounts: its rows as orders.

    Args:
        agent: gives int64 [B].
        menu: float32 [M, A].
    """

    def __init__(self, agent: Agent, menu: Tensor) -> None:
        self.agent, self.menu, self.name = agent, menu, agent.name

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent's."""
        self.agent.reset(mask)

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]."""
        return to_orders(self.agent.act(chart), self.menu)


def base_policy(simulator: Simulator, name: str = "rule") -> Agent:
    """A new agent for the simulator's task.

    Args:
        name: "rule", the clinicians' (the dofetilide label's, the ward's, the clinic's guidelines); or "constant", for
            the antiarrhythmics: half the label's dose of dofetilide every 12 h, without looking.

    Raises:
        ValueError: an unknown name, or a task for which there is no such policy.
    """
    task, device = simulator.task, simulator.device
    if name not in POLICIES:
        raise ValueError(f"no base policy {name!r}; there are: {', '.join(POLICIES)}")
    if task.name == "ECGDrug":
        menu = menu_of(simulator)
        table = MENU.table(simulator.world.orders, device) if menu is None else menu
        agent: Agent = DofetilideLabelRule(table, task.orders)
        if name == "constant":
            row = menu_row(table, task.orders, dofetilide_mg=HALF_MG)
            agent = FixedRegimen(row, HOURS_BETWEEN_DOSES, "dofetilide 0.25 mg every 12 h")
        return agent if menu is not None else OnMenu(agent, table)
    if task.name == "EHRWard" and name == "rule":
        hours = float(simulator.world.hours_per_step)
        return StandardClinician(hours) if isinstance(task.actions, Switches) else Clinician(hours)
    if task.name == "ECGProgression" and name == "rule":
        return ProgressionRule()
    raise ValueError(f"task {task.name!r} has no base policy {name!r}; hand the planner an agent of your own")
