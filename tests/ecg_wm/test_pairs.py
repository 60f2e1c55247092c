"""Pairs of ECGs around one dose: functions of their keys, drawn as charted, kept whole."""

import pytest
import torch

from world_models import keys
from world_models.ecg.beat_axis import QRS_START, T_PEAK
from world_models.ecg.t_wave import KORS
from world_models.ecg_wm import pairs as module
from world_models.ecg_wm.pairs import SPLIT_SEED, cached_pairs, in_sinus_rhythm, load_pairs, sample_pairs, save_pairs
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.tensor_file import CheckpointError


@pytest.fixture(scope="module")
def some():
    return sample_pairs(keys.from_seed(1, 240))


def same(a, b):
    return torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))


def test_a_row_is_a_function_of_its_key(some):
    alone = sample_pairs(some.key[7:8])
    assert same(alone.post_beat[0], some.post_beat[7]) and same(alone.pre_beat[0], some.pre_beat[7])
    assert all(same(alone.post[n][0], some.post[n][7]) for n in some.post)
    assert alone.hours[0] == some.hours[7] and alone.dose_mg[0] == some.dose_mg[7]


def test_the_charts_are_those_of_the_oracle_itself(some):
    row = int((some.hours == 6.0).nonzero()[0])
    oracle = ECGDrugOracle(hours_per_step=6.0)  # the factors are given, so the cohort matters little
    factors = {n: v[row : row + 1] for n, v in some.factors.items()}
    state = oracle.initial(some.key[row : row + 1], factors)
    assert torch.allclose(oracle.observe(state)["qtcf_ms"], some.pre["qtcf_ms"][row], atol=0.01)
    dose = torch.zeros(1, 4)
    if some.drug[row]:
        dose[0, some.drug[row] - 1] = some.dose_mg[row]
    after = oracle.observe(oracle.transition(state, dose))
    assert after["hours"] == some.post["hours"][row] == 6.0
    assert torch.equal(after["total_dose_mg"][0], some.post["total_dose_mg"][row])


def test_everybody_is_in_sinus_rhythm_unless_asked_for(some):
    assert 60 < some.size < 160  # of 240
    assert in_sinus_rhythm(some).all() and not some.post["pr_ms"].isnan().any()
    whole = sample_pairs(keys.from_seed(1, 40), fibrillation=True)
    assert whole.size == 40 and not in_sinus_rhythm(whole).all()


def test_orders_span_drugs_doses_and_hours(some):
    assert set(some.drug.tolist()) == {0, 1, 2, 3, 4}
    assert (some.dose_mg[some.drug == 0] == 0).all() and (some.dose_mg[some.drug > 0] > 0).all()
    assert set(some.hours.tolist()) <= set(module.HOURS) and some.hours.unique().numel() >= 8
    low, high = module.dose_limits()
    which = some.drug[some.drug > 0] - 1
    dose = some.dose_mg[some.drug > 0]
    assert (dose >= low[which] * 0.999).all() and (dose <= high[which]).all()


def test_beats_lie_on_their_charts_marks(some):
    magnitude = torch.einsum("dl,bln->bdn", torch.tensor(KORS), some.post_beat).square().sum(1).sqrt()
    peak = magnitude[:, T_PEAK - 12 : T_PEAK + 12].argmax(-1) - 12
    assert peak.abs().float().median() <= 1  # a sample is some 4 ms here
    assert magnitude[:, QRS_START - 2 : QRS_START].max() < 0.05  # the level is read there
    millivolt = 1000 * magnitude[:, T_PEAK - 12 : T_PEAK + 12].amax(-1)
    assert ((millivolt / some.post["t_amplitude_uv"] - 1).abs().median()) < 0.05


def test_a_drug_reshapes_the_wave_and_nothing_does_not(some):
    change = (some.post_beat - some.pre_beat)[..., T_PEAK].abs().mean(-1)
    strong = (some.drug == 2) & (some.hours > 1) & (some.hours < 9) & (some.dose_mg > 0.3)
    assert change[strong].mean() > 1.5 * change[some.drug == 0].mean()


def test_splits_are_other_patients():
    keys_of = [(s, s + 10**9) for s in SPLIT_SEED.values()]
    spans = sorted(keys_of)
    assert all(a[1] <= b[0] for a, b in zip(spans, spans[1:], strict=False))
    few, more = (module.split_pairs("test", n, progress=False) for n in (3, 6))
    assert torch.equal(few.key, more.key[:3])
    with pytest.raises(ValueError, match="split='dev'; there are: train"):
        module.split_pairs("dev", 3)
    with pytest.raises(ValueError, match="0 pairs were asked for"):
        module.split_pairs("test", 0)
    with pytest.raises(ValueError, match="no keys"):
        sample_pairs(keys.from_seed(0, 0))


def test_files_come_back_and_damage_is_seen(some, tmp_path):
    path = tmp_path / "pairs.safetensors"
    save_pairs(path, some, {"split": "x"})
    back = load_pairs(path, {"split": "x"})
    assert all(same(back.pre[n], some.pre[n]) for n in some.pre) and set(back.factors) == set(some.factors)
    assert (back.post_beat - some.post_beat).abs().max() < 2e-3  # half precision of some mV
    with pytest.raises(CheckpointError, match="was made with"):
        load_pairs(path, {"split": "y"})
    raw = bytearray(path.read_bytes())
    raw[-40] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match="checksum"):
        load_pairs(path)


def test_the_cache_is_made_once(tmp_path, monkeypatch):
    first = cached_pairs("validation", 5, tmp_path)
    monkeypatch.setattr(module, "split_pairs", lambda *a, **k: pytest.fail("made again"))
    assert torch.equal(cached_pairs("validation", 5, tmp_path).key, first.key)
