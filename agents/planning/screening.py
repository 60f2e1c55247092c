"""Which edits of a policy are worth trying at all: `python -m agents.planning.screening --id ID --out FILE`.

Of dozens of edits a planner can try a few well, or all badly. Here each is tried beside the policy in the learned
world, on patients whom nobody else meets, at admission and later in their courses; those that gain on average by more
than their standard errors are what a `RolloutPlanner` then chooses from for the patient at hand. It is also what finds
harm that is rare: a hundred patients show it where one patient's futures do not.

The file is JSON: of each edit how often it was tried, its mean gain and the standard error over patients. It grows with
every round of patients, and the same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import torch
from torch import Tensor
from tqdm import tqdm

import clinenv  # noqa: F401  (registers the ids)
from agents.planning.base_policies import POLICIES, base_policy
from agents.planning.budget import Meter
from agents.planning.edits import Edits
from agents.planning.imagination import Imagination
from agents.planning.objective import ReturnAndCost
from agents.planning.planners import at_their_chances, edits_for
from agents.planning.policy_here import PolicyHere
from agents.planning.presets import rollout_of
from agents.planning.rollout_policy import RolloutConfig
from agents.planning.rollout_trial import Trial
from agents.protocol import Agent, menu_of, to_orders
from clinenv.patient_env import PatientEnv
from clinenv.registration import ENVIRONMENTS
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.command_line import MOST, MOST_THREADS, number, whole
from world_models.config_json import parse_json
from world_models.files import write_text
from world_models.protocol import Chart

__all__ = ["main", "screen", "worth_trying"]

SEED = 9_400_000_000  # of the patients; nobody who is judged has these keys
MOMENTS = (0, 6, 12)  # visits at which edits are tried
ROUND = 8  # patients


def screen(
    simulator: Simulator,
    policy: Agent,
    edits: Edits,
    config: RolloutConfig,
    patients: int,
    file: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """One row an edit, the surest gain first: name, tried, gain, error.

    Args:
        config: horizon, particles and how long an edit holds; every edit that changes anything is tried.
        file: JSON that is written after every round, and gone on from if its `settings` are the same.

    Raises:
        ValueError: the file holds a screening with other settings.
    """
    told = {"task": simulator.task.name, "world": simulator.world.name, "policy": policy.name, **(settings or {})}
    told |= {"horizon": config.horizon, "particles": config.particles, "holds": config.replan_every}
    done, sums = _resumed(file, told, edits.names)
    rounds = -(-patients // ROUND)
    for turn in tqdm(range(done, rounds), initial=done, total=rounds, desc="rounds of patients"):
        first = keys.from_seed(SEED + turn * ROUND, ROUND, simulator.device)
        gains = _gains(simulator, policy, edits, config, keys.fold(first, "screening"))
        there = ~gains.isnan()
        known = gains.nan_to_num(0.0).to(torch.float64)
        sums = sums + torch.stack([there.sum(0), known.sum(0), known.square().sum(0)]).to(sums)
        if file is not None:
            write_text(file, json.dumps({**told, "rounds": turn + 1, "edits": _rows(edits.names, sums)}, indent=1))
    return _rows(edits.names, sums)


def worth_trying(edits: Edits, rows: list[dict[str, Any]], errors: float = 1.0) -> Edits:
    """Of the edits those whose mean gain in a screening exceeded so many standard errors.

    Raises:
        ValueError: there are none.
    """
    good = {row["name"] for row in rows if row["tried"] > 1 and row["gain"] > errors * row["error"]}
    kept = [i for i, name in enumerate(edits.names) if name in good]
    if not kept:
        raise ValueError(f"no edit gained by more than {errors:g} standard errors; lower that, or screen more patients")
    return edits.taken(kept)


@torch.no_grad()
def _gains(simulator: Simulator, policy: Agent, edits: Edits, config: RolloutConfig, key: Tensor) -> Tensor:
    """Gains [N, E] at the moments of the courses of patients int64 [B] who are still there; NaN: not tried."""
    menu = menu_of(simulator)
    state, chart = simulator.reset(key)
    policy.reset()
    found: list[Tensor] = []
    past: list[Chart] = []
    for visit in range(max(MOMENTS) + 1):
        orders = to_orders(policy.act(chart), menu)
        if visit in MOMENTS:
            rows = (~simulator.over(state, chart)).nonzero().squeeze(1)
            if not len(rows):
                break
            here = PolicyHere(policy, [tree.take(c, rows) for c in past], menu)
            futures = keys.fold(keys.fold(key[rows], visit), "particles")
            rest = (ReturnAndCost(), config.particles, config.discount, here)
            imagined = Imagination(simulator, tree.take(state, rows), tree.take(chart, rows), futures, *rest)
            trial = Trial(imagined, here, edits, config, Meter(), 16_384)
            found.append(trial.singles(key[rows]).gain)
            policy.reset()  # the futures were its own: it is shown the past again
            for seen in past:
                policy.act(seen)
            policy.act(chart)
        past.append(chart)
        out = simulator.step(state, chart, orders)
        state, chart = out.state, out.chart
    return torch.cat(found)


def _resumed(file: Path | None, told: Mapping[str, Any], names: tuple[str, ...]) -> tuple[int, Tensor]:
    """Rounds done, and their sums [3, E]: how many, of gains, of squares."""
    none = torch.zeros(3, len(names), dtype=torch.float64)
    if file is None or not file.exists():
        return 0, none
    old = parse_json(file.read_text(), str(file))
    if any(old.get(name) != value for name, value in told.items()) or len(old.get("edits", ())) != len(names):
        raise ValueError(f"{file} holds a screening with other settings; choose another file")
    by_name = {row["name"]: row for row in old["edits"]}
    tried, gain, error = (torch.tensor([float(by_name[n][k]) for n in names]) for k in ("tried", "gain", "error"))
    count, mean = tried.to(torch.float64), gain.to(torch.float64)
    squares = error.to(torch.float64).square() * count * (count - 1).clamp_min(0) + mean.square() * count
    return int(old["rounds"]), torch.stack([count, mean * count, squares])


def _rows(names: tuple[str, ...], sums: Tensor) -> list[dict[str, Any]]:
    count, total, squares = sums
    mean = total / count.clamp_min(1)
    variance = (squares - count * mean.square()).clamp_min(0.0) / (count - 1).clamp_min(1)
    error = (variance / count.clamp_min(1)).sqrt()
    rows = [
        {"name": name, "tried": int(n), "gain": float(g), "error": float(e)}
        for name, n, g, e in zip(names, count, mean, error, strict=True)
    ]
    return sorted(rows, key=lambda row: row["error"] - row["gain"])


def main(arguments: list[str] | None = None) -> int:
    """The command line; the process' exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m agents.planning.screening", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--id", choices=[str(row["id"]) for row in ENVIRONMENTS], default="EHRWardDose-v0")
    parser.add_argument("--world", help="the learned world: a name or a folder (default: the id's own)")
    parser.add_argument("--policy", choices=POLICIES, default="rule")
    parser.add_argument("--preset", default="small", help="of the rollouts: how far, and how long an edit holds")
    parser.add_argument("--patients", type=whole(2, MOST), default=64)
    parser.add_argument("--errors", type=number(0.0, 10.0), default=1.0, help="standard errors that a gain must exceed")
    parser.add_argument("--threads", type=whole(1, MOST_THREADS), default=1)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(chosen.threads)
    try:
        settings = {} if chosen.world is None else {"world": chosen.world}
        env = gymnasium.make(chosen.id, **settings).unwrapped
        assert isinstance(env, PatientEnv)
        simulator = at_their_chances(env.simulator)
        policy, config = base_policy(simulator, chosen.policy), rollout_of(simulator.task, chosen.preset)
        edits = edits_for(simulator)
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        rows = screen(simulator, policy, edits, config, chosen.patients, chosen.out, {"id": chosen.id})
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for row in rows:
        if row["tried"]:
            sure = "*" if row["gain"] > chosen.errors * row["error"] else " "
            print(
                f"{sure} {row['name']:40s} tried {row['tried']:5d}  gain {row['gain']:+.4f}  error {row['error']:.4f}"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
