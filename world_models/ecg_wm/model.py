"""ECGWorldModel: a learned world of the 12-lead ECG under antiarrhythmic drugs.

One step: the doses are swallowed, the ODE prior carries drug amounts and the latent's deviation from baseline over the
step (`latent_ode`), the diffusion's few-step student samples the whole latent z = (u, m) about where the prior leads
(`residual`), the head reads the chart off u (`latent`), events strike (`events`), and, on request, the decoder draws
the ECG of m that reads as the chart says (`vae`, `synthesis`). What is not known of a patient is sampled from a belief
(`belief`), anew by `rekey`, so particles differ in patient as well as in noise.

The construction (VAE, physiological ODE prior, latent diffusion with energy regularisation) follows ECG-WM (Chen et
al. 2026, arXiv 2605.17580); that the sampler of a step is distilled, and that the prior carries a belief about the
patient's kinetics and sensitivity are this project's. Research software: nothing here is a clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from world_models import checkpoint, gradients, keys
from world_models.config_json import from_json
from world_models.constants import constant
from world_models.ecg_wm import inference, latent, stepping
from world_models.ecg_wm.admission import CONDUCTION, FIBRILLATION, start
from world_models.ecg_wm.bands import BAND_OF, GROUPS, corrected
from world_models.ecg_wm.beats import LEAD_COUNT, SAMPLES
from world_models.ecg_wm.belief import BeliefEncoder
from world_models.ecg_wm.chance import chance_sd, split
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.encode import read_chart
from world_models.ecg_wm.events import AVBlock, TorsadesHazard, torsades_fates
from world_models.ecg_wm.latent import BURDEN, COORDS
from world_models.ecg_wm.latent_ode import (
    DAY_NUMBERS,
    HOURS_PER_DAY,
    PATIENT,
    SITES,
    PhysiologicalPrior,
    Rates,
    clock_waves,
)
from world_models.ecg_wm.patients import CLEARANCES, COVARIATES, baseline_chart
from world_models.ecg_wm.recorded import recorded_with
from world_models.ecg_wm.residual import LatentResidual, Sampling
from world_models.ecg_wm.start_rates import REFERENCE_MG, START_RATES
from world_models.ecg_wm.state import Belief, ECGWorldState, Present
from world_models.ecg_wm.synthesis import synthesise
from world_models.ecg_wm.vae import BeatVAE
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.nn.mlp import mlp
from world_models.oracles.cohort import cohort_named
from world_models.oracles.ecg_drug.cohorts import COHORTS, FACTORS, sample_factors
from world_models.oracles.ecg_drug.world import ADMISSION_FIBRILLATION
from world_models.protocol import UNKNOWN, Chart, Factors, Fates, History, Parts, Treated
from world_models.quantities.ecg_drug import DRUGS, MEASURES, ORDERS
from world_models.quantity import Quantity
from world_models.twins import twin

__all__ = ["KIND", "SPREAD_OF", "ECGWorldModel"]

KIND = "ecg-wm"
_COHORT_FACTORS = tuple(q.name for q in FACTORS)
SPREAD_OF = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", "qtcf_ms", *latent.T_WAVE)
# The spread head's output in the chart's units: softplus of it times this, plus a hundredth of it at least.
SPREAD_UNITS = (10.0, 10.0, 10.0, 10.0, 10.0, 10.0, 100.0, 0.1, 0.05, 10.0, 5.0)
LEAST_SHARE = 0.01
SHAPE = "latent shape of the beat, as `read` gives it"
RESIDUAL = "what the decoder leaves out of the recorded beat, as `read` gives it"
RESIDUAL_LIMIT_MV = 20.0
LATENT_LIMIT = 50.0  # of a latent's entries in a chart
# What training met: hardly a patient of the oracle's cohorts is older or heavier, or has a coordinate so far out.
OLDEST_YEARS, HEAVIEST_KG, WIDEST_U = 95.0, 160.0, 12.0


class ECGWorldModel(nn.Module):
    """The learned world, as `world_models.protocol` has it; B patients, D = 4 drugs."""

    orders = ORDERS
    graded_orders = tuple(order.name for order in ORDERS)  # see `gradients.Differentiable`
    halves = ("bfloat16", "float16")  # see `half.TakesHalf`
    dtype = "float32"
    weights_sha256: str | None = None  # the seal of the folder it was loaded from
    amount_limit: Tensor  # [D] largest central amounts met in training
    temperature: Tensor  # scalar: widens the samples of the belief; calibrated like spread_scale
    spread_scale: Tensor  # [len(SPREAD_OF)] calibration on held-out cohorts
    chance_scale: Tensor  # [len(SPREAD_OF)] likewise, of what the residual alone varies by
    band_shift: Tensor  # [len(BAND_OF), len(GROUPS) + 1] conformal shifts of the samples' bands (`bands`)

    def __init__(self, config: ECGWorldConfig, hours_per_step: float | None = None, cohort: str = "typical"):
        super().__init__()
        self.config, self.name, self.cohort = config, config.name, cohort
        self.hours_per_step = float(hours_per_step or config.hours_per_step)
        latent_size = COORDS + config.morphology
        self.measures: tuple[Quantity, ...] = (
            *MEASURES,
            Quantity("latent", "1", -LATENT_LIMIT, LATENT_LIMIT, (latent_size,), "u and m of the ECG", on_request=True),
        )
        self.factors: tuple[Quantity, ...] = (
            *FACTORS,
            ADMISSION_FIBRILLATION,
            Quantity("shape", "1", -LATENT_LIMIT, LATENT_LIMIT, (config.morphology,), SHAPE),
            Quantity("residual", "mV", -RESIDUAL_LIMIT_MV, RESIDUAL_LIMIT_MV, (LEAD_COUNT, SAMPLES), RESIDUAL),
        )
        drugs = len(DRUGS)
        self.prior = PhysiologicalPrior(config, drugs, START_RATES, REFERENCE_MG)
        self.residual = LatentResidual(config, drugs)
        self.log_memory = nn.Parameter(torch.zeros(COORDS))  # log h: how long a residual is remembered
        self.log_noise = nn.Parameter(torch.full((COORDS,), -1.0))  # log SD of the residual, for the evidence bound
        # log SD of the momentary part of a baseline reading
        self.correction = nn.Parameter(torch.full((COORDS,), -1.0))
        self.believe = BeliefEncoder(drugs, config.eta + COORDS, config.belief_width)
        known = SITES * drugs + PATIENT + COORDS + 1 + config.eta + COORDS + DAY_NUMBERS
        self.spread_head = mlp((known, config.spread_width, len(SPREAD_OF)))
        self.torsades_hazard = TorsadesHazard()
        self.av_block = AVBlock(SITES * drugs, config.event_width)
        self.vae = BeatVAE(config)
        self.register_buffer("amount_limit", torch.full((drugs,), 10.0))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("spread_scale", torch.ones(len(SPREAD_OF)))
        self.register_buffer("chance_scale", torch.ones(len(SPREAD_OF)))
        self.register_buffer("band_shift", torch.zeros(len(BAND_OF), len(GROUPS) + 1))
        # the random numbers of a step: normals of z and of the node, then what torsades and the rhythm hang on
        self.streams = (("residual", latent_size), CONDUCTION, "torsades", FIBRILLATION)
        self.sampling = Sampling()

    # ---- loading -------------------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        folder: str | Path | checkpoint.Opened,
        device: torch.device | str = "cpu",
        cohort: str = "typical",
        hours_per_step: float | None = None,
    ) -> ECGWorldModel:
        """From a folder with config.json and model.safetensors. One copy of the weights a process and device.

        Raises:
            ValueError: an unknown cohort.
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """
        cohort_named(COHORTS, cohort)
        return checkpoint.load_module(folder, KIND, _build, device).with_options(hours_per_step, cohort)

    def with_options(
        self, hours_per_step: float | None = None, cohort: str | None = None, sampling: Sampling | None = None
    ) -> ECGWorldModel:
        """The same weights (shared, not copied) with another step, other generated patients, another way to sample."""
        hours = float(hours_per_step or self.hours_per_step)
        return twin(self, hours_per_step=hours, cohort=cohort or self.cohort, sampling=sampling or self.sampling)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.log_noise.device

    # ---- the verbs -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> ECGWorldState:
        """Patients [B] before any dose; see `WorldModel.initial`. Fixed hepatic clearances are known to the model.

        Raises:
            ValueError: a factor is unknown or out of range.
        """
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        f = sample_factors(self.cohort, key, {name: given[name] for name in given if name in _COHORT_FACTORS})
        unknown = torch.full_like(f["age_years"], float("nan"))
        who = {**f, **{name: given.get(name, unknown) for name in CLEARANCES}}
        baseline = baseline_chart(f)
        shape = given.get("shape")
        if shape is None:
            shape = self.vae.prior(key, torch.stack([baseline[name] for name in latent.T_WAVE], dim=-1))
        who |= {name: given[name] for name in ("admission_fibrillation",) if name in given}
        state = start(self, key, who, shape, latent.standardise(baseline))
        if "residual" not in given:
            return state
        return state._replace(recorded=recorded_with(given["residual"], f, latent.intervals_of(state.measured)))

    @torch.no_grad()
    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: `ecg_mv` [B, 12, T] at 500 Hz, and what else of the factors stands in it."""
        return read_chart(self.vae, chart, [quantity.name for quantity in self.factors])

    @gradients.verb
    def transition(self, state: ECGWorldState, action: Tensor) -> ECGWorldState:
        """One step of `hours_per_step` after doses [B, D] mg; see `WorldModel.transition`.

        Raises:
            ValueError: an order outside its bounds.
        """
        return stepping.step(self, state, checked_orders(self.orders, action, state.key.shape[0], self.device))

    def join(self, state: ECGWorldState, shown: ECGWorldState) -> ECGWorldState:
        """See `ensemble.Follows`: by one key all worlds admit the same patients."""
        return state

    @gradients.verb
    def follow(self, state: ECGWorldState, action: Tensor, shown: ECGWorldState) -> ECGWorldState:
        """See `ensemble.Follows`. Raises ValueError: an order outside its bounds."""
        dose = checked_orders(self.orders, action, state.key.shape[0], self.device)
        return stepping.follow(self, state, dose, shown)

    @gradients.verb
    def foretold(self, state: ECGWorldState) -> Chart:
        """See `ensemble.Follows`: the intervals where the prior alone leads, in sinus rhythm."""
        chart = latent.intervals_of(state.rates.anchor + state.deviation)
        return {name: chart[name] for name in SPREAD_OF}

    @gradients.verb
    def fates(self, before: ECGWorldState, after: ECGWorldState) -> Fates:
        """See `TellsFates`: torsades."""
        return torsades_fates(self, before, after)

    @gradients.verb
    def observe(self, state: ECGWorldState, also: Sequence[str] = ()) -> Chart:
        """The chart now; see `WorldModel.observe`. Raises ValueError: `also` names something that is no measure."""
        if also:
            check_also(self.measures, also)
        chart = {
            **dict(zip(COVARIATES, state.covariates.T.contiguous().unbind(0), strict=True)),
            "hours": state.hours,
            "clock_hour": torch.remainder(state.start_hour + state.hours, HOURS_PER_DAY),
            **state.present.intervals,
            "atrial_fibrillation": state.present.fibrillating.to(torch.float32),
            "av_block": state.present.av_block,
            "baseline_qtcf_ms": state.baseline_qtcf_ms,
            "torsades": state.torsades,
            "total_dose_mg": state.total_dose_mg,
            "hours_since_dose": state.hours_since_dose,
        }
        if "latent" in also:
            chart["latent"] = torch.cat([state.present.u, state.shape], dim=-1).clamp(-LATENT_LIMIT, LATENT_LIMIT)
        if "ecg_mv" in also:
            shown = state.shape, state.recorded, state.key, state.t
            chart["ecg_mv"] = synthesise(self.vae, *shown, chart, state.present.fibrillating, state.first_shape)
        return chart

    @gradients.verb
    def rekey(self, state: ECGWorldState, key: Tensor) -> ECGWorldState:
        """A new random key, and what is not known sampled anew: the drug course so far is gone through with that.

        Of somebody who has always fibrillated sinus rate and PR are not known, and of all others the rate in it.
        """
        return inference.rekey(self, state, key)

    @gradients.verb
    def expected(self, state: ECGWorldState) -> ECGWorldState:
        """The same patients as the belief's mean has them, without residual: the centre of what the model expects."""
        middle = inference.relive(self, state, state.belief.mean)
        return self.settled(middle._replace(residual=torch.zeros_like(state.residual)))

    @gradients.verb
    def spread(self, state: ECGWorldState) -> dict[str, Tensor]:
        """Standard deviation [B] of each interval's prediction from what was known when the belief was formed."""
        return dict(zip(SPREAD_OF, self.spread_of(state).T.contiguous().unbind(0), strict=True))

    @gradients.verb
    def spread_parts(self, state: ECGWorldState) -> dict[str, Parts]:
        """See `SplitsSpread`: chance is what the residual alone varies by; the rest, not knowing the patient."""
        return split(self.spread(state), chance_sd(state.present, self.log_noise), self.chance_scale)

    def calibrated(self, name: str, low: Tensor, high: Tensor, whom: Treated = UNKNOWN) -> tuple[Tensor, Tensor]:
        """See `CalibratesBands`: split conformal shifts (`bands`), kept with the weights."""
        return corrected(self.band_shift, name, low, high, whom)

    @gradients.verb
    def support(self, state: ECGWorldState) -> Tensor:
        """bool [B]: drug on board, intervals, age and weight within what training met."""
        drug = (self.prior.central(state.rates, state.amounts) <= self.amount_limit).all(-1)
        intervals = (state.present.u[:, :BURDEN].abs() < WIDEST_U).all(-1)
        age, _, weight, *_ = state.covariates.unbind(-1)
        return drug & intervals & (age <= OLDEST_YEARS) & (weight <= HEAVIEST_KG)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> ECGWorldState:
        """Belief after a recorded course; see `History`. The first chart is the baseline; NaN is a missing value.

        `factors` may hold what `read` took from the recorded ECG (`shape`) and patient factors; the rest is taken from
        the first chart, or sampled from the cohort. Visits need not be a step apart. The state is that of the last
        visit, the doses in the last row of actions swallowed.

        Raises:
            ValueError: the first visit lacks an interval, or a factor or a dose is out of its bounds.
        """
        return inference.infer(self, history, key, checked_factors(self.factors, factors, key.shape[0], self.device))

    # ---- parts ---------------------------------------------------------------------------------------------------

    @property
    def learned_passes(self) -> tuple[tuple[object, str], ...]:
        """(object, method) of each pass through learned weights that is no module's call: timed together with those."""
        return (self.prior, "advance"), (self.prior, "individual"), (self.prior, "dose")

    def settled(self, state: ECGWorldState, fibrillating: Tensor | None = None) -> ECGWorldState:
        """The state with its `present` worked out from the rest.

        `fibrillating` [B] is what this ECG is known to show, 0 or 1; NaN or None: as chance has it.
        """
        u = state.rates.anchor + state.deviation + state.residual
        effect, clock = self.prior.effect(state.rates, state.amounts), clock_waves(state.start_hour + state.hours)
        chance = keys.uniform(state.key, state.t, FIBRILLATION)
        if fibrillating is not None:  # a chance of 0 is below every burden, one of 1 below none
            chance = torch.where(fibrillating.isnan(), chance, 1.0 - fibrillating)
        return state._replace(present=self.present(state, u, effect, clock, chance, state.conduction))

    def present(
        self, state: ECGWorldState, u: Tensor, effect: Tensor, clock: Tensor, chance: Tensor, conduction: Tensor
    ) -> Present:
        """What follows of coordinates u [B, COORDS]; `chance` [B] is uniform: below the burden the ECG fibrillates."""
        fibrillating = chance < torch.sigmoid(u[:, BURDEN] * latent.SCALE[BURDEN] + latent.CENTRE[BURDEN])
        blocked = self.av_block.blocked(conduction, u, effect, state.rates.patient) & ~fibrillating
        intervals = latent.intervals_of(u, fibrillating)
        return Present(u, intervals, effect, clock, fibrillating, blocked.to(torch.float32))

    def spread_of(self, state: ECGWorldState, scaled: bool = True) -> Tensor:
        """Standard deviations [B, len(SPREAD_OF)] in the chart's units, `scaled` by the calibration or as trained."""
        features = torch.cat(
            [
                state.present.effect,
                state.rates.patient,
                state.measured,
                (state.hours / HOURS_PER_DAY).unsqueeze(-1),
                state.belief.deviation,
                state.present.clock,
            ],
            dim=-1,
        )
        unit = constant(SPREAD_UNITS, features.device)
        width = (nn.functional.softplus(self.spread_head(features)) + LEAST_SHARE) * unit
        return width * self.spread_scale if scaled else width

    def anchor(self, measured: Tensor, unknown: Tensor) -> Tensor:
        """u [B, COORDS] of the patient's own baseline: the admission reading [B, COORDS] less its momentary part."""
        return measured + unknown[:, self.config.eta :] * self.correction.exp()

    def sample_unknown(self, belief: Belief, key: Tensor) -> Tensor:
        """Random effects and baseline correction [B, eta + COORDS] of keys [B], from the belief."""
        normals = keys.normal(key, 0, "belief", (belief.mean.shape[-1],))
        return belief.mean + belief.deviation * self.temperature * normals

    def rates_of(self, patient: Tensor, measured: Tensor, unknown: Tensor) -> Rates:
        """The prior of patients: covariates [B, PATIENT], admission reading [B, COORDS], unknowns [B, eta + COORDS]."""
        anchor = self.anchor(measured, unknown)
        return self.prior.individual(unknown[:, : self.config.eta], patient, anchor)

    def live_by(self, state: ECGWorldState, unknown: Tensor) -> ECGWorldState:
        """The patients before any drug, with these unknowns [B, eta + COORDS]. `present` is not renewed."""
        rates = self.rates_of(state.rates.patient, state.measured, unknown)
        return state._replace(
            unknown=unknown,
            rates=rates,
            amounts=torch.zeros_like(state.amounts),
            relaxed=torch.zeros_like(state.relaxed),
            deviation=torch.zeros_like(state.deviation),
            residual=state.measured - rates.anchor,  # what the admission reading shows is known
        )


def _build(plain: dict[str, Any]) -> ECGWorldModel:
    """The untrained module of a config.json."""
    return ECGWorldModel(from_json(ECGWorldConfig, plain, "the config"))
