"""Split conformal bands: they cover what they promise whatever the model, in every group, and survive a file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from world_models import keys
from world_models.checkpoint import CheckpointError
from world_models.ecg_wm.conformal import Conformal, covered, fit
from world_models.tensor_file import save_tensors

N = 4000


def observations(seed: int, skew: float = 0.0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """low, high, observed, group: a model that is far too sure, and worse in the second group."""
    key = keys.from_seed(seed, N)
    sd = torch.exp(keys.normal(key, 0, "sd"))
    group = (keys.uniform(key, 0, "group") < 0.3).long()
    y = sd * keys.normal(key, 0, "y") * (1 + group) + skew
    return -0.5 * sd, 0.5 * sd, y, group


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("level", [0.8, 0.9])
def test_new_patients_are_covered_as_promised(scaled: bool, level: float) -> None:
    low, high, y, group = observations(1)
    made = fit({"a": low}, {"a": high}, {"a": y}, level, group, ("one", "two"), scaled)
    low, high, y, group = observations(2)
    inside = covered(*made.band("a", low, high, group), y).float()
    for g in (0, 1):
        assert float(inside[group == g].mean()) == pytest.approx(level, abs=0.02)
    every = covered(*made.band("a", low, high), y).float()
    assert float(every.mean()) == pytest.approx(level, abs=0.02)
    assert float(every[group == 1].mean()) < level - 0.05, "one correction for all leaves the second group short"


def test_a_model_that_is_too_unsure_is_narrowed_never_turned_round() -> None:
    y = keys.normal(keys.from_seed(3, N), 0, "y")
    wide = torch.full((N,), 10.0)
    made = fit({"a": -wide}, {"a": wide}, {"a": y})
    low, high = made.band("a", -wide, wide)
    assert float((high - low).mean()) == pytest.approx(2 * 1.645, abs=0.15)
    low, high = made.band("a", torch.zeros(3), torch.zeros(3))
    assert bool((low <= high).all())


def test_the_quantile_is_the_finite_sample_one() -> None:
    """Of 9 scores 1..9, 90 % of ten is the ninth: the largest, and with 8 there is none."""
    y = torch.arange(1.0, 10.0)
    nothing = torch.zeros(9)
    assert fit({"a": nothing}, {"a": nothing}, {"a": y}, 0.9, scaled=False).shift["a"].tolist() == [9.0]
    with pytest.raises(ValueError, match="at least 9"):
        fit({"a": nothing[:8]}, {"a": nothing[:8]}, {"a": y[:8]}, 0.9)
    gap = y.clone()
    gap[0] = float("nan")
    with pytest.raises(ValueError, match="8 observations"):
        fit({"a": nothing}, {"a": nothing}, {"a": gap}, 0.9)


def test_a_group_too_small_takes_the_correction_of_all() -> None:
    low, high, y, _ = observations(4)
    group = torch.zeros(N, dtype=torch.int64)
    group[:3] = 1
    made = fit({"a": low}, {"a": high}, {"a": y}, 0.9, group, ("many", "few"))
    many, few, every = made.shift["a"].tolist()
    assert few == every and many == pytest.approx(every, abs=0.01)


def test_saved_and_loaded_it_gives_the_same_bands(tmp_path: Path) -> None:
    low, high, y, group = observations(5)
    made = fit({"a": low, "b": low}, {"a": high, "b": high}, {"a": y, "b": y + 1}, 0.9, group, ("ä/x", "y"))
    made.save(tmp_path / "c.safetensors")
    again = Conformal.load(tmp_path / "c.safetensors")
    assert again.groups == made.groups and again.level == 0.9 and again.scaled
    for n in ("a", "b"):
        for one, other in zip(made.band(n, low, high, group), again.band(n, low, high, group), strict=True):
            assert torch.equal(one, other)
    for told in ({}, {"format": "conformal-1", "level": "2.0", "scaled": "True", "groups": "[]"}):
        save_tensors(tmp_path / "bad.safetensors", {"a": torch.zeros(1)}, told)
        with pytest.raises(CheckpointError, match="no conformal calibration"):
            Conformal.load(tmp_path / "bad.safetensors")


def test_what_does_not_go_together_is_refused() -> None:
    low, high, y, group = observations(6)
    with pytest.raises(ValueError, match="level=1.5"):
        fit({"a": low}, {"a": high}, {"a": y}, 1.5)
    with pytest.raises(ValueError, match="same measures"):
        fit({"a": low}, {"b": high}, {"a": y})
    with pytest.raises(ValueError, match="give both"):
        fit({"a": low}, {"a": high}, {"a": y}, group=group)
    with pytest.raises(ValueError, match="sort the quantiles"):
        fit({"a": high}, {"a": low}, {"a": y})
    made = fit({"a": low}, {"a": high}, {"a": y})
    with pytest.raises(ValueError, match="was not calibrated; there are: a"):
        made.band("b", low, high)
    with pytest.raises(ValueError, match="outside -1 to -1"):
        made.band("a", low, high, group)
