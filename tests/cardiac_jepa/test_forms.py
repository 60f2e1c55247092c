"""The paper's and its authors' forms, the predictor in elapsed time, reversed and chained pairs, real single ECGs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.cardiac_jepa.two_processes import TINY, recordings
from world_models.cardiac_jepa import train
from world_models.cardiac_jepa.config import FULL, JEPAConfig, as_authors, as_paper, with_ode
from world_models.cardiac_jepa.encoder import XResNet1d
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.ode_dynamics import OdeDynamics, horizon
from world_models.cardiac_jepa.pretrain import PairSource
from world_models.cardiac_jepa.real_ecgs import MixedPairs, SingleECGs
from world_models.cardiac_jepa.synthetic_pairs import chained, natural, with_synthetic

CODES = ("I10", "I21", "I25", "I48")


def normals(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def loss_of(config: JEPAConfig, days: float = 30.0) -> tuple[CardiacJEPA, Tensor]:
    model = CardiacJEPA(config)
    action = normals(16, len(config.codes), seed=3).sign()
    value, _ = model.loss(normals(16, 12, 200), normals(16, 12, 200, seed=1), action, torch.full((16,), days), 0)
    return model, value


def test_the_papers_form_looks_at_no_time_and_at_nothing_but_its_loss() -> None:
    paper = as_paper(replace(TINY, inverse=2.0))
    model, value = loss_of(paper)
    assert model.inverse is None and model.action is not None
    assert torch.equal(value, loss_of(paper, days=3000.0)[1])
    terms = model.loss(normals(16, 12, 200), normals(16, 12, 200, seed=1), torch.zeros(16, 3), torch.ones(16), 0)
    assert terms[0].item() == pytest.approx(0.9 * terms[1]["prediction"] + 0.1 * terms[1]["sigreg"], rel=1e-5)


def test_the_authors_projector_and_predictor_have_their_published_sizes() -> None:
    with torch.device("meta"):
        model = CardiacJEPA(as_authors(FULL))
    linear = [tuple(m.weight.shape) for m in model.projector.modules() if isinstance(m, torch.nn.Linear)]
    assert linear == [(2048, 256), (2048, 2048), (256, 2048)]
    assert sum(isinstance(m, torch.nn.BatchNorm1d) for m in model.projector.modules()) == 3
    assert [tuple(m.weight.shape) for m in model.dynamics.modules() if isinstance(m, torch.nn.Linear)] == [
        (512, 512),
        (256, 512),
    ]
    assert model.config.crop_samples == 1000
    _, value = loss_of(as_authors(TINY))
    value.backward()


def test_an_encoder_that_scales_by_the_record_does_not_see_voltage() -> None:
    ecg = normals(3, 12, 400)
    by_record, by_leads = XResNet1d((4, 4, 8), 4, 8, (1, 1), scaling="record"), XResNet1d((4, 4, 8), 4, 8, (1, 1))
    by_leads.load_state_dict(by_record.state_dict())
    for encoder, same in ((by_record.eval(), True), (by_leads.eval(), False)):
        with torch.no_grad():
            assert torch.allclose(encoder(ecg), encoder(3.0 * ecg + 0.5), atol=1e-4) is same
    with torch.no_grad():
        assert bool(torch.isfinite(by_record(torch.zeros(1, 12, 400))).all())


def test_the_ode_begins_at_rest_agrees_with_dopri5_and_goes_on_from_where_it_was() -> None:
    flow = OdeDynamics(6, 4, 16)
    z, e, days = normals(5, 6), normals(5, 4, seed=1), torch.tensor([0.0, 1.0, 30.0, 365.0, 3650.0])
    assert torch.equal(flow(z, e, days), z)
    torch.nn.init.normal_(flow.slope[-1].weight, std=0.3, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = flow(z, e, days)
        torch.testing.assert_close(found, flow(z, e, days, method="dopri5"), atol=2e-3, rtol=2e-3)
        torch.testing.assert_close(found[2:3], flow(z[2:3], e[2:3], days[2:3]), atol=1e-5, rtol=1e-5)
        later = flow(z[:1].expand(5, -1), e[:1].expand(5, -1), days)
    moved = (later - z[:1]).norm(dim=-1)
    assert moved[0] > 0 and bool((horizon(days).diff() > 0).all())  # also within the day, and longer with time
    assert (later[1:] - later[:-1]).norm(dim=-1).min() > 0


def test_an_ode_model_learns_and_its_action_is_told_no_time() -> None:
    model, value = loss_of(with_ode(TINY))
    value.backward()
    assert isinstance(model.dynamics, OdeDynamics)
    with pytest.raises(ValueError, match="layers 'own'"):
        with_ode(as_authors(TINY))


# ---- synthetic pairs


def labels(*rows: str) -> Tensor:
    """One row a word of the codes' last digits: "08" has I10 and I48."""
    digits = {"0": 0, "1": 1, "5": 2, "8": 3}
    out = torch.zeros(len(rows), 4, dtype=torch.bool)
    for i, row in enumerate(rows):
        out[i, [digits[d] for d in row.strip("-")]] = True
    return out


def test_chains_join_a_patients_own_transitions_alone() -> None:
    first, second = torch.tensor([0, 1, 2, 4, 5]), torch.tensor([1, 2, 3, 5, 6])
    a, b = chained(first, second, 3)
    assert set(zip(a.tolist(), b.tolist(), strict=True)) == {(0, 2), (1, 3), (4, 6), (0, 3)}
    assert len(chained(first, second, 1)[0]) == 0 and len(chained(first[:0], second[:0], 3)[0]) == 0


def test_nature_lets_nothing_lasting_go() -> None:
    before, after = labels("0", "8", "1", "1", "-"), labels("-", "-", "-", "5", "8")
    assert natural(before, after, CODES).tolist() == [False, True, False, True, True]


def test_only_what_can_be_undone_is_taken_back_and_only_changes_are_added() -> None:
    label = labels("-", "8", "08", "08", "-", "1", "5")
    first, second = torch.tensor([0, 1, 2, 4, 5]), torch.tensor([1, 2, 3, 5, 6])
    pairs = with_synthetic(first, second, label, CODES, reverse=True)
    added = list(zip(pairs.first[5:].tolist(), pairs.second[5:].tolist(), strict=True))
    assert added == [(1, 0)] and pairs.reversed.tolist() == [False] * 5 + [True]
    chains = with_synthetic(first, second, label, CODES, chain=3)
    more = set(zip(chains.first[5:].tolist(), chains.second[5:].tolist(), strict=True))
    assert more == {(0, 2), (1, 3), (4, 6), (0, 3)} and not bool(chains.reversed.any())
    assert len(with_synthetic(first, second, label, CODES).first) == 5
    with pytest.raises(ValueError, match="chain=0"):
        with_synthetic(first, second, label, CODES, chain=0)


def test_repeating_changed_pairs_keeps_which_way_round_they_are() -> None:
    label = labels("-", "8", "8", "8", "8")
    pairs = with_synthetic(torch.arange(4), torch.arange(1, 5), label, CODES, reverse=True)
    more = train._with_changes(pairs, label)
    assert more.reversed.sum() == 1 and (more.first[-1], more.second[-1]) == (1, 0)
    changed = (label[more.first] != label[more.second]).any(-1)
    assert float(changed[~more.reversed].float().mean()) >= train.CHANGED - 0.05
    assert bool((more.first < more.second)[~more.reversed].all())


def test_a_reversed_pair_has_the_opposite_action_and_the_same_days() -> None:
    data, first, second = recordings(8)
    back = torch.zeros(16, dtype=torch.bool)
    back[8:] = True
    both = PairSource(data, torch.cat([first, second]), torch.cat([second, first]), 128, 0, back)
    assert torch.equal(both.days[:8], both.days[8:]) and bool((both.days > 0).all())
    with pytest.raises(ValueError, match="back in time"):
        PairSource(data, second, first, 128)


# ---- real single ECGs


def test_two_stretches_of_one_record_are_a_pair_without_change() -> None:
    ramp = (torch.arange(6)[:, None, None] + torch.arange(500) / 1024).expand(6, 12, 500)
    singles = SingleECGs(ramp.half(), 3, crop=100, seed=1)
    a, b, action, days = singles.batch(4, 32)
    assert torch.equal(a[:, 0, 0].floor(), b[:, 0, 0].floor()) and not torch.equal(a, b)
    assert action.shape == (32, 3) and action.abs().sum() == 0 and days.sum() == 0
    assert torch.equal(a, singles.batch(4, 32)[0]) and len(singles) == 6
    with pytest.raises(ValueError, match="crop of 501"):
        SingleECGs(ramp, 3, crop=501)


def test_a_share_of_every_batch_is_real() -> None:
    data, first, second = recordings(40)
    pairs = PairSource(data, first, second, 128, 0)
    mixed = MixedPairs(pairs, SingleECGs(torch.full((5, 12, 400), 9.0), 3, 128), 0.25)
    ecg, _, _, days = mixed.batch(3, 16)
    assert (ecg.amin((1, 2)) == 9.0).sum() == 4 and (days == 0).sum() == 4 and len(mixed) == 45
    shared = torch.cat([mixed.batch(3, 16, rank, 2)[3] for rank in range(2)])
    assert sorted(shared.tolist()) == sorted(days.tolist())
    for share, codes in ((1.0, 3), (0.25, 2)):
        with pytest.raises(ValueError, match="share of"):
            MixedPairs(pairs, SingleECGs(torch.zeros(5, 12, 400), codes, 128), share)
