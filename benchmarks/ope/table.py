"""The table of `benchmarks.offline`: how far each estimator is from the truth, and whether it ranks the policies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from world_models import bootstrap

__all__ = ["printed", "summary"]

_COLUMNS = (
    ("bias", "bias"),
    ("rmse", "RMSE"),
    ("rank_correlation", "rank correlation"),
    ("regret", "regret"),
    ("coverage", "coverage"),
    ("effective_stays", "effective stays"),
)


def summary(cells: Sequence[Mapping[str, Any]], resamples: int = bootstrap.RESAMPLES) -> list[dict[str, Any]]:
    """One row an id, a position of the dial and an estimator, the least RMSE first.

    RMSE's interval is a bootstrap over policies and logs. The rank correlation is the mean over logs; its interval
    holds all that the logs' own had (the lowest low, the highest high). `coverage` is the share of 95 % intervals that
    hold the truth; `regret` what choosing the policy of the highest estimate costs in return.
    """
    found = []
    for env_id, dial in dict.fromkeys((c["cell"]["env_id"], c["cell"]["dial"]) for c in cells):
        here = [c for c in cells if (c["cell"]["env_id"], c["cell"]["dial"]) == (env_id, dial)]
        rows = [row for c in here for row in c["rows"]]
        group = []
        for estimator in dict.fromkeys(row["estimator"] for row in rows):
            mine = [row for row in rows if row["estimator"] == estimator]
            ranks = [c["ranks"][estimator] for c in here]
            policies = len({row["policy"] for row in mine})
            told = {"id": env_id, "dial": dial, "estimator": estimator, "policies": policies, "logs": len(here)}
            group.append({**told, **_errors(mine, resamples), **_ranks(ranks)})
        group.sort(key=lambda row: row["rmse"] if row["rmse"] == row["rmse"] else float("inf"))
        found += [{**row, "place": place + 1} for place, row in enumerate(group)]
    return found


def _errors(rows: Sequence[Mapping[str, Any]], resamples: int) -> dict[str, float]:
    error = torch.tensor([row["error"] for row in rows], dtype=torch.float64)
    drawn = error[bootstrap.resamples(len(error), resamples)]
    low, high = bootstrap.percentile_interval(drawn.square().mean(-1).sqrt())
    inside = [row["estimate_low"] <= row["truth"] <= row["estimate_high"] for row in rows]
    sizes = torch.tensor([row["effective_stays"] for row in rows], dtype=torch.float64)
    return {
        "bias": float(error.mean()),
        "mean_absolute_error": float(error.abs().mean()),
        "rmse": float(error.square().mean().sqrt()),
        "rmse_low": low,
        "rmse_high": high,
        "coverage": sum(inside) / len(inside),
        "effective_stays": float(sizes.median()),
    }


def _ranks(ranks: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {
        "rank_correlation": sum(r["rank_correlation"] for r in ranks) / len(ranks),
        "rank_correlation_low": min(r["rank_correlation_low"] for r in ranks),
        "rank_correlation_high": max(r["rank_correlation_high"] for r in ranks),
        "regret": sum(r["regret"] for r in ranks) / len(ranks),
    }


def printed(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table as fixed-width text, a block an id and a position of the dial."""
    lines: list[str] = []
    at = None
    for row in rows:
        if (row["id"], row["dial"]) != at:
            at = (row["id"], row["dial"])
            lines += ["", f"{row['id']}, dial {row['dial']:g}: {row['policies']} policies, {row['logs']} logs"]
            lines.append(f"{'estimator':32s}" + "".join(f"{heading:>24s}" for _, heading in _COLUMNS))
        lines.append(f"{row['estimator']:32s}" + "".join(f"{_cell(row, name):>24s}" for name, _ in _COLUMNS))
    return "\n".join(lines)


def _cell(row: Mapping[str, Any], name: str) -> str:
    value = float(row[name])
    if value != value:
        return "-"
    text = f"{value:.0f}" if name == "effective_stays" else f"{value:.2f}"
    if f"{name}_low" in row:
        text += f" [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
    return text
