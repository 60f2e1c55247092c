"""Linear pharmacokinetics as a sum of exponentials: exact, elementwise, batched.

A dose D at time 0 with lag L, first-order absorption (one or two stages), one or two compartments and an effect
compartment is a linear system, so every concentration is sum_m c_m · D · exp(-r_m (t - L)) after the lag, with rates
r_m (the modes) and coefficients c_m of the patient, and repeated doses superpose (Gibaldi & Perrier 1982,
Pharmacokinetics, ch. 1 and 3; the effect compartment is Sheiner 1979, PMID 761446). The state is therefore one amount
a mode, and one step of any length is exact:

    x_m <- x_m · exp(-r_m dt) + D · exp(-r_m (dt - L))

A dose that passes absorption by enters mode m with the weight `unabsorbed` = 1 - r_m / ka of one that does not.

Modes of a drug: 0, 1 the absorption stages; 2, 3 the disposition (alpha, beta); 4 + e the effect compartment of
endpoint e. A stage or compartment a drug has not simply has coefficient zero; `live_modes` says which may be left out.

Equal rates would divide by zero. The two absorption stages are ka (1 +- STAGE_SPLIT / 2): it keeps the mean absorption
time to first order and the curve to 1e-5; every other pair is kept apart by MIN_GAP (relative), which moves a
concentration by 1e-4 of itself per half-life or so. Coefficients nearly cancel then, hence float64 throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "MAX_LAG_H",
    "MIN_STEP_H",
    "Amounts",
    "Kinetics",
    "Pace",
    "advance",
    "concentration",
    "dispose",
    "effect_modes",
    "effect_sites",
    "empty",
    "kernel",
    "kinetics",
    "kinetics_of",
    "live_modes",
    "paced",
    "plasma_modes",
    "site_modes",
    "unabsorbed",
]

STAGE_SPLIT = 0.005
MIN_GAP = 1e-4
SLOTS = 2  # doses of one drug that can wait out their lag at once
MAX_LAG_H = 1.0  # absorption lags are cut here, so that a step of MIN_STEP_H never needs a third slot
MIN_STEP_H = MAX_LAG_H / SLOTS
BASE_MODES = 4


class Kinetics(NamedTuple):
    """One drug in each of B patients ([B, D, ...] once the drugs are stacked). Float64."""

    rates: Tensor  # [..., M] per h, M = P + E
    lag_h: Tensor  # [...]
    plasma: Tensor  # [..., P] ng/mL of plasma per mg in a mode; P = 4, or fewer where dead modes were left out
    effect: Tensor  # [..., P + 1, E] ng/mL at the effect site of endpoint e per mg in modes 0..P - 1 and P + e


class Pace(NamedTuple):
    """What a step of one length does in people whose lags it outlasts. Float64."""

    decay: Tensor  # [B, D, M] what it leaves of each mode
    entry: Tensor  # [B, D, M] what one mg swallowed at its beginning adds by its end
    entry_fast: Tensor  # [B, F, M] the same of one mg in the plasma at once, of the drugs that may pass absorption by


class Amounts(NamedTuple):
    """What is on board, [B, D, ...]: the state of the kinetics. Float64."""

    modes: Tensor  # [B, D, M] mg, dose-weighted exponentials
    pending_mg: Tensor  # [B, D, SLOTS] swallowed, but still within the lag
    pending_h: Tensor  # [B, D, SLOTS] what is left of their lag
    pending_fast_mg: Tensor  # [B, D, SLOTS] swallowed, within the lag, and then in the plasma at once


def _nobody(rows: Tensor) -> bool:
    """Whether nothing [...] is true. Not asked under `torch.compile`, whose graph a look at the answer would break."""
    return not torch.compiler.is_compiling() and not bool(rows.any())


def _apart(rates: list[Tensor]) -> list[Tensor]:
    """Push each rate off the ones before it, upwards, until all pairs differ by MIN_GAP at least."""
    pairs = [(rate, other) for i, rate in enumerate(rates) for other in rates[:i]]
    if not pairs:
        return rates
    late, early = (torch.stack(torch.broadcast_tensors(*side)) for side in zip(*pairs, strict=True))
    if _nobody((late - early).abs() < MIN_GAP * early):  # nearly always, and then no rate is touched
        return rates
    kept: list[Tensor] = []
    for rate in rates:
        for _ in range(len(kept)):  # a push may land on another: as many passes as there are neighbours
            for other in kept:
                close = (rate - other).abs() < MIN_GAP * other
                rate = torch.where(close, other * (1.0 + 1.01 * MIN_GAP), rate)
        kept.append(rate)
    return kept


def dispose(clearance: Tensor, v1: Tensor, q: Tensor | None = None, v2: Tensor | None = None) -> tuple[Tensor, ...]:
    """Disposition rates per h: (k,) for one compartment, (alpha, beta, k21) for two. L/h and L."""
    k = clearance / v1
    if q is None or v2 is None:
        return (k,)
    k12, k21 = q / v1, q / v2
    total = k + k12 + k21
    root = torch.sqrt((total * total - 4.0 * k * k21).clamp_min(1e-12))
    alpha = 0.5 * (total + root)
    return alpha, k * k21 / alpha, k21


def kinetics(
    ka: Tensor,
    lag_h: Tensor,
    clearance: Tensor,
    v1: Tensor,
    q: Tensor | None,
    v2: Tensor | None,
    stages: int,
    ke0: list[Tensor],
) -> Kinetics:
    """Modes and coefficients of one drug by partial fractions of its transfer function.

    Args:
        ka: per h, of each stage, [B]. lag_h: h [B]. clearance, q: L/h; v1, v2: L (apparent, over the bioavailability).
        q and v2 None: one compartment. stages: 1 or 2. ke0: per endpoint, per h, [B] each.

    Raises:
        ValueError: stages is neither 1 nor 2.
    """
    found, lag, coefficients = plasma_modes(ka, lag_h, clearance, v1, q, v2, stages)
    rates, plasma = torch.stack(found), torch.stack(coefficients)
    sites = torch.stack([rate * torch.ones_like(lag) for rate in ke0]) if ke0 else lag.new_zeros(0, *lag.shape)
    sites, effect = site_modes(rates, plasma, sites)
    every, plasma = (x.movedim(0, -1).contiguous() for x in (torch.cat([rates, sites]), plasma))
    return Kinetics(every, lag, plasma, effect.movedim((0, 1), (-2, -1)).contiguous())


def plasma_modes(
    ka: Tensor, lag_h: Tensor, clearance: Tensor, v1: Tensor, q: Tensor | None, v2: Tensor | None, stages: int
) -> tuple[list[Tensor], Tensor, list[Tensor]]:
    """Four rates, lag and four plasma coefficients [...] each of `kinetics`, before any effect site.

    Raises:
        ValueError: stages is neither 1 nor 2.
    """
    if stages not in (1, 2):
        raise ValueError(f"stages={stages}: absorption has 1 or 2 stages")
    ka = ka * torch.ones_like(clearance)
    absorption = [ka] if stages == 1 else [ka * (1 - STAGE_SPLIT / 2), ka * (1 + STAGE_SPLIT / 2)]
    disposition = dispose(clearance, v1, q, v2)
    zeros = [] if len(disposition) == 1 else [disposition[2]]
    poles = _apart([*absorption, *disposition[:2]])
    gain = 1000.0 / v1  # mg/L -> ng/mL
    for rate in poles[: len(absorption)]:
        gain = gain * rate
    nothing = torch.zeros_like(gain)
    dead = torch.ones_like(gain)

    def spread(values: list[Tensor], filler: Tensor) -> list[Tensor]:
        a, d = values[: len(absorption)], values[len(absorption) :]
        return [*a, *[filler] * (2 - len(a)), *d, *[filler] * (2 - len(d))]

    lag = (lag_h * dead).clamp(0.0, MAX_LAG_H)
    return spread(poles, dead), lag, spread(_residues(gain, zeros, poles), nothing)


def live_modes(stages: int, compartments: int) -> tuple[int, ...]:
    """Which of the four modes of `plasma_modes` such a drug has; the others' coefficients are zero."""
    return (*range(stages), *range(2, 2 + compartments))


def kinetics_of(parameters: Mapping[str, Tensor], stages: int, ke0: list[Tensor]) -> Kinetics:
    """`kinetics` of parameters by their names in a fit: clearance, v1, ka, lag, and for two compartments q and v2."""
    return kinetics(
        parameters["ka"],
        parameters["lag"],
        parameters["clearance"],
        parameters["v1"],
        parameters.get("q"),
        parameters.get("v2"),
        stages,
        ke0,
    )


def effect_modes(rates: Tensor, plasma: Tensor, ke0: Tensor) -> tuple[Tensor, Tensor]:
    """`site_modes` of rates and coefficients [..., P] and ke0 [..., E]: ke0 [..., E], coefficients [..., E, P + 1]."""
    ke0, effect = site_modes(*(x.movedim(-1, 0) for x in (rates, plasma, ke0)))
    return ke0.movedim(0, -1).contiguous(), effect.movedim((1, 0), (-2, -1)).contiguous()


def _kept_off(ke0: Tensor, rates: Tensor) -> Tensor:
    """ke0 [E, ...] pushed off each of the rates [P, ...] that it comes too near to."""
    for _ in range(2):  # a push may land on another
        for rate in rates:
            ke0 = torch.where((ke0 - rate).abs() < MIN_GAP * rate, rate * (1.0 + 1.01 * MIN_GAP), ke0)
    return ke0


def site_modes(rates: Tensor, plasma: Tensor, ke0: Tensor) -> tuple[Tensor, Tensor]:
    """Effect compartments on a plasma curve: rates [E, ...] (kept off the plasma's) and coefficients [P + 1, E, ...].

    c_m exp(-r_m t) seen through ke0 is c_m ke0 / (ke0 - r_m) · (exp(-r_m t) - exp(-ke0 t)).

    Args:
        rates, plasma: [P, ...] of the plasma's modes. ke0: [E, ...] per h.
    """
    apart = ke0 - rates.unsqueeze(1)
    close = apart.abs() < (MIN_GAP * rates).unsqueeze(1)
    if torch.compiler.is_compiling() or close.ndim == 2:
        ke0 = _kept_off(ke0, rates)
        apart = ke0 - rates.unsqueeze(1)
    elif bool(close.any()):  # of few: theirs alone are looked at again
        them = close.flatten(0, -2).any(0).nonzero().squeeze(-1)
        ke0 = ke0.expand(apart.shape[1:]).index_copy(
            -1, them, _kept_off(ke0.expand_as(apart[0])[..., them], rates[..., them])
        )
        apart = ke0 - rates.unsqueeze(1)
    parts = plasma.unsqueeze(1) * ke0 / apart
    own = parts[0]
    for part in parts[1:]:
        own = own + part
    return ke0.expand_as(own), torch.cat([parts, -own.unsqueeze(0)])


def _residues(gain: Tensor, zeros: list[Tensor], poles: list[Tensor]) -> list[Tensor]:
    """Coefficients of exp(-p_m t) for gain · prod(s + z) / prod(s + p)."""
    found = []
    for m, pole in enumerate(poles):
        value = gain
        for zero in zeros:
            value = value * (zero - pole)
        for j, other in enumerate(poles):
            if j != m:
                value = value / (other - pole)
        found.append(value)
    return found


def kernel(kin: Kinetics, hours: Tensor) -> tuple[Tensor, Tensor]:
    """Plasma [..., T] and effect sites [..., E, T], ng/mL per mg, `hours` [T] after one dose (closed form)."""
    since = hours - kin.lag_h.unsqueeze(-1)
    on = (since > 0).to(kin.rates.dtype)
    decay = torch.exp(-kin.rates.unsqueeze(-1) * since.clamp_min(0.0).unsqueeze(-2)) * on.unsqueeze(-2)  # [..., M, T]
    count = kin.plasma.shape[-1]
    base = decay[..., :count, :]
    plasma = (kin.plasma.unsqueeze(-1) * base).sum(-2)
    sites = (kin.effect[..., :count, :].unsqueeze(-1) * base.unsqueeze(-2)).sum(-3)
    return plasma, sites + kin.effect[..., count, :].unsqueeze(-1) * decay[..., count:, :]


def empty(batch: int, drugs: int, modes: int, device: torch.device | str) -> Amounts:
    """Nothing on board."""
    return Amounts(
        torch.zeros(modes, drugs, batch, dtype=torch.float64, device=device).movedim(-1, 0).transpose(1, 2),
        *(torch.zeros(batch, drugs, SLOTS, dtype=torch.float64, device=device) for _ in range(3)),
    )


def unabsorbed(kin: Kinetics) -> Tensor:
    """Weights [..., M] of a dose that is in the plasma at once, against one absorbed in the one stage a drug has."""
    return 1.0 - kin.rates / kin.rates[..., :1]


def advance(kin: Kinetics, amounts: Amounts, dose_mg: Tensor, hours: float, fast_mg: Tensor | None = None) -> Amounts:
    """`hours` after the doses `dose_mg` [B, D] are swallowed now. Exact for any step from MIN_STEP_H up.

    Args:
        fast_mg: [B, D] swallowed besides, in the plasma at once after the lag; only of drugs with one absorption stage.

    Raises:
        ValueError: a step shorter than MIN_STEP_H, in which more doses could wait out their lag than there are slots.
    """
    if hours < MIN_STEP_H:
        raise ValueError(f"hours={hours} is shorter than {MIN_STEP_H}; take steps of {MIN_STEP_H} h or more")
    dose = dose_mg.to(torch.float64)
    modes = amounts.modes * torch.exp(-kin.rates * hours)
    fast = torch.zeros_like(dose) if fast_mg is None else fast_mg.to(torch.float64)
    at_once = unabsorbed(kin)
    waiting_mg = [amounts.pending_mg[..., i] for i in range(SLOTS)] + [dose]
    waiting_fast_mg = [amounts.pending_fast_mg[..., i] for i in range(SLOTS)] + [fast]
    waiting_h = [amounts.pending_h[..., i] for i in range(SLOTS)] + [kin.lag_h]
    left_mg, left_h, left_fast_mg = [], [], []
    for mg, lag, fast in zip(waiting_mg, waiting_h, waiting_fast_mg, strict=True):
        after = hours - lag  # time in the body by the end of the step; negative: still waiting
        enters = after > 0
        entered = torch.where(enters, mg, 0.0)
        entered_fast = torch.where(enters, fast, 0.0)
        weight = entered.unsqueeze(-1) + entered_fast.unsqueeze(-1) * at_once
        modes = modes + weight * torch.exp(-kin.rates * after.clamp_min(0.0).unsqueeze(-1))
        left_mg.append(mg - entered)
        left_fast_mg.append(fast - entered_fast)
        left_h.append((-after).clamp_min(0.0))
    # the oldest of the three has entered by now (MAX_LAG_H = SLOTS · MIN_STEP_H): its slot is free
    return Amounts(modes, *(torch.stack(left[1:], -1) for left in (left_mg, left_h, left_fast_mg)))


def paced(kin: Kinetics, hours: float, fast: Sequence[int] = ()) -> Pace:
    """The exponentials of a step longer than every lag, once for all its repetitions: `advance` without its queue.

    Args:
        fast: places of the drugs whose doses may pass absorption by.
    """
    entry = torch.exp(-kin.rates * (hours - kin.lag_h.unsqueeze(-1)))
    at_once = [entry[:, i] * (1.0 - kin.rates[:, i] / kin.rates[:, i, :1]) for i in fast]
    return Pace(
        torch.exp(-kin.rates * hours),
        entry,
        torch.stack(at_once, 1) if at_once else entry.new_zeros(entry[:, :0].shape),
    )


def concentration(kin: Kinetics, amounts: Amounts) -> Tensor:
    """Plasma concentration, ng/mL [B, D] float64."""
    count = kin.plasma.shape[-1]
    parts = kin.plasma * amounts.modes[..., :count]
    total = parts[..., 0] + parts[..., 1]
    for m in range(2, count):
        total += parts[..., m]
    return total.clamp_min(0.0)


def effect_sites(kin: Kinetics, amounts: Amounts, dtype: torch.dtype = torch.float64) -> Tensor:
    """Effect-site concentrations, ng/mL [B, D, E], summed in float64 and given as `dtype`."""
    count = kin.plasma.shape[-1]
    total = kin.effect[..., count, :] * amounts.modes[..., count:]
    for m in range(count):
        total += kin.effect[..., m, :] * amounts.modes[..., m : m + 1]
    return total.to(dtype).clamp_min(0.0)
