"""Minari: whole courses with their infos (cost, reward terms) recorded, written, and read again."""

from __future__ import annotations

import argparse

import gymnasium
import minari
import numpy as np

import clinenv  # noqa: F401  (registers the ids)


def main(argv: list[str] | None = None) -> minari.MinariDataset:
    """Records random orders; returns the data set as it is on disk (under MINARI_DATASETS_PATH)."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="oracle", help="or ecg-wm-small")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--id", default="clinenv/ecgdrug-random-v0", help="of the data set; one that is there is kept")
    args = parser.parse_args(argv)

    env = minari.DataCollector(gymnasium.make("ECGDrug-v0", world=args.world), record_infos=True)
    env.action_space.seed(0)
    for episode in range(args.episodes):
        env.reset(seed=episode)
        over = False
        while not over:
            _, _, terminated, truncated, _ = env.step(env.action_space.sample())
            over = terminated or truncated
    data = env.create_dataset(args.id, algorithm_name="random", eval_env=None)
    env.close()
    costs = [float(np.sum(episode.infos["cost"])) for episode in data.iterate_episodes()]
    print(f"{data.total_episodes} courses, {data.total_steps} steps, mean cost {np.mean(costs):.2f}: {args.id}")
    return data


if __name__ == "__main__":
    main()
