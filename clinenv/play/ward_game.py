"""The hospital stay on the page: `EHRWard-v0` and `EHRWardDose-v0`."""

from __future__ import annotations

from dataclasses import replace

from clinenv.envs.ehr_ward import orders as rules
from clinenv.envs.ehr_ward.task import EHRWardTask
from clinenv.play.game import Fact, Game, Row, unit_shown
from world_models.oracles.ward.cohorts import COHORTS
from world_models.protocol import Chart
from world_models.quantities.ward import COMPLAINTS, INQUIRIES, INTERVENTIONS, MAX_AGE_HOURS, Inquiry

__all__ = ["DOSE", "ORDER_NAMES", "WARD"]

_GROUPS = {
    "vital": "Vital signs", "chemistry": "Chemistry", "haematology": "Haematology", "coagulation": "Coagulation",
    "gas": "Blood gas", "marker": "Markers", "culture": "Cultures",
}  # fmt: skip
_ORDERED = sorted(range(len(INQUIRIES)), key=lambda i: list(_GROUPS).index(INQUIRIES[i].kind))
_FEW_DIGITS, _MANY_DIGITS = 50.0, 2.0  # typical values from where on no digit, and below which two, are shown


_LABELS = {
    "anion_gap_mmol_l": "Anion gap",
    "blood_culture": "Blood culture (0: no growth, else which organism)",
    "urine_culture": "Urine culture (0: no growth, else which organism)",
}  # where the meaning is a formula or a code


def _digits(typical: float) -> int:
    return 0 if typical >= _FEW_DIGITS else 2 if typical < _MANY_DIGITS else 1


def _sentence(words: str) -> str:
    return words[:1].upper() + words[1:]


def _label(q: Inquiry) -> str:
    return _LABELS.get(q.name, _sentence(q.meaning))


def _rows() -> tuple[Row, ...]:
    rows = []
    for i in _ORDERED:
        q = INQUIRIES[i]
        digits = 0 if q.kind == "culture" else _digits(q.typical)
        span = max(abs(q.normal[1] - q.normal[0]), 0.1)
        normal = (float(q.normal[0]), float(q.normal[1]))
        rows.append(Row(q.name, _sentence(q.meaning), unit_shown(q.unit), _GROUPS[q.kind], digits, normal, None, span))
    running = (
        Row(f"given_{q.name}", _sentence(q.meaning), unit_shown(q.unit), "Given in the last step", 2)
        for q in INTERVENTIONS
    )
    return (*rows, *running)


def _read(chart: Chart) -> dict[str, float | None]:
    """Charted values; None where no result ever came, and where nothing was given."""
    seen = (chart["inquiry_seen"][0] > 0.5).tolist()
    values: dict[str, float | None] = {
        q.name: float(chart[q.name][0]) if known else None for q, known in zip(INQUIRIES, seen, strict=True)
    }
    for order, share in zip(INTERVENTIONS, chart["treatment_share"][0].tolist(), strict=True):
        values[f"given_{order.name}"] = share * order.high if share > 0 else None
    for q, age in zip(INQUIRIES, chart["inquiry_age_hours"][0].tolist(), strict=True):
        values[f"age_{q.name}"] = age if age < MAX_AGE_HOURS else None
    for q, pending in zip(INQUIRIES, chart["inquiry_pending"][0].tolist(), strict=True):
        values[f"pending_{q.name}"] = pending
    return values


def _facts(chart: Chart) -> list[Fact]:
    came = [name for name, x in zip(COMPLAINTS, chart["complaint"][0].tolist(), strict=True) if x > 0.5]
    known = ("chronic_kidney_disease", "diabetes", "chronic_heart_failure")
    has = [name.replace("_", " ") for name in known if float(chart[name][0]) > 0.5]
    return [
        Fact("Age", f"{float(chart['age_years'][0]):.0f} years"),
        Fact("Sex", "female" if float(chart["sex_female"][0]) > 0.5 else "male"),
        Fact("Weight", f"{float(chart['weight_kg'][0]):.0f} kg"),
        Fact("Came with", ", ".join(came) or "not told"),
        Fact("Known before", ", ".join(has) or "nothing"),
    ]


def _ending(chart: Chart) -> list[Fact]:
    if float(chart["alive"][0]) < 0.5:
        return [Fact("End", "died")]
    return [Fact("End", "went home" if float(chart["discharged"][0]) > 0.5 else "still in hospital")]


ORDER_NAMES = {q.order: (_label(q).split(" (")[0], f"Tests: {_GROUPS[q.kind].lower()}") for q in INQUIRIES}
ORDER_NAMES |= {q.name: (_sentence(q.meaning), "Treatments") for q in INTERVENTIONS}

WARD = Game(
    id="EHRWard-v0",
    title="A hospital stay",
    goal="Up to 14 days: bring the patient home, stable until then, unharmed, without needless tests.",
    task=EHRWardTask,
    cohorts={cohort.name: cohort.meaning for cohort in COHORTS.values()},
    rows=_rows(),
    trend=(
        "heart_rate_bpm", "map_mmhg", "spo2_percent", "temperature_c", "potassium_mmol_l", "creatinine_mg_dl",
        "lactate_mmol_l", "haemoglobin_g_dl",
    ),
    read=_read,
    facts=_facts,
    clock="h",
    reward_unit="× 10,000 US dollars",
    truth=_ending,
)  # fmt: skip
DOSE = replace(WARD, id="EHRWardDose-v0", task=lambda: EHRWardTask(actions=rules.DOSES))
