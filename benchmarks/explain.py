"""How often the true transitions are found: `python -m benchmarks.explain --world cardiac-jepa-small --pairs 400`.

Every solver gets the same changed pairs of `ECGExplain-v0`, none of which is in the library of known pairs that the
model-free ones search (a pair whose first latent is in the library is left out). A hit is the exact set of transitions.
The beam's penalty for a transition is chosen on pairs of the library, never on the pairs that are judged.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from agents.baselines.explain_nearest import MostCommon, NearestPair
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.explain_beam import ExplainBeam, SetFollower
from agents.protocol import Agent, menu_of, to_orders
from benchmarks.files import write_csv
from clinenv.envs.ecg_explain.env import explain_world
from clinenv.simulator import Simulator
from world_models import keys, tree
from world_models.cardiac_jepa.explain import COMPOSITIONS, MAX_STEPS, ExplainState
from world_models.protocol import Chart

__all__ = ["PENALTIES", "Pairs", "answers", "compare", "draw_pairs", "main", "row"]

PENALTIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
CEM = CEMConfig(horizon=3, candidates=192, particles=1, iterations=3, elites=12, finalists=4, every=(), floor=0.01)
LIBRARY_SEED, TEST_SEED = 700_000, 900_000
TUNED_ON = 200  # pairs of the library


class Pairs(NamedTuple):
    """N changed pairs at their start."""

    state: ExplainState
    chart: Chart

    @property
    def sought(self) -> Tensor:
        """float32 [N, C]: the true transitions."""
        return self.state.sought


def draw_pairs(simulator: Simulator, seed: int, count: int, apart_from: Tensor | None = None) -> Pairs:
    """Changed pairs drawn from keys; those whose first latent is a row of `apart_from` [N, Z] are left out.

    Raises:
        ValueError: no changed pair is among them.
    """
    state, chart = simulator.reset(keys.from_seed(seed, count))
    wanted = (state.sought != 0).any(-1)
    if apart_from is not None:
        known = {row.numpy().tobytes() for row in apart_from.cpu()}
        wanted &= torch.tensor([row.numpy().tobytes() not in known for row in state.z_before.cpu()])
    if not bool(wanted.any()):
        raise ValueError(f"none of {count} pairs changed and is apart from the library; draw more with --pairs")
    rows = wanted.nonzero().squeeze(1)
    return Pairs(tree.take(state, rows), tree.take(chart, rows))


@torch.no_grad()
def answers(agent: Agent, simulator: Simulator, pairs: Pairs) -> Tensor:
    """float32 [N, C]: the transitions an agent has proposed when it stops, in the environment's own steps."""
    menu, state, chart = menu_of(simulator), pairs.state, pairs.chart
    agent.reset()
    over = torch.zeros(len(pairs.sought), dtype=torch.bool)
    for _ in range(MAX_STEPS):
        action = torch.where(over, 0, agent.act(chart))
        out = simulator.step(state, chart, to_orders(action, menu))
        state, chart, over = out.state, out.chart, over | out.terminated
        if bool(over.all()):
            break
    return chart["found"]


def row(name: str, found: Tensor, sought: Tensor, seconds: float, resamples: int = 2000) -> dict[str, float | str]:
    """Exact-set accuracy with its 95 % bootstrap interval, over all pairs and by how many transitions there were; the
    share of the transitions proposed that are true, and of the true ones that were proposed."""
    hit = (found == sought).all(-1).to(torch.float64)
    draws = keys.bits(keys.from_seed(1, resamples), 0, "explain/bootstrap", (len(hit),)) % len(hit)
    low, high = torch.quantile(hit[draws].mean(-1), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    size = (sought != 0).sum(-1)
    right = ((found == sought) & (sought != 0)).sum()
    said: dict[str, float | str] = {
        "solver": name, "pairs": float(len(hit)), "top1": float(hit.mean()), "top1_low": low, "top1_high": high,
    }  # fmt: skip
    for label, chosen in (("1", size == 1), ("2", size == 2), ("3plus", size > 2)):
        said[f"pairs_{label}"] = float(chosen.sum())
        said[f"top1_{label}"] = float(hit[chosen].mean()) if bool(chosen.any()) else float("nan")
    said["precision"] = float(right / (found != 0).sum().clamp_min(1))
    said["recall"] = float(right / (sought != 0).sum().clamp_min(1))
    said["ms_per_pair"] = 1000.0 * seconds / len(hit)
    return said


def _penalty(simulator: Simulator, chart: Chart, sought: Tensor, width: int, depth: int) -> float:
    hits = []
    for penalty in PENALTIES:
        found = ExplainBeam(simulator, width, depth, penalty).solve(chart)
        hits.append(float((found == sought).all(-1).to(torch.float32).mean()))
    return PENALTIES[max(range(len(PENALTIES)), key=lambda i: hits[i])]


def compare(
    simulator: Simulator,
    pairs: int,
    library: int,
    width: int = 8,
    depth: int = 4,
    cem: bool = True,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float | str]]:
    """One row a solver, all on the same pairs."""
    known = draw_pairs(simulator, LIBRARY_SEED, library)
    test = draw_pairs(simulator, TEST_SEED, pairs, known.state.z_before)
    say(f"{len(test.sought)} changed pairs, a library of {len(known.sought)}")
    few = slice(0, min(TUNED_ON, len(known.sought)))
    penalty = _penalty(simulator, tree.take(known.chart, few), known.sought[few], width, depth)
    say(f"penalty of a transition, chosen on the library: {penalty:g}")
    difference = known.state.z_goal - known.state.z_before
    agents: list[Agent] = [
        SetFollower(ExplainBeam(simulator, width, depth, penalty)),
        *(SetFollower(NearestPair(difference, known.sought, metric)) for metric in ("cosine", "l2")),
        SetFollower(MostCommon(known.sought)),
    ]
    if cem:
        agents.insert(1, WorldPlanner(simulator, CEM, name="CEM"))
    rows = []
    for agent in agents:
        start = time.perf_counter()
        found = answers(agent, simulator, test)
        rows.append(row(agent.name, found, test.sought, time.perf_counter() - start))
        rows[-1] |= {"penalty": penalty if "beam" in agent.name else simulator.task.step_cost}
        one = rows[-1]
        say(
            f"{agent.name:<24} top-1 {one['top1']:.3f} [{one['top1_low']:.3f}, {one['top1_high']:.3f}]  "
            f"1: {one['top1_1']:.3f}  2: {one['top1_2']:.3f}  3+: {one['top1_3plus']:.3f}  "
            f"{one['ms_per_pair']:.1f} ms a pair"
        )
    best = max((r for r in rows if "nearest" in str(r["solver"])), key=lambda r: r["top1"])
    for r in rows:
        r["times_nearest"] = r["top1"] / best["top1"] if best["top1"] else float("inf")
    return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explain", description=__doc__)
    parser.add_argument("--world", default="cardiac-jepa-small", help="a world with pairs: a name or a folder")
    parser.add_argument("--pairs", type=int, default=400, help="pairs drawn; those that changed are judged")
    parser.add_argument("--library", type=int, default=4000, help="known pairs drawn")
    parser.add_argument("--compose", choices=COMPOSITIONS, default="chain")
    parser.add_argument("--width", type=int, default=8, help="sets the beam keeps")
    parser.add_argument("--depth", type=int, default=4, help="transitions at most")
    parser.add_argument("--no-cem", action="store_true", help="leave out CEM, the slowest")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="write the rows to this CSV")
    args = parser.parse_args(argv)
    if min(args.pairs, args.library) < 1:
        parser.exit(2, f"error: --pairs {args.pairs} and --library {args.library} must be at least 1\n")
    torch.set_num_threads(args.threads)
    try:
        task, world = explain_world(None, args.world, args.compose)
        rows = compare(
            Simulator(world, task), args.pairs, args.library, args.width, args.depth, not args.no_cem, print
        )
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    if args.out is not None:
        write_csv(args.out, [{"world": world.name, "compose": args.compose, **r} for r in rows])
        print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
