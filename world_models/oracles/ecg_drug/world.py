"""The mechanistic world of starting an antiarrhythmic in hospital: fitted drug effects, rhythm, ECG on request.

One step of `hours_per_step`, in order: the dose is swallowed (`TrialModel.advance`, repeated doses superpose), the
intervals and the T wave's measures are the patient's own + drug effects + time of day + within-day variation, added on
their working scales (`scales`: intervals in ms, T-wave measures by factors and roots), the other intervals follow by

    qt = qrs + jt_peak + tpeak_tend     qtcf = qt / RR^(1/3)     jt_peak_c = jt_peak / RR^0.58     (RR in s)

and the rhythm (`rhythm.advance_rhythm`) follows the concentrations and QTcF. The admission ECG is one sample of that
same law: the patient's own intervals are the admission ECG's less its time of day and its variation, so that the chart
at t = 0 shows exactly the baseline that was asked for. The trial's people (cohort `healthy`) rest before they are
dosed: what the fit found of that (`before_dosing`) is in their admission ECG and in no later one.

Only elementwise operations: row i of a batch is bit for bit the same patient alone.

Limits. The trial gave single doses, one drug at a time, to people of 18 to 35: accumulation and combinations are
superposition (effects add, kinetics do not interact: that verapamil raises dofetilide's level, and is forbidden with
it, is not in here), and what age and illness change stands in the cohorts' clearance and baselines. The tolerance that
lets the QT effect per concentration fall over days of dofetilide is not modelled. ECGs are in sinus rhythm.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT, jt_peak_scale, log_rr, qt_scale
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.recorded import factors_from_chart
from world_models.ecg.waveform import WAVES, Intervals, synthesise_ecg
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ecg_drug import cohorts, rhythm
from world_models.oracles.ecg_drug.chart import chart_intervals, limited, rate_and_qtcf
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS, daily_basis
from world_models.oracles.ecg_drug.kinetics import MAX_LAG_H
from world_models.oracles.ecg_drug.population import Amounts, Individual, TrialModel
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS, from_scale, slope_of, to_scale
from world_models.protocol import Chart, Factors
from world_models.quantities import ecg_drug as ecg_quantities
from world_models.quantity import Quantity

__all__ = ["MORPHOLOGY", "ECGDrugOracle", "ECGDrugState"]

MOST_STEP_H = 168.0  # a week: nobody doses less often

_FACTOR = {q.name: i for i, q in enumerate(cohorts.FACTORS)}

MORPHOLOGY = Quantity(
    "morphology",
    "mV",
    -20.0,
    20.0,
    (len(INDEPENDENT_LEADS), len(WAVES)),
    "amplitude of each wave of the beat in eight leads",
)


class ECGDrugState(NamedTuple):
    """B patients. Hidden state included: this is the oracle's."""

    key: Tensor  # int64 [B] random numbers to come
    t: Tensor  # int64 [B] steps since admission
    factors: Tensor  # [B, F] float32 in the order of `cohorts.FACTORS`
    own: Tensor  # [B, 10] ENDPOINTS without drug, time of day and variation, on their working scales (`scales`)
    now: Tensor  # [B, 10] ENDPOINTS of the present ECG, in their own units
    individual: Individual  # kinetics and sensitivity
    decay: Tensor  # [B, D, M] float64, what one step leaves of each mode
    entry: Tensor  # [B, D, M] float64, what one mg swallowed at its beginning adds by its end
    amounts: Amounts  # drug on board
    concentration: Tensor  # [B, D] plasma, ng/mL, now
    rhythm: rhythm.ArrhythmiaState
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D], 96 if never
    morphology: Tensor  # [B, 8, W] amplitudes of the beat's waves in mV, leads I II V1-V6


class ECGDrugOracle:
    """Antiarrhythmic initiation as an Oracle (`world_models.protocol`).

    Args:
        cohort: whom `initial` admits: a name of `cohorts.COHORTS` or an ECGDrugCohort.
        drugs: columns of the action, in mg. Beyond the trial's four, drugs of the CiPA table are accepted; their
            effects are extrapolated from ion-channel block and `support` is False while one is on board.
        hours_per_step: at least `kinetics.MIN_STEP_H` (0.5); fastest from MAX_LAG_H (1.0) up.
        noise_uv, wander_uv, hrv_ms: of the ECG on request: white noise and baseline wander in uV, RR variability in ms.
        trial: a fitted trial: None (the shipped fit), a path to a fit's JSON, or a TrialModel.
        device: where all tensors live.

    Raises:
        ValueError: an unknown cohort or drug, a step that is not above 0 or longer than MOST_STEP_H.
    """

    name = "oracle"

    def __init__(
        self,
        cohort: str | cohorts.ECGDrugCohort = "typical",
        drugs: Sequence[str] = ecg_quantities.DRUGS,
        hours_per_step: float = 2.0,
        noise_uv: float = 0.0,
        wander_uv: float = 0.0,
        hrv_ms: float = 20.0,
        trial: TrialModel | str | os.PathLike[str] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if not 0 < hours_per_step <= MOST_STEP_H:
            raise ValueError(
                f"hours_per_step={hours_per_step} must be above 0 and at most {MOST_STEP_H:g}; 2.0 is the environment's"
            )
        self.device = torch.device(device)
        self.cohort = cohort_named(cohorts.COHORTS, cohort)
        self.hours_per_step = float(hours_per_step)
        self.noise_uv, self.wander_uv, self.hrv_ms = float(noise_uv), float(wander_uv), float(hrv_ms)
        if not isinstance(trial, TrialModel):
            extra = tuple(d for d in drugs if d not in ecg_quantities.DRUGS)
            trial = TrialModel.load(trial, device=self.device, extra_drugs=extra)
        if tuple(drugs) != trial.drugs:
            raise ValueError(
                f"drugs are {', '.join(drugs)}, the fitted trial has {', '.join(trial.drugs)}; name its drugs in that "
                "order, then drugs of the CiPA table"
            )
        self.trial = trial
        self.drugs = trial.drugs
        self.measures: tuple[Quantity, ...] = ecg_quantities.measures(self.drugs)
        self.orders: tuple[Quantity, ...] = ecg_quantities.orders(self.drugs)
        self.factors: tuple[Quantity, ...] = (*cohorts.FACTORS, MORPHOLOGY)
        # of an extrapolated drug a trace is too much: no trial has seen it
        trace = torch.tensor([1e-4 if e else 1.0 for e in trial.extrapolated], device=self.device)
        self._highest_concentration = trial.train_range().to(self.device) * trace
        course = trial.parameters["course"]
        self._course = torch.tensor([course[e]["coefficients"] for e in ENDPOINTS], device=self.device).T.contiguous()
        self._meals = tuple(float(hour) for hour in course["meal_clock_hours"])
        covariance = torch.tensor(trial.parameters["baseline"]["residual_covariance"], dtype=torch.float32)
        self._residual_covariance: list[list[float]] = covariance.tolist()

    # ---- the protocol's verbs

    def initial(self, key: Tensor, factors: Factors | None = None) -> ECGDrugState:
        """Patients at admission. Given factors [B] are fixed, `morphology` [B, 8, W] too.

        Raises:
            ValueError: a factor that is unknown, out of bounds or of the wrong shape.
        """
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        morphology = given.pop("morphology", None)
        if morphology is None:
            morphology = self._bank.sample(keys.fold(key, "oracle/morphology")).to(torch.float32)
        who = cohorts.sample_factors(self.cohort, key, given, self.trial)
        rate = who["baseline_heart_rate_bpm"]
        jtpc = cohorts.jt_peak_c(who["baseline_qtcf_ms"], who["baseline_qrs_ms"], who["baseline_tpeak_tend_ms"], rate)
        rest = [who[f"baseline_{n}"] for n in ENDPOINTS if n not in ("heart_rate_bpm", "jt_peak_c_ms")]
        now = torch.stack((rate, *rest[:2], jtpc, *rest[2:]), -1)
        t = torch.zeros_like(key)
        own = to_scale(now) - self._moment(key, t, who["admission_clock_hour"])
        if self.cohort.from_trial:
            own = own - self.trial.before_dosing
        # In the trial's people sensitivity goes with the drug-free level. That was seen between 20 and 35 years of age:
        # in older or sicker cohorts, whose levels lie outside the trial's, it is sampled apart from them.
        level = {n: own[:, i].contiguous() for i, n in enumerate(ENDPOINTS)} if self.cohort.from_trial else None
        individual = self.trial.individual(
            keys.fold(key, "oracle/individual"),
            who["sex_female"],
            who["weight_kg"],
            who["age_years"],
            who["metaboliser"],
            level,
        )
        batch, drugs = key.shape[0], len(self.drugs)
        nothing = torch.zeros(batch, drugs, device=self.device)
        none = self.trial.no_drug(batch)
        full = none._replace(modes=torch.ones_like(none.modes))
        decay = self.trial.advance(individual, full, nothing, self.hours_per_step).modes
        entry = self.trial.advance(individual, none, nothing + 1.0, self.hours_per_step).modes
        return ECGDrugState(
            key=key,
            t=t,
            factors=torch.stack([who[q.name] for q in cohorts.FACTORS], -1),
            own=own,
            now=now,
            individual=individual,
            decay=decay,
            entry=entry,
            amounts=none,
            concentration=nothing,
            rhythm=rhythm.initial_rhythm(
                who["baseline_burden"], who["baseline_qtcf_ms"], rate, self.cohort.torsades_risk
            ),
            total_dose_mg=nothing,
            hours_since_dose=torch.full_like(nothing, ecg_quantities.MAX_HOURS_SINCE_DOSE),
            morphology=morphology,
        )

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: `ecg_mv` [B, 12, 5000] in mV at 500 Hz, and any of age_years, sex_female,
        weight_kg, clock_hour (`recorded.factors_from_chart`).

        Raises:
            ValueError: an ECG of another shape, or one whose intervals cannot be trusted.
        """
        return factors_from_chart(chart)

    def transition(self, state: ECGDrugState, action: Tensor) -> ECGDrugState:
        """One step after swallowing `action` [B, D] mg.

        Raises:
            ValueError: a dose outside its order's bounds.
        """
        dose = checked_orders(self.orders, action, state.key.shape[0], self.device)
        amounts = self._advance(state, dose)
        concentration = self.trial.concentrations(state.individual, amounts).to(torch.float32)
        effects = self.trial.total_effects(state.individual, amounts)
        t = state.t + 1
        now = limited(from_scale(state.own + self._moment(state.key, t, self._clock(state, t)) + effects))
        rate, qtcf = rate_and_qtcf(now)
        target = rhythm.logit_shift(0.5 * (state.concentration + concentration), self.drugs)
        given = dose > 0
        since = (state.hours_since_dose + self.hours_per_step).clamp_max(ecg_quantities.MAX_HOURS_SINCE_DOSE)
        return state._replace(
            t=t,
            now=now,
            amounts=amounts,
            concentration=concentration,
            rhythm=rhythm.advance_rhythm(
                state.key,
                t,
                state.rhythm,
                self._factor(state, "baseline_burden"),
                target,
                qtcf,
                rate,
                self._factor(state, "baseline_qtcf_ms"),
                self.hours_per_step,
                self.cohort.torsades_risk,
            ),
            total_dose_mg=(state.total_dose_mg + dose).clamp_max(ecg_quantities.MAX_TOTAL_DOSE_MG),
            hours_since_dose=torch.where(given, self.hours_per_step, since),
        )

    def observe(self, state: ECGDrugState, also: Sequence[str] = ()) -> Chart:
        """The chart now; `also=("ecg_mv",)` adds the 12-lead ECG [B, 12, 5000] in mV with these intervals.

        Raises:
            ValueError: `also` names something that is no measure.
        """
        check_also(self.measures, also)
        chart = {
            "age_years": self._factor(state, "age_years"),
            "sex_female": self._factor(state, "sex_female"),
            "weight_kg": self._factor(state, "weight_kg"),
            "hours": (state.t.to(torch.float32) * self.hours_per_step).clamp_max(1000.0),
            "clock_hour": self._clock(state, state.t),
            **chart_intervals(state.now),
            "baseline_qtcf_ms": self._factor(state, "baseline_qtcf_ms"),
            "arrhythmia_burden": state.rhythm.burden,
            "torsades": state.rhythm.torsades,
            "total_dose_mg": state.total_dose_mg,
            "hours_since_dose": state.hours_since_dose,
        }
        if "ecg_mv" in also:
            chart["ecg_mv"] = self._synthesise(state, chart)
        return chart

    def rekey(self, state: ECGDrugState, key: Tensor) -> ECGDrugState:
        """The same patients with other random numbers. The oracle knows them: only what is to come changes."""
        return state._replace(key=key)

    def spread(self, state: ECGDrugState) -> dict[str, Tensor]:
        """Standard deviation [B] of each endpoint's within-day variation: all that the oracle itself cannot know."""
        cov = self._residual_covariance
        slope = slope_of(state.now)  # delta method, for those that vary on another scale
        sd = {n: slope[:, i] * cov[i][i] ** 0.5 for i, n in enumerate(ENDPOINTS)}
        rate, _, qrs, jtpc, tail, *_ = (c.contiguous() for c in state.now.unbind(-1))
        log = log_rr(rate)
        shrink = 1.0 / qt_scale(log)
        stretch = jt_peak_scale(log) * shrink
        # QTcF's gradient (delta method): QTcF = (QRS + Tpeak-Tend) RR^(-1/3) + J-Tpeak c RR^(0.58 - 1/3)
        by_rate = ((qrs + tail) * shrink * QT_EXPONENT - jtpc * stretch * (JT_PEAK_EXPONENT - QT_EXPONENT)) / rate
        gradient = {0: by_rate, 2: shrink, 3: stretch, 4: shrink}
        variance = torch.zeros_like(rate)
        for i, g in gradient.items():
            for j, h in gradient.items():
                variance = variance + g * h * cov[i][j]
        sd["qtcf_ms"] = variance.clamp_min(0.0).sqrt()
        return sd

    def support(self, state: ECGDrugState) -> Tensor:
        """bool [B]: every concentration within the trial's range, no extrapolated drug ever given."""
        return (state.concentration <= self._highest_concentration).all(-1)

    def truth(self, state: ECGDrugState) -> dict[str, Tensor]:
        """Hidden quantities: concentrations, hazard, drug effects, own intervals, individual parameters, factors."""
        out = {f"concentration_{d}_ng_ml": state.concentration[:, i] for i, d in enumerate(self.drugs)}
        # in the endpoint's own unit: of the T wave, what the drugs change about the patient's own
        effect = self.trial.total_effects(state.individual, state.amounts)
        own, under_drugs = from_scale(state.own), from_scale(state.own + effect)
        for i, n in enumerate(ENDPOINTS):
            out[f"effect_{n}"] = under_drugs[:, i] - own[:, i] if n in T_ENDPOINTS else effect[:, i]
            out[f"own_{n}"] = own[:, i]
        out |= {f"factor_{n}": state.factors[:, i] for n, i in _FACTOR.items()}
        out |= {f"individual_{n}": v for n, v in state.individual._asdict().items() if isinstance(v, Tensor)}
        out["torsades_hazard_per_h"] = state.rhythm.hazard_per_h
        out["burden_fluctuation_logit"] = state.rhythm.fluctuation
        out["burden_shift_logit"] = state.rhythm.shift
        return out

    # ---- parts

    def _factor(self, state: ECGDrugState, name: str) -> Tensor:
        return state.factors[:, _FACTOR[name]].contiguous()

    def _clock(self, state: ECGDrugState, t: Tensor) -> Tensor:
        return (self._factor(state, "admission_clock_hour") + t.to(torch.float32) * self.hours_per_step) % 24.0

    def _advance(self, state: ECGDrugState, dose_mg: Tensor) -> Amounts:
        """`TrialModel.advance` without its exponentials: the system is linear, those of `initial` serve every step.

        In a step that outlasts every absorption lag no dose is left waiting.
        """
        if self.hours_per_step < MAX_LAG_H:
            return self.trial.advance(state.individual, state.amounts, dose_mg, self.hours_per_step)
        entered = dose_mg.to(torch.float64).unsqueeze(-1) * state.entry
        return state.amounts._replace(modes=state.amounts.modes * state.decay + entered)

    def _moment(self, key: Tensor, t: Tensor, clock_hour: Tensor) -> Tensor:
        """What time of day (`TrialModel.time_of_day`, all at once) and within-day variation add, [B, 10]."""
        total = self.trial.residuals(key, t)
        basis = daily_basis(clock_hour, (self._course.shape[0] - len(self._meals)) // 2, self._meals)
        for k in range(self._course.shape[0]):
            total = total + basis[:, k : k + 1] * self._course[k]
        return total

    @cached_property
    def _bank(self) -> MorphologyBank:
        return MorphologyBank.load(device=self.device)

    def _synthesise(self, state: ECGDrugState, chart: Chart) -> Tensor:
        return synthesise_ecg(
            state.key,
            state.t,
            Intervals(**{n: chart[n] for n in Intervals._fields}),
            state.morphology,
            hrv_ms=self.hrv_ms,
            noise_uv=self.noise_uv,
            wander_uv=self.wander_uv,
        )
