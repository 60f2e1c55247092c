"""RLlib's PPO on batches of patients: the native vector entry point, by the ids once they are registered."""

from __future__ import annotations

import argparse

from ray.rllib.algorithms.ppo import PPOConfig

from clinenv.doors import rllib


def main(argv: list[str] | None = None) -> list[float]:
    """Trains; returns the mean return of the courses in each iteration."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=100_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=64, help="of each runner")
    parser.add_argument("--runners", type=int, default=0, help="processes that collect; 0: this one does")
    args = parser.parse_args(argv)

    rllib.register()
    batch = 24 * args.num_envs
    config = (
        PPOConfig()
        .environment("ECGDrug-v0", env_config={"world": args.world, "uncertainty": False})
        .env_runners(
            num_env_runners=args.runners,
            num_envs_per_env_runner=args.num_envs,
            gym_env_vectorize_mode="vector_entry_point",  # one batch a runner
        )
        .callbacks(on_environment_created=rllib.refuse_wrong_autoreset)
        .training(train_batch_size_per_learner=batch, minibatch_size=batch // 4, num_epochs=4, lr=1e-3)
        .learners(num_learners=0)
        .debugging(seed=0)
    )
    algorithm = config.build_algo()
    means = []
    try:
        for _ in range(max(1, args.steps // batch)):
            found = algorithm.train()["env_runners"]
            means.append(float(found["episode_return_mean"]))
    finally:
        algorithm.stop()
    print(f"return {means[0]:.2f} at first, {means[-1]:.2f} at last")
    return means


if __name__ == "__main__":
    main()
