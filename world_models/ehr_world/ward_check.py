"""Is a checkpoint's vocabulary that of this version's ward? Units and limits too: a name alone does not tell them."""

from __future__ import annotations

import math

from world_models.ehr_world.vocabulary import Vocabulary
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, INTERVENTIONS, STATIC

__all__ = ["check_vocabulary"]

_REMEDY = "Use the version that made the weights, or train again"


def check_vocabulary(words: Vocabulary) -> None:
    """Raises ValueError: names, units, limits or bins that are not the ward's; it says which, and what is expected."""
    words.check([q.name for q in INQUIRIES], [q.name for q in INTERVENTIONS], "this version's ward")
    static = [*(q.name for q in STATIC), *(f"complaint_{c}" for c in COMPLAINTS)]
    found = [feature.name for feature in words.static]
    if found != static:
        odd = [(i, a, b) for i, (a, b) in enumerate(zip(found, static, strict=False)) if a != b][:1]
        place, mine, theirs = odd[0] if odd else (min(len(found), len(static)), f"{len(found)} in all", f"{len(static)}")
        raise ValueError(
            f"the checkpoint was trained on another vocabulary: its static feature {place} is {mine!r}, this version's "
            f"{theirs!r}. {_REMEDY}"
        )
    if not (math.isfinite(words.hours_per_step) and words.hours_per_step > 0):
        raise ValueError(f"the checkpoint's hours_per_step={words.hours_per_step} must be above 0. {_REMEDY}")
    rows = [(item, q, ("unit", "low", "high")) for item, q in zip(words.items, INQUIRIES, strict=True)]
    rows += [(t, q, ("unit", "high")) for t, q in zip(words.treatments, INTERVENTIONS, strict=True)]
    for mine, theirs, fields in rows:
        for name in fields:
            here, there = getattr(mine, name), getattr(theirs, name)
            same = here == there if name == "unit" else math.isclose(here, float(there), rel_tol=1e-6, abs_tol=1e-9)
            if not same:
                raise ValueError(
                    f"the checkpoint was trained on another vocabulary: its {mine.name} has {name} {here!r}, this "
                    f"version's ward {there!r}. {_REMEDY}"
                )
    for item in words.items:
        if len(item.edges) < 2 or any(not a <= b for a, b in zip(item.edges, item.edges[1:], strict=False)):
            raise ValueError(f"the checkpoint's bin edges of {item.name} do not ascend: it is damaged. {_REMEDY}")
