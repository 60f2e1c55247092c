"""The clinic's rule with knobs, their tuning, and the example that trains PPO in it."""

from __future__ import annotations

import dataclasses
import importlib

import pytest
import torch

from agents.baselines.progression_rule import KNOBS, LARGEST, ProgressionRule, TunedRule
from agents.baselines.tuned_rules import tune_knobs
from agents.planning.parameter_cem import ParameterCEM
from agents.rollout import judge
from clinenv.envs.ecg_progression.rewards import RewardWeights
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.simulator import Simulator
from tests.toy_progression import ToyClinic
from world_models import checkpoint, keys
from world_models.cardiac_jepa.config import NARROW, WorldConfig
from world_models.cardiac_jepa.model import KIND, CardiacJEPAWorld
from world_models.quantities.progression import CODES, INTERVALS_MONTHS, ORDERS

HALF = torch.full((len(CODES),), 0.5)


def toy() -> Simulator:
    return Simulator(ToyClinic(draws=False), ECGProgressionTask())


def charts(patients: int = 40) -> dict[str, torch.Tensor]:
    return toy().reset(keys.from_seed(0, patients))[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A learned world that nobody trained: everything runs in it, nothing is worth anything."""
    jepa = dataclasses.replace(NARROW, name="untrained", codes=CODES).to_dict()
    config = WorldConfig(name="untrained", jepa=jepa, bank=64, bank_ecgs=4, pairs=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        world = CardiacJEPAWorld(config)
    world.reader.probe_weight.copy_(
        0.1 * keys.normal(keys.from_seed(1), 0, "test", tuple(world.reader.probe_weight.shape))[0]
    )
    world.bank_condition.copy_(keys.uniform(keys.from_seed(2), 0, "test", tuple(world.bank_condition.shape))[0] < 0.15)
    world.reach.fill_(1e3)  # a file holds no infinity
    out = tmp_path_factory.mktemp("clinic") / "untrained"
    checkpoint.save_checkpoint(out, world.state_dict(), {"kind": KIND, **config.to_dict()}, "# untrained\n")
    return str(out)


def test_knobs_at_zero_are_the_rule_to_the_bit() -> None:
    chart = charts()
    rule = ProgressionRule(HALF).act(chart)
    assert torch.equal(TunedRule(HALF, torch.zeros(len(KNOBS))).act(chart), rule)
    assert torch.equal(TunedRule(HALF, torch.zeros(40, len(KNOBS))).act(chart), rule)


def test_a_knob_moves_what_it_says() -> None:
    chart = charts()
    rule = ProgressionRule(HALF).act(chart)
    angina = torch.zeros(len(KNOBS))
    angina[KNOBS.index("read I20")] = -4.0
    column = [q.name for q in ORDERS].index("revascularisation")
    seen_more = TunedRule(HALF, angina).act(chart)[:, column]
    assert bool((seen_more >= rule[:, column]).all()) and float(seen_more.sum()) > float(rule[:, column].sum())
    later = torch.zeros(40, len(KNOBS))
    later[20:, -1] = 1.0  # its own knobs for each patient
    months = TunedRule(HALF, later).act(chart)[:, -1]
    assert torch.equal(months[:20], rule[:20, -1])
    doubled = {1.0: (1.0, 3.0), 3.0: (6.0,), 6.0: (12.0,), 12.0: (12.0,)}
    assert all(float(b) in doubled[float(a)] for a, b in zip(rule[20:, -1], months[20:], strict=True))
    assert set(months.tolist()) <= set(INTERVALS_MONTHS)


def tune(simulator: Simulator, config: ParameterCEM, patients: int, seed: int) -> torch.Tensor:
    knobs = (len(KNOBS), LARGEST)
    return tune_knobs(simulator, lambda x: TunedRule(HALF, x), knobs, config, patients, 8_710_000_000, 30, seed)


def test_tuning_finds_what_is_paid_for_and_can_be_repeated() -> None:
    # where nothing but visits is paid for, the patient is to come less often
    task = ECGProgressionTask(weights=RewardWeights(0.0, 0.0, 0.0, 1.0, 0.0))
    simulator = Simulator(ToyClinic(draws=False), task)
    config = ParameterCEM(iterations=3, candidates=8, elites=2)
    knobs = tune(simulator, config, 6, seed=0)
    patients = keys.fold(keys.from_seed(0, 16), "judge")
    tuned, rule = (judge(a, simulator, patients, 30) for a in (TunedRule(HALF, knobs), ProgressionRule(HALF)))
    assert float(tuned.lengths.float().mean()) < float(rule.lengths.float().mean())
    assert float(tuned.returns.mean()) > float(rule.returns.mean())
    short = ParameterCEM(iterations=1, candidates=2, elites=1)
    assert torch.equal(*(tune(simulator, short, 4, seed=3) for _ in range(2)))


def test_the_example_says_that_its_patients_are_simulated(folder, capsys) -> None:
    sizes = "--steps 64 --num-envs 4 --patients 2 --max-steps 3".split()
    results = importlib.import_module("examples.08_clinic_years").main(["--world", folder, *sizes])
    assert set(results) == {"guideline rule", "PPO"} and "Simulated patients" in capsys.readouterr().out
