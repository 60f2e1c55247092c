"""Summaries of oracle stays in all styles, each with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from world_models.data.ehr.context.schema import StaticContext
from world_models.ehr_world.set_outcome.stay_tensors import Stays
from world_models.ehr_world.ward_summaries.facts import StayFacts, facts_of
from world_models.ehr_world.ward_summaries.wording import Dice, Style, named, truth_of

__all__ = ["Summary", "write_summaries"]


class Summary(NamedTuple):
    """A discharge summary, and what it says."""

    text: str
    truth: StaticContext
    style: str


def write_summaries(stays: Stays, key: Tensor, styles: Sequence[Style]) -> list[Summary]:
    """A summary of each stay [B] of the oracle with its key [B], the styles in turn.

    Raises:
        ValueError: no styles, or as `facts_of`.
    """
    if not styles:
        raise ValueError("there are no styles; give one of ward_summaries' at least")
    return [
        _written(facts, Dice(key[row : row + 1], styles[row % len(styles)].name), styles[row % len(styles)])
        for row, facts in enumerate(facts_of(stays, key))
    ]


def _written(facts: StayFacts, dice: Dice, style: Style) -> Summary:
    conditions = named(facts, style.words, dice)
    allergies = [dice.pick(style.words.allergens[a], f"allergen/{a}") for a in facts.allergies or ()]
    text = style.write(facts, conditions, allergies, style.words, dice)
    return Summary(text, truth_of(facts, conditions, allergies), style.name)
