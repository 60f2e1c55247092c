"""Wave heights of real beats: a bank fitted on LUDB to sample patients from, and the fit of one's own recording.

A morphology is [8, W]: the height in mV of each wave of `waveform.WAVES` in each independent lead. The shipped bank
(`ludb_morphology.safetensors`, made by `morphology_fit.py`) holds those of real sinus beats of LUDB 1.0.1 (ODC-By;
Kalyakulina 2020, doi 10.1109/ACCESS.2020.3029211): heights alone, no signal, age, sex or record number.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from world_models import keys
from world_models.ecg.lead_names import INDEPENDENT_LEADS
from world_models.ecg.waveform import R_SHARE, WAVES, Intervals, sample_times_ms, wave_basis

__all__ = ["BANK_FILE", "MorphologyBank", "default_morphology", "fit_morphology", "fit_quality", "solve"]

BANK_FILE = Path(__file__).with_name("ludb_morphology.safetensors")

_P, _BIPHASIC = WAVES.index("P"), WAVES.index("P_biphasic")
_ST, _BEND, _T = WAVES.index("ST"), WAVES.index("ST_T"), WAVES.index("T")
_RIDGE = 1e-3  # share of the mean diagonal of the normal matrix
_ST_LIMIT = 0.5  # of T's height: more, and the highest point before the T end is no longer the T peak


def _window(intervals: Intervals, sampling_rate_hz: float) -> Tensor:
    """Weights [B, L]: 1 from 40 ms before the P onset to 0.3 Tpeak-Tend after the T end, else 0."""
    grid = sample_times_ms(sampling_rate_hz, intervals.pr_ms.device)
    onset = -R_SHARE * intervals.qrs_ms.unsqueeze(-1)
    start = onset - intervals.pr_ms.unsqueeze(-1) - 40.0
    stop = onset + intervals.qt_ms.unsqueeze(-1) + 0.3 * intervals.tpeak_tend_ms.unsqueeze(-1)
    return ((grid >= start) & (grid <= stop)).to(torch.float64)


def solve(matrix: Tensor, right: Tensor) -> Tensor:
    """x of matrix x = right for symmetric positive definite [B, N, N] and [B, N, M], elementwise over the batch.

    Gauss-Jordan without pivoting: LAPACK's result may depend on how many systems it is given, this one's cannot.
    """
    work = torch.cat((matrix, right), dim=-1)
    size = matrix.shape[-1]
    for i in range(size):
        row = work[:, i : i + 1] / work[:, i : i + 1, i : i + 1]
        factor = work[:, :, i : i + 1].clone()
        factor[:, i] = 0.0
        work = work - factor * row
        work[:, i : i + 1] = row
    return work[:, :, size:]


def _tame(heights: Tensor) -> Tensor:
    """ST and its bend held within what leaves the T peak the turning point it is meant to be."""
    limit = _ST_LIMIT * heights[..., _T].abs()
    heights = heights.clone()
    heights[..., _ST] = torch.minimum(torch.maximum(heights[..., _ST], -limit), limit)
    heights[..., _BEND] = torch.minimum(torch.maximum(heights[..., _BEND], -limit), limit)
    return heights


def fit_morphology(median_beat: Tensor, intervals: Intervals, sampling_rate_hz: float = 500.0) -> Tensor:
    """Wave heights [B, 8, W] of recorded beats: ridge least squares on the generator's own waves.

    Args:
        median_beat: [B, 8, L] mV, the independent leads on `beat_template`'s window (R_SHARE of the QRS before the R
        index
            lies the QRS onset). An offset and a slope per lead are fitted along and dropped.
        intervals: what the beat measures; the fit looks from 40 ms before the P onset to just past the T end.
        sampling_rate_hz: of `median_beat`.

    Raises:
        ValueError: the beat's leads or length are not those of `beat_template`.
    """
    basis = wave_basis(intervals, sampling_rate_hz)
    wanted = (basis.shape[0], len(INDEPENDENT_LEADS), basis.shape[2])
    if median_beat.shape != wanted:
        raise ValueError(
            f"median_beat is {tuple(median_beat.shape)}, must be {wanted}: leads {', '.join(INDEPENDENT_LEADS)} on the "
            f"window of beat_template at {sampling_rate_hz:g} Hz"
        )
    weights = _window(intervals, sampling_rate_hz)
    seconds = sample_times_ms(sampling_rate_hz, basis.device).to(torch.float64) * 1e-3
    drift = torch.stack((torch.ones_like(seconds), seconds)).expand(basis.shape[0], -1, -1)
    columns = torch.cat((basis.to(torch.float64), drift), dim=1)
    weighted = columns * weights.unsqueeze(1)
    beat = torch.nan_to_num(median_beat.to(torch.float64))
    size = columns.shape[1]
    matrix = torch.stack([(weighted[:, i : i + 1] * columns).sum(-1) for i in range(size)], dim=1)
    right = torch.stack([(weighted[:, i : i + 1] * beat).sum(-1) for i in range(size)], dim=1)
    diagonal = torch.diagonal(matrix, dim1=1, dim2=2)[:, : len(WAVES)]
    ridge = torch.zeros(size, dtype=torch.float64, device=basis.device)
    ridge[: len(WAVES)] = _RIDGE
    matrix = matrix + torch.diag(ridge) * diagonal.mean(-1)[:, None, None]
    every = solve(matrix, right)
    # Only V1 has a biphasic P: elsewhere its column is held at zero, so that the P onset is exact.
    held = torch.zeros(size, dtype=torch.float64, device=basis.device)
    held[_BIPHASIC] = 1e9
    plain = solve(matrix + torch.diag(held), right)
    is_v1 = torch.tensor([name == "V1" for name in INDEPENDENT_LEADS], device=basis.device)
    heights = torch.where(is_v1, every, plain)[:, : len(WAVES)].transpose(1, 2)
    heights[..., _BIPHASIC] = heights[..., _BIPHASIC] * is_v1
    return _tame(heights).to(torch.float32).contiguous()


def fit_quality(
    median_beat: Tensor, intervals: Intervals, heights: Tensor, sampling_rate_hz: float = 500.0
) -> tuple[Tensor, Tensor]:
    """Explained share of the variance (R²), pooled over leads: of the whole beat [B] and from J point to T end [B].

    The offset and slope that separate recording and synthesised beat are taken out per lead by least squares first.
    """
    grid = sample_times_ms(sampling_rate_hz, heights.device).to(torch.float64)
    made = (heights.to(torch.float64).unsqueeze(-1) * wave_basis(intervals, sampling_rate_hz).unsqueeze(1)).sum(2)
    left = median_beat.to(torch.float64) - made
    whole = _window(intervals, sampling_rate_hz).unsqueeze(1)
    mean_t = (whole * grid).sum(-1, keepdim=True) / whole.sum(-1, keepdim=True)
    t = (grid - mean_t) * whole
    left = left - (left * t).sum(-1, keepdim=True) / (t * t).sum(-1, keepdim=True) * (grid - mean_t)
    left = left - (left * whole).sum(-1, keepdim=True) / whole.sum(-1, keepdim=True)
    late = whole * (grid > ((1.0 - R_SHARE) * intervals.qrs_ms)[:, None, None])

    def share(mask: Tensor) -> Tensor:
        signal = median_beat - (median_beat * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        return 1.0 - (left * left * mask).sum((1, 2)) / (signal * signal * mask).sum((1, 2))

    return share(whole), share(late)


class MorphologyBank(NamedTuple):
    """Real beats' wave heights, [N, 8, W] in mV."""

    heights_mv: Tensor

    @classmethod
    def load(cls, path: str | Path = BANK_FILE, device: torch.device | str = "cpu") -> MorphologyBank:
        """The shipped bank, or one made by `python -m world_models.ecg.morphology_fit`.

        Raises:
            FileNotFoundError: no such file.
            ValueError: the file was made for other waves than this generator's.
        """
        from safetensors import safe_open

        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no bank at {path}; make one with python -m world_models.ecg.morphology_fit")
        with safe_open(str(path), framework="pt") as file:
            waves = (file.metadata() or {}).get("waves", "")
            heights = file.get_tensor("heights_mv")
        if waves != ",".join(WAVES) or heights.shape[1:] != (len(INDEPENDENT_LEADS), len(WAVES)):
            raise ValueError(
                f"{path} holds waves {waves or 'unnamed'}, this generator makes {','.join(WAVES)}; fit the bank again"
            )
        return cls(heights.to(device))

    def sample(self, key: Tensor, variation: float = 0.1) -> Tensor:
        """A morphology for each key, [B, 8, W]: a real beat, its heights varied log-normally.

        One gain for the whole ECG, and one per lead for each of P, QRS and ST-T (so that shapes within a wave, and
        with them the T peak, stay as fitted); each of standard deviation `variation`.
        """
        leads = len(INDEPENDENT_LEADS)
        u = keys.uniforms(key, 0, ("morphology_pick", "morphology_gain", ("morphology_parts", leads * 3)))
        pick = (u[:, 0] * self.heights_mv.shape[0]).to(torch.int64).clamp_max(self.heights_mv.shape[0] - 1)
        gains = torch.exp(variation * keys.to_normal(u[:, 1:]))
        heights = self.heights_mv[pick] * gains[:, :1, None]
        parts = gains[:, 1:].unflatten(1, (leads, 3))
        for i, group in enumerate((slice(0, _BIPHASIC + 1), slice(_BIPHASIC + 1, _ST), slice(_ST, None))):
            heights[..., group] *= parts[..., i : i + 1]
        return heights


# A plain normal ECG (heights in mV; rows INDEPENDENT_LEADS, columns WAVES): for tests and examples. Varied, real shapes
# come from the bank.
_NORMAL = (
    (0.07, 0.00, -0.03, -0.02, 0.16, 0.62, 0.30, -0.06, -0.06, 0.00, 0.00, 0.01, 0.22),
    (0.13, 0.00, -0.04, -0.02, 0.28, 1.00, 0.52, -0.10, -0.08, 0.00, 0.01, 0.02, 0.30),
    (0.03, 0.05, 0.06, 0.18, 0.15, -0.30, -0.75, -0.55, -0.20, 0.00, 0.01, 0.00, -0.05),
    (0.06, 0.00, 0.08, 0.30, 0.42, -0.25, -1.15, -0.80, -0.30, -0.04, 0.05, 0.05, 0.45),
    (0.06, 0.00, 0.05, 0.28, 0.62, 0.40, -0.75, -0.70, -0.25, -0.04, 0.05, 0.05, 0.50),
    (0.06, 0.00, 0.00, 0.15, 0.60, 1.15, 0.10, -0.45, -0.25, -0.03, 0.03, 0.04, 0.45),
    (0.06, 0.00, -0.05, 0.00, 0.35, 1.20, 0.50, -0.18, -0.12, -0.02, 0.01, 0.03, 0.36),
    (0.06, 0.00, -0.05, -0.02, 0.22, 0.92, 0.42, -0.06, -0.06, 0.00, 0.00, 0.02, 0.26),
)


def default_morphology(count: int, device: torch.device | str = "cpu") -> Tensor:
    """A plain normal ECG's wave heights, [count, 8, W] in mV."""
    return torch.tensor(_NORMAL, dtype=torch.float32, device=device).expand(count, -1, -1).contiguous()
