"""The frozen risk predictor: from one ECG under a drug to the chance of a drug-induced event in the next day.

It is trained once, on charts and events of the oracle's courses (`data`), then frozen: every world, learned or
mechanistic, and every recorded ECG is judged by the same predictor, as in ECG-WM (Chen et al. 2026, arXiv 2605.17580).

Two risks, each in [0, 1], of what happens at this ECG or within `HORIZON_H` after it if nothing more is given:

- event: torsades de pointes, or QTcF above 500 ms or more than 60 ms above the admission ECG on any of the ECGs of that
  day, one every two hours (the classes of ICH E14 that ask for stopping; k). Torsades alone is too rare to rank doses
  by, and a label acts on the QTc long before it.
- torsades: torsades de pointes alone.

"If nothing more is given" makes the risk a property of what the ECG shows, not of how a clinic would go on dosing: the
risk of an ECG before any dose is then the patient's own, and delta-risk = after - before is what the drug has done.
Doses and hours are no inputs, so an ECG of any drug, from any source, can be judged.

Every measure may be missing (NaN): it is masked. In QTcF the logit is a sum of ramps with non-negative slopes, in QTcF
itself and in its rise over the baseline, whose sizes the other measures choose: for every patient the risk can only
grow with QTcF. J-Tpeak, QT and J-Tpeak c are left out, as QTcF would otherwise be held fixed while they move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from world_models import checkpoint
from world_models.config_json import check_sizes, from_json
from world_models.constants import constant
from world_models.nn.mlp import mlp
from world_models.protocol import Chart
from world_models.quantities.ecg_drug import MEASURES

__all__ = ["HORIZON_H", "KIND", "RISKS", "SHIPPED", "RiskConfig", "RiskPredictor", "rise_ms", "risk_inputs"]

KIND = "ecg-risk"
SHIPPED = "ecg-risk-small"  # folder under world_models/weights
RISKS = ("event", "torsades")
HORIZON_H = 24.0  # h after the ECG: four half-lives of the slowest drug leave little for later
QTCF, BASELINE = "qtcf_ms", "baseline_qtcf_ms"

# What an ECG and a blood sample may show besides QTcF, in the order of the chart's table; what no world measures (yet)
# is no input. `recommend` fills in whichever of them it knows.
_CANDIDATES = frozenset(
    """age_years sex_female baseline_qtcf_ms heart_rate_bpm pr_ms qrs_ms tpeak_tend_ms t_amplitude_uv t_asymmetry
    t_flatness erd_30_ms lrd_30_ms atrial_fibrillation systolic_bp_mmhg potassium_mmol_l magnesium_mmol_l""".split()
)

# Where the ramps bend, in ms: closer where most patients under a drug lie.
QTCF_KNOTS_MS = (380.0, 410.0, 430.0, 450.0, 465.0, 480.0, 490.0, 500.0, 510.0, 530.0, 560.0, 600.0)
RISE_KNOTS_MS = (-20.0, 0.0, 15.0, 30.0, 40.0, 50.0, 60.0, 70.0, 90.0, 130.0)
RAMP_MS = 15.0  # a ramp grows by one over as much
FLAT_SD = 1e-3  # of an input that never varied in training: no division by nothing


def risk_inputs() -> tuple[str, ...]:
    """Names of the measures besides QTcF that a predictor trained now would see, in the order of the chart's table."""
    return tuple(q.name for q in MEASURES if q.name in _CANDIDATES)


@dataclass(frozen=True)
class RiskConfig:
    """Everything a `RiskPredictor` needs besides its weights.

    Raises:
        ValueError: no inputs, or a size far beyond what is ever trained.
    """

    inputs: tuple[str, ...]  # measures besides QTcF, as `risk_inputs` named them when it was trained
    width: int = 64  # hidden width of the network that chooses the ramps
    name: str = SHIPPED

    def __post_init__(self) -> None:
        check_sizes(self, width=65_536)
        if not self.inputs or len(set(self.inputs)) < len(self.inputs) or QTCF in self.inputs:
            raise ValueError(f"inputs={self.inputs} must be one name or more, each once, and not {QTCF}")


def rise_ms(chart: Chart) -> Tensor:
    """QTcF over the admission ECG's [...], NaN where either is missing."""
    return chart[QTCF] - chart[BASELINE]


class RiskPredictor(nn.Module):
    """Risks [..., 2] of charts, see the module's docstring. Differentiable in the chart."""

    weights_sha256: str | None = None
    middle: Tensor  # [I] of each input, over the training charts
    scale: Tensor  # [I] its standard deviation there

    def __init__(self, config: RiskConfig):
        super().__init__()
        self.config = config
        inputs = len(config.inputs)
        self.register_buffer("middle", torch.zeros(inputs))
        self.register_buffer("scale", torch.ones(inputs))
        # per risk: the level with QTcF, the level without it, and a slope a ramp
        self.parts = (1, 1, len(QTCF_KNOTS_MS), len(RISE_KNOTS_MS))
        self.choose = mlp((2 * inputs, config.width, config.width, len(RISKS) * sum(self.parts)))
        last = self.choose[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # a rare event, hardly any slope
            last.weight.mul_(0.1)
            last.bias.copy_(torch.tensor([-3.0, -3.0, *(-1.0,) * sum(self.parts[2:])]).repeat(len(RISKS)))

    @classmethod
    def load(
        cls, folder: str | Path | checkpoint.Opened | None = None, device: torch.device | str = "cpu"
    ) -> RiskPredictor:
        """From a folder with config.json and model.safetensors; None: the one that ships.

        Raises:
            FileNotFoundError, CheckpointError: see `checkpoint.load_module`.
        """
        shipped = Path(__file__).parents[2] / "weights" / SHIPPED
        return checkpoint.load_module(shipped if folder is None else folder, KIND, _build, device)

    def inputs_of(self, chart: Chart) -> tuple[Tensor, Tensor, Tensor]:
        """The inputs [..., I], QTcF and its rise [...] of a chart; NaN for what the chart lacks."""
        like = next((chart[n] for n in (QTCF, *self.config.inputs) if n in chart), None)
        if like is None:
            names = ", ".join((QTCF, *self.config.inputs))
            raise ValueError(f"the chart has none of {names}: there is nothing to judge; give at least {QTCF}")
        nothing = torch.full_like(like, float("nan"), dtype=torch.float32)
        known = {n: chart[n].to(torch.float32) if n in chart else nothing for n in (QTCF, BASELINE)}
        columns = [chart[n].to(torch.float32) if n in chart else nothing for n in self.config.inputs]
        return torch.stack(columns, -1), known[QTCF], rise_ms(known)

    def logits(self, inputs: Tensor, qtcf_ms: Tensor, rise: Tensor) -> Tensor:
        """Logits [..., 2] in the order of RISKS; NaN is a missing measure."""
        seen = ~inputs.isnan()
        unit = torch.where(seen, (inputs - self.middle) / self.scale, 0.0)
        chosen = self.choose(torch.cat([unit, seen.to(unit.dtype)], -1)).unflatten(-1, (len(RISKS), -1))
        level, without, by_qtcf, by_rise = chosen.split(self.parts, -1)
        ramps = _ramps(qtcf_ms, QTCF_KNOTS_MS).unsqueeze(-2) * nn.functional.softplus(by_qtcf)
        rises = _ramps(rise, RISE_KNOTS_MS).unsqueeze(-2) * nn.functional.softplus(by_rise)
        with_qtcf = level.squeeze(-1) + ramps.sum(-1) + rises.sum(-1)
        return torch.where(qtcf_ms.isnan().unsqueeze(-1), without.squeeze(-1), with_qtcf)

    def forward(self, chart: Chart) -> dict[str, Tensor]:
        """Risk [...] of each of RISKS for a chart [...] of which any measure may be missing or NaN.

        Raises:
            ValueError: the chart has none of the measures.
        """
        return dict(zip(RISKS, torch.sigmoid(self.logits(*self.inputs_of(chart))).unbind(-1), strict=True))


def _ramps(value_ms: Tensor, knots: Sequence[float]) -> Tensor:
    """One ramp a knot [..., K]: 0 below it, growing by 1 each RAMP_MS until the next knot, then level; 0 for NaN.

    The last one never levels off, so that beyond the longest QTcF of training the risk still grows.
    """
    bends = constant(tuple(knots), value_ms.device)
    length = torch.cat([bends[1:] - bends[:-1], bends.new_full((1,), float("inf"))])
    above = torch.minimum((value_ms.unsqueeze(-1) - bends).clamp_min(0.0), length)
    return torch.where(value_ms.isnan().unsqueeze(-1), 0.0, above) / RAMP_MS


def _build(plain: dict[str, Any]) -> RiskPredictor:
    """The untrained predictor of a config.json."""
    return RiskPredictor(from_json(RiskConfig, plain, "the config"))
