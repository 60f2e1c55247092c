"""Actions on codes of several chapters and levels of ICD-10, and what nature forbids of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.cardiac_jepa.two_processes import TINY
from world_models import keys
from world_models.cardiac_jepa.actions import EmbeddedAction
from world_models.cardiac_jepa.dynamics import ImpossibleActionError, action_of, check_actions, reversible
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.model import CardiacJEPAWorld
from world_models.cardiac_jepa.synthetic_pairs import natural
from world_models.catalog import weights_folder
from world_models.quantities.progression import scars

# Levels and chapters mixed: I48 beside two codes of its own, potassium, a pacemaker, the kidney
MIXED = ("I48", "I48.0", "I4891", "I21.4", "I25.10", "E87.6", "Z95.0", "N18.3", "N18.4")


def known(codes=MIXED) -> EmbeddedAction:
    """A projector with vectors at every level, as after training."""
    action = EmbeddedAction(codes, 8, 16)
    with torch.no_grad():
        action.own.copy_(keys.normal(keys.from_seed(0, 2), 0, "own", action.own.shape[1:]))
    return action


def vector(action: EmbeddedAction, level: str) -> torch.Tensor:
    """[2, embedding]: what is kept for one level."""
    for names, kept in ((action.chapters, action.chapter), (action.blocks, action.block), (action.levels, action.own)):
        if level in names:
            return kept[:, names.index(level)]
    raise AssertionError(f"nothing is kept for {level}")


@pytest.mark.parametrize(
    ("code", "levels"),
    [
        ("I48", ("IX", "I30-I52", "I48")),
        ("I48.0", ("IX", "I30-I52", "I48", "I48.0")),
        ("I4891", ("IX", "I30-I52", "I48", "I48.9", "I48.91")),
        ("E87.6", ("IV", "E70-E90", "E87", "E87.6")),
        ("Z95.0", ("XXI", "Z77-Z99", "Z95", "Z95.0")),
        ("N18.3", ("XIV", "N17-N19", "N18", "N18.3")),
    ],
)
def test_a_codes_vector_is_the_sum_over_its_path(code, levels):
    action = known()
    total = sum(vector(action, level) for level in levels)
    torch.testing.assert_close(action.vectors()[:, MIXED.index(code)], total)


def test_siblings_share_their_parents():
    action = known(("I48.0", "I48.91", "I48.92", "I44.2", "N18.3"))
    before = action.vectors()
    with torch.no_grad():
        action.own[:, action.levels.index("I48")] += 1.0
        action.own[:, action.levels.index("I48.9")] += 2.0
    moved = (action.vectors() - before)[0, :, 0]
    torch.testing.assert_close(moved, torch.tensor([1.0, 3.0, 3.0, 0.0, 0.0]))
    with torch.no_grad():
        action.block[:, action.blocks.index("I30-I52")] += 4.0
    torch.testing.assert_close((action.vectors() - before)[0, :, 0], moved + torch.tensor([4.0, 4.0, 4.0, 4.0, 0.0]))


def test_a_gradient_on_one_code_reaches_all_levels_above_it_and_no_other():
    action = known()
    action(action_of(MIXED, onset=["I48.91"])[None], torch.tensor([30.0])).sum().backward()
    assert action.own.grad is not None
    hit = {level for i, level in enumerate(action.levels) if action.own.grad[:, i].abs().sum() > 0}
    assert hit == {"I48", "I48.9", "I48.91"}


def test_several_chapters_and_levels_in_one_action():
    action, days = known(), torch.tensor([3.0])
    change = action_of(MIXED, onset=["E87.6", "Z950", "i48.91"], resolve=["N18.3"])
    assert change.tolist() == [0, 0, 1, 0, 0, 1, 1, -1, 0]
    vectors = action.vectors()
    inner = vectors[0, [2, 5, 6]].sum(0) + vectors[1, 7]
    elapsed = torch.sigmoid(2.0 * (torch.log1p(days) - action.centres))
    torch.testing.assert_close(action(change[None], days)[0], action.layers(torch.cat([inner, elapsed])))
    # a finer code is read as the lowest level above it that the model has
    assert action_of(MIXED, onset=["I48.20"]).tolist() == action_of(MIXED, onset=["I48"]).tolist()
    assert action_of(MIXED, onset=["I48.01"]).tolist() == action_of(MIXED, onset=["I48.0"]).tolist()
    with pytest.raises(ImpossibleActionError, match=r"N18, block N17-N19\); the nearest it has: N18.3, N18.4"):
        action_of(MIXED, onset=["N18"])  # which of the two is not said
    with pytest.raises(ImpossibleActionError, match=r"E11, block E08-E14\); the nearest it has: E87.6"):
        action_of(MIXED, onset=["E11.9"])


def test_a_new_code_stands_at_the_level_above_it():
    action = known()
    other = action.with_codes(("I48.92", "I48.1", "I49.5", "N18.4", "E78.5", "C50.9", "I48.0"))
    theirs = other.vectors()
    for i, levels in enumerate(
        [
            ("IX", "I30-I52", "I48", "I48.9"),
            ("IX", "I30-I52", "I48"),
            ("IX", "I30-I52"),
            ("XIV", "N17-N19", "N18", "N18.4"),
            ("IV", "E70-E90"),
            (),
            ("IX", "I30-I52", "I48", "I48.0"),
        ]
    ):
        total = sum((vector(action, level) for level in levels), torch.zeros(2, 8))
        torch.testing.assert_close(theirs[:, i], total)


def test_nearest_codes_over_levels():
    action = known()
    with torch.no_grad():
        action.own.zero_()
    near = [code for code, _ in action.nearest_codes("N18.9", 2)]  # not known itself: as its category
    assert near == ["N18.3", "N18.4"]
    assert [code for code, _ in action.nearest_codes("N18.3", 1)] == ["N18.4"]
    assert "I48" not in [code for code, _ in action.nearest_codes("I48.2", 9)]  # which it is read as
    assert len(action.nearest_codes("I50.1", 99)) == len(MIXED)


def test_the_penalty_holds_back_every_level_below_the_block():
    action = known()
    assert len(action.levels) == len(set(action.levels)) == action.own.shape[1] == 16
    assert action.levels[: len(MIXED)] == tuple("I48.91" if code == "I4891" else code for code in MIXED)
    mean = sum(vector(action, level).square().sum() for level in action.levels) / len(action.levels)
    torch.testing.assert_close(action.penalty(), mean)


def test_a_checkpoint_gives_the_same_vectors():
    action, other = known(), EmbeddedAction(MIXED, 8, 16)
    assert set(action.state_dict()) == set(dict(action.named_parameters()))
    other.load_state_dict(action.state_dict())
    assert torch.equal(other.vectors(), action.vectors())


def test_the_shipped_actions_are_what_they_were():
    """Chapter, block and own vector of each code, added in the order that the weights were trained with."""
    action = CardiacJEPAWorld.load(weights_folder("cardiac-jepa-small")).jepa.action
    assert isinstance(action, EmbeddedAction)
    shapes = {name: tuple(kept.shape) for name, kept in action.named_parameters() if "layers" not in name}
    assert shapes == {"own": (2, 24, 64), "block": (2, 8, 64), "chapter": (2, 1, 64)}
    assert action.levels == action.codes and action.chapters == ("IX",)
    first, last = (torch.tensor([int(block[at : at + 2]) for block in action.blocks]) for at in (1, 5))
    number = torch.tensor([int(code[1:]) for code in action.codes])
    block = ((number.unsqueeze(-1) >= first) & (number.unsqueeze(-1) <= last)).int().argmax(-1)
    vectors = action.own + action.block[:, block] + action.chapter[:, torch.zeros(24, dtype=torch.int64)]
    assert torch.equal(action.vectors(), vectors)
    assert torch.equal(action.penalty(), action.own.square().sum() / 24)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match="'I48.0' and 'i480' are both I48.0; each may be given once"):
        EmbeddedAction(("I48.0", "I50", "i480"), 4, 4)
    with pytest.raises(ValueError, match="unknown code 'A10': chapter I of ICD-10 has A00 to B99, such as A09"):
        EmbeddedAction(("I48", "A10"), 4, 4)
    with pytest.raises(ImpossibleActionError, match="unknown code 'A10'.* This model has I48"):
        action_of(MIXED, onset=["A10"])


def test_a_model_learns_of_mixed_codes():
    model = CardiacJEPA(replace(TINY, codes=MIXED)).train()
    action = torch.stack([action_of(MIXED, onset=[code]) for code in ("I48.91", "E87.6", "Z95.0", "N18.3")] * 2)
    ecg = keys.normal(keys.from_seed(1, 16), 0, "ecg", (12, 128))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(3):  # at first the predictor moves nobody, so nothing comes back to the action
        optimiser.zero_grad()
        model.loss(ecg[:8], ecg[8:], action, torch.full((8,), 3.0), step, measure=False)[0].backward()
        optimiser.step()
    assert isinstance(model.action, EmbeddedAction)
    learnt = model.action.own.detach()[0].abs().sum(-1) > 0
    assert {level for level, moved in zip(model.action.levels, learnt.tolist(), strict=True) if moved} == {
        "I48", "I48.9", "I48.91", "E87", "E87.6", "Z95", "Z95.0", "N18", "N18.3",
    }  # fmt: skip


def test_nature_holds_for_finer_codes():
    assert scars(MIXED) == ((3, 4),)
    condition = action_of(MIXED, onset=["I21.4"])[None].bool()
    with pytest.raises(ImpossibleActionError, match="I21.4: it cannot resolve without leaving I25"):
        check_actions(condition, action_of(MIXED, resolve=["I21.4"])[None], MIXED)
    check_actions(condition, action_of(MIXED, resolve=["I21.4"], onset=["I25.10"])[None], MIXED)
    old = action_of(MIXED, onset=["I25.10"])[None]
    with pytest.raises(ImpossibleActionError, match="I25.10: .*irreversible"):
        check_actions(old.bool(), -old, MIXED)
    onsets = torch.stack([action_of(MIXED, onset=[code]) for code in ("I21.4", "I25.10", "I48.0", "E87.6")])
    assert reversible(onsets, MIXED).tolist() == [False, False, True, True]


def test_any_code_of_the_scar_will_do():
    codes = ("I21.4", "I21.9", "I25.10", "I25.2")
    before = torch.tensor([[1, 0, 0, 0]] * 4 + [[1, 1, 0, 0], [0, 0, 1, 0]], dtype=torch.bool)
    after = torch.tensor(
        [[0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]], dtype=torch.bool
    )
    assert natural(before, after, codes).tolist() == [True, True, False, True, False, False]
    for row in (0, 1, 3):
        check_actions(before[row : row + 1], (after[row].float() - before[row].float())[None], codes)
    with pytest.raises(ImpossibleActionError, match="I21.4: .*let I25 set in"):
        check_actions(before[2:3], (after[2].float() - before[2].float())[None], codes)
