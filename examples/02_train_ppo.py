"""Stable-Baselines3 as its own manual shows it, on thousands of patients at once; then one course by the policy."""

from __future__ import annotations

import argparse

import gymnasium
from gymnasium.vector import AutoresetMode
from stable_baselines3 import PPO

import clinenv  # noqa: F401  (registers the ids)
from agents.sb3.vec_env import SB3VecEnv


def main(argv: list[str] | None = None) -> float:
    """Trains, then prints one course; returns its sum of rewards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000)
    parser.add_argument("--num-envs", type=int, default=256)
    args = parser.parse_args(argv)

    patients = gymnasium.make_vec(
        "ECGDrug-v0",
        num_envs=args.num_envs,
        vectorization_mode="vector_entry_point",
        world=args.world,
        autoreset_mode=AutoresetMode.SAME_STEP,  # as SB3 wants it
    )
    # What one step of QTcF over 500 ms is worth in reward; the course ends at 48 h and nothing counts after it.
    vec_env = SB3VecEnv(patients, cost_weight=0.2, bootstrap_truncated=False)
    model = PPO("MlpPolicy", vec_env, n_steps=24, batch_size=1024, learning_rate=1e-3, seed=0, verbose=1, device="cpu")
    model.learn(args.steps)

    env = gymnasium.make("ECGDrug-v0", world=args.world)
    observation, _ = env.reset(seed=123)
    total, ended = 0.0, False
    while not ended:
        action, _ = model.predict(observation, deterministic=True)
        observation, reward, terminated, truncated, info = env.step(int(action))
        print(f"{info['hours']:4.0f} h  {env.unwrapped.task.actions.entries[int(action)][0]}")
        total += reward
        ended = terminated or truncated
    print(f"return {total:.2f}")
    vec_env.close()
    return total


if __name__ == "__main__":
    main()
