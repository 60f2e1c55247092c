"""Flow: how many rows, episodes and patients went in, how many are left at each stage, and why the others are not.

Two ledgers. Rows: of every table read, rows = kept + dropped by reason (`Flow.check` holds readers to it). Stages: of
every filter, patients, episodes and events left, and the reasons with their counts. Flows of shards add up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from world_models.config_json import parse_json

__all__ = ["Flow", "Ledger", "Stage"]


@dataclass
class Ledger:
    """Rows of one table."""

    read: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    repaired: Counter[str] = field(default_factory=Counter)  # what was mended in rows that were kept -> rows

    def as_dict(self) -> dict[str, Any]:
        """As JSON values, the commonest reasons first."""
        return {
            "read": self.read,
            "kept": self.kept,
            "dropped": dict(self.dropped.most_common()),
            "repaired": dict(self.repaired.most_common()),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Ledger:
        """From what `as_dict` gives."""
        return cls(data["read"], data["kept"], Counter(data["dropped"]), Counter(data["repaired"]))


@dataclass
class Stage:
    """What is left after one step of the pipeline."""

    name: str
    patients: int = 0
    episodes: int = 0
    inquiries: int = 0
    interventions: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> episodes


class Flow:
    """The ledger of a run: `rows[table]` and `stages` in order."""

    def __init__(self) -> None:
        self.rows: dict[str, Ledger] = {}
        self.stages: list[Stage] = []
        self.notes: list[str] = []
        # item -> values met, and item -> {source unit -> values} that no conversion is known for
        self.values: Counter[str] = Counter()
        self.implausible: Counter[str] = Counter()  # item -> values outside its plausible range
        self.unknown_units: dict[str, Counter[str]] = {}

    def table(self, name: str) -> Ledger:
        """The ledger of a table, made when it is first asked for."""
        return self.rows.setdefault(name, Ledger())

    def drop(self, table: str, reason: str, rows: int) -> None:
        """Count rows of a table that went no further; nothing is written down for zero."""
        if rows:
            self.table(table).dropped[reason] += int(rows)

    def refuse(self, table: str, reason: str, rows: int) -> None:
        """Count rows that are dropped before anything else has counted them as read."""
        self.table(table).read += int(rows)
        self.drop(table, reason, rows)

    def repair(self, table: str, what: str, rows: int) -> None:
        """Count rows that were mended and kept."""
        if rows:
            self.table(table).repaired[what] += int(rows)

    def stage(self, name: str, dropped: Mapping[str, int] | None = None, **counts: int) -> Stage:
        """Add the next stage (or to the stage of that name, when flows are summed)."""
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            found = Stage(name)
            self.stages.append(found)
        for key, value in counts.items():
            setattr(found, key, getattr(found, key) + int(value))
        found.dropped.update({reason: int(n) for reason, n in (dropped or {}).items() if n})
        return found

    def note(self, text: str) -> None:
        """Remember a sentence for the reader, once."""
        if text not in self.notes:
            self.notes.append(text)

    def add(self, other: Flow) -> Flow:
        """Sum another shard's flow into this one (patients add up: a patient is in one shard). Returns self."""
        for name, ledger in other.rows.items():
            mine = self.table(name)
            mine.read += ledger.read
            mine.kept += ledger.kept
            mine.dropped.update(ledger.dropped)
            mine.repaired.update(ledger.repaired)
        for stage in other.stages:
            counts = {k: getattr(stage, k) for k in ("patients", "episodes", "inquiries", "interventions")}
            self.stage(stage.name, stage.dropped, **counts)
        for text in other.notes:
            self.note(text)
        self.values.update(other.values)
        self.implausible.update(other.implausible)
        for item, units in other.unknown_units.items():
            self.unknown_units.setdefault(item, Counter()).update(units)
        return self

    def check(self) -> None:
        """Raises ValueError where a table's rows do not add up: a reader has dropped something silently."""
        for name, ledger in self.rows.items():
            lost = ledger.read - ledger.kept - sum(ledger.dropped.values())
            if lost:
                raise ValueError(
                    f"table {name}: {ledger.read} rows read, {ledger.kept} kept, {sum(ledger.dropped.values())} "
                    f"dropped with a reason; {lost} unaccounted for: the reader must count them"
                )

    def as_dict(self) -> dict[str, Any]:
        """As JSON values: what flow.json holds."""
        return {
            "rows": {name: ledger.as_dict() for name, ledger in self.rows.items()},
            "stages": [
                {
                    "name": stage.name,
                    "patients": stage.patients,
                    "episodes": stage.episodes,
                    "inquiries": stage.inquiries,
                    "interventions": stage.interventions,
                    "dropped": dict(stage.dropped.most_common()),
                }
                for stage in self.stages
            ],
            "notes": list(self.notes),
            "values": dict(self.values.most_common()),
            "implausible": dict(self.implausible.most_common()),
            "unknown_units": {item: dict(units.most_common()) for item, units in self.unknown_units.items()},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Flow:
        """From what `as_dict` gives."""
        flow = cls()
        flow.rows = {name: Ledger.from_dict(row) for name, row in data["rows"].items()}
        flow.stages = [Stage(**{**stage, "dropped": Counter(stage["dropped"])}) for stage in data["stages"]]
        flow.notes = list(data["notes"])
        flow.values = Counter(data["values"])
        flow.implausible = Counter(data.get("implausible", {}))
        flow.unknown_units = {item: Counter(units) for item, units in data["unknown_units"].items()}
        return flow

    @classmethod
    def read(cls, path: str | Path) -> Flow:
        """From a flow.json."""
        return cls.from_dict(parse_json(Path(path).read_bytes(), str(path)))

    def diagram(self, reasons: int = 8) -> str:
        """The flow as text: tables first, then stages; of each at most `reasons` reasons, the rest summed."""
        lines = ["Rows"]
        for name, ledger in self.rows.items():
            share = f" ({100 * ledger.kept / ledger.read:.1f} %)" if ledger.read else ""
            lines.append(f"  {name}: {ledger.read:,} read -> {ledger.kept:,} kept{share}")
            lines += _reasons(ledger.dropped, "-", reasons) + _reasons(ledger.repaired, "~", reasons)
        if self.implausible:
            lines.append("Values outside their item's plausible range")
            lines += [f"    - {n:,} of {self.values[name]:,}: {name}" for name, n in self.implausible.most_common()]
        lines.append("Stages")
        for i, stage in enumerate(self.stages):
            if i:
                lines.append("    |")
                lines += _reasons(stage.dropped, "-", reasons, " episodes")
            lines.append(
                f"  [{stage.name}] {stage.patients:,} patients, {stage.episodes:,} episodes, "
                f"{stage.inquiries:,} inquiries, {stage.interventions:,} interventions"
            )
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def _reasons(counts: Counter[str], mark: str, most: int, what: str = "") -> list[str]:
    ranked = counts.most_common()
    lines = [f"    {mark} {n:,}{what}: {reason}" for reason, n in ranked[:most]]
    if len(ranked) > most:
        lines.append(f"    {mark} {sum(n for _, n in ranked[most:]):,}{what}: {len(ranked) - most} other reasons")
    return lines
