"""Judge agents: whole episodes of many patients at once, the same patients and chance for everyone, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from agents.planning.risk import CVaR
from agents.protocol import Agent, Narrowable, menu_of, to_orders
from agents.tally import EpisodeResults, Tally
from clinenv.admission import admission_factors
from clinenv.simulator import Simulator
from world_models import bootstrap, tree
from world_models.protocol import Chart, Factors

__all__ = ["EpisodeResults", "admission_factors", "format_table", "judge", "paired_table"]


@torch.no_grad()
def judge(
    agent: Agent,
    simulator: Simulator,
    keys: Tensor,
    steps: int,
    factors: Factors | None = None,
    progress: Callable[[int], None] | None = None,
    also: Sequence[str] = (),
    begun: tuple[Any, Chart] | None = None,
) -> EpisodeResults:
    """Run `agent` on the patients of `keys` int64 [N] for at most `steps` steps.

    Two agents judged with equal keys meet the same patients and the same chance: their results are paired row by row.
    What became of the patients besides is what the task's `outcomes` names.

    Args:
        factors: fixed for all runs, name -> [N].
        progress: called with the number of each finished step.
        also: measures on request that the agent's charts are to hold.
        begun: state and chart of the N patients where they are taken over, for those with a course behind them;
            None: they are admitted.

    Raises:
        ValueError: no keys, or fewer than one step.
    """
    if keys.ndim != 1 or keys.shape[0] == 0 or steps < 1:
        raise ValueError(f"judge needs keys [N >= 1] and steps >= 1, got {tuple(keys.shape)} and {steps}")
    count, device = keys.shape[0], keys.device
    menu = menu_of(simulator)
    agent.reset()
    state, chart = simulator.reset(keys, factors, also) if begun is None else begun

    patients = torch.arange(count, device=device)  # those in the batch
    here = torch.ones(count, dtype=torch.bool, device=device)  # whose episode goes on
    tally = Tally(simulator.task, count)
    for step in range(steps):
        ordered = to_orders(agent.act(chart).to(device), menu)
        # Who has left gets nothing more: the row is carried along only to keep the batch whole.
        ordered = ordered * here.unsqueeze(-1)
        out = simulator.step(state, chart, ordered, also)
        tally.add(patients, here, chart, ordered, out)
        state, chart = out.state, out.chart
        here = here & ~out.terminated
        if progress is not None:
            progress(step + 1)
        if not bool(here.any()):
            break
        if isinstance(agent, Narrowable) and not bool(here.all()):
            rows = here.nonzero().squeeze(1)
            agent.narrow(rows)
            state, chart = tree.take(state, rows), tree.take(chart, rows)
            patients, here = patients[rows], here[rows]
    return tally.results()


def _mean(values: Tensor) -> Tensor:
    return values.mean(-1)


def _interval(values: Tensor, chosen: Tensor, statistic: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
    """statistic([..., N]) of all patients and its 95 % percentile bootstrap interval; chosen int64 [R, N]."""
    values = values.to(torch.float64)
    point = float(statistic(values))
    return point, *bootstrap.percentile_interval(statistic(values[chosen]))


def paired_table(
    results: Mapping[str, EpisodeResults],
    reference: str | None = None,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
    alpha: float = 0.05,
) -> list[dict[str, float | str]]:
    """One row an agent: means with 95 % bootstrap intervals over patients, and paired differences to `reference`.

    Figures are return, cost, the total of each outcome of the task, and `return_cvar`, the mean return of the worst
    `alpha` share of patients. The columns of a figure x are x, x_low, x_high; differences are `x_minus_reference` with
    the same suffixes. Of an outcome's peak there is the mean alone. Every agent meets the same resampled patients.

    Raises:
        ValueError: agents were judged on different numbers of patients, or the reference is not among them.
    """
    sizes = {name: episodes.returns.shape[0] for name, episodes in results.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"paired figures need the same patients for everyone, got {sizes}")
    if reference is not None and reference not in results:
        raise ValueError(f"reference {reference!r} was not judged; there are: {', '.join(results)}")
    count = next(iter(sizes.values()))
    sampled = bootstrap.resamples(count, resamples, seed)
    rows: list[dict[str, float | str]] = []
    for name, episodes in results.items():
        row: dict[str, float | str] = {"agent": name, "patients": count}
        figures = _figures(episodes)
        for figure, values in figures.items():
            row[figure], row[f"{figure}_low"], row[f"{figure}_high"] = _interval(values, sampled, _mean)
        tail = _interval(episodes.returns, sampled, CVaR(alpha))
        row["return_cvar"], row["return_cvar_low"], row["return_cvar_high"] = tail
        row.update({peak: float(values.mean()) for peak, values in episodes.outcomes.peaks.items()})
        if reference is not None:
            base = _figures(results[reference])
            for figure, values in figures.items():
                at = f"{figure}_minus_reference"
                row[at], row[f"{at}_low"], row[f"{at}_high"] = _interval(values - base[figure], sampled, _mean)
        rows.append(row)
    return rows


def _figures(episodes: EpisodeResults) -> dict[str, Tensor]:
    """What is compared between agents, name -> [N]."""
    return {"return": episodes.returns, "cost": episodes.costs, **episodes.outcomes.totals}


class _Column(NamedTuple):
    """A column of the printed table."""

    figure: str
    heading: str
    scale: float = 1.0
    digits: int = 2
    unit: str = ""


_COLUMNS = (
    _Column("return", "return"),
    _Column("cost", "safety cost"),
    _Column("torsades", "torsades, %", 100.0, 1),
    _Column("died", "died, %", 100.0, 1),
    _Column("discharged", "discharged, %", 100.0, 1),
    _Column("hours", "hours", digits=0),
    _Column("return_cvar", "CVaR return"),
    _Column("max_qtcf_ms", "max QTcF", digits=0, unit=" ms"),
    _Column("return_minus_reference", "return minus reference"),
)


def format_table(rows: list[dict[str, float | str]]) -> str:
    """The table as fixed-width text: estimate [95 % interval], of the figures that the rows have."""
    columns = [column for column in _COLUMNS if any(column.figure in row for row in rows)]
    lines = [["agent", *(column.heading for column in columns)]]
    lines += [[str(row["agent"]), *(_cell(row, column) for column in columns)] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)


def _cell(row: Mapping[str, float | str], column: _Column) -> str:
    if column.figure not in row:
        return ""
    low_and_high = [name for name in (f"{column.figure}_low", f"{column.figure}_high") if name in row]
    point, *interval = (
        f"{float(row[name]) * column.scale:.{column.digits}f}" for name in (column.figure, *low_and_high)
    )
    return f"{point}{column.unit}" + (f" [{', '.join(interval)}]" if interval else "")
