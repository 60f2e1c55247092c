"""The physiological ODE prior: drug amounts, effect sites and the latent's drift.

Two coupled systems. The drugs are linear (two absorption stages, central, peripheral, and a fast, a slow and a lasting
effect site, the last of which can undo what the others do):

    g1' = -k1 g1            g2' = k1 g1 - k2 g2
    c'  = k2 g2 - (ke + k12) c + k21 p                 p' = k12 c - k21 p
    e_s' = k_s (c - e_s)    for each site s

so every level is a sum of exponentials, exact however long the step. What drugs and time
of day make of the latent relaxes to a target g, and the deviation d from the patient's baseline is that with a neural
correction f, of which it needs the present moment alone:

    tau v' = g(e(t), clock(t)) - v                     d = v + f(e(t), clock(t), patient)

With w = (h - t) / tau its solution after a step of h is

    v(h) = exp(-h / tau) v(0) + integral of g(h - tau w) exp(-w) over w from 0 to h / tau,

which two or three looks at g give whatever h is (`quadrature`): what happened more than a few tau ago is forgotten, and
the nodes lie where it is not. `adaptive` integrates both systems with
torchdiffeq's dopri5: the reference that the nodes are tested against. Amounts are in units of each drug's reference
dose.

Effect compartment: Sheiner et al. 1979, doi 10.1002/cpt1979253358. Variation of constants under a quadrature:
Hochbruck & Ostermann 2010, doi 10.1017/S0962492910000048.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from world_models.constants import constant
from world_models.ecg_wm.compartments import BASE_MODES, MODES, SITES, exponentials
from world_models.ecg_wm.config import ECGWorldConfig
from world_models.ecg_wm.latent import BURDEN, COORDS
from world_models.ecg_wm.quadrature import BURDEN_TAU_H, TAU_H, looks_of

__all__ = ["DAY_NUMBERS", "MODES", "PATIENT", "SITES", "PhysiologicalPrior", "PriorStep", "Rates", "clock_waves"]

_START = math.log(math.e - 1)  # softplus of it is 1
_STEEP = math.e / (math.e - 1)  # makes the slope there 1
PATIENT = 12  # covariates, see `patients.patient_features`
HOURS_PER_DAY = 24.0
HARMONICS = 4  # of the day, as many as the trial's course has
DAY_WAVES = tuple(2 * math.pi * k / HOURS_PER_DAY for k in range(1, HARMONICS + 1))  # rad/h
DAY_NUMBERS = 2 * HARMONICS
# 0.005 to 12 per h: half-lives of six days and of four minutes, beyond any drug taken by mouth.
LOG_RATE_LIMITS = (math.log(0.005), math.log(12.0))
WIDEST_CORRECTION = 3.0  # of u: what the neural part can add to a target


class Rates(NamedTuple):
    """One patient's own prior. B patients, D drugs.

    `rate`, `site` and `pull` lie in memory along the patients (`_along`), as amounts after a step do: the few numbers
    of one drug are no vector, those of many patients are.
    """

    rate: Tensor  # [B, D, MODES] per h, of each exponential
    site: Tensor  # [B, D, MODES, SITES] level of each site per amount in each mode
    plasma: Tensor  # [B, D, BASE_MODES] central level per amount
    # [B, D * SITES + DAY_NUMBERS, COORDS] effect of each site on each coordinate, then Fourier coefficients of the day
    pull: Tensor
    entry: Tensor  # [B, D] log of how much of a dose enters, alone on board
    context: Tensor  # [B, width] what the neural correction makes of the patient
    eta: Tensor  # [B, eta] random effects
    patient: Tensor  # [B, PATIENT] covariates, see `patients.patient_features`
    anchor: Tensor  # [B, COORDS] u of the patient's own baseline


class PriorStep(NamedTuple):
    """Where the prior stands after a step."""

    amounts: Tensor  # [B, D, MODES] in reference doses
    relaxed: Tensor  # [B, COORDS] v, what drugs and time of day have relaxed to
    deviation: Tensor  # [B, COORDS] d, what the prior has moved u by
    effect: Tensor  # [B, D * SITES] saturated effect-site levels, see `PhysiologicalPrior.effect`
    clock: Tensor  # [B, DAY_NUMBERS] waves of the clock hour, see `clock_waves`


def clock_waves(hour: Tensor) -> Tensor:
    """[..., DAY_NUMBERS]: sine and cosine of the day's harmonics at this clock hour, each in one run of memory."""
    angle = constant(DAY_WAVES, hour.device, hour.dtype).view(-1, *(1,) * hour.ndim) * hour
    return torch.stack([angle.sin(), angle.cos()], dim=1).flatten(0, 1).movedim(0, -1)


def _along(x: Tensor) -> Tensor:
    """x [B, ...] with memory along the patients."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


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
        numbers = len(start_rates[0])  # k1, ke, k12, k21, then the sites'
        self.register_buffer("reference_mg", torch.tensor(reference_mg))
        self.log_rate = nn.Parameter(torch.tensor(start_rates).log())  # [D, 4 + SITES] per h
        self.rate_eta = nn.Parameter(_pattern(0.05, drugs, numbers, config.eta))
        self.rate_patient = nn.Parameter(torch.zeros(drugs, numbers, PATIENT))
        self.slope = nn.Parameter(_pattern(0.3, drugs, SITES, COORDS))
        self.slope_eta = nn.Parameter(_pattern(0.05, drugs, SITES, COORDS, config.eta))
        self.slope_patient = nn.Parameter(torch.zeros(drugs, SITES, COORDS, PATIENT))
        # how much of a dose enters: log factor by what the patient is, and by each drug's slow site at that moment
        self.entry_patient = nn.Parameter(torch.zeros(drugs, PATIENT))
        self.entry_eta = nn.Parameter(_pattern(0.05, drugs, config.eta))
        self.entry_together = nn.Parameter(torch.zeros(drugs, drugs))
        # effect-site level of half the possible effect
        self.log_half = nn.Parameter(torch.full((drugs,), math.log(4.0)))
        self.daily = nn.Parameter(torch.zeros(COORDS, DAY_NUMBERS))
        self.daily_eta = nn.Parameter(_pattern(0.02, COORDS, DAY_NUMBERS, config.eta))
        width = config.drift_width
        self.drift_context = nn.Linear(config.eta + PATIENT + COORDS, width)
        self.drift_moment = nn.Linear(SITES * drugs + DAY_NUMBERS, width, bias=False)
        self.drift_hidden = nn.Linear(width, width)
        self.drift_out = nn.Linear(width, COORDS - 1)
        nn.init.zeros_(self.drift_out.weight)  # a correction that has learned nothing yet corrects nothing
        nn.init.zeros_(self.drift_out.bias)

    def individual(self, eta: Tensor, patient: Tensor, anchor: Tensor) -> Rates:
        """This patient's prior: random effects [B, eta], covariates [B, PATIENT], baseline u [B, COORDS]."""
        rate, plasma, site = exponentials(self.rates_per_h(eta, patient).double())
        sensitivity = _apply(self.slope_eta, eta) + _apply(self.slope_patient, patient)
        context = self.drift_context(torch.cat([eta, patient, anchor], dim=-1))
        daily = self.daily + _apply(self.daily_eta, eta)
        narrow = eta.dtype
        return Rates(
            rate=_along(rate.to(narrow)),
            site=_along(site.to(narrow)),
            plasma=plasma.to(narrow),
            pull=_along(torch.cat([(self.slope * _sensitivity(sensitivity)).flatten(1, 2), daily.mT], dim=1)),
            entry=(self.entry_patient @ patient.T + self.entry_eta @ eta.T).T.contiguous(),
            context=context,
            eta=eta,
            patient=patient,
            anchor=anchor,
        )

    def rates_per_h(self, eta: Tensor, patient: Tensor) -> Tensor:
        """k1, ke, k12, k21 and the sites' rates [B, D, 4 + SITES]; k2 is k1 times STAGE_RATIO."""
        log_rate = self.log_rate + _apply(self.rate_eta, eta) + _apply(self.rate_patient, patient)
        return log_rate.clamp(*LOG_RATE_LIMITS).exp()

    def dose(self, rates: Rates, amounts: Tensor, dose_mg: Tensor, effect: Tensor | None = None) -> Tensor:
        """Swallow doses [B, D] mg: amounts [B, D, MODES] with what enters added to every exponential.

        `effect` is that of `amounts` (`effect`), where it is known already.
        """
        others = 1.0 - torch.eye(len(self.entry_together), device=self.entry_together.device)
        together = self.entry_together * others  # on board with others
        effect = self.effect(rates, amounts) if effect is None else effect
        entry = torch.addmm(rates.entry, effect[:, 1::SITES], together.T).clamp(-2.0, 2.0).exp()  # by slow sites
        return amounts + (dose_mg / self.reference_mg * entry).unsqueeze(-1)

    def effect(self, rates: Rates, amounts: Tensor) -> Tensor:
        """Saturated effect-site levels [B, D * SITES] (the sites of each drug) of amounts [B, D, MODES]."""
        return self.effects(rates, amounts.unsqueeze(2)).squeeze(1)

    def effects(self, rates: Rates, amounts: Tensor) -> Tensor:
        """The same at K moments, [B, K, D * SITES] of [B, D, K, MODES]."""
        return self._levels(rates, amounts.permute(2, 1, 3, 0)).permute(2, 0, 1)

    def _levels(self, rates: Rates, amounts: Tensor) -> Tensor:
        """`effects` with patients last, [K, D * SITES, B] of [K, D, MODES, B]."""
        site = rates.site.movedim(0, -1)  # [D, MODES, SITES, B]
        # the plasma's modes act on every site, a site's own on that one alone
        own = site[:, BASE_MODES:].diagonal(dim1=1, dim2=2).transpose(1, 2)
        level = amounts[:, :, BASE_MODES:] * own
        for mode in range(BASE_MODES):
            level = torch.addcmul(level, amounts[:, :, mode : mode + 1], site[:, mode])
        return self.saturated(level.clamp_min(0.0).flatten(2)).flatten(1).unflatten(1, (-1, level.shape[-1]))

    def saturated(self, level: Tensor) -> Tensor:
        """Levels [..., D, any] as an effect follows them: half of what is possible at `log_half`."""
        return level / (level * torch.exp(-self.log_half)[:, None] + 1)

    def central(self, rates: Rates, amounts: Tensor) -> Tensor:
        """Level of the central compartment [B, D] of amounts [B, D, MODES], in reference doses."""
        return (rates.plasma * amounts[..., :BASE_MODES]).sum(-1)

    def straight(self, rates: Rates, moment: Tensor, burdens: Tensor) -> Tensor:
        """Dose effect and time of day [B, COORDS], the part of the target that can change fast.

        `moment` [D * SITES + DAY_NUMBERS, B] are the saturated effect sites, then the clock's waves less those of
        admission; `burdens` the same as the burden sees them. Linear in both.
        """
        pull = rates.pull.movedim(0, -1)
        # one by one: the last bits of a product of matrices, or of a sum by torch, would depend on the patient's row
        near, burden = moment[0] * pull[0, :BURDEN], burdens[0] * pull[0, BURDEN]
        for j in range(1, len(pull)):
            near, burden = near + moment[j] * pull[j, :BURDEN], burden + burdens[j] * pull[j, BURDEN]
        return torch.cat([near, burden.unsqueeze(0)]).T

    def learned(self, rates: Rates, level: Tensor, waves: Tensor, moved: Tensor) -> Tensor:
        """The neural correction f [B, COORDS] at one moment; the burden has none.

        `level` [B, D * SITES], `waves` [B, DAY_NUMBERS] of the clock, `moved` [B] 0 at the hour of admission to 2.
        """
        moment = torch.cat([level.T, waves.T]).T  # as they lie in memory
        hidden = torch.addmm(rates.context, moment, self.drift_moment.weight.T)
        hidden = nn.functional.silu(self.drift_hidden(nn.functional.silu(hidden, inplace=True)), inplace=True)
        # The correction sees effect sites relative to the drug's reference; tanh keeps it from running away.
        bounded = torch.tanh(self.drift_out(hidden) / WIDEST_CORRECTION)
        # Zero at the start without drug, so that a patient nobody treats keeps the baseline that was measured.
        awake = (level.sum(-1) + moved).clamp_max(1.0).unsqueeze(-1)
        return nn.functional.pad(bounded * (awake * WIDEST_CORRECTION), (0, 1))

    def advance(
        self,
        rates: Rates,
        amounts: Tensor,
        relaxed: Tensor,
        clock_hour: Tensor,
        start_hour: Tensor,
        hours: float | Tensor,
        effect: Tensor | None = None,
    ) -> PriorStep:
        """The prior `hours` (a number, or [B]) after clock_hour [B], with v = `relaxed` [B, COORDS] then.

        `effect` is that of `amounts` (`effect`), where it is known already.
        """
        looks = looks_of(hours, relaxed)
        since = looks.hours.T  # [K, 1 or B], as all that follows with patients last
        decay = (rates.rate.movedim(0, -1) * since[1:].neg()[:, None, None]).exp_()
        later = decay * amounts.movedim(0, -1)  # [K - 1, D, MODES, B]
        effect = self.effect(rates, amounts) if effect is None else effect
        level = torch.cat([effect.T.unsqueeze(0), self._levels(rates, later)])
        hour = clock_hour + since
        waves = clock_waves(hour).movedim(-1, 1)
        moments = torch.cat([level, waves - clock_waves(start_hour).T], 1)  # [K, D * SITES + DAY_NUMBERS, B]
        # The target is linear in what is seen, so that what is seen is weighed first.
        weights = looks.weights.permute(2, 1, 0).unsqueeze(2)  # [K, 2, 1, 1 or B]
        weighed = weights[0] * moments[0]
        for weight, seen in zip(weights[1:], moments[1:], strict=True):
            weighed = weighed + weight * seen
        after = self.straight(rates, *weighed) + looks.kept * relaxed
        effect, clock = level[-1].T, waves[-1].T
        moved = after + self.learned(rates, effect, clock, _moved(hour[-1], start_hour))
        return PriorStep(later[-1].movedim(-1, 0), after, moved, effect, clock)

    def adaptive(
        self,
        rates: Rates,
        amounts: Tensor,
        relaxed: Tensor,
        clock_hour: Tensor,
        start_hour: Tensor,
        hours: float,
        tolerance: float = 1e-6,
    ) -> tuple[Tensor, Tensor]:
        """Sites [B, D, SITES] and deviation [B, COORDS] after the same step by torchdiffeq's dopri5: the reference.

        The compartments themselves are integrated, from the amounts that the exponentials' stand for; far slower.
        """
        from torchdiffeq import odeint

        _, ke, k12, k21, *_ = self.rates_per_h(rates.eta, rates.patient).unbind(-1)
        stage_one, stage_two, _, _, *k_site = rates.rate.unbind(-1)
        tau = torch.full_like(relaxed[0], TAU_H)
        tau[BURDEN] = BURDEN_TAU_H
        first = clock_waves(start_hour)

        def field(time: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
            x, v = state
            g1, g2, c, p, *sites = x.unbind(-1)
            flow = (
                -stage_one * g1,
                stage_one * g1 - stage_two * g2,
                stage_two * g2 - (ke + k12) * c + k21 * p,
                k12 * c - k21 * p,
                *(k * (c - e) for k, e in zip(k_site, sites, strict=True)),
            )
            level = self.saturated(x[..., BASE_MODES:]).flatten(-2)
            shift = clock_waves(clock_hour + time) - first
            moment = torch.cat([level, shift], -1).T
            goal = self.straight(rates, moment, moment)
            return torch.stack(flow, -1), (goal - v) / tau

        start = self.compartments(rates, amounts)
        times = torch.tensor([0.0, hours], dtype=amounts.dtype, device=amounts.device)
        xs, vs = odeint(field, (start, relaxed), times, rtol=tolerance, atol=tolerance, method="dopri5")
        sites, hour = xs[-1][..., BASE_MODES:], clock_hour + hours
        level = self.saturated(sites).flatten(-2)
        return sites, vs[-1] + self.learned(rates, level, clock_waves(hour), _moved(hour, start_hour))

    def compartments(self, rates: Rates, amounts: Tensor) -> Tensor:
        """What each compartment [B, D, MODES] (two stages, central, peripheral, sites) holds of amounts [B, D, MODES].

        Stage one holds its own exponential; of stage two and the peripheral compartment the exponentials' shares
        follow from their equations.
        """
        _, _, k12, k21, *_ = self.rates_per_h(rates.eta, rates.patient).unbind(-1)
        one, two = rates.rate[..., 0], rates.rate[..., 1]
        x = amounts
        stage_two = one / (two - one) * (x[..., 0] - x[..., 1])
        parts = rates.plasma * x[..., :BASE_MODES]
        peripheral = (parts * (k12.unsqueeze(-1) / (k21.unsqueeze(-1) - rates.rate[..., :BASE_MODES]))).sum(-1)
        sites = (x.unsqueeze(-2) @ rates.site).squeeze(-2)
        return torch.cat([torch.stack([x[..., 0], stage_two, parts.sum(-1), peripheral], -1), sites], -1)


def _moved(hour: Tensor, start_hour: Tensor) -> Tensor:
    """[B] 0 at the hour of admission to 2 twelve hours from it."""
    return 1 - torch.cos((hour - start_hour) * (2 * math.pi / HOURS_PER_DAY))


def _apply(weight: Tensor, vector: Tensor) -> Tensor:
    """weight [..., n] times vector [B, n] -> [B, ...]."""
    return (vector @ weight.reshape(-1, weight.shape[-1]).T).reshape(vector.shape[0], *weight.shape[:-1])


def _sensitivity(x: Tensor) -> Tensor:
    """Multiplier of an effect: 1 with slope 1 at x = 0, linear above, falling to 0 below.

    Not exp: between-subject sensitivities are nearly normal, with some people hardly responding. A log-normal that
    reaches down to those has too long a tail above, and its typical patient responds too little.
    """
    return nn.functional.softplus(_STEEP * x + _START)


def _pattern(size: float, *shape: int) -> Tensor:
    """A fixed, spread-out start of about +-1.4 `size` (golden-ratio sequence), without a generator."""
    index = torch.arange(1, math.prod(shape) + 1, dtype=torch.float64)
    return (size * (((index * 0.6180339887498949) % 1.0 - 0.5) * 2 * math.sqrt(2))).to(torch.float32).reshape(shape)
