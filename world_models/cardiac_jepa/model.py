"""CardiacJEPAWorld: years of clinic visits on latents of the 12-lead ECG; no waveform is generated.

One step: the orders of this visit and the time to the next move the conditions (`labels`), their change is the action
with which the JEPA moves the latent (`jepa`), and a linear probe reads the conditions off it. Real ECGs of one state
differ from visit to visit; what the predictor cannot foretell is sampled around its expectation (`residual`, as large
as on patients that trained nothing) and not carried on, so that errors do not pile up in the shown latent.

The construction (disease as the action of a JEPA on ECG pairs) follows Cardiac JEPA (the paper in the project's
references); the label process, the elapsed time and the noise are this project's. Research software: nothing here is a
clinical prediction.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from world_models import checkpoint, gradients, keys, tree
from world_models.cardiac_jepa.config import JEPAConfig, WorldConfig
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.labels import LabelModel
from world_models.cardiac_jepa.probes import Probe, apply, crop_features
from world_models.cardiac_jepa.state import ProgressionBelief
from world_models.config_json import from_json
from world_models.inputs import check_also, checked_factors, checked_orders
from world_models.protocol import Chart, Factors, History
from world_models.quantities.progression import MEASURES, ORDERS, TREATMENTS
from world_models.quantities.treated_columns import joined, parted
from world_models.quantity import DAYS_PER_MONTH, DAYS_PER_YEAR, Quantity

__all__ = ["KIND", "CardiacJEPAWorld", "ExplainPairs", "Reader", "read_measures"]

KIND = "cardiac-jepa"
HOURS_PER_STEP = 4383.0  # nominal: half a year; true time is ordered
HOURS_PER_DAY = 24.0
LIMIT = 50.0  # of a latent's entries in a chart
OLDEST_YEARS = 130.0  # of a chart
GIVEN_FROM = 0.5  # an order that is yes or no is given from a half upwards


class ExplainPairs(NamedTuple):
    """B pairs of visits whose conditions differ."""

    before: Tensor  # float32 [B, Z] latent of the first ECG
    after: Tensor  # float32 [B, Z]
    condition: Tensor  # bool [B, C] at the first
    action: Tensor  # float32 [B, C] in {-1, 0, 1}
    days: Tensor  # float32 [B]


def read_measures(size: int, codes: Sequence[str]) -> tuple[Quantity, ...]:
    """What an encoder with a probe adds to a chart."""
    return (
        Quantity(
            "probe",
            "fraction",
            0.0,
            1.0,
            (len(codes),),
            "chance of each condition, read off the latent: " + " ".join(codes),
        ),
        Quantity("latent", "1", -LIMIT, LIMIT, (size,), "the ECG's latent", on_request=True),
    )


class Reader(nn.Module):
    """The encoder of a JEPA, its projector and a linear probe: from 12 leads at 100 Hz to latent and chances."""

    probe_weight: Tensor  # [C, Z]
    probe_bias: Tensor  # [C]
    probe_mean: Tensor  # [Z]
    probe_scale: Tensor  # [Z]
    threshold: Tensor  # [C] of the probe's chance, from validation patients

    def __init__(self, config: JEPAConfig) -> None:
        super().__init__()
        self.jepa = CardiacJEPA(config)
        size, count = config.latent, len(config.codes)
        self.register_buffer("probe_weight", torch.zeros(count, size))
        self.register_buffer("probe_bias", torch.zeros(count))
        self.register_buffer("probe_mean", torch.zeros(size))
        self.register_buffer("probe_scale", torch.ones(size))
        self.register_buffer("threshold", torch.full((count,), 0.5))

    @property
    def probe(self) -> Probe:
        """The linear probe: one chance a condition."""
        return Probe(self.probe_weight, self.probe_bias, self.probe_mean, self.probe_scale)

    def latents(self, ecg_mv: Tensor, chunk: int = 256) -> Tensor:
        """[B, Z] of ECGs [B, 12, T] mV at 100 Hz: the mean over crops of the training length."""
        parts = [self._latent(x) for x in ecg_mv.split(chunk)]
        return torch.cat(parts).clamp(-LIMIT, LIMIT)

    def _latent(self, ecg: Tensor) -> Tensor:
        return crop_features(self.jepa.latent, ecg.to(torch.float32), self.jepa.config.crop_samples)

    def chances(self, latent: Tensor) -> Tensor:
        """[B, C] chance of each condition at a latent."""
        return torch.sigmoid(apply(self.probe, latent))


class CardiacJEPAWorld(nn.Module):
    """The learned world, as `world_models.protocol` has it; B patients, C conditions, latents of Z entries."""

    orders = ORDERS
    graded_orders = tuple(q.name for q in ORDERS if q.unit != "bool")  # the months: treatments are given or not
    halves = ("bfloat16", "float16")  # see `half.TakesHalf`
    dtype = "float32"
    hours_per_step = HOURS_PER_STEP
    weights_sha256: str | None = None  # the seal of the folder it was loaded from

    residual: Tensor  # [Z, Z] lower Cholesky factor of what the predictor cannot foretell
    reach: Tensor  # scalar: largest norm of a latent met in training
    bank_latent: Tensor  # float16 [N, Z] first visits that new patients are sampled from
    bank_condition: Tensor  # bool [N, C]
    bank_age_years: Tensor  # [N]
    bank_sex_female: Tensor  # [N]
    bank_treated: Tensor  # bool [N, TREATMENTS] procedures done, drugs taken
    bank_ecg: Tensor  # float16 [M, 12, T] mV of the first of them
    pair_before: Tensor  # float16 [P, Z], as in `ExplainPairs`
    pair_after: Tensor  # float16 [P, Z]
    pair_condition: Tensor  # bool [P, C]
    pair_action: Tensor  # int8 [P, C]
    pair_days: Tensor  # [P]

    def __init__(self, config: WorldConfig) -> None:
        super().__init__()
        self.config, self.name = config, config.name
        plain = from_json(JEPAConfig, dict(config.jepa), "jepa")
        self.codes = plain.codes
        self.reader = Reader(plain)
        self.labels = LabelModel(plain.codes, config.label_hidden)
        size, count = plain.latent, len(plain.codes)
        self.measures = (*(q for q in MEASURES if q.name != "ecg_mv"), *read_measures(size, plain.codes))
        self.factors = (
            Quantity("age_years", "a", 18.0, 100.0, (), "age at the first visit"),
            Quantity("sex_female", "bool", 0.0, 1.0, (), "1 if female"),
            Quantity(
                "condition",
                "bool",
                0.0,
                1.0,
                (count,),
                "conditions present at the first visit: " + " ".join(plain.codes),
            ),
            Quantity("latent", "1", -LIMIT, LIMIT, (size,), "latent of the first visit's ECG, as `read` gives it"),
        )
        self.register_buffer("residual", torch.zeros(size, size))
        self.register_buffer("reach", torch.tensor(float("inf")))
        self.register_buffer("bank_latent", torch.zeros(config.bank, size, dtype=torch.float16))
        self.register_buffer("bank_condition", torch.zeros(config.bank, count, dtype=torch.bool))
        self.register_buffer("bank_age_years", torch.full((config.bank,), 60.0))
        self.register_buffer("bank_sex_female", torch.zeros(config.bank))
        self.register_buffer("bank_treated", torch.zeros(config.bank, len(TREATMENTS), dtype=torch.bool))
        ecgs = (config.bank_ecgs, 12, plain.crop_samples)
        self.register_buffer("bank_ecg", torch.zeros(ecgs, dtype=torch.float16))
        self.register_buffer("pair_before", torch.zeros(config.pairs, size, dtype=torch.float16))
        self.register_buffer("pair_after", torch.zeros(config.pairs, size, dtype=torch.float16))
        self.register_buffer("pair_condition", torch.zeros(config.pairs, count, dtype=torch.bool))
        self.register_buffer("pair_action", torch.zeros(config.pairs, count, dtype=torch.int8))
        self.register_buffer("pair_days", torch.zeros(config.pairs))

    @classmethod
    def load(cls, folder: str | Path | checkpoint.Opened, device: torch.device | str = "cpu") -> CardiacJEPAWorld:
        """From a folder with config.json and model.safetensors. One copy of the weights a process and device.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """
        module = checkpoint.load_module(folder, KIND, _build, device)
        assert isinstance(module, CardiacJEPAWorld)  # as `_build` makes it
        return module

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.residual.device

    @property
    def jepa(self) -> CardiacJEPA:
        """Encoder, projector and dynamics."""
        return self.reader.jepa

    # ---- the verbs -----------------------------------------------------------------------------------------------

    @torch.no_grad()
    def initial(self, key: Tensor, factors: Factors | None = None) -> ProgressionBelief:
        """Patients [B] at their first visit: those of the bank, sampled by key.

        Conditions that are fixed move the sampled patient's latent as the JEPA would; a latent that is fixed is kept.

        Raises:
            ValueError: a factor is unknown, misshapen or out of range.
        """
        given = checked_factors(self.factors, factors, len(key), self.device)
        row = (keys.uniform(key, 0, "patient") * self.config.bank).to(torch.int64).clamp_max(self.config.bank - 1)
        sampled = self.bank_condition[row].to(torch.float32)
        condition = given.get("condition", sampled)
        latent = self.bank_latent[row].to(torch.float32)
        if "latent" in given:
            latent = given["latent"]
        elif "condition" in given:
            latent = self._moved(latent, condition - sampled, torch.zeros(len(key), device=self.device))
        treated = self.bank_treated[row].to(torch.float32)
        if "latent" in given:  # a recorded ECG says nothing of what its patient takes
            treated = torch.zeros_like(treated)
        ever, taken = parted(treated)
        none = torch.zeros(len(key), device=self.device)
        return ProgressionBelief(
            key,
            torch.zeros_like(key),
            given.get("age_years", self.bank_age_years[row]),
            given.get("sex_female", self.bank_sex_female[row]),
            none,
            none,
            condition,
            condition,
            ever,
            taken,
            none,
            none,
            latent,
            torch.zeros_like(latent),
        )

    @torch.no_grad()
    def read(self, chart: Chart) -> dict[str, Tensor]:
        """Factors from a recorded chart: `ecg_mv` [B, 12, T] at 100 Hz becomes the latent.

        Where the chart does not say which conditions there are, they are those whose probe lies over its threshold.
        """
        names: tuple[str, ...] = ("age_years", "sex_female", "condition")
        out = {n: chart[n].to(self.device, torch.float32) for n in names if n in chart}
        if "ecg_mv" in chart:
            latent = self.reader.latents(chart["ecg_mv"].to(self.device))
            read = (self.reader.chances(latent) >= self.reader.threshold).to(torch.float32)
            out = {"condition": read, **out, "latent": latent}
        return out

    @gradients.verb
    def transition(self, state: ProgressionBelief, action: Tensor) -> ProgressionBelief:
        """To the next visit, after the months that the last column of `action` [B, ORDERS] orders (0: one month).

        Raises:
            ValueError: an order outside its bounds.
        """
        action = checked_orders(self.orders, action, len(state.key), self.device)
        ordered = (action[:, :-1] >= GIVEN_FROM).to(torch.float32)
        done, taken = parted(ordered)
        months = action[:, -1].clamp_min(1.0)
        age = (state.entry_age_years + state.years).clamp_max(OLDEST_YEARS)
        t, outcomes = state.t + 1, len(self.codes) + 2  # conditions, death, bleed
        uniforms = keys.uniforms(state.key, t, (("labels", outcomes), ("ecg", state.latent.shape[1])))
        normals = keys.to_normal(uniforms[:, outcomes:])
        moves = self.labels(state.condition, age, state.sex_female, state.ever, done, taken, months)
        condition, dead, bleeding = self.labels.sample(moves, state.condition, uniforms[:, :outcomes])
        latent = self._moved(state.latent, condition - state.condition, months * DAYS_PER_MONTH)
        after = state._replace(
            years=state.years + months / 12,
            months_since_visit=months,
            condition=condition,
            believed=condition,
            ever=torch.maximum(state.ever, done),
            taken=taken,
            bleeding=bleeding,
            dead=dead,
            latent=latent,
            shift=normals @ self.residual.T,
        )
        kept = tree.where(state.dead > 0.5, state._replace(bleeding=torch.zeros_like(bleeding)), after)
        return kept._replace(t=t)

    @gradients.verb
    def observe(self, state: ProgressionBelief, also: Sequence[str] = ()) -> Chart:
        """The chart now. Raises ValueError: `also` names something that is no measure of this world."""
        if also:
            check_also(self.measures, also)
        latent = (state.latent + state.shift).clamp(-LIMIT, LIMIT)
        chart = {
            "age_years": (state.entry_age_years + state.years).clamp_max(OLDEST_YEARS),
            "sex_female": state.sex_female,
            "years": state.years.clamp_max(100.0),
            "months_since_visit": state.months_since_visit,
            "condition": state.condition,
            "treated": joined(state.ever, state.taken),
            "bleeding": state.bleeding,
            "dead": state.dead,
            "probe": self.reader.chances(latent),
        }
        return chart | ({"latent": latent} if "latent" in also else {})

    def rekey(self, state: ProgressionBelief, key: Tensor) -> ProgressionBelief:
        """The same patients with other random keys. Conditions that only an ECG told of (`infer`) are sampled anew."""
        u = keys.uniform(key, state.t, "believed", (len(self.codes),))
        return state._replace(key=key, condition=(u < state.believed).to(torch.float32))

    def spread(self, state: ProgressionBelief) -> dict[str, Tensor]:
        """Nothing: the world puts no standard deviation on what it measures."""
        return {}

    @gradients.verb
    def support(self, state: ProgressionBelief) -> Tensor:
        """bool [B]: an adult of up to 100 years whose latent is no longer than training's longest."""
        age = state.entry_age_years + state.years
        near = (state.latent + state.shift).square().sum(-1).sqrt() <= self.reach
        return near & (age >= 18) & (age <= 100)

    @torch.no_grad()
    def infer(self, history: History, key: Tensor, factors: Factors | None = None) -> ProgressionBelief:
        """The state at the last visit of a record: its ECG's latent, what is present, what had been done and was taken.

        The last chart must hold `latent` or `ecg_mv` (12 leads, 100 Hz). Conditions are the chart's; where it does not
        tell them, they are sampled from what the probe reads, anew by every `rekey`.

        Raises:
            ValueError: the last chart shows no ECG.
        """
        last = {n: x[:, -1] for n, x in history.charts.items() if not bool(x[:, -1].isnan().any())}
        told: tuple[str, ...] = ("age_years", "sex_female")
        given = {n: last[n].to(self.device, torch.float32) for n in told if n in last}
        if "latent" in last:
            latent = last["latent"].to(self.device, torch.float32)
        elif "ecg_mv" in last:
            latent = self.reader.latents(last["ecg_mv"].to(self.device))
        else:
            raise ValueError(
                f"the last chart of the history holds {', '.join(sorted(last)) or 'nothing'}: give latent, or ecg_mv "
                "[B, T, 12, samples] in mV at 100 Hz, for nothing else shows the state"
            )
        chance = self.reader.chances(latent)
        known = last["condition"].to(self.device, torch.float32) if "condition" in last else None
        sampled = (keys.uniform(key, 0, "believed", (len(self.codes),)) < chance).to(torch.float32)
        condition = sampled if known is None else known
        state = self.initial(key, {**given, "latent": latent, "condition": condition, **(factors or {})})
        state = state._replace(believed=chance if known is None else known)
        visits = history.hours.shape[1]
        if visits < 2:
            return state
        days = history.hours.to(self.device, torch.float32) / HOURS_PER_DAY
        years = (days[:, -1] - days[:, 0]) / DAYS_PER_YEAR
        done, taken = parted(history.actions[:, :-1, :-1].to(self.device, torch.float32))
        return state._replace(
            t=torch.full_like(key, visits - 1),
            years=years,
            entry_age_years=(state.entry_age_years - years).clamp_min(18.0),
            months_since_visit=((days[:, -1] - days[:, -2]) / DAYS_PER_MONTH).clamp(0.0, 24.0),
            ever=(done >= GIVEN_FROM).any(1).to(torch.float32),
            taken=(taken[:, -1] >= GIVEN_FROM).to(torch.float32),
        )

    # ---- for counterfactuals, explanation and pictures ------------------------------------------------------------

    @torch.no_grad()
    def explain_pairs(self, key: Tensor) -> ExplainPairs:
        """Pairs [B] of visits whose conditions differ, of patients that trained nothing, sampled by key."""
        row = (keys.uniform(key, 0, "pair") * self.config.pairs).to(torch.int64).clamp_max(self.config.pairs - 1)
        return ExplainPairs(
            self.pair_before[row].float(),
            self.pair_after[row].float(),
            self.pair_condition[row],
            self.pair_action[row].float(),
            self.pair_days[row],
        )

    def reference_latents(self) -> Tensor:
        """[R, Z] of the bank's first visits: the background of a map."""
        return self.bank_latent.to(torch.float32)

    def reference_conditions(self) -> Tensor:
        """bool [R, C] of the same."""
        return self.bank_condition

    def _moved(self, latent: Tensor, action: Tensor, days: Tensor) -> Tensor:
        return self.jepa.predict(latent, action, days).clamp(-LIMIT, LIMIT)


def _build(plain: dict[str, Any]) -> CardiacJEPAWorld:
    return CardiacJEPAWorld(from_json(WorldConfig, plain, "the config"))
