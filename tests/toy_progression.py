"""A small honest clinic for tests: conditions come and go by constant hazards, the probe reads them with noise.

It keeps every rule of `world_models.protocol` and measures and takes what the progression worlds do. Its latent moves
by a fixed direction a code, so that what is built on a latent that answers to transitions can be tested without a
network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors
from world_models.quantities.progression import (
    BECOMES,
    CODES,
    DRUGS,
    IRREVERSIBLE,
    MEASURES,
    ORDERS,
    SAMPLES,
    TREATMENTS,
)
from world_models.quantities.treated_columns import joined, parted
from world_models.quantity import Quantity, by_name
from world_models.rounding import expit

C, Z = len(CODES), 12
PROBE = Quantity("probe", "fraction", 0.0, 1.0, (C,), "probability of each condition, read from the latent")
LATENT = Quantity("latent", "1", -30.0, 30.0, (Z,), "the toy's latent", on_request=True)
FACTORS = (Quantity("age_years", "a", 18.0, 100.0), Quantity("sex_female", "bool", 0.0, 1.0))
COLUMN = {q.name: i for i, q in enumerate(ORDERS)}
_GOES = torch.tensor([0.0 if code in IRREVERSIBLE else 1.0 for code in CODES])


class ToyJEPA:
    """Dyn(z, a, days) = z + a W + a drift with the days; W [C, Z] is fixed, its rows are told apart easily."""

    inverse = None  # it reads no transition

    def __init__(self) -> None:
        self.directions = 2.0 * keys.normal(keys.from_seed(3), 0, "toy directions", (C, Z))[0]

    def predict(self, z: Tensor, action: Tensor, days: Tensor) -> Tensor:
        moved = z + (days / 36525.0).unsqueeze(-1)
        for code in range(C):
            moved = moved + action[:, code, None] * self.directions[code]
        return moved


class ToyClinicState(NamedTuple):
    key: Tensor  # int64 [B]
    t: Tensor  # int64 [B]
    age: Tensor  # [B] at the first visit
    female: Tensor  # [B]
    years: Tensor  # [B]
    months: Tensor  # [B]
    condition: Tensor  # bool [B, C]
    treated: Tensor  # bool [B, TREATMENTS]
    bled: Tensor  # bool [B]
    dead: Tensor  # bool [B]


class ToyClinic:
    """Beta-blockers and the like halve every onset a little; anticoagulants make bleeding likelier."""

    name = "toy-clinic"
    orders = ORDERS
    factors = FACTORS
    hours_per_step = 4383.0
    codes = CODES
    reader = labels = None

    def __init__(self, device: str = "cpu", hazard: float = 0.02, draws: bool = True, latent: bool = True) -> None:
        self.device = torch.device(device)
        self.hazard = hazard  # of death, a year
        self.jepa = ToyJEPA()
        self.measures = (*(MEASURES if draws else MEASURES[:-1]), PROBE, *([LATENT] if latent else []))

    def initial(self, key: Tensor, factors: Factors | None = None) -> ToyClinicState:
        u = keys.uniform(key, 0, "toy clinic", (2,))
        given = checked_factors(self.factors, factors, len(key), self.device)
        drawn = {"age_years": 45.0 + 40.0 * u[:, 0], "sex_female": (u[:, 1] < 0.5).float(), **given}
        zero = torch.zeros(len(key))
        ill = keys.uniform(key, 0, "toy conditions", (C,)) < 0.15
        none = torch.zeros(len(key), len(TREATMENTS), dtype=torch.bool)
        return ToyClinicState(
            key,
            torch.zeros_like(key),
            drawn["age_years"],
            drawn["sex_female"],
            zero,
            zero.clone(),
            ill,
            none,
            key != key,
            key != key,
        )

    def read(self, chart: Chart) -> dict[str, Tensor]:
        return {q.name: chart[q.name] for q in FACTORS if q.name in chart}

    def transition(self, state: ToyClinicState, action: Tensor) -> ToyClinicState:
        action = checked_orders(self.orders, action, len(state.key), self.device)
        months = action[:, -1].clamp_min(1.0)
        years, t = months / 12.0, state.t + 1
        given = action[:, :-1] > 0.5
        done, taken = parted(given)
        treated = joined(parted(state.treated)[0] | done, taken)
        relief = 1.0 - 0.05 * given.float().cumsum(-1)[:, -1]
        u = keys.uniform(state.key, t, "toy flips", (C, 2))
        comes = u[..., 0] < 0.05 * (years * relief).unsqueeze(-1)
        goes = u[..., 1] < 0.3 * years.unsqueeze(-1) * _GOES
        condition = torch.where(state.condition, ~goes, comes)
        for code, scar in BECOMES.items():
            healed = state.condition[:, CODES.index(code)] & ~condition[:, CODES.index(code)]
            condition[:, CODES.index(scar)] |= healed
        v = keys.uniform(state.key, t, "toy events", (2,))
        alive = ~state.dead
        dies = (v[:, 0] < self.hazard * years) & alive
        bleeds = (v[:, 1] < (0.01 + 0.03 * taken[:, DRUGS.index("anticoagulant")].float()) * years) & alive
        return ToyClinicState(
            state.key,
            t,
            state.age,
            state.female,
            state.years + years * alive,
            torch.where(alive, months, state.months),
            torch.where(alive.unsqueeze(-1), condition, state.condition),
            torch.where(alive.unsqueeze(-1), treated, state.treated),
            bleeds,
            state.dead | dies,
        )

    def observe(self, state: ToyClinicState, also: Sequence[str] = ()) -> Chart:
        check_also(self.measures, also)
        noise = keys.normal(state.key, state.t, "toy probe", (C,))
        chart = {
            "age_years": (state.age + state.years).clamp(18.0, 130.0),
            "sex_female": state.female,
            "years": state.years,
            "months_since_visit": state.months,
            "condition": state.condition.float(),
            "treated": state.treated.float(),
            "bleeding": state.bled.float(),
            "dead": state.dead.float(),
            "probe": expit(4.0 * (state.condition.float() - 0.5) + noise),
        }
        if "ecg_mv" in also:
            chart["ecg_mv"] = chart["probe"][:, :12, None] * torch.linspace(0.0, 1.0, SAMPLES)
        if "latent" in also:
            personal = keys.normal(state.key, 0, "toy person", (Z,))
            zero = torch.zeros(len(state.key))
            chart["latent"] = self.jepa.predict(personal, state.condition.float(), zero).clamp(-30.0, 30.0)
        return chart

    def rekey(self, state: ToyClinicState, key: Tensor) -> ToyClinicState:
        return state._replace(key=key)

    def spread(self, state: ToyClinicState) -> dict[str, Tensor]:
        return {}

    def support(self, state: ToyClinicState) -> Tensor:
        return ~state.dead

    def reference_latents(self) -> Tensor:
        """float32 [R, Z] of patients to draw beside."""
        return self.observe(self._references(), ("latent",))["latent"]

    def reference_conditions(self) -> Tensor:
        """bool [R, C]."""
        return self._references().condition

    def _references(self) -> ToyClinicState:
        return self.initial(keys.from_seed(900, 120))

    def explain_pairs(self, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """One changed pair a key [B]: (z_before, z_after, condition_before bool, action, days)."""
        before = self.initial(keys.fold(key, "toy pair"))
        z = self.observe(before, ("latent",))["latent"]
        first = keys.bits(key, 0, "toy first") % C
        second = keys.bits(key, 0, "toy second") % C
        one = torch.arange(C) == first.unsqueeze(-1)
        two = (torch.arange(C) == second.unsqueeze(-1)) & (keys.uniform(key, 0, "toy two") < 0.4).unsqueeze(-1)
        action = torch.where(one | two, torch.where(before.condition, -1.0, 1.0), 0.0)
        days = 30.0 + 300.0 * keys.uniform(key, 0, "toy days")
        after = self.jepa.predict(z, action, days) + 0.3 * keys.normal(key, 0, "toy rest", (Z,))
        return z, after, before.condition, action, days


assert by_name(MEASURES, "ecg_mv") is MEASURES[-1]


def chart(**values: float | list[str]) -> dict[str, Tensor]:
    """One patient of 60, two visits in, with the conditions and treatments named."""
    one = {"age_years": 60.0, "sex_female": 0.0, "years": 1.0, "months_since_visit": 6.0, "bleeding": 0.0, "dead": 0.0}
    made = {name: torch.tensor([float(values.get(name, one[name]))]) for name in one}
    made["condition"] = torch.tensor([[float(code in values.get("condition", [])) for code in CODES]])
    made["treated"] = torch.tensor([[float(name in values.get("treated", [])) for name in TREATMENTS]])
    made["probe"] = 0.05 + 0.9 * made["condition"]
    return made


def given(months: float = 6.0, **orders: float) -> Tensor:
    """One action [1, A]: these orders, and the months to the next visit."""
    action = torch.zeros(1, len(ORDERS))
    for name, amount in {**orders, "months_to_next_visit": months}.items():
        action[0, COLUMN[name]] = amount
    return action
