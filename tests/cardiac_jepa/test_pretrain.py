"""Batches as functions of the step, training that learns what actions do, resuming, collapse, and two processes."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.distributed import get_world_size

from tests.cardiac_jepa.two_processes import TINY, recordings, run
from world_models.cardiac_jepa.collapse import CollapsedError, CollapseWatch
from world_models.cardiac_jepa.config import with_vicreg
from world_models.cardiac_jepa.pretrain import PairSource, pretrain, start_ddp
from world_models.training import Schedule


def source(patients: int = 40, crop: int = 128, **more) -> PairSource:
    return PairSource(*recordings(patients, **more), crop=crop, seed=3)


def rows(log) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_batch_is_a_function_of_its_step():
    one, two = source(), source()
    two.batch(5, 16)
    for a, b in zip(one.batch(1, 16), two.batch(1, 16), strict=True):
        assert torch.equal(a, b)
    ecg_a, ecg_b, action, days = one.batch(1, 16)
    assert ecg_a.shape == ecg_b.shape == (16, 12, 128) and ecg_a.dtype == torch.float32
    assert set(action.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert days.min() >= 30 and days.max() <= 150
    assert not torch.equal(ecg_a, one.batch(2, 16)[0])


def test_each_pair_once_an_epoch_in_another_order():
    data, first, second = recordings(40)
    marked = data._replace(days=torch.cat([torch.zeros(40), 1.0 + torch.arange(40)]))  # days tell the pair
    drawn = PairSource(marked, first, second, crop=128)
    days = torch.cat([drawn.batch(step, 16)[3] for step in range(5)])  # two epochs; the third batch spans both
    assert sorted(days[:40].tolist()) == sorted(days[40:].tolist()) == list(range(1, 41))
    assert days[:40].tolist() != days[40:].tolist()
    joined = torch.cat([drawn.batch(2, 16, rank, 4)[3] for rank in range(4)])
    assert torch.equal(joined, drawn.batch(2, 16)[3])
    assert len(drawn.batch(0, 100)[3]) == 100  # more than there are pairs


def test_crops_are_pieces_of_the_right_records():
    data, first, second = recordings(4, samples=400)
    ramp = data._replace(ecg=(torch.arange(8)[:, None, None] + torch.arange(400) / 1024).expand(8, 12, 400).half())
    ramp.ecg[2, 3, 7] = float("nan")
    ecg_a, ecg_b, _, _ = PairSource(ramp, first, second, crop=100).batch(0, 400)
    starts = (ecg_a[:, 0, 0].frac() * 1024).round()
    assert starts.min() < 20 and starts.max() > 280 and not torch.equal(starts, (ecg_b[:, 0, 0].frac() * 1024).round())
    assert torch.equal(ecg_b[:, 0, 0].floor(), ecg_a[:, 0, 0].floor() + 4)
    assert bool(torch.isfinite(ecg_a).all())
    slope = ecg_a[:, 0, -1] - ecg_a[:, 0, 0]
    torch.testing.assert_close(slope, torch.full_like(slope, 99 / 1024), atol=0.01, rtol=0)


def test_pairs_that_cannot_be_drawn_are_refused():
    data, first, second = recordings(4)
    for arguments, words in (
        ((data, first[:0], second[:0]), "two equal lists"),
        ((data, first, second + 1), "rows 0 to 8, but there are 8"),
        ((data, first, second, 401), "401 samples"),
        ((data, second, first), "4 pairs go back in time"),
    ):
        with pytest.raises(ValueError, match=words):
            PairSource(*arguments)
    with pytest.raises(ValueError, match="multiple"):
        source().batch(0, 10, 0, 4)


@pytest.mark.slow
def test_training_learns_what_the_action_does(tmp_path):
    model = pretrain(replace(TINY, weight=0.1), source(120), tmp_path, 100, 32, 7e-3)
    first, last = (rows(tmp_path / "metrics.jsonl")[i] for i in (0, -1))
    assert not model.training
    assert last["prediction"] < 0.8 * first["prediction"]
    assert first["zero_action_ratio"] == 1.0 and last["zero_action_ratio"] > 1.05
    assert last["rank"] > 6 and last["std"] > 0.5


def test_a_cut_run_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    class Cutting(PairSource):
        def batch(self, step, *rest):
            if step == 7:
                raise Cut
            return super().batch(step, *rest)

    whole = pretrain(TINY, source(), tmp_path / "whole", 12, 16, 5e-3)
    with monkeypatch.context() as patch:
        patch.setattr("world_models.cardiac_jepa.pretrain.Schedule", partial(Schedule, save_every_s=0.0))
        with pytest.raises(Cut):
            pretrain(TINY, Cutting(*recordings(40), crop=128, seed=3), tmp_path / "cut", 12, 16, 5e-3)
    resumed = pretrain(TINY, source(), tmp_path / "cut", 12, 16, 5e-3)
    for (name, a), b in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
    with pytest.raises(ValueError, match="other rate, config.weight"):
        pretrain(replace(TINY, weight=0.02), source(), tmp_path / "cut", 12, 16, 4e-3)


def test_final_statistics_belong_to_the_averaged_weights(tmp_path):
    """In evaluation a batch of training crops comes out with mean 0 and variance 1, as it did in training."""
    model = pretrain(TINY, source(120), tmp_path, 40, 32, 5e-3)
    with torch.no_grad():
        z = model.latent(torch.cat([source(120).batch(i, 64)[0] for i in range(100, 104)]))
    assert z.mean(0).abs().max() < 0.4 and 0.7 < z.std(0).min() and z.std(0).max() < 1.4


def test_a_run_that_collapses_stops(tmp_path):
    with pytest.raises(CollapsedError, match="rank is .* under 11.9 for 2 checks"):
        pretrain(TINY, source(), tmp_path, 60, 16, 1e-3, watch=CollapseWatch(min_rank=11.9, patience=2, from_step=0))


def test_bad_arguments_leave_no_folder(tmp_path):
    folder = tmp_path / "run"
    for config, batch, words in (
        (replace(TINY, codes=("I10", "I48")), 16, "3 labels, the config 2 codes"),
        (TINY, 1, "2 or more"),
    ):
        with pytest.raises(ValueError, match=words):
            pretrain(config, source(), folder, 10, batch)
    assert not folder.exists()


def test_ddp_needs_torchrun(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="torchrun"):
        start_ddp()


class _Recorder(CollapseWatch):
    def __init__(self, kept: list):
        super().__init__()
        self.kept = kept

    def check(self, step, metrics):
        self.kept += [metrics["prediction"]] if metrics else []


def trained(folder) -> dict[str, torch.Tensor]:
    """Weights and losses of three steps, with either regulariser."""
    found: dict[str, torch.Tensor] = {}
    for config in (replace(TINY, inverse=1.0), with_vicreg(TINY)):
        losses: list[float] = []
        model = pretrain(config, source(), f"{folder}/{config.name}", 3, 16, 1e-3, watch=_Recorder(losses))
        state = {**model.state_dict(), "prediction": torch.tensor(losses)}
        found |= {f"{config.name} {name}": value for name, value in state.items()}
    return found


def trained_by_two(rank: int, folder: str) -> dict[str, torch.Tensor]:
    assert get_world_size() == 2
    return trained(folder)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path):
    alone = trained(tmp_path / "alone")
    ranks = run(trained_by_two, tmp_path, str(tmp_path / "shared"))
    for name, value in alone.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        # Adam's first steps are signs of gradients: one that is rounding noise may take the other side.
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-2, atol=2e-3, msg=lambda m, n=name: f"{n}: {m}")
    logs = [tmp_path / where / "tiny" / "metrics.jsonl" for where in ("alone", "shared")]
    assert len(rows(logs[0])) == len(rows(logs[1])) == 2  # the first process alone writes
