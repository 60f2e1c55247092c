"""What is logged for each id: the task, its worlds, and the behaviours random, clinician and mixed.

- random: any option of any entry, all equally likely (where amounts are chosen: now and then any amount of any drug);
- clinician: three colleagues who follow the rule, one of them eagerly and one sparingly;
- mixed: these, and colleagues with other habits (the same for everybody, or nothing, or chance).

Each patient has one colleague throughout, whom the log does not name, and a small share of random options is mixed in,
so that the chance of every decision is above 0. Shares, leans and habits are a choice: policies that differ in what
they earn, with the overlap that an evaluation needs. With the dial of confounding up, the sicker have the colleagues
who do more (`lean`), and the ward's clinician sees the severity himself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from agents.baselines.constant import Constant, FixedRegimen, no_treatment
from agents.baselines.ecg_rules import HOURS_BETWEEN_DOSES, DofetilideLabelRule, menu_row
from agents.baselines.progression_rule import ProgressionRule
from agents.baselines.ward_rule import KNOBS, Clinician, NoOrders, TunedClinician
from agents.offline.behaviour import Behaviour, Exploring, Mixture, uniform
from agents.offline.choices import Choices
from agents.protocol import Agent, to_orders
from clinenv.envs.ecg_drug.task import MENU, SINGLE_DOSE_MG, ECGDrugTask
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from clinenv.task import Doses, Task
from world_models import catalog
from world_models.oracles.ward.clinician import clinician
from world_models.protocol import Chart
from world_models.quantities.progression import INTERVALS_MONTHS, TREATMENTS
from world_models.quantities.ward import INQUIRIES

__all__ = ["CASES", "KINDS", "Case", "Colleague", "behaviour", "colleagues", "simulator_of"]

KINDS = ("random", "clinician", "mixed")
GIVEN_AT_RANDOM = 0.15  # chance of each drug in each step, where amounts are chosen at random


@dataclass(frozen=True)
class Colleague:
    """One way to treat."""

    name: str
    agent: Callable[[Simulator, float], Agent]  # made for a simulator and a position of the dial
    share: float  # of the mixed log's patients, relative to the others'
    lean: float = 0.0  # -1 .. 1: whether the sicker come to him with the dial up
    clinician: bool = False  # also in the log of clinicians


@dataclass(frozen=True)
class Case:
    """What is logged for one id."""

    task: Callable[[], Task]
    learned: str  # world
    steps: int  # the id's time limit
    epsilon: float  # share of random options in every entry
    patients: dict[str, int]  # of each kind of log
    colleagues: tuple[Colleague, ...]
    random_share: float = 0.1  # of the mixed log's patients: treated at random


# ---- drug start


def _regimen(**dose_mg: float) -> Callable[[Simulator, float], Agent]:
    """One row of the menu every 12 h, whatever the chart says."""

    def make(simulator: Simulator, dial: float) -> Agent:
        names = [order.name for order in simulator.world.orders]
        return _of_menu(FixedRegimen(menu_row(_menu(simulator), names, **dose_mg), HOURS_BETWEEN_DOSES), simulator)

    return make


def _label_rule(simulator: Simulator, dial: float) -> Agent:
    names = [order.name for order in simulator.world.orders]
    return _of_menu(DofetilideLabelRule(_menu(simulator), names), simulator)


def _nothing(simulator: Simulator, dial: float) -> Agent:
    return _of_menu(no_treatment(), simulator)


def _menu(simulator: Simulator) -> Tensor:
    return MENU.table(simulator.world.orders, simulator.device)


def _of_menu(agent: Agent, simulator: Simulator) -> Agent:
    """The agent; where the task takes amounts and not the menu's rows, one that gives the rows' amounts."""
    return _Amounts(agent, _menu(simulator)) if isinstance(simulator.task.actions, Doses) else agent


class _Amounts:
    """An agent of the menu [M, A] where amounts are chosen."""

    def __init__(self, agent: Agent, menu: Tensor) -> None:
        self.name, self._agent, self._menu = agent.name, agent, menu

    def reset(self, mask: Tensor | None = None) -> None:
        """The agent forgets."""
        self._agent.reset(mask)

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A] mg."""
        return to_orders(self._agent.act(chart), self._menu)


_DRUG = (
    Colleague("dofetilide label rule", _label_rule, 0.3, 0.5, clinician=True),
    Colleague("dofetilide 0.5 mg every 12 h", _regimen(dofetilide_mg=0.5), 0.15, 0.9, clinician=True),
    Colleague("dofetilide 0.25 mg every 12 h", _regimen(dofetilide_mg=0.25), 0.15, -0.4, clinician=True),
    Colleague("quinidine 400 mg every 12 h", _regimen(quinidine_mg=400.0), 0.1, 0.6),
    Colleague("verapamil 120 mg every 12 h", _regimen(verapamil_mg=120.0), 0.1, -0.7),
    Colleague("no treatment", _nothing, 0.2, -0.9),
)

# ---- ward

# what a more eager colleague reads into the same chart, in units of the knobs; a more sparing one the reverse
_EAGER = {"map_mmhg": -1.0, "lactate_mmol_l": 1.0, "crp_mg_l": 1.0, "temperature_c": 1.0, "glucose_mg_dl": 1.0}


def _reading(times: float) -> Callable[[Simulator, float], Agent]:
    """The rule that reads the chart so many times as eagerly, and tests as much more often."""

    def make(simulator: Simulator, dial: float) -> Agent:
        each = [_EAGER.get(k.target, 0.0) if k.kind == "read" else -1.0 if k.kind == "wait" else 0.0 for k in KNOBS]
        return TunedClinician(torch.tensor(each) * times, simulator.world.hours_per_step)

    return make


class _SeeingClinician(Clinician):
    """The ward's clinician, whose own dial lets the hidden severity into his orders."""

    def __init__(self, hours_per_step: float, confounding: float) -> None:
        super().__init__(hours_per_step)
        self._confounding = confounding

    def act_knowing(self, chart: Chart, hidden: Tensor) -> Tensor:
        """float32 [B, A]: see `agents.offline.behaviour.Knowing`."""
        return clinician(chart, self.hours_per_step, self._confounding, hidden)


class _TestsOnly(Clinician):
    """The rule's tests, and no treatment."""

    def act(self, chart: Chart) -> Tensor:
        """float32 [B, A]."""
        orders = super().act(chart)
        orders[:, len(INQUIRIES) :] = 0.0
        return orders


_WARD = (
    Colleague(
        "clinician's rule", lambda s, dial: _SeeingClinician(s.world.hours_per_step, dial), 0.3, 0.0, clinician=True
    ),
    Colleague("eager rule", _reading(1.0), 0.2, 0.9, clinician=True),
    Colleague("sparing rule", _reading(-1.0), 0.2, -0.6, clinician=True),
    Colleague("very sparing rule", _reading(-2.5), 0.1, -0.6),
    Colleague("tests, no treatment", lambda s, dial: _TestsOnly(s.world.hours_per_step), 0.1, 0.2),
    Colleague("no orders", lambda s, dial: NoOrders(), 0.1, -0.6),
)

# ---- clinic


def _rule(threshold: float) -> Callable[[Simulator, float], Agent]:
    """The guideline rule from a probability of the probe on."""
    return lambda simulator, dial: ProgressionRule(threshold, sure=max(threshold, 0.5))


def _always(*treatments: str, months: float) -> Callable[[Simulator, float], Agent]:
    """The same treatments at every visit."""
    levels = [int(name in treatments) for name in TREATMENTS] + [INTERVALS_MONTHS.index(months)]
    return lambda simulator, dial: Constant(levels)


_CLINIC = (
    Colleague("guideline rule", _rule(0.5), 0.25, 0.0, clinician=True),
    Colleague("eager guideline rule", _rule(0.2), 0.15, 0.9, clinician=True),
    Colleague("sparing guideline rule", _rule(0.85), 0.15, -0.9, clinician=True),
    Colleague("nothing, seen yearly", _always(months=12.0), 0.2, -0.9),
    Colleague("beta-blocker, ACE inhibitor", _always("beta_blocker", "ace_inhibitor", months=6.0), 0.15, 0.6),
    Colleague("anticoagulant for everybody", _always("anticoagulant", months=3.0), 0.1, 0.6),
)

CASES: dict[str, Case] = {
    "ECGDrug-v0": Case(
        ECGDrugTask, "ecg-wm-small", 24, 0.05, {"random": 1500, "clinician": 1500, "mixed": 1500}, _DRUG
    ),
    "EHRWard-v0": Case(
        EHRWardTask, "ehr-ward-small", 84, 0.01, {"random": 400, "clinician": 300, "mixed": 300}, _WARD, 0.0
    ),
    "ECGProgression-v0": Case(
        ECGProgressionTask, "cardiac-jepa-small", 120, 0.02, {"random": 400, "clinician": 500, "mixed": 500}, _CLINIC
    ),
    "ECGDrugContinuous-v0": Case(
        lambda: ECGDrugTask(actions=Doses(SINGLE_DOSE_MG)), "ecg-wm-small", 24, 0.05, {"mixed": 1500}, _DRUG
    ),
}


def simulator_of(env_id: str, world: str = "oracle") -> Simulator:
    """The simulator of an id in a world: "oracle", "learned" (the id's own), or one that `catalog.load` knows.

    Raises:
        ValueError: an id for which nothing is logged, or an unknown world.
    """
    if env_id not in CASES:
        raise ValueError(f"nothing is logged for {env_id!r}; choose one of {', '.join(CASES)}")
    case = CASES[env_id]
    task = case.task()
    name = {"oracle": task.oracle, "learned": case.learned}.get(world, world)
    return Simulator(catalog.load(name), task)


def colleagues(env_id: str, simulator: Simulator, dial: float = 0.0, kind: str = "mixed") -> dict[str, Behaviour]:
    """The behaviours of the colleagues of a log, by name, each by himself."""
    choices, epsilon = Choices(simulator), CASES[env_id].epsilon
    found: dict[str, Behaviour] = {
        c.name: Exploring(c.agent(simulator, dial), choices, epsilon, c.name) for c in _among(env_id, kind)
    }
    if kind == "mixed" and CASES[env_id].random_share > 0:
        found["random"] = _random(simulator, choices)
    return found


def behaviour(env_id: str, kind: str, simulator: Simulator, dial: float = 0.0) -> Behaviour:
    """The behaviour of a log.

    Raises:
        ValueError: an unknown kind, one that the id has not, or a dial out of 0 .. 1.
    """
    if kind not in CASES[env_id].patients:
        raise ValueError(f"{env_id} has no log {kind!r}; choose one of {', '.join(CASES[env_id].patients)}")
    if kind == "random":
        return _random(simulator, Choices(simulator))
    parts = colleagues(env_id, simulator, dial, kind)
    among = _among(env_id, kind)
    shares, leans = [c.share for c in among], [c.lean for c in among]
    if len(parts) > len(among):
        random = CASES[env_id].random_share
        shares.append(sum(shares) * random / (1.0 - random))
        leans.append(0.0)
    return Mixture(list(parts.values()), shares, "stay", leans, dial, name=f"{kind}: {', '.join(parts)}")


def _among(env_id: str, kind: str) -> list[Colleague]:
    return [c for c in CASES[env_id].colleagues if kind == "mixed" or c.clinician]


def _random(simulator: Simulator, choices: Choices) -> Behaviour:
    if choices.discrete:
        return uniform(choices)
    return Exploring(_of_menu(no_treatment(), simulator), choices, GIVEN_AT_RANDOM, "random")
