"""Stays of the oracle ward as narratives: tensors of orders and results to the sets that the text form writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from world_models.ehr_world.causal_lm.text import (
    STATUS,
    STATUSES,
    AskedItem,
    Given,
    Narrative,
    NarrativeError,
    NarrativeStep,
)
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, INTERVENTIONS, ORGANISMS, STATIC

__all__ = ["facts_of_static", "facts_of_ward", "given_of_amounts", "narrative_of_ward", "orders_of_action"]


def facts_of_ward(static: Mapping[str, float], complaint: int | None = None) -> tuple[tuple[str, float | str], ...]:
    """What is known at admission, from the STATIC values of one patient and the index of the complaint."""
    facts: list[tuple[str, float | str]] = []
    for quantity in STATIC:
        if quantity.name not in static:
            raise NarrativeError(f"static has no {quantity.name!r}; there are: {', '.join(static)}")
        value = float(static[quantity.name])
        if quantity.name == "sex_female":
            facts.append(("sex", "female" if value > 0.5 else "male"))
        elif quantity.unit != "bool":
            facts.append((quantity.name, float(f"{value:.3g}")))
        elif value > 0.5:
            facts.append(("known", quantity.name))
    if complaint is not None:
        facts.append(("complaint", COMPLAINTS[complaint]))
    return tuple(facts)


def facts_of_static(static: Tensor) -> tuple[tuple[str, float | str], ...]:
    """The same from static context [S]: STATIC, then one column a complaint; what is NaN is left out."""
    told: list[tuple[str, float | str]] = []
    for q, value in zip(STATIC, static.tolist(), strict=False):
        if math.isnan(value):
            continue
        if q.name == "sex_female":
            told.append(("sex", "female" if value > 0.5 else "male"))
        elif q.unit != "bool":
            told.append((q.name, float(f"{value:.3g}")))
        elif value > 0.5:
            told.append(("known", q.name))
    complaint = static[len(STATIC) :]
    if not bool(complaint.isnan().any()) and float(complaint.sum()) > 0:
        told.append(("complaint", COMPLAINTS[int(complaint.argmax())]))
    return tuple(told)


def orders_of_action(action: Tensor, index: int, status: bool = True) -> NarrativeStep:
    """A step's orders from one patient's action [A] of the ward, the outcomes not known yet."""
    chosen = action.detach().tolist()
    if len(chosen) != len(INQUIRIES) + len(INTERVENTIONS):
        raise NarrativeError(
            f"an action of the ward has {len(INQUIRIES) + len(INTERVENTIONS)} columns, got {len(chosen)}"
        )
    asked = sorted(q.name for q, on in zip(INQUIRIES, chosen, strict=False) if on > 0.5)
    return NarrativeStep(
        index,
        tuple(AskedItem(name) for name in [*asked, *([STATUS] if status else [])]),
        given_of_amounts(chosen[len(INQUIRIES) :]),
    )


def given_of_amounts(amounts: Sequence[float]) -> tuple[Given, ...]:
    """The interventions of a step from their amounts [J], 0 for none."""
    given = []
    for q, amount in zip(INTERVENTIONS, amounts, strict=True):
        if amount > 0:
            amount = float(f"{amount:.4g}")
            if q.per_hour is None:
                given.append(Given(q.name, "infusion", rate=amount, rate_unit=q.unit))
            else:
                given.append(Given(q.name, "administration", dose=amount, unit=q.unit))
    return tuple(sorted(given, key=Given.order))


def narrative_of_ward(
    facts: tuple[tuple[str, float | str], ...],
    asked: Tensor,
    value: Tensor,
    given: Tensor,
    alive: Tensor,
    home: Tensor,
    hours_per_step: float,
    status: bool = True,
    significant: int = 4,
) -> Narrative:
    """One patient's stay. An outcome stands in the step that ordered it, whenever it was charted.

    Args:
        facts: see `facts_of_ward`.
        asked: bool [T, I] a specimen was collected in the step.
        value: [T, I] its result, NaN where none came (then it is left out).
        given: [T, J] amounts. alive, home: bool [T] after the step; the stay ends where one says so.
        significant: digits kept of a value.
    """
    kinds = [q.kind for q in INQUIRIES]
    found = (asked & ~torch.isnan(value)).tolist()
    values, amounts = value.tolist(), given.tolist()
    living, gone = alive.tolist(), home.tolist()
    steps = []
    for t in range(len(values)):
        outcomes = []
        for i in sorted((i for i, on in enumerate(found[t]) if on), key=lambda i: INQUIRIES[i].name):
            name, x = INQUIRIES[i].name, values[t][i]
            if kinds[i] == "culture":
                outcomes.append(AskedItem(name, label=ORGANISMS[round(x)]))
            else:
                outcomes.append(AskedItem(name, float(f"{x:.{significant}g}"), None, INQUIRIES[i].unit))
        end = STATUSES[2] if not living[t] else STATUSES[1] if gone[t] else STATUSES[0]
        if status:
            outcomes.append(AskedItem(STATUS, label=end))
        steps.append(NarrativeStep(t, tuple(outcomes), given_of_amounts(amounts[t])))
        if end != STATUSES[0]:
            break
    return Narrative(facts, (), hours_per_step, tuple(steps))
