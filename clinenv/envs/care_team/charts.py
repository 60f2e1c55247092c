"""What each member of the team sees: his own columns of the ward's one chart.

The head of the chart (who the patient is, why he came, how long ago) is everybody's. Below it each has the results and
the treatments of his own work: the intensivist the whole course but what the pharmacist watches for him (magnesium,
phosphate, liver, PTT); the pharmacist the laboratory, temperature, urine and all drugs given, but neither circulation
nor breathing; the nurse vital signs, what she can measure at the bedside, and everything that runs. Who may say
anything of an order sees what there is to see of it (`tests/clinenv/test_care_team.py` watches that).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from clinenv.envs.care_team.rights import INTENSIVIST, NURSE, PHARMACIST, ROLES
from world_models.protocol import Chart
from world_models.quantities.ward import (
    INQUIRIES,
    INTERVENTIONS,
    MAX_AGE_HOURS,
    MAX_HOURS_SINCE,
    inquiry_index,
    intervention_index,
)

__all__ = ["RESULTS", "TREATMENTS", "own_chart", "places", "shown"]

_OF_RESULTS = ("inquiry_age_hours", "inquiry_seen", "inquiry_pending")
_OF_TREATMENTS = ("treatment_share", "treatment_age_hours")

_PHARMACIST_ALONE = ("magnesium_mg_dl", "phosphate_mg_dl", "albumin_g_dl", "alt_u_l", "bilirubin_mg_dl", "ptt_s")
_VITALS = tuple(q.name for q in INQUIRIES if q.kind == "vital")
_DETAILS = ("sbp_mmhg", "dbp_mmhg")  # the intensivist goes by the mean pressure

RESULTS: dict[str, tuple[str, ...]] = {  # role -> measures
    INTENSIVIST: tuple(q.name for q in INQUIRIES if q.name not in (*_PHARMACIST_ALONE, *_DETAILS)),
    PHARMACIST: (
        "sodium_mmol_l", "potassium_mmol_l", "bicarbonate_mmol_l", "urea_nitrogen_mg_dl", "creatinine_mg_dl",
        "glucose_mg_dl", "calcium_mg_dl", "magnesium_mg_dl", "phosphate_mg_dl", "albumin_g_dl", "alt_u_l",
        "bilirubin_mg_dl", "beta_hydroxybutyrate_mmol_l", "crp_mg_l", "white_cells_k_ul", "haemoglobin_g_dl",
        "platelets_k_ul", "inr", "ptt_s", "temperature_c", "urine_output_ml_h", "blood_culture", "urine_culture",
    ),
    NURSE: ("glucose_mg_dl", "lactate_mmol_l", *_VITALS, "blood_culture", "urine_culture"),
}  # fmt: skip

_NO_DRUGS = ("oxygen_fraction", "ventilation_l_min", "endoscopy", "ultrafiltration_ml_h")
TREATMENTS: dict[str, tuple[str, ...]] = {  # role -> interventions
    INTENSIVIST: tuple(q.name for q in INTERVENTIONS if q.name not in ("magnesium_sulfate_g", "sodium_phosphate_mmol")),
    PHARMACIST: tuple(q.name for q in INTERVENTIONS if q.name not in _NO_DRUGS),
    NURSE: tuple(q.name for q in INTERVENTIONS),
}


def shown(role: str, label: str) -> bool:
    """Whether an entry of the ward's flat observation, by its label (`name` or `name[i]`), is in a role's chart.

    Raises:
        KeyError: no such role.
    """
    name, _, place = label.partition("[")
    results, treatments = RESULTS[role], TREATMENTS[role]
    if name in _OF_RESULTS:
        return INQUIRIES[int(place[:-1])].name in results
    if name in _OF_TREATMENTS:
        return INTERVENTIONS[int(place[:-1])].name in treatments
    return name in results or all(name != q.name for q in INQUIRIES)


def places(role: str, labels: Sequence[str]) -> list[int]:
    """Where a role's entries stand among the labels of the ward's observation. Raises KeyError: no such role."""
    return [i for i, label in enumerate(labels) if shown(role, label)]


@lru_cache(maxsize=32)
def _hidden(role: str, device: torch.device) -> tuple[tuple[str, ...], Tensor, Tensor]:
    """Measures that a role does not see, and bool [I] of the results and [J] of the treatments that he sees."""
    results = torch.zeros(len(INQUIRIES), dtype=torch.bool, device=device)
    results[[inquiry_index(name) for name in RESULTS[role]]] = True
    treatments = torch.zeros(len(INTERVENTIONS), dtype=torch.bool, device=device)
    treatments[[intervention_index(name) for name in TREATMENTS[role]]] = True
    return tuple(q.name for q in INQUIRIES if q.name not in RESULTS[role]), results, treatments


def own_chart(role: str, chart: Chart) -> Chart:
    """The chart as a role sees it: what is not his reads as never measured, never asked for, never given.

    Raises:
        ValueError: no such role.
    """
    if role not in ROLES:
        raise ValueError(f"role {role!r} is unknown; the team is {', '.join(ROLES)}")
    names, results, treatments = _hidden(role, chart["hours"].device)
    typical = {name: float(INQUIRIES[inquiry_index(name)].typical) for name in names}
    return {
        **chart,
        **{name: torch.full_like(chart[name], value) for name, value in typical.items()},
        "inquiry_age_hours": torch.where(results, chart["inquiry_age_hours"], MAX_AGE_HOURS),
        "inquiry_seen": torch.where(results, chart["inquiry_seen"], 0.0),
        "inquiry_pending": torch.where(results, chart["inquiry_pending"], 0.0),
        "treatment_share": torch.where(treatments, chart["treatment_share"], 0.0),
        "treatment_age_hours": torch.where(treatments, chart["treatment_age_hours"], MAX_HOURS_SINCE),
    }
