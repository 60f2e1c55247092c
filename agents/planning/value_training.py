"""Make a value network: `python -m agents.planning.value_training --id ECGDrug-v0 --out DIR` (resumable; minutes).

Patients of the learned world are treated by the base policy of the task; half of them, up to a random step, under a
random edit of it, so that charts off the policy's path are met too, which plans lead to. From every chart on, what is
still earned under the policy until the episode's end is what the network learns to foretell. A share of the patients is
kept apart, and the share of their variance that it explains is reported.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import NamedTuple

import gymnasium
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

import clinenv  # noqa: F401  (registers the ids)
from agents.planning.base_policies import POLICIES, base_policy
from agents.planning.edits import edits_of
from agents.planning.imagination import imagined_step
from agents.planning.value import LearnedValue, ValueConfig, ValueNetwork
from agents.protocol import Agent, menu_of, to_orders
from clinenv.arguments import horizon_in_steps
from clinenv.interface import Interface
from clinenv.patient_env import PatientEnv
from clinenv.registration import ENVIRONMENTS
from clinenv.simulator import Simulator
from world_models import keys
from world_models.command_line import MOST, trainer, whole
from world_models.nn.mlp import sample_weights
from world_models.training import Schedule, fit

__all__ = ["Courses", "main", "returns_to_go", "train_value"]

SEED = 9_300_000_000  # of the patients; nobody who is judged has these keys
_EXPLORING, _TEST = 0.5, 0.1  # shares of the patients
EDIT_STEPS = 6  # that one edit holds for


class Courses(NamedTuple):
    """Of N patients at each of T steps what a network reads, what is still earned, and whether it counts."""

    observation: Tensor  # float32 [N, T, n]
    to_go: Tensor  # float32 [N, T] undiscounted, until the end or the horizon
    here: Tensor  # bool [N, T]: the episode was going on, and all that followed was the policy's own


@torch.no_grad()
def returns_to_go(simulator: Simulator, policy: Agent, patients: int, steps: int, seed: int = SEED) -> Courses:
    """Courses of new patients under the policy; see the module's text."""
    key = keys.fold(keys.from_seed(seed, patients, simulator.device), "value")
    state, chart = simulator.reset(key)
    reader = LearnedValue(blank_network(simulator, policy, steps), simulator)
    edits, menu = edits_of(simulator), menu_of(simulator)
    explores = keys.uniform(key, 0, "value/explores") < _EXPLORING
    until = torch.where(explores, (keys.uniform(key, 0, "value/until") * steps).to(torch.int64), 0)
    policy.reset()
    there = (~simulator.over(state, chart)).to(torch.float32)
    seen, rewards, chances = [], [], []
    for step in tqdm(range(steps), desc=f"{simulator.task.name}: courses", leave=False):
        seen.append(reader.observe(chart))
        chances.append(there)
        orders = to_orders(policy.act(chart), menu)
        number = (keys.uniform(key, step // EDIT_STEPS, "value/edit") * len(edits)).to(torch.int64)
        chosen = F.one_hot(number.clamp_max(len(edits) - 1), len(edits)).bool() & (step < until).unsqueeze(1)
        out = imagined_step(simulator, state, chart, edits.applied(orders, chosen, step % EDIT_STEPS))
        rewards.append(torch.where(there > 0, there * out.reward, 0.0))
        state, chart, there = out.state, out.chart, there * out.goes_on
    chance, earned = torch.stack(chances, 1), torch.stack(rewards, 1)
    # Given that the episode still goes on: events may be taken at their chances.
    to_go = earned.flip(1).cumsum(1).flip(1) / chance.clamp_min(1e-6)
    after = torch.arange(steps, device=key.device) >= until.unsqueeze(1)
    return Courses(torch.stack(seen, 1), to_go, (chance > 0.01) & after)


def blank_network(simulator: Simulator, policy: Agent, steps: int) -> ValueNetwork:
    """An untrained network for the simulator's task."""
    names = tuple(Interface(simulator.world, simulator.task).layout.names)
    config = ValueConfig(simulator.task.name, simulator.world.name, policy.name, names, steps)
    network = ValueNetwork(config).to(simulator.device)
    sample_weights(network, SEED)
    return network


def train_value(
    out: Path, simulator: Simulator, policy: Agent, patients: int, steps: int, batch: int, horizon: int
) -> tuple[ValueNetwork, float]:
    """Fit a network on courses of `horizon` steps and write the sealed folder `out` (resumable, `out/training`).

    Returns:
        The network, and the share of the variance that it explains on patients it has not met.

    Raises:
        FloatingPointError, CheckpointError: see `training.fit`.
    """
    courses = returns_to_go(simulator, policy, patients, horizon)
    test = torch.arange(patients, device=simulator.device) < max(int(_TEST * patients), 1)
    network = blank_network(simulator, policy, horizon)
    known, earned = (x[~test][courses.here[~test]] for x in (courses.observation, courses.to_go))
    network.centre.copy_(earned.mean())
    network.spread.copy_(earned.std().clamp_min(1e-6))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        key = keys.from_seed(SEED + step, 1, known.device)
        row = (keys.uniform(key, step, "value/row", (batch,))[0] * len(known)).to(torch.int64).clamp_max(len(known) - 1)
        # outliers are deaths: the mean is wanted, so the squared error, in units of the returns' own spread
        error = F.mse_loss(network(known[row]) / network.spread, earned[row] / network.spread)
        return error, {"mse": error.item()}

    fit(network, loss, Schedule(steps, learning_rate=1e-3), out / "training", "value")
    unseen, truth = (x[test][courses.here[test]] for x in (courses.observation, courses.to_go))
    with torch.no_grad():
        explained = 1.0 - float((network(unseen) - truth).square().mean() / truth.var().clamp_min(1e-12))
    with open(out / "training" / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"stage": "test", "explained_variance": explained, "charts": len(truth)}) + "\n")
    network.save(out, _card(network.config, patients, steps, explained))
    return network.requires_grad_(False), explained


def _card(config: ValueConfig, patients: int, steps: int, explained: float) -> str:
    return f"""# Value of {config.policy} in {config.task}

What the policy still earns from a chart on, until the end of an episode of {config.horizon_steps} steps, in the learned
world {config.world}. **Not for clinical use**: patients are simulated.

Made by `python -m agents.planning.value_training`: {patients} patients of that world, {steps} training steps. On the
patients kept apart it explains {100 * explained:.0f} % of the variance.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = trainer(
        "agents.planning.value_training", (__doc__ or "").split("\n")[0], (3000, MOST), (512, MOST), "charts"
    )
    ids = [str(row["id"]) for row in ENVIRONMENTS]
    parser.add_argument("--id", choices=ids, default="ECGDrug-v0")
    parser.add_argument("--world", help="the learned world: a name or a folder (default: the id's own)")
    parser.add_argument("--policy", choices=POLICIES, default="rule", help="whose value it is")
    parser.add_argument("--patients", type=whole(10, MOST), default=2048, help="whose courses are imagined")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        settings = {} if chosen.world is None else {"world": chosen.world}
        env = gymnasium.make(chosen.id, device=chosen.device, **settings).unwrapped
        assert isinstance(env, PatientEnv)
        simulator = env.simulator
        horizon = horizon_in_steps(simulator.task.horizon_hours, simulator.world.hours_per_step)
        policy = base_policy(simulator, chosen.policy)
        rest = (chosen.patients, chosen.steps, chosen.batch, horizon)
        _, explained = train_value(chosen.out, simulator, policy, *rest)
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{chosen.out}: explains {explained:.3f} of the variance on patients kept apart")
    return 0


if __name__ == "__main__":
    sys.exit(main())
