"""A stay on the ward by the clinician's rule, at the menu's standard amounts: what came of it, and the chart as PNG."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import gymnasium
import matplotlib.image

import clinenv  # noqa: F401  (registers the ids)
from agents.baselines.ward_rule import StandardClinician


def main(argv: list[str] | None = None) -> float:
    """Writes the chart; returns the sum of rewards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ehr-ward-small", help="or oracle")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--hours", type=float, help="of the stay at most (default: 14 days)")
    parser.add_argument("--out", default="ward_chart.png")
    args = parser.parse_args(argv)

    env = gymnasium.make("EHRWard-v0", world=args.world, hours=args.hours, render_mode="rgb_array")
    rule = StandardClinician()
    env.reset(seed=args.seed)
    ward, total, harm, ended = env.unwrapped, 0.0, 0.0, False
    while not ended:
        action = rule.switches(ward.chart)[0].numpy()
        _, reward, terminated, truncated, info = env.step(action)
        total, harm, ended = total + reward, harm + info["cost"], terminated or truncated
        for order, why in ward.refusals():
            print(f"{info['hours']:4.0f} h  {order} was not carried out: {why}")
    end = "went home" if ward.chart["discharged"] > 0.5 else "died" if ward.chart["alive"] < 0.5 else "is still here"
    print(f"the patient {end} after {info['hours']:.0f} h: return {total:.2f}, harm {harm:.0f}")
    partial = Path(args.out).with_name("partial-" + Path(args.out).name)
    matplotlib.image.imsave(partial, env.render())
    os.replace(partial, args.out)
    print(f"chart in {args.out}")
    env.close()
    return total


if __name__ == "__main__":
    main()
