"""ECGProgression: what is refused, levels as an action, the rule, planners, PPO and the picture."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.vector import AutoresetMode

from agents.baselines.constant import Constant
from agents.baselines.progression_rule import ProgressionRule, cha2ds2_vasc
from agents.baselines.uniform import Uniform
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.protocol import menu_of, to_orders
from agents.rollout import judge
from clinenv.codec import codec_of
from clinenv.envs.ecg_progression.env import ECGProgressionEnv, ECGProgressionVectorEnv
from clinenv.envs.ecg_progression.task import LEVELS, ECGProgressionTask
from clinenv.simulator import Simulator
from clinenv.task import Levels
from clinenv.testing import check_simulator, check_vector_env
from tests.toy_progression import COLUMN, ToyClinic, chart
from world_models import keys
from world_models.quantities.progression import CODES, ORDERS, TREATMENTS
from world_models.testing import check_world

N = len(TREATMENTS)
NOTHING = np.array([0] * N + [2])  # six months


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def make(**kwargs) -> ECGProgressionEnv:
    return ECGProgressionEnv(**{"world": ToyClinic(hazard=0.0), **kwargs})


def test_the_stand_in_keeps_the_contract_of_a_world_and_the_simulator_its_own() -> None:
    world = ToyClinic()
    check_world(world, batch=5, steps=4, also=("ecg_mv", "latent"))
    check_simulator(Simulator(world, ECGProgressionTask()), batch=4, horizon=3)


@pytest.mark.parametrize("observation", ["chart", "labels", "latent", "ecg"])
def test_checkers_are_silent(observation: str) -> None:
    env = make(observation=observation)
    check_env(env, skip_render_check=True)
    pytest.importorskip("stable_baselines3.common.env_checker").check_env(env)
    shape = {"chart": 43, "labels": 67, "latent": 55}.get(observation)
    assert shape is None or env.observation_space.shape == (shape,)


def test_it_is_n_single_environments() -> None:
    world = ToyClinic(hazard=0.3)
    check_vector_env(
        lambda **kwargs: ECGProgressionVectorEnv(world=world, **kwargs),
        lambda: ECGProgressionEnv(world=world),
        num_envs=2,
        steps=12,
    )


def test_a_world_that_cannot_show_it_says_so() -> None:
    with pytest.raises(ValueError, match="draws no ecg_mv.*a world of this task that draws it"):
        make(world=ToyClinic(draws=False), observation="ecg")
    with pytest.raises(ValueError, match="no latent.*observation='ecg'"):
        make(world=ToyClinic(latent=False), observation="latent")
    with pytest.raises(ValueError, match="chart, labels, ecg, latent"):
        make(observation="events")


def test_the_labels_are_the_recorded_conditions_and_the_chart_hides_them() -> None:
    plain, labels = make(), make(observation="labels")
    a, b = plain.reset(seed=3)[0], labels.reset(seed=3)[0]
    assert np.array_equal(a, b[:43])
    assert np.array_equal((b[43:] + 1) / 2, labels.chart["condition"][0].numpy())
    assert not any(name.startswith("condition") for name in plain.describe(a))


def test_the_page_states_the_spaces_as_they_are() -> None:
    layout = make().episodes.interface.layout
    page = ECGProgressionEnv.__doc__
    rows = re.findall(r"^ *\| (\d[\d-]*) \|" + r"(.+?)\|" * 6 + "$", page, re.MULTILINE)
    last = -1
    for num, label, unit, *stated in rows:
        start, _, stop = num.partition("-")
        assert int(start) == last + 1
        last = int(stop or start)
        assert layout.names[int(start)].split("[")[0] == label.strip() == layout.names[last].split("[")[0]
        assert layout.units[last] == unit.strip()
        found = [float(x[last]) for x in (layout.low, layout.high, layout.centre, layout.scale)]
        assert [float(x) for x in stated] == pytest.approx(found), label
    assert last == len(layout.names) - 1 == 42
    menu = re.findall(r"^ *\| (\d+) \| (\w+) \| ([\d, ]+?)(?: \(.*\))? \|$", page, re.MULTILINE)
    assert [name for _, name, _ in menu] == list(LEVELS.names) == [q.name for q in ORDERS]
    assert [tuple(float(x) for x in levels.split(",")) for *_, levels in menu] == list(LEVELS.amounts.values())
    codes = page.split("in the order ")[1].split(";")[0].split()
    assert codes == list(CODES) and "Not for clinical use" in page


def test_levels_are_the_amounts_they_say() -> None:
    levels = Levels({"months_to_next_visit": (1.0, 3.0), "pacemaker": (0.0, 1.0)})
    assert codec_of(levels, ORDERS, "scaled", torch.device("cpu")).space.nvec.tolist() == [2, 2]
    orders = codec_of(LEVELS, ORDERS, "scaled", torch.device("cpu"))
    index = torch.randint(0, 2, (20, N + 1), generator=torch.Generator().manual_seed(0))
    index[:, N] = torch.arange(20) % 4
    amounts = orders(index, 20)
    assert torch.equal(amounts[:, :N], index[:, :N].float())
    assert amounts[:, N].tolist() == [(1.0, 3.0, 6.0, 12.0)[i % 4] for i in range(20)]
    table = LEVELS.table(ORDERS)
    assert torch.equal(to_orders(index, table), amounts)
    shuffled = codec_of(levels, ORDERS, "scaled", torch.device("cpu"))(np.array([[1, 1]]), 1)
    assert shuffled[0].tolist() == [0, 0, 1, *[0] * (N - 3), 3.0]


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ([0] * N + [4], "level 4 for months_to_next_visit.*0..3"),
        ([0, -1] + [0] * (N - 1), "level -1 for ablation"),
        ([0.0] * (N + 1), "whole numbers"),
        ([0] * N, "shape"),
    ],
)
def test_bad_levels_are_told(action: list, words: str) -> None:
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match=words):
        env.step(np.array(action))


@pytest.mark.parametrize(
    ("amounts", "words"),
    [({}, "at least one"), ({"a": ()}, "rising"), ({"a": (1.0, 1.0)}, "rising"), ({"a": (-1.0, 1.0)}, "at least 0")],
)
def test_levels_that_make_no_sense_are_refused(amounts: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Levels(amounts)
    with pytest.raises(ValueError, match="b has no amounts"):
        Levels({"a": (0.0, 1.0)}, interval="b")


def test_only_what_is_there_already_is_refused_and_the_mask_leaks_no_condition() -> None:
    env = make()
    _, info = env.reset(seed=1)
    assert info["action_mask"].dtype == np.int8 and info["action_mask"].tolist() == [1] * (2 * N + 4)
    assert env.action_masks().shape == (2 * N + 4,) and env.action_masks().dtype == bool
    action = NOTHING.copy()
    action[2] = 1
    _, _, _, _, info = env.step(action)
    assert info["refused_orders"] == 0 and info["action_mask"].tolist() == [1] * 5 + [0] + [1] * (2 * N - 2)
    reward = env.step(action)
    assert reward[4]["refused_orders"] == 1 and env.refusals() == [("pacemaker", "the patient has a pacemaker already")]
    assert reward[4]["reward_treatment_burden"] == 0, "what is not carried out costs nothing"
    task = ECGProgressionTask()
    ill, well = chart(condition=list(CODES)), chart()
    assert torch.equal(task.admissible(ill), task.admissible(well))


def test_ten_years_end_it_and_so_does_death() -> None:
    for level, visits in ((3, 10), (2, 20), (0, 120)):
        env = make()
        env.reset(seed=0)
        action = np.array([0] * N + [level])
        for visit in range(1, visits + 1):
            _, _, terminated, truncated, info = env.step(action)
            assert (terminated or truncated) == (visit == visits)
        assert terminated and info["hours"] == pytest.approx(10 * 8766, rel=1e-4)
    env = make(world=ToyClinic(hazard=50.0))
    env.reset(seed=0)
    _, _, terminated, _, info = env.step(NOTHING)
    assert terminated and info["reward_death"] < -8


def test_a_snapshot_brings_everything_back() -> None:
    env = make(observation="latent")
    env.reset(seed=3)
    env.action_space.seed(0)
    plan = [env.action_space.sample() for _ in range(4)]
    shown = env.step(plan[0])[0]
    kept = env.snapshot()
    future = [env.step(a) for a in plan[1:]]
    assert data_equivalence(env.restore(kept), shown, exact=True)
    assert data_equivalence([env.step(a) for a in plan[1:]], future, exact=True)


def test_the_rule_does_what_the_guidelines_say() -> None:
    rule = ProgressionRule()

    def orders(**values) -> dict[str, float]:
        return dict(zip(COLUMN, rule.act(chart(**values))[0].tolist(), strict=True))

    well = orders()
    assert well.pop("months_to_next_visit") == 12 and not any(well.values())
    young, old = orders(condition=["I48"], age_years=50), orders(condition=["I48"], age_years=80)
    assert young["anticoagulant"] == 0 and old["anticoagulant"] == 1 and young["cardioversion"] == 1
    assert orders(condition=["I48"], age_years=70, sex_female=1.0)["anticoagulant"] == 0, "two points, one for the sex"
    again = orders(condition=["I48"], treated=["cardioversion", "antiarrhythmic"])
    assert again["ablation"] == 1 and again["cardioversion"] == 0
    failing = orders(condition=["I50"])
    assert failing["ace_inhibitor"] == failing["beta_blocker"] == failing["diuretic"] == 1
    low = orders(condition=["I50", "I95"])
    assert low["ace_inhibitor"] == low["diuretic"] == low["beta_blocker"] == 0
    block = orders(condition=["I44", "I50"])
    assert block["pacemaker"] == 1 and orders(condition=["I44"], treated=["pacemaker"])["pacemaker"] == 0
    assert (
        orders(condition=["I21"])["revascularisation"] == 1 and orders(condition=["I21"])["months_to_next_visit"] == 1
    )
    weak = orders(condition=["I42", "I44", "I50"])
    assert weak["icd"] == weak["crt"] == weak["sglt2_inhibitor"] == 1 and weak["pacemaker"] == 0
    assert orders(condition=["I42", "I21"])["icd"] == 0 and orders(condition=["I42"])["crt"] == 0
    assert orders(condition=["I25"])["statin"] == 1 and orders(condition=["I48"])["statin"] == 0
    assert orders(condition=["I35"])["valve_replacement"] == 0
    assert orders(condition=["I35", "I50"])["valve_replacement"] == 1
    assert orders(condition=["I35", "I50"], treated=["valve_replacement"])["valve_replacement"] == 0
    assert float(cha2ds2_vasc(chart(age_years=80, sex_female=1.0), chart(condition=["I63"])["condition"] > 0.5)) == 5
    task = ECGProgressionTask()
    ill = chart(condition=["I44", "I50", "I48", "I95"])
    assert float(task.cost(ill, rule.act(ill), chart())) == 0, "the rule orders nothing that its reading forbids"
    assert not bool(task.refused(ill, rule.act(ill), task.admissible(ill)).any())
    with pytest.raises(ValueError, match="threshold"):
        ProgressionRule(1.5)


def test_every_kind_of_agent_can_be_judged() -> None:
    simulator = Simulator(ToyClinic(), ECGProgressionTask())
    luck = keys.from_seed(0, 24)
    rule = judge(ProgressionRule(), simulator, luck, 40)
    chance = judge(Uniform(LEVELS.counts), simulator, luck, 120)
    watching = judge(Constant([0] * N + [3]), simulator, luck, 12)
    assert watching.lengths.max() == 10 and watching.ordered[:, :N].sum() == 0
    assert float(rule.terms["treatment_burden"].mean()) > float(chance.terms["treatment_burden"].mean())
    first = Uniform(LEVELS.counts)
    drawn = torch.cat([first.act(chart()) for _ in range(300)])
    for entry, count in enumerate(LEVELS.counts):
        assert drawn[:, entry].unique().tolist() == list(range(count))
    with pytest.raises(ValueError, match="at least one level"):
        Uniform([2, 0])
    with pytest.raises(ValueError, match="not among its levels"):
        to_orders(torch.tensor([[5] + [0] * N]), menu_of(simulator))


@pytest.mark.parametrize("hold", [False, True])
def test_cem_plans_over_levels(hold: bool) -> None:
    """It finds a drug that is worth it, keeps off those that only burden, and gives no procedure twice in one plan."""

    class Healed(ToyClinic):
        def transition(self, state, action):
            moved = super().transition(state, action)
            cured = action[:, COLUMN["diuretic"]] > 0.5
            condition = torch.where(cured.unsqueeze(-1), False, moved.condition)
            return moved._replace(condition=condition)

    simulator = Simulator(Healed(hazard=0.0), ECGProgressionTask())
    config = CEMConfig(horizon=3, candidates=40, particles=4, iterations=3, elites=6, block=3 if hold else 1)
    planner = WorldPlanner(simulator, config)
    state, now = simulator.reset(keys.from_seed(5, 6))
    orders = planner.act(now)
    assert orders.shape == (6, N + 1) and bool((orders[:, COLUMN["diuretic"]] == 1).all())
    assert bool((orders[:, COLUMN["months_to_next_visit"]] == 6).all()), "the interval is held at its middle level"
    assert float(orders[:, :N].sum()) <= 6 + 3
    out = simulator.step(state, now, orders)
    later = planner.act(out.chart)  # from a warm start
    assert float(later[:, :N].sum()) <= 6 + 3, "nobody is ill any more: little is worth its burden"
    planner.reset()
    assert torch.equal(planner.act(now), orders), "the planner's random stream begins anew with it"
    if hold:
        plan = planner._space.orders(torch.ones(1, N + 1, dtype=torch.int64) * torch.tensor([1] * N + [0]))
        assert plan[0, 0, :4].tolist() == [1.0] * 4 and not plan[0, 1:, :4].any() and bool((plan[0, :, 4:9] == 1).all())
    with pytest.raises(ValueError, match="not among its levels: 1, 3, 6, 12"):
        WorldPlanner(simulator, config, fixed={"months_to_next_visit": 5.0})
    searched = WorldPlanner(simulator, config, fixed={})
    assert bool((searched._space.prior(1)[0, -1] > 0).all()), "the interval is searched"


def test_a_planner_sees_what_it_is_told_to_see() -> None:
    class Remembers(ToyClinic):
        def infer(self, history, key, factors=None):
            shown.append({name: tuple(value.shape) for name, value in history.charts.items()})
            return self.initial(key)

    shown: list[dict] = []
    simulator = Simulator(Remembers(), ECGProgressionTask())
    planner = WorldPlanner(
        simulator,
        CEMConfig(horizon=1, candidates=16, particles=1, iterations=1, elites=1),
        sees=("age_years", "sex_female", "years", "probe", "latent"),
    )
    judge(planner, simulator, keys.from_seed(0, 3), 2, also=("latent",))
    assert shown[0] == {
        "age_years": (3, 1),
        "sex_female": (3, 1),
        "years": (3, 1),
        "probe": (3, 1, 24),
        "latent": (3, 1, 12),
    }
    assert shown[1]["latent"] == (3, 2, 12) and "condition" not in shown[1]


def test_ppo_trains_in_it() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    from agents.policy_agent import PolicyAgent
    from agents.sb3.presets import PPO, PROGRESSION_PPO, preset_for
    from agents.sb3.vec_env import SB3VecEnv

    envs = ECGProgressionVectorEnv(4, world=ToyClinic(), autoreset_mode=AutoresetMode.SAME_STEP)
    vec = SB3VecEnv(envs, bootstrap_truncated=False)
    model = sb3.PPO("MlpPolicy", vec, n_steps=8, batch_size=16, n_epochs=1, seed=0, device="cpu")
    model.learn(64)
    simulator = Simulator(ToyClinic(), ECGProgressionTask())
    found = judge(PolicyAgent(model.policy, simulator), simulator, keys.from_seed(0, 5), 20)
    assert bool(torch.isfinite(found.returns).all()) and bool((found.returns < 0).all())
    assert preset_for("ppo", "ECGProgression-v0") is PROGRESSION_PPO and preset_for("ppo", "ECGDrug-v0") is PPO


def test_it_is_drawn_with_and_without_a_map() -> None:
    env = make(render_mode="rgb_array")
    env.reset(seed=0)
    frames = [env.render()]
    env.action_space.seed(0)
    for _ in range(3):
        env.step(env.action_space.sample())
        frames.append(env.render())
    assert {(f.dtype, f.shape) for f in frames} == {(np.dtype(np.uint8), frames[0].shape)}
    assert all(not np.array_equal(a, b) for a, b in zip(frames, frames[1:], strict=False))
    plain = make(world=ToyClinic(latent=False, draws=False, hazard=0.0), render_mode="rgb_array")
    plain.reset(seed=0)
    assert plain.render().shape == frames[0].shape
    rows = ECGProgressionVectorEnv(2, world=ToyClinic(), render_mode="rgb_array")
    rows.reset(seed=0)
    assert not np.array_equal(*rows.render())
