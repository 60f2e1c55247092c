"""The waveform rivals: they train, go on where they were stopped, sample, and learn what is easy to learn."""

import json
import time

import pytest
import torch

from benchmarks.common.spent import spent
from benchmarks.ecg_drug.rivals import training
from benchmarks.ecg_drug.rivals.denoising import ddim, levels
from benchmarks.ecg_drug.rivals.frame import FEATURES, Scales, features, given
from benchmarks.ecg_drug.rivals.knowledge import knowledge_table
from benchmarks.ecg_drug.rivals.network import table_of
from benchmarks.ecg_drug.rivals.training import still_falling, to_plateau, train, train_steps, tuned
from benchmarks.ecg_drug.rivals.waveform import WAVEFORM_RIVALS
from tests.rivals.easy_pairs import drawn
from tests.rivals.learning import DIFFUSION, learns_an_easy_effect
from world_models import keys

pytestmark = pytest.mark.slow  # networks are trained

NAMES = sorted(WAVEFORM_RIVALS)


@pytest.fixture(autouse=True)
def few_validated(monkeypatch):
    monkeypatch.setattr(training, "VALIDATION_MOST", 24)


@pytest.fixture
def clock(monkeypatch):
    """Processor time by what is done, 20 ms a step and 30 ms a score: the same budgets on every machine."""
    now = [0.0]
    score, loss = training.energy_score, training._Run.loss

    def timed(function, seconds):
        def called(*args):
            now[0] += seconds
            return function(*args)

        return called

    monkeypatch.setattr(training, "energy_score", timed(score, 0.03))
    monkeypatch.setattr(training._Run, "loss", timed(loss, 0.02))
    monkeypatch.setattr(time, "process_time", lambda: now[0])


@pytest.mark.parametrize("name", NAMES)
def test_trains_samples_and_goes_on_to_the_same_bits(name, tmp_path):
    pairs, other = drawn("train", 96), drawn("validation", 32)
    build = WAVEFORM_RIVALS[name]
    straight = train_steps(build, pairs, other, tmp_path / "straight", 8, 1e-3, segment=4)
    train_steps(build, pairs, other, tmp_path / "stopped", 4, 1e-3, segment=4)
    resumed = train_steps(build, pairs, other, tmp_path / "stopped", 8, 1e-3, segment=4)
    assert [r["score"] for r in straight.curve] == [r["score"] for r in resumed.curve]
    for a, b in zip(straight.rival.net.parameters(), resumed.rival.net.parameters(), strict=True):
        assert torch.equal(a, b)
    found = straight.rival.sample(given(other), key=other.key, samples=3)
    assert found.beat.shape == (3, 32, 8, 200) and found.chart["qtcf_ms"].shape == (3, 32)
    assert torch.isfinite(found.beat).all() and all(torch.isfinite(v).all() for v in found.chart.values())
    qt = found.chart["qrs_ms"] + found.chart["jt_peak_ms"] + found.chart["tpeak_tend_ms"]
    assert torch.allclose(qt, found.chart["qt_ms"], atol=0.01)
    alone = straight.rival.sample(given(other.take(slice(5, 6))), key=other.key[5:6], samples=3)
    # StyleGAN's critic alone looks across a batch; no generator does
    assert torch.allclose(alone.beat[:, 0], found.beat[:, 5], atol=1e-4)
    assert not torch.equal(found.beat[0], found.beat[1])  # samples differ
    assert (tmp_path / "straight" / "metrics.jsonl").read_text().count("\n") >= 2


@pytest.mark.parametrize("name", DIFFUSION)  # the others: tests/rivals/test_gans_learn.py
def test_learns_an_easy_effect(name, tmp_path, monkeypatch):
    learns_an_easy_effect(name, tmp_path, monkeypatch)


def test_a_budget_is_kept_and_goes_on(tmp_path, monkeypatch, clock):
    pairs, other = drawn("train", 96), drawn("validation", 32)
    build, budget = WAVEFORM_RIVALS["cecg-gan"], 0.6
    trained = train(build, pairs, other, tmp_path / "run", budget, 1e-3)
    assert 0.9 * budget < trained.cpu_s <= budget
    again = train(build, pairs, other, tmp_path / "run", budget, 1e-3)
    assert again.cpu_s == trained.cpu_s and len(again.curve) == len(trained.curve)
    assert sum(spent(p) for p in (tmp_path / "run" / "spent").iterdir()) == pytest.approx(trained.cpu_s)
    with pytest.raises(ValueError, match="begun with a budget of 0.6 s, not 4.0"):
        train(build, pairs, other, tmp_path / "run", 4.0, 1e-3)
    with pytest.raises(ValueError, match="begun with rate 0.001, not 0.01"):
        train(build, pairs, other, tmp_path / "run", budget, 1e-2)
    monkeypatch.setattr(training, "_PATIENCE", 10**6)
    more = to_plateau(build, pairs, other, tmp_path / "more", tmp_path / "run", 1e-3, 1.5 * budget)
    assert more.cpu_s > trained.cpu_s and len(more.curve) > len(trained.curve)
    assert len(json.loads((tmp_path / "run" / "curve.json").read_text())) == len(trained.curve)  # left as it was
    with pytest.raises(ValueError, match="holds no trained network"):
        to_plateau(build, pairs, other, tmp_path / "other", tmp_path / "nothing", 1e-3, 1.0)


def test_a_killed_segment_is_made_again(tmp_path, monkeypatch):
    pairs, other = drawn("train", 96), drawn("validation", 32)
    build = WAVEFORM_RIVALS["cecg-gan"]
    straight = train_steps(build, pairs, other, tmp_path / "straight", 6, 1e-3, segment=3)

    def killed(*_):
        raise KeyboardInterrupt

    train_steps(build, pairs, other, tmp_path / "killed", 3, 1e-3, segment=3)
    with monkeypatch.context() as m:
        m.setattr(training, "energy_score", killed)
        with pytest.raises(KeyboardInterrupt):
            train_steps(build, pairs, other, tmp_path / "killed", 6, 1e-3, segment=3)
    resumed = train_steps(build, pairs, other, tmp_path / "killed", 6, 1e-3, segment=3)
    assert [r["score"] for r in resumed.curve] == [r["score"] for r in straight.curve]


def test_rates_are_chosen_on_validation_patients(tmp_path, monkeypatch, clock):
    pairs, other = drawn("train", 96), drawn("validation", 32)
    monkeypatch.setattr(training, "TUNING_SHARE", 0.3)
    found = tuned(WAVEFORM_RIVALS["ode-gan"], pairs, other, tmp_path, 1.4, rates=(1e-6, 2e-3))
    assert found.rate == 2e-3 and found.tuning_cpu_s == pytest.approx(2 * 0.42, abs=0.06)


def test_whether_a_curve_still_falls():
    def curve(*scores):
        return [{"score": s} for s in scores]

    assert still_falling(curve(5, 4, 3, 2)) and not still_falling(curve(5, 2, 2, 3, 2.5, 2.1, 2, 2))
    assert not still_falling([])


def test_units_come_back():
    pairs = drawn("train", 96)
    scales = Scales.of(pairs)
    beat, measures = scales.change(pairs)
    assert torch.allclose(pairs.pre_beat + beat * scales.beat_sd, pairs.post_beat, atol=1e-5)
    assert measures.mean(0).abs().max() < 1e-4 and (measures.std(0) - 1).abs().max() < 1e-3
    told = features(given(pairs), scales)
    assert told.shape == (96, FEATURES) and told.abs().max() < 12 and not told.isnan().any()
    with pytest.raises(ValueError, match="at least two"):
        Scales.of(pairs.take(slice(1)))


def test_energy_score_is_least_for_the_truth():
    table = table_of(drawn("train", 96), Scales.of(drawn("train", 96)))

    class Says(torch.nn.Module):
        def __init__(self, off):
            super().__init__()
            self.off = off

        def generate(self, pre, told, drug, key):
            return table.beat[: len(pre)] + self.off, table.measures[: len(pre)] + self.off

    scores = [training.energy_score(Says(off), table) for off in (0.0, 0.3, 1.0)]
    assert scores[0] == pytest.approx(0, abs=1e-5) and scores[0] < scores[1] < scores[2]
    assert scores[2] == pytest.approx(2.0, rel=1e-3)  # one unit off in either part


def test_ddim_samples_a_gaussian():
    """The exact predictor for N(2, 0.5^2) makes that distribution."""

    def predict(x, time):
        signal, spread = levels(time.unsqueeze(-1))
        variance = (0.5 * signal).square() + spread.square()
        noise = (x - 2.0 * signal) * spread / variance
        return signal * noise - spread * (x - spread * noise) / signal

    drawn_of_it = ddim(predict, keys.from_seed(3, 4000), 2)
    assert (drawn_of_it.mean(0) - 2.0).abs().max() < 0.05 and (drawn_of_it.std(0) - 0.5).abs().max() < 0.06


def test_what_is_known_of_drugs():
    classes, channels, facts = knowledge_table()
    assert classes[0].sum() == channels[0].sum() == facts[0].sum() == 0
    ranolazine, dofetilide, verapamil, quinidine = channels[1:]
    assert classes[1:].sum(-1).tolist() == [1, 1, 1, 1]
    assert quinidine[0] > 0.5 and verapamil[2] > verapamil[3] and ranolazine[1] > ranolazine[2]
    assert dofetilide[0] > dofetilide[1:].max()
