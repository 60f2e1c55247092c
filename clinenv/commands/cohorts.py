"""`clinenv cohorts`: whom the worlds admit, by the names that `cohort=` takes."""

from __future__ import annotations

import argparse
import inspect
from importlib import import_module
from typing import Any

from clinenv.commands.listing import add_json_flag, aligned, as_json
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

__all__ = ["TABLES", "add_arguments", "rows", "run"]

# module with COHORTS -> the worlds of the catalogue that admit by it
TABLES: dict[str, tuple[str, ...]] = {
    "world_models.oracles.ecg_drug.cohort_table": ("oracle", "ecg-wm-small"),
    "world_models.oracles.ward.cohorts": ("ward-oracle",),
    "world_models.oracles.progression.entry": ("progression-oracle",),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv cohorts`."""
    add_json_flag(parser)


def default_of(world: str) -> str | None:
    """The cohort that a world of the catalogue admits unless told; None: it knows none."""
    from world_models import catalog

    module, _, path = catalog.WORLDS[world].factory.partition(":")
    made: Any = import_module(module)
    for part in path.split("."):
        made = getattr(made, part)
    found = inspect.signature(made).parameters.get("cohort")
    return None if found is None else str(found.default)


def rows() -> list[dict[str, Any]]:
    """Every cohort as plain JSON: its name, who is in it, the worlds that know it, and in which it is the default."""
    found = []
    for module, worlds in TABLES.items():
        defaults = {world: default_of(world) for world in worlds}
        for name, cohort in import_module(module).COHORTS.items():
            own = [world for world in worlds if defaults[world] == name]
            found.append({"cohort": name, "meaning": cohort.meaning, "worlds": list(worlds), "default_in": own})
    return found


def run(given: argparse.Namespace) -> int:
    """Print the table, or JSON."""
    found = rows()
    if given.json:
        print(as_json(found))
        return 0
    lines = [
        (", ".join(row["worlds"]), row["cohort"], row["meaning"] + (" (default)" if row["default_in"] else ""))
        for row in found
    ]
    print(aligned([("worlds", "cohort", "who"), *lines]))
    print(f'Take one by gymnasium.make(..., cohort="elderly"); other worlds know none. {NOT_FOR_CLINICAL_USE}')
    return 0
