"""Deciders judged twice on the same patients: in the oracle, and in the learned world that they were made in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from agents.rollout import Episodes, paired_table

__all__ = ["average", "with_promise"]


def average(runs: Sequence[Episodes]) -> Episodes:
    """Several trainings of one recipe as one decider: each patient's figures averaged over the seeds."""

    def mean(name: str) -> torch.Tensor:
        return torch.stack([getattr(r, name).to(torch.float32) for r in runs]).mean(0)

    terms = {k: torch.stack([r.terms[k] for r in runs]).mean(0) for k in runs[0].terms}
    names = ("returns", "costs", "torsades", "lengths", "max_qtcf_ms")
    return Episodes(*(mean(n) for n in names), terms, mean("orders"))


def with_promise(rows: list[dict[str, Any]], earned: Mapping[str, Episodes], promised: Mapping[str, Episodes]) -> None:
    """Add to each row what the learned world promised, and the gap (promised minus earned) with its interval."""
    names = [str(row["agent"]) for row in rows]
    promises = {str(r["agent"]): r for r in paired_table({n: promised[n] for n in names})}
    for row in rows:
        name = str(row["agent"])
        both = paired_table({"earned": earned[name], "promised": promised[name]}, reference="earned")[1]
        for figure in ("return", "cost", "torsades"):
            row[f"promised_{figure}"] = promises[name][figure]
            for suffix in ("", "_low", "_high"):
                row[f"gap_{figure}{suffix}"] = both[f"{figure}_minus_reference{suffix}"]
