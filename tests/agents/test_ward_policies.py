"""The rule as an agent and its knobs, stays judged in batches, and PPO that begins as the rule."""

from __future__ import annotations

import importlib

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

import clinenv  # noqa: F401
from agents.baselines.ward_rule import (
    KNOBS,
    Clinician,
    NoOrders,
    StandardClinician,
    TunedClinician,
    tuned,
)
from agents.planning.parameter_cem import ParameterCEM, search
from agents.planning.risk import MeanMinusSigma
from agents.protocol import Agent, Narrowable
from agents.rollout import judge
from agents.sb3.vec_env import SB3VecEnv
from agents.sb3.ward import KnobVecEnv, WardPolicy, WardPPO, train_ward
from clinenv.envs.ehr_ward.orders import SWITCHES
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.oracles.ward.clinician import clinician
from world_models.oracles.ward.world import WardOracle
from world_models.quantities.ward import ORDERS, inquiry_index, order_index

NAMES = [knob.name for knob in KNOBS]


@pytest.fixture(scope="module")
def simulator():
    return Simulator(WardOracle(), EHRWardTask())


@pytest.fixture(scope="module")
def charts(simulator):
    """The same 24 patients under the rule, at admission and twelve steps on."""
    state, chart = simulator.reset(keys.from_seed(31, 24))
    first = chart
    for _ in range(12):
        out = simulator.step(state, chart, clinician(chart))
        state, chart = out.state, out.chart
    return first, chart


def knobs(**turned):
    values = torch.zeros(len(KNOBS))
    for name, value in turned.items():
        values[NAMES.index(name.replace("_", " ", 1))] = value
    return values


def test_knobs_at_zero_are_the_rule_to_the_bit(charts):
    for chart in charts:
        assert torch.equal(tuned(chart, torch.zeros(len(KNOBS))), clinician(chart))
    with pytest.raises(ValueError, match="knobs"):
        tuned(charts[0], torch.zeros(3))


def test_rows_with_knobs_of_their_own(charts):
    chart = charts[1]
    each = keys.normal(keys.from_seed(5, 24), 0, "test", (len(KNOBS),))
    together = tuned(chart, each)
    alone = tuned(tree.take(chart, torch.tensor([7])), each[7])
    assert torch.equal(together[7:8], alone)
    assert torch.isfinite(together).all() and bool((together >= 0).all())
    assert bool((together <= torch.tensor([float(q.high) for q in ORDERS])).all())


def test_what_each_kind_of_knob_does(charts):
    admission, later = charts
    column = order_index("norepinephrine_ug_kg_min")
    pressed = tree.map_leaves(lambda x: x.clone(), later)
    pressed["map_mmhg"][:], pressed["inquiry_seen"][:, inquiry_index("map_mmhg")] = 72.0, 1.0
    pressed["treatment_share"][:] = 0.0
    here = (pressed["alive"] > 0.5) & (pressed["discharged"] < 0.5)
    assert float(tuned(pressed, knobs())[:, column].sum()) == 0.0
    low = tuned(pressed, knobs(read_map_mmhg=-2.0))  # 72 reads as 56: vasopressors
    assert bool((low[here, column] > 0).all()) and bool(here.any())
    twice = tuned(pressed, knobs(read_map_mmhg=-2.0, dose_norepinephrine_ug_kg_min=1.0))
    torch.testing.assert_close(twice[:, column], low[:, column] * float(np.exp(0.4)))

    albumin = order_index("inquire_albumin_g_dl") if "inquire_albumin_g_dl" in SWITCHES.names else None
    albumin = next(i for i, q in enumerate(ORDERS) if "albumin" in q.name) if albumin is None else albumin
    assert bool((tuned(admission, knobs())[:, albumin] == 1).all()), "never measured, so due"
    stretched = tuned(admission, knobs(wait_albumin_g_dl=3.0))
    assert float(stretched[:, albumin].sum()) < 24
    others = [i for i in range(len(ORDERS)) if i != albumin]
    assert torch.equal(stretched[:, others], tuned(admission, knobs())[:, others])


def test_agents_and_the_standard_amounts(charts):
    chart = charts[1]
    for agent in (NoOrders(), Clinician(), StandardClinician(), TunedClinician(torch.zeros(len(KNOBS)))):
        assert isinstance(agent, Agent) and agent.act(chart).shape == (24, len(ORDERS))
    standard = StandardClinician()
    amounts = torch.tensor([float(SWITCHES.standard[q.name]) for q in ORDERS])
    assert torch.equal(standard.act(chart), standard.switches(chart) * amounts)
    assert float(NoOrders().act(chart).abs().max()) == 0.0


@pytest.mark.slow
def test_a_stay_judged_in_a_batch_is_the_stay_alone(simulator):
    key = keys.from_seed(77, 12)
    together, alone = (judge(Clinician(), simulator, k, 20) for k in (key, key[4:5]))
    assert all(torch.equal(a[4:5], b) for a, b in zip(tree.leaves(together), tree.leaves(alone), strict=True))
    became = together.outcomes.totals
    torch.testing.assert_close(together.returns, torch.stack(list(together.terms.values())).sum(0))
    assert float((became["died"] * became["discharged"]).sum()) == 0.0 < float(became["discharged"].sum())
    assert torch.equal(became["hours"], together.lengths * 4.0)
    with pytest.raises(ValueError, match="steps >= 1"):
        judge(Clinician(), simulator, key, 0)


@pytest.mark.slow
def test_who_has_left_is_dropped_and_changes_nothing(simulator):
    class Whole:  # cannot be narrowed: carried along
        name = "whole"

        def __init__(self, agent):
            self.agent, self.rows = agent, []

        def reset(self, mask=None):
            self.agent.reset(mask)

        def act(self, chart):
            self.rows.append(len(chart["hours"]))
            return self.agent.act(chart)

    class Narrowed(Whole):
        def narrow(self, rows):
            self.agent.narrow(rows)

    key = keys.from_seed(77, 12)
    each = 0.3 * keys.normal(keys.from_seed(5, 12), 0, "test", (len(KNOBS),))
    whole, narrowed = Whole(TunedClinician(each)), Narrowed(TunedClinician(each))
    assert isinstance(narrowed, Narrowable) and not isinstance(whole, Narrowable)
    carried, dropped = (judge(agent, simulator, key, 30) for agent in (whole, narrowed))
    assert all(torch.equal(a, b) for a, b in zip(tree.leaves(carried), tree.leaves(dropped), strict=True))
    assert min(whole.rows) == 12 > min(narrowed.rows)
    again, begun = (judge(agent, simulator, key, 3) for agent in (narrowed, whole))
    assert torch.equal(again.returns, begun.returns) and narrowed.rows[-3:] == [12] * 3, "a reset begins with all"


def test_the_search_finds_a_hill_and_risk_moves_it():
    def evaluate(tried, iteration):  # patients differ more, the further parameter 1 is turned
        noise = keys.normal(keys.from_seed(iteration, 64), 0, "hill")
        return -(tried[:, :1] - 1.0).square() + tried[:, 1:2] * 0.6 + tried[:, 1:2].clamp(min=0.0) * noise

    config = ParameterCEM(iterations=30, candidates=32, elites=8)
    found = search(evaluate, torch.zeros(2), config, limit=2.0)
    assert float(found[0]) == pytest.approx(1.0, abs=0.3) and float(found[1]) > 0.6
    careful = search(evaluate, torch.zeros(2), config, limit=2.0, risk=MeanMinusSigma(2.0))
    assert float(careful[1]) < 0.2
    assert torch.equal(found, search(evaluate, torch.zeros(2), config, limit=2.0))
    with pytest.raises(ValueError, match="even"):
        ParameterCEM(candidates=3)


def test_ppo_begins_as_the_rule_and_comes_back_from_disk(simulator, charts, tmp_path):
    config = WardPPO(num_envs=4, n_steps=4, batch_size=16, learning_rate=0.0, n_epochs=1)
    folder = train_ward(tmp_path / "p", 16, WardOracle(), config)
    agent = WardPolicy(folder, simulator)
    assert isinstance(agent, Agent)
    for chart in charts:
        assert torch.equal(agent.act(chart), clinician(chart))
    assert sorted(p.name for p in folder.iterdir()) == ["policy.json", "policy.safetensors"]
    with pytest.raises(ValueError, match="learning_rate"):
        train_ward(folder, 16, WardOracle(), WardPPO(num_envs=4, n_steps=4, batch_size=16, n_epochs=1))
    with pytest.raises(FileNotFoundError, match="train_ward"):
        WardPolicy(tmp_path / "nobody", simulator)
    with pytest.raises(ValueError, match="form"):
        WardPPO("levers")


def test_ppo_on_switches_gives_standard_amounts(simulator, charts, tmp_path):
    config = WardPPO("switches", num_envs=4, n_steps=4, batch_size=16, n_epochs=1)
    agent = WardPolicy(train_ward(tmp_path / "p", 16, WardOracle(), config), simulator)
    orders = agent.act(charts[1])
    standard = torch.tensor([float(SWITCHES.standard[q.name]) for q in ORDERS])
    assert bool(((orders == 0) | (orders == standard)).all()) and bool((orders > 0).any())


def test_knobs_act_on_the_chart_of_the_environment():
    make = {"vectorization_mode": "vector_entry_point", "world": "oracle", "action_unit": "units"}
    make["autoreset_mode"] = AutoresetMode.SAME_STEP
    one, other = (gym.make_vec("EHRWardDose-v0", num_envs=3, **make) for _ in range(2))
    turned = KnobVecEnv(one)
    turned.seed(5)
    turned.reset()
    other.reset(seed=5)
    wanted = torch.stack([knobs(), knobs(dose_ringers_lactate_ml=2.0), knobs(wait_crp_mg_l=3.0)])
    for _ in range(3):
        orders = tuned(other.unwrapped.chart, wanted)
        seen, reward, *_ = turned.step(wanted.numpy())
        expected, paid, *_ = other.step(orders.numpy())
        np.testing.assert_array_equal(seen, expected)
        np.testing.assert_allclose(reward, paid, rtol=1e-6)


def test_action_masks_as_maskable_ppo_asks_for_them():
    env = gym.make("EHRWard-v0", world="oracle")
    _, info = env.reset(seed=3)
    mask = env.unwrapped.action_masks()
    assert mask.shape == (2 * len(ORDERS),) and mask.dtype == bool
    assert mask[0::2].all() and np.array_equal(mask[1::2], info["action_mask"] == 1)
    make = {"vectorization_mode": "vector_entry_point", "world": "oracle", "autoreset_mode": AutoresetMode.SAME_STEP}
    batch = SB3VecEnv(gym.make_vec("EHRWard-v0", num_envs=3, **make))
    batch.seed(3)
    batch.reset()
    batch.step(np.tile(np.arange(len(ORDERS)) < 39, (3, 1)).astype(np.int8))  # specimens are out
    masks = batch.env_method("action_masks")
    assert len(masks) == 3 and masks[0].shape == mask.shape and not masks[0][1::2].all()
    assert np.array_equal(batch.env_method("action_masks", indices=[2])[0], masks[2])


@pytest.mark.slow
def test_ward_examples(tmp_path, capsys):
    chart = tmp_path / "chart.png"
    arguments = ["--world", "oracle", "--hours", "24", "--out", str(chart)]
    total = importlib.import_module("examples.06_ward_chart").main(arguments)
    said = capsys.readouterr().out
    assert f"return {total:.2f}" in said and chart.read_bytes()[:4] == b"\x89PNG" and len(list(tmp_path.iterdir())) == 1
    sizes = "--world oracle --steps 32 --num-envs 8 --patients 4 --max-steps 3".split()
    results = importlib.import_module("examples.07_ward_ppo").main([*sizes, "--out", str(tmp_path / "ppo")])
    assert set(results) == {"clinician's rule", "PPO"}
