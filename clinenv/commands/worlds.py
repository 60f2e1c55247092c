"""`clinenv worlds`, and how a command finds and describes the world it is asked for."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clinenv.commands.errors import UsageError
from clinenv.commands.listing import add_json_flag, aligned, as_json
from clinenv.rendering.labels import NOT_FOR_CLINICAL_USE

if TYPE_CHECKING:
    from world_models.protocol import WorldModel

__all__ = ["about", "add_arguments", "load_world", "rows", "run"]

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
        body = re.sub(r"\n- (?:(?!\n- )[^|])*:\n\n(?=\|)", "\n", body)  # what only introduces a table
        body = "\n".join(line for line in body.splitlines() if not line.lstrip().startswith(("|", "```")))
        body = re.sub(r"\[([^\]]*)\]\([^)]*\)|[*`]", lambda m: m.group(1) or "", body)
        body = body.replace(":\n\n- ", ": ").replace(".\n- ", ". ").replace("\n- ", "; ")
        body = re.sub(r"\s+", " ", body).strip(" ;")
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
    """State the arguments of `clinenv worlds`."""
    add_json_flag(parser)


def rows() -> list[dict[str, Any]]:
    """Every world of the catalogue as plain JSON: what it is, and of a learned one its weights, seal and card."""
    from world_models import catalog

    found = []
    for name, entry in catalog.WORLDS.items():
        row: dict[str, Any] = {"world": name, "kind": "mechanistic" if entry.weights is None else "learned"}
        found.append(row | ({"meaning": entry.meaning} if entry.weights is None else _learned(name)))
    return found


def _learned(name: str) -> dict[str, Any]:
    """What lies in the folder of a learned world."""
    from clinenv.registration import WEIGHTS_SHA256
    from world_models import catalog, checkpoint
    from world_models.card_header import header_of

    folder = catalog.weights_folder(name)
    row: dict[str, Any] = {"meaning": "", "megabytes": None, "sha256": None, "released": False, "problem": None}
    try:
        row["sha256"] = checkpoint.sha256(folder)
        row["megabytes"] = round((folder / checkpoint.WEIGHTS).stat().st_size / 1e6, 1)
        row["released"] = row["sha256"] == WEIGHTS_SHA256.get(name)
    except FileNotFoundError as error:
        row["problem"] = f"weights missing: {error}"
    except ValueError as error:
        row["problem"] = f"weights damaged: {error}"
    sections = _card(folder)
    row["meaning"] = next(iter(sections.values())).split(". ")[0].rstrip(".")
    row["trained_on"] = sections.get("Training data", "")
    card = folder / checkpoint.CARD
    told = header_of(card.read_text(encoding="utf-8"), {}) if card.is_file() else {}
    row |= {"card": str(card), "license": told.get("license"), "datasets": told.get("datasets", [])}
    return row


def run(given: argparse.Namespace) -> int:
    """Print one line for each world: what it is, whether its weights are here, whole, and the released ones."""
    found = rows()
    if given.json:
        print(as_json(found))
        return 0
    lines = []
    for row in found:
        words = row["meaning"]
        if row["kind"] == "learned":
            known = "released" if row["released"] else "not the released one"
            seal = f"{row['megabytes']} MB, {known}, SHA-256 {str(row['sha256'])[:12]}..."
            data = ", ".join(name.removeprefix("physionet-") for name in row["datasets"])
            words = re.split(r"[:(]| on latents| after ", words)[0].strip()
            words = f"learned ({row['problem'] or seal}): {words}" + (f"; real data: {data}" if data else "")
        lines.append((row["world"], words))
    print(aligned(lines))
    print(
        "A folder with config.json and model.safetensors is a world, too, and causal-lm:FOLDER a language model that "
        f"was made one. What each learned from, whole: --json, and the cards beside the weights. {NOT_FOR_CLINICAL_USE}"
    )
    return 0
