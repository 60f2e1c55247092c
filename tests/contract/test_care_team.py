"""CareTeam in its three forms: PettingZoo's own tests, and one EHRWard underneath, bit for bit."""

from __future__ import annotations

import subprocess
import sys
import types
import warnings

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import data_equivalence
from gymnasium.vector import AutoresetMode

import clinenv
from clinenv.envs import care_team
from clinenv.envs.care_team.rights import INTENSIVIST, NURSE, PHARMACIST, ROLES
from clinenv.envs.care_team.task import CareTeamTask
from clinenv.envs.care_team.vector_env import CareTeamVectorEnv
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.task import Switches
from tests.toy_ward import ToyWard
from world_models.quantities.ward import ORDERS

IDS = ("CareTeam-v0", "CareTeamDose-v0")
WARD = {"CareTeam-v0": "EHRWard-v0", "CareTeamDose-v0": "EHRWardDose-v0"}
# PettingZoo would have agents that are alike, numbered, and choose from Discrete
DISLIKED = ".*(size|shape|recommend agents|box or gymnasium.spaces.discrete)"


def make(env_id: str = "CareTeam-v0", form: str = "parallel", **arguments):
    return clinenv.make_team(env_id, form, **{"world": ToyWard(hazard=0.05, leaves=0.02), **arguments})


def lasting(**arguments):
    return make(world=ToyWard(hazard=0.0, leaves=0.0), **arguments)


def drawn(env, infos, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A few of the entries that the masks allow, of a parallel environment or of a batch."""
    found = {}
    for role in ROLES:
        space, mask = env.action_space(role), infos[role].get("action_mask", infos[role].get("order_mask"))
        if isinstance(space, gymnasium.spaces.MultiBinary):
            found[role] = ((rng.random(mask.shape) < 0.3) & (mask == 1)).astype(np.int8)
        else:
            low, high = space.low, space.high
            found[role] = (low + (high - low) * rng.random(mask.shape)).astype(np.float32) * (
                rng.random(mask.shape) < 0.4
            )
    return found


def only(env, **entries: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The action of one patient with these entries on."""
    return {role: np.array([label in entries.get(role, ()) for label in env.labels(role)], np.int8) for role in ROLES}


@pytest.mark.parametrize("env_id", IDS)
def test_pettingzoos_own_tests_pass(env_id: str, capsys) -> None:
    from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

    def aec(**arguments):
        return make(env_id, "aec", **arguments)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", DISLIKED)
        api_test(aec(), num_cycles=20)
        parallel_api_test(make(env_id), num_cycles=40)
        seed_test(aec, num_cycles=15)
        parallel_seed_test(lambda: make(env_id), num_cycles=15)
    assert "Passed API test" in capsys.readouterr().out


def test_pettingzoos_render_and_max_cycles_tests_pass(monkeypatch) -> None:
    from pettingzoo.test import max_cycles_test, render_test

    monkeypatch.delenv("DISPLAY", raising=False)
    render_test(lambda **arguments: lasting(form="aec", **arguments))
    ward = {"world": ToyWard(hazard=0.0, leaves=0.0)}
    module = types.SimpleNamespace(
        env=lambda **given: care_team.env(**ward, **given),
        parallel_env=lambda **given: care_team.parallel_env(**ward, **given),
    )
    max_cycles_test(module)


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("world", ["toy", "oracle"])
def test_what_the_team_said_is_one_action_of_the_ward(env_id: str, world: str) -> None:
    where = ToyWard(hazard=0.0, leaves=0.0) if world == "toy" else "oracle"
    team = make(env_id, world=where)
    units = {} if env_id == IDS[0] else {"action_unit": "units"}
    ward = gymnasium.make(WARD[env_id], world=where, **units).unwrapped
    rng = np.random.default_rng(5)
    shown, infos = team.reset(seed=9)
    alone, told = ward.reset(seed=9)
    assert np.array_equal(team.state(), alone)
    disputed = 0
    for _ in range(8 if world == "toy" else 3):
        actions = drawn(team, infos, rng)
        settled = team.team.decide({role: action[None] for role, action in actions.items()})
        joint = (settled.orders[0] > 0).to(torch.int8) if env_id == IDS[0] else settled.orders[0]
        shown, rewards, terminations, truncations, infos = team.step(actions)
        alone, reward, terminated, truncated, told = ward.step(joint.numpy())
        assert np.array_equal(team.state(), alone)
        names = ward.episodes.interface.layout.names
        for role in ROLES:
            assert np.array_equal(shown[role], alone[[n in team.team._view.layouts[role].names for n in names]])
            assert (rewards[role], terminations[role], truncations[role]) == (reward, terminated, truncated)
            for name in set(told) & set(infos[role]) - {"action_mask", "refused_orders"}:
                assert infos[role][name] == told[name], name
        usd = -10000.0 * (told["reward_tests"] + told["reward_treatments"])
        assert sum(infos[role]["price_usd"] for role in ROLES) == pytest.approx(usd, rel=1e-4, abs=1e-3)
        overruled = ("refused_orders", "held_orders", "changed_orders")
        for role in ROLES:
            # an order at another's amount that the ward then refuses is counted as both, and listed once
            counts = [infos[role][name] for name in overruled]
            assert max(counts) <= len([d for d in team.disputes() if d[0] == role]) <= sum(counts)
        disputed += len(team.disputes())
        if terminated:
            break
    assert disputed > 2


def test_a_veto_is_seen_in_infos() -> None:
    env = lasting()
    env.reset(seed=1)
    vancomycin, saline = "vancomycin_mg", "saline_ml"
    both = only(env, intensivist=(vancomycin, saline), pharmacist=(f"hold {vancomycin}",), nurse=("inquire_map",))
    *_, infos = env.step(both)
    assert infos[INTENSIVIST]["orders"] == 2 and infos[INTENSIVIST]["held_orders"] == 1
    assert infos[PHARMACIST]["holds"] == 1 and infos[PHARMACIST]["orders"] == 0 and infos[NURSE]["holds"] == 0
    assert env.disputes() == [(INTENSIVIST, vancomycin, "the pharmacist held it back")]
    given = env.team.episodes.given[0]
    assert {ORDERS[c].name for c in given.nonzero().flatten().tolist()} == {saline, "inquire_map"}
    assert infos[INTENSIVIST]["price_usd"] == pytest.approx(5.0) and infos[NURSE]["price_usd"] == pytest.approx(0.2)
    *_, infos = env.step(only(env, intensivist=(vancomycin,)))
    assert infos[INTENSIVIST]["held_orders"] == 0 and env.disputes() == []
    *_, infos = env.step(only(env, nurse=("acetaminophen_mg",)))
    assert infos[NURSE]["orders"] == infos[NURSE]["refused_orders"] == 1
    assert "standing order" in env.disputes()[0][2]


def test_the_pharmacist_changes_a_dose() -> None:
    env = make("CareTeamDose-v0", world=ToyWard(hazard=0.0, leaves=0.0), action_unit="units")
    env.reset(seed=1)

    def say(**amounts):
        return {
            role: np.array([amounts.get(role, {}).get(label, 0.0) for label in env.labels(role)], np.float32)
            for role in ROLES
        }

    *_, infos = env.step(say(intensivist={"vancomycin_mg": 2000.0}, pharmacist={"adjust vancomycin_mg": 750.0}))
    assert infos[PHARMACIST]["adjustments"] == infos[INTENSIVIST]["changed_orders"] == 1
    assert env.disputes() == [(INTENSIVIST, "vancomycin_mg", "the pharmacist gave another amount")]
    assert float(env.team.episodes.given.sum()) == 750.0
    *_, infos = env.step(say(pharmacist={"adjust vancomycin_mg": 750.0}))
    assert float(env.team.episodes.given.sum()) == 0.0 and infos[PHARMACIST]["adjustments"] == 0


def test_masks_are_of_ones_own_entries_and_drawing_from_them_is_allowed() -> None:
    env = lasting()
    _, infos = env.reset(seed=2)
    for role in ROLES:
        env.action_space(role).seed(0)
    for _ in range(6):
        actions = {r: env.action_space(r).sample(mask=(2 * infos[r]["action_mask"]).astype(np.int8)) for r in ROLES}
        *_, infos = env.step(actions)
        for role, order, why in env.disputes():
            assert not why.startswith(("charted", "its specimen", "the standing")), (role, order, why)


@pytest.mark.slow
@pytest.mark.parametrize("env_id", IDS)
def test_a_row_of_the_batch_is_the_team_alone(env_id: str) -> None:
    """Through ends and new beginnings, in every mode."""
    world, count = ToyWard(hazard=0.15, leaves=0.1), 3
    for mode in AutoresetMode:
        batch = make(
            env_id, "vector", world=world, num_envs=count, autoreset_mode=mode, noise="ward", missingness="some"
        )
        singles = [make(env_id, world=world, noise="ward", missingness="some") for _ in range(count)]
        rng, ends = np.random.default_rng(1), 0
        shown, infos = batch.reset(seed=5)
        firsts = [env.reset(seed=5 + i) for i, env in enumerate(singles)]
        over = np.zeros(count, bool)
        for i, (seen, told) in enumerate(firsts):
            _same(shown, infos, i, seen, told)
        for _ in range(10):
            if mode == AutoresetMode.DISABLED and over.any():
                shown, infos = batch.reset(options={"reset_mask": over.copy()})
                for i in np.flatnonzero(over):
                    _same(shown, infos, i, *singles[i].reset())
                    assert infos[NURSE]["_cost"].tolist() == over.tolist()
                over[:] = False
                infos = _masks(batch)
            actions = drawn(batch, infos, rng)
            shown, rewards, terminations, truncations, infos = batch.step(actions)
            for i, env in enumerate(singles):
                if over[i] and mode == AutoresetMode.NEXT_STEP:
                    _same(shown, infos, i, *env.reset())
                    assert rewards[NURSE][i] == 0 and not terminations[NURSE][i]
                    over[i] = False
                    continue
                seen, reward, terminated, truncated, told = env.step({role: a[i] for role, a in actions.items()})
                assert rewards[NURSE][i] == reward[NURSE] and terminations[PHARMACIST][i] == terminated[PHARMACIST]
                assert truncations[INTENSIVIST][i] == truncated[INTENSIVIST]
                over[i] = terminated[NURSE] or truncated[NURSE]
                ends += over[i]
                if over[i] and mode == AutoresetMode.SAME_STEP:
                    for role in ROLES:
                        assert np.array_equal(infos[role]["final_obs"][i], seen[role])
                        last = {name: value[i] for name, value in infos[role]["final_info"].items() if name[0] != "_"}
                        assert data_equivalence(_numbers(last), _numbers(told[role]))
                    seen, told = env.reset()
                    over[i] = False
                _same(shown, infos, i, seen, told)
        assert ends > 2, "no stay ended"


def _masks(batch) -> dict:
    """Where the masks of all rows are needed and a partial reset told those of some."""
    facts = batch.episodes.facts()
    name = "action_mask" if f"{NURSE}/action_mask" in facts else "order_mask"
    return {role: {name: facts[f"{role}/{name}"].numpy()} for role in ROLES}


def _numbers(info: dict) -> dict:
    return {name: np.asarray(value, np.float64) for name, value in info.items()}


def _same(shown, infos, row, seen, told) -> None:
    for role in ROLES:
        assert np.array_equal(shown[role][row], seen[role])
        mine = {name: value[row] for name, value in infos[role].items() if name[0] != "_" and "final" not in name}
        assert mine.keys() == told[role].keys()
        assert data_equivalence(_numbers(mine), _numbers(told[role]))


def test_tensors_hold_what_arrays_hold() -> None:
    """And share no memory: of roles, of calls."""
    world = ToyWard(hazard=0.2)
    forms = [
        make(form="vector", world=world, num_envs=3, autoreset_mode="SameStep", tensors=tensors)
        for tensors in (False, True)
    ]
    rng = np.random.default_rng(0)
    (seen, infos), (tensors, told) = (env.reset(seed=3) for env in forms)
    for _ in range(6):
        actions = drawn(forms[0], infos, rng)
        seen, rewards, *_, infos = forms[0].step(actions)
        tensors, returns, *_, told = forms[1].step({role: torch.as_tensor(a) for role, a in actions.items()})
        for role in ROLES:
            assert isinstance(tensors[role], torch.Tensor) and np.array_equal(tensors[role].numpy(), seen[role])
            assert np.array_equal(returns[role].numpy().astype(np.float64), rewards[role])
            assert told[role].keys() == infos[role].keys()
            for row in np.flatnonzero(infos[role].get("_final_obs", np.zeros(3, bool))):
                assert np.array_equal(told[role]["final_obs"][row].numpy(), infos[role]["final_obs"][row])
    before = told[NURSE]["hours"].clone()
    told[INTENSIVIST]["hours"].fill_(-1)
    returns[NURSE].fill_(-1)
    assert torch.equal(told[NURSE]["hours"], before) and not torch.equal(returns[PHARMACIST], returns[NURSE])
    infos[NURSE]["hours"][:] = -1
    assert (infos[PHARMACIST]["hours"] >= 0).all()
    assert isinstance(forms[1].state(), torch.Tensor) and np.array_equal(forms[1].state().numpy(), forms[0].state())


def test_infos_have_one_form_and_spreads_are_of_ones_own_chart() -> None:
    env = make(world="ehr-ward-small", max_cycles=2)
    _, first = env.reset(seed=0)
    assert env.team.ward.task.name == EHRWardTask().name
    nothing = {role: np.zeros(env.action_space(role).shape, np.int8) for role in ROLES}
    *_, infos = env.step(nothing)
    for role in ROLES:
        form = {name: (type(value), getattr(value, "shape", ())) for name, value in first[role].items()}
        assert form == {name: (type(value), getattr(value, "shape", ())) for name, value in infos[role].items()}
        judged = [v for n, v in first[role].items() if n.startswith(("cost", "reward", "price", "held", "orders"))]
        assert len(judged) >= 10 and not any(judged)
    assert "spread_lactate_mmol_l" in first[INTENSIVIST] and "spread_lactate_mmol_l" not in first[PHARMACIST]
    assert not any(name.startswith("spread") for name in make(uncertainty=False).reset(seed=0)[1][NURSE])
    *_, truncations, _ = env.step(nothing)
    assert all(truncations.values()) and env.agents == []
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(nothing)


def test_a_snapshot_brings_the_stay_back() -> None:
    env = lasting(noise="ward")
    _, infos = env.reset(seed=4, options={"factors": {"age_years": 61}})
    assert env.describe(NURSE, env.reset(seed=4, options={"age_years": 61})[0][NURSE])["age_years"] == pytest.approx(61)
    rng = np.random.default_rng(2)
    actions = [drawn(env, infos, rng) for _ in range(3)]
    shown = env.step(actions[0])[0]
    kept = env.snapshot()
    future = [env.step(a)[:2] for a in actions[1:]]
    assert data_equivalence(env.restore(kept), shown, exact=True)
    assert env.disputes() == [], "of the step before nothing is known there"
    assert data_equivalence([env.step(a)[:2] for a in actions[1:]], future, exact=True)
    rows = make(form="vector", world=ToyWard(hazard=0.0, leaves=0.0), noise="ward", num_envs=2)
    assert np.array_equal(rows.restore(kept)[NURSE][1], shown[NURSE])
    picture = lasting(render_mode="rgb_array")
    picture.reset(seed=0)
    assert picture.render().dtype == np.uint8 and picture.render().ndim == 3


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: clinenv.make_team("CareTeam-v9"), "CareTeam-v0, CareTeamDose-v0"),
        (lambda: make(form="turns"), "parallel, aec, vector"),
        (lambda: make(observation="text"), "his own chart"),
        (lambda: make(task=EHRWardTask()), "CareTeamTask"),
        (lambda: make(max_cycles=0), "max_cycles=0"),
        (lambda: make(world="no-such-world"), "ward-oracle"),
        (lambda: make(task=CareTeamTask(actions=Switches({"saline_ml": 1000.0}))), "all the ward's orders"),
        (lambda: make().reset(options={"no_such_factor": 1}), "no_such_factor"),
        (lambda: make().reset(options={"reset_mask": np.array([True])}), "here is one"),
        (lambda: make().reset(seed=-1), "-1"),
    ],
)
def test_bad_arguments_are_refused_by_name(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()


def test_bad_actions_leave_no_trace() -> None:
    env, twin = lasting(), lasting()
    for state in (env.state, lambda: env.step({})):
        with pytest.raises(gymnasium.error.ResetNeeded):
            state()
    env.reset(seed=0)
    twin.reset(seed=0)
    nothing = {role: np.zeros(env.action_space(role).shape, np.int8) for role in ROLES}
    wrong = (None, [0], {}, {NURSE: nothing[NURSE]}, {**nothing, "surgeon": nothing[NURSE]})
    for actions in (*wrong, {**nothing, NURSE: None}, {**nothing, NURSE: nothing[PHARMACIST]}, {**nothing, NURSE: 2}):
        with pytest.raises(ValueError, match="nurse"):
            env.step(actions)
    assert data_equivalence(env.step(nothing), twin.step(nothing), exact=True)
    env.close()
    env.close()
    for call in (env.reset, lambda: env.step(nothing)):
        with pytest.raises(gymnasium.error.ClosedEnvironmentError):
            call()
    with pytest.raises(TypeError, match="num_envs.*vector"):
        make(num_envs=2)
    assert isinstance(make(form="vector", num_envs=2), CareTeamVectorEnv)


def test_making_a_team_is_light_until_it_is_made() -> None:
    code = "import clinenv, sys; clinenv.make_team; assert not {'torch', 'pettingzoo'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
