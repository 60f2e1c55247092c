"""Infection and inflammation: the four-variable model of Reynolds 2006 with antibiotics; 10^6/mL and hours.

    P' = P (growth (1 - P/20) - 0.6 s / (0.002 + 0.01 P) - 1.8 host f(N) - kill)        s = 0.005
    N' = 0.08 R / (0.12 + R) - 0.045 N,     R = f(0.01 N + 0.1 P + k D)                   activated phagocytes
    D' = 0.17 f(N)^2 / (0.25^2 + f(N)^2) - 0.018 D + ischaemia                             tissue damage
    C' = 0.0125 + 0.04 f(N + 16 D) / (1 + f(N + 16 D)) - 0.1 C,   f(x) = x / (1 + (C / 0.28)^2)

after Reynolds 2006 (J Theor Biol 242:220). Its published damage term is a switch of sixth order that, once thrown,
keeps inflammation going without any pathogen; a ward needs patients who recover when the infection is treated, so
damage is graded here (order 2, half at 0.25 instead of 0.06), heals with 55 h and feeds back by k = 0.010 instead of
0.02.

Killing by antibiotics: sigmoid Emax (order 2) of each concentration, combined as independent, 0.45/h at most (k).
Kinetics: one compartment, litres per kg and L/h at a filtration of 100 mL/min, share of it renal: piperacillin 0.25,
12, 0.7; vancomycin 0.7, 4.8, 0.9; ceftriaxone 0.15, 0.95, 0.45; meropenem 0.3, 13, 0.75 (k).
"""

from __future__ import annotations

from torch import Tensor

from world_models.oracles.ward.state import TRACE, Infection, Person

__all__ = ["ANTIBIOTICS", "advance_infection", "damped", "killing"]

# name -> (litres per kg, L/h at 100 mL/min, renal share, order, mg in one unit of it, cleared by dialysis)
ANTIBIOTICS: dict[str, tuple[float, float, float, str, float, float]] = {
    "piperacillin": (0.25, 12.0, 0.70, "piperacillin_tazobactam_g", 1000.0 * 8.0 / 9.0, 0.8),
    "vancomycin": (0.70, 4.8, 0.90, "vancomycin_mg", 1.0, 0.7),
    "ceftriaxone": (0.15, 0.95, 0.45, "ceftriaxone_g", 1000.0, 0.1),
    "meropenem": (0.30, 13.0, 0.75, "meropenem_g", 1000.0, 0.9),
}
DAMPING = 0.28  # C-infinity of Reynolds 2006
CAPACITY = 20.0  # 10^6/mL, P-infinity
STEROID_HALF_MG = 100.0  # hydrocortisone on board, of half its effect on recruitment (k)
GREATEST_KILL_PER_H = 0.45
EXTINCT = 2e-4  # below this load the last of them die


def damped(amount: Tensor, anti: Tensor) -> Tensor:
    """f of Reynolds 2006: what the anti-inflammatory mediator leaves of a pro-inflammatory amount."""
    share = anti * (1.0 / DAMPING)
    return amount / (share * share + 1.0)


def killing(infection: Infection, person: Person) -> Tensor:
    """Killing by the antibiotics on board, an hour, 0 to GREATEST_KILL_PER_H."""
    spared: Tensor | None = None
    for name in ANTIBIOTICS:
        c: Tensor = getattr(infection, name) / getattr(person, f"ec50_{name}")
        left = 1.0 / (c * c + 1.0)
        spared = left if spared is None else spared * left
    assert spared is not None
    return (1.0 - spared) * GREATEST_KILL_PER_H


def advance_infection(
    now: Infection,
    person: Person,
    gfr: Tensor,
    dialysis_l_h: Tensor,
    ischaemia: Tensor,
    steroid_mg: Tensor,
    rates: dict[str, Tensor],
    hours: float,
) -> Infection:
    """All eight over `hours` (half an hour). `ischaemia` is damage by lack of oxygen, an hour."""
    drugs = {}
    for name, (litres, clearance, renal, order, mg, dialysed) in ANTIBIOTICS.items():
        volume = person.weight_kg * litres
        body = gfr * (0.01 * renal * clearance) + (1.0 - renal) * clearance
        rate = (body * person.drug_clearance + dialysis_l_h * dialysed) / volume
        settled = rates[order] * mg / volume / rate + TRACE
        drugs[name] = settled + (getattr(now, name) - settled) * (rate * -hours).exp()

    load, cells, damage, anti = now.pathogen, now.phagocytes, now.damage, now.anti
    active = damped(cells, anti)
    calm = 1.0 - steroid_mg / (steroid_mg + STEROID_HALF_MG) * 0.15
    recruit = damped(cells * 0.01 + load * 0.1 + damage * 0.010, anti) * calm
    d_cells = recruit * 0.08 / (recruit + 0.12) - cells * 0.045
    square = active * active
    d_damage = square * 0.17 / (square + 0.0625) - damage * 0.018 + ischaemia
    busy = damped(cells + damage * 16.0, anti)
    d_anti = 0.0125 + busy * 0.04 / (busy + 1.0) - anti * 0.1
    present = now._replace(**drugs)
    net = person.growth_per_h * (1.0 - load * 0.05) - 0.003 / (load * 0.01 + 0.002) - active * person.host * 1.8
    net = net - killing(present, person)
    grown = load * (net * hours).clamp(-4.0, 1.0).exp()
    grown = grown * (grown > EXTINCT).to(grown.dtype)
    return present._replace(
        pathogen=grown.clamp_max(CAPACITY),
        phagocytes=(cells + d_cells * hours).clamp(0.0, 1.5),
        damage=(damage + d_damage * hours).clamp(0.0, 4.0),
        anti=(anti + d_anti * hours).clamp(0.05, 1.0),
    )
