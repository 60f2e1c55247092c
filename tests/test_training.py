"""The shared loop: a run that is cut and goes on ends where an uncut one does."""

import pytest
import torch
from safetensors.torch import load, save

from world_models import keys
from world_models.tensor_file import CheckpointError
from world_models.training import Schedule, _factor, _momentum, fit


class Cut(Exception):
    pass


def problem(cut_at: int | None = None):
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)

    def loss(step: int):
        if step == cut_at:
            raise Cut
        x = keys.normal(keys.from_seed(step * 64, 64), 0, "x", (3,))
        return (module(x) - x.sum(-1, keepdim=True)).square().mean(), {}

    return module, loss


def test_resumed_equals_uncut(tmp_path):
    schedule = Schedule(60, learning_rate=0.05, warm_up=5, average=0.9, save_every_s=0.0)
    whole, loss = problem()
    fit(whole, loss, schedule, tmp_path / "whole", "line")
    cut, loss = problem(cut_at=31)
    with pytest.raises(Cut):
        fit(cut, loss, schedule, tmp_path / "cut", "line")
    resumed, loss = problem()
    fit(resumed, loss, schedule, tmp_path / "cut", "line")
    torch.testing.assert_close(resumed.weight, whole.weight)
    assert (whole.weight - 1).abs().max() < 0.2
    again, loss = problem(cut_at=0)  # finished: no step is taken
    fit(again, loss, schedule, tmp_path / "cut", "line")
    torch.testing.assert_close(again.weight, whole.weight)


def test_a_loss_that_is_not_finite_stops(tmp_path):
    module = torch.nn.Linear(1, 1)
    with pytest.raises(FloatingPointError, match="step 0"):
        fit(module, lambda step: (module.weight.sum() * float("nan"), {}), Schedule(3), tmp_path, "broken")


def test_another_configuration_is_refused(tmp_path):
    module, loss = problem()
    fit(module, loss, Schedule(2), tmp_path, "line")
    other = torch.nn.Linear(4, 1)
    with pytest.raises(ValueError, match="another configuration"):
        fit(other, lambda step: (other.weight.sum(), {}), Schedule(2), tmp_path, "line")


def test_damaged_progress_is_named(tmp_path):
    module, loss = problem()
    fit(module, loss, Schedule(4), tmp_path, "line")
    path = tmp_path / "line.safetensors"
    good = path.read_bytes()
    tensors = load(good)
    nothing = {**tensors, "exp_avg.0": torch.full_like(tensors["exp_avg.0"], float("nan"))}
    double = {**tensors, "average.1": tensors["average.1"].double()}
    for harmed in (
        b"",
        good[:-3],
        save(nothing, {"step": "4"}),
        save(double, {"step": "4"}),
        save(tensors),
        save(tensors, {"step": "four"}),
        save(tensors, {"step": "-1"}),
    ):
        path.write_bytes(harmed)
        other, loss = problem()
        before = other.weight.clone()
        with pytest.raises(CheckpointError, match="delete it or name another folder"):
            fit(other, loss, Schedule(8), tmp_path, "line")
        assert torch.equal(other.weight, before)


@pytest.mark.parametrize("steps", [10, 37, 400])
def test_one_cycle_is_torchs(steps):
    weight = torch.nn.Parameter(torch.zeros(1))
    reference = torch.optim.AdamW([weight], lr=1.0)
    cycle = torch.optim.lr_scheduler.OneCycleLR(reference, max_lr=3e-3, total_steps=steps)
    schedule = Schedule(steps, learning_rate=3e-3, shape="onecycle")
    for step in range(steps):
        group = reference.param_groups[0]
        assert schedule.learning_rate * _factor(step, schedule) == pytest.approx(group["lr"], rel=1e-6)
        assert _momentum(step, schedule, 0.9) == pytest.approx(group["betas"][0], rel=1e-6)
        reference.step()
        if step + 1 < steps:
            cycle.step()
    with pytest.raises(ValueError, match="cosine, onecycle or constant"):
        Schedule(3, shape="linear")


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
def test_one_cycle_of_a_few_steps(steps):
    schedule = Schedule(steps, shape="onecycle")
    assert all(0 < _factor(step, schedule) <= 1 for step in range(steps))
