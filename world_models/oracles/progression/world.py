"""The mechanistic world of clinic visits over years: conditions start, go and kill under hazards that treatment moves.

An order is what is done and prescribed at a visit and when the next one is. A step, in order: procedures act at once,
with their chances of success and harm (`state.at_once`); then whole months pass one by one under the
drugs, with competing onsets, resolutions, bleeds and death (`state.months`); then the patient is seen.
Rates and effects with their sources stand in `conditions` and `treatments`, who comes to the
first visit in `entry`.

Random numbers are functions of the month since entry: visits at other times, or other treatments, meet the same ones,
so that two courses differ by what was done alone. Row i of a batch is bit for bit the same patient alone.

`hours_per_step` is nominal (half a year): the time to the next visit is an order. The dead stay as they died; their
later visits change `t` alone.

Limits. A code is present or not: no severities within it, and of the ejection fraction only whether it is 35 % or less
(in cardiomyopathy, and in half of the heart failures), which no chart tells. Drugs have no doses, are always taken, and
work from the first day; statins make no diabetes here. What is replaced is the aortic valve. Months are the grain: an
infarction counts for a month at least. Everyone survives to the first visit.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.oracles.cohort import cohort_named
from world_models.oracles.progression import state as body
from world_models.oracles.progression.ecg.synthesis import synthesise_progression_ecg
from world_models.oracles.progression.entry import COHORTS, FACTORS, ProgressionCohort, enter
from world_models.oracles.progression.months import after_months
from world_models.oracles.progression.state import ProgressionState
from world_models.protocol import Chart, Factors
from world_models.quantities.progression import CODES, MEASURES, ORDERS, SAMPLES, TREATMENTS
from world_models.quantities.treated_columns import joined, parted

__all__ = ["ProgressionOracle", "ProgressionState"]

_C = len(CODES)


class ProgressionOracle:
    """`WorldModel` and `Oracle` of disease progression.

    Args:
        device: where all tensors live.
        cohort: "clinic", "hospital", "community" (`entry.COHORTS`) or a ProgressionCohort.

    Raises:
        ValueError: an unknown cohort.
    """

    name = "progression-oracle"
    measures = MEASURES
    orders = ORDERS
    factors = FACTORS
    hours_per_step = 4383.0  # half a year, nominal

    def __init__(self, device: torch.device | str = "cpu", cohort: str | ProgressionCohort = "clinic") -> None:
        self.device = torch.device(device)
        self.cohort = cohort_named(COHORTS, cohort)

    def initial(self, key: Tensor, factors: Factors | None = None) -> ProgressionState:
        """Patients at the first visit. Given factors [B] are fixed.

        Raises:
            ValueError: a factor that is unknown, out of bounds or of the wrong shape.
        """
        return enter(self.cohort, key, checked_factors(FACTORS, factors, key.shape[0], self.device))

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: age_years, sex_female and condition, as far as it has them.

        Raises:
            ValueError: one of them is out of bounds or of the wrong shape.
        """
        found = {q.name: chart[q.name] for q in FACTORS if q.name in chart}
        rows = len(next(iter(found.values()))) if found else 0
        return checked_factors(FACTORS, found, rows, self.device)

    def transition(self, state: ProgressionState, action: Tensor) -> ProgressionState:
        """To the next visit after orders [B, ORDERS]: treatments are given from a half upwards, months are rounded.

        Raises:
            ValueError: action has not one column an order, or an order is out of bounds.
        """
        action = checked_orders(ORDERS, action, state.key.shape[0], self.device)
        given = action[:, : len(TREATMENTS)] > 0.5
        count = action[:, -1].round().clamp(ORDERS[-1].low, ORDERS[-1].high)
        procedures, taken = parted(given)
        drugs = taken & ~state.dead.unsqueeze(-1)
        seen = body.at_once(state, procedures, taken)
        after = after_months(seen, taken, count.to(torch.int64))
        dead = state.dead
        return after._replace(
            t=state.t + 1,
            months_since_visit=torch.where(
                dead, state.months_since_visit, (after.month - state.month).to(torch.float32)
            ),
            drugs=torch.where(dead.unsqueeze(-1), state.drugs, drugs),
            bleeding=torch.where(dead, state.bleeding, after.bleeding),
        )

    def observe(self, state: ProgressionState, also: Sequence[str] = ()) -> Chart:
        """The chart now; `also=("ecg_mv",)` adds the 12-lead ECG [B, 12, 1000] in mV.

        Raises:
            ValueError: `also` names something that is no measure.
        """
        check_also(MEASURES, also)
        years = state.month.to(torch.float32) * body.MONTH_YEARS
        treated = joined(state.procedures, state.drugs)
        age = (state.entry_age_years + years).clamp_max(130.0)
        chart = {
            "age_years": age,
            "sex_female": state.sex_female,
            "years": years.clamp_max(100.0),
            "months_since_visit": state.months_since_visit,
            "condition": state.present.to(torch.float32),
            "treated": treated.to(torch.float32),
            "bleeding": state.bleeding.to(torch.float32),
            "dead": state.dead.to(torch.float32),
        }
        if "ecg_mv" in also:
            chart["ecg_mv"] = synthesise_progression_ecg(
                state.patient, state.t, state.present, age, state.sex_female, treated, SAMPLES
            )
        return chart

    def rekey(self, state: ProgressionState, key: Tensor) -> ProgressionState:
        """The same patients with other random numbers. The oracle knows them: only what is to come changes."""
        return state._replace(key=key)

    def spread(self, state: ProgressionState) -> dict[str, Tensor]:
        """Nothing: the oracle measures without error."""
        return {}

    def support(self, state: ProgressionState) -> Tensor:
        """bool [B]: age now between 18 and 100, the ages that the sources cover."""
        age = state.entry_age_years + state.month.to(torch.float32) * body.MONTH_YEARS
        return (age >= 18.0) & (age <= 100.0)

    def truth(self, state: ProgressionState) -> dict[str, Tensor]:
        """Hidden: log frailties, traits, indications, history, and rates a year of each event if no drug is taken.

        `onset_per_year` [B, C] is 0 where the condition is present, `resolution_per_year` where it is absent.
        """
        age = state.entry_age_years + state.month.to(torch.float32) * body.MONTH_YEARS
        undrugged = joined(state.procedures, torch.zeros_like(state.drugs))
        found = body.indications(state.present, state.ever, state.traits, undrugged)
        static = body.static_rates(state.sex_female, state.frailty)
        lasted = state.years_since_onset
        rates = body.log_rates(
            static, state.sex_female, age, state.present, state.ever, lasted, state.traits, undrugged
        ).exp()
        none = torch.zeros_like(lasted)
        return {
            "log_frailty": state.frailty,
            **{name: state.traits[:, i] for i, name in enumerate(body.TRAITS)},
            **{name: found[:, i] for i, name in enumerate(body.INDICATIONS)},
            "ever": state.ever,
            "years_since_onset": lasted,
            "onset_per_year": torch.where(state.present, none, rates[:, :_C]),
            "resolution_per_year": torch.where(state.present, rates[:, _C : 2 * _C], none),
            "death_per_year": rates[:, 2 * _C],
            "bleed_per_year": rates[:, 2 * _C + 1],
        }
