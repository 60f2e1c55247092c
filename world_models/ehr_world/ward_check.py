"""Is a checkpoint's vocabulary that of this version's ward? Units and limits too: a name alone does not tell them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from world_models.ehr_world.vocabulary import SOURCE_PREFIX, STATIC_NAMES, Vocabulary
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS

__all__ = ["check_vocabulary"]

_REMEDY = "Use the version that made the weights, or train again"


def check_vocabulary(words: Vocabulary) -> None:
    """Raises ValueError: names, units, limits or bins that are not the ward's; it says which, and what is expected."""
    words.check([q.name for q in INQUIRIES], [q.name for q in INTERVENTIONS], "this version's ward")
    found = tuple(feature.name for feature in words.static if not feature.name.startswith(SOURCE_PREFIX))
    if found != STATIC_NAMES:
        count = len(STATIC_NAMES)
        odd = [(i, a, b) for i, (a, b) in enumerate(zip(found, STATIC_NAMES, strict=False)) if a != b][:1]
        place, mine, theirs = odd[0] if odd else (min(len(found), count), f"{len(found)} in all", f"{count}")
        raise ValueError(
            f"the checkpoint was trained on another vocabulary: its static feature {place} is {mine!r}, this version's "
            f"{theirs!r}. {_REMEDY}"
        )
    if not (math.isfinite(words.hours_per_step) and words.hours_per_step > 0):
        raise ValueError(f"the checkpoint's hours_per_step={words.hours_per_step} must be above 0. {_REMEDY}")
    for item, inquiry in zip(words.items, INQUIRIES, strict=True):
        _check_same(item, inquiry, ("unit", "low", "high"))
    for treatment, intervention in zip(words.treatments, INTERVENTIONS, strict=True):
        _check_same(treatment, intervention, ("unit", "high"))
    for item in words.items:
        if len(item.edges) < 2 or any(not a <= b for a, b in zip(item.edges, item.edges[1:], strict=False)):
            raise ValueError(f"the checkpoint's bin edges of {item.name} do not ascend: it is damaged. {_REMEDY}")


def _check_same(mine: Any, theirs: Any, fields: Sequence[str]) -> None:
    """Raises ValueError: a field of the checkpoint's row is not what it is in the ward's."""
    for name in fields:
        here, there = getattr(mine, name), getattr(theirs, name)
        same = here == there if name == "unit" else math.isclose(here, float(there), rel_tol=1e-6, abs_tol=1e-9)
        if not same:
            raise ValueError(
                f"the checkpoint was trained on another vocabulary: its {mine.name} has {name} {here!r}, this "
                f"version's ward {there!r}. {_REMEDY}"
            )
