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

Beyond the trial, which gave single doses, one drug at a time, to people of 18 to 35: kidneys (`renal`) and liver
(`hepatic`) set the clearances, potassium and magnesium the strength of a block (`electrolytes`), verapamil speeds a
dose of dofetilide (`interactions`; else effects add and kinetics do not interact), days of a drug make it weaker
(`tolerance`), verapamil can block, slow and lower the pressure (`harms`), and what else age and illness change stands
in the cohorts. A single dose in the trial's cohort is as fitted. Whether an ECG shows fibrillation is drawn for each by
the burden (`fibrillation`): runs of fibrillation from ECG to ECG are not modelled.
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
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.recorded import factors_from_chart
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ecg_drug import cohorts, electrolytes, harms, hepatic, interactions, rhythm, tolerance
from world_models.oracles.ecg_drug.chart import chart_intervals, limited, rate_and_qtcf
from world_models.oracles.ecg_drug.drawing import MORPHOLOGY, RESIDUAL, draw_ecg
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS, daily_basis
from world_models.oracles.ecg_drug.fibrillation import Fibrillation, charted, fibrillation_now
from world_models.oracles.ecg_drug.kinetics import MAX_LAG_H, Kinetics, unabsorbed
from world_models.oracles.ecg_drug.population import Amounts, Individual, TrialModel
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS, from_scale, slope_of, to_scale
from world_models.protocol import Chart, Factors, Parts
from world_models.quantities import ecg_drug as ecg_quantities
from world_models.quantity import Quantity

__all__ = ["ADMISSION_FIBRILLATION", "MORPHOLOGY", "RESIDUAL", "ECGDrugOracle", "ECGDrugState"]

MOST_STEP_H = 168.0  # a week: nobody doses less often

_FACTOR = {q.name: i for i, q in enumerate(cohorts.FACTORS)}

ADMISSION_FIBRILLATION = Quantity(
    "admission_fibrillation", "bool", 0.0, 1.0, (), "1 if the admission ECG shows fibrillation; by burden if left out"
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
    entry_fast: Tensor  # [B, D, M] float64, the same of one mg that is not absorbed first
    level_per_mg: Tensor  # [B, D] area under the plasma curve of one mg, ng/mL h
    amounts: Amounts  # drug on board
    concentration: Tensor  # [B, D] plasma, ng/mL, now
    rhythm: rhythm.ArrhythmiaState
    fibrillation: Fibrillation  # of the present ECG
    torsades_risk: Tensor  # [B] factor on the hazard
    harms: harms.HarmState
    total_dose_mg: Tensor  # [B, D]
    hours_since_dose: Tensor  # [B, D], 96 if never
    morphology: Tensor  # [B, 8, W] amplitudes of the beat's waves in mV, leads I II V1-V6
    residual: Tensor  # [B, 8, 200] mV, what they do not express of a recorded beat; [B, 8, 0] where none is recorded


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
        self._sped = [i for i, d in enumerate(trial.drugs) if d in interactions.SPED and "verapamil" in trial.drugs]
        self.drugs = trial.drugs
        self.measures: tuple[Quantity, ...] = ecg_quantities.measures(self.drugs)
        self.orders: tuple[Quantity, ...] = ecg_quantities.orders(self.drugs)
        self.factors: tuple[Quantity, ...] = (*cohorts.FACTORS, MORPHOLOGY, RESIDUAL, ADMISSION_FIBRILLATION)
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
        """Patients at admission. Given factors [B] are fixed, `morphology` [B, 8, W] and `residual_mv` [B, 8, 200] too.

        Raises:
            ValueError: a factor that is unknown, out of bounds or of the wrong shape.
        """
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        morphology, residual = given.pop("morphology", None), given.pop("residual_mv", None)
        fibrillates = given.pop("admission_fibrillation", None)
        if morphology is None:
            morphology = self._bank.sample(keys.fold(key, "oracle/morphology")).to(torch.float32)
        if residual is None:
            residual = morphology.new_zeros(key.shape[0], RESIDUAL.shape[0], 0)  # nothing to carry through a plan
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
            hepatic.clearances(who, self.drugs, self.cohort.from_trial),
            level,
        )
        individual = individual._replace(slope=individual.slope * self._strength(who))
        batch, drugs = key.shape[0], len(self.drugs)
        nothing = torch.zeros(batch, drugs, device=self.device)
        first_ecg = fibrillation_now(
            key, t, who["baseline_burden"], who["baseline_fibrillation_rate_bpm"], rate, nothing, self.drugs
        )
        if fibrillates is not None:  # then its rate is the one that was read
            own_rate = who["baseline_fibrillation_rate_bpm"]
            first_ecg = Fibrillation(fibrillates, torch.where(fibrillates > 0, own_rate, first_ecg.rate_bpm))
        none = self.trial.no_drug(batch)
        full = none._replace(modes=torch.ones_like(none.modes))
        decay = self.trial.advance(individual, full, nothing, self.hours_per_step).modes
        entry = self.trial.advance(individual, none, nothing + 1.0, self.hours_per_step).modes
        kinetics = Kinetics(*individual[:4])
        risk = rhythm.torsades_risk(
            who["sex_female"], who["potassium_mmol_l"], who["magnesium_mmol_l"], self.cohort.torsades_risk
        )
        return ECGDrugState(
            key=key,
            t=t,
            factors=torch.stack([who[q.name] for q in cohorts.FACTORS], -1),
            own=own,
            now=now,
            individual=individual,
            decay=decay,
            entry=entry,
            entry_fast=entry * unabsorbed(kinetics),
            level_per_mg=tolerance.area_per_mg(kinetics.rates, kinetics.plasma).to(torch.float32),
            amounts=none,
            concentration=nothing,
            rhythm=rhythm.initial_rhythm(who["baseline_burden"], who["baseline_qtcf_ms"], rate, risk),
            torsades_risk=risk,
            harms=harms.initial_harms(
                key,
                who["baseline_systolic_bp_mmhg"],
                who["admission_clock_hour"],
                self.cohort.sinus_disease_share,
            ),
            fibrillation=first_ecg,
            total_dose_mg=nothing,
            hours_since_dose=torch.full_like(nothing, ecg_quantities.MAX_HOURS_SINCE_DOSE),
            morphology=morphology,
            residual=residual,
        )

    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: `ecg_mv` [B, 12, 5000] in mV at 500 Hz, and any of age_years, sex_female,
        weight_kg, clock_hour (`recorded.factors_from_chart`).

        Raises:
            ValueError: an ECG of another shape, or one whose intervals cannot be trusted.
        """
        known = {quantity.name for quantity in self.factors}
        return {name: value for name, value in factors_from_chart(chart).items() if name in known}

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
        clock = self._clock(state, t)
        verapamil, quinidine = (self._concentration_of(concentration, name) for name in ("verapamil", "quinidine"))
        effects[:, 0] -= harms.slowing_bpm(state.harms, verapamil)  # of the heart rate
        now = limited(from_scale(state.own + self._moment(state.key, t, clock) + effects))
        rate, qtcf = rate_and_qtcf(now)
        target = rhythm.logit_shift(0.5 * (state.concentration + concentration), self.drugs)
        given = dose > 0
        since = (state.hours_since_dose + self.hours_per_step).clamp_max(ecg_quantities.MAX_HOURS_SINCE_DOSE)
        arrhythmia = rhythm.advance_rhythm(
            state.key,
            t,
            state.rhythm,
            self._factor(state, "baseline_burden"),
            target,
            qtcf,
            rate,
            self._factor(state, "baseline_qtcf_ms"),
            self.hours_per_step,
            state.torsades_risk * rhythm.spared(quinidine),
        )
        own_rate = self._factor(state, "baseline_fibrillation_rate_bpm")
        fibrillation = fibrillation_now(state.key, t, arrhythmia.burden, own_rate, rate, concentration, self.drugs)
        # a node that conducts fibrillation is not asked whether it conducts each P wave
        pr = now[:, 1].contiguous()
        shown_pr = torch.where(fibrillation.shown > 0, torch.full_like(pr, torch.nan), pr)
        return state._replace(
            t=t,
            now=now,
            amounts=amounts,
            concentration=concentration,
            rhythm=arrhythmia,
            fibrillation=fibrillation,
            harms=harms.advance_harms(
                state.key, t, state.harms, shown_pr, verapamil, quinidine, clock, self.hours_per_step
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
            "creatinine_clearance_ml_min": self._factor(state, "creatinine_clearance_ml_min"),
            "potassium_mmol_l": self._factor(state, "potassium_mmol_l"),
            "magnesium_mmol_l": self._factor(state, "magnesium_mmol_l"),
            "hours": (state.t.to(torch.float32) * self.hours_per_step).clamp_max(1000.0),
            "clock_hour": self._clock(state, state.t),
            **charted(chart_intervals(state.now), state.fibrillation),
            "systolic_bp_mmhg": state.harms.systolic_bp_mmhg,
            "av_block": state.harms.av_block,
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

    def spread_parts(self, state: ECGDrugState) -> dict[str, Parts]:
        """See `SplitsSpread`: the oracle knows its patients, so all of it is chance."""
        return {n: Parts(sd, torch.zeros_like(sd), sd) for n, sd in self.spread(state).items()}

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
        out |= {f"harm_{n}": v for n, v in state.harms._asdict().items()}
        out["torsades_hazard_per_h"] = state.rhythm.hazard_per_h
        out["torsades_risk"] = state.torsades_risk
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
        slow_mg, fast_mg = interactions.swallowed(dose_mg, state.concentration, state.level_per_mg, self.drugs)
        if self.hours_per_step < MAX_LAG_H:
            return self.trial.advance(state.individual, state.amounts, slow_mg, self.hours_per_step, fast_mg)
        entered = slow_mg.to(torch.float64).unsqueeze(-1) * state.entry
        for i in self._sped:
            entered[:, i] += fast_mg[:, i : i + 1].to(torch.float64) * state.entry_fast[:, i]
        return state.amounts._replace(modes=state.amounts.modes * state.decay + entered)

    def _strength(self, who: dict[str, Tensor]) -> Tensor:
        """Multiplier [B, D, E] of the fitted slopes: electrolytes and the cohort's answers."""
        strength = electrolytes.block_strength(who["potassium_mmol_l"], who["magnesium_mmol_l"], self.drugs)
        strength = strength * self.cohort.repolarisation_sensitivity
        one = torch.ones_like(strength)
        columns = [strength if moves else one for moves in tolerance.REPOLARISATION]
        reflex = torch.tensor([self.cohort.verapamil_reflex if d == "verapamil" else 1.0 for d in self.drugs])
        columns[ENDPOINTS.index("heart_rate_bpm")] = one * reflex.to(self.device)
        return torch.stack(columns, -1).to(torch.float64)

    def _concentration_of(self, concentration: Tensor, drug: str) -> Tensor:
        """Of one drug in plasma, [B]; 0 where this world has no such drug."""
        if drug not in self.drugs:
            return torch.zeros_like(concentration[:, 0])
        return concentration[:, self.drugs.index(drug)].contiguous()

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
        how = {"hrv_ms": self.hrv_ms, "noise_uv": self.noise_uv, "wander_uv": self.wander_uv}
        return draw_ecg(state.key, state.t, chart, state.morphology, state.residual, **how)
