"""Judge agents: whole courses of many patients at once, the same patients and luck for everyone, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agents.planning.risk import CVaR
from agents.protocol import Agent, menu_of, to_orders
from clinenv.simulator import Simulator
from world_models import keys as keys_
from world_models.protocol import Chart, Factors, WorldModel

__all__ = ["Episodes", "admission_factors", "format_table", "judge", "paired_table"]


class Episodes(NamedTuple):
    """One course a patient. All tensors [N] on the CPU, in the order of the keys."""

    returns: Tensor  # sum of rewards, undiscounted
    costs: Tensor  # sum of safety costs
    torsades: Tensor  # bool
    lengths: Tensor  # int64 steps until the end
    max_qtcf_ms: Tensor  # over all visits, the first included; NaN where the chart has no QTcF
    terms: dict[str, Tensor]  # sum of each named reward term
    orders: Tensor  # [N, A]: total of each order over the course


def admission_factors(chart: Chart, *worlds: WorldModel) -> dict[str, Tensor]:
    """The patients of an admission chart as factors that all `worlds` take: name -> [N], within their bounds.

    A factor is read off the measure of its own name, or, for `baseline_x` and `admission_x`, off the measure x at
    admission. What no chart shows (the metaboliser) is left to each world.
    """
    found = {}
    for quantity in worlds[0].factors:
        others = [next((q for q in w.factors if q.name == quantity.name), None) for w in worlds]
        short = quantity.name.removeprefix("baseline_").removeprefix("admission_")
        source = next((n for n in (quantity.name, short, "arrhythmia_" + short) if n in chart), None)
        if source is not None and None not in others:
            low, high = max(q.low for q in others), min(q.high for q in others)
            found[quantity.name] = chart[source].clamp(low, high)
    return found


@torch.no_grad()
def judge(
    agent: Agent,
    simulator: Simulator,
    keys: Tensor,
    steps: int,
    factors: Factors | None = None,
    progress: Callable[[int], None] | None = None,
    also: Sequence[str] = (),
) -> Episodes:
    """Run `agent` on the patients of `keys` int64 [N] for at most `steps` steps.

    Two agents judged with equal keys meet the same patients with the same luck: their results are paired row by row.

    Args:
        factors: fixed for all runs, name -> [N].
        progress: called with the number of each finished step.
        also: measures on request that the agent's charts are to hold.

    Raises:
        ValueError: no keys, or fewer than one step.
    """
    if keys.ndim != 1 or keys.shape[0] == 0 or steps < 1:
        raise ValueError(f"judge needs keys [N >= 1] and steps >= 1, got {tuple(keys.shape)} and {steps}")
    count = keys.shape[0]
    menu = menu_of(simulator)
    agent.reset()
    state, chart = simulator.reset(keys, factors, also)

    device = keys.device
    returns, costs = torch.zeros(count, device=device), torch.zeros(count, device=device)
    lengths = torch.zeros(count, dtype=torch.int64, device=device)
    alive = torch.ones(count, dtype=torch.bool, device=device)
    torsades = torch.zeros(count, dtype=torch.bool, device=device)
    max_qtcf = chart["qtcf_ms"].clone() if "qtcf_ms" in chart else torch.full((count,), torch.nan, device=device)
    terms: dict[str, Tensor] = {}
    total_orders: Tensor | None = None

    for step in range(steps):
        orders = to_orders(agent.act(chart).to(device), menu)
        # Who has left gets nothing more: the row is carried along only to keep the batch whole.
        orders = orders * alive.unsqueeze(-1)
        out = simulator.step(state, chart, orders, also)
        state, chart = out.state, out.chart
        live = alive.to(torch.float32)
        returns += live * out.reward
        costs += live * out.cost
        for name, value in out.terms.items():
            terms[name] = terms.get(name, torch.zeros_like(returns)) + live * value
        total_orders = orders.clone() if total_orders is None else total_orders + orders
        lengths += alive
        if "qtcf_ms" in chart:
            max_qtcf = torch.where(alive, torch.maximum(max_qtcf, chart["qtcf_ms"]), max_qtcf)
        if "torsades" in chart:
            torsades |= alive & (chart["torsades"] > 0.5)
        alive = alive & ~out.terminated
        if progress is not None:
            progress(step + 1)
        if not bool(alive.any()):
            break
    result = (returns, costs, torsades, lengths, max_qtcf, terms, total_orders)
    return Episodes(*({k: v.cpu() for k, v in x.items()} if isinstance(x, dict) else x.cpu() for x in result))


def _interval(values: Tensor, draws: Tensor, statistic: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
    """statistic([..., N]) of all patients and its 95 % percentile bootstrap interval; draws int64 [R, N]."""
    values = values.to(torch.float64)
    point = float(statistic(values))
    low, high = torch.quantile(statistic(values[draws]), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return point, low, high


def paired_table(
    results: Mapping[str, Episodes],
    reference: str | None = None,
    resamples: int = 2000,
    seed: int = 0,
    alpha: float = 0.05,
) -> list[dict[str, float | str]]:
    """One row an agent: means with 95 % bootstrap intervals over patients, and paired differences to `reference`.

    The columns of a figure x are x, x_low, x_high; differences are `x_minus_reference` with the same suffixes. Every
    agent meets the same resampled patients. `return_cvar` is the mean return of the worst `alpha` share of patients.

    Raises:
        ValueError: agents were judged on different numbers of patients, or the reference is not among them.
    """
    sizes = {name: episodes.returns.shape[0] for name, episodes in results.items()}
    if len(set(sizes.values())) != 1:
        raise ValueError(f"paired figures need the same patients for everyone, got {sizes}")
    if reference is not None and reference not in results:
        raise ValueError(f"reference {reference!r} was not judged; there are: {', '.join(results)}")
    count = next(iter(sizes.values()))
    # Every row of `draws` is one resample of the patients.
    draws = keys_.bits(keys_.from_seed(seed, resamples), 0, "judge/bootstrap", (count,)) % count
    tail = CVaR(alpha)

    def mean(x: Tensor) -> Tensor:
        return x.mean(-1)

    rows: list[dict[str, float | str]] = []
    for name, episodes in results.items():
        row: dict[str, float | str] = {"agent": name, "patients": count}
        figures = {
            "return": (episodes.returns, mean),
            "cost": (episodes.costs, mean),
            "torsades": (episodes.torsades.to(torch.float32), mean),
            "return_cvar": (episodes.returns, tail),
        }
        for figure, (values, statistic) in figures.items():
            row[figure], row[f"{figure}_low"], row[f"{figure}_high"] = _interval(values, draws, statistic)
        row["max_qtcf_ms"] = float(episodes.max_qtcf_ms.mean())
        row["share_over_500_ms"] = float((episodes.max_qtcf_ms > 500).to(torch.float32).mean())
        if reference is not None:
            base = results[reference]
            pairs = {
                "return": episodes.returns - base.returns,
                "cost": episodes.costs - base.costs,
                "torsades": episodes.torsades.to(torch.float32) - base.torsades.to(torch.float32),
            }
            for figure, values in pairs.items():
                at = f"{figure}_minus_reference"
                row[at], row[f"{at}_low"], row[f"{at}_high"] = _interval(values, draws, mean)
        rows.append(row)
    return rows


def format_table(rows: list[dict[str, float | str]]) -> str:
    """The table as fixed-width text: estimate [95 % interval]."""

    def cell(row: dict[str, float | str], figure: str, scale: float = 1.0, digits: int = 2) -> str:
        if figure not in row:
            return ""
        point, low, high = (float(row[k]) * scale for k in (figure, f"{figure}_low", f"{figure}_high"))
        return f"{point:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"

    head = ["agent", "return", "safety cost", "torsades, %", "CVaR return", "max QTcF", "return minus reference"]
    lines = [head]
    for row in rows:
        lines.append(
            [
                str(row["agent"]),
                cell(row, "return"),
                cell(row, "cost"),
                cell(row, "torsades", 100.0, 1),
                cell(row, "return_cvar"),
                f"{float(row['max_qtcf_ms']):.0f} ms",
                cell(row, "return_minus_reference"),
            ]
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(part.ljust(width) for part, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    text.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(text)
