"""PPO learns ten years of clinic visits in the learned world; the oracle judges it beside the guideline rule."""

from __future__ import annotations

import argparse

import torch
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO

from agents.baselines.progression_rule import ProgressionRule
from agents.policy_agent import PolicyAgent
from agents.rollout import judge
from agents.sb3.vec_env import SB3VecEnv
from clinenv.envs.ecg_progression.env import ECGProgressionVectorEnv
from clinenv.envs.ecg_progression.task import ECGProgressionTask
from clinenv.simulator import Simulator
from world_models import catalog, keys
from world_models.cardiac_jepa.reading import ReadOracle


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains, judges, and returns the mean return of each decider."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="cardiac-jepa-small", help="to train in: a shipped name or a folder")
    parser.add_argument("--steps", type=int, default=16_384, help="patient-visits of training; 300,000 are worth more")
    parser.add_argument("--num-envs", type=int, default=128)
    parser.add_argument("--patients", type=int, default=60, help="judged, in pairs")
    parser.add_argument("--max-steps", type=int, default=120, help="visits of a judged patient: one a month at most")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    world = catalog.load(args.world)
    same_step = AutoresetMode.SAME_STEP  # as SB3 wants it
    patients = ECGProgressionVectorEnv(args.num_envs, world=world, uncertainty=False, autoreset_mode=same_step)
    # An episode ends by death or at ten years, and the years are in the chart: the end is the end.
    vec_env = SB3VecEnv(patients, cost_weight=0.03, bootstrap_truncated=False)
    # gamma 1: a visit is a month or a year, so discounted by the visit, death is put off by being seen more often.
    model = PPO("MlpPolicy", vec_env, n_steps=32, batch_size=512, learning_rate=1e-3, gamma=1.0, seed=0, device="cpu")
    model.learn(args.steps)
    vec_env.close()

    # The oracle's ECGs, read by the encoder and probe that the policy was trained on.
    truth = Simulator(ReadOracle(world.reader), ECGProgressionTask())
    judged = keys.fold(keys.from_seed(0, args.patients), "judge")  # patients that training cannot meet
    threshold = world.reader.threshold.clamp(0.01, 0.99)
    results = {}
    print("Simulated patients, judged in the oracle; QALYs against ten years in health:")
    for agent in (ProgressionRule(threshold), PolicyAgent(model.policy, truth, "PPO")):
        found = judge(agent, truth, judged, args.max_steps)
        results[agent.name] = float(found.returns.mean())
        died = 100 * found.outcomes.totals["died"].mean()
        rest = f"harm {found.costs.mean():.2f}  visits {found.lengths.float().mean():.1f}"
        print(f"{agent.name:16s} return {results[agent.name]:6.3f}  died {died:4.1f} %  {rest}")
    return results


if __name__ == "__main__":
    main()
