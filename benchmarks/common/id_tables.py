"""Tables of what an id stands for: its world and horizon, and the weights by their seals."""

from __future__ import annotations

from benchmarks.common.figures import Load
from clinenv.registration import ENVIRONMENTS, TEAMS, WEIGHTS_SHA256

__all__ = ["ids", "weights"]


def ids(load: Load) -> str:
    """A row an id: entry point, learned world, steps."""
    rows = [
        f"| `{row['id']}` | `{row.get('entry_point', row.get('parallel')).partition(':')[2]}` "
        f"| `{row['kwargs']['world']}` | {row.get('max_episode_steps', 'as the ward')} |"
        for row in (*ENVIRONMENTS, *TEAMS)
    ]
    return "\n".join(["| id | class | learned world | steps at most |", "|---|---|---|---|", *rows])


def weights(load: Load) -> str:
    """A row a folder with weights: its seal, and the ids that are made with it unless told otherwise."""
    rows = []
    for name, seal in WEIGHTS_SHA256.items():
        used = [f"`{row['id']}`" for row in (*ENVIRONMENTS, *TEAMS) if row["kwargs"]["world"] == name]
        rows.append(f"| `{name}` | `{seal}` | {', '.join(used) or 'by name alone'} |")
    return "\n".join(["| weights | seal (SHA-256 over config and tensors) | default of |", "|---|---|---|", *rows])
