"""One cell of `benchmarks.offline`: an id, a position of the dial, a log; every policy's estimates beside its truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from scipy.stats import rankdata
from torch import Tensor

from agents.offline.acting import Acting
from agents.offline.behaviour import Behaviour, Exploring
from agents.offline.charts import ChartReader
from agents.offline.choices import Choices
from agents.offline.logged import Logged
from agents.offline.make import Order
from agents.offline.ope.doubly_robust import doubly_robust, weighted_doubly_robust
from agents.offline.ope.evidence import Estimator, effective_size, evidence_of, once, replay
from agents.offline.ope.fitted_q import FittedQ, fitted_q_value
from agents.offline.ope.importance import importance_sampling
from agents.offline.ope.model_based import model_based
from agents.offline.ope.per_decision import per_decision, weighted_per_decision
from agents.offline.ope.weighted_importance import weighted_importance_sampling
from agents.offline.policy import OfflinePolicy
from agents.offline.recipes import CASES, colleagues, simulator_of
from agents.rollout import judge
from clinenv.simulator import Simulator
from world_models import bootstrap, keys

__all__ = [
    "ESTIMATORS",
    "Cell",
    "Settings",
    "cells",
    "estimates",
    "learned_policies",
    "targets",
    "targets_of",
    "truths",
]

# patients that nothing else meets: of the evaluated logs, of the log that policies are learned from, and of the truth
LOG_SEED, LEARN_SEED, TRUE_SEED = 9_400_000_000, 9_600_000_000, 9_700_000_000
_APART = 10_000_000
ALGORITHMS = {"menu": ("bc", "cql", "bcq"), "levels": ("bc", "cql"), "switches": ("bc",)}

ESTIMATORS: dict[str, Estimator] = {
    "IS": importance_sampling,
    "weighted IS": weighted_importance_sampling,
    "per-decision IS": per_decision,
    "weighted per-decision IS": weighted_per_decision,
    "doubly robust": doubly_robust,
    "weighted doubly robust": weighted_doubly_robust,
}
FQE, MODEL, TOLD = "fitted Q evaluation", "learned world", ", told"


@dataclass(frozen=True)
class Settings:
    """Of a run."""

    patients: dict[str, int]  # of each log, by id
    judged: dict[str, int]  # whose mean return is the truth
    repeats: int  # logs a dial
    resamples: int  # of the bootstrap
    refits: int  # of fitted Q, on resamples
    updates: int  # of each learned policy
    samples: int  # of a policy's choices at each step


class Cell(NamedTuple):
    """One log."""

    env_id: str
    dial: float
    repeat: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.env_id}-{self.dial:g}-{self.repeat}"

    def log(self, patients: int) -> Logged:
        """Made anew: seconds."""
        place = list(CASES).index(self.env_id) * 100 + self.repeat  # the same patients at every position of the dial
        return Order(self.env_id, "mixed", self.dial, "oracle", patients, LOG_SEED + place * _APART // 100).log()


def learned_policies(env_id: str, settings: Settings, runs: Path) -> dict[str, Path]:
    """Folders of policies learned from a log of their own at dial 0, by name; none where d3rlpy is not installed.

    What --runs holds is used again.
    """
    kind = type(CASES[env_id].task().actions).__name__.lower()
    names = ALGORITHMS[kind]
    folders = {name: runs / f"{env_id}-{name}-{settings.patients[env_id]}-{settings.updates}" for name in names}
    missing = {name: folder for name, folder in folders.items() if not (folder / "policy.json").exists()}
    if missing:
        from agents.offline import train

        try:
            log = Order(env_id, "mixed", 0.0, "oracle", settings.patients[env_id], LEARN_SEED).log()
            for name, folder in missing.items():
                train.learn(log, name, folder, train.Settings(updates=settings.updates))
        except ImportError:
            return {}
    return {f"learned by {name}": folder for name, folder in folders.items()}


def targets(env_id: str, simulator: Simulator, learned: Mapping[str, Path]) -> dict[str, Behaviour]:
    """The policies that are evaluated, made for a simulator."""
    found = colleagues(env_id, simulator)
    choices, epsilon = Choices(simulator), CASES[env_id].epsilon
    for name, folder in learned.items():
        found[name] = Exploring(OfflinePolicy(folder, simulator), choices, epsilon, name)
    return found


def targets_of(env_id: str, learned: Mapping[str, Path]) -> list[str]:
    """Names of the policies, the learned ones with the seals of their folders."""
    simulator = simulator_of(env_id)
    seals = {name: OfflinePolicy(folder, simulator).sha256 for name, folder in learned.items()}
    return [f"{name} {seals[name]}" if name in seals else name for name in targets(env_id, simulator, learned)]


def truths(
    env_id: str, settings: Settings, learned: Mapping[str, Path], progress: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """policy -> mean return and its standard error in the oracle, on patients of no log."""
    simulator = simulator_of(env_id)
    key = keys.fold(keys.from_seed(TRUE_SEED, settings.judged[env_id]), "judge")
    found = {}
    for name, policy in targets(env_id, simulator, learned).items():
        returns = judge(Acting(policy, TRUE_SEED), simulator, key, CASES[env_id].steps).returns.to(torch.float64)
        found[name] = {"truth": float(returns.mean()), "truth_se": float(returns.std() / len(returns) ** 0.5)}
        progress()
    return found


def estimates(
    cell: Cell,
    settings: Settings,
    learned: Mapping[str, Path],
    truth: Mapping[str, Mapping[str, float]],
    progress: Callable[[], None],
) -> dict[str, Any]:
    """Rows of every policy and estimator, and each estimator's rank correlation with the truth over the policies."""
    env_id = cell.env_id
    oracle, world = simulator_of(env_id), simulator_of(env_id, "learned")
    logged = cell.log(settings.patients[env_id])
    reader, choices, count = ChartReader(oracle, logged), Choices(oracle), len(logged.length)
    crossed = FittedQ.crossed(logged, choices)
    refitted = FittedQ.resampled(logged, choices, settings.refits)
    drawn = bootstrap.resamples(count, settings.resamples)
    times = torch.zeros(settings.resamples, count, dtype=torch.float64)
    times.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    in_world = targets(env_id, world, learned)
    rows: list[dict[str, Any]] = []
    samples: dict[str, list[Tensor]] = {}  # estimator -> of each policy the estimate, then those of the resamples
    for name, policy in targets(env_id, oracle, learned).items():
        replayed = replay(Acting(policy), logged, reader, settings.samples)
        q, v = crossed.held_out(replayed)
        found: dict[str, Tensor] = {}
        for told in (False, True) if cell.dial > 0 else (False,):
            evidence = evidence_of(logged, replayed, q, v, told)
            for label, estimator in ESTIMATORS.items():
                both = torch.cat([once(evidence), times])
                found[label + (TOLD if told else "")] = estimator(evidence, both)
            size = effective_size(evidence)
        found[FQE] = fitted_q_value(refitted, replayed)
        returns = model_based(Acting(in_world[name]), world, oracle.world, reader, CASES[env_id].steps)
        found[MODEL] = torch.cat([returns.mean().unsqueeze(0), returns[drawn].mean(-1)])
        for label, values in found.items():
            samples.setdefault(label, []).append(values)
            rows.append(_row(cell, name, label, values, truth[name], size))
        progress()
    true = torch.tensor([truth[name]["truth"] for name in in_world], dtype=torch.float64)
    ranks = {label: _ranked(torch.stack(values, -1), true) for label, values in samples.items()}
    return {"cell": cell._asdict(), "settings": asdict(settings), "rows": rows, "ranks": ranks}


def _row(
    cell: Cell, policy: str, estimator: str, values: Tensor, truth: Mapping[str, float], size: float
) -> dict[str, Any]:
    """A row of offline_policies.csv; values [1 + R]: the estimate, and those of its resamples."""
    low, high = bootstrap.percentile_interval(values[1:])
    return {
        **cell._asdict(),
        "policy": policy,
        "estimator": estimator,
        "estimate": float(values[0]),
        "estimate_low": low,
        "estimate_high": high,
        **truth,
        "error": float(values[0]) - truth["truth"],
        "effective_stays": size if estimator not in (FQE, MODEL) else float("nan"),
    }


def _ranked(values: Tensor, truth: Tensor) -> dict[str, float]:
    """Spearman's correlation over policies of values [1 + R, P] with the truth [P], and what choosing by them costs."""
    rows = [float(_spearman(row, truth)) for row in values]
    low, high = bootstrap.percentile_interval(torch.tensor(rows[1:], dtype=torch.float64))
    regret = float(truth.max() - truth[values[0].nan_to_num(-torch.inf).argmax()])
    return {"rank_correlation": rows[0], "rank_correlation_low": low, "rank_correlation_high": high, "regret": regret}


def _spearman(one: Tensor, other: Tensor) -> Tensor:
    ranks = [torch.from_numpy(rankdata(x.nan_to_num().numpy())) for x in (one, other)]
    return torch.corrcoef(torch.stack(ranks))[0, 1].nan_to_num()


def cells(ids: tuple[str, ...], dials: tuple[float, ...], repeats: int) -> Iterator[Cell]:
    """All of a run."""
    yield from (Cell(env_id, dial, repeat) for env_id in ids for dial in dials for repeat in range(repeats))
