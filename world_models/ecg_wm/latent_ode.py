"""The physiological ODE prior: drug amounts, effect sites and the latent's drift.

Two coupled systems. The drugs are linear (two absorption stages, central, peripheral, a fast and a slow effect site):

    g1' = -ka g1            g2' = ka (g1 - g2)
    c'  = ka g2 - (ke + k12) c + k21 p                 p' = k12 c - k21 p
    e_fast' = k_fast (c - e_fast)                      e_slow' = k_slow (c - e_slow)

so one substep is exact: a matrix exponential made once for each patient. The latent's deviation from the patient's
baseline relaxes to a target set by effect sites and time of day, with a neural correction f:

    tau v' = target(e, clock) + f(v, e, clock, patient) - v

and is advanced by exponential Euler on the same substeps. `adaptive` integrates both with torchdiffeq's dopri5: the
reference that the fixed steps are tested against. Amounts are in units of each drug's reference dose.
Effect compartment: Sheiner et al. 1979, doi 10.1002/cpt1979253358. Exponential Euler: Hochbruck & Ostermann 2010,
doi 10.1017/S0962492910000048.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.constants import constant
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.nn.mlp import mlp

__all__ = ["COORDS", "PATIENT", "Clock", "PhysiologicalPrior", "PriorStep", "Rates", "clock_waves", "clocks"]

_START = math.log(math.e - 1)  # softplus of it is 1
_STEEP = math.e / (math.e - 1)  # makes the slope there 1
COORDS = 6  # coordinates of u, see `latent.COORDINATES`
PATIENT = 5  # age, sex, log weight, log metaboliser (0 where unknown), whether the metaboliser is known
COMPARTMENTS = 6
CENTRAL, SITES = 2, slice(4, 6)  # of the compartments: the central one; the fast and the slow effect site
HOURS_PER_DAY = 24.0
DAY_WAVES = (2 * math.pi / HOURS_PER_DAY, 4 * math.pi / HOURS_PER_DAY)  # rad/h: a day and half a day
# 0.005 to 12 per h: half-lives of six days and of four minutes, beyond any drug taken by mouth.
LOG_RATE_LIMITS = (math.log(0.005), math.log(12.0))
WIDEST_CORRECTION = 3.0  # of u: what the neural part can add to a target


class Rates(NamedTuple):
    """One patient's own prior. B patients, D drugs."""

    propagator: Tensor  # [B, D, 6, 6] amounts over one substep
    slope: Tensor  # [B, D, 2, 6] effect of the fast and slow site on each coordinate
    daily: Tensor  # [B, 6, 4] Fourier coefficients of the time of day
    eta: Tensor  # [B, eta] random effects
    patient: Tensor  # [B, 5] covariates, see `patients.patient_features`
    anchor: Tensor  # [B, 6] u of the patient's own baseline


class PriorStep(NamedTuple):
    """Where the prior stands after a step."""

    amounts: Tensor  # [B, D, 6] in reference doses
    deviation: Tensor  # [B, 6] what the prior has moved u by
    effect: Tensor  # [B, D * 2] saturated effect-site levels, see `PhysiologicalPrior.effect`
    clock: Tensor  # [B, 4] waves of the clock hour, see `clock_waves`


def clock_waves(hour: Tensor) -> Tensor:
    """[..., 4]: sine and cosine of the day's first two harmonics at this clock hour."""
    angle = hour.unsqueeze(-1) * constant(DAY_WAVES, hour.device, hour.dtype)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


class Clock(NamedTuple):
    """A moment of the day for B patients."""

    now: Tensor  # [B, 4] clock waves
    shift: Tensor  # [B, 4] of them, against the hour of admission
    moved: Tensor  # [B] 0 at the hour of admission to 2 twelve hours from it


def clocks(hours: Tensor, start_hour: Tensor) -> list[Clock]:
    """One Clock for each of n clock hours [n, B] of patients admitted at start_hour [B]."""
    waves = clock_waves(torch.cat([hours, start_hour.unsqueeze(0)]))
    now, start = waves[:-1], waves[-1]
    moved = 1 - torch.cos((hours - start_hour) * (2 * math.pi / HOURS_PER_DAY))
    return [Clock(*moment) for moment in zip(now, now - start, moved, strict=True)]


class PhysiologicalPrior(nn.Module):
    """Population parameters, how random effects and covariates move them, and the integrators."""

    reference_mg: Tensor  # [D] dose that amounts are counted in

    def __init__(
        self,
        config: ECGWorldConfig,
        drugs: int,
        start_rates: tuple[tuple[float, ...], ...],
        reference_mg: tuple[float, ...],
    ):
        super().__init__()
        self.config, self.drugs = config, drugs
        self.register_buffer("reference_mg", torch.tensor(reference_mg))
        self.log_rate = nn.Parameter(torch.tensor(start_rates).log())  # [D, 6] per h: ka, ke, k12, k21, k_fast, k_slow
        self.rate_eta = nn.Parameter(0.05 * _fixed_pattern(drugs * 6, config.eta).reshape(drugs, 6, config.eta))
        self.rate_patient = nn.Parameter(torch.zeros(drugs, 6, PATIENT))
        self.slope = nn.Parameter(0.3 * _fixed_pattern(drugs * 2, COORDS).reshape(drugs, 2, COORDS))
        self.slope_eta = nn.Parameter(
            0.05 * _fixed_pattern(drugs * 12, config.eta).reshape(drugs, 2, COORDS, config.eta)
        )
        self.slope_patient = nn.Parameter(torch.zeros(drugs, 2, COORDS, PATIENT))
        # effect-site level of half the possible effect
        self.log_half = nn.Parameter(torch.full((drugs,), math.log(4.0)))
        self.daily = nn.Parameter(torch.zeros(COORDS, 4))
        self.daily_eta = nn.Parameter(0.02 * _fixed_pattern(COORDS * 4, config.eta).reshape(COORDS, 4, config.eta))
        # h; an arrhythmia's burden follows a drug far more slowly than the intervals do
        self.log_tau = nn.Parameter(torch.tensor([0.2] * 5 + [8.0]).log())
        self.drift = mlp(
            (COORDS + 2 * drugs + 4 + self.context_size, config.drift_width, config.drift_width, COORDS), zero_last=True
        )

    @property
    def context_size(self) -> int:
        """How many numbers the neural correction is told of the patient: random effects, covariates, anchor."""
        return self.config.eta + PATIENT + COORDS

    def individual(self, eta: Tensor, patient: Tensor, anchor: Tensor, hours: float | Tensor) -> Rates:
        """This patient's prior for steps of `hours` (a number, or [B, 1, 1, 1] where patients differ).

        Random effects [B, eta], covariates [B, 5], baseline u [B, 6].
        """
        log_rate = self.log_rate + _apply(self.rate_eta, eta) + _apply(self.rate_patient, patient)
        matrix = self._matrix(log_rate.clamp(*LOG_RATE_LIMITS).exp())
        effect = _apply(self.slope_eta, eta) + _apply(self.slope_patient, patient)
        return Rates(
            propagator=torch.linalg.matrix_exp(matrix * (hours / self.config.substeps)),
            slope=self.slope * _sensitivity(effect),
            daily=self.daily + _apply(self.daily_eta, eta),
            eta=eta,
            patient=patient,
            anchor=anchor,
        )

    def _matrix(self, rate: Tensor) -> Tensor:
        """The drugs' linear system [B, D, 6, 6] from rates [B, D, 6]."""
        ka, ke, k12, k21, fast, slow = rate.unbind(-1)
        o = torch.zeros_like(ka)
        out = ke + k12
        rows = (
            -ka, o, o, o, o, o,
            ka, -ka, o, o, o, o,
            o, ka, -out, k21, o, o,
            o, o, k12, -k21, o, o,
            o, o, fast, o, -fast, o,
            o, o, slow, o, o, -slow,
        )  # fmt: skip
        return torch.stack(rows, dim=-1).unflatten(-1, (COMPARTMENTS, COMPARTMENTS))

    def dose(self, amounts: Tensor, dose_mg: Tensor) -> Tensor:
        """Swallow doses [B, D] mg: amounts [B, D, 6] with the first absorption stage raised."""
        added = (dose_mg / self.reference_mg).unsqueeze(-1)
        return amounts + nn.functional.pad(added, (0, COMPARTMENTS - 1))

    def effect(self, amounts: Tensor, per_half: Tensor | None = None) -> Tensor:
        """Saturated effect-site levels [..., D * 2] (fast, slow of each drug) of amounts [..., D, 6].

        Args:
            per_half: of `per_half`, from a caller who needs several levels.
        """
        sites = amounts[..., SITES].flatten(-2)  # operations on runs of two numbers take three times as long
        return sites / (sites * (self.per_half() if per_half is None else per_half) + 1)

    def per_half(self) -> Tensor:
        """One over the effect-site level of half the possible effect, [D * 2]."""
        return torch.exp(-self.log_half).unsqueeze(-1).expand(-1, 2).flatten()

    def target(self, rates: Rates, level: Tensor, clock: Clock, deviation: Tensor) -> Tensor:
        """Where the deviation [B, 6] is heading: dose effect, time of day against the start's, neural correction.

        `level` [B, D * 2] are the effect sites, saturated.
        """
        drug = torch.bmm(level.unsqueeze(1), rates.slope.flatten(1, 2)).squeeze(1)
        day = torch.bmm(rates.daily, clock.shift.unsqueeze(-1)).squeeze(-1)
        # The correction sees effect sites relative to the drug's reference; tanh keeps it from running away.
        patient = (rates.eta, rates.patient, rates.anchor)
        learned = self.drift(torch.cat([deviation, level, clock.now, *patient], dim=-1))
        # Zero at the start without drug, so that a patient nobody treats keeps the baseline that was measured.
        awake = (level.sum(-1) + clock.moved).clamp_max(1.0).unsqueeze(-1)
        bounded = torch.tanh(learned / WIDEST_CORRECTION)
        return torch.addcmul(drug + day, bounded, awake, value=WIDEST_CORRECTION)

    def advance(
        self,
        rates: Rates,
        amounts: Tensor,
        deviation: Tensor,
        clock_hour: Tensor,
        start_hour: Tensor,
        hours: float | Tensor,
    ) -> PriorStep:
        """The prior `hours` (a number or [B, 1]; the ones `rates` was made for) after clock_hour [B]."""
        step = hours / self.config.substeps
        keep = torch.exp(-step / self.log_tau.exp())
        passed = step[:, 0] if isinstance(step, Tensor) else step
        ends = torch.stack([clock_hour + passed * (i + 1) for i in range(self.config.substeps)])
        per_half = self.per_half()
        for clock in clocks(ends, start_hour):
            amounts = torch.matmul(rates.propagator, amounts.unsqueeze(-1)).squeeze(-1)
            level = self.effect(amounts, per_half)
            goal = self.target(rates, level, clock, deviation)
            deviation = torch.addcmul(goal, deviation - goal, keep)
        return PriorStep(amounts, deviation, level, clock.now)

    def adaptive(
        self,
        eta: Tensor,
        patient: Tensor,
        anchor: Tensor,
        amounts: Tensor,
        deviation: Tensor,
        clock_hour: Tensor,
        start_hour: Tensor,
        hours: float,
        tolerance: float = 1e-6,
    ) -> tuple[Tensor, Tensor]:
        """The same step by torchdiffeq's dopri5 on the two systems together: the reference, far slower."""
        from torchdiffeq import odeint

        rates = self.individual(eta, patient, anchor, hours)
        log_rate = self.log_rate + _apply(self.rate_eta, eta) + _apply(self.rate_patient, patient)
        matrix = self._matrix(log_rate.clamp(*LOG_RATE_LIMITS).exp())

        def field(time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x, v = state
            clock = clocks((clock_hour + time).unsqueeze(0), start_hour)[0]
            goal = self.target(rates, self.effect(x), clock, v)
            return (matrix * x.unsqueeze(-2)).sum(-1), (goal - v) / self.log_tau.exp()

        times = torch.tensor([0.0, hours], dtype=amounts.dtype, device=amounts.device)
        xs, vs = odeint(field, (amounts, deviation), times, rtol=tolerance, atol=tolerance, method="dopri5")
        return xs[-1], vs[-1]


def _apply(weight: Tensor, vector: Tensor) -> Tensor:
    """weight [..., n] times vector [B, n] -> [B, ...]."""
    return (vector @ weight.reshape(-1, weight.shape[-1]).T).reshape(vector.shape[0], *weight.shape[:-1])


def _sensitivity(x: Tensor) -> Tensor:
    """Multiplier of an effect: 1 with slope 1 at x = 0, linear above, falling to 0 below.

    Not exp: between-subject sensitivities are nearly normal, with some people hardly responding. A log-normal that
    reaches down to those has too long a tail above, and its typical patient responds too little.
    """
    return torch.nn.functional.softplus(_STEEP * x + _START)


def _fixed_pattern(rows: int, columns: int) -> Tensor:
    """A fixed, spread-out start [rows, columns] in about [-1.4, 1.4] (golden-ratio sequence), without a generator."""
    index = torch.arange(1, rows * columns + 1, dtype=torch.float64)
    return (((index * 0.6180339887498949) % 1.0 - 0.5) * 2 * math.sqrt(2)).to(torch.float32).reshape(rows, columns)
