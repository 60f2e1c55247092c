"""PPO in torch alone: gradients are autograd's, a stopped run ends as a whole one, and known optima are found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium import spaces

from agents import ppo, run_folder
from agents.courses import Courses
from agents.journal import METRICS
from agents.network import Network, output_of
from agents.policy_agent import PolicyAgent
from agents.ppo_config import PPOConfig
from agents.ppo_policy import pushed
from agents.rollout import judge
from clinenv.pessimism import Pessimism
from clinenv.simulator import Simulator
from clinenv.vector_env import ClinicalVectorEnv
from tests.agents.bandit_world import STEPS, DialTask, DialWorld
from world_models import keys

SPACES = {
    "menu": spaces.Discrete(5),
    "levels": spaces.MultiDiscrete([2, 4, 3]),
    "switches": spaces.MultiBinary(6),
    "amounts": spaces.Box(np.array([-1.0, 0.0], np.float32), np.array([1.0, 5.0], np.float32)),
}
SMALL = PPOConfig(num_envs=16, n_steps=STEPS, minibatch=64, hidden=(32, 32))


class CarefulTask(DialTask):
    """The dial, which may not be turned any more once it stands at five."""

    refuses = True

    def admissible(self, chart):
        return (chart["dial_turns"] < 5.0).unsqueeze(1)


def patients(task=None, world=None):
    def make(env_id, num_envs, _, **kw):
        return ClinicalVectorEnv(task or DialTask(), num_envs, world or DialWorld(drift=0.2), **kw)

    return make


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def logits_of(network, seen):
    """The network's outputs by torch's own operations, for autograd."""
    found = []
    for tower in ("actor", "critic"):
        x, layers = seen, [n for n in network.parameters if n.startswith(tower) and n.endswith("weight")]
        for i, name in enumerate(layers):
            x = x @ network.parameters[name].T + network.parameters[name.replace("weight", "bias")]
            x = torch.tanh(x) if i + 1 < len(layers) else x
        found.append(x)
    return found


def distribution(kind, space, out, log_sd, mask):
    """torch's own distributions of an output [B, width]: log chance of an action as released, and the entropy."""
    if kind == "amounts":
        normal = torch.distributions.Normal(out, log_sd.exp().expand_as(out))
        return lambda a: normal.log_prob(a).sum(-1), normal.entropy().sum(-1)
    counts = {"menu": [5], "levels": [2, 4, 3], "switches": [2] * 6}[kind]
    logits = out.view(len(out), max(counts), len(counts))  # choice after choice
    each, start = [], 0
    for entry, count in enumerate(counts):
        own = logits[:, :count, entry]
        if mask is not None:
            own = own.masked_fill(~mask[:, start : start + count], -1e9)
        start += count
        each.append(torch.distributions.Categorical(logits=own))
    return (
        lambda a: sum(d.log_prob(a[:, i]) for i, d in enumerate(each)),
        sum(d.entropy() for d in each),
    )


@pytest.mark.parametrize(
    ("kind", "masked"),
    [(kind, masked) for kind in SPACES for masked in (False, True) if kind != "amounts" or not masked],
)
def test_a_gradient_step_is_that_of_autograd(kind: str, masked: bool) -> None:
    space, rows = SPACES[kind], 40
    output = output_of(space, "cpu")
    config = PPOConfig(num_envs=rows, minibatch=rows, hidden=(16, 8), entropy=0.05, clip=0.1)
    network = Network(7, output, 2, config.hidden, "cpu")
    network.initialise(-0.5, generator())
    network.vector += 0.3 * torch.randn(len(network.vector), generator=generator(1))
    seen = torch.randn(rows, 7, generator=generator(2))
    mask = None
    if masked:
        choices = torch.rand(rows, {"menu": 5, "levels": 9, "switches": 12}[kind], generator=generator(3)) < 0.7
        first = {"menu": [0], "levels": [0, 2, 6], "switches": list(range(0, 12, 2))}[kind]
        choices[:, first] = True
        mask = output.laid_out(choices)
    action = output.draw(network.policy(seen, mask), generator(4))
    old = output.log_prob(network.policy(seen, mask), action) + 0.2 * torch.randn(rows, generator=generator(5))
    advantage, target = torch.randn(rows, generator=generator(6)), torch.randn(rows, 2, generator=generator(7))

    learner = object.__new__(ppo.Learner)  # only what a gradient step needs
    learner.config, learner.network, learner.output = config, network, output
    learner._step = lambda network, moments, numbers: None
    rows_of = ppo._Rows(seen, mask, action.T, old, advantage, target)
    learner._descended_in_place(network, torch.zeros(2, len(network.vector)), rows_of, torch.zeros(2))
    found = network.gradient.clone()

    network.vector.requires_grad_()
    network.parameters = {n: _again(network, n) for n in network.parameters}
    out, values = logits_of(network, seen)
    log_sd = network.parameters.get("log_sd", torch.zeros(0))
    log_prob, entropy = distribution(kind, space, out, log_sd, choices if masked else None)
    ratio = (log_prob(action.T) - old).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
    loss = -gain.mean() - 0.05 * entropy.mean() + 0.5 * (values - target).square().mean()
    loss.backward()
    wanted = network.vector.grad
    torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)
    assert float(wanted.abs().max()) > 1e-3


@pytest.mark.compiles
@pytest.mark.parametrize("kind", SPACES)
def test_compiled_gradient_steps_are_the_plain_ones(kind: str) -> None:
    def learned(compile: bool) -> ppo.Learner:
        config = replace(SMALL, compile=compile, num_envs=32)
        courses = Courses(patients()("", 32, None).episodes, 0)
        learner = ppo.Learner(courses, SPACES[kind], False, config, 0)
        seen = torch.randn(64, learner.history[0].numel(), generator=generator(2))
        given = learner.network.policy(seen, None)
        action = learner.output.draw(given, generator(4))
        old = learner.output.log_prob(given, action) + 0.1 * torch.randn(64, generator=generator(5))
        advantage, target = torch.randn(64, generator=generator(6)), torch.randn(64, 1, generator=generator(7))
        for _ in range(20):
            learner._descend(ppo._Rows(seen, None, action.T, old, advantage, target), 1e-3)
        return learner

    plain, compiled = learned(False), learned(True)
    torch.testing.assert_close(compiled.network.vector, plain.network.vector, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(compiled.moments, plain.moments, atol=1e-6, rtol=1e-3)
    begun = ppo.Learner(plain.courses, SPACES[kind], False, SMALL, 0).network.vector
    assert float((plain.network.vector - begun).abs().max()) > 1e-2


def _again(network, name):
    """A parameter as a view that autograd follows."""
    shapes, start = {n: p.shape for n, p in network.parameters.items()}, 0
    for other, shape in shapes.items():
        size = shape.numel()
        if other == name:
            return network.vector[start : start + size].view(shape)
        start += -(-size // 16) * 16
    raise KeyError(name)


@pytest.mark.parametrize("kind", SPACES)
def test_actions_are_drawn_by_their_chance_and_lie_in_their_space(kind: str) -> None:
    space, rows = SPACES[kind], 4000
    output = output_of(space, "cpu")
    out = torch.randn(output.width, 1, generator=generator()).expand(-1, rows).contiguous()
    given = output.given(out, None, torch.zeros(output.amounts))
    action = output.draw(given, generator(1))
    released = output.released(action).numpy()
    assert all(space.contains(row.astype(space.dtype)) for row in released[:200])
    assert space.contains(output.released(output.mode(given))[0].numpy().astype(space.dtype))
    if kind == "amounts":
        torch.testing.assert_close(action.mean(1), out[:, 0], atol=0.06, rtol=0.0)
        assert float(output.released(action)[:, 1].min()) == 0.0 and float(output.released(action)[:, 1].max()) == 5.0
    else:
        logits = out[:, 0].view(-1, action.shape[0])
        for entry in range(action.shape[0]):
            count = {"menu": 5, "switches": 2}.get(kind, [2, 4, 3][entry % 3])
            chance = logits[:count, entry].softmax(0)
            seen = torch.bincount(action[entry], minlength=count)[:count] / rows
            torch.testing.assert_close(seen, chance, atol=0.03, rtol=0.0)
    with pytest.raises(ValueError, match="no choices"):
        output_of(spaces.Text(3), "cpu")
    with pytest.raises(ValueError, match="no bounded row"):
        output_of(spaces.Box(-np.inf, np.inf, (2,)), "cpu")


def test_advantages_are_the_sums_that_define_them() -> None:
    learner = object.__new__(ppo.Learner)
    learner.config = replace(SMALL, gamma=0.9, gae_lambda=0.8)
    steps, rows = 6, 5
    paid = torch.randn(steps, rows, 1, generator=generator())
    values = torch.randn(steps + 1, rows, 1, generator=generator(1))
    ends = torch.rand(steps, rows, generator=generator(2)) < 0.3
    found = learner._advantages(paid, values, ends)
    for row in range(rows):
        for t in range(steps):
            total, weight = 0.0, 1.0
            for s in range(t, steps):
                after = 0.0 if ends[s, row] else float(values[s + 1, row])
                total += weight * (float(paid[s, row]) + 0.9 * after - float(values[s, row]))
                weight *= 0.9 * 0.8
                if ends[s, row]:
                    break
            assert float(found[t, row]) == pytest.approx(total, abs=1e-5)


def test_patients_of_a_batch_follow_each_other_as_if_alone() -> None:
    """Whoever ends is followed by the next patient of the waiting room; each course is the one of its key alone."""

    class Short(DialTask):
        def terminated(self, chart):
            return chart["dial_turns"] >= 6.0

    world, task = DialWorld(drift=0.2), Short()
    courses = Courses(ClinicalVectorEnv(task, 6, world).episodes, seed=3)
    seen = courses.begin()
    base = keys.fold(keys.from_seed(3, 1), "training")
    simulator, interface = Simulator(world, task), courses.episodes.interface
    patient, state, chart, started = list(range(6)), {}, {}, 6
    for row in range(6):
        state[row], chart[row] = simulator.reset(keys.fold(keys.fold(base, torch.tensor([row])), 0))
    steps = [0] * 6
    for step in range(4 * STEPS):
        action = torch.tensor([(row + step) % 3 for row in range(6)])
        happened = courses.step(action)
        for row in range(6):
            out = simulator.step(state[row], chart[row], action[row : row + 1, None].float())
            steps[row] += 1
            ended = bool(out.terminated) or steps[row] == STEPS
            assert float(happened.reward[row]) == float(out.reward) and bool(happened.ended[row]) == ended
            state[row], chart[row] = out.state, out.chart
            if ended:
                key = keys.fold(keys.fold(base, torch.tensor([started])), 0)
                state[row], chart[row] = simulator.reset(key)
                patient[row], started, steps[row] = started, started + 1, 0
            shown, _ = interface.observe(chart[row], state[row].key, state[row].t, None)
            assert torch.equal(happened.observation[row : row + 1], shown)
        seen = happened.observation
    assert started > 18 and seen.shape[0] == 6, "the waiting room was filled more than twice"


def test_history_holds_what_was_seen_and_nothing_of_the_patient_before() -> None:
    history = torch.arange(12.0).view(2, 3, 2)
    moved = pushed(history, torch.tensor([[90.0, 91.0], [92.0, 93.0]]), torch.tensor([False, True]))
    assert moved[0].tolist() == [[2.0, 3.0], [4.0, 5.0], [90.0, 91.0]] and moved[1].tolist() == [[92.0, 93.0]] * 3


@pytest.mark.slow
def test_it_finds_the_known_best_course(tmp_path) -> None:
    config = replace(SMALL, num_envs=128, minibatch=128, learning_rate=3e-3, cost_weight=0.0, entropy=0.0)
    config = replace(config, hidden=(64, 64))
    world = DialWorld()
    folder = ppo.train(tmp_path / "p", 128 * STEPS * 80, config=config, make=patients(world=world), progress=False)
    simulator = Simulator(world, DialTask())
    key = keys.from_seed(900, 200)
    earned = float(judge(PolicyAgent(folder, simulator), simulator, key, STEPS).returns.mean())
    untrained = ppo.train(tmp_path / "u", 1, config=replace(config, learning_rate=0.0), make=patients(), progress=False)
    before = float(judge(PolicyAgent(untrained, simulator), simulator, key, STEPS).returns.mean())
    assert -0.5 < earned <= 0.0 and before < -20.0, "the best return is 0"


def test_a_limit_of_the_cost_is_kept(tmp_path) -> None:
    """Turning the dial by two costs one; the paths of these patients ask for it at two steps of three."""
    limit = 0.5
    config = replace(
        SMALL, num_envs=128, minibatch=256, learning_rate=3e-3, cost_weight=0.0, cost_limit=limit, multiplier_rate=0.3
    )
    folder = ppo.train(tmp_path / "p", 128 * STEPS * 40, config=config, make=patients(), progress=False)
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    told = run_folder.read_config(folder)
    assert told["multiplier"] == pytest.approx(lines[-1]["multiplier"], rel=1e-4) and told["multiplier"] > 0.2
    free = ppo.train(
        tmp_path / "f", 128 * STEPS * 40, config=replace(config, cost_limit=None), make=patients(), progress=False
    )
    simulator = Simulator(DialWorld(drift=0.2), DialTask())
    key = keys.from_seed(900, 300)
    limited, unlimited = (judge(PolicyAgent(f, simulator), simulator, key, STEPS) for f in (folder, free))
    assert float(limited.costs.mean()) < limit + 0.2 < 1.2 < float(unlimited.costs.mean())
    assert float(limited.returns.mean()) < float(unlimited.returns.mean()), "the limit has its price"


def test_a_stopped_run_ends_as_a_whole_one(tmp_path, monkeypatch) -> None:
    class Stopped(Exception):
        pass

    config = replace(SMALL, history=2, n_steps=5, cost_limit=1.0)  # courses run on over the end of a rollout
    steps = 16 * 5 * 9
    kw = {"config": config, "make": patients(CarefulTask()), "progress": False, "seed": 4}
    whole = ppo.train(tmp_path / "whole", steps, **kw)
    iterate = ppo.Learner.iterate

    def once(self, rate):
        if self.iteration == 5:
            raise Stopped
        return iterate(self, rate)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(ppo.Learner, "iterate", once)
        ppo.train(tmp_path / "parts", steps, save_every_s=0.0, **kw)
    assert run_folder.read_config(tmp_path / "parts")["steps_done"] == 16 * 5 * 5
    with (tmp_path / "parts" / METRICS).open("a") as file:  # written after the last checkpoint
        file.write('{"steps": 480, "return": 0.0}\n{"ste')
    parts = ppo.train(tmp_path / "parts", steps, **kw)
    for name in ("policy.safetensors", "checkpoint/checkpoint.safetensors"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes(), name
    found = [[json.loads(x) for x in (f / METRICS).read_text().splitlines()] for f in (whole, parts)]
    for line in (*found[0], *found[1]):
        del line["seconds"], line["steps_per_second"]
    assert found[0] == found[1] and len(found[0]) == 9
    sealed = run_folder.read_config(whole)
    (whole / "policy.json").unlink()  # stopped between its last checkpoint and its policy
    ppo.train(whole, steps, **kw)
    assert run_folder.read_config(whole) == sealed
    other = ppo.train(tmp_path / "other", steps, **{**kw, "seed": 5})
    assert (other / "policy.safetensors").read_bytes() != (whole / "policy.safetensors").read_bytes()
    with pytest.raises(ValueError, match="another seed"):
        ppo.train(whole, steps, **{**kw, "seed": 5})
    with pytest.raises(ValueError, match="another preset"):
        ppo.train(whole, steps, **{**kw, "config": replace(config, clip=0.3)})
    with pytest.raises(ValueError, match="another env_kwargs"):
        ppo.train(whole, steps, **kw, pessimism={"kind": "mopo", "weight": 5.0})
    fresh = ppo.train(whole, 16 * 5, resume=False, **kw)
    assert run_folder.read_config(fresh)["steps_done"] == 16 * 5


def test_a_run_says_what_its_environment_was_made_with() -> None:
    def told(**settings):
        return run_folder.described("clinenv", "ppo", "ECGDrug-v0", "oracle", {}, 0, 1, settings)

    plain = {
        "noise": "clinic",
        "hours": np.float64(24.0),
        "pessimism": Pessimism("mopo", 2.0),
        "patients": Path("ecgs"),
    }
    made_again = told(**plain)["env_kwargs"]
    assert made_again["hours"] == 24.0 and made_again["patients"] == "ecgs"
    assert made_again["pessimism"]["kind"] == "mopo" and "env_objects" not in told(**plain)
    records = told(stays=[object()], noise="clinic")
    assert records["env_kwargs"] == {"noise": "clinic"}, "what is made again from this takes no names of classes"
    assert records["env_objects"] == {"stays": "builtins.list"}


def test_what_is_refused_is_never_chosen(tmp_path) -> None:
    simulator = Simulator(DialWorld(drift=0.2), CarefulTask())
    kw = {"config": replace(SMALL, learning_rate=3e-3), "progress": False}
    careful = ppo.train(tmp_path / "c", 16 * STEPS * 8, make=patients(CarefulTask()), **kw)
    assert run_folder.read_config(careful)["masked"] is True
    key = keys.from_seed(3, 100)
    found = judge(PolicyAgent(careful, simulator), simulator, key, STEPS)
    assert float(found.refused.sum()) == 0.0 and float(found.ordered.sum()) > 0.0
    blind = ppo.train(tmp_path / "b", 16 * STEPS * 8, make=patients(), **kw)
    assert float(judge(PolicyAgent(blind, simulator), simulator, key, STEPS).refused.sum()) > 0.0
