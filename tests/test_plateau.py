"""Training to a plateau: the best rate and check are kept, a cut run goes on, and what was asked is what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from world_models.plateau import Patience, to_plateau

TARGET = torch.tensor([1.0, -2.0, 0.5])


class Line:
    """Learns three numbers; its score is how near it is, or a given list in turn."""

    def __init__(self, scores: list[float] | None = None, stop_at: int | None = None) -> None:
        self.module: nn.Module = nn.Linear(3, 1, bias=False)
        nn.init.zeros_(self.module.weight)
        self.scores, self.stop_at = scores, stop_at
        self.losses = 0

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        if step == self.stop_at:
            raise KeyboardInterrupt
        self.losses += 1
        wrong = (self.module.weight[0] - TARGET).square().sum()
        return wrong, {}

    def judge(self) -> float:
        if self.scores is not None:
            return self.scores.pop(0)
        return -float((self.module.weight[0] - TARGET).detach().norm())


QUICK = Patience(check=10, checks=3, least_steps=0, most_steps=400, warm_up=1, average=0.5, weight_decay=0.0)


def test_it_goes_on_until_nothing_is_gained_and_takes_the_better_rate(tmp_path: Path) -> None:
    best, found = to_plateau(Line, (1e-4, 5e-2), tmp_path, QUICK)
    assert found.rate == 5e-2 and found.score > -0.1 and 20 < found.step <= 400
    assert torch.allclose(best.module.weight[0], TARGET, atol=0.1) and not best.module.training
    rows = [json.loads(line) for line in (tmp_path / "rate-0.05" / "checks.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == list(range(0, 10 * len(rows), 10))
    assert [r["cpu_s"] for r in rows] == sorted(r["cpu_s"] for r in rows) and rows[-1]["cpu_s"] <= found.cpu_s


def test_the_best_check_is_kept_and_patience_ends_the_run(tmp_path: Path) -> None:
    scores = [0.1, 0.5, 0.4, 0.4, 0.4, 0.9]
    _, found = to_plateau(lambda: Line(list(scores)), (1e-2,), tmp_path, QUICK)
    assert (found.score, found.step, found.steps, found.capped) == (0.5, 10, 40, False)
    start, at = to_plateau(lambda: Line([0.7, 0.1, 0.1, 0.1]), (1e-2,), tmp_path / "start", QUICK)
    assert (
        at.step == 0 and float(start.module.weight.detach().abs().sum()) == 0
    )  # who was better before is returned as he was


def test_no_run_stops_before_its_least_steps_and_each_at_its_most(tmp_path: Path) -> None:
    falling = [1.0 - 0.1 * i for i in range(20)]
    patience = Patience(check=10, checks=1, least_steps=80, most_steps=100, warm_up=1)
    _, found = to_plateau(lambda: Line(list(falling)), (1e-2,), tmp_path / "least", patience)
    assert found.steps == 80 and not found.capped
    rising = [0.01 * i for i in range(20)]
    _, found = to_plateau(lambda: Line(list(rising)), (1e-2,), tmp_path / "most", patience)
    assert found.steps == found.step == 100 and found.capped


def test_a_check_after_the_seconds_does_not_count(tmp_path: Path) -> None:
    patience = Patience(check=10, seconds=1e-9, warm_up=1)
    _, found = to_plateau(lambda: Line([0.1, 0.9]), (1e-2,), tmp_path, patience)
    assert found.score == 0.1 and found.steps == 10 and found.capped


def test_a_cut_run_ends_as_one_that_was_not_and_a_finished_one_is_not_trained_again(tmp_path: Path) -> None:
    whole, found = to_plateau(Line, (5e-2,), tmp_path / "whole", QUICK)
    with pytest.raises(KeyboardInterrupt):
        to_plateau(lambda: Line(stop_at=34), (5e-2,), tmp_path / "cut", QUICK)
    again, resumed = to_plateau(Line, (5e-2,), tmp_path / "cut", QUICK)
    assert resumed[:4] == found[:4] and torch.equal(whole.module.weight, again.module.weight)
    idle, _ = to_plateau(Line, (5e-2,), tmp_path / "cut", QUICK)
    assert idle.losses == 0


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    to_plateau(lambda: Line([0.1] * 9), (1e-2,), tmp_path, QUICK)
    with pytest.raises(ValueError, match="other average, check, checks"):
        to_plateau(Line, (1e-2,), tmp_path, Patience(check=5, checks=2, least_steps=0, most_steps=400, warm_up=1))
    for rates in ((), (0.0, 1e-3)):
        with pytest.raises(ValueError, match="rates"):
            to_plateau(Line, rates, tmp_path / "none", QUICK)
    with pytest.raises(ValueError, match="NaN"):
        to_plateau(lambda: Line([float("nan")]), (1e-2,), tmp_path / "nan", QUICK)
    with pytest.raises(ValueError, match="seconds"):
        Patience(seconds=0)


def test_a_rate_that_diverges_ends_there_and_the_others_go_on(tmp_path: Path) -> None:
    class Steep(Line):
        def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
            value, told = super().loss(step)
            return (value * float("nan") if float(self.module.weight.detach().abs().max()) > 5 else value), told

    _, found = to_plateau(Steep, (5e-2, 50.0), tmp_path, QUICK)
    assert found.rate == 5e-2 and found.score > -0.1
