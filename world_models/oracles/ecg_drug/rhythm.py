"""The arrhythmia itself: its burden under drugs, and torsades de pointes as the price of a long QT.

Burden. With episodes starting at rate a and ending at rate b the long-run share of time in the arrhythmia is
a / (a + b), so its logit is log(a / b): a drug that multiplies the starting rate by r and the ending rate by c shifts
the logit by log(r) - log(c). Both ratios can be read from trials as ratios of cumulative hazards, log(S_drug) /
log(S_control). Each drug's shift is a Hill curve of its plasma concentration (`quantities.drugs`); shifts of several
drugs saturate together. The shift sets in with a time constant (91 % of the dofetilide conversions that happen within
three days happen within 36 h, 70 % within 24 h), and an Ornstein-Uhlenbeck process on the logit moves the burden over
hours.

Published (drug / control) and the logit shift it gives:

- dofetilide, 500 ug bid: 0.86 + 1.22 = 2.1 from conversion 61 / 33 % and maintenance 78 / 43 % at one year (DIAMOND,
  doi 10.1111/j.1527-5299.2001.00243.x). Conversion 29.9, 9.8, 6.1 / 1.2 % on 500, 250, 125 ug gives the Hill
  coefficient of 2 (SAFIRE-D, doi 10.1161/01.cir.102.19.2385; its maintenance, 58 / 25 %, alone gives 0.93 (k)).
- quinidine, 400 mg every 6 h (k): 0.77 from maintenance 69 / 45 % at 3 and 50 / 25 % at 12 months (Coplen 1990,
  Circulation 82:1106) + 1.2 from conversion 60 / 20 % (against sotalol: Hohnloser 1995, PMID 7560608).
- ranolazine, 750, 500, 375 mg bid: 0.5, 0.4, 0 from recurrence 39.7, 41.7, 56.9 / 56.4 % in 16 weeks (RAFFAELLO, doi
  10.1016/j.hrthm.2015.01.021); 0.17 on 375 mg from a burden of 1.89 -> 1.59 % (PMC4956122); no significant change on
  750 mg alone (HARMONY, NCT01522651).
- verapamil, 240 mg a day: 0.15, an assumption. Paroxysms became 25 min a day shorter against 45 min longer (Europace
  2007;9:1209), less progression with hazard ratio 0.64 (RACE 4, PMC8892061); its use is rate control.

The fluctuation (SD 0.5 on the logit, 10 h) is an assumption. The chart's heart rate is the sinus rate: what verapamil
does to the ventricular rate during the arrhythmia is not in the chart.

Torsades. hazard per hour = risk * gate * exp(a + k (QTcF - 500) + step expit((QTcF - 500) / 8) + k_long softplus(QTcF
- 600) - k_short softplus(450 - QTcF) + k_slow softplus(60 - heart rate)), softplus of stated widths. k is 6 % per 10
ms (5 to 7 % in the long-QT registry: Drew 2010, PMID 20142454); the step makes the two- to threefold risk above 500 ms
that the same statement gives for drugs. The gate rises from 0.02 to 1 with the increase over the admission QTcF (half
at 40 ms): the increase predicted torsades in 1404 loadings (doi 10.1161/CIRCEP.114.002339), placebo arms had none (0
of 756 in DIAMOND), and an untreated long-QT patient has an event in years, not days. a is set so that dofetilide
started by the label's rule in the typical cohort, which is what was observed, meets the first three days' rate: 0.8 %
in supraventricular arrhythmia by label (k), 1.2 % in those 1404. `risk` is a patient's own factor at the same QTcF
(`torsades_risk`): women's (two to three times men's: two thirds of 332 cases were women's, Makkar 1993, PMID 8230644,
at shorter QTc), potassium and magnesium (`electrolytes`), and the cohort's (heart failure: DIAMOND's 3 %, 25 of 762).
Quinidine, which blocks the late sodium current too (CiPA), has less torsades at the same QTcF (`spared`): 0.9 % of 342
loadings with 400 mg every 6 h stopped at 500 ms (Potpara), none in 501 on 200 to 400 mg (Schwaab 2009; many of them
with verapamil (k)). `python -m benchmarks.ecg_drug.calibrate_rhythm` prints simulated beside published rates. The bend
above 600 ms and the factor of 1.03 per bpm below 60 are assumptions. Torsades is absorbing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from world_models.oracles.ecg_drug.electrolytes import log_torsades_risk
from world_models.quantities.drugs import ANTIARRHYTHMICS, Suppression
from world_models.rounding import expit, softplus

__all__ = ["BURDEN", "NORMAL", "SUPPRESSION", "TORSADES", "UNIFORM", "BurdenLaw", "ArrhythmiaState", "TorsadesLaw"]
__all__ += ["advance_rhythm", "initial_rhythm", "logit_shift", "spared", "torsades_chance", "torsades_hazard"]
__all__ += ["torsades_risk"]

NORMAL, UNIFORM = "rhythm/burden", "rhythm/torsades"  # purposes (`keys`) of a step's random numbers

SUPPRESSION: dict[str, Suppression] = {d.name: d.suppression for d in ANTIARRHYTHMICS}


@dataclass(frozen=True, slots=True)
class BurdenLaw:
    """Time course of the burden's logit."""

    fluctuation_sd: float = 0.5  # stationary, logit
    fluctuation_hours: float = 10.0  # time constant of the Ornstein-Uhlenbeck process
    onset_hours: float = 16.0  # time constant with which the drugs' shift sets in and wears off
    together: float = 3.5  # logit shift that no combination exceeds
    floor: float = 1e-4  # burdens below (and above 1 minus it) have no finite logit; they start from here


@dataclass(frozen=True, slots=True)
class TorsadesLaw:
    """log hazard per hour as a convex function of QTcF."""

    log_hazard_at_500: float = -7.8  # a
    per_ms: float = 0.0058  # k: 6 % per 10 ms
    step_at_ms: float = 500.0
    step: float = 0.92  # log of 2.5
    step_width_ms: float = 8.0
    spared_by_quinidine: float = 0.9  # greatest fall of the log hazard
    spared_half_ng_ml: float = 500.0
    women: float = 0.92  # log of 2.5: hazard at the same QTcF, against men
    long_per_ms: float = 0.025  # k_long, above 600 ms
    short_per_ms: float = 0.05  # k_short, below 450 ms
    slow_per_bpm: float = 0.03  # k_slow, below 60 bpm
    long_from_ms: float = 600.0
    short_from_ms: float = 450.0
    slow_from_bpm: float = 60.0
    width_ms: float = 10.0  # of the two bends
    width_bpm: float = 3.0
    drug_from_ms: float = 40.0  # increase over the admission QTcF at which the gate is half open
    drug_width_ms: float = 7.0
    without_drug: float = 0.02  # the gate when shut


BURDEN = BurdenLaw()
TORSADES = TorsadesLaw()


class ArrhythmiaState(NamedTuple):
    """ArrhythmiaState of B patients, all float32 [B]."""

    fluctuation: Tensor  # Ornstein-Uhlenbeck process on the logit of the burden
    shift: Tensor  # logit shift by drugs that has set in
    burden: Tensor  # fraction of the last step
    hazard_per_h: Tensor  # of torsades, now
    torsades: Tensor  # 1 once it has occurred


@lru_cache(maxsize=32)
def _curves(drugs: tuple[str, ...], device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """log half, hill, greatest / together [D]; a drug without a curve shifts nothing."""
    none = Suppression(0.0, 1.0, 1.0)
    rows = [SUPPRESSION.get(d, none) for d in drugs]
    return (
        torch.tensor([r.half_ng_ml for r in rows], device=device).log(),
        torch.tensor([r.hill for r in rows], device=device),
        torch.tensor([r.greatest / BURDEN.together for r in rows], device=device),
    )


def logit_shift(concentration_ng_ml: Tensor, drugs: Sequence[str]) -> Tensor:
    """Shift [B] of the burden's logit that plasma concentrations [B, D] would reach if held; never above `together`."""
    log_half, hill, share = _curves(tuple(drugs), concentration_ng_ml.device)
    effect = share * expit(hill * (concentration_ng_ml.clamp_min(1e-9).log() - log_half))
    left = 1.0 - effect[:, 0]
    for i in range(1, effect.shape[1]):  # over drugs, not patients
        left = left * (1.0 - effect[:, i])
    return (1.0 - left) * BURDEN.together


@lru_cache(maxsize=8)
def _shapes(law: TorsadesLaw, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Of the hazard's three bends [3, 1] each: from where, of what width (negative: downwards), the same without its
    sign, how much a unit beyond; of its two steps [2, 1] each: where, and how wide."""
    rows = (
        (law.long_from_ms, law.short_from_ms, law.slow_from_bpm),
        (law.width_ms, -law.width_ms, -law.width_bpm),
        (law.width_ms, law.width_ms, law.width_bpm),
        (law.long_per_ms, -law.short_per_ms, law.slow_per_bpm),
        (law.step_at_ms, law.drug_from_ms),
        (law.step_width_ms, law.drug_width_ms),
    )
    with torch.inference_mode(False):  # kept beyond this call
        return tuple(torch.tensor(row, dtype=dtype, device=device)[:, None] for row in rows)


def torsades_hazard(
    qtcf_ms: Tensor,
    heart_rate_bpm: Tensor,
    baseline_qtcf_ms: Tensor,
    risk: float | Tensor = 1.0,
    law: TorsadesLaw = TORSADES,
) -> Tensor:
    """Hazard of torsades per hour [B]: increasing in QTcF, decreasing in the heart rate below 60 bpm."""
    start, width, size, per_unit, place, wide = _shapes(law, qtcf_ms.device, qtcf_ms.dtype)
    bends = softplus((torch.stack((qtcf_ms, qtcf_ms, heart_rate_bpm)) - start) / width) * size * per_unit
    step, gate = expit((torch.stack((qtcf_ms, qtcf_ms - baseline_qtcf_ms)) - place) / wide).unbind(0)
    log_hazard = (qtcf_ms - 500.0) * law.per_ms + law.log_hazard_at_500 + step * law.step
    log_hazard = log_hazard + bends[0] + bends[1] + bends[2]
    return log_hazard.clamp_max(3.0).exp() * (gate * (1.0 - law.without_drug) + law.without_drug) * risk


def torsades_risk(
    sex_female: Tensor, potassium_mmol_l: Tensor, magnesium_mmol_l: Tensor, cohort: float, law: TorsadesLaw = TORSADES
) -> Tensor:
    """A patient's factor [B] on the hazard at the same QTcF and rate: 1 in a man with normal electrolytes."""
    return (sex_female * law.women + log_torsades_risk(potassium_mmol_l, magnesium_mmol_l)).exp() * cohort


def spared(quinidine_ng_ml: Tensor, law: TorsadesLaw = TORSADES) -> Tensor:
    """What is left [B] of the hazard at the same QTcF with this much quinidine in plasma [B]."""
    return (quinidine_ng_ml / (quinidine_ng_ml + law.spared_half_ng_ml) * -law.spared_by_quinidine).exp()


def initial_rhythm(
    baseline_burden: Tensor, baseline_qtcf_ms: Tensor, heart_rate_bpm: Tensor, risk: float | Tensor = 1.0
) -> ArrhythmiaState:
    """At admission: the patient's own burden, no drug's shift, no torsades yet."""
    zero = torch.zeros_like(baseline_burden)
    hazard = torsades_hazard(baseline_qtcf_ms, heart_rate_bpm, baseline_qtcf_ms, risk)
    return ArrhythmiaState(zero, zero, baseline_burden, hazard, zero)


@lru_cache(maxsize=32)
def _pace(hours: float) -> tuple[float, float, float]:
    """Of a step: what is left of the fluctuation, SD of what is added to it, what is left of the way to the shift."""
    keep = float(torch.tensor(-hours / BURDEN.fluctuation_hours, dtype=torch.float64).exp())
    lag = float(torch.tensor(-hours / BURDEN.onset_hours, dtype=torch.float64).exp())
    return keep, BURDEN.fluctuation_sd * (1.0 - keep * keep) ** 0.5, lag


def advance_rhythm(
    change: Tensor,
    chance: Tensor,
    rhythm: ArrhythmiaState,
    baseline_burden: Tensor,
    shift_target: Tensor,
    qtcf_ms: Tensor,
    heart_rate_bpm: Tensor,
    baseline_qtcf_ms: Tensor,
    hours: float,
    risk: float | Tensor = 1.0,
) -> ArrhythmiaState:
    """The rhythm `hours` later.

    Args:
        change, chance: [B] the step's normal (`NORMAL`) and uniform (`UNIFORM`).
        shift_target: `logit_shift` [B] of the concentrations over the step.
        qtcf_ms, heart_rate_bpm: [B] at the step's end; the hazard is averaged with that at its beginning.
        hours: length of the step; both processes are exact in it.
        risk: `torsades_risk` [B].
    """
    keep, shock, lag = _pace(hours)
    fluctuation = rhythm.fluctuation * keep + change * shock
    shift = shift_target + (rhythm.shift - shift_target) * lag
    start = baseline_burden.clamp(BURDEN.floor, 1.0 - BURDEN.floor)
    logit = (start / (1.0 - start)).log()
    burden = expit(logit + fluctuation - shift)

    hazard = torsades_hazard(qtcf_ms, heart_rate_bpm, baseline_qtcf_ms, risk)
    strikes = chance < _struck_within(rhythm.hazard_per_h, hazard, hours)
    torsades = torch.maximum(rhythm.torsades, strikes.to(torch.float32))
    return ArrhythmiaState(fluctuation, shift, burden, hazard, torsades)


def torsades_chance(before: ArrhythmiaState, after: ArrhythmiaState, hours: float) -> Tensor:
    """Chance [B] of a first torsades in the step of `hours` from `before` to `after`; 0 for who has had one."""
    return torch.where(before.torsades > 0, 0.0, _struck_within(before.hazard_per_h, after.hazard_per_h, hours))


def _struck_within(first_per_h: Tensor, last_per_h: Tensor, hours: float) -> Tensor:
    """Chance [B] under a hazard that goes from the one to the other."""
    return -(-((last_per_h + first_per_h) * (0.5 * hours))).expm1()
