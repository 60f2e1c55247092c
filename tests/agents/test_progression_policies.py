"""The rule with knobs, the policy table of the clinic, and the example that trains PPO in it."""

from __future__ import annotations

import dataclasses
import importlib
import json

import pytest
import torch

from agents.baselines.progression_rule import ProgressionRule
from agents.planning.parameter_cem import ParameterCEM
from agents.rollout import judge
from benchmarks.common.results import read_csv
from benchmarks.progression import policies as clinic
from clinenv.envs.ecg_progression.rewards import RewardWeights
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.simulator import Simulator
from tests.toy_progression import ToyClinic
from world_models import checkpoint, keys
from world_models.cardiac_jepa.config import NARROW, WorldConfig
from world_models.cardiac_jepa.model import KIND, CardiacJEPAWorld
from world_models.cardiac_jepa.reading import ReadOracle
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


def test_ecgs_are_read_of_those_alone_whose_episode_runs(folder) -> None:
    reader = CardiacJEPAWorld.load(folder).reader
    living, whole = clinic.OracleOfTheLiving(reader), ReadOracle(reader)
    state = whole.initial(keys.from_seed(3, 5))
    dead = torch.tensor([False, True, False, False, False])
    month = torch.tensor([0, 7, 120, 119, 60])
    state = state._replace(dead=dead, month=month.to(state.month.dtype))
    runs = torch.tensor([0, 3, 4])
    for also in ((), ("latent",)):
        seen, full = living.observe(state, also), whole.observe(state, also)
        assert seen.keys() == full.keys()
        for name in full:
            assert torch.allclose(seen[name][runs], full[name][runs], atol=1e-4), name
        assert not bool(seen["probe"][[1, 2]].any())
    nobody = living.observe(state._replace(dead=torch.ones_like(dead)))
    assert nobody["probe"].shape == full["probe"].shape and bool((nobody["dead"] == 1).all())


def test_tuning_finds_what_is_paid_for_and_can_be_repeated(monkeypatch) -> None:
    monkeypatch.setattr(clinic, "STEPS", 30)
    # where nothing but visits is paid for, the patient is to come less often
    task = ECGProgressionTask(weights=RewardWeights(0.0, 0.0, 0.0, 1.0, 0.0))
    simulator = Simulator(ToyClinic(draws=False), task)
    config = ParameterCEM(iterations=3, candidates=8, elites=2)
    knobs = clinic.tune(simulator, HALF, config, 6, seed=0)
    patients = keys.fold(keys.from_seed(0, 16), "judge")
    tuned, rule = (judge(a, simulator, patients, 30) for a in (clinic.TunedRule(HALF, knobs), ProgressionRule(HALF)))
    assert float(tuned.lengths.float().mean()) < float(rule.lengths.float().mean())
    assert float(tuned.returns.mean()) > float(rule.returns.mean())
    short = ParameterCEM(iterations=1, candidates=2, elites=1)
    assert torch.equal(*(clinic.tune(simulator, HALF, short, 4, seed=3) for _ in range(2)))


def test_the_command_writes_its_table_and_uses_what_it_found_before(folder, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(clinic, "STEPS", 3)  # visits
    monkeypatch.setattr(clinic, "CEM", dataclasses.replace(clinic.CEM, candidates=16, iterations=1, particles=2))
    sizes = "--patients 3 --valid-patients 2 --steps 64 --num-envs 8 --seeds 2 --iterations 1 --tune-patients 2"
    arguments = [*sizes.split(), "--cem-patients", "2", "--oracle-steps", "8", "--world", folder]
    arguments += ["--out", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert clinic.main(arguments) == 0
    rows = read_csv(tmp_path / "policies_progression.csv")
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
    sizes = "--steps 64 --num-envs 4 --patients 2 --max-steps 3".split()
    results = importlib.import_module("examples.08_clinic_years").main(["--world", folder, *sizes])
    assert set(results) == {"guideline rule", "PPO"} and "Simulated patients" in capsys.readouterr().out
