"""rsl_rl's PPO on amounts: Gaussian doses of all four drugs, thousands of patients at once."""

from __future__ import annotations

import argparse

import torch
from rsl_rl.runners import OnPolicyRunner

from clinenv.doors.rsl_rl import RslVecEnv


def main(argv: list[str] | None = None) -> float:
    """Trains, then gives one course by the mean of the policy; returns its mean reward over the patients."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--log-dir", help="folder for rsl_rl's own logs and models; none without it")
    args = parser.parse_args(argv)

    torch.manual_seed(0)
    env = RslVecEnv("ECGDrugContinuous-v0", args.num_envs, seed=0, world=args.world)
    network = {"class_name": "MLPModel", "hidden_dims": [64, 64], "activation": "tanh"}
    config = {
        "num_steps_per_env": 24,  # one whole course of every patient
        "save_interval": 100,
        "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
        "actor": {**network, "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 0.5}},
        "critic": network,
        "algorithm": {"class_name": "PPO", "entropy_coef": 0.0, "num_learning_epochs": 4, "num_mini_batches": 4},
    }
    runner = OnPolicyRunner(env, config, log_dir=args.log_dir)
    runner.learn(max(1, args.steps // (24 * args.num_envs)))

    policy = runner.get_inference_policy(device=env.device)
    course = RslVecEnv("ECGDrugContinuous-v0", args.num_envs, seed=10_000, world=args.world)
    earned, here = torch.zeros(args.num_envs), torch.ones(args.num_envs, dtype=torch.bool)
    with torch.no_grad():
        for _ in range(int(course.max_episode_length)):
            _, reward, done, _ = course.step(policy(course.get_observations()))
            earned, here = earned + reward * here, here & ~done
    print(f"return {earned.mean():.2f}")
    return float(earned.mean())


if __name__ == "__main__":
    main()
