"""OmniSafe's PPO with a Lagrange multiplier: as much return as a limit on the safety cost allows."""

from __future__ import annotations

import argparse

import clinenv.doors.omnisafe  # noqa: F401 (loads OmniSafe and registers the ids)

import omnisafe  # isort: skip (after the door, which loads it without Safety-Gymnasium)


def main(argv: list[str] | None = None) -> tuple[float, float, float]:
    """Trains; returns return, cost and length of the last courses."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=64)
    parser.add_argument("--cost-limit", type=float, default=1.0, help="of an episode, on average")
    parser.add_argument("--log-dir", default="runs/omnisafe")
    args = parser.parse_args(argv)

    course = 24 * args.num_envs
    settings = {
        "train_cfgs": {
            "vector_env_nums": args.num_envs,
            "total_steps": max(course, args.steps // course * course),
            "torch_threads": 1,
        },
        "algo_cfgs": {"steps_per_epoch": course, "batch_size": course // 4, "update_iters": 4},
        "lagrange_cfgs": {"cost_limit": args.cost_limit},
        "logger_cfgs": {"use_wandb": False, "use_tensorboard": False, "log_dir": args.log_dir},
        "env_cfgs": {"world": args.world},
    }
    agent = omnisafe.Agent("PPOLag", "ECGDrugContinuous-v0", custom_cfgs=settings)
    earned, cost, length = agent.learn()
    print(f"return {earned:.2f}, cost {cost:.2f}, {length:.0f} steps")
    return earned, cost, length


if __name__ == "__main__":
    main()
