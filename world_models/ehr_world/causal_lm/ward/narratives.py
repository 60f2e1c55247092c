"""Stays of the ward as this world tells them to its language model: what the chart shows, when it shows it.

An outcome stands in the step in which it came, not in the one that ordered it; what is still on its way is told as a
specimen sent, without a result. So a stay told up to now holds nothing that its chart does not, and another future of
the same patient is another key and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence

from world_models.ehr_world.causal_lm.text import STATUS, AskedItem, Given, Narrative, NarrativeStep
from world_models.ehr_world.causal_lm.ward_narratives import facts_of_static, given_of_amounts, narrative_of_ward
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, Charted, Stays
from world_models.quantities.ward import INQUIRIES

__all__ = ["SPECIMEN", "charted_stay", "step_of"]

SPECIMEN = "specimen"  # the kind under which an inquiry without a result is told as given


def step_of(number: int, asked: Sequence[AskedItem], sent: Sequence[str], amounts: Sequence[float]) -> NarrativeStep:
    """A step of a stay: results (or what shall have one) by name, then how the stay goes on, but not at admission.

    Args:
        asked: inquiries that come back in this step; STATUS, which is asked last, is added where it is not among them.
        sent: inquiries whose specimen was taken and whose result is still out.
        amounts: of the interventions [J].
    """
    results = sorted((a for a in asked if a.item != STATUS), key=lambda a: a.item)
    ends = [a for a in asked if a.item == STATUS] or [AskedItem(STATUS)]
    given = (*given_of_amounts(amounts), *(Given(name, SPECIMEN) for name in sent))
    return NarrativeStep(number, (*results, *(ends if number else [])), tuple(sorted(given, key=Given.order)))


def charted_stay(
    stays: Stays, chart: Charted, row: int, hours_per_step: float, begin: int = 0, end: int | None = None
) -> Narrative:
    """Positions begin .. end - 1 of one stay, `chart` being `stay_tensors.charted(stays)`."""
    end = int(stays.valid[row].sum()) if end is None else end
    told = narrative_of_ward(
        facts_of_static(stays.static[row]),
        chart.fresh[row, begin:end],
        chart.value[row, begin:end],
        stays.given[row, begin:end],
        stays.alive[row, begin:end],
        stays.home[row, begin:end],
        hours_per_step,
    )
    delay = stays.delay[row, begin:end]  # a lost specimen is none that the chart shows as pending
    out = stays.asked[row, begin:end] & (((delay > 0) & (delay <= LAST_DELAY)) | (delay == CENSORED))
    steps = []
    for step, sent, amounts in zip(told.steps, out.tolist(), stays.given[row, begin:end].tolist(), strict=False):
        names = [q.name for q, away in zip(INQUIRIES, sent, strict=True) if away]
        steps.append(step_of(step.number + begin, step.asked, names, amounts))
    return told._replace(steps=tuple(steps))
