"""A board: which cells there are, which are done, and how the others are spread over processes, shards or a cluster.

A group is one agent in one id under one seed, over all lengths: what it trained for the first length serves the others,
so a group is never split. Each cell becomes a file as soon as it is judged; a run that was stopped goes on there.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.board.cell import Cell, Rules, read_cell, run_cell, write_cell
from agents.board.stage import HORIZONS
from agents.registry import Entry

__all__ = ["SPREADS", "Group", "cells_of", "done", "groups", "run_groups"]

CELLS, MADE = "cells", "agents"  # folders of a board's folder


@dataclass(frozen=True)
class Group:
    """One agent in one id under one seed, over several lengths."""

    what: Entry
    env_id: str
    seed: int
    steps: tuple[int, ...]
    path: str | None = None  # on the module path of an agent in a process of its own

    @property
    def cells(self) -> list[Cell]:
        """In the order in which they are judged."""
        return [Cell(self.what.name, self.env_id, steps, self.seed) for steps in self.steps]

    @property
    def label(self) -> str:
        """For a progress bar."""
        return f"{self.what.name}, {self.env_id}, seed {self.seed}"


def groups(
    agents: Iterable[Entry],
    ids: Sequence[str],
    horizons: Mapping[str, Sequence[int]] = HORIZONS,
    seeds: int | None = None,
    paths: Mapping[str, str] | None = None,
) -> list[Group]:
    """All groups of a board, the slow ones first so that no process waits for the last of them.

    Args:
        horizons: lengths in steps, by id.
        seeds: at most so many of each agent's.
        paths: agent -> folder on its module path.
    """
    found = [
        Group(what, env_id, seed, tuple(horizons[env_id]), (paths or {}).get(what.name))
        for env_id in ids
        for what in agents
        if env_id in what.ids
        for seed in range(what.seeds if seeds is None else min(what.seeds, seeds))
    ]
    return sorted(found, key=lambda g: (not g.what.slow, g.what.made_in == "none"))


def cells_of(some: Iterable[Group]) -> list[Cell]:
    """Every cell of the groups."""
    return [cell for group in some for cell in group.cells]


def done(folder: Path, cell: Cell, rules: Rules) -> dict[str, Any] | None:
    """A finished cell of this board; None: it is still to be judged.

    Raises:
        ValueError: its file is damaged, or was judged under other rules.
    """
    path = folder / CELLS / cell.file
    found = read_cell(path)
    if found is not None and found["rules"] != _plain(rules):
        raise ValueError(f"{path} was judged under other rules ({found['rules']}); take another folder")
    return found


def _plain(rules: Rules) -> dict[str, Any]:
    return dict(vars(rules))


def run_group(group: Group, rules: Rules, folder: str, write: bool = True) -> list[dict[str, Any]]:
    """Judge what is missing of a group, one thread; `write`: each cell to its file at once."""
    torch.set_num_threads(1)
    root, found = Path(folder), []
    for cell in group.cells:
        if done(root, cell, rules) is None:
            path = None if group.path is None else Path(group.path)
            result = run_cell(group.what, cell, rules, root / MADE, path)
            if write:
                write_cell(root / CELLS, result)
            found.append(result)
    return found


def run_groups(
    some: Sequence[Group], rules: Rules, folder: Path, spread: str = "serial", workers: int = 1
) -> Iterator[tuple[Group, list[dict[str, Any]]]]:
    """Judge what is missing; yields each group with its new cells when it is done.

    Args:
        folder: of the board.
        spread: how, one of `SPREADS`.
        workers: processes at a time; a cluster decides that itself.

    Raises:
        ValueError: an unknown spread.
        ModuleNotFoundError: a spread whose library is not installed; the message names the extra.
    """
    if spread not in SPREADS:
        raise ValueError(f"spread {spread!r} is unknown; choose one of {', '.join(SPREADS)}")
    left = [g for g in some if any(done(folder, cell, rules) is None for cell in g.cells)]
    yield from SPREADS[spread](left, rules, folder, workers)


Spread = Callable[[Sequence[Group], Rules, Path, int], Iterator[tuple[Group, list[dict[str, Any]]]]]


def _serial(some: Sequence[Group], rules: Rules, folder: Path, workers: int) -> Iterator[Any]:
    for group in some:
        yield group, run_group(group, rules, str(folder))


def _processes(some: Sequence[Group], rules: Rules, folder: Path, workers: int) -> Iterator[Any]:
    """Spawned, since torch's threads do not survive a fork."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        waiting = {pool.submit(run_group, group, rules, str(folder)): group for group in some}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                yield waiting.pop(future), future.result()


def _ray(some: Sequence[Group], rules: Rules, folder: Path, workers: int) -> Iterator[Any]:
    """On the cluster that is there, or a local one. Its nodes need share no disk: the cells come back as values."""
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("spread='ray' needs ray, of the extra ray: pip install 'clinenv[ray]'") from error
    if not ray.is_initialized():
        ray.init(ignore_reinit_error=True, log_to_driver=False)
    # what a node trains stays on that node, under the same path; cells are written here
    judge = ray.remote(num_cpus=1)(run_group)
    waiting = {judge.remote(group, rules, str(folder.absolute()), False): group for group in some}
    while waiting:
        ready, _ = ray.wait(list(waiting))
        for reference in ready:
            group, found = waiting.pop(reference), ray.get(reference)
            for cell in found:
                write_cell(folder / CELLS, cell)
            yield group, found


SPREADS: dict[str, Spread] = {"serial": _serial, "processes": _processes, "ray": _ray}
