"""The score S = mu + lambda sigma, and the law of total variance over nested particles."""

from __future__ import annotations

import math

import pytest
import torch

from world_models import catalog, keys
from world_models.oracles.ecg_drug.world import ECGDrugOracle
from world_models.protocol import Parts
from world_models.uncertainty import as_info, decompose, parts_of, risk_score

DOFETILIDE = torch.tensor([[0.0, 0.5, 0.0, 0.0]] + [[0.0] * 4] * 2)


def test_the_score_is_mean_plus_lambda_spread() -> None:
    samples = torch.tensor([[0.1, 0.3], [0.2, 0.2]])
    found = risk_score(samples, 2.0)
    assert found.mu.tolist() == pytest.approx([0.2, 0.2])
    assert found.score.tolist() == pytest.approx([0.2 + 2 * math.sqrt(0.02), 0.2])
    assert torch.equal(risk_score(samples, 0.0).score, found.mu)
    with pytest.raises(ValueError, match="at least 2"):
        risk_score(torch.ones(3, 1))
    for wrong in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="lambda"):
            risk_score(samples, wrong)


def test_parts_of_a_known_law_are_found_again() -> None:
    """Between 3, within 2: the total's variance is 13, and a small inner sample does not bias it."""
    key = keys.from_seed(1, 4000)
    between = 3 * keys.normal(key, 0, "between", (8,))
    within = 2 * keys.normal(key, 0, "within", (8, 3))
    found = parts_of(between.unsqueeze(-1) + within)
    assert float(found.aleatoric.square().mean().sqrt()) == pytest.approx(2, rel=0.02)
    assert float(found.epistemic.square().mean().sqrt()) == pytest.approx(3, rel=0.03)
    assert torch.allclose(found.spread.square(), found.epistemic.square() + found.aleatoric.square())


def test_the_learned_world_is_unsure_of_the_patient_and_the_oracle_is_not() -> None:
    key = keys.from_seed(12_200_000_000, 24)
    learned, oracle = catalog.load("ecg-wm-small"), ECGDrugOracle()
    one = decompose(learned, learned.initial(key), DOFETILIDE, key, ("qtcf_ms", "heart_rate_bpm"), 12, 4)
    two = decompose(oracle, oracle.initial(key), DOFETILIDE, key, ("qtcf_ms",), 12, 4)
    assert one["qtcf_ms"].spread.shape == (24, 3)

    def typical(parts: torch.Tensor) -> float:
        return float(parts[:, 1].square().mean().sqrt())  # 4 h after the dose

    assert typical(one["qtcf_ms"].epistemic) > typical(one["qtcf_ms"].aleatoric) > 2
    assert typical(two["qtcf_ms"].epistemic) < 0.5 * typical(two["qtcf_ms"].aleatoric)
    told = as_info({name: Parts(*(part[:, 1] for part in parts)) for name, parts in one.items()})
    assert sorted(told) == sorted(f"{k}_{n}" for k in ("spread", "epistemic", "aleatoric") for n in one)
    assert told["epistemic_qtcf_ms"].shape == (24,)


def test_it_is_a_function_of_the_key_and_of_each_row_alone() -> None:
    key = keys.from_seed(9, 5)
    oracle = ECGDrugOracle()
    state = oracle.initial(key)
    whole = decompose(oracle, state, DOFETILIDE, key, ("qtcf_ms",), 3, 2)["qtcf_ms"].spread
    from world_models import tree

    alone = decompose(oracle, tree.take(state, slice(2, 3)), DOFETILIDE, key[2:3], ("qtcf_ms",), 3, 2)
    assert torch.allclose(whole[2:3], alone["qtcf_ms"].spread, rtol=1e-6)
    for wrong in (dict(patients=1), dict(chances=1), dict(measures=("no_measure",))):
        with pytest.raises(ValueError):
            decompose(oracle, state, DOFETILIDE, key, **wrong)
    with pytest.raises(ValueError, match="actions have shape"):
        decompose(oracle, state, DOFETILIDE[0], key)
