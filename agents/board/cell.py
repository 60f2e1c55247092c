"""One cell of the board: one agent under one seed, in one id over one length. A file, written whole or not at all.

A cell holds every patient's figures, so that intervals, differences and tails are made later, of all cells together.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from agents import registry
from agents.board.code_version import code_version
from agents.board.draw import judged_keys
from agents.board.isolated import IsolatedAgent
from agents.board.stage import Patients, Stage
from agents.board.watched import Disqualified, Watched, visible
from agents.making import Making, seal_of
from agents.planning.oracle_owner import WatchedSimulator
from agents.protocol import Agent
from agents.registry import Entry
from agents.rollout import EpisodeResults, judge
from clinenv.simulator import Simulator
from world_models.config_json import ConfigError, parse_json
from world_models.files import write_text

__all__ = ["Cell", "Rules", "read_cell", "run_cell", "write_cell"]

DIGITS = 6  # significant, of a patient's figures
SINGLE_STEPS = 6  # decisions for a patient alone that are timed


@dataclass(frozen=True)
class Rules:
    """What holds for every cell of a board; kept beside the cells, so that no two boards are mixed.

    Raises:
        ValueError: fewer than two patients, or a limit that is not above 0.
    """

    edition: str  # whom it judges on, see `draw.edition`
    patients: int = 200
    slow_patients: int = 60  # those that agents who think long are judged on: the first of the others
    limit_ms: float = 2_000.0  # for a decision and a patient
    quick: bool = False  # agents are made with a small budget

    def __post_init__(self) -> None:
        if min(self.patients, self.slow_patients) < 2:
            raise ValueError(f"a board needs 2 patients or more, got {self.patients} and {self.slow_patients}")
        if not self.limit_ms > 0:
            raise ValueError(f"limit_ms must be above 0, got {self.limit_ms}; give 1000, say")

    def count(self, what: Entry) -> int:
        """Patients that an agent is judged on."""
        return min(self.patients, self.slow_patients) if what.slow else self.patients


@dataclass(frozen=True)
class Cell:
    """Which agent, in which id, how long, under which seed."""

    agent: str
    env_id: str
    steps: int
    seed: int

    @property
    def file(self) -> str:
        """Name of its file; two agents never share one."""
        slug = re.sub(r"[^a-z0-9]+", "-", self.agent.lower()).strip("-")[:60]
        mark = hashlib.sha256(self.agent.encode()).hexdigest()[:6]
        return f"{self.env_id}--{self.steps:03d}--{slug}-{mark}--{self.seed}.json"


def read_cell(path: Path) -> dict[str, Any] | None:
    """What a finished cell says; None: there is none yet.

    Raises:
        ValueError: the file is no cell.
    """
    if not path.exists():
        return None
    try:
        found = parse_json(path.read_bytes(), str(path))
    except ConfigError as error:
        raise ValueError(f"{path} is damaged ({error}); delete it, and it is judged again") from None
    if "cell" not in found:
        raise ValueError(f"{path} is no cell of a board; delete it, or take another folder")
    return found


def write_cell(folder: Path, found: Mapping[str, Any]) -> Path:
    """Write a cell's file; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / Cell(**found["cell"]).file
    write_text(path, json.dumps(found, allow_nan=False) + "\n")
    return path


def run_cell(what: Entry, cell: Cell, rules: Rules, runs: Path, path: Path | None = None) -> dict[str, Any]:
    """Make the agent and judge it; plain JSON, with "status" "ok", or "failed" and the "reason".

    Args:
        runs: where trained and tuned agents are kept.
        path: folder on the module path of an agent in a process of its own.
    """
    stage = Stage(cell.env_id, cell.steps)
    start, cpu = time.perf_counter(), time.process_time()
    found: dict[str, Any] = {
        "cell": asdict(cell),
        "entry": {k: v for k, v in asdict(what).items() if k not in ("ids", "options")},
        "rules": asdict(rules),
        "code": code_version(),
        "world": stage.learned.world.name,
        "world_seal": seal_of(stage.learned.world),
        "oracle": stage.oracle.world.name,
        "hours_per_step": stage.oracle.world.hours_per_step,
        "patients": rules.count(what),
    }
    # where it is judged: one that says where its patients are, for a reference that may know
    oracle = WatchedSimulator(stage.oracle.world, stage.oracle.task) if what.owns_state else stage.oracle
    try:
        with _made(what, cell, rules, stage, oracle, runs, path) as (agent, about):
            found |= about
            found["made_s"] = round(time.perf_counter() - start, 3)
            found |= _judged(agent, what, cell, rules, stage, oracle)
        found["status"] = "ok"
    except Disqualified as error:
        found |= {"status": "failed", "reason": str(error)}
    found["seconds"] = round(time.perf_counter() - start, 3)
    found["cpu_s"] = round(time.process_time() - cpu, 3)  # of this process: a load beside it does not count
    return found


@contextmanager
def _made(
    what: Entry, cell: Cell, rules: Rules, stage: Stage, oracle: Simulator, runs: Path, path: Path | None
) -> Iterator[tuple[Agent, dict[str, Any]]]:
    """The agent, and what its row says of it; raises Disqualified where its builder raises."""
    where: dict[str, Any] = {"env_id": cell.env_id, "steps": cell.steps, "seed": cell.seed, "quick": rules.quick}
    if what.isolated:
        making = {**where, "world": stage.learned_name, "runs": str(runs.absolute())}
        with IsolatedAgent(what, making, path, rules.limit_ms) as agent:
            told = agent.built
            yield agent, _about(what, stage, told["settings"], told["budget"], told["weights"])
        return
    own = stage.oracle if what.made_in == "oracle" else stage.learned
    name = "oracle" if what.made_in == "oracle" else stage.learned_name
    states = (lambda: oracle.state) if isinstance(oracle, WatchedSimulator) else None
    try:
        built = registry.build(what, Making(simulator=own, world=name, runs=runs, state_of=states, **where))
    except Exception as error:  # whatever a builder's library raises
        raise Disqualified(f"it could not be made: {type(error).__name__}: {error}") from error
    yield built.agent, _about(what, stage, built.settings, built.budget, built.weights)


def _about(what: Entry, stage: Stage, settings: Mapping[str, Any], budget: str, weights: str | None) -> dict[str, Any]:
    """Settings, budget and seals of an agent; "seal" is over all of it, and over the world it was made in."""
    world = seal_of(stage.learned.world) if what.made_in == "learned" else None
    whole: dict[str, Any] = {"name": what.name, "build": what.build, "options": dict(what.options)}
    whole["settings"] = dict(settings)
    whole |= {"weights": weights, "world": world}
    text = json.dumps(whole, sort_keys=True, default=str)
    told = {"settings": dict(settings), "budget": budget, "weights": weights}
    return {**json.loads(json.dumps(told, default=str)), "seal": hashlib.sha256(text.encode()).hexdigest()}


def _judged(agent: Agent, what: Entry, cell: Cell, rules: Rules, stage: Stage, oracle: Simulator) -> dict[str, Any]:
    """What an agent earned in the oracle and was promised by the learned world, and how long it thought."""
    on_request = {q.name for q in stage.oracle.world.measures if q.on_request}
    also = tuple(name for name in what.sees if name in on_request)
    keys = judged_keys(rules.edition, cell.env_id, rules.count(what), stage.oracle.device)
    in_oracle, in_learned = stage.patients(keys, also)
    places = [("earned", oracle, in_oracle)]
    if what.made_in != "oracle":  # what the learned world says of an agent that was made elsewhere is no promise
        places.append(("promised", stage.learned, in_learned))
    found: dict[str, Any] = {}
    for name, simulator, patients in places:
        watched = Watched(agent, simulator, visible(simulator.task, what.sees), rules.limit_ms)
        results = _run(watched, simulator, patients, cell.steps, also)
        found[name] = _figures(results)
        found["ms_batch"] = 1000.0 * watched.seconds / watched.decisions
    found["ms_single"] = _alone(agent, what, cell, oracle, stage.patients(keys[:1], also)[0], also)
    return found


def _run(agent: Watched, simulator: Simulator, patients: Patients, steps: int, also: tuple[str, ...]) -> EpisodeResults:
    keys, factors, begun = patients
    if isinstance(simulator, WatchedSimulator) and begun is not None:
        simulator.state = begun[0]
    return judge(agent, simulator, keys, steps, factors, also=also, begun=begun)


def _alone(agent: Agent, what: Entry, cell: Cell, oracle: Simulator, patient: Patients, also: tuple[str, ...]) -> float:
    """Milliseconds for a decision about a single patient: its first decisions."""
    watched = Watched(agent, oracle, visible(oracle.task, what.sees))
    _run(watched, oracle, patient, min(SINGLE_STEPS, cell.steps), also)
    return 1000.0 * watched.seconds / watched.decisions


def _figures(results: EpisodeResults) -> dict[str, Any]:
    """Per patient: return, cost, steps; of the outcomes their means.

    Raises:
        Disqualified: a figure is not finite.
    """
    for values in (results.returns, results.costs):
        if not bool(torch.isfinite(values).all()):
            raise Disqualified("a return or cost came out as no finite number")
    outcomes = {**results.outcomes.totals, **results.outcomes.peaks}
    return {
        "returns": _rounded(results.returns),
        "costs": _rounded(results.costs),
        "steps": results.lengths.tolist(),
        "refused": float(results.refused.mean()),
        "outcomes": {name: float(f"{float(v.mean()):.{DIGITS}g}") for name, v in outcomes.items()},
    }


def _rounded(values: Tensor) -> list[float]:
    return [float(f"{x:.{DIGITS}g}") for x in values.tolist()]
