"""sb3-contrib's MaskablePPO on the ward: 69 switches as MultiDiscrete, and only what the chart allows can be drawn."""

from __future__ import annotations

import argparse

import gymnasium
from gymnasium.vector import AutoresetMode
from sb3_contrib import MaskablePPO

import clinenv  # noqa: F401  (registers the ids)
from agents.sb3.vec_env import SB3VecEnv


def main(argv: list[str] | None = None) -> float:
    """Trains, then orders for one patient until a day has passed; returns what was refused, which is little."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ehr-ward-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=50_000, help="patient-steps in all")
    parser.add_argument("--num-envs", type=int, default=64)
    args = parser.parse_args(argv)

    patients = gymnasium.make_vec(
        "EHRWard-v0",
        num_envs=args.num_envs,
        vectorization_mode="vector_entry_point",
        world=args.world,
        action="multidiscrete",
        uncertainty=False,
        autoreset_mode=AutoresetMode.SAME_STEP,  # as SB3 wants it
    )
    vec_env = SB3VecEnv(patients, bootstrap_truncated=False)
    model = MaskablePPO("MlpPolicy", vec_env, n_steps=28, batch_size=28 * args.num_envs // 4, seed=0, device="cpu")
    model.learn(args.steps)

    env = gymnasium.make("EHRWard-v0", world=args.world, action="multidiscrete")
    observation, _ = env.reset(seed=123)
    ordered, refused, ended = 0, 0.0, False
    for _ in range(6):
        action, _ = model.predict(observation, action_masks=env.unwrapped.action_masks())
        observation, _, terminated, truncated, info = env.step(action)
        ordered, refused = ordered + int(action.sum()), refused + info["refused_orders"]
        ended = terminated or truncated
        if ended:
            break
    print(f"{ordered} orders in {info['hours']:.0f} h, {refused:.0f} refused (only those that contradict each other)")
    vec_env.close()
    return refused / max(1, ordered)


if __name__ == "__main__":
    main()
