"""Real stays as tensors: `PatientEpisode`s on the ward's inquiries and interventions.

Step k of an episode is position k + 1 (position 0, the triage of a ward world, is empty). A value stands where it was
collected and is charted when it resulted; of several in one step the one collected last counts. Items outside the
vocabulary are left out, and so are censored results ("<0.01", ">60"): their number is a limit, not a value to learn or
to score. A stay ends when its patient dies. Orders whose execution the source does not tell (prescriptions) are no
treatment. A dose that is unknown, or in a unit the ward does not know, counts as the standard one; a blood product's
unit is 350 mL of red cells, or 250 mL of plasma or platelets (k); heparin is brought to a patient of 80 kg (k), as
weight is not among a stay's static data; under the skin it is no infusion and left out. A rate that is charted as a
moment runs until the next one, or for RUNS_ON_H. What a chart says of the inspired oxygen is a setting of the
ventilator or the mask: it counts as given from its step on, until the next one or for OXYGEN_HOLDS_H.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

import torch
from torch import Tensor

from world_models.data.ehr.context.schema import StaticContext, StayKey
from world_models.data.ehr.episode import InquiryEvent, InterventionEvent, PatientEpisode
from world_models.ehr_world.set_outcome.stay_tensors import CENSORED, LAST_DELAY, UNKNOWN, Stays
from world_models.ehr_world.static_context import fill_static
from world_models.ehr_world.vocabulary import Vocabulary, build, ward_specs
from world_models.quantities.ward import INTERVENTIONS

__all__ = ["from_episodes", "real_vocabulary", "ward_name", "ward_organism"]

# ward intervention -> (order of `orders`, "dose" or "rate", units it is known in with the factor to the ward's)
_DOSES: dict[str, tuple[tuple[str, str, dict[str, float]], ...]] = {
    "saline_ml": (("saline", "dose", {"mL": 1.0}),),
    "ringers_lactate_ml": (("ringers_lactate", "dose", {"mL": 1.0}),),
    "norepinephrine_ug_kg_min": (("norepinephrine", "rate", {"ug/kg/min": 1.0}),),
    "vasopressin_units_min": (("vasopressin", "rate", {"[U]/h": 1 / 60, "[U]/min": 1.0}),),
    "hydrocortisone_mg": (("hydrocortisone", "dose", {"mg": 1.0}),),
    "piperacillin_tazobactam_g": (("piperacillin_tazobactam", "dose", {"g": 1.0}),),
    "vancomycin_mg": (("vancomycin", "dose", {"mg": 1.0}),),
    "ceftriaxone_g": (("ceftriaxone", "dose", {"g": 1.0}),),
    "meropenem_g": (("meropenem", "dose", {"mg": 0.001, "g": 1.0}),),
    "furosemide_mg": (("furosemide", "dose", {"mg": 1.0}),),
    "insulin_units_h": (("insulin", "rate", {"[U]/h": 1.0}),),
    "dextrose_g": (("dextrose_5", "dose", {"mL": 0.05}), ("dextrose_50", "dose", {"mL": 0.5})),
    "potassium_chloride_mmol": (("potassium_chloride", "dose", {"mmol": 1.0}),),
    "magnesium_sulfate_g": (("magnesium_sulfate", "dose", {"g": 1.0}),),
    "sodium_phosphate_mmol": (("sodium_phosphate", "dose", {"mmol": 1.0}),),
    "calcium_gluconate_g": (("calcium_gluconate", "dose", {"g": 1.0}),),
    "bicarbonate_mmol": (("bicarbonate", "dose", {"mmol": 1.0}),),
    "red_cells_units": (("red_cells", "dose", {"mL": 1 / 350}),),
    "plasma_units": (("plasma", "dose", {"mL": 1 / 250}),),
    "platelets_units": (("platelets", "dose", {"mL": 1 / 250}),),
    "heparin_units_kg_h": (("heparin", "rate", {"[U]/h": 1 / 80}),),
    "ventilation_l_min": (("invasive_ventilation", "rate", {}),),
    "acetaminophen_mg": (("acetaminophen", "dose", {"mg": 1.0}),),
    "metoprolol_mg": (("metoprolol", "dose", {"mg": 0.2}),),  # by mouth mostly: a fifth of it, as if intravenous (k)
    "pantoprazole_mg": (("pantoprazole", "dose", {"mg": 1.0}),),
    "endoscopy": (("endoscopy", "dose", {}),),
    "renal_replacement_ml_kg_h": (("renal_replacement", "rate", {}), ("hemodialysis", "rate", {})),
}
# order of `orders` -> the interventions it counts as: column, basis, units
_BY_ORDER: dict[str, list[tuple[int, str, dict[str, float]]]] = {}
for _column, _ward in enumerate(INTERVENTIONS):
    for _order, _basis, _units in _DOSES.get(_ward.name, ()):
        _BY_ORDER.setdefault(_order, []).append((_column, _basis, _units))
RUNS_ON_H = 4.0  # what runs at a rate and has no end runs until it is charted anew, at most so long (k)
_SUBCUTANEOUS = ("SC", "SQ", "SUBCUT", "SUBCUTANEOUS")  # heparin so given prevents clots; the ward's is an infusion
OXYGEN = next(i for i, q in enumerate(INTERVENTIONS) if q.name == "oxygen_fraction")
ROOM_AIR, OXYGEN_HOLDS_H = 0.21, 8.0  # what is charted once a shift holds for a shift (k)
# Who dies in hospital longer after the end of a stay has left it alive: a unit's stay, and the patient went to a ward.
OF_THIS_STAY = timedelta(days=1)
_NEGATIVE = ("negative", "no growth", "no significant growth", "mixed flora")
_POSITIVE_COCCI = ("staph", "strep", "enterococc", "gram positive")
_FUNGI = ("yeast", "candida", "aspergillus", "cryptococc", "fung", "mold")


def from_episodes(
    words: Vocabulary,
    episodes: Sequence[PatientEpisode],
    until_h: float | None = None,
    most: int = 85,
    contexts: Mapping[StayKey, StaticContext] | None = None,
) -> Stays:
    """Stays [B] on up to `most` positions; what was collected, given or resulted after `until_h` is not in them.

    `contexts`: what discharge summaries say, by (subject_id, stay_id) (`data.ehr.context.context_file`); a stay without
    one is described by its ICD codes (`static_context`). Discharge diagnoses are left out where `until_h` is given.

    Raises:
        ValueError: no episodes, steps of another width, or a value in another unit than the vocabulary's.
    """
    if not episodes:
        raise ValueError("there are no episodes; check the folder and the filters")
    for e in episodes:
        if e.hours_per_step != words.hours_per_step:
            raise ValueError(
                f"stay {e.stay_id} has steps of {e.hours_per_step:g} h, the vocabulary of {words.hours_per_step:g} h: "
                "use episode.regrid"
            )
    step_h = words.hours_per_step
    limits = [_positions(e, step_h, until_h, most) for e in episodes]
    count, batch = max(limits), len(episodes)
    items = {item.name: i for i, item in enumerate(words.items)}
    value = torch.full((batch, count, len(items)), float("nan"))
    asked = torch.zeros_like(value, dtype=torch.bool)
    delay = torch.full_like(value, UNKNOWN, dtype=torch.int8)
    given = torch.zeros(batch, count, len(words.treatments))
    static = torch.full((batch, len(words.static)), float("nan"))
    diagnosis = torch.full((batch, len(words.diagnoses)), float("nan"))
    valid = torch.arange(count).unsqueeze(0) < torch.tensor(limits).unsqueeze(1)
    alive, home = torch.ones_like(valid), torch.zeros_like(valid)
    for b, e in enumerate(episodes):
        context = None if contexts is None else contexts.get((e.subject_id, e.stay_id))
        fill_static(words, e, context, until_h is None, static[b], diagnosis[b])
        _inquiries(words, items, e, limits[b], until_h, value[b], asked[b], delay[b])
        _treatments(e, limits[b], until_h, given[b])
        _oxygen(e, limits[b], until_h, given[b])
        whole = until_h is None and not e.truncated and math.ceil(e.hours_alive / step_h) + 1 <= limits[b]
        if whole:
            dead = bool(e.died_in_hospital) and (e.died is None or e.died <= e.discharged + OF_THIS_STAY)
            alive[b, limits[b] - 1] = not dead
            home[b, limits[b] - 1] = not dead
    given = torch.minimum(given, torch.tensor([t.high for t in words.treatments]))
    return Stays(static, diagnosis, asked & valid.unsqueeze(-1), value, delay, given, alive, home, valid)


def _positions(e: PatientEpisode, step_h: float, until_h: float | None, most: int) -> int:
    steps = max(1, math.ceil(e.hours_alive / step_h))
    steps = steps if until_h is None else min(steps, math.ceil(until_h / step_h - 1e-9))
    return min(most, steps + 1)


def _inquiries(
    words: Vocabulary,
    items: dict[str, int],
    e: PatientEpisode,
    limit: int,
    until_h: float | None,
    value: Tensor,
    asked: Tensor,
    delay: Tensor,
) -> None:
    """Writes an episode's results into its rows [T, I]. Raises ValueError: a value in another unit than the item's."""
    for step in e.steps:
        place = step.number + 1
        if place >= limit:
            break
        for event in sorted(step.inquiries, key=lambda q: q.collected):
            if until_h is not None and e.hours(event.collected) >= until_h:
                continue
            name, number = _result(words, items, e, event)
            if number is None:
                continue
            column = items[name]
            late = _delay(e, event, place, limit, until_h)
            if name == "urine_output_ml_h" and asked[place, column]:
                number = min(number + float(value[place, column].nan_to_num(0.0)), words.items[column].high)
            asked[place, column] = True
            value[place, column] = float("nan") if late == CENSORED else number
            delay[place, column] = late


def _result(
    words: Vocabulary, items: dict[str, int], e: PatientEpisode, event: InquiryEvent
) -> tuple[str, float | None]:
    """The ward's name of what was asked, and the result in its unit, within the chart's bounds; None: not kept."""
    name, number = ward_name(event.item, event.label), event.value
    if name == "urine_output_ml":  # one voided volume; the ward's is the step's mean rate
        name, number = "urine_output_ml_h", None if number is None else number / words.hours_per_step
    if name not in items:
        return name, None
    item = words.items[items[name]]
    if item.labels:
        number = ward_organism(event.label)
    elif number is not None and event.item == item.name and event.unit != item.unit:
        raise ValueError(
            f"stay {e.stay_id}: {event.item} is in {event.unit!r}, the vocabulary's is {item.unit!r}; read it through "
            "world_models.data, which converts units"
        )
    return name, None if number is None else min(max(number, item.low), item.high)


def _delay(e: PatientEpisode, event: InquiryEvent, place: int, limit: int, until_h: float | None) -> int:
    """Steps from the collection at position `place` to the result; UNKNOWN, or CENSORED: after the record's end."""
    if event.resulted is None:
        return UNKNOWN
    resulted = e.hours(event.resulted)
    late = min(max(int(resulted // e.hours_per_step) - (place - 1), 0), LAST_DELAY)
    return CENSORED if (until_h is not None and resulted > until_h) or place + late >= limit else late


def ward_name(item: str, label: str | None) -> str:
    """The ward's name of a culture; other names are their own."""
    if label is None or not item.startswith("culture//"):
        return item
    specimen = item.split("//")[1]
    return (
        "blood_culture" if specimen.startswith("blood") else "urine_culture" if specimen.startswith("urine") else item
    )


def ward_organism(label: str | None) -> float | None:
    """Index in ORGANISMS; resistance is not in a culture's label, so no resistant class is ever returned. None: the
    ward has no such organism (fungi), or nothing is told."""
    plain = "" if not label else " ".join(label.lower().replace("-", " ").split())
    if not plain or any(word in plain for word in _FUNGI):
        return None
    if any(word in plain for word in _POSITIVE_COCCI):
        return 1.0  # "negative" of coagulase is the name of a staphylococcus
    return 3.0 if "gram negative" in plain or not any(word in plain for word in _NEGATIVE) else 0.0


def _treatments(e: PatientEpisode, limit: int, until_h: float | None, given: Tensor) -> None:
    step_h = e.hours_per_step
    done: dict[str, list[InterventionEvent]] = {}
    for event in e.interventions():
        under_the_skin = event.item == "heparin" and event.route.upper() in _SUBCUTANEOUS
        if event.kind != "prescription" and event.item in _BY_ORDER and not under_the_skin:
            done.setdefault(event.item, []).append(event)
    for item, events in done.items():
        begins = sorted({e.hours(event.start) for event in events})
        later = dict(zip(begins, [*begins[1:], math.inf], strict=True))
        for event in events:
            begin = e.hours(event.start)
            if until_h is not None and begin >= until_h:
                continue
            for column, basis, units in _BY_ORDER[item]:
                end = begin if event.end is None else e.hours(event.end)
                if event.end is None and basis == "rate" and (event.rate is not None or event.dose is None):
                    end = min(begin + RUNS_ON_H, later[begin])
                standard = float(INTERVENTIONS[column].standard)
                for place, overlap in _overlaps(begin, end, step_h, limit):
                    given[place, column] += _amount(event, basis, units, standard, end - begin, overlap, step_h)


def _oxygen(e: PatientEpisode, limit: int, until_h: float | None, given: Tensor) -> None:
    """Writes the fractions of inspired oxygen above room air into their column of `given` [T, J]."""
    holds = max(1, round(OXYGEN_HOLDS_H / e.hours_per_step))
    for step in e.steps:
        told = [
            q.value
            for q in sorted(step.inquiries, key=lambda q: q.collected)
            if q.item == "fio2_fraction" and q.value is not None and (until_h is None or e.hours(q.collected) < until_h)
        ]
        if told:
            place = step.number + 1
            given[place : min(place + holds, limit), OXYGEN] = told[-1] if told[-1] > ROOM_AIR else 0.0


def _overlaps(begin: float, end: float, step_h: float, limit: int) -> list[tuple[int, float]]:
    """Positions an interval touches, with its hours in each; an instant has 0."""
    first, last = int(begin // step_h), int(max(begin, end - 1e-6) // step_h)
    return [
        (k + 1, max(0.0, min(end, (k + 1) * step_h) - max(begin, k * step_h)))
        for k in range(first, min(last, limit - 2) + 1)
    ]


def _amount(
    event: InterventionEvent,
    basis: str,
    units: dict[str, float],
    standard: float,
    hours: float,
    overlap: float,
    step_h: float,
) -> float:
    share = overlap / hours if hours > 0 else 1.0
    if basis == "rate":
        part = overlap / step_h if hours > 0 else 1.0
        if event.rate is not None and event.rate_unit in units:
            return event.rate * units[event.rate_unit] * part
        if event.dose is not None and f"{event.unit}/h" in units:  # a dose at once: its mean rate over the step
            return event.dose * share / step_h * units[f"{event.unit}/h"]
        return standard * part
    if event.dose is not None and event.unit in units:
        return event.dose * share * units[event.unit]
    return standard * share


def real_vocabulary(
    base: Vocabulary, shards: Sequence[Stays], fewest: int = 50, keep: Collection[str] = ()
) -> Vocabulary:
    """The ward's items with bins from these stays; those of `keep`, and items with fewer than `fewest` values, keep the
    bins of `base`."""
    specs, static = ward_specs(base.hours_per_step), [s.name for s in base.static]
    measured = [sum(int((~s.value[..., i].isnan()).sum()) for s in shards) for i in range(len(specs))]
    items = []
    for i, spec in enumerate(specs):
        if measured[i] < fewest or spec.labels or spec.name in keep:
            items.append(base.items[i])
            continue
        one = [s._replace(asked=s.asked[..., i : i + 1], value=s.value[..., i : i + 1]) for s in shards]
        items.append(build([spec], [], [], [], one, base.hours_per_step).items[0])
    made = build([], base.treatments, static, base.diagnoses, shards, base.hours_per_step)
    kept = tuple(
        new if bool(~torch.cat([s.static[:, i] for s in shards]).isnan().all()) else old
        for i, (new, old) in enumerate(zip(made.static, base.static, strict=True))
    )
    return Vocabulary(tuple(items), base.treatments, kept, base.diagnoses, base.hours_per_step)
