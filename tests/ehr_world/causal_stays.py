"""Small stays for the tests of the language models: two vital signs that follow each other and one drug."""

from __future__ import annotations

import math

from world_models.ehr_world.causal_lm.text import STATUS, AskedItem, Given, Narrative, NarrativeStep

ITEMS = (("heart_rate_bpm", "bpm"), ("map_mmhg", "mm[Hg]"))


def stay(number: int, steps: int = 4) -> Narrative:
    """A stay whose course is a function of its number; every third has a culture, gaps differ."""
    told, index = [], 0
    for t in range(steps):
        rate = 60 + 7 * (number % 5) + round(8 * math.sin(t + number))
        values = dict(zip(("heart_rate_bpm", "map_mmhg"), (float(rate), 150.0 - rate), strict=True))
        asked = [AskedItem(item, values[item], None, unit) for item, unit in ITEMS[: 1 + (number + t) % 2]]
        if t == 1 and number % 3 == 0:
            asked.insert(0, AskedItem("culture//blood//aerobic", label="negative" if number % 2 else "e. coli"))
        asked.append(AskedItem(STATUS, label="discharged" if t + 1 == steps else "stays"))
        given = (Given("norepinephrine", "infusion", None, "", 0.1 * (1 + number % 4), "ug/kg/min", 4.0, "iv"),)
        told.append(NarrativeStep(index, tuple(asked), given if t % 2 else ()))
        index += 1 + (number + t) % 3
    facts = (("age_years", 40.0 + number % 40), ("sex", "female" if number % 2 else "male"))
    return Narrative(facts, (), 4.0, tuple(told))


def stays(count: int, steps: int = 4) -> list[Narrative]:
    return [stay(number, steps) for number in range(count)]
