"""Proximal policy optimisation in torch alone: patients, policy and gradients never leave their device.

Schulman et al. 2017 (arXiv 1707.06347), with generalised advantages (Schulman et al. 2016, arXiv 1506.02438) and, where
a limit of the safety cost is given, a Lagrange multiplier that climbs while the limit is broken (Ray, Achiam & Amodei
2019, "Benchmarking safe exploration in deep reinforcement learning"). From top to bottom: the learner with its rollout,
advantages, update and gradient step, its checkpoint, and `train`. `agents.network` is the policy, `agents.courses` the
patients, `agents.ppo_config` the settings.

Shapes: T steps of B patients are N rows; a policy sees `inputs` numbers of each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gymnasium import Space
from gymnasium.spaces import Box
from gymnasium.vector import VectorEnv
from torch import Tensor

from agents import run_folder
from agents.courses import Courses
from agents.journal import Journal
from agents.network import Choices, Network, output_of
from agents.ppo_config import PPOConfig, preset_for
from agents.ppo_policy import pushed
from clinenv.compiled import Compiled
from clinenv.doors.making import clinical
from world_models import keys, tree
from world_models.protocol import WorldModel
from world_models.sealed import Opened

__all__ = ["ALGO", "LIBRARY", "Learner", "PPOConfig", "preset_for", "train"]

LIBRARY, ALGO = "clinenv", "ppo"  # as policy.json names what made it

_ADAM_FIRST, _ADAM_SECOND, _ADAM_EPS = 0.9, 0.999, 1e-5
_RECENT = 0.1  # weight of the last rollout in the mean and SD of the critic's targets
_LEAST_SD = 1e-3  # of the targets: where nothing is paid, they are not blown up


class _Rows(NamedTuple):
    """What an update learns from; N rows."""

    seen: Tensor  # float32 [N, inputs]
    mask: Tensor | None  # bool [N, M * D]
    action: Tensor  # [N, D]
    log_prob: Tensor  # float32 [N], when it was drawn
    advantage: Tensor  # float32 [N]
    target: Tensor  # float32 [N, values]


class Learner:
    """PPO on running courses: `iterate` is one rollout and one update, a function of where it stands and the seed.

    Args:
        courses: of as many patients as the config says.
        space: of one action.
        masked: whether the task refuses choices, which the policy is then not offered.
        seed: of the first weights, the policy's exploration and the order of the rows.
    """

    def __init__(self, courses: Courses, space: Space, masked: bool, config: PPOConfig, seed: int) -> None:
        device = courses.episodes.device
        self.config, self.seed, self.courses = config, seed, courses
        self.output = output_of(space, device)
        self.masked = masked and isinstance(self.output, Choices)
        self.history = courses.begin().unsqueeze(1).repeat(1, config.history, 1)  # [B, history, n]
        self.limited = config.cost_limit is not None
        inputs = self.history[0].numel()
        values = 2 if self.limited else 1  # returns that the critic foretells
        self.network = Network(inputs, self.output, values, config.hidden, device)
        self.network.initialise(config.log_sd, torch.Generator().manual_seed(seed))
        self.moments = torch.zeros(2, len(self.network.vector), device=device)  # Adam's, first and second
        self.sums = torch.zeros(3, config.num_envs, device=device)  # of the running courses: return, cost, steps
        # mean and mean square of what the critic is to foretell, of late
        self.targets = torch.stack([torch.zeros(values, device=device), torch.ones(values, device=device)])
        self.multiplier = config.cost_weight
        self.iteration = self.updates = 0
        self._generator = torch.Generator(device)
        self._compiled: Compiled | None = None
        if config.compile:
            if device.type != "cpu":
                raise ValueError(f"compile=True is for gradient steps on the CPU, and these are on {device}; leave it")
            bound = (Network, type(self.output), repr(space), inputs, values, repr(config))
            self._compiled = Compiled(self._descended, "a gradient step of PPO", bound)

    @property
    def steps(self) -> int:
        """Patient-steps so far."""
        return self.iteration * self.config.num_envs * self.config.n_steps

    @torch.no_grad()
    def iterate(self, rate: float) -> dict[str, float]:
        """One rollout and one update with a learning rate; the metrics of both."""
        self._generator.manual_seed(int(keys.fold(keys.from_seed(self.seed), self.iteration)) & (1 << 62) - 1)
        rows, said = self._rollout()
        said |= self._update(rows, rate)
        self.iteration += 1
        if self.limited and "cost" in said:
            assert self.config.cost_limit is not None
            beyond = said["cost"] - self.config.cost_limit
            self.multiplier = max(0.0, self.multiplier + self.config.multiplier_rate * beyond)
            said["multiplier"] = self.multiplier
        return said

    def _rollout(self) -> tuple[_Rows, dict[str, float]]:
        """n_steps of every patient, with what they were worth."""
        seen, masks, actions, log_probs, rewards, ends = [], [], [], [], [], []
        ended_sums = torch.zeros(4, device=self.history.device)  # return, cost, steps, courses
        for _ in range(self.config.n_steps):
            x = self.history.flatten(1)
            mask = self.output.laid_out(self.courses.episodes.choices()) if self.masked else None
            given = self.network.policy(x, mask)
            action = self.output.draw(given, self._generator)
            happened = self.courses.step(self.output.released(action))
            seen.append(x)
            masks.append(mask)
            actions.append(action.T)
            log_probs.append(self.output.log_prob(given, action))
            rewards.append(torch.stack([happened.reward, happened.cost], -1))
            ends.append(happened.ended)
            self.history = pushed(self.history, happened.observation, happened.ended)
            self.sums += torch.stack([happened.reward, happened.cost, torch.ones_like(happened.cost)])
            over = happened.ended.to(torch.float32)
            ended_sums += torch.cat([(self.sums * over).sum(1), over.sum(0, keepdim=True)])
            self.sums *= 1.0 - over
        paid = self._paid(torch.stack(rewards))
        everything = torch.cat([*seen, self.history.flatten(1)])
        values = self.network.values(everything).T.unflatten(0, (self.config.n_steps + 1, -1))
        centre, scale = self._scale()
        values = values * scale + centre
        advantage = self._advantages(paid, values, torch.stack(ends))
        target = self._scaled((advantage + values[:-1]).flatten(0, 1))
        weighed = advantage[..., 0] - (self.multiplier * advantage[..., 1] if self.limited else 0.0)
        weighed = (weighed - weighed.mean()) / (weighed.std() + 1e-8)
        mask = torch.cat([m for m in masks if m is not None]) if self.masked else None
        rows = _Rows(
            everything[: -self.config.num_envs],
            mask,
            torch.cat(actions),
            torch.cat(log_probs),
            weighed.flatten(),
            target,
        )
        *sums, courses = ended_sums.tolist()
        names = ("return", "cost", "length")
        return rows, {n: s / courses for n, s in zip(names, sums, strict=True)} if courses else {}

    def _paid(self, rewards: Tensor) -> Tensor:
        """What the critic foretells the sums of, [T, B, values], of rewards and costs [T, B, 2]."""
        if self.limited:
            return rewards
        return rewards[..., :1] - self.config.cost_weight * rewards[..., 1:]

    def _advantages(self, paid: Tensor, values: Tensor, ends: Tensor) -> Tensor:
        """Generalised advantages [T, B, values]; values [T + 1, B, values] end with those after the last step.

        The end of a course is its end, time limits too: courses are as long for everyone and the chart tells the hour.
        """
        gamma, decay = self.config.gamma, self.config.gamma * self.config.gae_lambda
        goes_on = (~ends).to(torch.float32).unsqueeze(-1)
        surprise = paid + gamma * goes_on * values[1:] - values[:-1]
        advantage = torch.zeros_like(paid)
        ahead = torch.zeros_like(paid[0])
        for t in reversed(range(len(paid))):
            ahead = surprise[t] + decay * goes_on[t] * ahead
            advantage[t] = ahead
        return advantage

    def _scale(self) -> tuple[Tensor, Tensor]:
        """What the critic's 0 and 1 stand for: mean and SD of the recent targets [values]."""
        mean, square = self.targets
        return mean, (square - mean.square()).clamp(min=0.0).sqrt().clamp(min=_LEAST_SD)

    def _scaled(self, target: Tensor) -> Tensor:
        """The targets [N, values] on the critic's scale, after it took their mean and SD into account.

        The critic's last layer is changed such that it foretells what it did (van Hasselt et al. 2016, arXiv
        1602.07714): rewards of any size are learned with one learning rate.
        """
        centre, scale = self._scale()
        weight = max(_RECENT, 1.0 / (1 + self.iteration))
        self.targets.lerp_(torch.stack([target.mean(0), target.square().mean(0)]), weight)
        new_centre, new_scale = self._scale()
        self.network.rescale_values(scale / new_scale, (centre - new_centre) / new_scale)
        return (target - new_centre) / new_scale

    def _update(self, rows: _Rows, rate: float) -> dict[str, float]:
        """Epochs of minibatches over the rows of a rollout."""
        count = len(rows.seen)
        said = {}
        for _ in range(self.config.epochs):
            order = torch.randperm(count, generator=self._generator, device=rows.seen.device)
            shuffled = tree.map_leaves(lambda x, order=order: x.index_select(0, order), rows)
            *parts, last = (tree.take(shuffled, part) for part in tree.runs(count, self.config.minibatch))
            for part in parts:
                self._descend(part, rate)
            said = self._told(last, *self._descend(last, rate))
            if self.config.target_kl is not None and said["kl"] > self.config.target_kl:
                break
        return said

    def _descend(self, rows: _Rows, rate: float) -> tuple[Tensor, Tensor, Tensor]:
        """One gradient step; logarithm of the ratio of chances, entropy and error of the values, before it."""
        self.updates += 1
        # that both moments began at 0 is corrected in the numbers: Adam's section 2, last paragraph
        grown = (1 - _ADAM_SECOND**self.updates) ** 0.5
        numbers = torch.tensor([-rate * grown / (1 - _ADAM_FIRST**self.updates), _ADAM_EPS * grown])
        if self._compiled is None:
            return self._descended_in_place(self.network, self.moments, rows, numbers.to(rows.seen.device))
        vector, moments, *found = self._compiled(self.network.vector, self.moments, rows, numbers)
        self.network.vector.copy_(vector)
        self.moments.copy_(moments)
        return found[0], found[1], found[2]

    def _descended(self, vector: Tensor, moments: Tensor, rows: _Rows, numbers: Tensor) -> tuple[Tensor, ...]:
        """The same without a change in place, to be compiled: vector and moments after it, and what it tells."""
        network, moments = self.network.over(vector.clone()), moments.clone()
        found = self._descended_in_place(network, moments, rows, numbers)
        return network.vector, moments, *found

    def _descended_in_place(
        self, network: Network, moments: Tensor, rows: _Rows, numbers: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        config, count = self.config, len(rows.seen)
        given = network.policy(rows.seen, rows.mask)
        action = rows.action.T
        moved = self.output.log_prob(given, action).sub_(rows.log_prob)
        ratio = moved.exp()
        # the clipped term, where it is the lower one, has no gradient: beyond 1 + clip for what was good, and so on
        bound = torch.where(rows.advantage > 0, ratio, 2.0 - ratio) < 1.0 + config.clip
        by_log_prob = ratio.mul_(rows.advantage).mul_(bound).mul_(-1.0 / count)
        by_output, entropy = self.output.gradient(given, action, by_log_prob, -config.entropy / count)
        network.policy_backward(by_output)  # before the critic: what a tower has worked out stays in the cache
        error = network.values(rows.seen).sub_(rows.target.T)
        network.values_backward(error * (2.0 * config.value_weight / error.numel()))
        self._step(network, moments, numbers)
        return moved, entropy, error

    def _told(self, rows: _Rows, moved: Tensor, entropy: Tensor, error: Tensor) -> dict[str, float]:
        """What is logged of a gradient step."""
        ratio = moved.exp()
        clipped = ((ratio - 1.0).abs() > self.config.clip).to(torch.float32)
        kl = ratio - 1.0 - moved  # Schulman 2020, "Approximating KL divergence": never negative
        unexplained = error.square().mean() / rows.target.var(correction=0).clamp(min=1e-12)
        said = torch.stack([error.square().mean(), 1.0 - unexplained, entropy.mean(), kl.mean(), clipped.mean()])
        return dict(zip(("value_loss", "explained_variance", "entropy", "kl", "clipped"), said.tolist(), strict=True))

    def _step(self, network: Network, moments: Tensor, numbers: Tensor) -> None:
        """Adam (Kingma & Ba 2015, arXiv 1412.6980) along the gradient, which is not longer than max_norm; `numbers` are
        the step's length and what keeps its divisor from 0."""
        gradient, (first, second) = network.gradient, moments
        gradient.mul_((self.config.max_norm / (gradient.norm() + 1e-6)).clamp_(max=1.0))
        first.lerp_(gradient, 1 - _ADAM_FIRST)
        second.mul_(_ADAM_SECOND).addcmul_(gradient, gradient, value=1 - _ADAM_SECOND)
        length, least = numbers
        network.vector.add_((first * length).div_(second.sqrt().add_(least)))

    def save(self, folder: Path, told: dict[str, Any], action: Space) -> None:
        """Write the checkpoint, then the policy that comes of it."""
        courses, waiting = self.courses.snapshot()
        more = {
            "moments": self.moments,
            "sums": self.sums,
            "history": self.history,
            "targets": self.targets,
            "courses": run_folder.as_tensor(courses),
        }
        counts = {"iteration": self.iteration, "updates": self.updates, "snapshot_bytes": len(courses), **waiting}
        told = {**told, "steps_done": self.steps, "multiplier": self.multiplier, "masked": self.masked}
        run_folder.save_checkpoint(folder, {**told, **counts}, {**self.network.parameters, **more})
        actor = {name: value for name, value in self.network.parameters.items() if not name.startswith("critic")}
        run_folder.save_policy(folder, told, actor, self.courses.episodes.interface.view.space, action)

    def restore(self, found: Opened) -> None:
        """Go on where a checkpoint was saved.

        Raises:
            CheckpointError: it is damaged, or another learner's; nothing is changed then.
            SnapshotError (a ValueError): its courses are of another world, task or setting.
        """
        names = ("iteration", "updates", "batches", "taken", "snapshot_bytes")
        counts = {name: run_folder.whole_number(found, name) for name in names}
        kept = ("moments", "sums", "history", "targets")
        wanted = {**self.network.parameters, **{name: getattr(self, name) for name in kept}}
        (file,) = run_folder.CHECKPOINT.tensors
        wanted["courses"] = torch.empty(counts["snapshot_bytes"], dtype=torch.uint8, device="meta")
        tensors = found.tensors(file, wanted)
        self.courses.restore(run_folder.as_bytes(tensors.pop("courses")), counts)
        self.network.load(tensors)
        for name in kept:
            getattr(self, name).copy_(tensors[name])
        self.multiplier = float(found.config["multiplier"])
        self.iteration, self.updates = counts["iteration"], counts["updates"]


def train(
    out: str | Path,
    steps: int,
    env_id: str = "ECGDrug-v0",
    world: str | Path | WorldModel | None = None,
    config: PPOConfig | None = None,
    seed: int = 0,
    resume: bool = True,
    progress: bool = True,
    save_every_s: float = 60.0,
    tensorboard: bool = False,
    make: Callable[..., VectorEnv] | None = None,
    **env_kwargs: Any,
) -> Path:
    """Train until at least `steps` patient-steps have been seen in all; returns the folder of the policy.

    A run that was stopped goes on from its last checkpoint and ends with the very policy of one that was not.

    Args:
        out: folder (see `agents.run_folder`).
        world: name, folder or object, as the environment takes it; None: the id's own.
        config: None: the preset of the id.
        seed: of the network, the exploration, and the patients.
        resume: go on from `out`; False: start anew.
        save_every_s: seconds between two checkpoints.
        make: builds the vector environment, called as make(env_id, num_envs, world, **env_kwargs); None:
            `run_folder.make_patients`.

    Raises:
        ValueError: an argument that is none, an observation that is no row of numbers, or `out` holds another run.
    """
    config = config or preset_for(env_id)
    told = run_folder.described(LIBRARY, ALGO, env_id, world, asdict(config), seed, steps, env_kwargs)
    folder = Path(out)
    resume = resume and run_folder.resumable(folder, told)
    envs = (make or run_folder.make_patients)(env_id, config.num_envs, world, **env_kwargs)
    try:
        episodes, action = clinical(envs).episodes, envs.single_action_space
        space = episodes.interface.view.space
        if not isinstance(space, Box) or len(space.shape) != 1:
            raise ValueError(f"PPO reads a row of numbers, and this observation is {space}; take 'chart' or 'latent'")
        told["observation_names"] = list(episodes.interface.layout.names)
        learner = Learner(Courses(episodes, seed), action, episodes.simulator.task.refuses, config, seed)
        if resume:
            with run_folder.opened_checkpoint(folder) as found:
                learner.restore(found)
            if run_folder.lags(folder, learner.steps):
                learner.save(folder, told, action)
        else:
            run_folder.forget(folder)
        saved = time.monotonic()
        with Journal(folder, f"PPO in {told['world']}", steps, learner.steps, progress, tensorboard) as journal:
            while learner.steps < steps:
                said = learner.iterate(config.learning_rate * (1.0 - learner.steps / steps))
                journal.line(learner.steps, said)
                if learner.steps >= steps or time.monotonic() - saved > save_every_s:
                    learner.save(folder, told, action)
                    saved = time.monotonic()
    finally:
        envs.close()
    return folder
