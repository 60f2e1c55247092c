"""The data sheet of a log: what it is, of whom, by what, and how it reads, as JSON and as Markdown."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from agents.offline.logged import Logged
from world_models.config_json import parse_json
from world_models.files import write_text

__all__ = ["read_sheet", "sheet_of", "write_sheet"]

_OFTEN = 12  # entries of the action that the sheet lists
FIELDS = {
    "about": "JSON text, the table above",
    "seed": "int64 [N], of each patient, as for the environment's reset",
    "length": "int64 [N], steps of each stay; the arrays of steps hold them one after the other",
    "observation": "float32 [S + N, n], as the environment shows it, one row more than steps in each stay",
    "choice": "[S, D], the action: a row of the menu, levels, switches, or shares of the largest doses",
    "reward, cost": "float32 [S]",
    "term_NAME": "float32 [S], what the reward is the sum of",
    "log_prob": "float32 [S], of the choice given all that the behaviour saw, hidden severity included",
    "nominal_log_prob": "float32 [S], of the choice with the dial at 0: what the charts alone tell",
    "hidden_severity": "float32 [N], rank at admission in (0, 1), in no observation; for judging only",
    "terminated, truncated": "bool [S]",
    "mask": "int8 [S + N, entries], the action mask, where the task refuses orders",
}


def sheet_of(logged: Logged, path: Path, command: str) -> dict[str, Any]:
    """The sheet of a log that was saved to `path`; plain JSON."""
    returns, costs = logged.returns, logged.cost.sum(-1)
    spread = torch.quantile(returns, torch.tensor([0.05, 0.5, 0.95]))
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": command,
        "about": json.loads(json.dumps(asdict(logged.about))),
        "steps": int(logged.length.sum()),
        "mean_steps_of_a_stay": float(logged.length.to(torch.float32).mean()),
        "share_terminated": float(logged.terminated.any(-1).to(torch.float32).mean()),
        "return": {"mean": float(returns.mean()), "sd": float(returns.std()), "quantiles_5_50_95": spread.tolist()},
        "cost": {"mean": float(costs.mean()), "sd": float(costs.std())},
        "mean_reward_terms": {name: float(value.sum(-1).mean()) for name, value in sorted(logged.terms.items())},
        "share_of_steps": _shares(logged),
        "fields": FIELDS,
        "note": "Simulated patients. Not for clinical use.",
    }


def _shares(logged: Logged) -> dict[str, float]:
    """How often each row of the menu, or each order, was chosen, the commonest first."""
    choice = logged.choice[logged.here]
    labels = logged.about.action_labels
    if logged.about.action_kind == "menu":
        shares = torch.bincount(choice.squeeze(-1), minlength=len(labels)) / len(choice)
    else:
        shares = (choice > 0).to(torch.float32).mean(0)
    order = shares.argsort(descending=True)[:_OFTEN]
    return {labels[i]: float(shares[i]) for i in order.tolist()}


def write_sheet(sheet: dict[str, Any], path: Path) -> None:
    """The sheet beside its log: NAME.json and NAME.md."""
    write_text(path.with_suffix(".json"), json.dumps(sheet, indent=1) + "\n")
    write_text(path.with_suffix(".md"), _markdown(sheet))


def read_sheet(path: Path) -> dict[str, Any] | None:
    """The sheet beside a log; None: there is none, or it is of another file."""
    try:
        sheet = parse_json(path.with_suffix(".json").read_bytes(), str(path.with_suffix(".json")))
        same = sheet["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return sheet if same else None


def _markdown(sheet: dict[str, Any]) -> str:
    about = sheet["about"]
    seal = about["weights_sha256"] or "no weights"
    dial = about["confounding"]
    acts = "the behaviour reads the chart alone" if dial == 0 else "the behaviour also acts on a hidden severity"
    rows = {
        "environment": about["env_id"],
        "world": f"{about['world']} ({seal}), cohort {about['cohort'] or 'of the world'}",
        "behaviour": about["behaviour"],
        "confounding dial": f"{dial:g}: {acts}",
        "patients": f"{about['patients']:,}, seeds {about['first_seed']:,} and on",
        "steps": f"{sheet['steps']:,}, {sheet['mean_steps_of_a_stay']:.1f} a stay of at most {about['most_steps']}",
        "ended before the limit": f"{100 * sheet['share_terminated']:.1f} %",
        "return of a stay": f"{sheet['return']['mean']:.3f}, SD {sheet['return']['sd']:.3f}",
        "safety cost of a stay": f"{sheet['cost']['mean']:.3f}, SD {sheet['cost']['sd']:.3f}",
        "action": f"{about['action_kind']}, {len(about['action_labels'])} entries",
        "file": f"{sheet['file']}, {sheet['bytes'] / 1e6:.2f} MB, SHA-256 {sheet['sha256']}",
        "made by": f"`{sheet['command']}`",
    }
    table = [f"| {name} | {value} |" for name, value in rows.items()]
    shares = [f"| {name} | {100 * share:.1f} % |" for name, share in sheet["share_of_steps"].items()]
    fields = [f"| {name} | {meaning} |" for name, meaning in sheet["fields"].items()]
    return "\n".join(
        [
            f"# {Path(sheet['file']).stem}",
            "",
            f"Logged courses with truth. {sheet['note']}",
            "",
            *("| what | |", "|---|---|", *table, ""),
            *("| chosen | share of steps |", "|---|---|", *shares, ""),
            "Arrays of the HDF5 file (`agents.offline.logged.load` reads it); N stays, S steps:",
            "",
            *("| array | meaning |", "|---|---|", *fields, ""),
        ]
    )
