"""Pages of the worlds: the card beside the weights, or the oracle's own words, and what it measures and takes."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Sequence
from typing import Any

from docs.site.docstrings import SECTION
from docs.site.links import ROOT, Links
from world_models import catalog
from world_models.card_header import without_header
from world_models.protocol import HasWeights
from world_models.quantity import Quantity

__all__ = ["generate", "pages"]

WEIGHTS = ROOT / "world_models" / "weights"


def pages() -> dict[str, str]:
    """Card of a folder of weights -> its page."""
    return {card.relative_to(ROOT).as_posix(): f"worlds/{card.parent.name}" for card in _cards()}


def generate(links: Links) -> dict[str, str]:
    """Page -> text: every world of the catalogue, every other folder of weights, and the list of them."""
    found = {}
    for card in _cards():
        text = links.rewrite(card.read_text(encoding="utf-8"), card.relative_to(ROOT).as_posix())
        name = card.parent.name
        found[f"worlds/{name}"] = text + (_tables(name) if name in catalog.WORLDS else "")
    for name, entry in catalog.WORLDS.items():
        if entry.weights is None:
            found[f"worlds/{name}"] = f"# {name}\n\n{entry.meaning}.\n\n{_own_words(entry.factory)}\n{_tables(name)}"
    found["worlds/index"] = _index()
    return found


def _cards() -> list[Any]:
    return sorted(WEIGHTS.glob("*/CARD.md"))


def _own_words(factory: str) -> str:
    """What the module of an oracle says of it, as Markdown, without its list of arguments."""
    text = inspect.getdoc(importlib.import_module(factory.partition(":")[0])) or ""
    return "\n".join(line for line in text.splitlines() if not SECTION.match(line))


def _tables(name: str) -> str:
    """Measures, orders and factors of a world with their units and bounds."""
    world = catalog.load(name)
    parts = [
        f"\n## Use\n\n    world_models.catalog.load({name!r})    # or world={name!r} where an environment is made\n",
        f"One step is {world.hours_per_step:g} h.\n" if world.hours_per_step < 100 else "",
    ]
    if isinstance(world, HasWeights):
        parts.append(f"Its seal (SHA-256 over config and weights) is `{world.weights_sha256}`.\n")
    for title, quantities in (
        ("What it measures", world.measures),
        ("What may be ordered", world.orders),
        ("What may be fixed about a patient", world.factors),
    ):
        parts.append(f"\n## {title}\n\n{_table(quantities)}")
    return "\n".join(parts)


def _table(quantities: Sequence[Quantity]) -> str:
    rows = []
    for quantity in quantities:
        shape = f" {list(quantity.shape)}" if quantity.shape else ""
        meaning = quantity.meaning.replace("|", "\\|") + (" (on request)" if quantity.on_request else "")
        rows.append(
            f"| `{quantity.name}`{shape} | {quantity.unit} | {quantity.low:g} | {quantity.high:g} | {meaning} |"
        )
    return "| name | unit | least | greatest | meaning |\n|---|---|---|---|---|\n" + "\n".join(rows) + "\n"


def _index() -> str:
    rows, names = [], []
    for name, entry in catalog.WORLDS.items():
        rows.append(f"| [{name}](/worlds/{name}.md) | {entry.meaning or _first(name)} |")
        names.append(name)
    for card in _cards():
        if card.parent.name not in catalog.WORLDS:
            rows.append(f"| [{card.parent.name}](/worlds/{card.parent.name}.md) | {_first(card.parent.name)} |")
            names.append(card.parent.name)
    return (
        "# Worlds\n\nWhat ships, learned and mechanistic, and two models besides that are no worlds (`ecg-risk-small`, "
        "`ecg-inverse-small`). Take a learned one to train and plan in, an oracle to judge: each environment's "
        '`world="oracle"` is that of its domain. **Not for clinical use.**\n\n'
        f"| world | what it is |\n|---|---|\n{chr(10).join(rows)}\n\n"
        f"```{{toctree}}\n:hidden:\n\n{chr(10).join(names)}\n```\n"
    )


def _first(name: str) -> str:
    """The first sentence of a card."""
    card = without_header((WEIGHTS / name / "CARD.md").read_text(encoding="utf-8"))
    text = card.split("\n\n")[1]  # below the title
    return re.split(r"(?<=[.:])(?<! al\.) ", " ".join(text.split()))[0].rstrip(":")
