"""The ids that can be played, and the worlds that fit them."""

from __future__ import annotations

from collections.abc import Mapping

from clinenv.play import clinic_game, drug_game, ward_game
from clinenv.play.game import Game
from clinenv.registration import ENVIRONMENTS
from world_models import catalog

__all__ = ["GAMES", "ORDER_NAMES", "default_world", "learned_worlds"]

GAMES: dict[str, Game] = {
    game.id: game for game in (drug_game.DRUG, drug_game.CONTINUOUS, ward_game.WARD, ward_game.DOSE, clinic_game.CLINIC)
}
ORDER_NAMES: Mapping[str, tuple[str, str]] = {  # order -> (label, group)
    **drug_game.ORDER_NAMES,
    **ward_game.ORDER_NAMES,
    **clinic_game.ORDER_NAMES,
}


def default_world(env_id: str) -> str:
    """The learned world that an id is made with when none is named."""
    return next(str(row["kwargs"]["world"]) for row in ENVIRONMENTS if row["id"] == env_id)


def learned_worlds(env_id: str) -> tuple[str, ...]:
    """The learned worlds of the catalogue that answer to the orders of an id, its default first.

    Worlds of one class take the same orders.
    """
    default = default_world(env_id)
    factory = catalog.WORLDS[default].factory
    others = (name for name, entry in catalog.WORLDS.items() if entry.factory == factory and name != default)
    return (default, *others)
