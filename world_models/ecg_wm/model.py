"""ECGWorldModel: a learned world of the 12-lead ECG under antiarrhythmic drugs.

One step: the doses are swallowed, the ODE prior carries drug amounts and the latent's deviation from baseline over the
step (`latent_ode`), the flow adds the stochastic residual (`flow`), the head reads intervals off the latent (`latent`),
and, when somebody asks, the decoder draws the ECG (`vae`, `beats`). What is not known of a patient is a draw from a
belief (`belief`), redrawn by `rekey`, so particles differ in patient as well as in luck.

The construction (VAE, physiological ODE prior, generative residual) follows ECG-WM (Chen et al. 2026,
arXiv 2605.17580); that the flow acts on interval coordinates, few-step, and that the prior carries a belief about the
patient's kinetics and sensitivity are this project's. Research software: nothing here is a clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from world_models import checkpoint, keys
from world_models.config_json import from_json
from world_models.ecg.waveform import R_SHARE, beat_samples, derive_twelve, tile
from world_models.ecg_wm import beats, inference, latent
from world_models.ecg_wm.belief import BeliefEncoder
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.encode import read_chart
from world_models.ecg_wm.flow import ResidualFlow
from world_models.ecg_wm.latent_ode import COMPARTMENTS, COORDS, PATIENT, PhysiologicalPrior, clock_waves
from world_models.ecg_wm.patients import baseline_chart, log_dose, patient_features
from world_models.ecg_wm.readback import Readback
from world_models.ecg_wm.start_rates import REFERENCE_MG, START_RATES
from world_models.ecg_wm.state import Belief, ECGWorldState
from world_models.ecg_wm.vae import BeatVAE
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.nn.mlp import mlp
from world_models.oracles.ecg_drug.cohorts import FACTORS, cohort_named, draw_factors
from world_models.protocol import Chart, Factors, History
from world_models.quantities.ecg_drug import DRUGS, MAX_HOURS_SINCE_DOSE, MEASURES, ORDERS
from world_models.quantity import Quantity

__all__ = ["KIND", "ECGWorldModel"]

KIND = "ecg-wm"
_DRAWN = tuple(q.name for q in FACTORS)
SPREAD_OF = ("heart_rate_bpm", "pr_ms", "qrs_ms", "jt_peak_c_ms", "tpeak_tend_ms", "qtcf_ms")
SAMPLES, RATE_HZ, TEMPLATE, AT_R = 5000, 500.0, 801, 300
LUCK = (("residual", COORDS), "torsades")  # what a step draws


class ECGWorldModel(nn.Module):
    """The learned world. Implements `world_models.protocol.LearnedWorld`; B patients, D = 4 drugs."""

    measures: tuple[Quantity, ...]
    orders = ORDERS

    def __init__(self, config: ECGWorldConfig, hours_per_step: float | None = None, cohort: str = "typical"):
        super().__init__()
        self.config, self.name, self.cohort = config, config.name, cohort
        self.hours_per_step = float(hours_per_step or config.hours_per_step)
        latent_size = COORDS + config.morphology
        self.measures = (
            *MEASURES,
            Quantity("latent", "1", -50.0, 50.0, (latent_size,), "u and m of the ECG", on_request=True),
        )
        self.factors = (
            *FACTORS,
            Quantity("shape", "1", -50.0, 50.0, (config.morphology,), "latent shape of the beat, as `read` gives it"),
        )
        drugs = len(DRUGS)
        self.prior = PhysiologicalPrior(config, drugs, START_RATES, REFERENCE_MG)
        condition = COORDS + COORDS + 1 + 2 * drugs + PATIENT
        self.flow = ResidualFlow(COORDS, condition, config.flow_width, config.flow_steps)
        self.log_memory = nn.Parameter(torch.zeros(COORDS))  # log h: how long a residual is remembered
        self.log_noise = nn.Parameter(torch.full((COORDS,), -1.0))  # log SD of the residual, for the evidence bound
        self.correction = nn.Parameter(
            torch.full((COORDS,), -1.0)
        )  # log SD of the momentary part of a baseline reading
        self.believe = BeliefEncoder(drugs, config.eta + COORDS, config.belief_width)
        self.spread_head = mlp(
            (2 * drugs + PATIENT + COORDS + 1 + config.eta + COORDS + 4, config.spread_width, len(SPREAD_OF))
        )
        # log torsades hazard per h, see `log_hazard`: level, four slopes, middle and width of the gate on the rise
        self.hazard = nn.Parameter(torch.tensor([-8.0, 1.0, 1.0, 1.0, 0.0, 0.3, 0.2]))
        self.vae = BeatVAE(config)
        self.register_buffer("amount_limit", torch.full((drugs,), 10.0))  # largest central amount met in training
        self.register_buffer("temperature", torch.ones(()))  # widens the belief's draws; calibrated like spread_scale
        self.register_buffer("spread_scale", torch.ones(len(SPREAD_OF)))  # calibration on held-out cohorts
        self.readback = Readback(config)

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
        cohort_named(cohort)
        return checkpoint.load_module(folder, KIND, _build, device).with_options(hours_per_step, cohort)

    def with_options(self, hours_per_step: float | None = None, cohort: str | None = None) -> ECGWorldModel:
        """The same weights (shared, not copied) with another step or another cohort of generated patients."""
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin.hours_per_step = float(hours_per_step or self.hours_per_step)
        twin.cohort = cohort or self.cohort
        return twin

    @property
    def device(self) -> torch.device:
        return self.log_noise.device

    # ---- the verbs -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> ECGWorldState:
        """Patients [B] before any dose; see `WorldModel.initial`. A fixed `metaboliser` is known to the model.

        Raises:
            ValueError: a factor is unknown or out of range.
        """
        given = checked_factors(self.factors, factors, key.shape[0], self.device)
        f = draw_factors(self.cohort, key, {name: given[name] for name in given if name in _DRAWN})
        unknown = torch.full_like(f["age_years"], float("nan"))
        shape = given.get("shape")
        if shape is None:
            shape = self.vae.prior(key)
        return self.start(key, f, given.get("metaboliser", unknown), shape, latent.standardise(baseline_chart(f)))

    @torch.no_grad()
    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: `ecg_mv` [B, 12, T] at 500 Hz and whatever else of the factors stands in it."""
        return read_chart(self.vae, chart)

    @torch.no_grad()
    def transition(self, state: ECGWorldState, action: Tensor) -> ECGWorldState:
        hours = self.hours_per_step
        dose = checked_orders(self.orders, action, state.key.shape[0], self.device)
        amounts, deviation = self.prior.advance(
            state.rates, self.prior.dose(state.amounts, dose), state.deviation,
            state.start_hour + state.hours, state.start_hour, hours,
        )  # fmt: skip
        t = state.t + 1
        condition = self.condition(amounts, state.residual, self.context(state)[0], deviation)
        memory, scale = self.innovation(hours)
        luck = keys.uniforms(state.key, t, LUCK)
        drawn = self.flow(keys.to_normal(luck[:, :COORDS]), condition)
        since = (state.hours_since_dose + hours).clamp_max(MAX_HOURS_SINCE_DOSE)
        moved = state._replace(
            t=t, hours=state.hours + hours, amounts=amounts, deviation=deviation,
            residual=torch.addcmul(memory * state.residual, scale, drawn),
            total_dose_mg=state.total_dose_mg + dose, hours_since_dose=torch.where(dose > 0, hours, since),
            dose_log_mg=log_dose(state.dose_log_mg, state.t, dose),
        )  # fmt: skip
        rate, qtcf = latent.rate_and_qtcf(torch.stack([self.coordinates(moved), state.measured]))
        chart = {"heart_rate_bpm": rate[0], "qtcf_ms": qtcf[0], "baseline_qtcf_ms": qtcf[1]}
        chance = -torch.expm1(-torch.exp(self.log_hazard(chart)) * hours)
        struck = (luck[:, COORDS] < chance).to(torch.float32)
        return moved._replace(torsades=torch.maximum(state.torsades, struck))

    @torch.no_grad()
    def observe(self, state: ECGWorldState, also: Sequence[str] = ()) -> Chart:
        check_also(self.measures, also)
        chart = {
            "age_years": state.age_years,
            "sex_female": state.sex_female,
            "weight_kg": state.weight_kg,
            "hours": state.hours,
            "clock_hour": torch.remainder(state.start_hour + state.hours, 24.0),
            **latent.intervals_of(self.coordinates(state)),
            "baseline_qtcf_ms": latent.rate_and_qtcf(state.measured)[1],
            "torsades": state.torsades,
            "total_dose_mg": state.total_dose_mg,
            "hours_since_dose": state.hours_since_dose,
        }
        if "latent" in also:
            chart["latent"] = torch.cat([self.coordinates(state), state.shape], dim=-1).clamp(-50.0, 50.0)
        if "ecg_mv" in also:
            chart["ecg_mv"] = self.draw(state.shape, state.key, state.t, chart)
        return chart

    @torch.no_grad()
    def rekey(self, state: ECGWorldState, key: Tensor) -> ECGWorldState:
        """New luck, and a new draw of what is not known: the drug course so far is gone through again with it."""
        u = self.coordinates(state)
        fresh = self.relive(state._replace(key=key), self.draw_unknown(state.belief, key))
        # What the chart showed is known: the residual makes up the difference between the new prior and it.
        return fresh._replace(residual=u - self.anchor(fresh) - fresh.deviation)

    @torch.no_grad()
    def expected(self, state: ECGWorldState) -> ECGWorldState:
        """The same patients as the belief's mean has them, without residual: the centre of what the model expects."""
        middle = self.relive(state, state.belief.mean)
        return middle._replace(residual=torch.zeros_like(state.residual))

    @torch.no_grad()
    def spread(self, state: ECGWorldState) -> dict[str, Tensor]:
        """Standard deviation [B] of each interval's prediction from what was known when the belief was formed."""
        return dict(zip(SPREAD_OF, self.spread_of(state).T.contiguous().unbind(0), strict=True))

    @torch.no_grad()
    def support(self, state: ECGWorldState) -> Tensor:
        """bool [B]: drug on board and intervals within what training met."""
        central = state.amounts[..., 2]
        inside = (central <= self.amount_limit).all(-1)
        u = self.coordinates(state)[:, :-1]
        return inside & (u.abs() < 12).all(-1) & (state.age_years <= 95) & (state.weight_kg <= 160)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> ECGWorldState:
        """Belief after a recorded course; see `History`. The first chart is the baseline; NaN is a missing value.

        `factors` may hold what `read` took from the recorded ECG (`shape`) and patient factors; the rest is taken from
        the first chart, or drawn from the cohort. Visits need not be a step apart; the state is that of the last visit
        (its last action is not given yet: the next `transition` gives it).

        Raises:
            ValueError: the first visit lacks an interval, or a factor or a dose is out of its bounds.
        """
        return inference.infer(self, history, key, checked_factors(self.factors, factors, key.shape[0], self.device))

    # ---- parts ---------------------------------------------------------------------------------------------------

    @property
    def learned_passes(self) -> tuple[tuple[object, str], ...]:
        """(object, method) of each pass through learned weights that is no module's call: timed together with those."""
        return (self.prior, "advance"), (self.prior, "individual"), (self, "log_hazard")

    def coordinates(self, state: ECGWorldState) -> Tensor:
        """u [B, 6] now."""
        return self.context(state)[1] + state.deviation + state.residual

    def context(self, state: ECGWorldState) -> tuple[Tensor, Tensor]:
        """Covariates [B, 5] and anchor [B, 6] that a living state was given with its unknowns."""
        return state.rates.context[:, -PATIENT - COORDS : -COORDS], state.rates.context[:, -COORDS:]

    def log_hazard(self, chart: Chart) -> Tensor:
        """Log of the torsades hazard per hour [B].

        In QTcF linear between knots at 450 and 600 ms; in a rate under 60 bpm; and gated by the rise over the admission
        QTcF, as a long QT that a patient has always lived with is no drug's effect.
        """
        level, slope, longer, shorter, slow, middle, width = self.hazard.unbind()
        qtcf = chart["qtcf_ms"] / 100
        steep = longer * (qtcf - 6.0).clamp_min(0) - shorter * (4.5 - qtcf).clamp_min(0)
        rise = qtcf - chart["baseline_qtcf_ms"] / 100
        gate = torch.nn.functional.logsigmoid((rise - middle) / (width.abs() + 0.02))
        return level + slope * (qtcf - 5.0) + steep + slow * (60 - chart["heart_rate_bpm"]).clamp_min(0) / 10 + gate

    def draw(self, shape: Tensor, key: Tensor, t: Tensor, chart: Chart) -> Tensor:
        """ECG [B, 12, 5000] mV of beat shape [B, morphology] on which a delineator reads the chart's intervals."""
        asked = self.readback.asked(shape, chart)
        ends = beats.anchors(asked["pr_ms"], asked["qrs_ms"], asked["jt_peak_ms"], asked["tpeak_tend_ms"])
        onset = AT_R - R_SHARE * asked["qrs_ms"] * (RATE_HZ / 1000)
        parts = []
        for rows in torch.arange(key.shape[0], device=self.device).split(64):  # 64 ECGs stay near the cache
            template = beats.from_canonical(self.vae.decode(shape[rows]), ends[rows], onset[rows], TEMPLATE, RATE_HZ)
            r = beat_samples(key[rows], t[rows], chart["heart_rate_bpm"][rows], hrv_ms=20.0)
            parts.append(derive_twelve(tile(template, r, SAMPLES, AT_R)))
        return torch.cat(parts)

    def spread_of(self, state: ECGWorldState, scaled: bool = True) -> Tensor:
        """Standard deviations [B, len(SPREAD_OF)] in the chart's units, `scaled` by the calibration or as trained."""
        features = torch.cat(
            [self.prior.effect(state.amounts).flatten(1), self.context(state)[0], state.measured,
             (state.hours / 24).unsqueeze(-1), state.belief.deviation, clock_waves(state.start_hour + state.hours)], dim=-1,
        )  # fmt: skip
        width = torch.nn.functional.softplus(self.spread_head(features)) * 10 + 0.1
        return width * self.spread_scale if scaled else width

    def innovation(self, hours: float) -> tuple[Tensor, Tensor]:
        """How much of a residual is left after `hours` [6], and the scale of what the flow adds [6]."""
        memory = torch.exp(-hours / self.log_memory.exp())
        return memory, self.log_noise.exp() * torch.sqrt(1 - memory.square() + 1e-6)

    def condition(self, amounts: Tensor, residual: Tensor, patient: Tensor, deviation: Tensor) -> Tensor:
        """What the flow is told: the last residual, where the prior stands, length of the step, drug, patient."""
        step = residual.new_full((residual.shape[0], 1), self.hours_per_step / 2)
        return torch.cat([residual, deviation, step, self.prior.effect(amounts).flatten(1), patient], dim=-1)

    def anchor(self, state: ECGWorldState) -> Tensor:
        """u [B, 6] of the patient's own baseline: the admission reading less its momentary part."""
        return state.measured + state.unknown[:, self.config.eta :] * self.correction.exp()

    def draw_unknown(self, belief: Belief, key: Tensor) -> Tensor:
        luck = keys.normal(key, 0, "belief", (belief.mean.shape[-1],))
        return belief.mean + belief.deviation * self.temperature * luck

    def live_by(self, state: ECGWorldState, unknown: Tensor) -> ECGWorldState:
        """The state at its start, with this draw of the unknowns."""
        state = state._replace(unknown=unknown)
        eta = unknown[:, : self.config.eta]
        rates = self.prior.individual(eta, patient_features(state), self.anchor(state), self.hours_per_step)
        return state._replace(
            rates=rates,
            amounts=torch.zeros_like(state.amounts),
            deviation=torch.zeros_like(state.deviation),
            residual=state.measured - self.anchor(state),  # what the admission reading shows is known
        )

    def relive(self, state: ECGWorldState, unknown: Tensor) -> ECGWorldState:
        """The state now, had the patient always had these unknowns [B, eta + 6]: logged doses are gone through again."""
        fresh = self.live_by(state, unknown)
        steps = int(state.t.max()) if state.t.numel() else 0
        window = state.dose_log_mg.shape[1]
        for i in range(max(0, steps - window), steps):
            running = state.t > i
            dose = torch.where(running.unsqueeze(-1), state.dose_log_mg[:, i % window], 0.0)
            amounts, deviation = self.prior.advance(
                fresh.rates, self.prior.dose(fresh.amounts, dose), fresh.deviation,
                state.start_hour + i * self.hours_per_step, state.start_hour, self.hours_per_step,
            )  # fmt: skip
            fresh = fresh._replace(
                amounts=torch.where(running[:, None, None], amounts, fresh.amounts),
                deviation=torch.where(running[:, None], deviation, fresh.deviation),
            )
        return fresh

    def visit_features(
        self, state: ECGWorldState, u: Tensor, amounts: Tensor, action: Tensor, hours: Tensor, gap: Tensor
    ) -> Tensor:
        """What the belief encoder is shown of visits [B, T]: see `BeliefEncoder.features`."""
        seen = ~u.isnan()
        change = torch.where(seen, u - state.measured.unsqueeze(1), 0.0)
        count = u.shape[1]

        def along(x: Tensor) -> Tensor:
            return x.unsqueeze(1).expand(-1, count, -1)

        times = torch.stack([hours / 24, gap / 2], dim=-1)
        clock = clock_waves(state.start_hour.unsqueeze(1) + hours)
        fixed = along(torch.cat([patient_features(state), state.measured], dim=-1))
        level = self.prior.effect(amounts.flatten(0, 1)).flatten(1).unflatten(0, amounts.shape[:2])
        dose = action / self.prior.reference_mg
        return torch.cat([change, seen.to(change.dtype), level, dose, times, clock, fixed], dim=-1)

    def start(
        self, key: Tensor, f: dict[str, Tensor], metaboliser: Tensor, shape: Tensor, measured: Tensor
    ) -> ECGWorldState:
        """A state at t = 0 whose belief comes from the baseline alone."""
        batch, drugs = key.shape[0], len(DRUGS)
        zero = torch.zeros_like(f["age_years"])
        state = ECGWorldState(
            key=key, t=torch.zeros_like(key), age_years=f["age_years"], sex_female=f["sex_female"], weight_kg=f["weight_kg"],
            metaboliser=metaboliser, start_hour=f["admission_clock_hour"], hours=zero, measured=measured,
            belief=None, unknown=None, rates=None,
            amounts=measured.new_zeros(batch, drugs, COMPARTMENTS), deviation=torch.zeros_like(measured),
            residual=torch.zeros_like(measured), shape=shape, torsades=zero,
            total_dose_mg=measured.new_zeros(batch, drugs),
            hours_since_dose=measured.new_full((batch, drugs), MAX_HOURS_SINCE_DOSE),
            dose_log_mg=measured.new_zeros(batch, self.config.dose_log, drugs),
        )  # fmt: skip
        nothing = measured.new_zeros(batch, 1, drugs)
        visit = self.visit_features(
            state, measured.unsqueeze(1), state.amounts.unsqueeze(1), nothing, zero.unsqueeze(1), zero.unsqueeze(1)
        )
        mean, deviation = self.believe(visit)
        state = state._replace(belief=Belief(mean[:, -1], deviation[:, -1]))
        return self.live_by(state, self.draw_unknown(state.belief, key))


def _build(plain: dict[str, Any]) -> ECGWorldModel:
    return ECGWorldModel(from_json(ECGWorldConfig, plain, "the config"))
