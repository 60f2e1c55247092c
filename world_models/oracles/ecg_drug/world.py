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

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg.intervals import JT_PEAK_EXPONENT, QT_EXPONENT, jt_peak_scale, log_rr, qt_scale
from world_models.ecg.morphology import MorphologyBank
from world_models.ecg.recorded import factors_from_chart
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ecg_drug import cohorts, fibrillation, harms, interactions, rhythm
from world_models.oracles.ecg_drug.admission import admitted
from world_models.oracles.ecg_drug.chart import chart_intervals, limited
from world_models.oracles.ecg_drug.drawing import MORPHOLOGY, RESIDUAL, draw_ecg
from world_models.oracles.ecg_drug.dynamics import ENDPOINTS
from world_models.oracles.ecg_drug.kinetics import MAX_LAG_H, Kinetics, paced
from world_models.oracles.ecg_drug.population import Amounts, TrialModel
from world_models.oracles.ecg_drug.scales import T_ENDPOINTS, from_scale, slope_of
from world_models.oracles.ecg_drug.state import FACTOR_COLUMN, ECGDrugState
from world_models.protocol import Chart, Factors, Fates, Parts
from world_models.quantities import ecg_drug as ecg_quantities
from world_models.quantity import Quantity

__all__ = ["ADMISSION_FIBRILLATION", "MORPHOLOGY", "RESIDUAL", "ECGDrugOracle", "ECGDrugState"]

_ROWS = 1024  # people at once where temporary results are large: those of more do not stay near the processor
MOST_STEP_H = 168.0  # a week: nobody doses less often

# A step's random numbers, normals first: the ECG's variation, the burden's, the ventricles' rate, the harms.
_NORMALS = (("residual", len(ENDPOINTS)), rhythm.NORMAL, fibrillation.NORMAL, harms.NORMALS)
_UNIFORMS = (rhythm.UNIFORM, fibrillation.UNIFORM)

ADMISSION_FIBRILLATION = Quantity(
    "admission_fibrillation", "bool", 0.0, 1.0, (), "1 if the admission ECG shows fibrillation; by burden if left out"
)


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
        self._sped = interactions.sped(trial.drugs)
        self.drugs = trial.drugs
        self.measures: tuple[Quantity, ...] = ecg_quantities.measures(self.drugs)
        self.orders: tuple[Quantity, ...] = ecg_quantities.orders(self.drugs)
        self.factors: tuple[Quantity, ...] = (*cohorts.FACTORS, MORPHOLOGY, RESIDUAL, ADMISSION_FIBRILLATION)
        # of an extrapolated drug a trace is too much: no trial has seen it
        trace = torch.tensor([1e-4 if e else 1.0 for e in trial.extrapolated], device=self.device)
        self._highest_concentration = trial.train_range().to(self.device) * trace
        covariance = torch.tensor(trial.parameters["baseline"]["residual_covariance"], dtype=torch.float32)
        self._residual_covariance: list[list[float]] = covariance.tolist()

    # ---- the protocol's verbs

    def initial(self, key: Tensor, factors: Factors | None = None) -> ECGDrugState:
        """Patients at admission. Given factors [B] are fixed, `morphology` [B, 8, W] and `residual_mv` [B, 8, 200] too.

        Raises:
            ValueError: a factor that is unknown, out of bounds or of the wrong shape.
        """
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        morphology = given.pop("morphology", None)
        if morphology is None:
            morphology = self._bank.sample(keys.fold(key, "oracle/morphology")).to(torch.float32)
        return admitted(self.cohort, self.trial, self.hours_per_step, key, given, morphology)

    def repaced(self, state: ECGDrugState) -> ECGDrugState:
        """Patients whom an oracle of another step admitted, as this one would have: their `pace` alone is made anew.

        For those on whom nothing is on board yet, or whose steps on both sides are longer than every lag.
        """
        return state._replace(pace=paced(Kinetics(*state.individual[:4]), self.hours_per_step, self._sped))

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
        concentration = self.trial.concentrations(state.individual, amounts)
        effects = self.trial.total_effects(state.individual, amounts)
        t = state.t + 1
        clock = self._clock(state, t)
        luck = keys.uniforms(state.key, t, (*_NORMALS, *_UNIFORMS)).T  # all random numbers of the step in one pass
        z = keys.to_normal(luck[: -len(_UNIFORMS)])
        verapamil, quinidine = (self._concentration_of(concentration, name) for name in ("verapamil", "quinidine"))
        level = (state.own + effects).T + self.trial.moment(z[: len(ENDPOINTS)], clock)
        level[0] -= harms.slowing_bpm(state.harms, verapamil)  # of the heart rate
        now, qtcf = limited(from_scale(level, 0))
        rate, pr = now[0], now[1]
        target = rhythm.logit_shift((state.concentration + concentration) * 0.5, self.drugs)
        given = dose > 0
        since = (state.hours_since_dose + self.hours_per_step).clamp_max(ecg_quantities.MAX_HOURS_SINCE_DOSE)
        change, variation, *harm = z[len(ENDPOINTS) :].unbind(0)
        arrhythmia = rhythm.advance_rhythm(
            change,
            luck[-2],
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
        shown = fibrillation.fibrillation_now(
            luck[-1], variation, arrhythmia.burden, own_rate, rate, concentration, self.drugs
        )
        # a node that conducts fibrillation is not asked whether it conducts each P wave
        shown_pr = torch.where(shown.shown > 0, torch.nan, pr)
        return state._replace(
            t=t,
            now=now.T,
            amounts=amounts,
            concentration=concentration,
            rhythm=arrhythmia,
            fibrillation=shown,
            harms=harms.advance_harms(harm, state.harms, shown_pr, verapamil, quinidine, clock, self.hours_per_step),
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
            **chart_intervals(state.now, state.fibrillation),
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

    def fates(self, before: ECGDrugState, after: ECGDrugState) -> Fates:
        """See `TellsFates`: torsades."""
        had = before.rhythm.torsades
        chance = rhythm.torsades_chance(before.rhythm, after.rhythm, self.hours_per_step)
        spared = after._replace(rhythm=after.rhythm._replace(torsades=had))
        return Fates(spared, {"torsades": chance}, {"torsades": 1.0})

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
        out |= {f"factor_{n}": state.factors[:, i] for n, i in FACTOR_COLUMN.items()}
        out |= {f"individual_{n}": v for n, v in state.individual._asdict().items() if isinstance(v, Tensor)}
        out |= {f"harm_{n}": v for n, v in state.harms._asdict().items()}
        out["torsades_hazard_per_h"] = state.rhythm.hazard_per_h
        out["torsades_risk"] = state.torsades_risk
        out["burden_fluctuation_logit"] = state.rhythm.fluctuation
        out["burden_shift_logit"] = state.rhythm.shift
        return out

    # ---- parts

    def _factor(self, state: ECGDrugState, name: str) -> Tensor:
        return state.factors[:, FACTOR_COLUMN[name]].contiguous()

    def _clock(self, state: ECGDrugState, t: Tensor) -> Tensor:
        return (self._factor(state, "admission_clock_hour") + t.to(torch.float32) * self.hours_per_step) % 24.0

    def _advance(self, state: ECGDrugState, dose_mg: Tensor) -> Amounts:
        """`TrialModel.advance` without its exponentials: the system is linear, those of `initial` serve every step.

        In a step that outlasts every absorption lag no dose is left waiting.
        """
        slow_mg, fast_mg = interactions.swallowed(dose_mg, state.concentration, state.level_per_mg, self.drugs)
        if self.hours_per_step <= MAX_LAG_H:
            return self.trial.advance(state.individual, state.amounts, slow_mg, self.hours_per_step, fast_mg)
        modes = state.amounts.modes * state.pace.decay
        slow = slow_mg.to(torch.float64).unsqueeze(-1)
        for rows in tree.runs(len(modes), _ROWS):
            modes[rows] += slow[rows] * state.pace.entry[rows]
        for k, i in enumerate(self._sped):
            modes[:, i] += fast_mg[:, i : i + 1].to(torch.float64) * state.pace.entry_fast[:, k]
        return state.amounts._replace(modes=modes)

    def _concentration_of(self, concentration: Tensor, drug: str) -> Tensor:
        """Of one drug in plasma, [B]; 0 where this world has no such drug."""
        if drug not in self.drugs:
            return torch.zeros_like(concentration[:, 0])
        return concentration[:, self.drugs.index(drug)].contiguous()

    @cached_property
    def _bank(self) -> MorphologyBank:
        return MorphologyBank.load(device=self.device)

    def _synthesise(self, state: ECGDrugState, chart: Chart) -> Tensor:
        how = {"hrv_ms": self.hrv_ms, "noise_uv": self.noise_uv, "wander_uv": self.wander_uv}
        return draw_ecg(state.key, state.t, chart, state.morphology, state.residual, **how)
