"""One patient, random orders: what comes out of the environment, in the patient's units."""

from __future__ import annotations

import argparse

import gymnasium

import clinenv  # noqa: F401  (registers the ids)


def main(argv: list[str] | None = None) -> float:
    """Prints a line a step; returns the sum of rewards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ecg-wm-small", help="or oracle")
    args = parser.parse_args(argv)

    env = gymnasium.make("ECGDrug-v0", world=args.world)
    env.action_space.seed(0)
    observation, info = env.reset(seed=0, options={"age_years": 70, "sex_female": 1})
    total, ended = 0.0, False
    while not ended:
        action = env.action_space.sample()
        observation, reward, terminated, truncated, info = env.step(action)
        seen = env.unwrapped.describe(observation)
        label = env.unwrapped.task.actions.entries[action][0]
        terms = "  ".join(f"{n[7:]} {value:+.2f}" for n, value in info.items() if n.startswith("reward_"))
        print(f"{info['hours']:4.0f} h  {label:24s}  QTcF {seen['qtcf_ms']:3.0f} ms  cost {info['cost']:.0f}  {terms}")
        total += reward
        ended = terminated or truncated
    print(f"return {total:.2f}; torsades: {bool(seen['torsades'] > 0.5)}")
    env.close()
    return total


if __name__ == "__main__":
    main()
