"""What the smaller doors promise beyond whole courses: spaces, buffers, costs, and what they refuse."""

from __future__ import annotations

import importlib
import importlib.util
import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from clinenv.doors import making
from clinenv.doors.skrl import SkrlVectorEnv, tell_last_observations
from tests.toy_ward import ToyWard
from tests.toy_world import ToyWorld

DEADLY = {"world": ToyWorld(hazard=0.5)}


def door(name: str, library: str | None = None):
    """The module of a door, or a skip."""
    if importlib.util.find_spec(library or name) is None:
        pytest.skip(f"{library or name} is not installed")
    return importlib.import_module(f"clinenv.doors.{name}")


@pytest.mark.parametrize("name", ["torchrl", "rllib", "pufferlib", "rsl_rl", "omnisafe"])
def test_a_missing_library_is_named_with_the_command_that_installs_it(name: str, monkeypatch) -> None:
    library = {"rllib": "ray"}.get(name, name)
    for module in [
        m for m in sys.modules if m.split(".")[0] in (library, "tensordict") or m.startswith("clinenv.doors")
    ]:
        monkeypatch.delitem(sys.modules, module)
    for gone in (library, "tensordict"):
        monkeypatch.setitem(sys.modules, gone, None)  # an import then fails
    with pytest.raises(ImportError, match="the door of .* needs .*pip install"):
        importlib.import_module(f"clinenv.doors.{name}")


def test_the_library_decides_on_the_autoreset_mode_and_only_our_ids_have_doors() -> None:
    with pytest.raises(ValueError, match="autoreset_mode='Disabled'.*'SameStep'.*leave it out"):
        making.patients("ECGDrug-v0", 2, AutoresetMode.SAME_STEP, world=ToyWorld(), autoreset_mode="Disabled")
    with pytest.raises(TypeError, match="of clinenv"):
        making.clinical(gymnasium.make_vec("CartPole-v1", num_envs=2))


def test_skrl_recognises_it_and_knows_no_multibinary() -> None:
    pytest.importorskip("skrl")
    from skrl.envs.wrappers.torch import wrap_env

    env = wrap_env(SkrlVectorEnv("EHRWard-v0", 3, world=ToyWard(), action="multidiscrete"), verbose=False)
    assert type(env).__name__ == "GymnasiumWrapper" and env.num_envs == 3
    seen, _ = env.reset()
    seen, reward, *_ = env.step(torch.zeros(3, 69, dtype=torch.int64))
    assert seen.shape == (3, 229) and reward.shape == (3, 1)
    assert env._env.action_masks().shape == (3, 138)
    with pytest.raises(ValueError, match='skrl.*action="multidiscrete"'):
        SkrlVectorEnv("EHRWard-v0", 3, world=ToyWard())


@pytest.mark.parametrize("observation", ["chart", "ecg"])
def test_skrl_agents_are_told_how_a_course_ended(observation: str) -> None:
    class Agent:
        def record_transition(self, **transition) -> None:
            self.told = transition["next_observations"]

    env = SkrlVectorEnv("ECGDrug-v0", 3, hours=2, observation=observation, **DEADLY)
    env.reset(seed=0)
    shown, _, _, truncated, infos = env.step(np.zeros(3, int))
    assert truncated.all()

    def flat(seen) -> np.ndarray:
        parts = [seen[name] for name in sorted(seen)] if isinstance(seen, dict) else [seen]
        return np.concatenate([np.asarray(part, np.float32).reshape(-1) for part in parts])

    rows = torch.as_tensor(
        np.stack([flat({k: v[i] for k, v in shown.items()} if isinstance(shown, dict) else shown[i]) for i in range(3)])
    )
    agent = tell_last_observations(Agent())
    agent.record_transition(next_observations=rows, infos=infos)
    assert np.array_equal(agent.told, np.stack([flat(last) for last in infos["final_obs"]]))
    assert not torch.equal(agent.told, rows), "what came back is the next patients'"


def test_pufferlib_shares_its_buffers_and_no_patient_is_met_twice() -> None:
    module = door("pufferlib")
    import pufferlib.vector

    kwargs = {"env_id": "EHRWard-v0", "num_envs": 2, "world": ToyWard(), "action": "multidiscrete"}
    env = pufferlib.vector.make(
        module.PufferVectorEnv, env_kwargs=kwargs, backend=pufferlib.vector.Serial, num_envs=2, seed=3
    )
    env.async_reset(3)
    first = env.recv()[0].copy()
    assert first.shape == (4, 229) and len(np.unique(first, axis=0)) == 4
    plain = gymnasium.make("EHRWard-v0", world=ToyWard())
    assert np.array_equal(first[3], plain.reset(seed=3 * 2 + 3)[0])
    env.send(np.zeros((4, 69), np.int32))
    assert not np.array_equal(env.recv()[0], first)
    with pytest.raises(ValueError, match='PufferLib.*action="multidiscrete"'):
        module.PufferVectorEnv("EHRWard-v0", 2, world=ToyWard())
    with pytest.raises(ValueError, match="PufferLib takes observations in a Box"):
        module.PufferVectorEnv("ECGDrug-v0", 2, world=ToyWorld(), observation="ecg")


def test_pufferlib_may_take_the_clock_for_the_end() -> None:
    module = door("pufferlib")
    for ends in (False, True):
        env = module.PufferVectorEnv("ECGDrug-v0", 3, time_limit_ends=ends, world=ToyWorld(hazard=0.0), hours=4)
        env.reset(seed=0)
        env.step(np.zeros(3, int))
        _, _, terminals, truncations, infos = env.step(np.zeros(3, int))
        assert truncations.all() and terminals.all() == ends
        assert [info["episode_length"] for info in infos] == [2.0] * 3


def test_rsl_rl_is_handed_bounded_doses_and_may_start_at_any_length() -> None:
    module = door("rsl_rl")
    env = module.RslVecEnv("ECGDrugContinuous-v0", 3, seed=1, world=ToyWorld(hazard=0.0))
    assert env.num_actions == 4 and env.max_episode_length == 24 and env.episode_length_buf.tolist() == [0, 0, 0]
    twin = module.RslVecEnv("ECGDrugContinuous-v0", 3, seed=1, world=ToyWorld(hazard=0.0))
    wide, clipped = torch.tensor([[5.0, 0.2, -9.0, 1.0]] * 3), torch.tensor([[1.0, 0.2, -1.0, 1.0]] * 3)
    assert torch.equal(env.step(wide)[0]["policy"], twin.step(clipped)[0]["policy"])
    with pytest.raises(ValueError, match="nan"):
        env.step(torch.full((3, 4), torch.nan))
    env.episode_length_buf = torch.tensor([23, 5, 22])
    _, _, dones, extras = env.step(clipped)
    assert dones.tolist() == extras["time_outs"].tolist() == [True, False, False]
    assert env.episode_length_buf.tolist() == [0, 6, 23]
    assert float(extras["log"]["/episode_cost"]) >= 0 and extras["cost"].shape == (3,)
    with pytest.raises(ValueError, match="rsl_rl takes actions in a Box.*amounts"):
        module.RslVecEnv("ECGDrug-v0", 3, world=ToyWorld())


def test_omnisafe_has_the_cost_in_the_tuple_with_one_patient_and_with_many() -> None:
    module = door("omnisafe")
    from omnisafe.envs.core import make, support_envs

    assert {"ECGDrugContinuous-v0", "EHRWardDose-v0"} <= set(support_envs())
    plain = gymnasium.make("ECGDrugContinuous-v0", **DEADLY)
    plain.reset(seed=5)
    dose = np.array([-1.0, 1.0, -1.0, -1.0], np.float32)
    expected = [plain.step(dose) for _ in range(2)]
    for count in (1, 3):
        env = make("ECGDrugContinuous-v0", num_envs=count, **DEADLY)
        assert isinstance(env, module.OmniSafeEnv)
        env.set_seed(5)
        seen, _ = env.reset()
        assert seen.shape == ((36,) if count == 1 else (count, 36))
        for told in expected:
            action = torch.as_tensor(dose) if count == 1 else torch.as_tensor(dose).expand(count, 4)
            after, reward, cost, terminated, truncated, info = env.step(action)
            pick = (lambda x: x) if count == 1 else (lambda x: x[0])
            ended = bool(pick(terminated))
            last = pick(info["final_observation"]) if ended else pick(after)
            assert np.array_equal(last, told[0])
            assert (
                float(pick(reward)) == pytest.approx(told[1]) and ended == told[2] and bool(pick(truncated)) == told[3]
            )
            assert float(pick(cost)) == pytest.approx(told[4]["cost"])
            if ended:
                break
        env.close()
