"""How often the true transitions are found: `python -m benchmarks.progression.explain --world oracle --compose joint`.

`--world oracle`: pairs of patients whom no training and no choice has seen, drawn by the progression oracle, latents
and dynamics by the shipped model. A learned world's own pairs are those it keeps of its validation patients.

Every solver gets the same changed pairs of `ECGExplain-v0`, each once, none of which is in the library of known pairs
that the model-free ones search (a pair whose first latent is in the library is left out). A hit is the exact set of
transitions. What a solver has to choose (the beam's penalty, the posterior's metric, prior and weights) comes from the
pairs of the library, never from those that are judged. Rows: the dynamics with metric, prior and what the world's
other parts read (`explain_reading`); the same without these; a supervised classifier of the two latents, the days and
the diagnoses, and the same without the latents: the fair floor, what is common given the diagnoses (what the ECGs add
is the difference to it); with `--supervised N` the classifier once more, on as many pairs drawn for it alone; the rates
of each condition alone; the task's own distance by beam and by CEM, nearest pairs by plain and by whitened latent
difference, and the commonest set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from agents.baselines.explain_nearest import MostCommon, NearestPair
from agents.planning.cem import CEMConfig
from agents.planning.controller import WorldPlanner
from agents.planning.explain_beam import ExplainBeam, Explainer, SetFollower
from agents.planning.explain_classifier import fit_classifier
from agents.planning.explain_fit import Fitted, fit
from agents.planning.explain_pairs import Pairs, sample_pairs
from agents.planning.explain_posterior import ExplainPosterior, explain_world_of, whitening
from agents.planning.explain_reading import fit_reading
from agents.protocol import Agent, menu_of, to_orders
from benchmarks.common.intervals import RESAMPLES, columns, mean_interval, resamples
from benchmarks.common.results import made_by, write_csv
from clinenv.envs.ecg_explain.env import explain_world
from clinenv.simulator import Simulator
from world_models import tree
from world_models.cardiac_jepa.explain import COMPOSITIONS, MAX_STEPS
from world_models.protocol import Chart

__all__ = ["PENALTIES", "Pairs", "answers", "compare", "sample_pairs", "main", "row"]

PENALTIES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3)
CEM = CEMConfig(horizon=3, candidates=192, particles=1, iterations=3, elites=12, finalists=4, every=(), floor=0.01)
LIBRARY_SEED, TEST_SEED = 700_000, 1_900_000  # test patients before: 900,000 on, whom three versions were judged on
TUNED_ON = 200  # pairs of the library
READ, POSTERIOR, PRIOR = "posterior beam with readings", "posterior beam", "prior alone"
CLASSIFIER, FLOOR = "classifier", "classifier without ECGs (the floor)"
OVER = ("over_floor", "over_classifier")
SUPERVISED_SEED = 2_600_000  # pairs drawn for the classifier alone
RANKED = 20  # sets a problem, for the reciprocal rank


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


def row(
    name: str, found: Tensor, sought: Tensor, seconds: float, ranked: Tensor | None = None, number: int = RESAMPLES
) -> dict[str, float | str]:
    """Exact-set accuracy with its 95 % bootstrap interval, over all pairs and by how many transitions there were; the
    share of the transitions proposed that are true, and of the true ones that were proposed. With the solver's best K
    sets, ranked [N, K, C]: how often the true one is among the first three, and its mean reciprocal rank (0
    beyond K)."""
    hit = (found == sought).all(-1).to(torch.float64)
    _, low, high = mean_interval(hit, _resamples(len(hit), number))
    size = (sought != 0).sum(-1)
    right = ((found == sought) & (sought != 0)).sum()
    said: dict[str, float | str] = {
        "solver": name,
        "pairs": float(len(hit)),
        "top1": float(hit.mean()),
        "top1_low": low,
        "top1_high": high,
    }
    for label, chosen in (("1", size == 1), ("2", size == 2), ("3plus", size > 2)):
        said[f"pairs_{label}"] = float(chosen.sum())
        said[f"top1_{label}"] = float(hit[chosen].mean()) if bool(chosen.any()) else float("nan")
    said["top3"] = said["reciprocal_rank"] = float("nan")
    if ranked is not None:
        same = (ranked == sought.unsqueeze(1)).all(-1).to(torch.float64)
        said["top3"] = float(same[:, :3].amax(-1).mean())
        said["reciprocal_rank"] = float((same / torch.arange(1, same.shape[1] + 1)).amax(-1).mean())
    said["precision"] = float(right / (found != 0).sum().clamp_min(1))
    said["recall"] = float(right / (sought != 0).sum().clamp_min(1))
    said["ms_per_pair"] = 1000.0 * seconds / len(hit)
    return said


def _resamples(count: int, number: int = RESAMPLES) -> Tensor:
    """int64 [number, count] of the pairs, the same for every solver."""
    return resamples(count, number, 1, "explain/bootstrap")


class _Whitened:
    """An explainer that sees latents through a whitening matrix [Z, Z]."""

    def __init__(self, explainer: Explainer, whiten: Tensor, name: str) -> None:
        self.explainer, self.whiten, self.name = explainer, whiten, name

    def solve(self, chart: Chart) -> Tensor:
        return self.explainer.solve({**chart, **{n: chart[n] @ self.whiten.T for n in ("z_before", "z_goal")}})


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
    supervised: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[dict[str, float | str]]:
    """One row a solver, all on the same pairs."""
    known = sample_pairs(simulator, LIBRARY_SEED, library)
    test = sample_pairs(simulator, TEST_SEED, pairs, known.state.z_before)
    say(f"{len(test.sought)} changed pairs, a library of {len(known.sought)}")
    few = slice(0, min(TUNED_ON, len(known.sought)))
    penalty = _penalty(simulator, tree.take(known.chart, few), known.sought[few], width, depth)
    say(f"penalty of a transition, chosen on the library: {penalty:g}")
    known_how = fit(simulator, known.chart, known.sought)
    say(
        f"chosen on the library: tau {known_how.tau:g}, smoothing {known_how.smoothing:g}, shrinkage "
        f"{known_how.shrinkage:g}; reciprocal rank there {known_how.reciprocal_rank:.3f}, of the prior alone "
        f"{known_how.prior_reciprocal_rank:.3f}"
    )
    rows, hits = [], {}
    agents = _solvers(simulator, known, known_how, penalty, width, depth, cem)
    if supervised:
        more = sample_pairs(simulator, SUPERVISED_SEED, supervised, test.state.z_before)
        name = f"{CLASSIFIER} on {len(more.sought)} pairs"
        agents.insert(3, SetFollower(_classifier(simulator, more, False, width, depth, name)))
    for agent in agents:
        start = time.perf_counter()
        found = answers(agent, simulator, test)
        seconds = time.perf_counter() - start
        explainer = getattr(agent, "explainer", None)
        ranked = explainer.ranked(test.chart, RANKED) if isinstance(explainer, ExplainPosterior) else None
        rows.append(row(agent.name, found, test.sought, seconds, ranked))
        hits[agent.name] = (found == test.sought).all(-1).to(torch.float64)
        rows[-1] |= {"penalty": penalty if agent.name == "beam search" else float("nan"), "library": len(known.sought)}
        one = rows[-1]
        say(
            f"{agent.name:<34} top-1 {one['top1']:.3f} [{one['top1_low']:.3f}, {one['top1_high']:.3f}]  "
            f"1: {one['top1_1']:.3f}  2: {one['top1_2']:.3f}  3+: {one['top1_3plus']:.3f}  "
            + (f"top-3 {one['top3']:.3f}  MRR {one['reciprocal_rank']:.3f}  " if ranked is not None else "")
            + f"{one['ms_per_pair']:.1f} ms a pair"
        )
    for r in rows:
        for rival, name in ((PRIOR, "over_prior"), (FLOOR, "over_floor"), (CLASSIFIER, "over_classifier")):
            gain = hits[str(r["solver"])] - hits[rival]
            r |= columns(name, mean_interval(gain, _resamples(len(gain))))
    first = rows[0]
    say(
        "the first over the floor and over the classifier, top-1, paired: "
        + ", ".join(f"{first[n]:+.3f} [{first[f'{n}_low']:+.3f}, {first[f'{n}_high']:+.3f}]" for n in OVER)
    )
    nearest = max((r for r in rows if str(r["solver"]).startswith("nearest pair")), key=lambda r: r["top1"])
    plain = next(r for r in rows if r["solver"] == "nearest pair (l2)")
    for r in rows:
        r["times_nearest_l2"] = r["top1"] / plain["top1"] if plain["top1"] else float("inf")
        r["times_nearest"] = r["top1"] / nearest["top1"] if nearest["top1"] else float("inf")
    return rows


def _solvers(
    simulator: Simulator, known: Pairs, how: Fitted, penalty: float, width: int, depth: int, cem: bool
) -> list[Agent]:
    difference = known.state.z_goal - known.state.z_before
    whiten = whitening(how.metric)
    read, tau = fit_reading(simulator, known.chart, known.sought, how)
    agents: list[Agent] = [
        SetFollower(ExplainPosterior(simulator, read, how.metric, tau, width, depth, name=READ)),
        SetFollower(ExplainPosterior(simulator, how.prior, how.metric, how.tau, width, depth, name=POSTERIOR)),
        SetFollower(_classifier(simulator, known, False, width, depth, CLASSIFIER)),
        SetFollower(_classifier(simulator, known, True, width, depth, FLOOR)),
        SetFollower(ExplainPosterior(simulator, how.prior_alone, None, 0.0, width, depth, name=PRIOR)),
        SetFollower(ExplainBeam(simulator, width, depth, penalty)),
        *(SetFollower(NearestPair(difference, known.sought, metric)) for metric in ("cosine", "l2")),
    ]
    for metric in ("cosine", "l2"):
        near = NearestPair(difference @ whiten.T, known.sought, metric)
        agents.append(SetFollower(_Whitened(near, whiten, f"nearest pair (whitened {metric})")))
    agents.append(SetFollower(MostCommon(known.sought)))
    if cem:
        agents.insert(6, WorldPlanner(simulator, CEM, name="CEM"))
    return agents


def _classifier(simulator: Simulator, known: Pairs, blind: bool, width: int, depth: int, name: str) -> ExplainPosterior:
    found = fit_classifier(explain_world_of(simulator).codes, known.chart, known.sought, blind)
    return ExplainPosterior(simulator, found, None, 0.0, width, depth, name=name)


def main(argv: list[str] | None = None) -> int:
    """Compare the solvers and, with --out, write. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.progression.explain", description=__doc__)
    parser.add_argument("--world", default="cardiac-jepa-small", help="a world with pairs: a name or a folder")
    parser.add_argument("--pairs", type=int, default=2000, help="pairs drawn; those that changed are judged, each once")
    parser.add_argument("--library", type=int, default=1400, help="known pairs drawn")
    parser.add_argument("--compose", choices=COMPOSITIONS, default="chain")
    parser.add_argument("--width", type=int, default=8, help="sets the beam keeps")
    parser.add_argument("--depth", type=int, default=4, help="transitions at most")
    parser.add_argument("--supervised", type=int, default=0, help="pairs drawn for the classifier alone; 0: none")
    parser.add_argument("--no-cem", action="store_true", help="leave out CEM, the slowest")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--out", type=Path, help="write the rows to this CSV")
    args = parser.parse_args(argv)
    if min(args.pairs, args.library) < 1 or args.supervised < 0:
        wrong = (
            f"--pairs {args.pairs} and --library {args.library} must be at least 1, --supervised {args.supervised} 0"
        )
        parser.exit(2, f"error: {wrong} or more\n")
    torch.set_num_threads(args.threads)
    try:
        task, world = explain_world(None, args.world, args.compose)
        how = (args.pairs, args.library, args.width, args.depth, not args.no_cem, args.supervised)
        rows = compare(Simulator(world, task), *how, print)
    except (ValueError, FileNotFoundError) as error:
        parser.exit(2, f"error: {error}\n")
    if args.out is not None:
        seeds = {"library": LIBRARY_SEED, "test pairs": TEST_SEED, "classifier": SUPERVISED_SEED}
        seeds["bootstrap"] = 1
        # the oracle's pairs are read by the shipped encoder and dynamics
        worlds = ["progression-oracle" if args.world == "oracle" else args.world]
        made = made_by("benchmarks.progression.explain", argv, seeds, worlds)
        write_csv(args.out, [{"world": world.name, "compose": args.compose, **r} for r in rows], made)
        print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
