"""What each condition does to the waves: edits of heights and intervals that compose, in fixed order, into one beat.

Order: long-standing changes of the muscle first, then acute changes of ST and T, then conduction (which reshapes the
QRS that is there and brings ST and T of its own), last what lies between heart and electrodes. Sources of the criteria
stand in `patterns.py`. The rest is conventional electrocardiography from textbooks, and so are all sizes
(k): S1Q3T3, right precordial T inversion and tachycardia of pulmonary embolism, PR depression of pericarditis, low
voltage and alternans of effusion, the notched P of the left and the tall P of the right atrium, takotsubo's deep
inverted T with long QT, small limb leads in heart failure.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from world_models.oracles.progression.ecg.anatomy import (
    LEFT_ATRIUM,
    PR_LEVEL,
    QRS,
    RIGHT_ATRIUM,
    ST,
    ST_T,
    Anatomy,
    P,
    T,
    per_lead,
    to_axis,
)
from world_models.oracles.progression.ecg.patterns import SECONDARY, TERRITORY, Row, qrs_pattern
from world_models.oracles.progression.ecg.shown import FORMS, Shown

__all__ = ["Signs", "apply_signs", "ectopic_heights"]

_CHEST_RIGHT = (0.0, 0.0, 1.0, 1.0, 0.8, 0.3, 0.0, 0.0)
_CHEST_LEFT = (0.6, 0.25, 0.0, 0.0, 0.1, 0.6, 1.0, 0.9)


@dataclass
class Signs:
    """The beats of B patients while conditions edit them; float32."""

    heights: Tensor  # [B, 8, 14] mV
    voltage: Tensor  # [B]
    rate_bpm: Tensor  # [B] sinus rate
    pr_ms: Tensor  # [B]
    qrs_ms: Tensor  # [B]
    p_ms: Tensor  # [B]
    qtc_ms: Tensor  # [B] Fridericia, at a QRS of usual width
    tpeak_tend_ms: Tensor  # [B]

    def add(self, column: int | slice, rows: Row | Tensor, weight: Tensor) -> None:
        """Adds `rows` (mV a lead) times weight [B] to one column."""
        self.heights[:, :, column] += per_lead(self.heights, rows) * weight.unsqueeze(-1)

    def scale(self, column: int | slice, rows: tuple[float, ...] | float, change: Tensor) -> None:
        """Multiplies a column, or a group of them, by 1 + rows * change [B]."""
        rows = (rows,) * 8 if isinstance(rows, float) else rows
        factor = 1.0 + per_lead(self.heights, rows) * change.unsqueeze(-1)
        self.heights[:, :, column] *= factor.unsqueeze(-1) if isinstance(column, slice) else factor

    def approach(self, column: int, goal: Row, share: Tensor, where: Row | Tensor = (1.0,) * 8) -> None:
        """Moves a column a share [B] of the way to `goal`, in the leads of `where` ([8] or [B, 8], 0 to 1)."""
        share = (share.unsqueeze(-1) * per_lead(self.heights, where)).clamp(0.0, 1.0)
        now = self.heights[:, :, column]
        self.heights[:, :, column] = now + share * (per_lead(self.heights, goal) - now)

    def force(self, name: str, weight: Tensor) -> None:
        """Adds a QRS pattern, in the size of this heart."""
        pattern = qrs_pattern(name, self.heights.device)
        self.heights[:, :, QRS] += pattern * (weight * self.voltage).reshape(-1, 1, 1)


def _stretched(qrs: Tensor, start: Tensor, share: Tensor) -> Tensor:
    """A QRS [B, 8, 8] made to fill only `share` [B] of a longer one, from `start` [B] on."""
    places = torch.arange(8, dtype=torch.float32, device=qrs.device) * (0.8 / 7.0) + 0.1
    at = ((places - start.unsqueeze(-1)) / share.unsqueeze(-1) - 0.1) * (7.0 / 0.8) + 1.0  # in a row padded with zeros
    at = at.clamp(0.0, 8.999)
    low = at.floor()
    part = (at - low).unsqueeze(1)
    padded = torch.nn.functional.pad(qrs, (1, 1))
    index = low.to(torch.int64).unsqueeze(1).expand(-1, 8, -1)
    first, second = torch.gather(padded, 2, index), torch.gather(padded, 2, index + 1)
    return first * (1.0 - part) + second * part


def _muscle(s: Signs, shown: Shown, treated: dict[str, Tensor]) -> None:
    """Hypertrophy, dilatation, scars, atria. A new aortic valve takes half of what I35 does to the muscle (k)."""
    i10, i11, i35, i50, i42 = (shown.of(c) for c in ("I10", "I11", "I35", "I50", "I42"))
    s.scale(QRS, 0.07, i10)
    s.approach(T, (0.0,) * 8, 0.07 * i10)
    i35 = i35 * (1.0 - 0.5 * treated["valve_replacement"])
    stenosis = i35 * shown.is_form("I35", "stenosis")
    leak = i35 * shown.is_form("I35", "regurgitation")
    # Left ventricular hypertrophy: deeper S on the right, taller R on the left, later and wider, strain.
    for weight, right, left in ((i11, 0.45, 0.45), (stenosis, 0.55, 0.40), (leak, 0.35, 0.60)):
        s.scale(QRS, tuple(right * r + left * x for r, x in zip(_CHEST_RIGHT, _CHEST_LEFT, strict=True)), weight)
        s.qrs_ms += 7.0 * weight
    s.approach(T, (-0.18, -0.05, 0.20, 0.45, 0.40, 0.10, -0.20, -0.25), 0.55 * i11, _CHEST_LEFT)
    s.add(ST, (-0.05, -0.02, 0.05, 0.06, 0.03, -0.02, -0.08, -0.08), i11)
    # Pressure: strain further to the right and deeper; volume: septal Q and upright, tall T.
    reach = (0.5, 0.6, 0.2, 0.2, 0.5, 0.9, 1.0, 1.0)
    s.approach(T, (-0.15, -0.20, 0.10, 0.25, 0.00, -0.30, -0.40, -0.32), 0.75 * stenosis, reach)
    s.add(ST, (-0.04, -0.06, 0.06, 0.06, 0.00, -0.08, -0.12, -0.11), stenosis)
    s.force("septal_q", leak)
    s.add(T, (0.08, 0.08, 0.00, 0.05, 0.10, 0.25, 0.30, 0.22), leak)

    # Right heart.
    i27 = shown.of("I27")
    s.heights = to_axis(s.heights, 115.0, (0.85 * i27).clamp_max(1.0))
    s.scale(QRS, (0.0, 0.0, -0.55, -0.3, 0.0, -0.15, -0.3, -0.35), i27)
    s.force("right_force", i27)
    reach = (0.2, 0.6, 1.0, 1.0, 0.8, 0.3, 0.0, 0.0)
    s.approach(T, (0.1, -0.05, -0.25, -0.25, -0.12, 0.15, 0.2, 0.2), 0.7 * i27, reach)
    s.add(RIGHT_ATRIUM, (-0.02, 0.16, 0.08, 0.08, 0.05, 0.03, 0.02, 0.02), i27)

    # Left atrium: wide, notched P with a deep end in V1.
    left_atrium = shown.of("I34") + 0.55 * i50 + 0.5 * i42 + 0.35 * i11 + 0.3 * shown.has("I48")
    left_atrium = left_atrium.clamp_max(1.4)
    s.p_ms += 28.0 * left_atrium
    s.pr_ms += 10.0 * left_atrium
    s.add(LEFT_ATRIUM, (0.04, 0.05, -0.09, -0.02, 0.01, 0.02, 0.03, 0.03), left_atrium)

    # Cardiomyopathy and failure: wide, notched, R that does not grow, flat T, small limb leads.
    s.qrs_ms += 30.0 * i42 + 10.0 * i50
    s.force("notches", i42)
    for i in range(QRS.start, QRS.stop):
        lost = per_lead(s.heights, (0.0, 0.0, 0.5, 0.7, 0.7, 0.5, 0.2, 0.1)) * (0.8 * i42).clamp_max(1.0).unsqueeze(-1)
        now = s.heights[:, :, i]
        s.heights[:, :, i] = now - now.clamp_min(0.0) * lost
    s.approach(T, (0.02, 0.02, 0.1, 0.2, 0.2, 0.05, 0.0, -0.02), 0.6 * i42)
    s.scale(QRS, (-0.28, -0.28, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), i50)
    s.approach(T, (0.02, 0.02, 0.05, 0.15, 0.15, 0.08, 0.03, 0.0), 0.5 * i50)
    s.rate_bpm += 9.0 * i50
    s.qtc_ms += 8.0 * i50 + 10.0 * i42


def _by_territory(shown: Shown, name: str) -> Tensor:
    """The rows [B, 8] of a table for each patient's own territory."""
    index = shown.forms["territory"]
    return torch.tensor(TERRITORY[name], device=index.device)[index]


def _scar(s: Signs, shown: Shown) -> None:
    """Old infarction: R lost and Q waves in the territory, T inverted there."""
    i25 = shown.of("I25")
    lost = (_by_territory(shown, "r_loss") * i25.unsqueeze(-1)).clamp_max(1.0).unsqueeze(-1)
    now = s.heights[:, :, QRS]
    s.heights[:, :, QRS] = now - now.clamp_min(0.0) * lost
    for i, (place, _) in enumerate(FORMS["territory"]):
        s.force(f"q_{place}", i25 * (shown.forms["territory"] == i))
    goal = (-0.12, -0.12, -0.15, -0.22, -0.22, -0.18, -0.14, -0.10)
    s.approach(T, goal, 0.75 * i25, _by_territory(shown, "t_inversion"))


def _acute(s: Signs, shown: Shown) -> None:
    """ST, T and QT of ischaemia, inflammation, pressure and stress; rate."""
    i20, i21, i26, i30, i51, i63 = (shown.of(c) for c in ("I20", "I21", "I26", "I30", "I51", "I63"))
    s.add(ST, (-0.04, -0.07, 0.00, 0.00, -0.05, -0.09, -0.11, -0.09), i20)
    s.approach(T, (0.02, 0.02, 0.0, 0.15, 0.12, 0.06, 0.0, 0.0), 0.5 * i20)

    raised = i21 * shown.is_form("I21", "st_elevation")
    rows = _by_territory(shown, "st_elevation")
    s.add(ST, rows, raised)
    s.add(ST_T, 0.5 * rows, raised)  # convex
    s.add(T, 0.8 * rows, raised)
    lowered = i21 * shown.is_form("I21", "st_depression")
    s.add(ST, (-0.06, -0.09, 0.02, -0.04, -0.11, -0.16, -0.17, -0.12), lowered)
    s.approach(T, (-0.02, 0.0, 0.05, 0.05, 0.0, -0.08, -0.10, -0.06), 0.6 * lowered)
    s.rate_bpm += 10.0 * i21
    s.qtc_ms += 10.0 * i21

    s.rate_bpm += 30.0 * i26
    s.force("s1q3", i26)
    s.add(T, (0.03, -0.12, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), i26)
    reach = (0.0, 0.0, 1.0, 1.0, 1.0, 0.8, 0.1, 0.0)
    s.approach(T, (0.0, 0.0, -0.20, -0.28, -0.25, -0.12, 0.1, 0.2), 0.8 * i26, reach)

    s.add(ST, (0.09, 0.15, -0.02, 0.12, 0.17, 0.17, 0.15, 0.12), i30)
    s.add(PR_LEVEL, (-0.035, -0.06, 0.01, -0.03, -0.04, -0.04, -0.04, -0.035), i30)
    s.rate_bpm += 14.0 * i30

    s.approach(T, (-0.28, -0.22, 0.05, -0.45, -0.65, -0.75, -0.60, -0.42), 0.85 * i51)
    s.add(ST, (0.0, 0.0, 0.0, 0.03, 0.05, 0.04, 0.03, 0.02), i51)
    s.qtc_ms += 65.0 * i51
    s.tpeak_tend_ms += 12.0 * i51
    s.approach(T, (-0.05, -0.05, 0.05, 0.0, -0.1, -0.15, -0.12, -0.1), 0.35 * i63)
    s.qtc_ms += 20.0 * i63
    s.rate_bpm += 13.0 * shown.of("I95") + 12.0 * shown.of("I31")


def _block(s: Signs, name: str, on: Tensor, keep_qrs: Tensor | float, keep_t: float) -> None:
    """Where `on` [B]: a QRS pattern over what is kept of the own QRS, and the secondary ST and T."""
    weight = on.to(torch.float32)
    kept = 1.0 - weight * (1.0 - keep_qrs)
    s.heights[:, :, QRS] *= kept.reshape(-1, 1, 1)
    s.force(name, weight)
    # T follows the changed activation; an injury current still lifts ST.
    s.heights[:, :, ST:T] *= (1.0 - weight * (0.5 - 0.5 * keep_t)).reshape(-1, 1, 1)
    s.heights[:, :, T] *= (1.0 - weight * (1.0 - keep_t)).unsqueeze(-1)
    st, t = SECONDARY[name]
    s.add(ST, st, weight)
    s.add(T, t, weight)


def _conduction(s: Signs, shown: Shown, treated: dict[str, Tensor], paced: Tensor) -> None:
    """Blocks of branches and fascicles, accessory pathways, pacing; PR and QRS."""
    i44, i45 = shown.of("I44"), shown.of("I45")
    s.pr_ms += 85.0 * i44 * shown.is_form("I44", "first_degree") + 8.0 * i44 * shown.is_form("I44", "lbbb")
    left = shown.sees("I44", "lbbb") & ~paced
    free = ~left & ~paced  # a complete left block or a pacemaker hides what else is wrong with conduction
    right = shown.sees("I45", "rbbb") & free
    fascicle = shown.sees("I45", "anterior_fascicle") & free
    accessory = shown.sees("I45", "pre_excitation") & free
    # Pulmonary embolism strains the right branch: incomplete block.
    incomplete = shown.of("I26") * (free & ~right & ~accessory)

    s.heights = to_axis(s.heights, -55.0, fascicle.to(torch.float32))
    s.qrs_ms += 8.0 * fascicle
    longer = (42.0 + 12.0 * (i45 - 1.0)) * right + (26.0 + 10.0 * (i45 - 1.0)) * accessory + 14.0 * incomplete
    share = s.qrs_ms / (s.qrs_ms + longer)
    start = (1.0 - share) * accessory
    s.heights[:, :, QRS] = _stretched(s.heights[:, :, QRS], start, share)
    s.qrs_ms += longer
    _block(s, "rbbb", right, 1.0, 0.35)
    s.force("rbbb", 0.4 * incomplete)
    septal = shown.is_form("pathway", "septal")
    for name, side in (("delta_left", ~septal), ("delta_septal", septal)):
        _block(s, name, accessory & side, 1.0, 0.5)
    s.pr_ms = torch.where(accessory, 96.0 + 10.0 * (i45 - 1.0), s.pr_ms)

    _block(s, "lbbb", left, 0.22, 0.3)
    from_both = paced & (treated["crt"] > 0)
    _block(s, "paced", paced & ~from_both, 0.12, 0.25)
    _block(s, "biventricular", from_both, 0.15, 0.4)
    # From both ventricles: some 20 ms narrower than the left block that it is for, and than pacing on the right
    # (MIRACLE, Abraham 2002, doi 10.1056/NEJMoa013168).
    s.qrs_ms += (56.0 + 18.0 * (i44 - 1.0)) * left + 62.0 * (paced & ~from_both) + 36.0 * from_both

    s.pr_ms += 12.0 * treated["beta_blocker"] + 8.0 * treated["antiarrhythmic"]
    s.rate_bpm = s.rate_bpm * (1.0 - 0.12 * treated["beta_blocker"])
    s.qrs_ms += 6.0 * treated["antiarrhythmic"]
    s.qtc_ms += 24.0 * treated["antiarrhythmic"]


def apply_signs(anatomy: Anatomy, shown: Shown, treated: dict[str, Tensor], paced: Tensor) -> Signs:
    """The beat that conditions and drugs make of the hearts of a day.

    Args:
        anatomy: `at_visit`.
        shown: `shown_on_ecg`.
        treated: name -> float32 [B], 1 where taken or done.
        paced: bool [B], ventricles stimulated.
    """
    s = Signs(anatomy.heights.clone(), *(x.clone() for x in anatomy[1:]))
    _muscle(s, shown, treated)
    _scar(s, shown)
    _acute(s, shown)
    _conduction(s, shown, treated, paced)
    i31 = shown.of("I31")
    s.scale(QRS, -0.48, i31)
    s.scale(slice(ST, T + 1), -0.35, i31)
    s.scale(P, -0.25, i31)
    s.rate_bpm = s.rate_bpm.clamp(40.0, 150.0)
    s.pr_ms = s.pr_ms.clamp(90.0, 340.0)
    s.qrs_ms = s.qrs_ms.clamp(70.0, 190.0)
    s.qtc_ms = s.qtc_ms.clamp(350.0, 580.0)
    s.p_ms = torch.minimum(s.p_ms.clamp(70.0, 142.0), s.pr_ms - 15.0)
    return s


def ectopic_heights(s: Signs, shown: Shown) -> Tensor:
    """Heights [B, 8, 14] of the beat that arises in this person's ventricular focus: a wide QRS with opposed T."""
    out = torch.zeros_like(s.heights)
    for i, (name, _) in enumerate(FORMS["ectopic"]):
        chosen = (shown.forms["ectopic"] == i).to(torch.float32)
        st, t = SECONDARY[name]
        out[:, :, QRS] += qrs_pattern(name, out.device) * (chosen * s.voltage).reshape(-1, 1, 1)
        out[:, :, ST] += per_lead(out, st) * chosen.unsqueeze(-1)
        out[:, :, T] += per_lead(out, t) * chosen.unsqueeze(-1)
    out[:, :, QRS] += 0.15 * s.heights[:, :, QRS]
    return out
