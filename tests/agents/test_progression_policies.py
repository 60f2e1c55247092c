"""The rule with knobs, PPO that begins as the rule, and the policy table of the clinic."""

from __future__ import annotations

import csv
import dataclasses
import importlib
import json

import pytest
import torch

from agents.baselines.progression_rule import ProgressionRule
from agents.planning.parameter_cem import ParameterCEM
from agents.rollout import judge
from agents.sb3.policy_agent import PolicyAgent
from agents.sb3.presets import PROGRESSION_PPO
from benchmarks import policies_progression as clinic
from clinenv.envs.ecg_progression.task import LEVELS, ECGProgressionTask
from clinenv.simulator import Simulator
from tests.toy_progression import ToyClinic
from world_models import checkpoint, keys
from world_models.cardiac_jepa.config import NARROW
from world_models.cardiac_jepa.model import KIND, CardiacJEPAWorld, WorldConfig
from world_models.progression_quantities import CODES, INTERVALS_MONTHS, ORDERS

HALF = torch.full((len(CODES),), 0.5)
PRESET = PROGRESSION_PPO.but(num_envs=8, settings={**PROGRESSION_PPO.settings, "n_steps": 8, "batch_size": 32})


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
    world.reader.probe_weight.copy_(0.1 * keys.normal(keys.from_seed(1), 0, "test", tuple(world.reader.probe_weight.shape))[0])
    world.bank_condition.copy_(keys.uniform(keys.from_seed(2), 0, "test", tuple(world.bank_condition.shape))[0] < 0.15)
    world.reach.fill_(1e3)  # a file holds no infinity
    out = tmp_path_factory.mktemp("clinic") / "untrained"
    checkpoint.save_checkpoint(out, world.state_dict(), {"kind": KIND, **config.to_dict()}, "# untrained\n")
    return str(out)


def test_knobs_at_zero_are_the_rule_to_the_bit() -> None:
    chart = charts()
    rule = ProgressionRule(HALF).act(chart)
    assert torch.equal(clinic.TunedRule(HALF, torch.zeros(len(clinic.KNOBS))).act(chart), rule)
    assert torch.equal(clinic.TunedRule(HALF, torch.zeros(40, len(clinic.KNOBS))).act(chart), rule)


def test_a_knob_moves_what_it_says() -> None:
    chart = charts()
    rule = ProgressionRule(HALF).act(chart)
    angina = torch.zeros(len(clinic.KNOBS))
    angina[clinic.KNOBS.index("read I20")] = -4.0
    column = [q.name for q in ORDERS].index("revascularisation")
    seen_more = clinic.TunedRule(HALF, angina).act(chart)[:, column]
    assert bool((seen_more >= rule[:, column]).all()) and float(seen_more.sum()) > float(rule[:, column].sum())
    later = torch.zeros(40, len(clinic.KNOBS))
    later[20:, -1] = 1.0  # its own knobs for each patient
    months = clinic.TunedRule(HALF, later).act(chart)[:, -1]
    assert torch.equal(months[:20], rule[:20, -1])
    doubled = {1.0: (1.0, 3.0), 3.0: (6.0,), 6.0: (12.0,), 12.0: (12.0,)}
    assert all(float(b) in doubled[float(a)] for a, b in zip(rule[20:, -1], months[20:], strict=True))
    assert set(months.tolist()) <= set(INTERVALS_MONTHS)


def test_orders_of_the_rule_are_levels_and_back() -> None:
    orders = ProgressionRule().act(charts())
    levels = clinic.nearest_levels(orders)
    amounts = list(LEVELS.amounts.values())
    back = torch.tensor([[amounts[j][i] for j, i in enumerate(row)] for row in levels.tolist()])
    assert torch.equal(back, orders)


def test_a_clone_answers_as_the_rule_and_its_value_knows_what_it_earns() -> None:
    simulator, rule = toy(), ProgressionRule()
    shown = clinic.courses(simulator, rule, keys.from_seed(5, 64), PRESET)
    to_come = shown[2]
    assert len(shown[0]) == len(shown[1]) == len(to_come) > 64 * 5 and bool((to_come < 0).all())
    model = clinic.train_ppo(simulator, None, 1, 0, PRESET.but(net_arch=(32,)), "PPO")
    with torch.no_grad():
        before = float((model.policy._predict(shown[0], deterministic=True) == shown[1]).float().mean())
        worth = model.policy.predict_values(shown[0]).squeeze(-1)
    after = clinic.clone(model.policy, shown, steps=150)
    with torch.no_grad():
        value = model.policy.predict_values(shown[0]).squeeze(-1)
    assert after > 0.93 > before
    assert float((value - to_come).square().mean()) < 0.5 * float((worth - to_come).square().mean())
    luck = keys.fold(keys.from_seed(0, 60), "judge")
    copy, own = (judge(a, simulator, luck, 120).returns for a in (PolicyAgent(model.policy, simulator), rule))
    assert abs(float((copy - own).mean())) < 0.15


def test_tuning_is_better_in_the_world_it_tuned_in_and_can_be_repeated() -> None:
    simulator = toy()
    config = ParameterCEM(iterations=4, candidates=12, elites=3)
    knobs = clinic.tune(simulator, HALF, config, 24, seed=0)
    luck = keys.fold(keys.from_seed(0, 150), "judge")
    zero = torch.zeros(len(clinic.KNOBS))
    new, old = (judge(clinic.TunedRule(HALF, k), simulator, luck, 120).returns for k in (knobs, zero))
    assert float((new - old).mean()) > 0.0
    assert torch.equal(knobs, clinic.tune(simulator, HALF, config, 24, seed=0))


def test_the_command_writes_its_table_and_uses_what_it_found_before(folder, tmp_path, capsys) -> None:
    sizes = "--patients 6 --valid-patients 2 --steps 64 --num-envs 8 --seeds 2 --iterations 1 --tune-patients 2"
    arguments = [*sizes.split(), "--cem-patients", "2", "--oracle-steps", "16", "--world", folder]
    arguments += ["--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert clinic.main(arguments) == 0
    rows = list(csv.DictReader((tmp_path / "policies_progression.csv").open()))
    names = [r["agent"] for r in rows]
    for name in ("random", clinic.RULE, "PPO in untrained, mean of 2 seeds", "CEM in untrained"):
        assert name in names
    for row in rows:
        parts = sum(float(v) for k, v in row.items() if k.startswith("term_"))
        assert parts == pytest.approx(float(row["return"]), abs=1e-3) and float(row["return"]) <= 0
        assert float(row["gap_return"]) == pytest.approx(float(row["promised_return"]) - float(row["return"]), abs=1e-3)
        assert float(row["return_minus_reference_low"]) <= float(row["return_minus_reference_high"])
    rule = rows[names.index(clinic.RULE)]
    assert float(rule["return_minus_reference"]) == 0 and rows[names.index("CEM in untrained")]["patients"] == "2"
    report = json.loads((tmp_path / "policies_progression.json").read_text())
    assert set(report["valid_return_by_threshold"]) == {"reader", "0.5"} and len(report["knobs"]) == 2
    found = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").rglob("*.safetensors")}
    assert len(found) == 5 and clinic.main(arguments) == 0
    assert found == {p: p.stat().st_mtime_ns for p in found}
    assert json.loads((tmp_path / "policies_progression.json").read_text())["rows"] == report["rows"]


def test_an_unknown_world_is_refused_before_anything_is_written(tmp_path, capsys) -> None:
    for world in ("no-such-clinic", "oracle"):
        with pytest.raises(SystemExit) as end:
            clinic.main(["--world", world, "--out", str(tmp_path / "o"), "--runs", str(tmp_path / "r")])
        assert end.value.code == 2 and world in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_example_says_that_its_patients_are_simulated(folder, capsys) -> None:
    sizes = "--steps 64 --num-envs 4 --patients 2".split()
    results = importlib.import_module("examples.08_clinic_years").main(["--world", folder, *sizes])
    assert set(results) == {"guideline rule", "PPO"} and "Simulated patients" in capsys.readouterr().out
