"""Deciders judged twice on the same patients: in the oracle, and in the learned world that they were made in.

The exploitation gap is what the learned world promised minus what was earned in the oracle. The ward's table tells two
parts of it apart (`benchmarks.ward.policies`): what the world gets wrong for everybody, and what a policy made of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agents.rollout import EpisodeResults, paired_table

__all__ = ["with_promise"]


def with_promise(
    rows: list[dict[str, Any]], earned: Mapping[str, EpisodeResults], promised: Mapping[str, EpisodeResults]
) -> None:
    """Add to each row what the learned world promised, and the gap (promised minus earned) with its interval."""
    names = [str(row["agent"]) for row in rows]
    promises = {str(r["agent"]): r for r in paired_table({n: promised[n] for n in names})}
    for row in rows:
        name = str(row["agent"])
        both = paired_table({"earned": earned[name], "promised": promised[name]}, reference="earned")[1]
        for figure in ("return", "cost", *earned[name].outcomes.totals):
            row[f"promised_{figure}"] = promises[name][figure]
            for suffix in ("", "_low", "_high"):
                row[f"gap_{figure}{suffix}"] = both[f"{figure}_minus_reference{suffix}"]
