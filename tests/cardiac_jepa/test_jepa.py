"""Actions, chains, what nature forbids, the loss and its watch."""

from dataclasses import replace

import pytest
import torch

from tests.cardiac_jepa.two_processes import TINY, recordings
from world_models import keys
from world_models.cardiac_jepa.actions import BinaryAction, EmbeddedAction
from world_models.cardiac_jepa.collapse import CollapsedError, CollapseWatch, effective_rank
from world_models.cardiac_jepa.config import naive, with_vicreg
from world_models.cardiac_jepa.dynamics import (
    Dynamics,
    ImpossibleActionError,
    action_of,
    chain,
    check_actions,
    reversal_error,
    reversible,
)
from world_models.cardiac_jepa.inverse import InverseDynamics
from world_models.cardiac_jepa.jepa import CardiacJEPA
from world_models.cardiac_jepa.probes import crop_features

CHOSEN = ("I10", "I21", "I25", "I44", "I48")


def sample(*shape: int, name: str = "x") -> torch.Tensor:
    return keys.normal(keys.from_seed(0, shape[0]), 0, name, shape[1:])


def embedded() -> EmbeddedAction:
    """A projector whose codes have vectors of their own, as after training."""
    action = EmbeddedAction(CHOSEN, 8, 16)
    with torch.no_grad():
        action.own.copy_(sample(2, 5, 8, name="own"))
    return action


def test_onset_and_resolution_are_no_opposites():
    action = embedded()
    on = action_of(CHOSEN, onset=["I48"])[None]
    inner = action.vectors()
    assert not torch.allclose(inner[0], -inner[1])
    days = torch.tensor([30.0])
    assert not torch.allclose(action(on, days), action(-on, days))
    assert not torch.allclose(action(on, days), action(on, 100 * days))
    assert not torch.allclose(action(on, days), action(0 * on, days))


def test_time_is_smooth_and_bounded():
    action = embedded()
    a = action_of(CHOSEN, onset=["I48"]).expand(5, -1)
    out = action(a, torch.tensor([0.0, 1e-3, 1e5, 1e9, float("inf")]))
    assert bool(torch.isfinite(out).all())
    torch.testing.assert_close(out[0], out[1], atol=1e-3, rtol=0)
    torch.testing.assert_close(out[3], out[4], atol=1e-3, rtol=0)
    assert torch.equal(action(a[:1], torch.tensor([-3.0])), action(a[:1], torch.tensor([0.0])))


def test_the_papers_action_does_not_see_time():
    action = BinaryAction(CHOSEN, 8, 16)
    on = action_of(CHOSEN, onset=["I48"])[None]
    assert torch.equal(action(on, torch.tensor([1.0])), action(on, torch.tensor([900.0])))
    assert not torch.equal(action(on, torch.tensor([1.0])), action(-on, torch.tensor([1.0])))
    assert float(action.penalty()) == 0


def test_other_codes_keep_what_is_known_and_borrow_the_rest():
    action = embedded()
    other = action.with_codes(("I48", "I49", "I83", "I10"))  # I49 shares I48's block; I83's block is new
    mine, theirs = action.vectors(), other.vectors()
    torch.testing.assert_close(theirs[:, 0], mine[:, CHOSEN.index("I48")])
    torch.testing.assert_close(theirs[:, 3], mine[:, CHOSEN.index("I10")])
    block = action.block[:, action.blocks.index("I30-I52")]
    torch.testing.assert_close(theirs[:, 1], block + action.chapter[:, 0])
    torch.testing.assert_close(theirs[:, 2], action.chapter[:, 0])
    days = torch.tensor([7.0])
    same = action_of(CHOSEN, onset=["I48"], resolve=["I10"])[None]
    moved = action_of(other.codes, onset=["I48"], resolve=["I10"])[None]
    torch.testing.assert_close(other(moved, days), action(same, days))
    assert action.penalty().item() > 0


def test_nearest_codes_follow_the_vectors():
    action = embedded()
    with torch.no_grad():
        action.own[:, CHOSEN.index("I25")] = (
            action.vectors()[:, CHOSEN.index("I48")] * 2 - (action.vectors() - action.own)[:, CHOSEN.index("I25")]
        )
    code, cosine = action.nearest_codes("I48", 1)[0]
    assert code == "I25" and cosine == pytest.approx(1.0, abs=1e-5)
    assert len(action.nearest_codes("I49", 10)) == 5  # not known itself: all that are
    with torch.no_grad():
        action.own.zero_()
    assert {c for c, _ in action.nearest_codes("I49", 2)} == {"I44", "I48"}  # its block
    with pytest.raises(ValueError, match="nothing is known of 'J45', of chapter X; give a code of IX"):
        action.nearest_codes("J45")
    with pytest.raises(ValueError, match="unknown code 'I17'"):
        action.nearest_codes("I17")


def test_untrained_dynamics_change_nothing_and_then_follow_a_chain():
    dynamics, z = Dynamics(6, 3, 16, 2), sample(4, 6)
    assert torch.equal(dynamics(z, sample(4, 3, name="e")), z)

    def predict(z, action, days):
        return z + action.sum(-1, keepdim=True) + days.unsqueeze(-1)

    path = chain(predict, z, torch.ones(4, 3, 2), torch.full((4, 3), 0.5))
    assert path.shape == (4, 3, 6)
    torch.testing.assert_close(path[:, -1], z + 7.5)
    assert chain(predict, z, torch.ones(4, 0, 2), torch.ones(4, 0)).shape == (4, 0, 6)


def test_words_to_actions():
    assert action_of(CHOSEN, onset=["I48.91", "I44"], resolve="I21").tolist() == [0, -1, 0, 1, 1]
    with pytest.raises(ImpossibleActionError, match="nearest it has: I48, I44"):
        action_of(CHOSEN, onset=["I47"])
    with pytest.raises(ImpossibleActionError, match="no code 'X99' .*none of chapter XX; it has I10, .*I48. Choose"):
        action_of(CHOSEN, onset=["X99"])
    with pytest.raises(ImpossibleActionError, match="unknown code 'X55'.* This model has I10, I21"):
        action_of(CHOSEN, onset=["X55"])
    with pytest.raises(ImpossibleActionError, match="at once"):
        action_of(CHOSEN, onset=["I48"], resolve=["I48.0"])


@pytest.mark.parametrize(
    ("present", "onset", "resolve", "words"),
    [
        ((), (), ("I48",), "row 1, I48: it cannot resolve: the patient does not have it"),
        (("I48",), ("I48",), (), "row 1, I48: it cannot set in: the patient has it already"),
        (("I25",), (), ("I25",), "row 1, I25: .*irreversible"),
        (("I21",), (), ("I21",), "row 1, I21: .*let I25 set in"),
    ],
)
def test_impossible_actions_name_row_code_and_reason(present, onset, resolve, words):
    condition = torch.stack([torch.zeros(5), action_of(CHOSEN, onset=present)]).bool()
    action = torch.stack([torch.zeros(5), action_of(CHOSEN, onset=onset, resolve=resolve)])
    with pytest.raises(ImpossibleActionError, match=words):
        check_actions(condition, action, CHOSEN)


def test_possible_actions_pass_and_values_are_checked():
    condition = action_of(CHOSEN, onset=["I21", "I48"])[None].bool()
    check_actions(condition, action_of(CHOSEN, onset=["I25"], resolve=["I21", "I48"])[None], CHOSEN)
    check_actions(condition, torch.zeros(1, 5), CHOSEN)
    for value in (0.5, 2.0, float("nan")):
        with pytest.raises(ImpossibleActionError, match="I44.*not"):
            check_actions(condition, torch.tensor([[0, 0, 0, value, 0]]), CHOSEN)
    with pytest.raises(ValueError, match=r"\[B, 5\]"):
        check_actions(condition, torch.zeros(1, 4), CHOSEN)


def test_what_can_be_taken_back():
    actions = torch.stack(
        [
            action_of(CHOSEN, onset=["I48"]),
            action_of(CHOSEN, onset=["I10"]),
            action_of(CHOSEN, onset=["I21"]),
            action_of(CHOSEN, resolve=["I44"]),
            torch.zeros(5),
        ]
    )
    assert reversible(actions, CHOSEN).tolist() == [True, False, False, True, True]


def test_reversal_error_of_known_dynamics():
    push = sample(5, 4, name="push")
    actions = torch.stack([action_of(CHOSEN, onset=[c]) for c in ("I48", "I44", "I25")] + [torch.zeros(5)])
    z, days = sample(4, 4), torch.ones(4)

    def translation(z, action, days):
        return z + action @ push

    back = reversal_error(translation, z, actions, days, CHOSEN)
    assert back.reversible == pytest.approx(0, abs=1e-9) and back.irreversible == pytest.approx(0, abs=1e-9)
    assert (back.pairs, back.irreversible_pairs) == (2, 1)
    one_way = reversal_error(lambda z, a, d: z + a.clamp(min=0) @ push, z, actions, days, CHOSEN)
    assert one_way.reversible == pytest.approx(1) and one_way.irreversible == pytest.approx(1)


def pair(config, rows: int = 32):
    data, first, second = recordings(rows)
    ecg = data.ecg[..., :128].float()
    action = data.label[second].float() - data.label[first].float()
    return ecg[first], ecg[second], action, data.days[second]


INVERSE = replace(TINY, inverse=0.3)


@pytest.mark.parametrize("config", [TINY, naive(TINY), with_vicreg(TINY), replace(TINY, action="binary"), INVERSE])
def test_loss_trains_every_part(config):
    model = CardiacJEPA(config).train()
    with torch.no_grad():  # away from the zero start, through which the action gets no gradient
        model.dynamics.outlet[-1].weight.copy_(0.1 * sample(12, 24))
        if model.inverse is not None:
            model.inverse.layer.weight.copy_(0.1 * sample(3, 12, name="inverse"))
    loss, metrics = model.loss(*pair(config), step=0)
    loss.backward()
    assert all(p.grad is not None and bool(torch.isfinite(p.grad).all()) for p in model.parameters())
    used = [name for name, p in model.named_parameters() if p.grad.abs().max() == 0]
    assert not [n for n in used if not n.startswith("encoder")], "a part gets no gradient"
    assert {"prediction", "std", "rank", "rank_h"} <= metrics.keys()
    if config.regulariser == "sigreg":
        extra = config.own_penalty * model.action.penalty() if config.action == "embedded" and model.action else 0.0
        expected = 0.95 * metrics["prediction"] + 0.05 * metrics["sigreg"] + float(torch.as_tensor(extra).detach())
        expected += config.inverse * metrics.get("inverse", 0.0)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
    else:
        assert {"variance", "covariance"} <= metrics.keys()
    assert ("zero_action_ratio" in metrics) == (config.conditioning == "action")


def test_the_naive_model_is_told_nothing():
    model = CardiacJEPA(naive(TINY)).eval()
    z, action = sample(3, 12), torch.eye(3)
    assert torch.equal(model.predict(z, action, torch.ones(3)), model.predict(z, -action, torch.zeros(3)))
    assert not [n for n, _ in model.named_parameters() if n.startswith("action")]


def test_inverse_dynamics_reads_what_the_difference_tells():
    action = torch.tensor([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    z_a, shift = sample(4, 12), sample(3, 12, name="shift")
    z_b = z_a + action @ shift
    reader = InverseDynamics(12, 3)
    assert reader.loss(z_a, z_b, action).item() == 1.0  # untrained, nothing is read
    with torch.no_grad():
        reader.layer.weight.copy_(torch.linalg.pinv(shift).T)
    assert reader.loss(z_a, z_b, action).item() < 1e-9
    assert reader.loss(z_a, z_b, -action).item() == pytest.approx(4.0)
    nobody = reader.loss(z_a, z_a, 0 * action)
    assert nobody.item() == 0.0
    assert CardiacJEPA(naive(INVERSE)).inverse is None  # it is told no action, not even by the loss
    with pytest.raises(ValueError, match="inverse .* is -1"):
        replace(TINY, inverse=-1.0)


def test_latents_of_one_patient_and_crops():
    model = CardiacJEPA(TINY)
    ecg = pair(TINY)[0]
    model.latent(ecg)
    model.eval()
    torch.testing.assert_close(model.latent(ecg[:1]), model.latent(ecg)[:1], rtol=1e-4, atol=1e-5)
    long = torch.cat([ecg, ecg.flip(-1), ecg[..., :64]], dim=-1)  # 320 = 128 + 128 + 64
    h = crop_features(model.encode, long, 128)
    expected = (model.encode(long[..., :128]) + model.encode(long[..., 128:256]) + model.encode(long[..., 192:])) / 3
    torch.testing.assert_close(h, expected)


def test_effective_rank():
    assert effective_rank(torch.zeros(50, 8)) == pytest.approx(1.0)
    assert effective_rank(sample(4000, 8)) == pytest.approx(8.0, abs=0.05)
    low = sample(500, 3) @ sample(3, 8, name="low")
    assert 2.0 < effective_rank(low) < 3.01
    assert effective_rank(low + 100) == pytest.approx(effective_rank(low), rel=1e-3)
    assert effective_rank(sample(5, 64)) <= 4.01  # no more than rows less one


def test_collapse_watch():
    watch = CollapseWatch(min_std=0.1, min_rank=4, patience=3, from_step=10)
    bad, good = {"std": 1.0, "rank": 1.5}, {"std": 1.0, "rank": 9.0}
    for step, metrics in enumerate([bad] * 9 + [good, bad, bad, good, bad, bad]):
        watch.check(step, metrics)
    with pytest.raises(CollapsedError, match=r"rank is 1.5 at step 15, under 4 for 3 checks.*Raise `weight`"):
        watch.check(15, bad)
    blind = CollapseWatch(patience=1, from_step=0)
    with pytest.raises(CollapsedError, match="std is nan"):
        blind.check(0, {"std": float("nan"), "rank": 9.0})
