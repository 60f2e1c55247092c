"""`clinenv worlds`, and how a command finds and describes the world it is asked for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from world_models.protocol import WorldModel

__all__ = ["about", "add_arguments", "load_world", "run"]

_LONGEST = 700  # characters that a report shows of one section of a card
_SECTIONS = re.compile(r"train|data|fit|limit|intend|use|licen[cs]e|attribut|model|what|architect", re.IGNORECASE)


def load_world(name: str) -> WorldModel[Any]:
    """A world by its name, or from a folder with weights; a released name must come with the released weights.

    Raises:
        UsageError: no such world, or its files are missing or damaged.
    """
    from clinenv.registration import WEIGHTS_SHA256
    from world_models import catalog

    try:
        return catalog.load(name, sha256=WEIGHTS_SHA256.get(name))
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(f"--world {name}: {error}") from error


def _folder(name: str) -> Path | None:
    """Where the weights of a world lie, if it has any."""
    from world_models import catalog

    if name in catalog.WORLDS:
        return catalog.weights_folder(name) if catalog.WORLDS[name].weights else None
    return Path(name)


def _card(folder: Path) -> dict[str, str]:
    """The sections of a CARD.md that say what the world is and what it was trained on, as plain text."""
    from world_models.checkpoint import CARD

    path = folder / CARD
    if not path.is_file():
        return {"Trained on": f"not stated: there is no {CARD} beside the weights"}
    rows: dict[str, str] = {}
    for block in re.split(r"^#{1,3} +", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        head, _, body = block.partition("\n")
        body = "\n".join(line for line in body.splitlines() if not line.lstrip().startswith(("|", "```")))
        body = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", lambda m: m.group(1) or "", body)
        body = re.sub(r"\s+", " ", body.replace("\n- ", "; ")).strip(" ;")
        if body and (not rows or _SECTIONS.search(head)):
            cut = body if len(body) <= _LONGEST else body[:_LONGEST].rsplit(". ", 1)[0].rstrip(".") + ". ..."
            rows[head.strip(" #`")] = cut
    return rows


def _fit(meaning: str, provenance: dict[str, Any]) -> dict[str, str]:
    """What a mechanistic world's parameters were fitted on, as the fit itself recorded it."""
    youngest, oldest = provenance["age_years_range"]
    return {
        "What it is": meaning,
        "Fitted on": (
            f"{provenance['dataset']}; {provenance['subjects']} subjects ({provenance['women']} women), "
            f"{youngest:g} to {oldest:g} years. {provenance['citation']}. {provenance['licence']}"
        ),
        "Beat shapes": "LUDB 1.0.1 (doi 10.1109/ACCESS.2020.3029211), Open Data Commons Attribution License (ODC-By)",
        "Limits": (
            "Fitted on the healthy and on single doses: repeated doses are superposed; illness, other ages and "
            "interacting drugs are extrapolations"
        ),
    }


def about(name: str, world: WorldModel[Any]) -> dict[str, str]:
    """What a report says of the world: what it is, what it was trained on, which weights."""
    from world_models.protocol import CalibratesBands

    rows = {"World": world.name}
    folder = _folder(name)
    if folder is None:
        from world_models import catalog
        from world_models.protocol import HasTrial

        meaning = catalog.WORLDS[name].meaning
        if isinstance(world, HasTrial):
            rows |= _fit(meaning, world.trial.parameters["provenance"])
        else:
            rows["What it is"] = meaning
    else:
        from world_models import checkpoint

        rows |= _card(folder)
        rows["Weights"] = f"SHA-256 {checkpoint.sha256(folder)}"
    rows["Step"] = f"{world.hours_per_step:g} h"
    rows["Bands"] = "the middle 90 % of the samples"
    if isinstance(world, CalibratesBands):
        rows["Bands"] += ", corrected by split conformal prediction on simulated patients dosed as the labels have it"
    return rows


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """State the arguments of `clinenv worlds`: there are none."""


def run(given: argparse.Namespace) -> int:
    """Print one line for each world: what it is, and whether its weights are here."""
    from world_models import catalog
    from world_models.checkpoint import WEIGHTS

    for name, entry in catalog.WORLDS.items():
        if entry.weights is None:
            words = entry.meaning
        else:
            weights = catalog.weights_folder(name) / WEIGHTS
            size = f"{weights.stat().st_size / 1e6:.1f} MB" if weights.is_file() else "weights missing"
            words = f"learned ({size})"
        print(f"{name:<16} {words}")
    print(
        "A folder with config.json and model.safetensors is a world, too, and causal-lm:FOLDER a language model that "
        f"was made one. {NOT_FOR_CLINICAL_USE}"
    )
    return 0
