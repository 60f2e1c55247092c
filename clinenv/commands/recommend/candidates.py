"""What is compared: the menu's doses of each drug the world knows, once or as the label repeats them, and nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.recommend.label_rules import Facts, Finding, findings
from world_models.quantities.drugs import ANTIARRHYTHMICS

if TYPE_CHECKING:
    from world_models.protocol import WorldModel

__all__ = ["NOTHING", "REGIMENS", "Candidate", "candidates_of", "label_interval_h"]

NOTHING = "nothing"
REGIMENS = ("single", "label")
HOURS_PER_DAY = 24.0


@dataclass(frozen=True)
class Candidate:
    """One treatment that is simulated."""

    name: str  # "dofetilide 250 µg", unique
    drug: str  # NOTHING: no drug
    dose_mg: float  # each dose; 0 for nothing
    column: int  # of the world's action; -1 for nothing
    every_hours: float | None  # None: once
    findings: tuple[Finding, ...] = ()  # what the label says of it in this patient

    @property
    def forbidden(self) -> bool:
        """Whether the label rules it out."""
        return any(f.forbids for f in self.findings)


def label_interval_h(drug: str) -> float:
    """Hours between two doses such that the label's largest single dose adds up to its largest daily one."""
    row = next(d for d in ANTIARRHYTHMICS if d.name == drug)
    return HOURS_PER_DAY * row.largest_single_mg / row.largest_daily_mg


def candidates_of(
    world: WorldModel[Any], facts: Facts, drugs: Sequence[str] | None = None, regimen: str = "single"
) -> tuple[Candidate, ...]:
    """Nothing, then the menu's doses in the order of the table of drugs.

    Args:
        facts: of the patient, for what the labels say.
        drugs: those to compare; None: all that the world knows.
        regimen: "single" dose at hour 0, or "label": repeated as the label has it.

    Raises:
        UsageError: a drug that this world does not know, or one named twice.
    """
    columns = {q.name.removesuffix("_mg"): i for i, q in enumerate(world.orders)}
    known = [d for d in ANTIARRHYTHMICS if d.name in columns]
    wanted = [d.name for d in known] if drugs is None else [d.strip().lower() for d in drugs]
    for name in wanted:
        if name not in {d.name for d in known}:
            raise UsageError(
                f"--drugs {name}: not a drug that world {world.name} knows; choose of "
                f"{', '.join(d.name for d in known)}"
            )
    if len(set(wanted)) < len(wanted):
        raise UsageError(f"--drugs {','.join(wanted)}: a drug is named twice; give each once")
    found = [Candidate(NOTHING, NOTHING, 0.0, -1, None)]
    for row in known:
        if row.name not in wanted:
            continue
        every = label_interval_h(row.name) if regimen == "label" else None
        for mg in row.menu_mg:
            dose = f"{mg * 1000:g} µg" if mg < 1 else f"{mg:g} mg"
            found.append(
                Candidate(f"{row.name} {dose}", row.name, mg, columns[row.name], every, findings(row.name, mg, facts))
            )
    return tuple(found)
