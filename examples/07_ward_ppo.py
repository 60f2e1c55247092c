"""PPO begins as the clinician's rule, trains in the learned ward, and is judged in the oracle beside the rule."""

from __future__ import annotations

import argparse

import torch

from agents.baselines.ward_rule import Clinician
from agents.rollout import judge
from agents.sb3.ward import WardPolicy, WardPPO, train_ward
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.simulator import Simulator
from world_models import catalog, keys


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Trains, judges, and returns the mean return of each decider."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ehr-ward-small", help="to train in; or oracle")
    parser.add_argument("--steps", type=int, default=200_000, help="patient-steps of training")
    parser.add_argument("--num-envs", type=int, default=256)
    parser.add_argument("--patients", type=int, default=200, help="judged, in pairs")
    parser.add_argument("--max-steps", type=int, default=84, help="of a judged stay, four hours each")
    parser.add_argument("--out", default="runs/ward_ppo", help="folder for the policy")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)

    def said(steps: int, recent: float) -> None:
        print(f"{steps:8d} patient-steps, recent return {recent:6.2f}")

    folder = train_ward(args.out, args.steps, args.world, WardPPO(num_envs=args.num_envs), progress=said)
    truth = Simulator(catalog.load("ward-oracle"), EHRWardTask())
    patients = keys.fold(keys.from_seed(0, args.patients), "judge")  # patients that training cannot meet
    results = {}
    for agent in (Clinician(), WardPolicy(folder, truth)):
        judged = judge(agent, truth, patients, args.max_steps)
        results[agent.name] = float(judged.returns.mean())
        died, harm = 100 * judged.outcomes.totals["died"].mean(), judged.costs.mean()
        print(f"{agent.name:20s} return {results[agent.name]:6.2f}  died {died:4.1f} %  harm {harm:.2f}")
    return results


if __name__ == "__main__":
    main()
