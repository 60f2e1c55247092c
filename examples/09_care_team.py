"""Intensivist, pharmacist and nurse attend to one patient: PettingZoo's loop, a veto, and what each of them cost."""

from __future__ import annotations

import argparse

import torch

import clinenv
from agents.team.split_rule import RuleMember
from clinenv.envs.care_team.charts import own_chart

HELD = "hold furosemide_mg"  # what the pharmacist of the second stay does at every step


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Runs two stays of one patient, prints what was disputed, and returns the reward of each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--world", default="ehr-ward-small", help="or oracle")
    parser.add_argument("--steps", type=int, default=12, help="of four hours, at most")
    parser.add_argument("--seed", type=int, default=8, help="of the patient")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    env = clinenv.make_team("CareTeam-v0", world=args.world, max_cycles=args.steps)
    heart_failure = {"age_years": 78, "chronic_heart_failure": 1}
    rewards = {}
    for stay, vetoes in (("of one mind", False), ("the pharmacist holds furosemide", True)):
        print(f"\n{stay}")
        observations, infos = env.reset(seed=args.seed, options=heart_failure)
        members = {role: RuleMember(role) for role in env.agents}
        total, spent = 0.0, dict.fromkeys(env.agents, 0.0)
        while env.agents:
            # each applies the clinician's rule to what his own chart shows; a learned policy would read `observations`
            actions = {}
            for role, member in members.items():
                word = member.act(own_chart(role, env.team.ward.chart))
                actions[role] = env.team.episodes.codecs[role].encode(word)[0].numpy()
            if vetoes:
                actions["pharmacist"][env.labels("pharmacist").index(HELD)] = 1.0
            observations, reward, _, _, infos = env.step(actions)
            total += reward["nurse"]  # everybody's
            for role in spent:
                spent[role] += infos[role]["price_usd"]
            said = {role: int(info["orders"]) for role, info in infos.items()}
            print(f"{infos['nurse']['hours']:4.0f} h  orders {said}")
            for role, order, why in env.disputes():
                print(f"        {role}'s {order}: {why}")
        rewards[stay] = total
        bill = ", ".join(f"{role} {usd:,.0f}" for role, usd in spent.items())
        print(f"reward {total:.2f}; at their word, US dollars: {bill}")
    env.close()
    return rewards


if __name__ == "__main__":
    main()
