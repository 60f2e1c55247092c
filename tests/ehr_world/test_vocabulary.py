"""Vocabulary: bins from training values, JSON both ways, and an error when it is not the world's."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from tests.ehr_world.ward_small import some_stays, tiny, words
from world_models import checkpoint
from world_models.ehr_world.set_outcome.world import KIND, EHRWorldModel
from world_models.ehr_world.vocabulary import Spec, Vocabulary, build, from_z, to_z
from world_models.quantities.ward import INQUIRIES, INTERVENTIONS, ORGANISMS


def test_it_survives_json() -> None:
    assert Vocabulary.from_json(json.loads(json.dumps(words().to_json()))) == words()


def test_edges_ascend_hold_the_values_and_lie_between_reported_ones() -> None:
    stays = some_stays()
    scale = words().scale_table()
    for i, item in enumerate(words().items):
        assert all(a < b for a, b in zip(item.edges, item.edges[1:], strict=False)), item.name
        values = stays.value[..., i][stays.asked[..., i]]
        z = to_z(values[~values.isnan()], scale[i])
        if not len(z):
            assert item.labels, f"{item.name} was never measured"
            continue
        assert float(z.min()) >= item.edges[0] - 1e-4 and float(z.max()) <= item.edges[-1] + 1e-4, item.name
        assert float((z.unsqueeze(-1) - torch.tensor(item.edges)).abs().min()) > 1e-5, f"{item.name} sits on an edge"


def test_the_scale_goes_both_ways() -> None:
    scale = words().scale_table()
    typical = torch.tensor([float(q.typical) for q in INQUIRIES])
    torch.testing.assert_close(from_z(to_z(typical, scale), scale), typical, rtol=1e-4, atol=1e-3)


def test_cultures_are_labels_with_a_bin_a_class() -> None:
    culture = words().items[[q.name for q in INQUIRIES].index("blood_culture")]
    assert culture.labels == ORGANISMS and culture.edges == (-0.5, 0.5, 1.5, 2.5, 3.5, 4.5)


def test_another_vocabulary_is_a_clear_error(tmp_path) -> None:
    other = dataclasses.replace(words(), items=words().items[::-1])
    with pytest.raises(ValueError, match="another vocabulary.*another order"):
        EHRWorldModel(tiny().config, other)
    fewer = dataclasses.replace(words(), treatments=words().treatments[1:])
    with pytest.raises(ValueError, match=f"of its {len(INTERVENTIONS) - 1} interventions.*saline_ml"):
        EHRWorldModel(tiny().config, fewer)
    # ... also when it comes from a checkpoint
    plain = {"kind": KIND, **dataclasses.asdict(tiny().config), "vocabulary": fewer.to_json()}
    checkpoint.save_checkpoint(tmp_path, tiny().state_dict(), plain, "card")
    with pytest.raises(ValueError, match="another vocabulary"):
        EHRWorldModel.load(tmp_path)


def test_a_checkpoint_without_vocabulary_is_refused(tmp_path) -> None:
    checkpoint.save_checkpoint(tmp_path, tiny().state_dict(), {"kind": KIND}, "card")
    with pytest.raises(ValueError, match="no vocabulary"):
        EHRWorldModel.load(tmp_path)


def test_an_item_that_never_varies_is_refused() -> None:
    stays = some_stays()
    flat = stays._replace(value=torch.where(stays.value.isnan(), stays.value, 3.0))
    spec = Spec("sodium_mmol_l", "mmol/L", 90, 200, 140, None)
    with pytest.raises(ValueError, match="sodium_mmol_l.*all equal"):
        build([spec], [], [], [], [flat], 4.0)
