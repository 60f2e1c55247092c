"""12-lead ECGs that show a patient's conditions on a stable anatomy of his own.

The key gives the anatomy (`anatomy.py`) and the form each condition takes (`shown.py`); key and
visit number give what the day adds. Conditions edit wave heights and intervals (`signs.py`) and choose the
rhythm (`rhythm.py`); beats are laid down (`beats.py`), then come f waves, noise and baseline
wander. Eight leads are synthesised, four derived, so Einthoven's law holds for everything, noise included.

A row's bits are the same in every batch: elementwise operations and gathers, nothing summed over the batch.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world_models import keys, tree
from world_models.ecg.derived_leads import derive_twelve
from world_models.ecg.waveform import Intervals
from world_models.oracles.progression.ecg.anatomy import at_visit, sample_anatomy
from world_models.oracles.progression.ecg.beats import (
    SAMPLING_RATE_HZ,
    atrial_template,
    lay_down,
    pacing_spike,
    ventricular_template,
)
from world_models.oracles.progression.ecg.rhythm import BeatTimes, Rhythm, atrial_waves, beats_of, is_paced, rhythm_of
from world_models.oracles.progression.ecg.shown import Shown, shown_on_ecg
from world_models.oracles.progression.ecg.signs import Signs, apply_signs, ectopic_heights
from world_models.quantities.progression import CODES, SAMPLES, TREATMENTS

__all__ = ["synthesise_progression_ecg"]

_CHUNK = {"cpu": 128}  # ECGs laid down at once: fewer, and the cost of starting each operation shows
_CHUNK_ELSEWHERE = 4096
_SPIKE_MV = (0.25, -0.5, -0.3, -0.45, -0.5, -0.45, -0.35, -0.25)


def _checked(
    key: Tensor, t: Tensor, condition: Tensor, age_years: Tensor, sex_female: Tensor, treated: Tensor, samples: int
) -> None:
    batch = key.shape[0] if key.ndim == 1 else -1
    for name, value, shape in (
        ("key", key, (batch,)),
        ("t", t, (batch,)),
        ("condition", condition, (batch, len(CODES))),
        ("age_years", age_years, (batch,)),
        ("sex_female", sex_female, (batch,)),
        ("treated", treated, (batch, len(TREATMENTS))),
    ):
        if tuple(value.shape) != shape:
            raise ValueError(
                f"{name} is {tuple(value.shape)}, must be {shape}: one row a patient, "
                f"{len(CODES)} conditions, {len(TREATMENTS)} treatments"
            )
    if not 10 <= samples <= 360_000:
        raise ValueError(
            f"samples={samples} must be 10 to 360000 (100 a second); synthesise longer recordings in parts"
        )


def _intervals(signs: Signs, rr_s: Tensor, qrs_ms: Tensor) -> Intervals:
    """Intervals at this rate. QTc is for a QRS of 92 ms: what conduction adds to the QRS it adds to QT, not to JT."""
    root = torch.exp(torch.log(rr_s.clamp(0.25, 2.0)) / 3.0)
    tail = (signs.tpeak_tend_ms * (0.35 + 0.65 * root)).clamp(45.0, 150.0)
    to_peak = (signs.qtc_ms * root - 92.0 - tail).clamp(85.0, 420.0)
    return Intervals.of(60.0 / rr_s, signs.pr_ms, qrs_ms, to_peak, tail)


def _noise(key: Tensor, t: Tensor, samples: int) -> Tensor:
    """What electrodes and muscles add, in mV [B, 8, samples]: sample noise of 6 to 20 uV, wander of 10 to 60 uV."""
    u = keys.uniforms(key, t, ("noise/size", "noise/wander", ("noise/rate", 2), ("noise/phase", 2)))
    # Four 16-bit uniforms a word (shifted up by the bit that `bits` clears). Neighbours are added: nearer to a bell,
    # and smoothed as by the recorder's low-pass; the sum of two has a standard deviation of 65536 / sqrt(6).
    words = keys.bits(key, t, "noise/samples", (2 * samples + 2,)) << 1
    flat = words.view(torch.int16)[:, : 8 * samples + 1].to(torch.float32)
    out = (flat[:, 1:] + flat[:, :-1]).reshape(-1, 8, samples)
    out *= ((0.006 + 0.014 * u[:, 0] * u[:, 0]) * (math.sqrt(6.0) / 65536.0)).reshape(-1, 1, 1)
    seconds = torch.arange(samples, dtype=torch.float32, device=key.device) / SAMPLING_RATE_HZ
    gains = keys.normal(key, t, "noise/gains", (8, 3)) * (0.010 + 0.035 * u[:, 1] * u[:, 1]).reshape(-1, 1, 1)
    breath = (2.0 * math.pi) * ((0.18 + 0.16 * u[:, 2:3]) * seconds + u[:, 4:5])
    slow = (2.0 * math.pi) * ((0.05 + 0.07 * u[:, 3:4]) * seconds + u[:, 5:6])
    for i, wave in enumerate((torch.sin(breath), torch.cos(breath), torch.sin(slow))):
        out += gains[:, :, i : i + 1] * wave.unsqueeze(1)
    return out


def _focus(signs: Signs, shown: Shown, rhythm: Rhythm, kind: Tensor) -> Tensor:
    """Templates of the ventricular focus [B, 8, L], made only for those who have such a beat."""
    rows = tree.rows_of((kind > 0).any(1))
    few, theirs, rr = _rows(signs, rows), _shown_rows(shown, rows), rhythm.rr_s[rows]
    wide_ms = few.qrs_ms.clamp_min(118.0) + 26.0
    templates = ventricular_template(_intervals(few, rr, wide_ms), ectopic_heights(few, theirs))
    out = templates.new_zeros(kind.shape[0], *templates.shape[1:])
    out[rows] = templates
    return out


def _rows(signs: Signs, rows: slice | Tensor) -> Signs:
    return Signs(*(value[rows] for value in vars(signs).values()))


def _shown_rows(shown: Shown, rows: slice | Tensor) -> Shown:
    return Shown(shown.weight[rows], shown.present[rows], {name: value[rows] for name, value in shown.forms.items()})


def _eight_leads(
    key: Tensor, t: Tensor, shown: Shown, signs: Signs, rhythm: Rhythm, beats: BeatTimes, paced: Tensor, samples: int
) -> Tensor:
    """The eight leads of one chunk, [B, 8, samples]."""
    own = ventricular_template(_intervals(signs, rhythm.rr_s, signs.qrs_ms), signs.heights)
    pacing_spike(own, signs.qrs_ms, torch.tensor(_SPIKE_MV, device=key.device) * paced.unsqueeze(-1))
    eight = lay_down(
        samples,
        torch.cat((own, _focus(signs, shown, rhythm, beats.kind)), dim=2),
        beats.r_ticks,
        beats.kind,
        beats.gain,
        atrial_template(signs.p_ms, signs.heights),
        beats.p_ticks,
        beats.p_gain,
    )
    waves_seen = rhythm.fibrillating | rhythm.fluttering
    waving = tree.rows_of(waves_seen)
    if len(waving):
        waves = atrial_waves(key[waving], t[waving], rhythm.fluttering[waving], rhythm.day[waving, 3], samples)
        eight[waving] += torch.where(waves_seen[waving].reshape(-1, 1, 1), waves, 0.0)
    return eight.add_(_noise(key, t, samples))


def synthesise_progression_ecg(
    key: Tensor,
    t: Tensor,
    condition: Tensor,
    age_years: Tensor,
    sex_female: Tensor,
    treated: Tensor,
    samples: int = SAMPLES,
    shown: Shown | None = None,
) -> Tensor:
    """ECGs of patients at visits, float32 [B, 12, samples] in mV at 100 Hz, standard lead order.

    Args:
        key: int64 [B], the patients: anatomy and the forms their conditions take.
        t: int64 [B], number of the visit: what varies from day to day, with the key.
        condition: bool [B, C], conditions present (`progression.CODES`).
        age_years: [B].
        sex_female: [B], 1 if female.
        treated: bool [B, TREATMENTS] (`progression.TREATMENTS`): drugs taken, procedures ever done. A pacemaker or a
            defibrillator paces where block of high degree or a sick sinus is among the conditions, resynchronisation
            always.
        samples: length; 100 a second.
        shown: what the ECGs show, of [B] patients; default: `shown_on_ecg(key, t, condition)`, by the person's own
        chance.

    Raises:
        ValueError: a shape does not fit, or `samples` is not within 10 to 360000.
    """
    _checked(key, t, condition, age_years, sex_female, treated, samples)
    age_years, sex_female = age_years.to(torch.float32), sex_female.to(torch.float32)
    drugs = {name: treated[:, i].to(torch.float32) for i, name in enumerate(TREATMENTS)}
    out = torch.empty(key.shape[0], 12, samples, dtype=torch.float32, device=key.device)
    if not len(key):
        return out
    shown = shown_on_ecg(key, t, condition.to(torch.bool)) if shown is None else shown
    paced = is_paced(shown, drugs)
    signs = apply_signs(at_visit(key, t, sample_anatomy(key, age_years, sex_female)), shown, drugs, paced)
    rhythm = rhythm_of(key, t, shown, drugs, paced, signs.rate_bpm)
    beats = beats_of(key, t, shown, rhythm, paced, signs.pr_ms, signs.qrs_ms, age_years, samples)
    chunk = _CHUNK.get(key.device.type, _CHUNK_ELSEWHERE)
    for start in range(0, len(key), chunk):
        rows = slice(start, min(start + chunk, len(key)))
        part = _shown_rows(shown, rows), _rows(signs, rows), Rhythm(*(x[rows] for x in rhythm))
        eight = _eight_leads(key[rows], t[rows], *part, BeatTimes(*(x[rows] for x in beats)), paced[rows], samples)
        derive_twelve(eight, out=out[rows])
    return out
